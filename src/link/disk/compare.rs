//! COMPARE AND WRITE to the disk below an area: which disks can do it, and the command itself.
//!
//! The command goes past the kernel's disk driver, to the whole logical unit: a partition's start
//! is added. It is sent once. Whatever is not clearly done or clearly refused is unclear, and the
//! register looks for itself.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use standfast_sys::Failed;
use standfast_sys::disk::{DirectDisk, Sectors};
use standfast_sys::scsi::{CommandError, Compared as Answer, ScsiPath};

use crate::register::Compared;
use crate::storage::area::{CompareAndWrite, DOUBTFUL, FAKES};

/// After this the kernel aborts a command; it may be done all the same. Arrays that take longer
/// have lost the race for the lease anyway.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why a disk cannot be trusted with it.
#[derive(Debug, thiserror::Error)]
pub enum CannotCompare {
    /// A regular file.
    #[error("it is a file, not a disk")]
    File,
    /// The kernel knows nothing of it.
    #[error("the kernel does not tell what it is")]
    Unknown(#[source] io::Error),
    /// A device-mapper target: commands would go to some path, or be sent again by it.
    #[error("it is made by the device mapper; commands must go to a path of the disk itself")]
    Mapped,
    /// It cannot be opened for commands.
    #[error(transparent)]
    Open(#[from] Failed),
    /// It speaks no SCSI, or not this.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// It does not know the command.
    #[error("it does not offer COMPARE AND WRITE")]
    NotOffered,
    /// It is known to offer what it does not keep.
    #[error("{vendor} {product} is known to do it wrongly: {why}")]
    Fake {
        /// Who made it.
        vendor: String,
        /// What it is.
        product: String,
        /// What it does wrongly.
        why: &'static str,
    },
}

/// The logical unit that a disk or a partition lies on.
#[derive(Debug)]
pub struct LogicalUnit {
    path: ScsiPath,
    /// Bytes before the area.
    start: u64,
    /// Bytes of a logical block.
    block: usize,
    data: Sectors,
    doubt: Option<&'static str>,
}

impl LogicalUnit {
    /// Opens the unit below `disk` and asks whether it can.
    ///
    /// # Errors
    ///
    /// [`CannotCompare`].
    pub fn open(disk: &DirectDisk) -> Result<LogicalUnit, CannotCompare> {
        let (major, minor) = disk.device().ok_or(CannotCompare::File)?;
        let node = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        if node.join("dm").exists() {
            return Err(CannotCompare::Mapped);
        }
        let path = ScsiPath::open(disk.path())?;
        let standard = path.inquiry(TIMEOUT)?;
        let is_fake = |fake: &&(&str, &str, &str)| {
            standard.vendor.trim() == fake.0 && standard.product.trim().starts_with(fake.1)
        };
        if let Some((_, _, why)) = FAKES.iter().find(is_fake) {
            let (vendor, product) = (standard.vendor, standard.product);
            return Err(CannotCompare::Fake {
                vendor,
                product,
                why,
            });
        }
        if path.block_limits(TIMEOUT)?.compare_and_write_blocks == 0 {
            return Err(CannotCompare::NotOffered);
        }
        let mut doubtful = DOUBTFUL.iter();
        let doubt = doubtful.find(|(vendor, _)| standard.vendor.trim() == *vendor);
        let block = path.capacity(TIMEOUT)?.block_bytes as usize;
        let start = partition_start(&node).map_err(CannotCompare::Unknown)?;
        Ok(LogicalUnit {
            path,
            start,
            block,
            data: Sectors::new(2 * block),
            doubt: doubt.map(|(_, why)| *why),
        })
    }

    /// Why a person should ask for it first, for a target among [`DOUBTFUL`].
    #[must_use]
    pub fn doubt(&self) -> Option<&'static str> {
        self.doubt
    }
}

/// Bytes before a partition; the kernel counts in 512 bytes whatever the disk's blocks are.
fn partition_start(node: &std::path::Path) -> io::Result<u64> {
    match std::fs::read_to_string(node.join("start")) {
        Ok(text) => {
            let sectors = text.trim().parse::<u64>().map_err(io::Error::other)?;
            Ok(sectors * 512)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

impl CompareAndWrite for LogicalUnit {
    fn block_bytes(&self) -> usize {
        self.block
    }

    fn compare_and_write(
        &mut self,
        offset: u64,
        expected: &[u8],
        new: &[u8],
    ) -> io::Result<Compared> {
        let at = self.start + offset;
        let whole = at.is_multiple_of(self.block as u64);
        if !whole || expected.len() != self.block || new.len() != self.block {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.data[..self.block].copy_from_slice(expected);
        self.data[self.block..2 * self.block].copy_from_slice(new);
        let number = at / self.block as u64;
        let data = &self.data[..2 * self.block];
        let answer = self.path.compare_and_write(number, data, TIMEOUT);
        let answer = answer.map_err(io::Error::other)?;
        Ok(match answer {
            Answer::Written => Compared::Done,
            Answer::Differs { .. } => Compared::Miscompare,
        })
    }
}
