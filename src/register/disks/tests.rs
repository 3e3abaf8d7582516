//! One register against three disks that do what the test says.

use crate::model::{NodeId, NodeSet};
use crate::register::{
    Ballot, Block, BlockSeen, Event, Memory, News, Order, RecordSeen, Register, Seen, Trouble,
    Value,
};
use crate::time::{Instant, Span};

const BACKOFF: Span = Span(1_000);
const FAR: Instant = Instant(1_000_000_000);

/// Node 1 of two, with three disks of two slots and a clock that moves by 10 per call.
struct Table {
    register: Register,
    disks: [Vec<BlockSeen>; 3],
    now: Instant,
}

fn node(id: u8) -> NodeId {
    NodeId::new(id).unwrap()
}

fn value(epoch: u64, nonce: u64) -> Value {
    let bytes = vec![nonce as u8; 3];
    Value {
        epoch,
        nonce,
        bytes,
    }
}

fn ballot(counter: u64, id: u8) -> Ballot {
    Ballot(counter << 8 | u64::from(id))
}

fn block(writes: u64, mbal: Ballot, bal: Ballot, value: &Value) -> BlockSeen {
    let value = value.clone();
    BlockSeen::Good(Block {
        writes,
        mbal,
        bal,
        value,
    })
}

impl Table {
    fn new() -> Table {
        let nodes = (1..=2).map(node).collect::<NodeSet>();
        let register = Register::new(node(1), nodes, 7, BACKOFF, Memory::Nothing);
        Table {
            register: register.on_disks(3),
            disks: std::array::from_fn(|_| vec![BlockSeen::Blank; 2]),
            now: Instant(100),
        }
    }

    fn recovered() -> Table {
        let mut table = Table::new();
        table.read_all([0, 1, 2]);
        table.news();
        table
    }

    fn step(&mut self) -> Instant {
        self.now += Span(10);
        self.now
    }

    /// A read of this disk, begun now, shows it as it is now. Returns its beginning.
    fn read(&mut self, disk: usize) -> Instant {
        let (begun, ended) = (self.step(), self.step());
        let seen = &Seen::Blocks(self.disks[disk].clone());
        let event = Event::ReadDone { begun, ended, seen };
        self.register.handle_on(disk, ended, event);
        begun
    }

    fn read_all<const N: usize>(&mut self, disks: [usize; N]) {
        for disk in disks {
            self.read(disk);
        }
    }

    fn ordered(&mut self, disk: usize) -> Vec<Order> {
        std::iter::from_fn(|| self.register.poll_order_on(disk)).collect()
    }

    /// The write that is due on this disk.
    fn begin_write(&mut self, disk: usize) -> Option<Block> {
        let orders = self.ordered(disk).into_iter();
        orders.fold(None, |found, order| match order {
            Order::Write(block) => Some(block),
            Order::Read | Order::CompareAndWrite(_) => found,
        })
    }

    fn end_write(&mut self, disk: usize, block: Block) {
        self.disks[disk][0] = BlockSeen::Good(block);
        let at = self.step();
        self.register.handle_on(disk, at, Event::Written { at });
    }

    fn write(&mut self, disk: usize) -> Block {
        let block = self.begin_write(disk).expect("a write is due");
        self.end_write(disk, block.clone());
        block
    }

    fn propose(&mut self, expected: &Value, new: &Value) {
        let now = self.step();
        let (expected, new) = (expected.id(), new.clone());
        self.register.propose(now, expected, new, FAR).unwrap();
    }

    fn news(&mut self) -> Vec<News> {
        std::iter::from_fn(|| self.register.poll_news()).collect()
    }

    fn has_won(&mut self, new: &Value) -> bool {
        let mut news = self.news().into_iter();
        news.any(|news| matches!(news, News::Won { value, .. } if value == *new))
    }
}

#[test]
fn two_disks_are_enough_and_the_third_gets_the_newest_when_it_answers() {
    let mut table = Table::recovered();
    let new = value(1, 11);
    table.propose(&Value::default(), &new);
    let late = table.begin_write(2).expect("all three are written");
    table.write(0);
    table.read_all([0, 1]);
    assert_eq!(
        table.begin_write(0),
        None,
        "the promise is on one disk only"
    );
    let second = table.begin_write(1).expect("all three are written");
    table.end_write(1, second);
    table.read(0);
    assert_eq!(table.begin_write(0), None, "one disk was read only");
    table.read(1);
    table.write(0);
    table.write(1);
    assert_eq!(table.begin_write(2), None, "its first write has not ended");
    table.read_all([0, 1]);
    assert!(table.has_won(&new));
    assert_eq!(table.register.trouble_on(2), None);
    table.end_write(2, late);
    let newest = table.write(2);
    assert_eq!((newest.bal, newest.value), (ballot(1, 1), new));
}

#[test]
fn a_write_that_fails_is_done_again_and_is_missed_on_two_disks_only() {
    let mut table = Table::recovered();
    let new = value(1, 11);
    table.propose(&Value::default(), &new);
    let fail = |table: &mut Table, disk| {
        table.begin_write(disk).expect("a write is due");
        let at = table.step();
        table
            .register
            .handle_on(disk, at, Event::WriteFailed { at });
        table.read(disk);
    };
    fail(&mut table, 2);
    assert_eq!(table.register.trouble_on(2), Some(Trouble::WriteFailed));
    assert_eq!(table.register.trouble(), None);
    fail(&mut table, 1);
    assert_eq!(table.register.trouble(), Some(Trouble::WriteFailed));
    table.write(0);
    table.read_all([0, 1, 2]);
    assert_eq!(table.begin_write(0), None, "one disk has it");
    assert_eq!(
        table.begin_write(2),
        None,
        "the others are not written again at once"
    );
    table.now += BACKOFF;
    table.register.handle(table.now, Event::Tick);
    assert_eq!(table.ordered(2), [Order::Read]);
    table.read(2);
    table.write(2);
    table.read_all([0, 2]);
    table.write(0);
    table.write(2);
    table.read_all([0, 2]);
    assert!(table.has_won(&new));
}

#[test]
fn what_stands_on_one_disk_is_not_decided() {
    let mut table = Table::recovered();
    let found = value(1, 22);
    let theirs = block(2, ballot(3, 2), ballot(3, 2), &found);
    table.disks[0][1] = theirs.clone();
    table.read_all([0, 1, 2]);
    table.read_all([0, 1, 2]);
    assert_eq!(table.register.known().epoch, 0);
    table.disks[2][1] = theirs;
    table.read(2);
    assert_eq!(table.register.known().epoch, 0, "seen on two just now");
    table.read(0);
    assert_eq!(table.register.known().epoch, 0, "one was read since then");
    table.read(1);
    assert_eq!(*table.register.known(), found);
}

#[test]
fn a_proof_is_as_old_as_the_older_of_the_two_latest_reads() {
    let mut table = Table::recovered();
    let first = table.read(1);
    let second = table.read(0);
    table.news();
    let _third = table.read(0);
    assert_eq!(
        table.news(),
        [News::Proof {
            begun: first,
            epoch: 0
        }]
    );
    table.read(2);
    let proof = table.news();
    assert!(matches!(&proof[..], [News::Proof { begun, .. }] if *begun > second));
}

#[test]
fn a_restarted_node_takes_the_highest_of_its_blocks_ballot_by_ballot() {
    let mut table = Table::new();
    let (old, chosen) = (value(1, 5), value(2, 6));
    // A life that ended in the promise of its ninth ballot, then one that did not see that.
    table.disks[0][0] = block(7, ballot(9, 1), ballot(3, 1), &old);
    table.disks[1][0] = block(8, ballot(8, 1), ballot(8, 1), &chosen);
    table.disks[2][0] = block(8, ballot(8, 1), ballot(8, 1), &chosen);
    table.read(0);
    assert!(!table.register.is_recovered());
    table.read(1);
    assert!(table.register.is_recovered());
    table.read(2);
    table.now = table.register.poll_timeout().max(table.now);
    table.register.handle(table.now, Event::Tick);
    let written = [0, 1, 2].map(|disk| table.write(disk));
    for block in &written {
        assert!(block.mbal > ballot(9, 1), "{block:?}");
    }
    assert_eq!(written.map(|block| block.writes), [8, 9, 9]);
    table.read_all([0, 1, 2]);
    for disk in 0..3 {
        let block = table.write(disk);
        assert_eq!((block.bal, &block.value), (block.mbal, &chosen));
    }
}

#[test]
fn a_disk_that_shows_less_than_before_is_out_and_two_of_them_stop_everything() {
    let mut table = Table::recovered();
    let new = value(1, 11);
    table.propose(&Value::default(), &new);
    for _ in 0..2 {
        for disk in 0..3 {
            table.write(disk);
        }
        table.read_all([0, 1, 2]);
    }
    assert!(table.has_won(&new));
    // The whole disk is blank, then another one is as it was before.
    table.disks[1] = vec![BlockSeen::Blank; 2];
    table.read(1);
    assert_eq!(table.register.trouble_on(1), Some(Trouble::Foreign));
    assert_eq!(
        (table.register.trouble(), table.register.halted()),
        (None, None)
    );
    assert_eq!(table.ordered(1), [], "nothing more is wanted of it");
    assert_eq!(table.register.poll_timeout(), Instant::NEVER);
    table.news();
    table.read_all([0, 2]);
    assert_eq!(table.news().len(), 1, "a proof by the two others");
    let theirs = block(4, ballot(2, 2), ballot(2, 2), &value(2, 12));
    table.disks[2][1] = theirs;
    table.read(2);
    table.disks[2][1] = BlockSeen::Blank;
    table.read(2);
    assert_eq!(table.register.trouble_on(2), Some(Trouble::WentBack));
    assert!(table.register.trouble().is_some());
    table.news();
    table.read_all([0, 1, 2]);
    assert_eq!(table.news(), [], "one disk proves nothing");
}

#[test]
fn a_disk_with_a_record_does_not_count_among_three() {
    let mut table = Table::new();
    let (begun, ended) = (table.step(), table.step());
    let seen = &Seen::Record(RecordSeen::Blank);
    let event = Event::ReadDone { begun, ended, seen };
    table.register.handle_on(0, ended, event);
    assert_eq!(table.register.trouble_on(0), Some(Trouble::Mixed));
    table.read(1);
    assert!(!table.register.is_recovered());
    table.read(2);
    assert!(table.register.is_recovered());
    assert_eq!(table.register.halted(), None);
}
