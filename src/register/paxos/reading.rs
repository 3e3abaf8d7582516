//! What a read of the disk says, and what follows from it.

use super::super::own::Finding;
use super::super::scan::{Blocks, Scan};
use super::{Newer, Phase, Register, Stage};
use crate::register::{Ballot, Block, BlockSeen, Seen, Trouble};
use crate::time::Instant;

impl Register {
    /// The first read says how the area is changed; it is formatted for one way and stays so. Only
    /// one disk alone can be changed by compare-and-write.
    pub(super) fn read_done(
        &mut self,
        now: Instant,
        disk: usize,
        at: (Instant, Instant),
        seen: &Seen,
    ) {
        let several = self.disks.count() > 1;
        let again = now + self.backoff;
        let Some(on) = self.disks.of_mut(disk) else {
            return;
        };
        on.read_finished(at.0);
        match seen {
            Seen::Blocks(_) if self.shared.is_some() => self.halt(Trouble::WentBack),
            Seen::Record(_) if several => on.unreadable(Trouble::Mixed, again),
            Seen::Record(_) if on.own.block().is_some() => self.halt(Trouble::WentBack),
            Seen::Blocks(blocks) => self.blocks_read(now, disk, at, blocks),
            Seen::Record(record) => self.record_read(now, at, record),
        }
    }

    pub(super) fn read_failed(&mut self, now: Instant, disk: usize, begun: Instant) {
        let again = now + self.backoff;
        if let Some(disk) = self.disks.of_mut(disk) {
            disk.read_finished(begun);
            disk.unreadable(Trouble::ReadFailed, again);
        }
    }

    fn blocks_read(
        &mut self,
        now: Instant,
        disk: usize,
        at: (Instant, Instant),
        blocks: &[BlockSeen],
    ) {
        self.see_own(now, disk, at.0, blocks);
        let all = Blocks::of(blocks, self.nodes);
        self.highest = self.highest.max(all.mbal);
        if !all.damaged.is_empty() {
            let again = now + self.backoff;
            if let Some(disk) = self.disks.of_mut(disk) {
                disk.unreadable(Trouble::Damaged(all.damaged), again);
            }
            return;
        }
        if !self.disks.look(disk, at, &all) || self.halted.is_some() {
            return;
        }
        if let Some(scan) = self.disks.scan(&self.acceptor.state()) {
            self.take_in(now, &scan);
        }
    }

    /// Compares the own block with what was written, or recovers it.
    fn see_own(&mut self, now: Instant, on: usize, begun: Instant, blocks: &[BlockSeen]) {
        let (Some(seen), Some(disk)) = (blocks.get(self.me.index()), self.disks.of_mut(on)) else {
            return;
        };
        if matches!(seen, BlockSeen::Good(block) if !block.makes_sense(self.me)) {
            return;
        }
        let finding = disk.see_own(begun, seen);
        self.found(now, on, finding);
        self.recover();
    }

    /// The node's own voice is known once both its block, on a majority, and its file were read.
    /// Where there is a record, the blocks say nothing of voices.
    pub(super) fn recover(&mut self) {
        let own = match &self.shared {
            _ if self.acceptor.is_recovered() => None,
            Some(shared) => shared.image().map(|_| Block::default()),
            None => self.disks.own_block(),
        };
        if let Some(block) = own {
            self.acceptor.recover(&block);
            self.recover_by_image();
        }
        if self.acceptor.is_lost() {
            self.halt(Trouble::MemoryLost);
        }
    }

    fn found(&mut self, now: Instant, on: usize, finding: Finding) {
        match finding {
            Finding::Same => {}
            Finding::Landed => self.landed(),
            Finding::NotLanded if self.disks.count() > 1 => {
                let again = now + self.backoff;
                if let Some(disk) = self.disks.of_mut(on) {
                    disk.order_again(again);
                }
            }
            Finding::NotLanded => match self.phase {
                Phase::Writing(..) => self.retry(now),
                Phase::Idle
                | Phase::Waiting(_)
                | Phase::Reading(..)
                | Phase::Storing(_)
                | Phase::Comparing(_)
                | Phase::Asking(..) => {}
            },
            Finding::Foreign if self.disks.count() == 1 => self.halt(Trouble::Foreign),
            Finding::Foreign => {
                if let Some(disk) = self.disks.of_mut(on) {
                    disk.leave_out(Trouble::Foreign);
                }
            }
        }
    }

    fn take_in(&mut self, now: Instant, scan: &Scan) {
        self.learn_from(now, scan);
        self.compare(now, scan);
        self.step_ballot(now, scan);
        self.prove(scan);
    }

    /// A value seen twice, the second time by a read begun after the first was finished and without
    /// any higher ballot beside it, is decided; so is one of the epoch that another node was known
    /// to know when the read began.
    fn learn_from(&mut self, now: Instant, scan: &Scan) {
        let (begun, ended) = (scan.begun, scan.ended);
        let Some(value) = scan.value().filter(|value| value.epoch > self.known.epoch) else {
            self.newer = None;
            let same = scan
                .value()
                .map_or(self.known.epoch == 0, |value| *value == self.known);
            // Until the own voice is known, what was agreed without the disk may be missing.
            if !same && begun >= self.known_at && self.acceptor.is_recovered() {
                self.halt(Trouble::WentBack);
            }
            return;
        };
        let elsewhere = self.elsewhere;
        if value.epoch == elsewhere.epoch
            && begun >= elsewhere.since
            && self.acceptor.is_recovered()
        {
            self.learn(value, ended);
            return;
        }
        let (bal, mbal) = (scan.bal(), scan.mbal);
        let before = self.newer.filter(|newer| newer.bal >= bal);
        if before.is_some_and(|newer| newer.bal > bal) {
            return;
        }
        // Only what was seen on the disk counts as seen: what this node holds was never there.
        let sighted = before.filter(|newer| newer.on_disk);
        let shows = scan.is_on_disk;
        if shows && mbal == bal && sighted.is_some_and(|newer| begun >= newer.seen) {
            self.learn(value, ended);
            return;
        }
        let on_disk = shows || sighted.is_some();
        let seen = match sighted {
            Some(newer) if shows => newer.seen.min(ended),
            Some(newer) => newer.seen,
            None => ended,
        };
        let due = match before {
            Some(newer) if newer.mbal == mbal => newer.due,
            // An earlier core of this node has begun it: nobody else will end it.
            Some(_) | None if mbal.is_of(self.me) => now + self.jittered(self.backoff),
            Some(_) | None => now + self.settle_delay(),
        };
        self.newer = Some(Newer {
            bal,
            seen,
            mbal,
            on_disk,
            due,
        });
    }

    /// What this node has accepted over the network must come to the disk when that is back: only
    /// there do others find it who were not asked.
    fn compare(&mut self, now: Instant, scan: &Scan) {
        if scan.is_on_disk {
            self.behind = None;
        } else if self.behind.is_none() {
            self.behind = Some(now + self.settle_delay());
        }
    }

    fn step_ballot(&mut self, now: Instant, scan: &Scan) {
        let (ballot, stage) = match self.phase {
            Phase::Reading(ballot, stage, since) if scan.begun >= since => (ballot, stage),
            Phase::Idle
            | Phase::Waiting(_)
            | Phase::Writing(..)
            | Phase::Reading(..)
            | Phase::Storing(_)
            | Phase::Comparing(_)
            | Phase::Asking(..) => return,
        };
        if self.halted.is_some() {
            return;
        }
        if scan.mbal > ballot {
            self.retry(now);
            return;
        }
        match stage {
            Stage::Promise => self.accept(ballot, scan),
            Stage::Accept => {
                let value = self.disks.accepted_in(ballot);
                self.decided(now, scan.ended, value.unwrap_or_default());
            }
        }
    }

    /// Nobody began a higher ballot: this is accepted now.
    fn accept(&mut self, ballot: Ballot, scan: &Scan) {
        let value = self.value_to_accept(scan.value());
        self.acceptor.accept(ballot, value.clone());
        self.disks.order(ballot, Some(&(ballot, value)));
        self.phase = Phase::Writing(ballot, Stage::Accept);
    }

    fn prove(&mut self, scan: &Scan) {
        let same = scan
            .value()
            .map_or(self.known.epoch == 0, |value| *value == self.known);
        if same && self.halted.is_none() && self.acceptor.is_recovered() {
            self.outbox.proof = self.outbox.proof.max(Some(scan.begun));
        }
    }

    // ---- what is to be read ----

    /// Asks for what is wanted of each disk.
    pub(super) fn ask_for_reads(&mut self, now: Instant) {
        for disk in 0..self.disks.count() {
            let wanted = self.wants_read_since(disk);
            if let Some(disk) = self.disks.of_mut(disk) {
                disk.ask(now, wanted);
            }
        }
    }

    /// When reads that are wanted and not asked for can be asked for.
    pub(super) fn reads_due(&self) -> Option<Instant> {
        let disks = 0..self.disks.count();
        let due = disks.filter_map(|disk| {
            let wanted = self.wants_read_since(disk);
            self.disks.of(disk)?.ask_due(wanted)
        });
        due.min()
    }

    /// From when on a read of this disk must be begun to be of use; none if no read is needed.
    fn wants_read_since(&self, on: usize) -> Option<Instant> {
        if let Some(shared) = &self.shared {
            return shared.wants_read_since();
        }
        let disk = self.disks.of(on).filter(|disk| !disk.is_out())?;
        let ballot = match self.phase {
            Phase::Reading(_, _, since) => Some(since),
            Phase::Idle
            | Phase::Waiting(_)
            | Phase::Writing(..)
            | Phase::Storing(_)
            | Phase::Comparing(_)
            | Phase::Asking(..) => None,
        };
        let newer = self
            .newer
            .filter(|newer| newer.mbal == newer.bal && newer.on_disk)
            .map(|newer| newer.seen);
        // Of several disks, those that have answered wait for the others.
        let several = self.disks.count() > 1;
        let open = |since: &Instant| !several || !disk.is_read_since(*since);
        let decides = ballot.max(newer).filter(open);
        disk.own_wants_read_since().max(decides)
    }
}
