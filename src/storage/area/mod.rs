//! The disk area: where on a shared disk the headers, heartbeats and register blocks lie.
//!
//! Everything is fixed when `standfast disk format` writes it; nothing is allocated later. All
//! slots are 4 KiB, little-endian, with what matters in their first 512 bytes, the smallest unit
//! that a disk writes as a whole:
//!
//! ```text
//! offset                       bytes        what
//! 0                            4096         header A
//! 4096                         4096         header B
//! 8192 + (id - 1) * 12288      512          node id: heartbeat, its latest frame
//!                      + 512   3584         node id: last words in the first 512, then zeros
//!                      + 4096  4096         node id: register block, copy A
//!                      + 8192  4096         node id: register block, copy B
//! 8192 + n * 12288             4096         compare-and-write record
//!        + 4096                4096         whether compare-and-write was found broken
//!        + 8192                4096         counter of contests for compare-and-write
//!        + 12288               n * 16384    mailboxes, by node
//! ```
//!
//! `n` is the most nodes the area was made for. The regions of nodes 1..=k are contiguous, so one
//! read fetches all their heartbeats and blocks.
//!
//! Pure but for [`format()`], [`replace()`], [`show`] and [`survey`], which do blocking I/O through
//! [`Blocks`] and belong to the command line; the daemon's disk threads use the geometry and the
//! codecs.

mod block;
mod broken;
mod compare;
mod contest;
mod device;
mod header;
mod record;
mod replace;
mod report;
mod roster;
mod survey;
#[cfg(test)]
mod tests;
mod words;

use serde::Serialize;

pub use block::{
    BlockLost, NewestBlock, SlotError, StoredBlock, decode_block, encode_block, newest_block,
};
pub use broken::{Broken, read_broken, write_broken};
pub use compare::{CompareAndWrite, DOUBTFUL, FAKES, SelfTestError, self_test};
pub use contest::{Contender, ContestReport, Part, Verdict, Watch, read_contest};
pub use device::{AreaError, Blocks, FormatOptions, format, read_header, repair};
pub use header::{Header, HeaderError, Medium, Repair};
pub use record::{RECORD_LEN, StoredRecord, decode_record, encode_record, read_record};
pub use replace::replace;
pub use report::{
    AreaReport, BlockReport, HeaderReport, HeartbeatReport, NodeReport, RecordReport, WordsReport,
    show,
};
pub use roster::{Roster, third};
pub use survey::{Found, survey};
pub use words::{StoredWords, WordsError, decode_words, encode_words};

use crate::model::{NODES_MAX, NodeId};

/// Bytes of a slot, and the alignment of everything in the area.
pub const SLOT_LEN: usize = 4096;

/// Bytes of a node's region: a heartbeat and two copies of the register block.
pub const REGION_LEN: usize = 3 * SLOT_LEN;

/// Bytes of a node's mailbox.
pub const MAILBOX_LEN: usize = 4 * SLOT_LEN;

/// The part of a slot that a disk writes whole or not at all, whatever its block size.
pub const SECTOR_LEN: usize = 512;

/// Bytes of one slot.
pub type Slot = [u8; SLOT_LEN];

/// 16 random bytes drawn by each format: what was written before it, or on another disk, is known
/// by them and refused.
pub type AreaNonce = [u8; 16];

/// Which of two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[repr(u8)]
pub enum Side {
    /// The one at the lower offset.
    A = 0,
    /// The one behind it.
    B = 1,
}

impl Side {
    /// Both, in the order of their offsets.
    pub const BOTH: [Side; 2] = [Side::A, Side::B];

    /// The one that this is not.
    #[must_use]
    pub const fn other(self) -> Side {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }

    /// The copy that a block with so many writes stands in, where a record names it.
    #[must_use]
    pub const fn of_writes(writes: u64) -> Side {
        if writes.is_multiple_of(2) {
            Side::A
        } else {
            Side::B
        }
    }

    /// Bytes from copy A to this one.
    const fn offset(self) -> u64 {
        self as u64 * SLOT_LEN as u64
    }
}

/// The offsets of an area made for up to `nodes_max` nodes. All in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    nodes_max: u8,
}

impl Geometry {
    /// The geometry for ids 1..=`nodes_max`, which is 1..=64.
    #[must_use]
    pub const fn new(nodes_max: u8) -> Option<Geometry> {
        if nodes_max >= 1 && nodes_max as usize <= NODES_MAX {
            Some(Geometry { nodes_max })
        } else {
            None
        }
    }

    /// Highest node id that has a place.
    #[must_use]
    pub const fn nodes_max(self) -> u8 {
        self.nodes_max
    }

    /// The nodes that have a place.
    pub fn nodes(self) -> impl Iterator<Item = NodeId> {
        (1..=self.nodes_max).filter_map(NodeId::new)
    }

    /// One copy of the header.
    #[must_use]
    pub const fn header(self, side: Side) -> u64 {
        side.offset()
    }

    /// Start of all regions.
    #[must_use]
    pub const fn regions(self) -> u64 {
        2 * SLOT_LEN as u64
    }

    /// A node's region of [`REGION_LEN`] bytes. `None` if the area was made for fewer nodes.
    #[must_use]
    pub const fn region(self, node: NodeId) -> Option<u64> {
        if node.number() > self.nodes_max {
            return None;
        }
        Some(self.regions() + (node.index() * REGION_LEN) as u64)
    }

    /// A node's heartbeat slot: the start of its region.
    #[must_use]
    pub const fn heartbeat(self, node: NodeId) -> Option<u64> {
        self.region(node)
    }

    /// A node's last words: the second sector of its heartbeat slot.
    #[must_use]
    pub const fn last_words(self, node: NodeId) -> Option<u64> {
        match self.heartbeat(node) {
            Some(slot) => Some(slot + SECTOR_LEN as u64),
            None => None,
        }
    }

    /// One copy of a node's register block.
    #[must_use]
    pub const fn block(self, node: NodeId, side: Side) -> Option<u64> {
        match self.region(node) {
            Some(region) => Some(region + SLOT_LEN as u64 + side.offset()),
            None => None,
        }
    }

    /// The slot that COMPARE AND WRITE works on.
    #[must_use]
    pub const fn record(self) -> u64 {
        self.regions() + self.nodes_max as u64 * REGION_LEN as u64
    }

    /// The place of one shadow copy of the view, of which none is made.
    #[must_use]
    pub const fn view(self, side: Side) -> u64 {
        self.record() + SLOT_LEN as u64 + side.offset()
    }

    /// Start of all mailboxes.
    #[must_use]
    pub const fn mailboxes(self) -> u64 {
        self.record() + 3 * SLOT_LEN as u64
    }

    /// A node's mailbox of [`MAILBOX_LEN`] bytes. `None` if the area was made for fewer nodes.
    #[must_use]
    pub const fn mailbox(self, node: NodeId) -> Option<u64> {
        if node.number() > self.nodes_max {
            return None;
        }
        Some(self.mailboxes() + (node.index() * MAILBOX_LEN) as u64)
    }

    /// The whole area.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.mailboxes() + self.nodes_max as u64 * MAILBOX_LEN as u64
    }
}

/// Bytes an area for ids 1..=`nodes_max` takes: 1,855,488 for 64. `None` outside 1..=64.
#[must_use]
pub const fn area_bytes(nodes_max: u8) -> Option<u64> {
    match Geometry::new(nodes_max) {
        Some(geometry) => Some(geometry.total()),
        None => None,
    }
}

/// The parts of a region: heartbeat, copy A, copy B. `None` if `region` is shorter than one.
#[must_use]
pub fn split_region(region: &[u8]) -> Option<(&Slot, &Slot, &Slot)> {
    let (heartbeat, rest) = region.split_first_chunk()?;
    let (copy_a, rest) = rest.split_first_chunk()?;
    Some((heartbeat, copy_a, rest.first_chunk()?))
}

/// Lowercase hexadecimal, as ids are shown to people.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
