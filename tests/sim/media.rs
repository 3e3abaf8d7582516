//! Networks and disk threads: how frames and blocks travel between the nodes.

use std::rc::Rc;

use standfast::engine::Event;
use standfast::frame::Frame;
use standfast::register::{Block, BlockSeen, Seen};

use crate::checks::Violation;
use crate::disk::{Read, Write, land};
use crate::node::In;
use crate::world::{Ev, World};

/// Frames kept to be replayed.
const OLD_FRAMES_MAX: usize = 64;

impl World {
    fn disk_link(&self, d: usize) -> u8 {
        (self.plan.networks + d) as u8
    }

    pub(crate) fn send(&mut self, i: usize, frame: Frame) {
        for link in 0..self.plan.networks {
            if !self.nodes[i].link_up[link] {
                continue;
            }
            let mut copy = frame.clone();
            copy.link = link as u8;
            let copy = Rc::new(copy);
            for to in 0..self.nodes.len() {
                if to != i {
                    self.send_on(self.plugged(i, link), i, to, &copy);
                }
            }
        }
        for d in 0..self.disks.len() {
            let mut copy = frame.clone();
            copy.link = self.disk_link(d);
            self.nodes[i].disks[d].next_slot = Some(Rc::new(copy));
            self.start_slot_write(i, d);
        }
    }

    fn send_on(&mut self, link: usize, from: usize, to: usize, frame: &Rc<Frame>) {
        if self.rng.chance(5) {
            if self.old_frames.len() == OLD_FRAMES_MAX {
                let place = self.rng.below(OLD_FRAMES_MAX as u64) as usize;
                self.old_frames.swap_remove(place);
            }
            self.old_frames.push((link, to, frame.clone()));
        }
        if self.is_cut(link, from, to) || self.is_lost() {
            return;
        }
        for delay in self.delays(link).into_iter().flatten() {
            self.arrive(delay, link, to, frame.clone());
        }
    }

    pub(crate) fn is_cut(&self, link: usize, from: usize, to: usize) -> bool {
        let path = (link, self.nodes[from].slot, self.nodes[to].slot);
        self.cuts.contains_key(&path)
    }

    /// Is what goes over a network now lost by chance?
    pub(crate) fn is_lost(&mut self) -> bool {
        !self.calm && self.rng.chance(self.plan.loss)
    }

    /// How long what goes over this network takes, and a second copy of it, if there is one.
    pub(crate) fn delays(&mut self, link: usize) -> [Option<u64>; 2] {
        let twice = !self.calm && self.rng.chance(self.plan.doubles);
        [true, twice].map(|copy| copy.then(|| self.delay(link)))
    }

    fn delay(&mut self, link: usize) -> u64 {
        let mut delay = 1 + self.rng.below(self.plan.delay);
        if !self.calm && self.rng.chance(self.plan.late) {
            delay = self.rng.skewed(self.plan.timing.detect.0);
        }
        if self.clogged_until[link] > self.now {
            delay = self.clogged_until[link] - self.now + self.plan.delay;
        }
        delay
    }

    pub(crate) fn arrive(&mut self, delay: u64, link: usize, to: usize, frame: Rc<Frame>) {
        let power = self.nodes[to].power_life;
        let link = self.plugged(to, link) as u8;
        self.after(delay, to, Ev::Arrive { power, link, frame });
    }

    /// The network that a node's link leads to, and the link that a network leads to.
    pub(crate) fn plugged(&self, i: usize, link: usize) -> usize {
        let swaps = self.nodes[i].crossed && self.plan.networks >= 2 && link < 2;
        if swaps { 1 - link } else { link }
    }

    /// A link thread has emptied its socket.
    pub(crate) fn drain(&mut self, i: usize, core: u64, link: u8) {
        if self.nodes[i].core_life != core {
            return;
        }
        if !self.nodes[i].core_paused(self.now) {
            self.deliver(i, In::Drained { link });
        }
        let next = self.plan.timing.heartbeat.0 / 3 + self.rng.below(self.plan.jitter);
        self.after(next, i, Ev::Drain { core, link });
    }

    // ---- the disk thread ----

    /// When an operation that takes `span` here and now is done.
    pub(crate) fn io_time(&mut self, i: usize, d: usize) -> u64 {
        let slow = !self.calm && self.rng.chance(self.plan.slow_io);
        if self.nodes[i].disks[d].slow {
            2 + self.rng.below(self.plan.timing.detect.0 / 2)
        } else if slow {
            1 + self.rng.skewed(self.plan.timing.detect.0)
        } else {
            2 + self.rng.below(self.plan.io)
        }
    }

    /// The disk thread has tried to write a frame; it reads what the others have written, if no
    /// read is still under way. It may have to sleep before that.
    fn read_after_frame(&mut self, i: usize, d: usize) {
        let sleeps = self.nodes[i].core_paused(self.now);
        let node = &mut self.nodes[i];
        node.disks[d].sleeps = sleeps;
        if node.engine.is_some() && node.disks[d].reads.is_empty() && !sleeps {
            self.issue_read(i, d);
        }
    }

    /// The disk threads run again.
    pub(crate) fn disks_wake(&mut self, i: usize) {
        for d in 0..self.disks.len() {
            if self.nodes[i].disks[d].sleeps {
                self.read_after_frame(i, d);
            }
        }
    }

    pub(crate) fn issue_read(&mut self, i: usize, d: usize) {
        if self.nodes[i].disks[d].reads.len() >= 2 {
            self.nodes[i].disks[d].again = true;
            return;
        }
        let takes = self.io_time(i, d);
        let first = self.rng.below(takes);
        let second = first + self.rng.below(takes - first);
        self.number += 1;
        let read = self.number;
        let late = self.rng.next();
        let count = self.plan.nodes;
        let node = &mut self.nodes[i];
        node.disks[d].reads.push(Read {
            id: read,
            begun: node.clock.at(self.now),
            late,
            blocks: vec![BlockSeen::Blank; count],
            record: None,
            frames: vec![None; count],
            fails: node.disks[d].lost,
        });
        self.after(
            first,
            i,
            Ev::Sample {
                d,
                read,
                late: false,
            },
        );
        self.after(
            second,
            i,
            Ev::Sample {
                d,
                read,
                late: true,
            },
        );
        self.after(takes, i, Ev::ReadEnds { d, read });
    }

    pub(crate) fn sample(&mut self, i: usize, d: usize, read: u64, late: bool) {
        let disk = &self.disks[d];
        let mut reads = self.nodes[i].disks[d].reads.iter_mut();
        let Some(read) = reads.find(|known| known.id == read) else {
            return;
        };
        if let Some(shared) = disk
            .record
            .as_ref()
            .filter(|_| (read.late >> 63 == 1) == late)
        {
            read.record = Some(shared.seen());
        }
        for slot in 0..read.blocks.len() {
            if (read.late >> slot & 1 == 1) == late {
                read.blocks[slot] = disk.block_seen(slot);
                read.frames[slot] = disk.frames[slot].clone();
            }
        }
    }

    /// Still held by the device? Then the end comes later.
    pub(crate) fn still_hangs(&mut self, i: usize, d: usize, ev: Ev) -> bool {
        let until = self.nodes[i].disks[d].hung_until;
        if until <= self.now {
            return false;
        }
        let more = self.rng.below(self.plan.io) + 1;
        self.after(until - self.now + more, i, ev);
        true
    }

    pub(crate) fn read_ends(&mut self, i: usize, d: usize, id: u64) {
        let known = self.nodes[i].disks[d]
            .reads
            .iter()
            .any(|read| read.id == id);
        if !known || self.still_hangs(i, d, Ev::ReadEnds { d, read: id }) {
            return;
        }
        let place = self.nodes[i].disks[d]
            .reads
            .iter()
            .position(|read| read.id == id);
        let Some(place) = place else { return };
        let read = self.nodes[i].disks[d].reads.swap_remove(place);
        if std::mem::take(&mut self.nodes[i].disks[d].again) {
            self.issue_read(i, d);
        }
        let mut read = read;
        if self.nodes[i].disks[d].garbled {
            self.garble(&mut read);
        }
        let fails = read.fails || self.nodes[i].disks[d].lost;
        self.disk_state(i, d, !fails);
        if fails {
            let (disk, begun) = (d as u8, read.begun);
            self.deliver(i, In::ReadFailed { disk, begun });
        } else {
            self.read_shows(i, d, read);
        }
    }

    fn read_shows(&mut self, i: usize, d: usize, mut read: Read) {
        let link = self.disk_link(d);
        let disk = &mut self.nodes[i].disks[d];
        disk.handed.resize(read.frames.len(), None);
        let mut frames = Vec::new();
        for (slot, frame) in read.frames.into_iter().enumerate() {
            let Some(frame) = frame else { continue };
            let mark = Some((frame.incarnation, frame.sequence));
            if disk.handed[slot] != mark {
                disk.handed[slot] = mark;
                frames.push(frame);
            }
        }
        let shown = read
            .record
            .take()
            .map_or(Seen::Blocks(read.blocks), Seen::Record);
        let changed = disk.known.as_ref() != Some(&shown);
        let seen = changed.then(|| shown.clone());
        disk.known = Some(shown);
        let begun = read.begun;
        self.deliver(
            i,
            In::Read {
                disk: d as u8,
                begun,
                seen,
                frames,
                link,
            },
        );
    }

    /// The disk thread tells the engine when its link changes.
    fn disk_state(&mut self, i: usize, d: usize, up: bool) {
        if self.nodes[i].disks[d].up.replace(up) != Some(up) {
            let (link, reason) = (self.disk_link(d), "disk".to_owned());
            self.deliver(i, In::Other(Event::LinkState { link, up, reason }));
        }
    }

    pub(crate) fn issue_write(&mut self, i: usize, d: usize, block: Block) {
        assert!(
            self.nodes[i].disks[d].write.is_none(),
            "two register writes at once"
        );
        self.number += 1;
        let id = self.number;
        let fails = self.nodes[i].disks[d].lost;
        let lands = !fails || self.rng.chance(500);
        self.proposed(i, &block);
        let takes = self.io_time(i, d);
        let when = self.rng.below(takes);
        self.nodes[i].disks[d].write = Some(Write {
            id,
            block,
            fails,
            lands,
            landed: false,
            orphan: false,
        });
        self.after(when, i, Ev::WriteLands { d, write: id });
        self.after(takes, i, Ev::WriteEnds { d, write: id });
        if let Some(strike) = self.nodes[i].when_writing.take() {
            let when = self.rng.below(takes);
            self.after(when, i, Ev::Strikes { strike });
        }
    }

    /// A block is on the disk.
    pub(crate) fn lands(&mut self, i: usize, d: usize, block: Block) {
        let slot = self.nodes[i].slot;
        match land(&mut self.disks, d, slot, block) {
            Ok(Some(value)) => self.decided(i, value),
            Ok(None) => {}
            Err(what) => self.goes_back(i, what),
        }
    }

    pub(crate) fn goes_back(&self, i: usize, what: String) {
        self.violated(Violation::new("S4", what, vec![i]));
    }

    pub(crate) fn write_lands(&mut self, i: usize, d: usize, id: u64) {
        let until = self.nodes[i].disks[d].hung_until;
        let write = self.nodes[i].disks[d].write.as_mut();
        let Some(write) = write.filter(|write| write.id == id && write.lands) else {
            return;
        };
        // What hangs has been done already, or is done when the hang is over.
        if until > self.now && id.is_multiple_of(2) {
            self.after(until - self.now, i, Ev::WriteLands { d, write: id });
            return;
        }
        if !std::mem::replace(&mut write.landed, true) {
            let block = write.block.clone();
            self.lands(i, d, block);
        }
    }

    pub(crate) fn write_ends(&mut self, i: usize, d: usize, id: u64) {
        let known = self.nodes[i].disks[d]
            .write
            .as_ref()
            .is_some_and(|write| write.id == id);
        if !known || self.still_hangs(i, d, Ev::WriteEnds { d, write: id }) {
            return;
        }
        self.write_lands(i, d, id);
        if let Some(write) = self.nodes[i].disks[d]
            .write
            .take()
            .filter(|write| !write.orphan)
        {
            self.deliver(
                i,
                In::WriteEnded {
                    disk: d as u8,
                    fails: write.fails,
                },
            );
        }
    }

    // ---- heartbeats through slots ----

    fn start_slot_write(&mut self, i: usize, d: usize) {
        if self.nodes[i].disks[d].slot.is_some() {
            return;
        }
        let Some(frame) = self.nodes[i].disks[d].next_slot.take() else {
            return;
        };
        if self.nodes[i].disks[d].lost {
            self.read_after_frame(i, d);
            return;
        }
        self.number += 1;
        let write = self.number;
        self.nodes[i].disks[d].slot = Some((write, frame));
        let takes = self.io_time(i, d);
        let when = self.rng.below(takes);
        self.after(when, i, Ev::SlotLands { d, write });
        self.after(takes, i, Ev::SlotEnds { d, write });
    }

    pub(crate) fn slot_lands(&mut self, i: usize, d: usize, id: u64) {
        if let Some((write, frame)) = &self.nodes[i].disks[d].slot
            && *write == id
        {
            self.disks[d].frames[self.nodes[i].slot] = Some(frame.clone());
        }
    }

    pub(crate) fn slot_ends(&mut self, i: usize, d: usize, id: u64) {
        let known = self.nodes[i].disks[d]
            .slot
            .as_ref()
            .is_some_and(|(write, _)| *write == id);
        if !known || self.still_hangs(i, d, Ev::SlotEnds { d, write: id }) {
            return;
        }
        self.nodes[i].disks[d].slot = None;
        self.read_after_frame(i, d);
        self.start_slot_write(i, d);
    }
}
