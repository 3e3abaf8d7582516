//! Words of memory that several processes see at the same time: lease deadline, progress, status.
//!
//! A file on tmpfs, mapped by all of them. Only whole 64-bit words are read and written, each
//! atomically, so a process that dies in the middle leaves old or new words, never half of one.
//! Nothing here blocks after opening. A page is memory: it ends with the boot, as everything in it
//! should.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::error::{Failed, Naming};

/// How often a reader begins again while a record is being written. A writer needs some
/// nanoseconds; one that was stopped or killed in between must not hold up its readers.
const READ_ATTEMPTS: u32 = 100;

const WORD_BYTES: usize = size_of::<u64>();

/// A page that can be written. One process writes a given word or record, any number read it.
#[derive(Debug)]
pub struct SharedPage {
    mapping: Mapping,
}

/// A page that can only be read, by anybody who may read the file.
#[derive(Debug)]
pub struct SharedView {
    mapping: Mapping,
}

impl SharedPage {
    /// Makes a new page of `words` zeros at `path`, mode 0600, whole at once and in place of what
    /// was there. Who has the old one open keeps it: the new one is another page.
    ///
    /// # Errors
    ///
    /// The directory cannot be written, or the file system is full (it is filled here, so that no
    /// later access can fail). `EINVAL` for no words at all.
    pub fn create(path: &Path, words: usize) -> Result<SharedPage, Failed> {
        let made = || -> io::Result<Mapping> {
            let mut beside = path.as_os_str().to_owned();
            beside.push(format!(".{}", std::process::id()));
            // Left by a process of this number that died in here.
            let _ = fs::remove_file(&beside);
            let mut options = OpenOptions::new();
            let file = options
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&beside)?;
            let bytes = i64::try_from(words * WORD_BYTES).map_err(io::Error::other)?;
            fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
            let mapping = Mapping::new(&file, words, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
            fs::rename(&beside, path)?;
            Ok(mapping)
        };
        let mapping = made().naming("create shared page", path.display())?;
        Ok(SharedPage { mapping })
    }

    /// Opens the page of exactly `words` words that another process made. Does not follow a
    /// symbolic link.
    ///
    /// # Errors
    ///
    /// There is none, it has another size (kind `InvalidData`), or this user may not write it.
    pub fn open(path: &Path, words: usize) -> Result<SharedPage, Failed> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let mapping = open(path, words, protection).naming("open shared page", path.display())?;
        Ok(SharedPage { mapping })
    }

    /// All words. A single one is loaded and stored as it is; several that belong together are a
    /// record.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        self.mapping.words()
    }

    /// Writes a record at `offset`: one word of sequence number, then `record`. Only one process
    /// and thread writes a given record; one that takes over from a dead writer just writes.
    ///
    /// # Panics
    ///
    /// When the record does not fit into the page: a mistake in the layout, not of an input.
    pub fn write_record(&self, offset: usize, record: &[u64]) {
        let words = &self.words()[offset..=offset + record.len()];
        let (sequence, data) = words.split_first().expect("one word more than the record");
        // Odd while writing; already odd if an earlier writer died in the middle.
        let writing = sequence.load(Ordering::Relaxed) | 1;
        sequence.store(writing, Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, value) in data.iter().zip(record) {
            word.store(*value, Ordering::Relaxed);
        }
        sequence.store(writing.wrapping_add(1), Ordering::Release);
    }

    /// Reads the record at `offset`; see [`SharedView::read_record`].
    #[must_use]
    pub fn read_record<const LENGTH: usize>(&self, offset: usize) -> Option<[u64; LENGTH]> {
        read_record(self.words(), offset)
    }
}

impl SharedView {
    /// Opens the page of exactly `words` words for reading. Does not follow a symbolic link.
    ///
    /// # Errors
    ///
    /// There is none, it has another size (kind `InvalidData`), or this user may not read it.
    pub fn open(path: &Path, words: usize) -> Result<SharedView, Failed> {
        let mapping =
            open(path, words, ProtFlags::PROT_READ).naming("view shared page", path.display())?;
        Ok(SharedView { mapping })
    }

    /// The word at `index`; `None` beyond the end.
    #[must_use]
    pub fn load(&self, index: usize) -> Option<u64> {
        self.mapping
            .words()
            .get(index)
            .map(|word| word.load(Ordering::Acquire))
    }

    /// Reads the record at `offset` as one write left it. `None` if it is being written all the
    /// time, or if its writer stopped in the middle: keep the last value and try again later.
    ///
    /// # Panics
    ///
    /// When the record does not fit into the page.
    #[must_use]
    pub fn read_record<const LENGTH: usize>(&self, offset: usize) -> Option<[u64; LENGTH]> {
        read_record(self.mapping.words(), offset)
    }
}

fn read_record<const LENGTH: usize>(words: &[AtomicU64], offset: usize) -> Option<[u64; LENGTH]> {
    let words = &words[offset..=offset + LENGTH];
    let (sequence, data) = words.split_first().expect("one word more than the record");
    for _ in 0..READ_ATTEMPTS {
        let before = sequence.load(Ordering::Acquire);
        let record = std::array::from_fn(|index| data[index].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let after = sequence.load(Ordering::Relaxed);
        if before == after && before.is_multiple_of(2) {
            return Some(record);
        }
        std::hint::spin_loop();
    }
    None
}

fn open(path: &Path, words: usize, protection: ProtFlags) -> io::Result<Mapping> {
    let write = protection.contains(ProtFlags::PROT_WRITE);
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(write)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() != (words * WORD_BYTES) as u64 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not a page of this size",
        ));
    }
    Mapping::new(&file, words, protection)
}

/// The mapped words; unmapped when dropped.
#[derive(Debug)]
struct Mapping {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is only reached through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as for Send; shared access is what atomics are for.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: &File, words: usize, protection: ProtFlags) -> io::Result<Mapping> {
        let length = NonZeroUsize::new(words * WORD_BYTES).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: the kernel chooses an unused address range, so no existing memory is touched.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, file, 0) }?;
        Ok(Mapping {
            start: start.cast(),
            words,
        })
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: start is page-aligned and mapped for this many words until drop; any bits are
        // valid, and only SharedPage, whose mapping is writable, lets anybody store through the
        // reference.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this range was mapped by new and no reference to it outlives self.
        let unmapped = unsafe { munmap(self.start.cast(), self.words * WORD_BYTES) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping: {unmapped:?}");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::process::{Command, Stdio};

    use super::*;
    use crate::testing::eventually;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").unwrap()
    }

    #[test]
    fn words_are_shared_between_all_who_opened_the_page() {
        let directory = directory();
        let path = directory.path().join("page");
        let page = SharedPage::create(&path, 512).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(
            (page.words().len(), path.metadata().unwrap().len()),
            (512, 4096)
        );
        let other = SharedPage::open(&path, 512).unwrap();
        let view = SharedView::open(&path, 512).unwrap();
        assert!(
            page.words()
                .iter()
                .all(|word| word.load(Ordering::Relaxed) == 0)
        );
        other.words()[511].store(7, Ordering::Release);
        assert_eq!(page.words()[511].load(Ordering::Acquire), 7);
        assert_eq!((view.load(511), view.load(512)), (Some(7), None));
        page.write_record(8, &[1, 2, 3]);
        assert_eq!(view.read_record(8), Some([1, 2, 3]));
        assert_eq!(other.read_record(8), Some([1, 2, 3]));
    }

    #[test]
    fn a_page_of_another_size_or_behind_a_link_is_refused() {
        let directory = directory();
        let path = directory.path().join("page");
        assert_eq!(
            SharedPage::open(&path, 8).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        drop(SharedPage::create(&path, 8).unwrap());
        assert_eq!(
            SharedPage::open(&path, 9).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        assert_eq!(
            SharedPage::open(&link, 8).unwrap_err().errno(),
            Some(libc::ELOOP)
        );
        assert!(SharedPage::create(&path, 0).is_err());
    }

    #[test]
    fn a_new_page_does_not_touch_the_old_one() {
        let directory = directory();
        let path = directory.path().join("page");
        let old = SharedPage::create(&path, 4).unwrap();
        old.words()[0].store(1, Ordering::Relaxed);
        let new = SharedPage::create(&path, 4).unwrap();
        assert_eq!(new.words()[0].load(Ordering::Relaxed), 0);
        assert_eq!(old.words()[0].load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_record_whose_writer_died_is_not_read_until_the_next_write() {
        let directory = directory();
        let page = SharedPage::create(&directory.path().join("page"), 4).unwrap();
        page.write_record(0, &[5, 6, 7]);
        page.words()[0].fetch_add(1, Ordering::Relaxed);
        page.words()[1].store(9, Ordering::Relaxed);
        assert_eq!(page.read_record::<3>(0), None);
        page.write_record(0, &[1, 2, 3]);
        assert_eq!(page.read_record(0), Some([1, 2, 3]));
    }

    #[test]
    fn records_are_never_torn() {
        let directory = directory();
        let path = directory.path().join("page");
        let page = SharedPage::create(&path, 16).unwrap();
        let view = SharedView::open(&path, 16).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for value in 1..=200_000_u64 {
                    page.write_record(3, &[value; 8]);
                }
            });
            let mut last = 0;
            eventually("the last record", || {
                let record: [u64; 8] = view.read_record(3)?;
                assert!(record.iter().all(|word| *word == record[0]), "{record:?}");
                assert!(record[0] >= last);
                last = record[0];
                (last == 200_000).then_some(())
            });
        });
    }

    #[test]
    fn another_process_sees_the_words_and_answers() {
        const NAME: &str = "sharedpage::tests::another_process_sees_the_words_and_answers";
        const PATH: &str = "STANDFAST_SYS_TEST_PAGE";
        if let Ok(path) = std::env::var(PATH) {
            let page = SharedPage::open(Path::new(&path), 8).unwrap();
            let [a, b] = eventually("a question", || page.read_record(0).filter(|[a, _]| *a > 0));
            page.words()[7].store(a + b, Ordering::Release);
            return;
        }
        let directory = directory();
        let path = directory.path().join("page");
        let page = SharedPage::create(&path, 8).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME])
            .env(PATH, &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        page.write_record(0, &[40, 2]);
        let answer = eventually("an answer", || {
            Some(page.words()[7].load(Ordering::Acquire)).filter(|answer| *answer > 0)
        });
        assert_eq!(answer, 42);
        assert!(child.wait().unwrap().success());
    }
}
