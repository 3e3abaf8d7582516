//! A [`DirectDisk`] under the codecs of the disk area, which know nothing of aligned memory.

use std::cell::RefCell;
use std::io;

use standfast_sys::disk::{DirectDisk, Error, Sectors};

use crate::storage::area::Blocks;

/// Bytes that one transfer moves; more are moved in several.
const BOUNCE_BYTES: usize = 64 * 1024;

/// A disk for formatting, checking and showing an area. Blocks the calling thread.
#[derive(Debug)]
pub struct AreaDisk {
    disk: DirectDisk,
    bounce: RefCell<Sectors>,
}

impl AreaDisk {
    /// Wraps a disk; for writing it must have been opened so.
    #[must_use]
    pub fn new(disk: DirectDisk) -> AreaDisk {
        AreaDisk {
            disk,
            bounce: RefCell::new(Sectors::new(BOUNCE_BYTES)),
        }
    }

    /// The disk itself.
    #[must_use]
    pub fn disk(&self) -> &DirectDisk {
        &self.disk
    }
}

impl Blocks for AreaDisk {
    fn size(&self) -> u64 {
        self.disk.bytes()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut bounce = self.bounce.borrow_mut();
        let mut at = offset;
        for part in out.chunks_mut(BOUNCE_BYTES) {
            let blocks = &mut bounce[..part.len()];
            self.disk.read_at(at, blocks).map_err(into_io)?;
            part.copy_from_slice(blocks);
            at += part.len() as u64;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut bounce = self.bounce.borrow_mut();
        let mut at = offset;
        for part in bytes.chunks(BOUNCE_BYTES) {
            let blocks = &mut bounce[..part.len()];
            blocks.copy_from_slice(part);
            self.disk.write_at(at, blocks).map_err(into_io)?;
            at += part.len() as u64;
        }
        Ok(())
    }
}

/// Keeps the error as it is: path, offset and the kernel's answer.
fn into_io(error: Error) -> io::Error {
    io::Error::other(error)
}
