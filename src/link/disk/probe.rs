//! What `standfast check` wants to know of a disk before it is relied on: does it hold the area,
//! and how long does a heartbeat through it take?
//!
//! Blocks the calling thread for as long as the disk takes.

use std::path::Path;

use serde::Serialize;
use standfast_sys::Failed;
use standfast_sys::disk::{DirectDisk, Error, Sectors};

use super::{AreaDisk, good_header};
use crate::frame::Keyring;
use crate::link::now;
use crate::model::{ClusterId, NodeId};
use crate::storage::area::{Geometry, REGION_LEN, SLOT_LEN};
use crate::time::Span;

/// Read from a disk that holds no area.
const PLAIN_READ_BYTES: usize = 2 * REGION_LEN;

/// What was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiskProbe {
    /// Size of the disk in bytes.
    pub bytes: u64,
    /// Logical block size in bytes.
    pub block_bytes: u32,
    /// Places in the area, or why there is no area to use, in words.
    pub area: Result<u8, String>,
    /// Reads of what a heartbeat reads, or of as much of a disk without an area.
    pub reads: Measured,
    /// Writes of the own heartbeat slot; none without an area or without a place in it.
    pub writes: Option<Measured>,
}

/// How long transfers took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Measured {
    /// How many there were.
    pub samples: usize,
    /// Half of them were no longer than this.
    pub median: Span,
    /// 99 % of them were no longer than this.
    pub p99: Span,
    /// The longest.
    pub worst: Span,
}

/// Why a disk could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] Failed),
    /// It is smaller than what would be read.
    #[error("the disk has {bytes} bytes only")]
    TooSmall {
        /// Its size.
        bytes: u64,
    },
    /// A transfer failed.
    #[error(transparent)]
    Transfer(#[from] Error),
}

/// Measures a disk with `rounds` reads and as many writes.
///
/// Nothing is written but what the own heartbeat slot holds already, and that only into a good area
/// of this cluster. Run it while this node's daemon does not run: else a frame of the daemon may be
/// put back by one, which the others refuse as old.
///
/// # Errors
///
/// The disk cannot be opened, or a transfer failed.
pub fn probe_disk(
    device: &Path,
    cluster: &ClusterId,
    keyring: &Keyring,
    node: NodeId,
    highest: NodeId,
    rounds: usize,
) -> Result<DiskProbe, ProbeError> {
    let disk = AreaDisk::new(DirectDisk::open(device, true)?);
    let header = good_header(&disk, device, keyring, cluster);
    let (bytes, block_bytes) = (disk.disk().bytes(), disk.disk().block_bytes());
    let geometry = header.as_ref().ok().map(|header| header.geometry);
    let (offset, length) = match geometry {
        Some(geometry) => {
            let places = usize::from(highest.number().min(geometry.nodes_max()));
            (geometry.regions(), places * REGION_LEN)
        }
        None => (0, PLAIN_READ_BYTES),
    };
    if bytes < offset + length as u64 {
        return Err(ProbeError::TooSmall { bytes });
    }
    let mut sectors = Sectors::new(length);
    let reads = measure(rounds, || disk.disk().read_at(offset, &mut sectors))?;
    let writes = match geometry.and_then(|geometry: Geometry| geometry.heartbeat(node)) {
        Some(slot) => Some(write_back(disk.disk(), slot, rounds)?),
        None => None,
    };
    let area = header.map(|header| header.geometry.nodes_max());
    Ok(DiskProbe {
        bytes,
        block_bytes,
        area,
        reads,
        writes,
    })
}

/// Writes what is in the slot, again and again.
fn write_back(disk: &DirectDisk, slot: u64, rounds: usize) -> Result<Measured, Error> {
    let mut sectors = Sectors::new(SLOT_LEN);
    disk.read_at(slot, &mut sectors)?;
    measure(rounds, || disk.write_at(slot, &sectors))
}

fn measure(
    rounds: usize,
    mut transfer: impl FnMut() -> Result<(), Error>,
) -> Result<Measured, Error> {
    let mut spans = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let begun = now();
        transfer()?;
        spans.push(now().since(begun));
    }
    spans.sort_unstable();
    let at = |percent: usize| {
        let rank = (spans.len() * percent).div_ceil(100);
        spans
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or_default()
    };
    Ok(Measured {
        samples: spans.len(),
        median: at(50),
        p99: at(99),
        worst: at(100),
    })
}
