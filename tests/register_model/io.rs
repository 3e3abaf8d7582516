//! Reads and writes of the disk, each a few steps long.

use standfast::register::{Block, BlockSeen, Change, Compared, Event, Record, RecordSeen, Seen};
use standfast::time::Instant;

use crate::disk::{Disk, is_decided};
use crate::world::{Changing, HEARTBEAT, IO, Read, Step, World, Write};

impl World {
    pub(crate) fn issue_read(&mut self, index: usize, disk: usize) {
        self.numbers += 1;
        let (id, slots) = (self.numbers, self.nodes.len());
        let rate = self.faults.read_error;
        let fails = self.fault(rate) || self.is_away(index, disk);
        let takes = self.io();
        for slot in 0..slots {
            let at = 1 + self.below(takes);
            self.after(at, index, Step::Sample { read: id, slot });
        }
        self.after(takes + 1, index, Step::ReadEnd { read: id });
        let blocks = vec![BlockSeen::Damaged; slots];
        self.nodes[index].reads.push(Read {
            id,
            disk,
            begun: self.now,
            fails,
            blocks,
            record: None,
            copies: None,
        });
    }

    pub(crate) fn sample(&mut self, index: usize, read: u64, slot: usize) {
        let rate = self.faults.damage;
        let damaged = self.fault(rate);
        if let Some(record) = self.disks[0].record() {
            let seen = (!damaged).then_some(record);
            self.sample_record((index, read), slot, seen);
            return;
        }
        self.counts.damaged += u64::from(damaged);
        let mut reads = self.nodes[index].reads.iter_mut();
        if let Some(read) = reads.find(|known| known.id == read) {
            read.blocks[slot] = if damaged {
                BlockSeen::Damaged
            } else {
                self.disks[read.disk].sample(slot)
            };
        }
    }

    pub(crate) fn read_end(&mut self, index: usize, read: u64) {
        let reads = &mut self.nodes[index].reads;
        let Some(place) = reads.iter().position(|known| known.id == read) else {
            return;
        };
        let read = reads.swap_remove(place);
        let (begun, ended) = (Instant(read.begun), Instant(self.now));
        if read.fails {
            self.feed_on(read.disk, index, Event::ReadFailed { begun });
        } else {
            let disk = read.disk;
            let seen = &match self.disks[0].record() {
                None => Seen::Blocks(read.blocks),
                Some(_) => Seen::Record(self.look(&read)),
            };
            self.feed_on(disk, index, Event::ReadDone { begun, ended, seen });
        }
    }

    /// The record is read at one moment, all blocks at another.
    fn sample_record(&mut self, (index, read): (usize, u64), slot: usize, seen: Option<Record>) {
        let copies = (slot == 1).then(|| self.disks[0].copies());
        let mut reads = self.nodes[index].reads.iter_mut();
        let Some(read) = reads.find(|known| known.id == read) else {
            return;
        };
        match slot {
            0 => read.record = Some(seen),
            1 => read.copies = copies,
            _ => {}
        }
        self.counts.damaged += u64::from(slot == 0 && seen.is_none());
    }

    /// What the read has seen; if that does not fit together, what a second look at its end shows.
    fn look(&self, read: &Read) -> RecordSeen {
        let (Some(seen), Some(copies)) = (read.record, &read.copies) else {
            return RecordSeen::Damaged;
        };
        let Some(record) = seen else {
            return RecordSeen::Damaged;
        };
        Disk::resolve(record, copies).unwrap_or_else(|| {
            let record = self.disks[0].record().expect("this disk has one");
            let again = Disk::resolve(record, &self.disks[0].copies());
            again.unwrap_or(RecordSeen::ValueLost(record))
        })
    }

    pub(crate) fn issue_write(&mut self, index: usize, disk: usize, block: Block) {
        let mut under_way = self.nodes[index].writes.iter();
        assert!(
            under_way.all(|write| write.disk != disk),
            "two writes at once"
        );
        self.numbers += 1;
        let id = self.numbers;
        let rate = self.faults.write_error;
        let (away, hangs) = (self.is_away(index, disk), self.chance(500));
        let fails = self.fault(rate) || (away && !hangs);
        let lands = !fails || (!away && self.chance(500));
        let (tears, more, mut back) = (self.below(IO), self.io(), self.io());
        if away && hangs {
            // It lands now or when the disk is back; either way nobody hears of it before.
            back += self.nodes[index].away_until[disk].saturating_sub(self.now);
        }
        if self.chance(300) && (lands || self.chance(500)) {
            self.after(tears, index, Step::WriteTears { write: id });
        }
        self.after(tears + more, index, Step::WriteLands { write: id });
        self.after(tears + more + back, index, Step::WriteReturns { write: id });
        self.nodes[index].writes.push(Write {
            id,
            disk,
            block,
            fails,
            lands,
            landed: false,
        });
    }

    pub(crate) fn write_tears(&mut self, index: usize, write: u64) {
        let mut writes = self.nodes[index].writes.iter();
        if let Some(write) = writes.find(|known| known.id == write) {
            self.counts.torn += 1;
            self.disks[write.disk].tear(index, write.block.writes);
        }
    }

    pub(crate) fn write_lands(&mut self, index: usize, write: u64) {
        let mut writes = self.nodes[index].writes.iter_mut();
        let known = writes.find(|known| known.id == write);
        if let Some(write) = known.filter(|write| write.lands) {
            write.landed = true;
            self.disks[write.disk].land(index, write.block.clone());
            let is_record = self.disks[0].record().is_some();
            if !is_record && is_decided(&self.disks, index, &write.block) {
                self.chain.decide(write.block.value.id(), self.now);
            }
        }
    }

    pub(crate) fn write_returns(&mut self, index: usize, write: u64) {
        let writes = &mut self.nodes[index].writes;
        let Some(place) = writes.iter().position(|known| known.id == write) else {
            return;
        };
        let write = writes.swap_remove(place);
        self.counts.write_errors += u64::from(write.fails);
        let at = Instant(self.now);
        let event = if write.fails {
            Event::WriteFailed { at }
        } else {
            Event::Written { at }
        };
        self.feed_on(write.disk, index, event);
    }

    // ---- the record ----

    /// A COMPARE AND WRITE that goes well is done between its beginning and its end. Otherwise it
    /// is done then, or later, or never. Either may be done twice.
    pub(crate) fn issue_change(&mut self, index: usize, change: Change) {
        let under_way = self
            .changes
            .values()
            .any(|known| known.waits_for == Some(index));
        assert!(!under_way, "two changes at once");
        self.numbers += 1;
        let id = self.numbers;
        let rate = self.faults.write_error;
        let (away, hangs) = (self.is_away(index, 0), self.chance(500));
        let unclear = self.fault(rate) || away;
        let (lands, mut back) = (self.below(IO) + 1, self.io());
        if away && hangs {
            back += self.nodes[index].away_until[0].saturating_sub(self.now);
        }
        let returns = lands + back;
        if !unclear {
            self.after(lands, index, Step::ChangeLands { change: id });
        } else if self.chance(700) {
            let when = if self.chance(500) {
                lands
            } else {
                self.below(20 * HEARTBEAT)
            };
            self.after(when, index, Step::ChangeLands { change: id });
        }
        if self.chance(100) {
            self.counts.doubled += 1;
            let when = returns + self.below(5 * HEARTBEAT);
            self.after(when, index, Step::ChangeLands { change: id });
        }
        self.after(returns, index, Step::ChangeReturns { change: id });
        let known = Changing {
            waits_for: Some(index),
            change,
            unclear,
            outcome: None,
        };
        self.changes.insert(id, known);
    }

    pub(crate) fn change_lands(&mut self, id: u64) {
        let Some(known) = self.changes.get_mut(&id) else {
            return;
        };
        let outcome = self.disks[0].execute(&known.change);
        let late = known.waits_for.is_none() && outcome == Compared::Done;
        self.counts.late += u64::from(late);
        known.outcome.get_or_insert(outcome);
    }

    pub(crate) fn change_returns(&mut self, index: usize, id: u64) {
        let Some(known) = self.changes.get_mut(&id) else {
            return;
        };
        if known.waits_for.take() != Some(index) {
            return;
        }
        let done = known.outcome.unwrap_or(Compared::Unclear);
        let outcome = if known.unclear {
            Compared::Unclear
        } else {
            done
        };
        match outcome {
            Compared::Done => self.counts.changed += 1,
            Compared::Miscompare => self.counts.refused += 1,
            Compared::Unclear => self.counts.unclear += 1,
        }
        let at = Instant(self.now);
        self.feed(index, Event::Compared { at, outcome });
    }
}
