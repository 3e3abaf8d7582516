//! The shared disks, one or three, and one node's disk thread for each: what it has under way and
//! what it has seen.
//!
//! A write lands at one moment between its order and its end; a read sees each slot at one of two
//! moments between its beginning and its end. An operation may be held for seconds by a hang and
//! then be done after all, or return an error and have landed or not.

use std::rc::Rc;

use standfast::frame::Frame;
use standfast::model::Incarnation;
use standfast::register::{Ballot, Block, BlockSeen, RecordSeen, Seen, Value};

use crate::checks::s4;
use crate::record::{Command, Shared};

/// What is on the platters.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) frames: Vec<Option<Rc<Frame>>>,
    blocks: Vec<Block>,
    /// In place of `blocks` on a disk that is changed by compare-and-write.
    pub(crate) record: Option<Shared>,
}

impl Disk {
    pub(crate) fn new(nodes: usize, has_record: bool) -> Disk {
        Disk {
            record: has_record.then(|| Shared::new(nodes)),
            frames: vec![None; nodes],
            blocks: vec![Block::default(); nodes],
        }
    }

    pub(crate) fn block_seen(&self, slot: usize) -> BlockSeen {
        let block = &self.blocks[slot];
        if block.writes == 0 {
            BlockSeen::Blank
        } else {
            BlockSeen::Good(block.clone())
        }
    }

    /// A block lands.
    fn land(&mut self, slot: usize, block: Block) -> Result<(), String> {
        if let Some(record) = &mut self.record {
            return record.land(slot, block, true);
        }
        s4::block(slot, &self.blocks[slot], &block)?;
        self.blocks[slot] = block;
        Ok(())
    }

    pub(crate) fn block(&self, slot: usize) -> &Block {
        &self.blocks[slot]
    }
}

/// A block lands on one of the disks. Returns its value if that is decided by now: accepted in the
/// block's newest ballot on most disks, with nobody beyond it on as many, no later ballot can miss
/// it.
pub(crate) fn land(
    disks: &mut [Disk],
    disk: usize,
    slot: usize,
    block: Block,
) -> Result<Option<Value>, String> {
    disks[disk].land(slot, block)?;
    if disks[disk].record.is_some() {
        return Ok(None);
    }
    let most = |of: &dyn Fn(&Block) -> bool, slot: usize| {
        let on = disks.iter().filter(|disk| of(&disk.blocks[slot]));
        on.count() > disks.len() / 2
    };
    let landed = &disks[disk].blocks[slot];
    let bal = landed.bal;
    let mut others = 0..disks[disk].blocks.len();
    let beyond = others.any(|other| most(&|block| block.mbal > bal, other));
    let accepted =
        bal != Ballot::NONE && bal == landed.mbal && most(&|block| block.bal == bal, slot);
    Ok((accepted && !beyond).then(|| landed.value.clone()))
}

/// Epoch and nonce of the value accepted in the highest ballot.
pub(crate) fn top(disks: &[Disk]) -> Option<(u64, u64)> {
    if let Some(record) = &disks[0].record {
        return record.top();
    }
    let blocks = disks.iter().flat_map(|disk| &disk.blocks);
    let top = blocks.max_by_key(|block| block.bal)?;
    (top.bal != Ballot::NONE).then(|| top.value.id())
}

/// Has somebody begun a ballot above the highest in which a value was accepted, or accepted one,
/// by the votes that nodes have kept, that no disk has? It hides what readers could see decided,
/// until it is settled.
pub(crate) fn ballot_open<'a>(disks: &[Disk], votes: impl Iterator<Item = &'a Block>) -> bool {
    let blocks = || disks.iter().flat_map(|disk| &disk.blocks);
    let highest = |of: fn(&Block) -> Ballot| blocks().map(of).max().unwrap_or_default();
    let (mbal, bal) = match &disks[0].record {
        Some(shared) => (shared.bal(), shared.bal()),
        None => (highest(|block| block.mbal), highest(|block| block.bal)),
    };
    let voted = votes.map(|block| block.bal).max().unwrap_or_default();
    mbal.max(voted) > bal
}

/// A read of all slots under way.
pub(crate) struct Read {
    pub(crate) id: u64,
    /// On the node's own clock, before it was issued.
    pub(crate) begun: standfast::time::Instant,
    /// Slots sampled at the second of the two moments, bit by position.
    pub(crate) late: u64,
    pub(crate) blocks: Vec<BlockSeen>,
    pub(crate) record: Option<RecordSeen>,
    pub(crate) frames: Vec<Option<Rc<Frame>>>,
    pub(crate) fails: bool,
}

/// A register write under way.
pub(crate) struct Write {
    pub(crate) id: u64,
    pub(crate) block: Block,
    pub(crate) fails: bool,
    pub(crate) lands: bool,
    /// It is on the disk.
    pub(crate) landed: bool,
    /// Nobody waits for it any more: its core is gone.
    pub(crate) orphan: bool,
}

/// One node's disk thread.
#[derive(Default)]
pub(crate) struct DiskThread {
    pub(crate) reads: Vec<Read>,
    /// A read was ordered while two were under way.
    pub(crate) again: bool,
    pub(crate) write: Option<Write>,
    /// The command for the record under way.
    pub(crate) command: Option<Command>,
    /// Heartbeat under way, and the one to be written after it.
    pub(crate) slot: Option<(u64, Rc<Frame>)>,
    pub(crate) next_slot: Option<Rc<Frame>>,
    /// Frames already handed on, by slot.
    pub(crate) handed: Vec<Option<(Incarnation, u64)>>,
    /// Blocks as last handed on.
    pub(crate) known: Option<Seen>,
    pub(crate) up: Option<bool>,
    /// The thread was to read when it was stopped.
    pub(crate) sleeps: bool,
    /// The device answers nothing before this true moment.
    pub(crate) hung_until: u64,
    /// Every operation fails.
    pub(crate) lost: bool,
    /// Every operation may take half the detect time.
    pub(crate) slow: bool,
    /// Reads return flipped bits.
    pub(crate) garbled: bool,
}

impl DiskThread {
    /// Does the process wait for a write? Then it cannot end.
    pub(crate) fn writes(&self) -> bool {
        self.write.is_some() || self.command.is_some() || self.slot.is_some()
    }

    /// The core and its threads are gone; what the kernel has been given goes on.
    pub(crate) fn core_gone(&mut self) {
        self.reads.clear();
        (self.again, self.sleeps) = (false, false);
        self.next_slot = None;
        self.handed.clear();
        self.known = None;
        self.up = None;
        if let Some(write) = &mut self.write {
            write.orphan = true;
        }
        if let Some(command) = &mut self.command {
            command.orphan = true;
        }
    }
}
