//! One register against a disk that does what the test says.

mod elsewhere;
mod overlap;

use super::*;
use crate::model::{NodeId, NodeSet};
use crate::time::{Instant, Span};

const BACKOFF: Span = Span(1_000);
const FAR: Instant = Instant(1_000_000_000);

/// Node 1 of three, with a disk of three slots and a clock that moves by 10 per call.
struct Table {
    register: Register,
    blocks: Vec<BlockSeen>,
    now: Instant,
}

fn node(id: u8) -> NodeId {
    NodeId::new(id).unwrap()
}

fn value(epoch: u64, nonce: u64) -> Value {
    Value {
        epoch,
        nonce,
        bytes: vec![nonce as u8; 3],
    }
}

fn ballot(counter: u64, id: u8) -> Ballot {
    Ballot(counter << 8 | u64::from(id))
}

fn block(writes: u64, mbal: Ballot, bal: Ballot, value: Value) -> BlockSeen {
    BlockSeen::Good(Block {
        writes,
        mbal,
        bal,
        value,
    })
}

impl Table {
    fn new() -> Table {
        let nodes = (1..=3).map(node).collect::<NodeSet>();
        let register = Register::new(node(1), nodes, 7, BACKOFF, Memory::Nothing);
        Table {
            register,
            blocks: vec![BlockSeen::Blank; 3],
            now: Instant(100),
        }
    }

    fn recovered() -> Table {
        let mut table = Table::new();
        table.read();
        table.drain();
        table
    }

    fn step(&mut self) -> Instant {
        self.now += Span(10);
        self.now
    }

    /// A read begun now shows the disk as it is now.
    fn read(&mut self) {
        let begun = self.step();
        self.read_begun(begun);
    }

    fn read_begun(&mut self, begun: Instant) {
        let ended = self.step();
        let seen = &Seen::Blocks(self.blocks.clone());
        let event = Event::ReadDone { begun, ended, seen };
        self.register.handle(ended, event);
    }

    /// The orders that are due, writes not done yet.
    fn orders(&mut self) -> Vec<Order> {
        std::iter::from_fn(|| self.register.poll_order()).collect()
    }

    fn ordered_write(&mut self) -> Option<Block> {
        self.orders().into_iter().find_map(|order| match order {
            Order::Write(block) => Some(block),
            Order::Read | Order::CompareAndWrite(_) => None,
        })
    }

    /// Does the write that must be ordered now.
    fn write(&mut self) -> Block {
        let block = self.ordered_write().expect("a write is due");
        self.blocks[0] = BlockSeen::Good(block.clone());
        let at = self.step();
        self.register.handle(at, Event::Written { at });
        block
    }

    fn propose(&mut self, expected: &Value, new: &Value) {
        let now = self.step();
        self.register
            .propose(now, expected.id(), new.clone(), FAR)
            .unwrap();
    }

    fn drain(&mut self) -> Vec<News> {
        std::iter::from_fn(|| self.register.poll_news()).collect()
    }

    fn wait(&mut self) {
        self.now = self.register.poll_timeout();
        self.register.handle(self.now, Event::Tick);
    }

    /// The whole of an undisturbed ballot.
    fn ballot(&mut self) {
        self.write();
        self.read();
        self.write();
        self.read();
    }
}

#[test]
fn an_undisturbed_proposal_takes_two_writes_and_two_reads() {
    let mut table = Table::recovered();
    let new = value(1, 11);
    table.propose(&Value::default(), &new);
    let first = table.write();
    assert_eq!(
        (first.mbal, first.bal, first.writes),
        (ballot(1, 1), Ballot::NONE, 1)
    );
    assert_eq!(table.orders(), [Order::Read]);
    table.read();
    let second = table.write();
    assert_eq!(
        (second.mbal, second.bal, second.writes),
        (ballot(1, 1), ballot(1, 1), 2)
    );
    assert_eq!(second.value, new);
    assert!(
        table
            .drain()
            .iter()
            .all(|news| matches!(news, News::Proof { epoch: 0, .. })),
        "not before the last read"
    );
    table.read();
    let (at, begun) = (table.now, table.now - Span(10));
    let won = News::Won {
        value: new.clone(),
        at,
    };
    assert_eq!(
        table.drain(),
        [News::Learned(new), won, News::Proof { begun, epoch: 1 }]
    );
    assert!(table.orders().is_empty());
    assert_eq!(table.register.poll_timeout(), Instant::NEVER);
}

#[test]
fn nothing_is_written_before_the_own_block_was_read() {
    let mut table = Table::new();
    table.propose(&Value::default(), &value(1, 11));
    assert!(!table.register.is_recovered());
    assert_eq!(table.orders(), [Order::Read]);
    table.blocks[0] = block(8, ballot(5, 1), ballot(3, 1), value(1, 4));
    table.blocks[2] = block(2, ballot(9, 3), Ballot::NONE, Value::default());
    table.read();
    assert!(table.register.is_recovered());
    let first = table.write();
    assert_eq!(
        (first.writes, first.mbal, first.bal),
        (9, ballot(10, 1), ballot(3, 1))
    );
    assert_eq!(first.value, value(1, 4), "what was accepted stays");
}

#[test]
fn a_read_begun_before_the_write_ended_does_not_count() {
    let mut table = Table::recovered();
    table.propose(&Value::default(), &value(1, 11));
    let early = table.step();
    table.write();
    table.read_begun(early);
    assert_eq!(table.orders(), [Order::Read]);
    table.read();
    assert!(table.ordered_write().is_some());
}

#[test]
fn a_higher_ballot_is_given_way_to_and_outbid_later() {
    let mut table = Table::recovered();
    table.propose(&Value::default(), &value(1, 11));
    table.write();
    table.blocks[1] = block(1, ballot(4, 2), Ballot::NONE, Value::default());
    table.read();
    assert_eq!(table.ordered_write(), None);
    let pause = table.register.poll_timeout().since(table.now);
    assert!(
        pause >= BACKOFF.over(2) && pause <= BACKOFF.times(2),
        "{pause:?}"
    );
    table.wait();
    assert_eq!(table.write().mbal, ballot(5, 1));
    table.read();
    table.write();
    table.blocks[1] = block(2, ballot(6, 2), Ballot::NONE, Value::default());
    table.read();
    assert!(
        !table
            .drain()
            .iter()
            .any(|news| matches!(news, News::Won { .. })),
        "unclear"
    );
    table.wait();
    table.ballot();
    assert!(
        table
            .drain()
            .iter()
            .any(|news| matches!(news, News::Won { .. }))
    );
}

#[test]
fn another_value_is_settled_before_it_is_called_the_winner() {
    let mut table = Table::recovered();
    table.propose(&Value::default(), &value(1, 11));
    table.blocks[2] = block(2, ballot(1, 3), ballot(1, 3), value(1, 33));
    table.write();
    table.read();
    assert!(table.drain().is_empty());
    table.wait();
    table.write();
    table.read();
    assert_eq!(table.write().value, value(1, 33));
    table.read();
    let lost = News::Lost {
        current: value(1, 33),
        unclear: false,
    };
    assert_eq!(table.drain()[..2], [News::Learned(value(1, 33)), lost]);
}

#[test]
fn an_unclear_try_is_told_by_its_nonce() {
    for (found, expected) in [
        (
            (1, 11),
            News::Won {
                value: value(1, 11),
                at: Instant(0),
            },
        ),
        (
            (2, 22),
            News::Lost {
                current: value(2, 22),
                unclear: true,
            },
        ),
        (
            (1, 22),
            News::Lost {
                current: value(1, 22),
                unclear: false,
            },
        ),
    ] {
        let mut table = Table::recovered();
        table.propose(&Value::default(), &value(1, 11));
        table.write();
        table.read();
        table.write();
        let other = ballot(7, 2);
        table.blocks[1] = block(2, other, other, value(found.0, found.1));
        table.read();
        table.read();
        let news = table.drain();
        assert_eq!(news[0], News::Learned(value(found.0, found.1)));
        match (&news[1], expected) {
            (News::Won { value, at }, News::Won { value: new, .. }) => {
                assert_eq!((value, *at), (&new, table.now));
            }
            (news, expected) => assert_eq!(*news, expected),
        }
    }
}

#[test]
fn plain_reads_teach_only_what_is_certain() {
    let (low, high) = (ballot(2, 2), ballot(3, 3));
    // First read: begun, ended. Second read: begun. Highest ballot in each. Learned?
    let rows = [
        ((10, 20), 20, low, low, true),
        ((10, 20), 19, low, low, false),
        ((10, 20), 30, low, high, false),
        ((10, 20), 30, high, low, true),
        ((10, 20), 30, high, high, false),
    ];
    for (row, ((begun, ended), again, first, second, learned)) in rows.into_iter().enumerate() {
        let mut table = Table::recovered();
        let base = table.now;
        let at = |tick: u64| base + Span(tick);
        table.blocks[1] = block(2, low, low, value(4, 44));
        for (begun, ended, mbal) in [(begun, ended, first), (again, 50, second)] {
            table.blocks[2] = match mbal {
                mbal if mbal == low => BlockSeen::Blank,
                mbal => block(1, mbal, Ballot::NONE, Value::default()),
            };
            let (begun, ended) = (at(begun), at(ended));
            let seen = &Seen::Blocks(table.blocks.clone());
            let event = Event::ReadDone { begun, ended, seen };
            table.register.handle(ended, event);
        }
        assert_eq!(table.register.known().epoch == 4, learned, "row {row}");
        let proof = News::Proof {
            begun: at(again),
            epoch: 4,
        };
        assert_eq!(table.drain().contains(&proof), learned, "row {row}");
    }
}

#[test]
fn a_value_left_unsettled_is_settled_after_a_while() {
    let mut table = Table::recovered();
    table.blocks[1] = block(3, ballot(6, 2), ballot(2, 2), value(4, 44));
    table.read();
    let seen = table.now;
    for _ in 0..3 {
        table.read();
        assert!(table.orders().is_empty(), "somebody may be at it");
    }
    assert!(table.register.poll_timeout().since(seen) >= BACKOFF.times(8));
    table.wait();
    assert_eq!(table.write().mbal, ballot(7, 1));
    table.read();
    assert_eq!(table.write().value, value(4, 44));
    table.read();
    assert_eq!(table.drain()[0], News::Learned(value(4, 44)));
    table.read();
    assert!(table.orders().is_empty());
}

#[test]
fn what_an_earlier_core_of_this_node_has_begun_is_settled_at_once() {
    let mut table = Table::new();
    table.blocks[0] = block(3, ballot(6, 1), ballot(2, 1), value(4, 44));
    table.read();
    let seen = table.now;
    assert!(table.register.poll_timeout().since(seen) <= BACKOFF.times(2));
    table.wait();
    assert_eq!(table.write().mbal, ballot(7, 1));
    table.read();
    assert_eq!(table.write().value, value(4, 44));
    table.read();
    assert_eq!(table.drain()[0], News::Learned(value(4, 44)));
}

#[test]
fn a_failed_write_is_looked_for_before_anything_else_is_written() {
    for landed in [true, false] {
        let mut table = Table::recovered();
        table.propose(&Value::default(), &value(1, 11));
        let failed = table.ordered_write().unwrap();
        let at = table.step();
        table.register.handle(at, Event::WriteFailed { at });
        assert_eq!(table.register.trouble(), Some(Trouble::WriteFailed));
        assert_eq!(table.orders(), [Order::Read]);
        table.read_begun(at - Span(1));
        assert!(table.orders().iter().all(|order| *order == Order::Read));
        if landed {
            table.blocks[0] = BlockSeen::Good(failed.clone());
        }
        table.read();
        if !landed {
            assert!(table.orders().is_empty());
            table.wait();
        }
        let next = table.write();
        assert_eq!(next.writes, if landed { 2 } else { 1 });
        assert_eq!(
            next.bal == failed.mbal,
            landed,
            "the same read serves as that of the phase"
        );
        assert!(landed || next.mbal > failed.mbal);
        assert_eq!(table.register.trouble(), None);
    }
}

#[test]
fn whoever_else_writes_the_own_block_stops_the_register() {
    let late = block(1, ballot(1, 1), Ballot::NONE, Value::default());
    let mut table = Table::recovered();
    table.propose(&Value::default(), &value(1, 11));
    table.write();
    table.read();
    table.write();
    table.blocks[0] = late;
    table.read();
    assert_eq!(table.register.trouble(), Some(Trouble::Foreign));
    assert_eq!(table.drain(), [News::GaveUp { unclear: true }]);
    table.read();
    assert_eq!((table.drain(), table.orders()), (vec![], vec![]));
}

#[test]
fn a_disk_that_went_back_stops_the_register() {
    for restored in [Value::default(), value(3, 33), value(4, 45)] {
        let mut table = Table::recovered();
        table.blocks[1] = block(2, ballot(2, 2), ballot(2, 2), value(4, 44));
        table.read();
        table.read();
        assert_eq!(table.register.known(), &value(4, 44));
        table.drain();
        table.blocks[1] = block(2, ballot(2, 2), ballot(2, 2), restored);
        table.read();
        assert_eq!(table.register.trouble(), Some(Trouble::WentBack));
        assert_eq!(table.drain(), []);
        table.propose(&value(4, 44), &value(5, 55));
        assert_eq!(table.drain(), [News::GaveUp { unclear: false }]);
        assert_eq!(table.ordered_write(), None);
    }
}

#[test]
fn a_damaged_block_stops_everything_until_it_can_be_read() {
    let nonsense = block(1, ballot(3, 2), Ballot::NONE, Value::default());
    for bad in [BlockSeen::Damaged, nonsense] {
        let mut table = Table::recovered();
        table.propose(&Value::default(), &value(1, 11));
        table.write();
        table.orders();
        table.blocks[2] = bad;
        table.read();
        assert_eq!(
            table.register.trouble(),
            Some(Trouble::Damaged(NodeSet::only(node(3))))
        );
        assert_eq!((table.drain(), table.orders()), (vec![], vec![]));
        table.wait();
        assert_eq!(table.orders(), [Order::Read]);
        table.blocks[2] = BlockSeen::Blank;
        table.read();
        assert_eq!(table.register.trouble(), None);
        assert!(table.ordered_write().is_some());
    }
}

#[test]
fn every_slot_counts_and_every_configured_node_must_have_one() {
    let mut table = Table::recovered();
    table.blocks.resize(64, BlockSeen::Blank);
    table.blocks[63] = block(2, ballot(2, 64), ballot(2, 64), value(4, 44));
    table.read();
    table.read();
    assert_eq!(table.register.known(), &value(4, 44));
    table.blocks.truncate(2);
    table.read();
    assert_eq!(
        table.register.trouble(),
        Some(Trouble::Damaged(NodeSet::only(node(3))))
    );
}

#[test]
fn a_proof_is_dated_by_the_beginning_and_ends_with_a_newer_value() {
    let mut table = Table::recovered();
    table.read();
    let begun = table.now - Span(10);
    assert_eq!(table.drain(), [News::Proof { begun, epoch: 0 }]);
    table.blocks[1] = block(1, ballot(2, 2), Ballot::NONE, Value::default());
    table.read();
    assert_eq!(table.drain().len(), 1, "a ballot alone decides nothing");
    table.blocks[1] = block(2, ballot(2, 2), ballot(2, 2), value(1, 44));
    table.read();
    assert_eq!(table.drain(), [], "it might be decided");
    assert_eq!(table.orders(), [Order::Read], "and is confirmed at once");
}

#[test]
fn news_not_polled_give_way_to_newer_ones() {
    let mut table = Table::recovered();
    table.read();
    table.read();
    let begun = table.now - Span(10);
    assert_eq!(table.drain(), [News::Proof { begun, epoch: 0 }]);
    table.read();
    table.blocks[1] = block(2, ballot(2, 2), ballot(2, 2), value(1, 44));
    table.read();
    let first = table.now;
    table.read();
    let proof = News::Proof {
        begun: first + Span(10),
        epoch: 1,
    };
    assert_eq!(
        table.drain(),
        [News::Learned(value(1, 44)), proof],
        "none of the older value"
    );
}

#[test]
fn a_ballot_on_the_disk_is_ended_though_its_proposal_is_answered() {
    let mut table = Table::recovered();
    table.propose(&Value::default(), &value(1, 11));
    let other = ballot(3, 2);
    table.blocks[1] = block(2, other, other, value(1, 22));
    table.read();
    let (begun, seen) = (table.step(), &Seen::Blocks(table.blocks.clone()));
    assert!(
        table.write().mbal < other,
        "ordered before the other one was seen"
    );
    let ended = table.now;
    let event = Event::ReadDone { begun, ended, seen };
    table.register.handle(ended, event);
    let lost = News::Lost {
        current: value(1, 22),
        unclear: false,
    };
    assert_eq!(table.drain()[..2], [News::Learned(value(1, 22)), lost]);
    table.read();
    assert!(table.orders().is_empty(), "outbid: nothing is left to do");

    table.propose(&value(1, 22), &value(2, 12));
    table.write();
    table.now = FAR;
    table.register.handle(FAR, Event::Tick);
    assert!(table.drain().contains(&News::GaveUp { unclear: false }));
    table.read();
    assert_eq!(table.write().value, value(1, 22), "not what was given up");
}

#[test]
fn proposals_are_refused_answered_at_once_or_given_up() {
    let mut table = Table::recovered();
    let (now, old) = (table.now, Value::default());
    let mut propose = |expected: (u64, u64), new: Value, deadline: u64| {
        let answer = table
            .register
            .propose(now, expected, new, now + Span(deadline));
        (answer, table.register.poll_news())
    };
    let not_next = Refused::NotNext {
        expected: 0,
        new: 2,
    };
    assert_eq!(propose(old.id(), value(2, 1), 9), (Err(not_next), None));
    let long = Value {
        bytes: vec![0; VALUE_MAX + 1],
        ..value(1, 1)
    };
    assert_eq!(
        propose(old.id(), long, 9),
        (Err(Refused::TooLong(VALUE_MAX + 1)), None)
    );
    let lost = News::Lost {
        current: old.clone(),
        unclear: false,
    };
    assert_eq!(propose((0, 5), value(1, 1), 9), (Ok(()), Some(lost)));
    assert_eq!(propose(old.id(), value(1, 2), 9), (Ok(()), None));
    assert_eq!(
        propose(old.id(), value(1, 3), 9),
        (Err(Refused::Busy), None)
    );
    assert_eq!(table.register.poll_timeout(), now + Span(9));
    table.wait();
    assert_eq!(table.drain(), [News::GaveUp { unclear: false }]);
    assert!(
        table.orders().is_empty(),
        "a write nobody has taken is taken back"
    );
}
