//! Registers against a disk with a record that does what the test says.

use super::*;
use crate::model::{NodeId, NodeSet};
use crate::register::{Block, Event, Memory, Message, News, Order, Place, Seen};
use crate::time::Span;

const BACKOFF: Span = Span(1_000);
const FAR: Instant = Instant(1_000_000_000);

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

/// The disk as all nodes see it: the record, and two copies of each node's block.
#[derive(Default)]
struct Disk {
    record: Record,
    copies: [[Option<Block>; 2]; 3],
}

impl Disk {
    fn seen(&self) -> RecordSeen {
        let Some(place) = self.record.place else {
            return match self.record.count {
                0 => RecordSeen::Blank,
                _ => RecordSeen::Good(self.record, Value::default()),
            };
        };
        let copy = &self.copies[place.node.index()][place.writes as usize % 2];
        let block = copy.as_ref().filter(|block| block.writes == place.writes);
        match block.filter(|block| self.record.names(&block.value)) {
            Some(block) => RecordSeen::Good(self.record, block.value.clone()),
            None => RecordSeen::ValueLost(self.record),
        }
    }

    fn store(&mut self, at: usize, block: &Block) {
        self.copies[at][block.writes as usize % 2] = Some(block.clone());
    }

    fn execute(&mut self, change: &Change) -> Compared {
        if self.record != change.expected {
            return Compared::Miscompare;
        }
        self.record = change.new;
        Compared::Done
    }
}

/// Three nodes, one disk, and a clock that moves by 10 per call.
struct Table {
    registers: Vec<Register>,
    disk: Disk,
    now: Instant,
}

impl Table {
    fn new() -> Table {
        let registers = (1..=3).map(|id| Table::register(id, Memory::Nothing));
        Table {
            registers: registers.collect(),
            disk: Disk::default(),
            now: Instant(100),
        }
    }

    fn register(id: u8, memory: Memory) -> Register {
        let nodes = (1..=3).map(node).collect::<NodeSet>();
        Register::new(node(id), nodes, id.into(), BACKOFF, memory)
    }

    /// All have read the blank disk, and closed what earlier lives may have left.
    fn ready() -> Table {
        let mut table = Table::new();
        for at in 0..3 {
            table.read(at);
            table.run(at);
            table.drain(at);
        }
        for at in 0..3 {
            table.read(at);
            table.drain(at);
        }
        table
    }

    fn step(&mut self) -> Instant {
        self.now += Span(10);
        self.now
    }

    fn read(&mut self, at: usize) {
        let seen = self.disk.seen();
        self.show(at, seen);
    }

    fn show(&mut self, at: usize, seen: RecordSeen) {
        let (begun, ended) = (self.step(), self.step());
        let seen = &Seen::Record(seen);
        let event = Event::ReadDone { begun, ended, seen };
        self.registers[at].handle(ended, event);
    }

    fn orders(&mut self, at: usize) -> Vec<Order> {
        std::iter::from_fn(|| self.registers[at].poll_order()).collect()
    }

    fn order(&mut self, at: usize) -> Order {
        let mut orders = self.orders(at);
        assert_eq!(orders.len(), 1, "{orders:?}");
        orders.remove(0)
    }

    /// The change that must be ordered now.
    fn change(&mut self, at: usize) -> Change {
        match self.order(at) {
            Order::CompareAndWrite(change) => change,
            other => panic!("{other:?}"),
        }
    }

    /// Does the store that must be ordered now.
    fn store(&mut self, at: usize) -> Block {
        let Order::Write(block) = self.order(at) else {
            panic!("a store is due");
        };
        self.disk.store(at, &block);
        let now = self.step();
        self.registers[at].handle(now, Event::Written { at: now });
        block
    }

    fn compared(&mut self, at: usize, outcome: Compared) {
        let now = self.step();
        let event = Event::Compared { at: now, outcome };
        self.registers[at].handle(now, event);
    }

    /// Does whatever is ordered until nothing is; returns the operations other than reads.
    fn run(&mut self, at: usize) -> usize {
        let mut operations = 0;
        loop {
            let orders = self.orders(at);
            if orders.is_empty() {
                return operations;
            }
            for order in orders {
                operations += usize::from(order != Order::Read);
                match order {
                    Order::Read => self.read(at),
                    Order::Write(block) => {
                        self.disk.store(at, &block);
                        let now = self.step();
                        self.registers[at].handle(now, Event::Written { at: now });
                    }
                    Order::CompareAndWrite(change) => {
                        let outcome = self.disk.execute(&change);
                        self.compared(at, outcome);
                    }
                }
            }
        }
    }

    fn propose(&mut self, at: usize, expected: &Value, new: &Value) {
        let now = self.step();
        self.registers[at]
            .propose(now, expected.id(), new.clone(), FAR)
            .unwrap();
    }

    fn drain(&mut self, at: usize) -> Vec<News> {
        std::iter::from_fn(|| self.registers[at].poll_news()).collect()
    }

    fn wait(&mut self, at: usize) {
        self.now = self.registers[at].poll_timeout();
        self.registers[at].handle(self.now, Event::Tick);
    }

    fn won(&mut self, at: usize, new: &Value) -> bool {
        let won = |news: &News| matches!(news, News::Won { value, .. } if value == new);
        self.drain(at).iter().any(won)
    }

    fn hear(&mut self, at: usize, from: u8, message: &Message) {
        let now = self.step();
        let from = node(from);
        self.registers[at].handle(now, Event::Heard { from, message });
        while let Some(_record) = self.registers[at].poll_record() {
            self.registers[at].handle(now, Event::Kept);
        }
    }

    fn answer(&mut self, at: usize) -> Option<Message> {
        let mail = std::iter::from_fn(|| self.registers[at].poll_mail());
        mail.last().map(|(_, message)| message)
    }
}

#[test]
fn an_undisturbed_proposal_takes_one_write_and_one_change() {
    let mut table = Table::ready();
    let new = value(1, 11);
    let before = table.disk.record;
    table.propose(0, &Value::default(), &new);
    let block = table.store(0);
    assert_eq!((block.bal, &block.value), (block.mbal, &new));
    let change = table.change(0);
    assert_eq!(change.expected, before);
    assert_eq!(
        (change.new.count, change.new.bal),
        (before.count + 1, block.bal)
    );
    assert!(change.new.names(&new));
    assert!(table.drain(0).is_empty(), "not before the change is done");
    let outcome = table.disk.execute(&change);
    table.compared(0, outcome);
    let at = table.now;
    let won = News::Won {
        value: new.clone(),
        at,
    };
    assert_eq!(table.drain(0), [News::Learned(new.clone()), won]);
    assert!(table.orders(0).is_empty());
    assert_eq!(table.registers[0].poll_timeout(), Instant::NEVER);
    // One read teaches whoever has promised nothing higher.
    table.read(1);
    let begun = table.now - Span(10);
    let proof = News::Proof { begun, epoch: 1 };
    assert_eq!(table.drain(1), [News::Learned(new), proof]);
    assert!(table.orders(1).is_empty());
}

#[test]
fn nothing_is_done_before_the_changes_of_earlier_lives_are_out_of_the_way() {
    let mut table = Table::ready();
    table.propose(0, &Value::default(), &value(1, 11));
    table.store(0);
    let late = table.change(0);
    // A new life of the node, which knows nothing of that.
    table.registers[0] = Table::register(1, Memory::Nothing);
    table.propose(0, &Value::default(), &value(1, 12));
    assert_eq!(table.orders(0), [Order::Read]);
    table.read(0);
    assert!(table.registers[0].is_recovered() && !table.registers[0].votes());
    let close = table.change(0);
    let (old, new) = (close.expected, close.new);
    assert_eq!((old, new.count), (late.expected, old.count + 1));
    assert_eq!(
        (new.bal, new.place, new.nonce),
        (old.bal, old.place, old.nonce)
    );
    let outcome = table.disk.execute(&close);
    table.compared(0, outcome);
    assert!(table.registers[0].votes());
    assert_eq!(table.disk.execute(&late), Compared::Miscompare);
    table.run(0);
    assert!(table.won(0, &value(1, 12)));
}

#[test]
fn what_an_earlier_life_has_accepted_is_known_before_anything_is_answered() {
    let mut table = Table::ready();
    let new = value(1, 21);
    table.propose(1, &Value::default(), &new);
    table.run(1);
    table.read(0);
    assert_eq!(table.registers[0].known(), &new);
    // A new life, whose file speaks after the disk.
    table.registers[0] = Table::register(1, Memory::Pending);
    table.run(0);
    assert!(!table.registers[0].votes());
    let now = table.step();
    let file = Memory::Nothing;
    table.registers[0].handle(now, Event::Remembered(&file));
    let ballot = Ballot(0x903);
    table.hear(0, 3, &Message::Prepare { ballot });
    let bal = table.disk.record.bal;
    let value = new;
    let promised = Message::Promised { ballot, bal, value };
    assert_eq!(table.answer(0), Some(promised));
}

#[test]
fn somebody_elses_change_closes_them_as_well() {
    let mut table = Table::ready();
    table.registers[0] = Table::register(1, Memory::Nothing);
    table.orders(0);
    table.read(0);
    let close = table.change(0);
    table.propose(1, &Value::default(), &value(1, 21));
    table.run(1);
    let outcome = table.disk.execute(&close);
    assert_eq!(outcome, Compared::Miscompare);
    table.compared(0, outcome);
    assert!(!table.registers[0].votes(), "it may have been an own one");
    table.run(0);
    assert!(table.registers[0].votes());
    assert_eq!(table.registers[0].known(), &value(1, 21));
}

#[test]
fn the_slower_of_two_learns_by_one_read_that_it_has_lost() {
    let mut table = Table::ready();
    table.propose(0, &Value::default(), &value(1, 11));
    table.store(0);
    let slow = table.change(0);
    table.propose(1, &Value::default(), &value(1, 21));
    table.run(1);
    assert!(table.won(1, &value(1, 21)));
    let outcome = table.disk.execute(&slow);
    table.compared(0, outcome);
    assert_eq!(table.orders(0), [Order::Read]);
    table.read(0);
    let lost = News::Lost {
        current: value(1, 21),
        unclear: false,
    };
    assert_eq!(table.drain(0)[..2], [News::Learned(value(1, 21)), lost]);
    assert!(table.orders(0).is_empty());
}

/// Something on the way has sent the change twice, and lost the answer to the first.
#[test]
fn a_change_that_is_refused_at_its_second_sending_was_done() {
    for overtaken in [false, true] {
        let mut table = Table::ready();
        let (mine, others) = (value(1, 11), value(2, 21));
        table.propose(0, &Value::default(), &mine);
        table.store(0);
        let change = table.change(0);
        assert_eq!(table.disk.execute(&change), Compared::Done);
        if overtaken {
            table.read(1);
            table.drain(1);
            table.propose(1, &mine, &others);
            table.run(1);
            assert!(table.won(1, &others));
        }
        assert_eq!(table.disk.execute(&change), Compared::Miscompare);
        table.compared(0, Compared::Miscompare);
        table.orders(0);
        table.read(0);
        if !overtaken {
            assert!(table.won(0, &mine));
            continue;
        }
        let lost = News::Lost {
            current: others.clone(),
            unclear: true,
        };
        assert_eq!(table.drain(0)[..2], [News::Learned(others), lost]);
    }
}

#[test]
fn a_change_of_the_number_alone_costs_one_more_change() {
    let mut table = Table::ready();
    table.propose(0, &Value::default(), &value(1, 11));
    let block = table.store(0);
    let slow = table.change(0);
    table.disk.record = table.disk.record.renumbered();
    let outcome = table.disk.execute(&slow);
    table.compared(0, outcome);
    table.orders(0);
    table.read(0);
    let again = table.change(0);
    let place = Place {
        node: node(1),
        writes: block.writes,
    };
    assert_eq!(again.new.place, Some(place), "it is stored already");
    assert!(again.new.bal > slow.new.bal);
    let outcome = table.disk.execute(&again);
    table.compared(0, outcome);
    assert!(table.won(0, &value(1, 11)));
}

#[test]
fn a_try_that_was_refused_for_certain_leaves_nothing_unclear() {
    for refused in [true, false] {
        let mut table = Table::ready();
        let (now, new) = (table.step(), value(1, 11));
        let deadline = now + BACKOFF.times(1_000);
        let register = &mut table.registers[0];
        register.propose(now, (0, 0), new, deadline).unwrap();
        table.store(0);
        let slow = table.change(0);
        // The disk is gone before another try.
        let (disk, network) = (false, false);
        let event = Event::Media { disk, network };
        table.registers[0].handle(table.now, event);
        if refused {
            table.disk.record = table.disk.record.renumbered();
            let outcome = table.disk.execute(&slow);
            table.compared(0, outcome);
            table.read(0);
        }
        table.registers[0].handle(deadline, Event::Tick);
        let unclear = !refused;
        assert!(table.drain(0).contains(&News::GaveUp { unclear }));
    }
}

#[test]
fn after_an_unclear_outcome_the_record_tells() {
    for lands in [true, false] {
        let mut table = Table::ready();
        table.propose(0, &Value::default(), &value(1, 11));
        table.store(0);
        let change = table.change(0);
        if lands {
            table.disk.execute(&change);
        }
        table.compared(0, Compared::Unclear);
        assert_eq!(table.registers[0].trouble(), Some(Trouble::WriteFailed));
        assert_eq!(table.orders(0), [Order::Read]);
        table.read(0);
        if lands {
            assert!(table.won(0, &value(1, 11)));
            assert!(table.orders(0).is_empty());
            continue;
        }
        assert!(table.orders(0).is_empty(), "not at once");
        assert!(table.registers[0].votes(), "this life remembers its ballot");
        table.wait(0);
        let close = table.change(0);
        assert_eq!(
            (close.expected, close.new.bal),
            (change.expected, change.expected.bal)
        );
        // The first one comes late, between the two: then it has won after all.
        let late = table.disk.execute(&change);
        assert_eq!(late, Compared::Done);
        let outcome = table.disk.execute(&close);
        assert_eq!(outcome, Compared::Miscompare);
        table.compared(0, outcome);
        table.orders(0);
        table.read(0);
        assert!(table.won(0, &value(1, 11)));
        assert_eq!(table.registers[0].trouble(), None);
    }
}

#[test]
fn a_value_that_the_record_names_is_never_written_over() {
    let mut table = Table::ready();
    let mut known = Value::default();
    for epoch in 1..6 {
        let new = value(epoch, epoch);
        table.propose(0, &known, &new);
        let named = table.disk.record.place;
        let block = table.store(0);
        let same = |place: Place| place.writes % 2 == block.writes % 2;
        assert!(!named.is_some_and(same), "{named:?} {}", block.writes);
        if epoch == 3 {
            // Torn, and failed: it is stored again, in the same copy.
            table.registers[0] = Table::register(1, Memory::Nothing);
            table.run(0);
            table.propose(0, &known, &new);
            let again = table.store(0);
            assert_eq!(again.writes % 2, block.writes % 2);
        }
        table.run(0);
        assert!(table.won(0, &new), "epoch {epoch}");
        known = new;
    }
}

#[test]
fn while_a_change_may_land_no_lower_ballot_is_heard() {
    let mut table = Table::ready();
    let first = value(1, 10);
    table.propose(0, &Value::default(), &first);
    table.run(0);
    table.drain(0);
    table.propose(0, &first, &value(2, 11));
    table.store(0);
    let change = table.change(0);
    assert_eq!(change.new.bal, Ballot(0x201));
    let (lower, higher) = (Ballot(0x103), Ballot(0x303));
    table.hear(0, 3, &Message::Prepare { ballot: lower });
    let (ballot, mbal) = (lower, change.new.bal);
    assert_eq!(table.answer(0), Some(Message::Refused { ballot, mbal }));
    // A higher one is promised, and so the change decides nothing by this node's voice.
    table.hear(0, 3, &Message::Prepare { ballot: higher });
    let promised = Message::Promised {
        ballot: higher,
        bal: Ballot(0x101),
        value: first,
    };
    assert_eq!(table.answer(0), Some(promised));
    let outcome = table.disk.execute(&change);
    table.compared(0, outcome);
    assert_eq!(table.registers[0].known().epoch, 1);
    let news = table.drain(0);
    assert!(!news.iter().any(|news| matches!(news, News::Won { .. })));
    // Of what a higher ballot of its own finds there, it is sure.
    table.wait(0);
    assert_eq!(table.run(0), 1);
    assert!(table.won(0, &value(2, 11)));
}

#[test]
fn a_lost_value_is_stored_anew_by_who_knows_it() {
    let mut table = Table::ready();
    table.propose(0, &Value::default(), &value(1, 11));
    table.run(0);
    table.drain(0);
    table.disk.copies[0] = [None, None];
    table.read(1);
    assert_eq!(table.registers[1].trouble(), Some(Trouble::ValueLost));
    assert!(table.drain(1).is_empty());
    table.read(0);
    assert_eq!(table.registers[0].trouble(), None);
    table.wait(0);
    assert_eq!(table.run(0), 2);
    table.read(1);
    assert_eq!(table.registers[1].known(), &value(1, 11));
    assert_eq!(table.registers[1].trouble(), None);
}

#[test]
fn a_damaged_record_stops_everything_until_it_can_be_read() {
    let mut table = Table::ready();
    let nonsense = RecordSeen::Good(
        Record {
            epoch: 4,
            ..table.disk.record
        },
        value(4, 4),
    );
    for bad in [RecordSeen::Damaged, nonsense] {
        table.show(0, bad);
        assert_eq!(table.registers[0].trouble(), Some(Trouble::RecordDamaged));
        assert!(table.drain(0).is_empty());
        table.read(0);
        assert_eq!(table.registers[0].trouble(), None);
        assert_eq!(table.drain(0).len(), 1, "a proof");
    }
}

#[test]
fn a_record_that_went_back_stops_the_register() {
    let mut table = Table::ready();
    let old = table.disk.seen();
    table.propose(0, &Value::default(), &value(1, 11));
    table.run(0);
    table.drain(0);
    let same_number = RecordSeen::Good(
        Record {
            bal: Ballot(0x9901),
            place: Some(Place {
                node: node(1),
                writes: 9,
            }),
            epoch: 1,
            nonce: 12,
            hash: value(1, 12).hash(),
            ..table.disk.record
        },
        value(1, 12),
    );
    for shown in [old, same_number, RecordSeen::Blank] {
        let mut register = table.registers[0].clone();
        std::mem::swap(&mut register, &mut table.registers[0]);
        table.show(0, shown);
        assert_eq!(table.registers[0].trouble(), Some(Trouble::WentBack));
        assert!(table.orders(0).is_empty() && table.drain(0).is_empty());
        table.registers[0] = register;
    }
}

#[test]
fn an_area_stays_what_it_was_formatted_for() {
    let mut table = Table::ready();
    let (begun, ended) = (table.step(), table.step());
    let seen = &Seen::Blocks(Vec::new());
    table.registers[0].handle(ended, Event::ReadDone { begun, ended, seen });
    assert_eq!(table.registers[0].trouble(), Some(Trouble::WentBack));
}
