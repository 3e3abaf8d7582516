//! The open area: what was last seen in it, and the transfers. How the record of an area that has
//! one is read and changed stands in [`record`].
//!
//! One read fetches the regions of all nodes, from the first one on, because they lie side by side.
//! A region that has not changed since the read before is not looked at.
//!
//! How far a read goes: a heartbeat's goes up to the highest id that is configured or was ever
//! found in use. A node that is configured elsewhere but not here shows up as a frame in its slot
//! long before it may write the register; to see it, every [`ALL_EVERY`]th read takes in the whole
//! area, as does the first one and every one for the register.

use std::sync::Arc;

use standfast_sys::disk::{Error, Sectors};

use super::blocks::AreaDisk;
use super::record::RecordAt;
use crate::frame::{FRAME_LEN, Frame, Keyring};
use crate::link::counters::{Count, Counters};
use crate::link::outlet::Outlet;
use crate::link::{Parameters, Scope, now};
use crate::model::{ClusterId, Incarnation, NodeId, NodeSet};
use crate::register::{Block, BlockSeen, Seen as Shown};
use crate::storage::area::{
    CompareAndWrite, Header, REGION_LEN, SLOT_LEN, Side, encode_block, newest_block, split_region,
};
use crate::time::Instant;

/// One read in so many goes through the whole area.
const ALL_EVERY: u32 = 64;

/// Why a transfer was not made or not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransferError {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] Error),
    /// Without the own block there is no telling which copy may be written.
    #[error("this node's register block cannot be read")]
    OwnBlockUnknown,
    /// What was ordered would not be the newest.
    #[error("a register block that counts {ordered} writes was ordered; the disk counts {found}")]
    NotNewer {
        /// What was ordered.
        ordered: u64,
        /// What is there.
        found: u64,
    },
}

/// What a read has found.
pub(super) struct Seen {
    /// Before the read was issued.
    pub(super) begun: Instant,
    /// After it, and whatever was read once more, had returned.
    pub(super) ended: Instant,
    /// The register, if it is not as after the read before.
    pub(super) shown: Option<Shown>,
}

/// What is known of the own block.
enum Own {
    /// Not read since the area was opened or a write has failed.
    Unread,
    /// Neither copy is good.
    Damaged,
    /// The disk counts so many writes; the next one goes to this copy.
    Next(u64, Side),
}

/// An area that is open.
pub(super) struct Area {
    pub(super) disk: AreaDisk,
    pub(super) header: Header,
    cluster: ClusterId,
    pub(super) node: NodeId,
    pub(super) incarnation: Incarnation,
    index: u8,
    pub(super) keyring: Keyring,
    pub(super) counters: Arc<Counters>,
    /// Places that every read takes in.
    used: u8,
    reads: u32,
    /// The regions as the last read found them.
    pub(super) fresh: Sectors,
    /// The regions as they were looked at.
    known: Vec<u8>,
    blocks: Vec<BlockSeen>,
    /// The blocks differ from what was told last; true before anything was told.
    blocks_untold: bool,
    /// Nodes whose heartbeat slot differs from what was told last.
    frames_untold: NodeSet,
    own: Own,
    /// In an area that is changed by compare-and-write.
    pub(super) record: Option<RecordAt>,
    /// One slot to write from.
    slot: Sectors,
    /// The own heartbeat as it was last written.
    own_frame: Option<[u8; FRAME_LEN]>,
    /// Frames are decoded into this one; what it holds between two is of no interest.
    heard: Frame,
}

impl Area {
    /// `highest`, and with it the own node, must have a place.
    pub(super) fn new(
        disk: AreaDisk,
        header: Header,
        highest: NodeId,
        parameters: &Parameters,
        counters: Arc<Counters>,
        target: Option<Box<dyn CompareAndWrite>>,
    ) -> Area {
        let &Parameters {
            index,
            cluster,
            node,
            incarnation,
            ref keyring,
            ..
        } = parameters;
        let places = usize::from(header.geometry.nodes_max());
        assert!(
            node <= highest && highest.index() < places,
            "the places were checked"
        );
        Area {
            disk,
            header,
            cluster,
            node,
            incarnation,
            index,
            keyring: keyring.clone(),
            counters,
            used: highest.number(),
            reads: 0,
            fresh: Sectors::new(places * REGION_LEN),
            known: vec![0; places * REGION_LEN],
            blocks: vec![BlockSeen::Blank; places],
            blocks_untold: true,
            frames_untold: NodeSet::EMPTY,
            own: Own::Unread,
            record: target.map(RecordAt::new),
            slot: Sectors::new(SLOT_LEN),
            own_frame: None,
            heard: Frame::blank(cluster, node, incarnation),
        }
    }

    /// Has the own block been read since it may have changed?
    pub(super) fn knows_own_block(&self) -> bool {
        self.record.is_some() || !matches!(self.own, Own::Unread)
    }

    /// Is the register changed by compare-and-write?
    pub(super) fn has_record(&self) -> bool {
        self.record.is_some()
    }

    /// Reads the regions and takes in what has changed.
    pub(super) fn read(&mut self, scope: Scope) -> Result<Seen, Error> {
        let all = scope == Scope::All || self.reads.is_multiple_of(ALL_EVERY);
        let places = if all {
            self.header.geometry.nodes_max()
        } else {
            self.used
        };
        let length = usize::from(places) * REGION_LEN;
        let begun = now();
        self.disk
            .disk()
            .read_at(self.header.geometry.regions(), &mut self.fresh[..length])?;
        self.counters.reads.add(now().since(begun));
        for node in NodeId::all().take(usize::from(places)) {
            self.look_at(node)?;
        }
        self.reads = self.reads.wrapping_add(1);
        let shown = if self.has_record() {
            self.read_record(length)?.map(Shown::Record)
        } else {
            let changed = std::mem::take(&mut self.blocks_untold);
            changed.then(|| Shown::Blocks(self.blocks.clone()))
        };
        Ok(Seen {
            begun,
            ended: now(),
            shown,
        })
    }

    /// Takes in one region. What it has found is kept even if the read fails later on.
    fn look_at(&mut self, node: NodeId) -> Result<(), Error> {
        let start = node.index() * REGION_LEN;
        let (fresh, known) = (&self.fresh[start..], &self.known[start..]);
        let frame_changed = fresh[..FRAME_LEN] != known[..FRAME_LEN];
        let block_changed = fresh[SLOT_LEN..REGION_LEN] != known[SLOT_LEN..REGION_LEN];
        if let Some(record) = &mut self.record {
            record.block_changed(node, block_changed);
        } else if block_changed || (node == self.node && !self.knows_own_block()) {
            self.blocks[node.index()] = self.newest(node)?;
        }
        if !frame_changed && !block_changed {
            return Ok(());
        }
        if frame_changed {
            self.frames_untold.insert(node);
        }
        self.blocks_untold |= block_changed;
        self.used = self.used.max(node.number());
        let region = start..start + REGION_LEN;
        self.known[region.clone()].copy_from_slice(&self.fresh[region]);
        Ok(())
    }

    /// The block of a node, from both copies. If one of them is not good, both are read once more:
    /// the first read may have caught the older copy before a write and the newer one within the
    /// next, and then neither of what it saw is as new as the moment it was begun.
    fn newest(&mut self, node: NodeId) -> Result<BlockSeen, Error> {
        let start = node.index() * REGION_LEN;
        let found = |region: &[u8]| {
            let (_, a, b) = split_region(region).expect("a region has three slots");
            newest_block(&self.header.nonce, node, a, b, &self.keyring)
        };
        let mut newest = found(&self.fresh[start..]);
        if newest
            .as_ref()
            .map_or(true, |newest| newest.damaged.is_some())
        {
            self.counters.add(Count::Reread);
            let offset = self.header.geometry.regions() + (start + SLOT_LEN) as u64;
            let copies = start + SLOT_LEN..start + REGION_LEN;
            self.disk.disk().read_at(offset, &mut self.fresh[copies])?;
            newest = found(&self.fresh[start..]);
        }
        if node == self.node {
            self.own = newest.as_ref().map_or(Own::Damaged, |newest| {
                Own::Next(newest.stored.block.writes, newest.next)
            });
        }
        Ok(match newest {
            Err(_) => BlockSeen::Damaged,
            Ok(newest) if newest.stored.writer.is_none() => BlockSeen::Blank,
            Ok(newest) => BlockSeen::Good(newest.stored.block),
        })
    }

    /// Tells the frames that have changed, each node's from its own slot only. What stands in the
    /// own slot and is not of this life is told too: another machine may use this node's id.
    pub(super) fn tell_frames(&mut self, out: &mut Outlet) {
        for node in std::mem::take(&mut self.frames_untold).iter() {
            let start = node.index() * REGION_LEN;
            let bytes = &self.known[start..start + FRAME_LEN];
            if node == self.node {
                if self.own_frame.is_some_and(|written| written == *bytes) {
                    continue;
                }
                self.counters.add(Count::Impostor);
            }
            match self.heard.decode_into(bytes, &self.keyring, &self.cluster) {
                Ok(()) if self.heard.sender != node => self.counters.add(Count::Misplaced),
                Ok(()) if self.heard.incarnation == self.incarnation => {}
                Ok(()) => out.frame(&self.heard),
                Err(_) if node == self.node => {} // counted as an impostor's already
                Err(error) => self.counters.refuse(error),
            }
        }
    }

    /// Writes the own heartbeat slot, all of it: last words of an earlier life end with it.
    pub(super) fn write_frame(&mut self, frame: &Frame) -> Result<(), TransferError> {
        let mut frame = frame.clone();
        frame.link = self.index;
        self.slot.fill(0);
        let bytes = self
            .slot
            .first_chunk_mut()
            .expect("a slot is longer than a frame");
        frame.encode(&self.keyring, bytes);
        self.own_frame = Some(*bytes);
        let offset = self
            .header
            .geometry
            .heartbeat(self.node)
            .expect("the place was checked");
        self.write_slot(offset)
    }

    /// Writes the own register block into the copy that does not hold the newest one; in an area
    /// with a record into the one that it is ordered for.
    pub(super) fn write_block(&mut self, block: &Block) -> Result<(), TransferError> {
        if self.has_record() {
            return self.write_copy(block, Side::of_writes(block.writes));
        }
        let Own::Next(found, side) = self.own else {
            return Err(TransferError::OwnBlockUnknown);
        };
        if block.writes <= found {
            return Err(TransferError::NotNewer {
                ordered: block.writes,
                found,
            });
        }
        // Until it has succeeded nobody knows what is in this copy.
        self.own = Own::Unread;
        self.write_copy(block, side)?;
        self.own = Own::Next(block.writes, side.other());
        Ok(())
    }

    fn write_copy(&mut self, block: &Block, side: Side) -> Result<(), TransferError> {
        let place = (self.node, side);
        let slot = self.slot.first_chunk_mut().expect("one slot");
        encode_block(
            &self.header.nonce,
            place,
            block,
            self.incarnation,
            &self.keyring,
            slot,
        );
        let offset = self
            .header
            .geometry
            .block(self.node, side)
            .expect("the place was checked");
        self.write_slot(offset)
    }

    fn write_slot(&self, offset: u64) -> Result<(), TransferError> {
        let begun = now();
        self.disk.disk().write_at(offset, &self.slot)?;
        self.counters.writes.add(now().since(begun));
        Ok(())
    }
}
