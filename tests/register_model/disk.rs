//! The disk: two copies of each node's block, written in turn, either of which may be torn.

use standfast::register::{Ballot, Block, BlockSeen};

/// One of the two copies.
#[derive(Clone)]
enum Copy {
    Valid(Block),
    Torn,
}

/// All slots.
pub(crate) struct Disk {
    slots: Vec<[Copy; 2]>,
    /// Highest `mbal` and `bal` that each slot has shown.
    marks: Vec<(Ballot, Ballot)>,
}

impl Disk {
    pub(crate) fn new(nodes: usize) -> Disk {
        let blank = [Copy::Valid(Block::default()), Copy::Valid(Block::default())];
        Disk {
            slots: vec![blank; nodes],
            marks: vec![(Ballot::NONE, Ballot::NONE); nodes],
        }
    }

    /// The newer valid copy.
    pub(crate) fn block(&self, slot: usize) -> Option<&Block> {
        self.slots[slot]
            .iter()
            .filter_map(|copy| match copy {
                Copy::Valid(block) => Some(block),
                Copy::Torn => None,
            })
            .max_by_key(|block| block.writes)
    }

    pub(crate) fn sample(&self, slot: usize) -> BlockSeen {
        match self.block(slot) {
            Some(block) if block.writes == 0 => BlockSeen::Blank,
            Some(block) => BlockSeen::Good(block.clone()),
            None => BlockSeen::Damaged,
        }
    }

    /// A write has begun to change its copy.
    pub(crate) fn tear(&mut self, slot: usize, writes: u64) {
        self.slots[slot][writes as usize % 2] = Copy::Torn;
        self.check(slot);
    }

    /// A write is complete.
    pub(crate) fn land(&mut self, slot: usize, block: Block) {
        let copy = block.writes as usize % 2;
        self.slots[slot][copy] = Copy::Valid(block);
        self.check(slot);
    }

    /// A block never goes back, neither by a write nor by a torn one.
    fn check(&mut self, slot: usize) {
        let block = self.block(slot).expect("both copies of a block are gone");
        let (mbal, bal) = self.marks[slot];
        assert!(
            block.mbal >= mbal && block.bal >= bal,
            "slot {slot} went back"
        );
        self.marks[slot] = (block.mbal, block.bal);
    }

    /// Was the block's value accepted in its newest ballot, and is nobody else beyond it? Then no
    /// later ballot can read the disk without seeing it.
    pub(crate) fn is_decided(&self, slot: usize) -> bool {
        let block = self.block(slot).expect("checked");
        let beyond = |other: usize| self.block(other).is_some_and(|seen| seen.mbal > block.bal);
        block.bal != Ballot::NONE && block.bal == block.mbal && !(0..self.slots.len()).any(beyond)
    }
}
