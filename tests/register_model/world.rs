//! One run: nodes, the disk between them, what goes wrong, and when.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use standfast::model::{NodeId, NodeSet};
use standfast::register::{
    Ballot, Block, BlockSeen, Change, Compared, DISKS_MAX, Event, Memory, Message, News, Order,
    Record, Register, Trouble, Value,
};
use standfast::time::{Instant, Span};

use crate::chain::{Chain, Id};
use crate::counts::Counts;
use crate::disk::{Copies, Disk};
use crate::network::Record as FileRecord;

/// An undisturbed I/O, or message, takes up to this.
pub(crate) const IO: u64 = 200;
const BACKOFF: u64 = 400;
pub(crate) const HEARTBEAT: u64 = 1_000;
pub(crate) const FAULTS_END: u64 = 30_000;
const END: u64 = 400_000;
const STEPS_MAX: u64 = 200_000;

/// How often things go wrong in this run, in per mille.
#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) crash: u64,
    pub(crate) write_error: u64,
    pub(crate) read_error: u64,
    pub(crate) damage: u64,
    pub(crate) slow: u64,
    pub(crate) propose: u64,
    /// The disk goes away for a node, or for all.
    pub(crate) away: u64,
    pub(crate) lost_mail: u64,
    pub(crate) record_error: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Tick,
    Heartbeat,
    Sample { read: u64, slot: usize },
    ReadEnd { read: u64 },
    WriteTears { write: u64 },
    WriteLands { write: u64 },
    WriteReturns { write: u64 },
    ChangeLands { change: u64 },
    ChangeReturns { change: u64 },
    MailArrives { mail: u64 },
    RecordLands { record: u64 },
    RecordReturns { record: u64 },
    Crash,
    Restart,
    Remembers,
}

pub(crate) struct Read {
    pub(crate) id: u64,
    pub(crate) disk: usize,
    pub(crate) begun: u64,
    pub(crate) fails: bool,
    pub(crate) blocks: Vec<BlockSeen>,
    /// Of a disk with a record: that, unless it was damaged, and all blocks at another moment.
    pub(crate) record: Option<Option<Record>>,
    pub(crate) copies: Option<Copies>,
}

/// A change of the record that is under way or may come yet.
pub(crate) struct Changing {
    /// The node whose thread waits for it.
    pub(crate) waits_for: Option<usize>,
    pub(crate) change: Change,
    pub(crate) unclear: bool,
    pub(crate) outcome: Option<Compared>,
}

pub(crate) struct Write {
    pub(crate) id: u64,
    pub(crate) disk: usize,
    pub(crate) block: Block,
    pub(crate) fails: bool,
    pub(crate) lands: bool,
    pub(crate) landed: bool,
}

#[derive(Default)]
pub(crate) struct Node {
    pub(crate) register: Option<Register>,
    pub(crate) reads: Vec<Read>,
    /// At most one for each disk; a crash leaves them behind, to land or not before the restart.
    pub(crate) writes: Vec<Write>,
    proposal: Option<Id>,
    old: Id,
    next_tick: u64,
    /// Won since the faults have stopped.
    pub(crate) content: bool,
    last_proof: u64,
    /// Newest learned in this life.
    pub(crate) epoch: u64,
    /// The node's own file, and what is on its way there.
    pub(crate) file: Option<Block>,
    pub(crate) record: Option<FileRecord>,
    /// Until when its path to each disk is gone.
    pub(crate) away_until: [u64; DISKS_MAX],
}

pub(crate) struct World {
    rng: u64,
    pub(crate) now: u64,
    steps: BinaryHeap<Reverse<(u64, u64, usize, Step)>>,
    pub(crate) numbers: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) disks: Vec<Disk>,
    /// This one of three is gone for good since then.
    pub(crate) dead: Option<(usize, u64)>,
    pub(crate) changes: BTreeMap<u64, Changing>,
    pub(crate) chain: Chain,
    pub(crate) faults: Faults,
    pub(crate) counts: Counts,
    /// After the faults the disk goes for good, and everybody must win without it.
    pub(crate) dry: bool,
    pub(crate) mail: BTreeMap<u64, (usize, Message)>,
    /// In whose files a ballot was accepted, by node index.
    pub(crate) accepted: BTreeMap<Ballot, u64>,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let mut world = World {
            rng: seed,
            now: 1,
            steps: BinaryHeap::new(),
            numbers: 0,
            nodes: Vec::new(),
            disks: Vec::new(),
            dead: None,
            changes: BTreeMap::new(),
            chain: Chain::default(),
            faults: Faults::default(),
            counts: Counts::default(),
            dry: false,
            mail: BTreeMap::new(),
            accepted: BTreeMap::new(),
        };
        let count = 2 + world.below(3) as usize;
        let has_record = world.chance(500);
        let three = !has_record && world.chance(600);
        let disks = if three { DISKS_MAX } else { 1 };
        world.disks = (0..disks).map(|_| Disk::new(count, has_record)).collect();
        if three && world.chance(300) {
            let disk = world.below(DISKS_MAX as u64) as usize;
            world.dead = Some((disk, world.below(FAULTS_END)));
        }
        let [none, few] = [0, 30];
        let often = |world: &mut World, most: u64| [none, few, most][world.below(3) as usize];
        world.faults = Faults {
            crash: often(&mut world, 150),
            write_error: often(&mut world, 300),
            read_error: often(&mut world, 200),
            damage: often(&mut world, 100),
            slow: often(&mut world, 300),
            propose: [100, 500, 1_000][world.below(3) as usize],
            away: often(&mut world, 150),
            lost_mail: often(&mut world, 300),
            record_error: often(&mut world, 200),
        };
        world.dry = world.chance(300);
        for node in 0..count {
            world.nodes.push(Node {
                next_tick: u64::MAX,
                ..Node::default()
            });
            let after = world.below(HEARTBEAT);
            world.after(after, node, Step::Restart);
        }
        world
    }

    /// Runs to the end of the second phase.
    pub(crate) fn run(mut self) -> Counts {
        let (mut taken, mut dried) = (0, false);
        let least = if self.dry {
            self.dry_from() + HEARTBEAT
        } else {
            2 * FAULTS_END
        };
        while let Some(Reverse((at, _, node, step))) = self.steps.pop() {
            self.now = at;
            taken += 1;
            if self.dry && !dried && at > self.dry_from() {
                dried = true;
                self.dry_out();
            }
            assert!(taken < STEPS_MAX, "it spins");
            let newest = self.chain.newest();
            let done =
                |node: &Node| node.content && node.epoch == newest && node.last_proof > FAULTS_END;
            if at > END || (at > least && self.nodes.iter().all(done)) {
                break;
            }
            self.step(node, step);
        }
        self.chain.assert_whole();
        for (index, node) in self.nodes.iter().enumerate() {
            let known = node
                .register
                .as_ref()
                .map(|register| register.known().epoch);
            assert!(
                node.content,
                "node {index} never won after the faults, and knows {known:?}"
            );
            assert_eq!(
                node.epoch,
                self.chain.newest(),
                "node {index} does not know the newest"
            );
            assert!(node.last_proof > FAULTS_END, "node {index} has no proof");
        }
        self.counts
    }

    fn step(&mut self, index: usize, step: Step) {
        match step {
            Step::Tick => {
                self.nodes[index].next_tick = u64::MAX;
                self.feed(index, Event::Tick);
            }
            Step::Heartbeat => self.heartbeat(index),
            Step::Sample { read, slot } => self.sample(index, read, slot),
            Step::ReadEnd { read } => self.read_end(index, read),
            Step::WriteTears { write } => self.write_tears(index, write),
            Step::WriteLands { write } => self.write_lands(index, write),
            Step::WriteReturns { write } => self.write_returns(index, write),
            Step::ChangeLands { change } => self.change_lands(change),
            Step::ChangeReturns { change } => self.change_returns(index, change),
            Step::MailArrives { mail } => self.mail_arrives(index, mail),
            Step::RecordLands { record } => self.record_lands(index, record),
            Step::RecordReturns { record } => self.record_returns(index, record),
            Step::Crash => self.crash(index),
            Step::Restart => self.restart(index),
            Step::Remembers => self.remembers(index),
        }
    }

    // ---- a node's life ----

    fn restart(&mut self, index: usize) {
        let id = |index: usize| NodeId::new(index as u8 + 1).expect("few");
        let all = (0..self.nodes.len()).map(id).collect::<NodeSet>();
        let seed = self.random();
        let file = self.nodes[index].file.clone();
        let memory = if self.chance(500) {
            let delay = self.below(2 * HEARTBEAT);
            self.after(delay, index, Step::Remembers);
            Memory::Pending
        } else {
            file.map_or(Memory::Nothing, Memory::Kept)
        };
        let register = Register::new(id(index), all, seed, Span(BACKOFF), memory);
        let register = register.on_disks(self.disks.len());
        let node = &mut self.nodes[index];
        node.writes.clear();
        node.register = Some(register);
        node.old = (0, 0);
        node.epoch = 0;
        self.feed(index, Event::Tick);
        self.after(1, index, Step::Heartbeat);
    }

    fn crash(&mut self, index: usize) {
        self.counts.crashes += 1;
        let down = 1 + self.below(4 * HEARTBEAT);
        let node = &mut self.nodes[index];
        node.register = None;
        node.reads.clear();
        // What may still come is a late proposal: no answer, no promise.
        node.proposal = None;
        node.next_tick = u64::MAX;
        let steps = std::mem::take(&mut self.steps);
        self.steps = steps
            .into_iter()
            .filter(|Reverse((_, _, node, step))| {
                let outlives = matches!(step, Step::MailArrives { .. } | Step::ChangeLands { .. });
                *node != index || outlives
            })
            .collect();
        let mut changes = self.changes.values_mut();
        if let Some(known) = changes.find(|known| known.waits_for == Some(index)) {
            known.waits_for = None;
        }
        self.lose_record(index);
        for at in 0..self.nodes[index].writes.len() {
            let (lands, tears) = (self.chance(500), self.chance(300));
            let write = &mut self.nodes[index].writes[at];
            if write.landed {
                continue;
            }
            write.lands = lands;
            let id = write.id;
            let when = self.below(down);
            if tears {
                self.after(0, index, Step::WriteTears { write: id });
            }
            self.after(when, index, Step::WriteLands { write: id });
        }
        self.after(down, index, Step::Restart);
    }

    fn heartbeat(&mut self, index: usize) {
        let calm = self.now > FAULTS_END;
        let crash = self.faults.crash;
        if !calm && self.chance(crash) {
            // Not at the heartbeat itself: in the middle of whatever goes on by then.
            let when = self.below(HEARTBEAT);
            self.after(when, index, Step::Crash);
        }
        self.media(index);
        for disk in 0..self.disks.len() {
            let reads = self.nodes[index].reads.iter();
            if reads.filter(|read| read.disk == disk).count() < 2 {
                self.issue_read(index, disk);
            }
        }
        self.hear_of_epochs(index);
        let due = if calm {
            !self.nodes[index].content
        } else {
            true
        };
        let often = if calm { 300 } else { self.faults.propose };
        if due && self.chance(often) {
            self.propose(index, calm);
        }
        let next = HEARTBEAT / 2 + self.below(HEARTBEAT);
        self.after(next, index, Step::Heartbeat);
    }

    /// Somebody says which epoch it knows; the newest is heard, or an older one.
    fn hear_of_epochs(&mut self, index: usize) {
        if !self.chance(300) {
            return;
        }
        let from = self.below(self.nodes.len() as u64) as usize;
        let epoch = self.nodes[from].epoch;
        if self.nodes[from].register.is_some() && epoch > self.nodes[index].epoch {
            self.counts.heard_of += 1;
            self.feed(index, Event::DecidedElsewhere { epoch });
        }
    }

    fn propose(&mut self, index: usize, calm: bool) {
        let stale = !calm && self.chance(50);
        let deadline = if calm || self.chance(500) {
            40 * HEARTBEAT
        } else {
            self.below(4_000)
        };
        self.numbers += 1;
        let nonce = self.numbers;
        let (now, node) = (Instant(self.now), &mut self.nodes[index]);
        let Some(register) = node.register.as_mut().filter(|_| node.proposal.is_none()) else {
            return;
        };
        let expected = if stale {
            node.old
        } else {
            register.known().id()
        };
        node.old = expected;
        let new = Value {
            epoch: expected.0 + 1,
            nonce,
            bytes: vec![index as u8],
        };
        self.chain.propose(expected, &new);
        node.proposal = Some(new.id());
        register
            .propose(now, expected, new, now + Span(deadline))
            .expect("one at a time");
        self.pump(index);
    }

    // ---- what the register sees and says ----

    pub(crate) fn feed(&mut self, index: usize, event: Event<'_>) {
        self.feed_on(0, index, event);
    }

    pub(crate) fn feed_on(&mut self, disk: usize, index: usize, event: Event<'_>) {
        let now = Instant(self.now);
        let Some(register) = &mut self.nodes[index].register else {
            return;
        };
        register.handle_on(disk, now, event);
        self.pump(index);
    }

    fn pump(&mut self, index: usize) {
        for disk in 0..self.disks.len() {
            while let Some(register) = &mut self.nodes[index].register {
                match register.poll_order_on(disk) {
                    Some(Order::Read) => self.issue_read(index, disk),
                    Some(Order::Write(block)) => self.issue_write(index, disk, block),
                    Some(Order::CompareAndWrite(change)) => self.issue_change(index, change),
                    None => break,
                }
            }
        }
        self.send(index);
        loop {
            let Some(register) = &mut self.nodes[index].register else {
                return;
            };
            let Some(news) = register.poll_news() else {
                break;
            };
            self.news(index, news);
        }
        let node = &mut self.nodes[index];
        let Some(register) = &node.register else {
            return;
        };
        for disk in 0..self.disks.len() {
            let trouble = register.halted().or(register.trouble_on(disk));
            let never = matches!(trouble, Some(Trouble::Foreign | Trouble::WentBack));
            assert!(!never, "node {index}, disk {disk}: {trouble:?}");
        }
        let next = register.poll_timeout().0.max(self.now + 1);
        if next < node.next_tick {
            node.next_tick = next;
            self.after(next - self.now, index, Step::Tick);
        }
    }

    fn news(&mut self, index: usize, news: News) {
        let calm = self.now > FAULTS_END;
        let node = &mut self.nodes[index];
        match news {
            News::Learned(value) => {
                self.counts.learned += 1;
                assert!(
                    value.epoch > node.epoch,
                    "known went back to {}",
                    value.epoch
                );
                node.epoch = value.epoch;
                if self.disks[0].record().is_some() {
                    // The disk has accepted it, and with this node that is a quorum.
                    self.chain.decide(value.id(), self.now);
                }
                self.chain.assert_decided(&value, "Learned");
            }
            News::Won { value, at } => {
                self.counts.won += 1;
                assert_eq!(node.proposal.take(), Some(value.id()));
                assert!(at.0 <= self.now);
                self.chain.assert_decided(&value, "Won");
                self.counts.on_three += u64::from(self.disks.len() > 1);
                let dead = self.dead.is_some_and(|(_, since)| since < self.now);
                self.counts.on_two_left += u64::from(dead);
                node.content |= calm;
            }
            News::Lost { current, unclear } => {
                let proposal = node.proposal.take().expect("it was proposed");
                self.chain.assert_decided(&current, "Lost");
                assert_ne!(current.id(), proposal);
                self.counts.lost += 1;
                self.counts.lost_unclear += u64::from(unclear);
                if !unclear {
                    self.chain.never(proposal);
                }
            }
            News::GaveUp { unclear } => {
                let proposal = node.proposal.take().expect("it was proposed");
                self.counts.gave_up += 1;
                self.counts.gave_up_unclear += u64::from(unclear);
                if !unclear {
                    self.chain.never(proposal);
                }
            }
            News::Proof { begun, epoch } => {
                self.counts.proofs += 1;
                assert_eq!(epoch, node.epoch, "a proof for something else");
                self.chain.assert_proof(epoch, begun.0);
                node.last_proof = begun.0;
            }
        }
    }

    // ---- chance ----

    pub(crate) fn after(&mut self, delay: u64, node: usize, step: Step) {
        self.numbers += 1;
        self.steps
            .push(Reverse((self.now + delay, self.numbers, node, step)));
    }

    /// How long one I/O takes: sometimes very long.
    pub(crate) fn io(&mut self) -> u64 {
        let rate = self.faults.slow;
        if self.fault(rate) {
            1 + self.below(30 * IO)
        } else {
            1 + self.below(IO)
        }
    }

    pub(crate) fn fault(&mut self, per_mille: u64) -> bool {
        self.now <= FAULTS_END && self.chance(per_mille)
    }

    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.random() % end
    }

    pub(crate) fn random(&mut self) -> u64 {
        self.rng = self.rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.rng;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
