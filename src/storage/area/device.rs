//! Formatting an area and reading its header, through the few operations a disk has.
//!
//! Blocking I/O on the calling thread: for the command line and the start of a disk link.

use std::io;

use crate::frame::tag::Keyring;
use crate::model::ClusterId;

use super::{
    AreaNonce, BlockLost, Geometry, Header, HeaderError, Medium, Repair, Roster, SLOT_LEN, Side,
    Slot,
};

/// A disk, or a part of one. Offsets and lengths are multiples of [`SLOT_LEN`]; a read or a write
/// moves all bytes or fails. Writes are durable when they return.
pub trait Blocks {
    /// Bytes there are.
    fn size(&self) -> u64;
    /// Fills `out` from `offset`.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

/// What a format needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatOptions {
    /// The cluster that will own the area.
    pub cluster: ClusterId,
    /// Random bytes, new for each format.
    pub nonce: AreaNonce,
    /// Logical block size of the disk, in bytes: a divisor of [`SLOT_LEN`], at least 512.
    pub block_size: u32,
    /// Room for node ids 1 to this, at most 64.
    pub nodes_max: u8,
    /// How the register is to be changed; whether the disk can do that, the caller has made sure.
    pub medium: Medium,
    /// The register's three disks, where it has as many; the nonce is among them.
    pub roster: Option<Roster>,
}

/// Why an area could not be formatted or read.
#[derive(Debug, thiserror::Error)]
pub enum AreaError {
    /// Reading failed.
    #[error("cannot read {len} bytes at offset {offset} of the disk area")]
    Read {
        /// Where.
        offset: u64,
        /// How many.
        len: usize,
        /// Why.
        source: io::Error,
    },
    /// Writing failed.
    #[error("cannot write {len} bytes at offset {offset} of the disk area")]
    Write {
        /// Where.
        offset: u64,
        /// How many.
        len: usize,
        /// Why.
        source: io::Error,
    },
    /// The area does not fit.
    #[error("the disk has {size} bytes, an area for {nodes_max} nodes needs {needed}")]
    TooSmall {
        /// Bytes there are.
        size: u64,
        /// Bytes it takes.
        needed: u64,
        /// For so many nodes.
        nodes_max: u8,
    },
    /// Not a number of nodes.
    #[error("an area is made for 1 to 64 nodes, not for {nodes_max}")]
    NodesMax {
        /// What was asked for.
        nodes_max: u8,
    },
    /// A block size that 4 KiB slots cannot be aligned to.
    #[error("the disk has blocks of {block_size} bytes; 512, 1024, 2048 and 4096 can be used")]
    BlockSize {
        /// What the disk has.
        block_size: u32,
    },
    /// The disk took a write and then gave other bytes.
    #[error("the disk does not keep what is written: other bytes come back at offset {offset}")]
    ReadBack {
        /// The slot that differs.
        offset: u64,
    },
    /// The header is not one to work with.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Two disks from which a third was to be made.
    #[error(
        "the two disks do not know each other: they are not of one register, or one was replaced"
    )]
    Strangers,
    /// What a node has written cannot be copied.
    #[error(transparent)]
    Lost(#[from] BlockLost),
}

/// Makes `dev` an area: wipes every slot, reads it back, then writes the headers, B before A.
///
/// Until the first header is written the area counts as blank or torn, so that a format which was
/// interrupted is never taken for a good one. Destroys whatever the area held: ask [`survey`]
/// first. No node may use the area meanwhile.
///
/// [`survey`]: super::survey
pub fn format(
    dev: &impl Blocks,
    options: &FormatOptions,
    keyring: &Keyring,
) -> Result<Header, AreaError> {
    let FormatOptions {
        cluster,
        nonce,
        block_size,
        nodes_max,
        medium,
        roster,
    } = *options;
    let geometry = Geometry::new(nodes_max).ok_or(AreaError::NodesMax { nodes_max })?;
    let header = Header {
        cluster,
        nonce,
        block_size,
        geometry,
        medium,
        roster,
    };
    make_blank(dev, &header)?;
    write_headers(dev, &header, keyring)?;
    Ok(header)
}

/// Makes room for the area of this header, and an area of nothing: no header, no slot.
pub(super) fn make_blank(dev: &impl Blocks, header: &Header) -> Result<(), AreaError> {
    let block_size = header.block_size;
    if !(512..=SLOT_LEN as u32).contains(&block_size) || !block_size.is_power_of_two() {
        return Err(AreaError::BlockSize { block_size });
    }
    check_size(dev, header.geometry)?;
    wipe(dev, header.geometry)
}

/// Writes both copies of the header, B before A.
pub(super) fn write_headers(
    dev: &impl Blocks,
    header: &Header,
    keyring: &Keyring,
) -> Result<(), AreaError> {
    write_header(dev, header, Side::B, keyring)?;
    write_header(dev, header, Side::A, keyring)
}

/// The header of `dev`, and which copy of it is damaged.
pub fn read_header(
    dev: &impl Blocks,
    keyring: &Keyring,
    cluster: &ClusterId,
) -> Result<(Header, Repair), AreaError> {
    let mut copies = [0; 2 * SLOT_LEN];
    if dev.size() < copies.len() as u64 {
        return Err(HeaderError::Blank.into());
    }
    read(dev, 0, &mut copies)?;
    let (copy_a, copy_b) = copies.split_at(SLOT_LEN);
    let (header, repair) = Header::read(copy_a, copy_b, keyring, cluster)?;
    check_size(dev, header.geometry)?;
    Ok((header, repair))
}

/// Writes the copy of the header that [`read_header`] found damaged. Not while somebody formats.
pub fn repair(
    dev: &impl Blocks,
    header: &Header,
    repair: Repair,
    keyring: &Keyring,
) -> Result<(), AreaError> {
    match repair {
        Repair::None => Ok(()),
        Repair::Rewrite(side, _) => write_header(dev, header, side, keyring),
    }
}

/// Writes one copy of the header and reads it back.
fn write_header(
    dev: &impl Blocks,
    header: &Header,
    side: Side,
    keyring: &Keyring,
) -> Result<(), AreaError> {
    let offset = header.geometry.header(side);
    let mut slot: Slot = [0; SLOT_LEN];
    header.encode(keyring, &mut slot);
    write_slot(dev, offset, &slot)
}

/// Writes a slot and reads it back.
pub(super) fn write_slot(dev: &impl Blocks, offset: u64, slot: &Slot) -> Result<(), AreaError> {
    write(dev, offset, slot)?;
    let mut back: Slot = [0; SLOT_LEN];
    read(dev, offset, &mut back)?;
    if back == *slot {
        Ok(())
    } else {
        Err(AreaError::ReadBack { offset })
    }
}

/// Writes zeros everywhere and reads them back. The headers go first, in a write of their own:
/// while one of them is left, the slots are as they were.
fn wipe(dev: &impl Blocks, geometry: Geometry) -> Result<(), AreaError> {
    const CHUNK: usize = 16 * SLOT_LEN;
    let zeros = vec![0; CHUNK];
    let chunks = || {
        let total = geometry.total();
        (0..total)
            .step_by(CHUNK)
            .map(move |at| (at, (total - at).min(CHUNK as u64) as usize))
    };
    write(dev, 0, &zeros[..geometry.regions() as usize])?;
    for (offset, len) in chunks() {
        write(dev, offset, &zeros[..len])?;
    }
    let mut back = vec![0; CHUNK];
    for (offset, len) in chunks() {
        read(dev, offset, &mut back[..len])?;
        for (slot, bytes) in back[..len].chunks(SLOT_LEN).enumerate() {
            if bytes.iter().any(|byte| *byte != 0) {
                return Err(AreaError::ReadBack {
                    offset: offset + (slot * SLOT_LEN) as u64,
                });
            }
        }
    }
    Ok(())
}

/// Does the area fit?
fn check_size(dev: &impl Blocks, geometry: Geometry) -> Result<(), AreaError> {
    let (size, needed) = (dev.size(), geometry.total());
    if size < needed {
        return Err(AreaError::TooSmall {
            size,
            needed,
            nodes_max: geometry.nodes_max(),
        });
    }
    Ok(())
}

/// Reads, and names the place if that fails.
pub(super) fn read(dev: &impl Blocks, offset: u64, out: &mut [u8]) -> Result<(), AreaError> {
    let len = out.len();
    dev.read_at(offset, out).map_err(|source| AreaError::Read {
        offset,
        len,
        source,
    })
}

/// Writes, and names the place if that fails.
fn write(dev: &impl Blocks, offset: u64, bytes: &[u8]) -> Result<(), AreaError> {
    let len = bytes.len();
    dev.write_at(offset, bytes)
        .map_err(|source| AreaError::Write {
            offset,
            len,
            source,
        })
}
