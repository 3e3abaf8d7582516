//! The disk: two copies of each node's block, written in turn, either of which may be torn; and the
//! record, where the register is changed by compare-and-write.

use standfast::register::{Ballot, Block, BlockSeen, Change, Compared, Record, RecordSeen, Value};

/// One of the two copies.
#[derive(Clone)]
pub(crate) enum Copy {
    Valid(Block),
    Torn,
}

/// Both copies of all nodes.
pub(crate) type Copies = Vec<[Copy; 2]>;

/// All slots.
pub(crate) struct Disk {
    slots: Copies,
    /// None where the area was formatted for Disk Paxos.
    record: Option<Record>,
    /// Highest `mbal` and `bal` that each slot has shown.
    marks: Vec<(Ballot, Ballot)>,
}

impl Disk {
    pub(crate) fn new(nodes: usize, has_record: bool) -> Disk {
        let blank = [Copy::Valid(Block::default()), Copy::Valid(Block::default())];
        Disk {
            slots: vec![blank; nodes],
            record: has_record.then(Record::default),
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

    pub(crate) fn record(&self) -> Option<Record> {
        self.record
    }

    pub(crate) fn copies(&self) -> Copies {
        self.slots.clone()
    }

    /// What a read makes of the record and of copies that it saw at another moment; nothing if it
    /// has to look once more.
    pub(crate) fn resolve(record: Record, copies: &Copies) -> Option<RecordSeen> {
        let Some(place) = record.place else {
            let blank = record.count == 0;
            let empty = RecordSeen::Good(record, Value::default());
            return Some(if blank { RecordSeen::Blank } else { empty });
        };
        match &copies[place.node.index()][place.writes as usize % 2] {
            Copy::Valid(block) if block.writes == place.writes && record.names(&block.value) => {
                Some(RecordSeen::Good(record, block.value.clone()))
            }
            Copy::Valid(_) | Copy::Torn => None,
        }
    }

    /// One COMPARE AND WRITE. What it names is whole by then.
    pub(crate) fn execute(&mut self, change: &Change) -> Compared {
        if self.record != Some(change.expected) {
            return Compared::Miscompare;
        }
        assert!(
            change.new.bal >= change.expected.bal,
            "the record went back"
        );
        assert_eq!(
            change.new.count,
            change.expected.count + 1,
            "a number is left out"
        );
        assert!(change.new.makes_sense(), "{:?}", change.new);
        self.record = Some(change.new);
        self.check(0);
        Compared::Done
    }

    /// A block never goes back, neither by a write nor by a torn one; and what the record names is
    /// always there.
    fn check(&mut self, slot: usize) {
        if let Some(record) = self.record {
            let seen = Disk::resolve(record, &self.slots);
            assert!(seen.is_some(), "what the record names is gone: {record:?}");
            return;
        }
        let block = self.block(slot).expect("both copies of a block are gone");
        let (mbal, bal) = self.marks[slot];
        assert!(
            block.mbal >= mbal && block.bal >= bal,
            "slot {slot} went back"
        );
        self.marks[slot] = (block.mbal, block.bal);
    }
}

/// This block has landed: was its value accepted in its newest ballot, and on most of the disks,
/// with nobody beyond it on as many? Then no later ballot can read most of them without seeing it.
pub(crate) fn is_decided(disks: &[Disk], slot: usize, landed: &Block) -> bool {
    let bal = landed.bal;
    let most = |of: &dyn Fn(&Block) -> bool, slot: usize| {
        let blocks = disks.iter().filter_map(|disk| disk.block(slot));
        blocks.filter(|block| of(block)).count() > disks.len() / 2
    };
    let slots = 0..disks.first().map_or(0, |disk| disk.slots.len());
    let mut beyond = slots.filter(|other| most(&|block| block.mbal > bal, *other));
    bal != Ballot::NONE
        && bal == landed.mbal
        && most(&|block| block.bal == bal, slot)
        && beyond.next().is_none()
}
