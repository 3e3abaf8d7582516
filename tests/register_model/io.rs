//! Reads and writes of the disk, each a few steps long.

use standfast::register::{Block, BlockSeen, Event};
use standfast::time::Instant;

use crate::world::{IO, Read, Step, World, Write};

impl World {
    pub(crate) fn issue_read(&mut self, index: usize) {
        self.numbers += 1;
        let (id, slots) = (self.numbers, self.nodes.len());
        let rate = self.faults.read_error;
        let fails = self.fault(rate) || self.is_away(index);
        let takes = self.io();
        for slot in 0..slots {
            let at = 1 + self.below(takes);
            self.after(at, index, Step::Sample { read: id, slot });
        }
        self.after(takes + 1, index, Step::ReadEnd { read: id });
        let blocks = vec![BlockSeen::Damaged; slots];
        self.nodes[index].reads.push(Read {
            id,
            begun: self.now,
            fails,
            blocks,
        });
    }

    pub(crate) fn sample(&mut self, index: usize, read: u64, slot: usize) {
        let rate = self.faults.damage;
        let damaged = self.fault(rate);
        self.counts.damaged += u64::from(damaged);
        let seen = if damaged {
            BlockSeen::Damaged
        } else {
            self.disk.sample(slot)
        };
        if let Some(read) = self.nodes[index]
            .reads
            .iter_mut()
            .find(|known| known.id == read)
        {
            read.blocks[slot] = seen;
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
            self.feed(index, Event::ReadFailed { begun });
        } else {
            self.feed(
                index,
                Event::ReadDone {
                    begun,
                    ended,
                    blocks: &read.blocks,
                },
            );
        }
    }

    pub(crate) fn issue_write(&mut self, index: usize, block: Block) {
        assert!(self.nodes[index].write.is_none(), "two writes at once");
        self.numbers += 1;
        let id = self.numbers;
        let rate = self.faults.write_error;
        let (away, hangs) = (self.is_away(index), self.chance(500));
        let fails = self.fault(rate) || (away && !hangs);
        let lands = !fails || (!away && self.chance(500));
        let (tears, more, mut back) = (self.below(IO), self.io(), self.io());
        if away && hangs {
            // It lands now or when the disk is back; either way nobody hears of it before.
            back += self.nodes[index].away_until - self.now;
        }
        if self.chance(300) && (lands || self.chance(500)) {
            self.after(tears, index, Step::WriteTears { write: id });
        }
        self.after(tears + more, index, Step::WriteLands { write: id });
        self.after(tears + more + back, index, Step::WriteReturns { write: id });
        self.nodes[index].write = Some(Write {
            id,
            block,
            fails,
            lands,
            landed: false,
        });
    }

    pub(crate) fn write_tears(&mut self, index: usize, write: u64) {
        if let Some(write) = self.nodes[index]
            .write
            .as_ref()
            .filter(|known| known.id == write)
        {
            self.counts.torn += 1;
            self.disk.tear(index, write.block.writes);
        }
    }

    pub(crate) fn write_lands(&mut self, index: usize, write: u64) {
        let known = self.nodes[index]
            .write
            .as_mut()
            .filter(|known| known.id == write);
        if let Some(write) = known.filter(|write| write.lands) {
            write.landed = true;
            self.disk.land(index, write.block.clone());
            if self.disk.is_decided(index) {
                self.chain.decide(write.block.value.id(), self.now);
            }
        }
    }

    pub(crate) fn write_returns(&mut self, index: usize, write: u64) {
        let Some(write) = self.nodes[index].write.take_if(|known| known.id == write) else {
            return;
        };
        self.counts.write_errors += u64::from(write.fails);
        let at = Instant(self.now);
        let event = if write.fails {
            Event::WriteFailed { at }
        } else {
            Event::Written { at }
        };
        self.feed(index, event);
    }
}
