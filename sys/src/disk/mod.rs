//! Sectors of a shared disk, past every cache of this host (open(2), O_DIRECT).
//!
//! For a thread that owns nothing else: a read or write of a hung disk does not return, and nothing
//! can call it back. A write that returned is on the medium or in the array's protected cache
//! (`O_DSYNC`); one that failed may still arrive later, whatever was done since.

mod sectors;
#[cfg(test)]
mod tests;
mod used;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub use sectors::{SECTORS_ALIGNMENT, Sectors};
pub use used::{Finding, looks_used};

use crate::error::{Failed, Naming};

/// Not among libc's: `_IO(0x12, 97)`, linux/fs.h.
const BLKFLSBUF: libc::Ioctl = 0x1261;

/// Block size assumed for a regular file: enough for every disk below it.
const FILE_BLOCK_BYTES: u32 = 4096;

/// Why sectors could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused or the disk failed.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// Offset, length or memory is not a multiple of the logical block size; nothing was sent.
    #[error("{length} bytes at {offset} of {path} are not whole blocks of {block} bytes")]
    Misaligned {
        /// The disk.
        path: PathBuf,
        /// Byte offset on the disk.
        offset: u64,
        /// Length in bytes.
        length: usize,
        /// Logical block size in bytes.
        block: u32,
    },
    /// The disk moved only a part: it ends there or a path failed midway.
    #[error("only {done} of {length} bytes at {offset} of {path} were transferred")]
    Short {
        /// The disk.
        path: PathBuf,
        /// Byte offset on the disk.
        offset: u64,
        /// Length in bytes that was asked for.
        length: usize,
        /// Bytes that were transferred.
        done: usize,
    },
}

/// An open disk, or a regular file in its place for tests.
#[derive(Debug)]
pub struct DirectDisk {
    file: File,
    path: PathBuf,
    block_bytes: u32,
    bytes: u64,
    device: Option<(u32, u32)>,
}

impl DirectDisk {
    /// Opens a block device, for writing too if `write`. Takes no exclusive claim.
    ///
    /// # Errors
    ///
    /// What open(2) says, `EINVAL` for a file system without direct I/O (tmpfs before Linux 6.6).
    pub fn open(path: &Path, write: bool) -> Result<DirectDisk, Failed> {
        let flags = libc::O_DIRECT | libc::O_DSYNC;
        let opened = OpenOptions::new()
            .read(true)
            .write(write)
            .custom_flags(flags)
            .open(path);
        let file = opened.naming("open disk", path.display())?;
        DirectDisk::describe(file, path).naming("identify disk", path.display())
    }

    fn describe(mut file: File, path: &Path) -> io::Result<DirectDisk> {
        let metadata = file.metadata()?;
        let number = metadata.rdev();
        let is_block = metadata.file_type().is_block_device();
        let device = is_block.then(|| (libc::major(number), libc::minor(number)));
        let block_bytes = if is_block {
            logical_block_bytes(&file)?
        } else {
            FILE_BLOCK_BYTES
        };
        let bytes = file.seek(SeekFrom::End(0))?;
        Ok(DirectDisk {
            file,
            path: path.to_owned(),
            block_bytes,
            bytes,
            device,
        })
    }

    /// The unit of reading and writing in bytes: 512 or 4096.
    #[must_use]
    pub fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    /// Size in bytes when it was opened.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Major and minor number; `None` for a regular file.
    #[must_use]
    pub fn device(&self) -> Option<(u32, u32)> {
        self.device
    }

    /// The path that it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills `blocks`, all or part of a [`Sectors`], from byte `offset`. Blocks the thread for as
    /// long as the disk takes.
    ///
    /// # Errors
    ///
    /// [`Error::Misaligned`], [`Error::Short`]; [`Error::Failed`] with `EIO` and its relatives.
    pub fn read_at(&self, offset: u64, blocks: &mut [u8]) -> Result<(), Error> {
        self.check(offset, blocks)?;
        let done = self
            .file
            .read_at(blocks, offset)
            .naming("read", self.at(offset))?;
        self.whole(offset, blocks.len(), done)
    }

    /// Writes `blocks`, all or part of a [`Sectors`], at byte `offset`, and returns when it is
    /// durable. Blocks the thread for as long as the disk takes. After an error the old or the new
    /// content, or parts of both, may be on the disk, now or later.
    ///
    /// # Errors
    ///
    /// As for [`read_at`](Self::read_at); `EBADE` when a reservation fences this host.
    pub fn write_at(&self, offset: u64, blocks: &[u8]) -> Result<(), Error> {
        self.check(offset, blocks)?;
        let done = self
            .file
            .write_at(blocks, offset)
            .naming("write", self.at(offset))?;
        self.whole(offset, blocks.len(), done)
    }

    fn check(&self, offset: u64, blocks: &[u8]) -> Result<(), Error> {
        let block = self.block_bytes as usize;
        let aligned = offset.is_multiple_of(u64::from(self.block_bytes))
            && blocks.len().is_multiple_of(block)
            && blocks.as_ptr().addr().is_multiple_of(block);
        if aligned {
            return Ok(());
        }
        let (path, length) = (self.path.clone(), blocks.len());
        Err(Error::Misaligned {
            path,
            offset,
            length,
            block: self.block_bytes,
        })
    }

    fn whole(&self, offset: u64, length: usize, done: usize) -> Result<(), Error> {
        if done == length {
            return Ok(());
        }
        Err(Error::Short {
            path: self.path.clone(),
            offset,
            length,
            done,
        })
    }

    fn at(&self, offset: u64) -> Place<'_> {
        Place {
            path: &self.path,
            offset,
        }
    }
}

impl AsFd for DirectDisk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for DirectDisk {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Where a transfer failed; turned into text only then, for a disk's loop must not allocate.
struct Place<'a> {
    path: &'a Path,
    offset: u64,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} at byte {}", self.path.display(), self.offset)
    }
}

/// Has everything that was written to a block device put on its medium, or in the array's protected
/// cache. Waits as long as the disk does.
///
/// # Errors
///
/// The device cannot be opened, or a write has failed that nobody was told of yet.
pub fn write_back(path: &Path) -> Result<(), Failed> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path);
    let file = file.naming("open", path.display())?;
    file.sync_all()
        .naming("write what is cached of", path.display())
}

/// Makes the kernel forget what it has cached of a block device, after writing what of that is
/// still dirty. As long as anybody has the device open, even only to watch it, the kernel keeps
/// what was once read: from a shared disk, what it was before the last owner wrote.
///
/// What another use of the device holds in memory, such as a mounted file system, stays. Waits as
/// long as the disk does.
///
/// # Errors
///
/// The device cannot be opened, is no block device (`ENOTTY`), or the caller may not (`EACCES`).
/// What could not be written is forgotten all the same.
pub fn forget_cached(path: &Path) -> Result<(), Failed> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path);
    let file = file.naming("open", path.display())?;
    // SAFETY: BLKFLSBUF takes no argument.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), BLKFLSBUF, 0) };
    crate::error::answer(result).naming("forget the cached blocks of", path.display())?;
    Ok(())
}

fn logical_block_bytes(file: &File) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: BLKSSZGET writes one int to a live int.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::BLKSSZGET, &raw mut bytes) };
    crate::error::answer(result)?;
    u32::try_from(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}
