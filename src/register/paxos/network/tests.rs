//! Three registers whose disk goes away.

use super::*;
use crate::register::{Block, BlockSeen, Event, Memory, News, Order, Seen};
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

/// Nodes 1 to 3, one disk, and a file each. Messages to a node in `deaf` are lost.
struct Trio {
    registers: Vec<Register>,
    blocks: Vec<BlockSeen>,
    files: [Option<Block>; 3],
    now: Instant,
    disk: bool,
    deaf: NodeSet,
    news: Vec<(usize, News)>,
}

impl Trio {
    /// All have read the empty disk, and then it is gone.
    fn without_disk() -> Trio {
        let mut trio = Trio {
            registers: Vec::new(),
            blocks: vec![BlockSeen::Blank; 3],
            files: [const { None }; 3],
            now: Instant(100),
            disk: true,
            deaf: NodeSet::EMPTY,
            news: Vec::new(),
        };
        for index in 0..3 {
            let register = trio.register(index, Memory::Nothing);
            trio.registers.push(register);
        }
        (0..3).for_each(|index| trio.read(index));
        trio.news.clear();
        trio.set_disk(false);
        trio
    }

    fn register(&self, index: usize, memory: Memory) -> Register {
        let nodes = (1..=3).map(node).collect::<NodeSet>();
        Register::new(node(index as u8 + 1), nodes, index as u64, BACKOFF, memory)
    }

    fn set_disk(&mut self, disk: bool) {
        self.disk = disk;
        for index in 0..3 {
            self.feed(
                index,
                Event::Media {
                    disk,
                    network: true,
                },
            );
        }
    }

    fn read(&mut self, index: usize) {
        self.now += Span(10);
        let (begun, ended) = (self.now, self.now + Span(1));
        self.now = ended;
        let seen = &Seen::Blocks(self.blocks.clone());
        self.feed(index, Event::ReadDone { begun, ended, seen });
    }

    /// Everything that follows at once is done: files written, messages carried, disk served.
    fn feed(&mut self, index: usize, event: Event<'_>) {
        self.registers[index].handle(self.now, event);
        while let Some(news) = self.registers[index].poll_news() {
            self.news.push((index, news));
        }
        if let Some(record) = self.registers[index].poll_record() {
            self.files[index] = Some(record);
            self.feed(index, Event::Kept);
        }
        while let Some((to, message)) = self.registers[index].poll_mail() {
            for other in to.minus(self.deaf).iter() {
                let (from, message) = (node(index as u8 + 1), &message);
                self.feed(other.index(), Event::Heard { from, message });
            }
        }
        while self.disk
            && let Some(order) = self.registers[index].poll_order()
        {
            if let Order::Write(block) = order {
                self.blocks[index] = BlockSeen::Good(block);
                self.now += Span(10);
                let at = self.now;
                self.feed(index, Event::Written { at });
            }
            self.read(index);
        }
    }

    fn propose(&mut self, index: usize, new: &Value) {
        self.propose_until(index, new, FAR);
    }

    fn propose_until(&mut self, index: usize, new: &Value, deadline: Instant) {
        let (now, expected) = (self.now, self.registers[index].known().id());
        self.registers[index]
            .propose(now, expected, new.clone(), deadline)
            .unwrap();
        self.feed(index, Event::Tick);
    }

    /// Time passes until nothing is due any more, or the moment comes.
    fn wait(&mut self, until: Instant) {
        loop {
            let next = (0..3).min_by_key(|index| self.registers[*index].poll_timeout());
            let next = next.unwrap();
            let due = self.registers[next].poll_timeout();
            if due > until {
                return;
            }
            self.now = self.now.max(due);
            self.feed(next, Event::Tick);
        }
    }

    fn outcomes(&mut self) -> Vec<News> {
        let news = std::mem::take(&mut self.news);
        let outcomes = news.into_iter().map(|(_, news)| news);
        outcomes
            .filter(|news| !matches!(news, News::Learned(_) | News::Proof { .. }))
            .collect()
    }
}

#[test]
fn all_together_change_the_value_without_the_disk() {
    let mut trio = Trio::without_disk();
    let new = value(1, 11);
    trio.propose(0, &new);
    let at = trio.now;
    assert_eq!(
        trio.outcomes(),
        [News::Won {
            value: new.clone(),
            at
        }]
    );
    assert_eq!(trio.registers[0].known(), &new);
    let others = NodeSet::only(node(2)).with(node(3));
    trio.registers[0].tell(others, new.clone());
    trio.feed(0, Event::Tick);
    assert!(
        trio.registers
            .iter()
            .all(|register| *register.known() == new)
    );
    assert!(trio.files.iter().flatten().all(|file| file.value == new));
}

#[test]
fn one_that_does_not_answer_keeps_all_from_changing_it() {
    let mut trio = Trio::without_disk();
    trio.deaf = NodeSet::only(node(3));
    let deadline = trio.now + BACKOFF.times(100);
    trio.propose_until(0, &value(1, 11), deadline);
    let asker = &trio.registers[0];
    let awaited = asker.nodes.minus(asker.round.answered);
    assert_eq!(awaited, NodeSet::only(node(3)));
    trio.wait(FAR);
    assert_eq!(trio.outcomes(), [News::GaveUp { unclear: false }]);
    assert!(
        trio.registers
            .iter()
            .all(|register| register.known().epoch == 0)
    );
    trio.deaf = NodeSet::EMPTY;
    trio.propose(1, &value(1, 12));
    assert!(matches!(trio.outcomes()[..], [News::Won { .. }]));
}

#[test]
fn one_that_does_not_answer_holds_nobody_up_once_the_disk_is_back() {
    let mut trio = Trio::without_disk();
    trio.deaf = NodeSet::EMPTY.with(node(3));
    trio.propose(0, &value(1, 7));
    assert_eq!(trio.outcomes(), []);
    let asked_until = trio.now;
    trio.set_disk(true);
    trio.wait(asked_until + BACKOFF);
    let won = |news: &News| matches!(news, News::Won { value: won, .. } if *won == value(1, 7));
    assert!(trio.outcomes().iter().any(won));
}

#[test]
fn a_value_that_all_accepted_survives_its_proposer_and_comes_to_the_disk() {
    let mut trio = Trio::without_disk();
    let new = value(1, 11);
    trio.propose(0, &new);
    trio.news.clear();
    // Nobody was told. The proposer is gone, the disk is back.
    trio.registers[0] = trio.register(0, Memory::Kept(trio.files[0].clone().unwrap()));
    trio.disk = true;
    (0..3).for_each(|index| trio.read(index));
    assert!(
        trio.blocks.iter().all(|block| *block == BlockSeen::Blank),
        "not at once"
    );
    trio.set_disk(true);
    trio.wait(FAR);
    let on_disk = |block: &BlockSeen| matches!(block, BlockSeen::Good(b) if b.value == new);
    assert!(trio.blocks.iter().any(on_disk));
    (0..3).for_each(|index| trio.read(index));
    (0..3).for_each(|index| trio.read(index));
    trio.wait(FAR);
    assert!(
        trio.registers
            .iter()
            .all(|register| *register.known() == new)
    );
}

#[test]
fn a_promise_outlives_a_restart() {
    let mut trio = Trio::without_disk();
    let high = Message::Prepare {
        ballot: Ballot(9 << 8 | 3),
    };
    let (from, message) = (node(3), &high);
    trio.feed(1, Event::Heard { from, message });
    let kept = trio.files[1].clone().unwrap();
    assert_eq!(kept.mbal, Ballot(9 << 8 | 3));
    trio.registers[1] = trio.register(1, Memory::Kept(kept));
    trio.read(1);
    let low = Message::Prepare {
        ballot: Ballot(8 << 8 | 1),
    };
    let (from, message) = (node(1), &low);
    trio.registers[1].handle(trio.now, Event::Heard { from, message });
    let refused = Message::Refused {
        ballot: Ballot(8 << 8 | 1),
        mbal: Ballot(9 << 8 | 3),
    };
    let answer = trio.registers[1].poll_mail();
    assert_eq!(answer, Some((NodeSet::only(node(1)), refused)));
}

#[test]
fn nobody_is_answered_before_the_promise_is_in_the_file() {
    let mut trio = Trio::without_disk();
    let message = &Message::Prepare {
        ballot: Ballot(9 << 8 | 3),
    };
    let (from, register) = (node(3), &mut trio.registers[1]);
    register.handle(trio.now, Event::Heard { from, message });
    assert_eq!(register.poll_mail(), None);
    assert!(register.poll_record().is_some());
    register.handle(trio.now, Event::KeepFailed);
    assert_eq!(register.poll_mail(), None, "nobody knows what is in it");
    register.handle(trio.now, Event::Heard { from, message });
    assert!(register.poll_record().is_some());
    register.handle(trio.now, Event::Kept);
    assert!(matches!(
        register.poll_mail(),
        Some((_, Message::Promised { .. }))
    ));
}

#[test]
fn a_node_that_does_not_know_its_promises_proves_and_promises_nothing() {
    for (memory, trouble) in [
        (Memory::Pending, None),
        (Memory::Lost, Some(Trouble::MemoryLost)),
    ] {
        let mut trio = Trio::without_disk();
        trio.registers[1] = trio.register(1, memory);
        trio.read(1);
        assert_eq!(trio.registers[1].trouble(), trouble);
        assert!(!trio.registers[1].votes());
        let proofs = trio.news.iter().filter(|(index, _)| *index == 1);
        assert_eq!(proofs.count(), 0);
        let message = &Message::Prepare {
            ballot: Ballot(9 << 8 | 3),
        };
        let from = node(3);
        trio.feed(1, Event::Heard { from, message });
        assert_eq!(trio.files[1], None);
    }
}

#[test]
fn what_a_node_cannot_have_said_is_dropped() {
    let mut trio = Trio::without_disk();
    let foreign = Ballot(9 << 8 | 1);
    let absurd = Ballot(u64::MAX << 8 | 3);
    let too_long = Value {
        bytes: vec![0; VALUE_MAX + 1],
        ..value(1, 5)
    };
    let said = [
        Message::Prepare { ballot: foreign },
        Message::Prepare { ballot: absurd },
        Message::Accept {
            ballot: foreign,
            value: value(1, 5),
        },
        Message::Accept {
            ballot: Ballot(9 << 8 | 3),
            value: too_long.clone(),
        },
        Message::Decided { value: too_long },
        Message::Decided {
            value: Value::default(),
        },
        Message::Decided { value: value(0, 5) },
    ];
    for message in &said {
        let from = node(3);
        trio.feed(1, Event::Heard { from, message });
    }
    // Neither somebody who is not in the cluster nor the node itself.
    let message = &Message::Decided { value: value(1, 5) };
    for from in [node(9), node(2)] {
        trio.feed(1, Event::Heard { from, message });
    }
    assert_eq!(trio.files[1], None);
    assert_eq!(trio.registers[1].known(), &Value::default());
    assert_eq!(trio.registers[1].trouble(), None);
}

#[test]
fn an_answer_that_nobody_can_have_given_is_none() {
    let mut trio = Trio::without_disk();
    trio.deaf = NodeSet::only(node(3));
    trio.propose(1, &value(1, 6));
    let ballot = trio.files[1].as_ref().expect("the own promise").mbal;
    let too_long = Value {
        bytes: vec![0; VALUE_MAX + 1],
        ..value(1, 5)
    };
    let said = [(ballot, too_long), (ballot.next_for(node(3)), value(1, 5))];
    let said = said.map(|(bal, value)| Message::Promised { ballot, bal, value });
    let mbal = ballot;
    let waiting = trio.registers[1].clone();
    for message in &[&said[..], &[Message::Refused { ballot, mbal }]].concat() {
        let from = node(3);
        trio.registers[1].handle(trio.now, Event::Heard { from, message });
        assert!(trio.registers[1] == waiting, "{:?}", waiting.phase);
    }
}

#[test]
fn a_register_that_has_stopped_promises_nothing() {
    let mut trio = Trio::without_disk();
    let from = node(3);
    for nonce in [5, 6] {
        let value = value(1, nonce);
        let message = &Message::Decided { value };
        trio.feed(1, Event::Heard { from, message });
    }
    assert_eq!(trio.registers[1].halted(), Some(Trouble::WentBack));
    let ballot = Ballot(9 << 8 | 3);
    let message = &Message::Prepare { ballot };
    trio.feed(1, Event::Heard { from, message });
    assert_eq!(trio.files[1], None);
}

#[test]
fn of_messages_that_are_not_fetched_the_oldest_go() {
    let mut register = Trio::without_disk().registers.remove(0);
    let epochs = 1..=MAIL_MAX as u64 + 2;
    for epoch in epochs.clone() {
        register.tell(NodeSet::only(node(2)), value(epoch, 7));
    }
    let mail = std::iter::from_fn(|| register.poll_mail()).map(|(_, message)| message);
    let newest = epochs.skip(2).map(|epoch| {
        let value = value(epoch, 7);
        Message::Decided { value }
    });
    assert!(mail.eq(newest));
}

#[test]
fn what_somebody_left_open_on_the_disk_is_settled_there_only() {
    let mut trio = Trio::without_disk();
    trio.set_disk(true);
    trio.blocks[2] = BlockSeen::Good(Block {
        writes: 2,
        mbal: Ballot(5 << 8 | 3),
        bal: Ballot(2 << 8 | 3),
        value: value(1, 5),
    });
    trio.read(0);
    assert_ne!(trio.registers[0].poll_timeout(), Instant::NEVER);
    trio.set_disk(false);
    assert_eq!(trio.registers[0].poll_timeout(), Instant::NEVER);
    trio.set_disk(true);
    let due = trio.registers[0].poll_timeout();
    trio.wait(due);
    assert_eq!(trio.registers[0].known(), &value(1, 5));
}
