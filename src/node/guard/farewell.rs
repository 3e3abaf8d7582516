//! Keeps why this node resets itself: in a small file of its own and in the kernel's log, and on
//! each shared disk, where the other nodes can read it even if this one never comes back.
//!
//! ```text
//!                .--> thread "farewell"         the file, the kernel's log
//!  guard --words-+--> thread "farewell-disk"    second sector of its heartbeat slot on disk 0
//!                '--> thread "farewell-disk"    ... on disk 1
//! ```
//! Each of them may wait for as long as its disk does and keeps no other from writing. What they
//! need is opened beforehand. A disk that is not there is looked for again from time to time; if
//! there is none when the node falls, nothing is written to it and nothing waits for it. One that
//! is open is neither read nor written until then: a thread that hangs in a disk keeps its process
//! from ending. It is closed when its path leads elsewhere or nowhere: the kernel can then forget a
//! disk that was taken away.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, SFlag, fstat, stat};
use standfast_sys::disk::{DirectDisk, Error, Sectors};

use super::STACK_BYTES;
use crate::frame::Keyring;
use crate::link::AreaDisk;
use crate::model::{ClusterId, NodeId};
use crate::storage::area::{
    AreaNonce, SECTOR_LEN, SLOT_LEN, StoredWords, encode_words, read_header,
};
use crate::storage::last_words::{LAST_WORDS_LEN, LastWords};

/// Where the kernel takes lines for its own log.
const KMSG: &str = "/dev/kmsg";

/// Before a line for the kernel's log: critical, so that a console which is told to be quiet shows
/// it too (`KERN_CRIT`, Documentation/core-api/printk-basics.rst).
const CRITICAL: &str = "<2>";

/// How often a disk that was not there, or held no area of this cluster, is tried again, and one
/// that was there looked for.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Keeps what is said last, on threads of their own.
#[derive(Debug, Default)]
pub struct Farewell {
    keepers: Vec<Keeper>,
}

/// One place where words are kept, as the guard sees it.
#[derive(Debug)]
struct Keeper {
    words: Sender<Word>,
    /// Written, or known to be in vain.
    kept: Arc<AtomicBool>,
}

/// What is said to a keeper.
#[derive(Clone, Copy, Debug)]
enum Word {
    /// To be kept.
    Last(LastWords),
    /// Those were not the last: the node lives.
    TakenBack,
}

/// Words that may wait for a keeper: all there ever are.
const WORDS_WAITING_MAX: usize = 2;

/// Whose words these are, for those who read them on a disk.
#[derive(Clone, Debug)]
pub struct Speaker {
    /// The cluster whose area it must be.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Start of the daemon within the boot.
    pub start: u32,
    /// The cluster's keys.
    pub keyring: Keyring,
}

impl Farewell {
    /// Opens, and where needed makes, the file at `path`, so that later one write to a place it has
    /// already is enough. The words go to the kernel's log too, if there is one. May block.
    ///
    /// # Errors
    ///
    /// The file cannot be made, or there is no thread.
    pub fn keep_in(&mut self, path: &Path, kernel_log: Option<File>) -> io::Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.mode(0o600).custom_flags(OFlag::O_DSYNC.bits());
        let file = options.open(path)?;
        if file.metadata()?.len() != LAST_WORDS_LEN as u64 {
            file.set_len(0)?;
            file.write_all_at(&[0; LAST_WORDS_LEN], 0)?;
        }
        self.spawn("farewell", move |said, kept| {
            keep(&file, kernel_log, said, kept);
        })
    }

    /// Has the words written to the area on `device` too. Opened by the thread: never blocks, and
    /// the device need not be there yet.
    ///
    /// # Errors
    ///
    /// There is no thread.
    pub fn keep_on(&mut self, device: PathBuf, speaker: Speaker) -> io::Result<()> {
        let mut shared = Shared {
            device,
            speaker,
            place: None,
        };
        self.spawn("farewell-disk", move |said, kept| shared.keep(said, kept))
    }

    fn spawn(
        &mut self,
        name: &str,
        body: impl FnOnce(&Receiver<Word>, &AtomicBool) + Send + 'static,
    ) -> io::Result<()> {
        let (words, said) = bounded(WORDS_WAITING_MAX);
        let kept = Arc::new(AtomicBool::new(false));
        let mark = Arc::clone(&kept);
        std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || body(&said, &mark))?;
        self.keepers.push(Keeper { words, kept });
        Ok(())
    }

    /// Has them kept; never waits.
    pub(super) fn say(&self, words: LastWords) {
        self.tell(Word::Last(words));
    }

    /// Has them forgotten where no frame of the core wipes them; never waits.
    pub(super) fn take_back(&self) {
        self.tell(Word::TakenBack);
    }

    fn tell(&self, word: Word) {
        for keeper in &self.keepers {
            // Each is told once, and there is room for both.
            let _ = keeper.words.try_send(word);
        }
    }

    /// Everywhere, or in vain.
    pub(super) fn is_kept(&self) -> bool {
        let kept = |keeper: &Keeper| keeper.kept.load(Ordering::Acquire);
        self.keepers.iter().all(kept)
    }
}

/// Where the kernel takes lines for its log, if it does.
pub(super) fn kernel_log() -> Option<File> {
    OpenOptions::new().write(true).open(KMSG).ok()
}

fn keep(file: &File, kernel_log: Option<File>, said: &Receiver<Word>, kept: &AtomicBool) {
    while let Ok(word) = said.recv() {
        let Word::Last(words) = word else {
            let _ = file.write_all_at(&[0; LAST_WORDS_LEN], 0);
            continue;
        };
        if let Some(mut log) = kernel_log.as_ref() {
            let (epoch, tasks) = (words.epoch, words.tasks);
            let line = format!(
                "{CRITICAL}standfast: resetting this node at epoch {epoch}, tasks={tasks:#x}: {}\n",
                words.reason.words()
            );
            let _ = log.write_all(line.as_bytes());
        }
        // What cannot be written must not keep the node from its reset.
        let _ = file.write_all_at(&words.encode(), 0);
        kept.store(true, Ordering::Release);
    }
}

/// One shared disk.
struct Shared {
    device: PathBuf,
    speaker: Speaker,
    place: Option<Place>,
}

/// The place in an area that is open.
struct Place {
    disk: AreaDisk,
    nonce: AreaNonce,
    /// Byte offset of the sector.
    offset: u64,
    /// The logical block with the sector in it.
    block: Sectors,
}

impl Shared {
    fn keep(&mut self, said: &Receiver<Word>, kept: &AtomicBool) {
        loop {
            self.look();
            match said.recv_timeout(LOOK_EVERY) {
                Ok(Word::Last(words)) => {
                    if self.write(words).is_none() {
                        // The device may be another one by now.
                        self.place = None;
                        self.look();
                        let _ = self.write(words);
                    }
                    kept.store(true, Ordering::Release);
                }
                // The core's next frame wipes them.
                Ok(Word::TakenBack) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Asks no disk that is open and where it was.
    fn look(&mut self) {
        if self
            .place
            .as_ref()
            .is_some_and(|place| !self.is_there(place))
        {
            self.place = None;
        }
        if self.place.is_none() {
            self.place = self.open();
        }
    }

    /// Does the path still lead to what is open? Known from its name alone.
    fn is_there(&self, place: &Place) -> bool {
        let open = fstat(place.disk.disk().as_fd());
        let named = stat(&self.device);
        match (open, named) {
            (Ok(open), Ok(named)) => identity(&open) == identity(&named),
            (Err(_), _) | (_, Err(_)) => false,
        }
    }

    /// The device, if it holds this cluster's area. The core tells what is wrong with it.
    fn open(&self) -> Option<Place> {
        let disk = AreaDisk::new(DirectDisk::open(&self.device, true).ok()?);
        let Speaker {
            cluster,
            node,
            ref keyring,
            ..
        } = self.speaker;
        let (header, _) = read_header(&disk, keyring, &cluster).ok()?;
        Some(Place {
            disk,
            nonce: header.nonce,
            offset: header.geometry.last_words(node)?,
            block: Sectors::new(SLOT_LEN),
        })
    }

    /// `None` if it is not on the disk.
    fn write(&mut self, words: LastWords) -> Option<()> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let wall_ms = since.map_or(0, |since| since.as_millis() as u64);
        let (node, keyring) = (self.speaker.node, &self.speaker.keyring);
        let place = self.place.as_mut()?;
        let stored = StoredWords {
            words,
            start: self.speaker.start,
            wall_ms,
        };
        let mut sector = [0; SECTOR_LEN];
        encode_words(&place.nonce, node, &stored, keyring, &mut sector);
        place.write(&sector).ok()
    }
}

/// A block device is its number, whatever names it has; a file is its inode.
fn identity(stat: &FileStat) -> (bool, u64, u64) {
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFBLK {
        (true, stat.st_rdev, 0)
    } else {
        (false, stat.st_dev, stat.st_ino)
    }
}

impl Place {
    /// Writes the sector. On a disk that writes no less than 4096 bytes the frame before it goes
    /// with it, as it was read: should the core have written a newer one in between, that is gone,
    /// and the others refuse the one that is back, for frames are numbered.
    fn write(&mut self, sector: &[u8; SECTOR_LEN]) -> Result<(), Error> {
        let disk = self.disk.disk();
        let length = (disk.block_bytes() as usize).max(SECTOR_LEN);
        let begin = self.offset - self.offset % length as u64;
        let at = (self.offset - begin) as usize;
        let block = &mut self.block[..length];
        if length > SECTOR_LEN {
            disk.read_at(begin, block)?;
        }
        block[at..at + SECTOR_LEN].copy_from_slice(sector);
        disk.write_at(begin, block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::area::{FormatOptions, Medium, area_bytes, format};
    use crate::storage::last_words::Reason;
    use crate::time::Instant;

    const WORDS: LastWords = LastWords {
        reason: Reason::NotStopped,
        boot: [7; 16],
        epoch: 17,
        tasks: 1,
        at: Instant(9_000_000_000),
    };

    fn wait_for(farewell: &Farewell) {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !farewell.is_kept() {
            assert!(std::time::Instant::now() < deadline, "it is never kept");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_was_said_is_in_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state").join("last-words");
        let mut farewell = Farewell::default();
        farewell.keep_in(&path, None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), [0; LAST_WORDS_LEN]);
        assert!(!farewell.is_kept());
        farewell.say(WORDS);
        wait_for(&farewell);
        let words = LastWords::decode(&fs::read(&path).unwrap());
        assert_eq!(words, Some(WORDS));
        // The next life finds them: they are not overwritten before they were told.
        Farewell::default().keep_in(&path, None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), WORDS.encode());
    }

    fn speaker() -> Speaker {
        Speaker {
            cluster: [1; 16],
            node: NodeId::new(1).unwrap(),
            start: 1,
            keyring: Keyring::new(&[2; 32], &[1; 16]),
        }
    }

    /// A file with an area of the speaker's cluster.
    fn area_in(path: &Path) {
        let options = FormatOptions {
            cluster: [1; 16],
            nonce: [9; 16],
            block_size: 512,
            nodes_max: 2,
            medium: Medium::Paxos,
            roster: None,
        };
        let file = File::create(path).unwrap();
        file.set_len(area_bytes(2).unwrap()).unwrap();
        let disk = AreaDisk::new(DirectDisk::open(path, true).unwrap());
        format(&disk, &options, &speaker().keyring).unwrap();
    }

    /// Open files of this process that lead to this path.
    fn open_at(path: &Path) -> usize {
        let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let leads = open.filter_map(|file| fs::read_link(file.path()).ok());
        leads.filter(|target| target == path).count()
    }

    #[test]
    fn a_disk_that_is_taken_away_is_let_go_of_and_found_under_its_new_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        area_in(&path("sda"));
        area_in(&path("sdb"));
        std::os::unix::fs::symlink(path("sda"), path("by-id")).unwrap();
        let mut shared = Shared {
            device: path("by-id"),
            speaker: speaker(),
            place: None,
        };
        shared.look();
        shared.look();
        assert_eq!((open_at(&path("sda")), open_at(&path("sdb"))), (1, 0));
        // Gone, and not back yet.
        fs::remove_file(path("by-id")).unwrap();
        shared.look();
        assert_eq!(open_at(&path("sda")), 0);
        std::os::unix::fs::symlink(path("sdb"), path("by-id")).unwrap();
        shared.look();
        assert_eq!((open_at(&path("sda")), open_at(&path("sdb"))), (0, 1));
        // Another device under the same name.
        fs::rename(path("sda"), path("sdb")).unwrap();
        shared.look();
        let before = fs::read(path("sdb")).unwrap();
        shared.write(WORDS).unwrap();
        assert_ne!(fs::read(path("sdb")).unwrap(), before);
    }

    #[test]
    fn a_disk_that_is_not_there_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let speaker = speaker();
        let blank = directory.path().join("blank");
        fs::write(&blank, vec![0; 1 << 20]).unwrap();
        let mut farewell = Farewell::default();
        for device in [directory.path().join("none"), blank.clone()] {
            farewell.keep_on(device, speaker.clone()).unwrap();
        }
        assert!(!farewell.is_kept());
        farewell.say(WORDS);
        wait_for(&farewell);
        // What is no area of this cluster is left alone.
        assert_eq!(fs::read(&blank).unwrap(), vec![0; 1 << 20]);
    }
}
