//! The record of a shared disk that can compare and write, and a node's one command for it.
//!
//! A command that goes well is done at one moment between its order and its end. Its answer may be
//! lost; then it is done at any time, or never, or twice, also after its node has lost its power.

use standfast::engine::{Event, View};
use standfast::model::{Incarnation, NodeId};
use standfast::register::{Ballot, Block, Change, Compared, Record, RecordSeen, Value};
use standfast::storage::area::{RECORD_LEN, decode_record, encode_record};

use crate::checks::s9;
use crate::disk::Read;
use crate::node::In;
use crate::world::{Ev, World};

/// The record, and both copies of all blocks.
#[derive(Clone)]
pub(crate) struct Shared {
    record: Record,
    copies: Vec<[Option<Block>; 2]>,
    /// All values that the disk has ever accepted.
    accepted: Vec<Value>,
}

impl Shared {
    pub(crate) fn new(nodes: usize) -> Shared {
        Shared {
            record: Record::default(),
            copies: vec![[None, None]; nodes],
            accepted: Vec::new(),
        }
    }

    /// Epoch and nonce of the value accepted last.
    pub(crate) fn top(&self) -> Option<(u64, u64)> {
        let record = &self.record;
        (record.bal != Ballot::NONE).then_some((record.epoch, record.nonce))
    }

    pub(crate) fn bal(&self) -> Ballot {
        self.record.bal
    }

    pub(crate) fn seen(&self) -> RecordSeen {
        let record = self.record;
        match self.value() {
            None => RecordSeen::ValueLost(record),
            Some(_) if record.count == 0 => RecordSeen::Blank,
            Some(value) => RecordSeen::Good(record, value),
        }
    }

    /// What the record names, if it is there.
    fn value(&self) -> Option<Value> {
        let Some(place) = self.record.place else {
            return Some(Value::default());
        };
        let copy = &self.copies[place.node.index()][place.writes as usize % 2];
        let block = copy.as_ref().filter(|block| block.writes == place.writes)?;
        self.record.names(&block.value).then(|| block.value.clone())
    }

    /// A block lands in the copy that its count names, whole or torn.
    pub(crate) fn land(&mut self, slot: usize, block: Block, whole: bool) -> Result<(), String> {
        let copy = block.writes as usize % 2;
        self.copies[slot][copy] = whole.then_some(block);
        match self.value() {
            Some(_) => Ok(()),
            None => Err(format!(
                "block {slot} is written over what the record names"
            )),
        }
    }

    fn execute(&mut self, change: &Change) -> Result<Compared, String> {
        if self.record != change.expected {
            return Ok(Compared::Miscompare);
        }
        if change.new.bal < self.record.bal || change.new.count != self.record.count + 1 {
            return Err("the record goes back".into());
        }
        self.record = change.new;
        let value = self.value().ok_or("the record names what is not there")?;
        self.accepted.push(value);
        Ok(Compared::Done)
    }
}

/// The command under way.
pub(crate) struct Command {
    id: u64,
    /// How it was done, once it was.
    outcome: Option<Compared>,
    /// Its answer will be lost.
    unclear: bool,
    /// Nobody waits for it any more.
    pub(crate) orphan: bool,
}

impl World {
    pub(crate) fn issue_change(&mut self, i: usize, change: Change) {
        let under_way = self.nodes[i].disks[0].command.is_some();
        assert!(!under_way, "two commands at once");
        self.number += 1;
        let id = self.number;
        let bad = !self.calm;
        let lost = self.nodes[i].disks[0].lost;
        let unclear = lost || bad && self.rng.chance(20);
        let takes = self.io_time(i, 0);
        let when = self.rng.below(takes);
        let late = self.rng.skewed(self.plan.timing.detect.0 * 2);
        if !unclear {
            self.after(
                when,
                i,
                Ev::ChangeLands {
                    id,
                    change: Box::new(change),
                },
            );
        } else if self.rng.chance(600) {
            let when = if self.rng.chance(500) { when } else { late };
            self.checks.count("command without an answer");
            self.after(
                when,
                i,
                Ev::ChangeLands {
                    id,
                    change: Box::new(change),
                },
            );
        }
        if bad && self.rng.chance(20) {
            self.checks.count("command sent twice");
            self.after(
                takes + late,
                i,
                Ev::ChangeLands {
                    id,
                    change: Box::new(change),
                },
            );
        }
        self.after(takes, i, Ev::ChangeEnds { id });
        self.nodes[i].disks[0].command = Some(Command {
            id,
            outcome: None,
            unclear,
            orphan: false,
        });
    }

    pub(crate) fn change_lands(&mut self, i: usize, id: u64, change: Change) {
        let until = self.nodes[i].disks[0].hung_until;
        let waits = self.nodes[i].disks[0].command.as_ref();
        let waits = waits.is_some_and(|command| command.id == id);
        // What hangs has been done already, or is done when the hang is over.
        if waits && until > self.now && id.is_multiple_of(2) {
            self.after(
                until - self.now,
                i,
                Ev::ChangeLands {
                    id,
                    change: Box::new(change),
                },
            );
            return;
        }
        let shared = self.disks[0]
            .record
            .as_mut()
            .expect("this disk has a record");
        match shared.execute(&change) {
            Ok(outcome) => {
                if let Some(command) = &mut self.nodes[i].disks[0].command
                    && command.id == id
                {
                    command.outcome.get_or_insert(outcome);
                } else if outcome == Compared::Done {
                    self.checks.count("command done late");
                }
            }
            Err(what) => self.goes_back(i, what),
        }
    }

    pub(crate) fn change_ends(&mut self, i: usize, id: u64) {
        let command = self.nodes[i].disks[0].command.as_ref();
        let known = command.is_some_and(|command| command.id == id);
        if !known || self.still_hangs(i, 0, Ev::ChangeEnds { id }) {
            return;
        }
        let Some(command) = self.nodes[i].disks[0].command.take() else {
            return;
        };
        if command.orphan {
            return;
        }
        let outcome = match command.outcome {
            Some(outcome) if !command.unclear => outcome,
            Some(_) | None => Compared::Unclear,
        };
        if outcome == Compared::Miscompare {
            self.checks.count("command refused");
        }
        let at = self.nodes[i].clock.at(self.now);
        self.deliver(i, In::Other(Event::DiskCompared { at, outcome }));
    }

    /// The engine of node `i` has learned a view. If the disk has accepted it, it is decided by
    /// now: the node that learns it accepts it, too.
    pub(crate) fn has_learned(&mut self, i: usize) {
        let (Some(shared), Some(engine)) = (&self.disks[0].record, &self.nodes[i].engine) else {
            return;
        };
        let view = engine.view();
        let is_it = |value: &&Value| {
            let decoded = View::decode(&value.bytes).ok();
            let decoded = decoded.map(|decoded| View {
                epoch: value.epoch,
                ..decoded
            });
            value.epoch == view.epoch && decoded.as_ref() == Some(view)
        };
        let found = shared.accepted.iter().rev().find(is_it).cloned();
        let nonce = self
            .checks
            .decided
            .get(&view.epoch)
            .map(|known| known.nonce);
        if let (Some(value), None) = (found, nonce) {
            self.decided(i, value);
        }
    }

    /// One bit of the record is not what it was, or one of the block that it names.
    pub(crate) fn garble_record(&mut self, read: &mut Read) {
        let Some(RecordSeen::Good(record, _)) = read.record else {
            return;
        };
        let writer = (NodeId::new(1).expect("1 is a node"), Incarnation::default());
        let mut bytes = [0; RECORD_LEN];
        encode_record(&[9; 16], &record, writer, &self.keys.own, &mut bytes);
        let bit = self.rng.below(RECORD_LEN as u64 * 8) as usize;
        bytes[bit / 8] ^= 1 << (bit % 8);
        let decoded = decode_record(&[9; 16], &bytes, &self.keys.own);
        let rule = s9::refused(&format!("a record with bit {bit} changed"), decoded);
        self.is_outside(rule.map(|_| ()));
        self.checks.count("refused record");
        read.record = Some(if bit.is_multiple_of(3) {
            RecordSeen::ValueLost(record)
        } else {
            RecordSeen::Damaged
        });
    }
}
