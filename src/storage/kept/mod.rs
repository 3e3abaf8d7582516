//! The record that a node keeps for itself: what it has promised to the others and accepted from
//! them, in a file of its own disk.
//!
//! A promise that was given must survive a crash and a power cut, so a record counts as kept only
//! when the disk has confirmed it (`O_DSYNC`), and nobody may be told of it before.
//!
//! ```text
//! offset  bytes  what
//!      0   4096  copy A    a slot as in the disk area, with a nonce made of the cluster's id
//!   4096   4096  copy B
//!   8192
//!
//! A: 7  B: 7      at rest: the newest record stands in both copies
//! A: 8? B: 7      under way: a crash leaves 7, or 8 of which nobody was told: both are right
//! A: 8  B: 7      confirmed; the next record would go to B
//! A: 8  B: 8      repeated when nothing else was to be done
//! ```
//!
//! So a copy that is torn is no loss. Either its write was interrupted: then it was not confirmed,
//! and the other copy holds the newest that was. Or it was damaged at rest: then the other copy
//! holds the same. Only a disk that damages what it confirmed in the moments before the repetition
//! could make an older record pass for the newest one.
//!
//! Whatever else is found is refused and never taken for "nothing kept": a node that has forgotten
//! its promises and does not know it would break them. A new file begins with a record that says
//! that there is none, and appears under its name only when it is on the disk as a whole, so zeros,
//! a short file, another node's or another cluster's record are damage. A file that was removed
//! cannot be told from one that never was.
//!
//! What is read at the start may be in the kernel's memory only, left there by a write that failed.
//! It is written into the other copy before it is handed out: what was handed out is on the disk.
//!
//! Blocks for as long as the disk takes; belongs on a thread of its own.

#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::area::{AreaNonce, SLOT_LEN, Side, Slot, SlotError, decode_block, encode_block};
use crate::frame::Keyring;
use crate::model::{ClusterId, Incarnation, NodeId};
use crate::register::Block;

/// Bytes of the file.
pub const FILE_LEN: usize = 2 * SLOT_LEN;

/// What was tried when there was no file.
const CREATE: &str = "create";

/// Makes the nonce of a cluster's records; used for nothing else, as BLAKE3's `derive_key` asks.
const NONCE_CONTEXT: &str = "standfast 2026-01-01 nonce of a node's own record";

/// Whose record it is.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// This life of it: it signs what is written; what an earlier one has written counts as well.
    pub incarnation: Incarnation,
    /// The cluster's keys.
    pub keyring: Keyring,
}

/// The open file. Locked, so that the write of a process that is being killed is over before the
/// next process reads.
#[derive(Debug)]
pub struct Kept {
    file: File,
    path: PathBuf,
    owner: Owner,
    nonce: AreaNonce,
    /// The newest confirmed record; its `writes` count those of this file.
    block: Block,
    /// The copy that holds it for certain.
    newest: Side,
    /// The other one holds it too.
    repeated: bool,
    slot: Box<Slot>,
}

/// Why nothing can be kept, or why what was kept is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// The system refuses.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// Another process has it open: an earlier core that still waits for its disk, or a second
    /// daemon for the same node.
    #[error("another process uses {}", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Cut off or lengthened.
    #[error(
        "what this node has promised is lost, {} has {len} bytes, not {FILE_LEN}",
        path.display()
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: u64,
    },
    /// No copy counts, or one holds what no interrupted write leaves behind.
    #[error(
        "what this node has promised is lost, {} is damaged; copy A: {}; copy B: {}",
        path.display(), told(a.as_ref()), told(b.as_ref())
    )]
    Lost {
        /// The file.
        path: PathBuf,
        /// What is wrong with copy A, if anything.
        a: Option<SlotError>,
        /// What is wrong with copy B, if anything.
        b: Option<SlotError>,
    },
    /// Both copies are whole, but not what one writer leaves behind.
    #[error(
        "the copies in {} count {a} and {b} writes and differ: one was set back to an older state",
        path.display()
    )]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// Writes counted by copy A.
        a: u64,
        /// Writes counted by copy B.
        b: u64,
    },
}

impl KeptError {
    /// Is it certain that nothing was ever kept there? The file could not even be made.
    #[must_use]
    pub fn never_was(&self) -> bool {
        matches!(self, KeptError::Io { what, .. } if *what == CREATE)
    }

    /// What a person can do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            KeptError::Io { .. } => {
                "make the directory writable, or the disk work, and restart Standfast on this node"
                    .to_owned()
            }
            KeptError::InUse { .. } => {
                "end the other process and restart Standfast on this node".to_owned()
            }
            KeptError::Length { path, .. }
            | KeptError::Lost { path, .. }
            | KeptError::Contradiction { path, .. } => format!(
                "stop Standfast on all nodes, remove {} and start them while all reach the disk",
                path.display()
            ),
        }
    }
}

/// A copy's state in words.
fn told(error: Option<&SlotError>) -> String {
    error.map_or_else(|| "good".to_owned(), ToString::to_string)
}

/// A copy that counts, or what is wrong with it.
type Copy = Result<Block, SlotError>;

impl Kept {
    /// Opens the file, makes it if there is none, and hands out the record that was kept last, or
    /// `None` if there never was one. Its `writes` are those of the file.
    ///
    /// # Errors
    ///
    /// The file cannot be made, read or written, or what was kept in it cannot be had any more.
    pub fn open(path: &Path, owner: Owner) -> Result<(Kept, Option<Block>), KeptError> {
        let nonce = nonce_of(&owner.cluster);
        let file = match open_existing(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(path, &nonce, &owner)?;
                open_existing(path)
            }
            other => other,
        };
        let file = file.map_err(failed("open", path))?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => KeptError::InUse {
                path: path.to_owned(),
            },
            TryLockError::Error(error) => failed("lock", path)(error),
        })?;
        let [a, b] = read_copies(&file, path, &nonce, &owner)?;
        let (block, newest) = newest_of(path, a, b)?;
        let mut kept = Kept {
            file,
            path: path.to_owned(),
            owner,
            nonce,
            block,
            newest,
            repeated: false,
            slot: Box::new([0; SLOT_LEN]),
        };
        kept.repeat()?;
        let found = Some(kept.block.clone()).filter(|found| *found != nothing(found.writes));
        Ok((kept, found))
    }

    /// Keeps a record in place of the one before; returns when it is on the disk. Its `writes` are
    /// of no interest, the file counts its own.
    ///
    /// # Errors
    ///
    /// The disk refuses. The record before is safe; which of the two is found after a restart is
    /// not known.
    ///
    /// # Panics
    ///
    /// If the value is longer than [`VALUE_MAX`](crate::register::VALUE_MAX).
    pub fn keep(&mut self, block: &Block) -> Result<(), KeptError> {
        let block = Block {
            writes: self.block.writes + 1,
            ..block.clone()
        };
        let side = self.newest.other();
        // Whatever comes of it, this copy does not hold the record before any more.
        self.repeated = false;
        self.write(side, &block)?;
        (self.block, self.newest) = (block, side);
        Ok(())
    }

    /// Does the newest record stand in one copy only?
    #[must_use]
    pub fn wants_repetition(&self) -> bool {
        !self.repeated
    }

    /// Writes the newest record into the other copy as well, so that neither can be lost alone. To
    /// be called when nothing else is to be done.
    ///
    /// # Errors
    ///
    /// The disk refuses; the newest record is safe. Not to be tried again before the next record.
    pub fn repeat(&mut self) -> Result<(), KeptError> {
        self.repeated = true;
        let block = std::mem::take(&mut self.block);
        let written = self.write(self.newest.other(), &block);
        self.block = block;
        written
    }

    fn write(&mut self, side: Side, block: &Block) -> Result<(), KeptError> {
        let Owner {
            node,
            incarnation,
            keyring,
            ..
        } = &self.owner;
        let place = (*node, side);
        encode_block(
            &self.nonce,
            place,
            block,
            *incarnation,
            keyring,
            &mut self.slot,
        );
        self.file
            .write_all_at(&*self.slot, offset(side))
            .map_err(failed("write", &self.path))
    }
}

/// The record of a file in which nothing has been kept.
fn nothing(writes: u64) -> Block {
    Block {
        writes,
        ..Block::default()
    }
}

/// Where a copy begins.
const fn offset(side: Side) -> u64 {
    side as u64 * SLOT_LEN as u64
}

/// What tells a cluster's records from every other one's and from what stands on shared disks.
fn nonce_of(cluster: &ClusterId) -> AreaNonce {
    let hash = blake3::derive_key(NONCE_CONTEXT, cluster);
    let mut nonce = [0; 16];
    nonce.copy_from_slice(&hash[..16]);
    nonce
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> KeptError + 'a {
    move |source| KeptError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

/// Every write returns when it is on the disk.
fn open_existing(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_DSYNC.bits())
        .open(path)
}

/// Makes a file in which nothing is kept. It has its name only once it is on the disk.
fn create(path: &Path, nonce: &AreaNonce, owner: &Owner) -> Result<(), KeptError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    create_directory(directory).map_err(failed(CREATE, directory))?;
    let unfinished = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        let mut slot = [0; SLOT_LEN];
        for side in Side::BOTH {
            let place = (owner.node, side);
            let (writer, keyring) = (owner.incarnation, &owner.keyring);
            encode_block(nonce, place, &nothing(1), writer, keyring, &mut slot);
            file.write_all(&slot)?;
        }
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        sync_directory(directory)
    };
    write().map_err(failed(CREATE, path))
}

/// Makes a directory and those above it so that they survive a power cut.
fn create_directory(directory: &Path) -> io::Result<()> {
    let missing = directory.ancestors().take_while(|it| !it.exists());
    let missing: Vec<_> = missing.collect();
    fs::create_dir_all(directory)?;
    missing
        .into_iter()
        .filter_map(Path::parent)
        .try_for_each(sync_directory)
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    // A relative path of one name has an empty parent.
    let here = directory.as_os_str().is_empty();
    File::open(if here { Path::new(".") } else { directory })?.sync_all()
}

fn read_copies(
    file: &File,
    path: &Path,
    nonce: &AreaNonce,
    owner: &Owner,
) -> Result<[Copy; 2], KeptError> {
    let len = file.metadata().map_err(failed("read", path))?.len();
    if len != FILE_LEN as u64 {
        let path = path.to_owned();
        return Err(KeptError::Length { path, len });
    }
    let mut slot = [0; SLOT_LEN];
    let mut copy = |side| {
        file.read_exact_at(&mut slot, offset(side))
            .map_err(failed("read", path))?;
        let found = decode_block(nonce, (owner.node, side), &slot, &owner.keyring);
        // A slot of zeros is a fresh one on a shared disk; here there is none.
        Ok(found.and_then(|found| match found.block.writes {
            0 => Err(SlotError::NotABlock),
            _ => Ok(found.block),
        }))
    };
    Ok([copy(Side::A)?, copy(Side::B)?])
}

/// The record that counts and the copy it stands in.
fn newest_of(path: &Path, a: Copy, b: Copy) -> Result<(Block, Side), KeptError> {
    let path = || path.to_owned();
    match (a, b) {
        (Ok(a), Ok(b)) if a.writes == b.writes + 1 || a == b => Ok((a, Side::A)),
        (Ok(a), Ok(b)) if b.writes == a.writes + 1 => Ok((b, Side::B)),
        (Ok(a), Ok(b)) => Err(KeptError::Contradiction {
            path: path(),
            a: a.writes,
            b: b.writes,
        }),
        (Ok(a), Err(SlotError::Torn)) => Ok((a, Side::A)),
        (Err(SlotError::Torn), Ok(b)) => Ok((b, Side::B)),
        (a, b) => Err(KeptError::Lost {
            path: path(),
            a: a.err(),
            b: b.err(),
        }),
    }
}
