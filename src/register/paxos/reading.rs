//! What a read of the disk says, and what follows from it.

use super::super::own::Finding;
use super::super::scan::Scan;
use super::{Newer, Phase, Register, Stage};
use crate::register::{Ballot, Block, BlockSeen, Seen, Trouble};
use crate::time::Instant;

impl Register {
    /// The first read says how the area is changed; it is formatted for one way and stays so.
    pub(super) fn read_done(&mut self, now: Instant, at: (Instant, Instant), seen: &Seen) {
        match seen {
            Seen::Blocks(_) if self.shared.is_some() => self.halt(Trouble::WentBack),
            Seen::Record(_) if self.own.block().is_some() => self.halt(Trouble::WentBack),
            Seen::Blocks(blocks) => self.blocks_read(now, at, blocks),
            Seen::Record(record) => self.record_read(now, at, record),
        }
    }

    fn blocks_read(
        &mut self,
        now: Instant,
        (begun, ended): (Instant, Instant),
        blocks: &[BlockSeen],
    ) {
        self.see_own(now, begun, blocks);
        let own = self.acceptor.state();
        let scan = Scan::of(blocks, self.nodes, &own);
        self.take_in(now, begun, ended, &scan);
    }

    /// Compares the own block with what was written, or recovers it.
    fn see_own(&mut self, now: Instant, begun: Instant, blocks: &[BlockSeen]) {
        let Some(seen) = blocks.get(self.me.index()) else {
            return;
        };
        if matches!(seen, BlockSeen::Good(block) if !block.makes_sense(self.me)) {
            return;
        }
        let finding = self.own.seen(begun, seen);
        self.found(now, finding);
        self.recover();
    }

    /// The node's own voice is known once both its block and its file were read. Where there is a
    /// record, the blocks say nothing of voices.
    pub(super) fn recover(&mut self) {
        let none = Block::default();
        let own = match &self.shared {
            Some(shared) => shared.image().map(|_| &none),
            None => self.own.block(),
        };
        if let Some(block) = own.filter(|_| !self.acceptor.is_recovered()) {
            self.acceptor.recover(block);
            self.recover_by_image();
        }
        if self.acceptor.is_lost() {
            self.halt(Trouble::MemoryLost);
        }
    }

    fn found(&mut self, now: Instant, finding: Finding) {
        match finding {
            Finding::Same => {}
            Finding::Landed(at) => self.landed(at),
            Finding::NotLanded => match self.phase {
                Phase::Writing(..) => self.retry(now),
                Phase::Idle
                | Phase::Waiting(_)
                | Phase::Reading(..)
                | Phase::Storing(_)
                | Phase::Comparing(_)
                | Phase::Asking(..) => {}
            },
            Finding::Foreign => self.halt(Trouble::Foreign),
        }
    }

    fn take_in(&mut self, now: Instant, begun: Instant, ended: Instant, scan: &Scan<'_>) {
        self.highest = self.highest.max(scan.mbal);
        if !scan.damaged.is_empty() {
            self.read_trouble = Some(Trouble::Damaged(scan.damaged));
            self.reads.pause = now + self.backoff;
            return;
        }
        self.read_trouble = None;
        if self.halted.is_some() {
            return;
        }
        self.learn_from(now, begun, ended, scan);
        self.compare(now, scan);
        self.step_ballot(now, begun, ended, scan);
        self.prove(begun, scan);
    }

    /// A value seen twice, the second time by a read begun after the first was finished and without
    /// any higher ballot beside it, is decided.
    fn learn_from(&mut self, now: Instant, begun: Instant, ended: Instant, scan: &Scan<'_>) {
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
        let (bal, mbal) = (scan.bal(), scan.mbal);
        let before = self.newer.filter(|newer| newer.bal >= bal);
        if before.is_some_and(|newer| newer.bal > bal) {
            return;
        }
        // Only what was seen on the disk counts as seen: what this node holds was never there.
        let sighted = before.filter(|newer| newer.on_disk);
        let shows = scan.is_on_disk();
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
    fn compare(&mut self, now: Instant, scan: &Scan<'_>) {
        if scan.is_on_disk() {
            self.behind = None;
        } else if self.behind.is_none() {
            self.behind = Some(now + self.settle_delay());
        }
    }

    fn step_ballot(&mut self, now: Instant, begun: Instant, ended: Instant, scan: &Scan<'_>) {
        let (ballot, stage) = match self.phase {
            Phase::Reading(ballot, stage, since) if begun >= since => (ballot, stage),
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
                let value = self.own.block().map(|block| block.value.clone());
                self.decided(now, ended, value.unwrap_or_default());
            }
        }
    }

    /// Nobody began a higher ballot: this is accepted now.
    fn accept(&mut self, ballot: Ballot, scan: &Scan<'_>) {
        let value = self.value_to_accept(scan.value());
        self.acceptor.accept(ballot, value.clone());
        self.own.order(ballot, Some((ballot, value)));
        self.phase = Phase::Writing(ballot, Stage::Accept);
    }

    fn prove(&mut self, begun: Instant, scan: &Scan<'_>) {
        let same = scan
            .value()
            .map_or(self.known.epoch == 0, |value| *value == self.known);
        if same && self.halted.is_none() && self.acceptor.is_recovered() {
            self.outbox.proof = self.outbox.proof.max(Some(begun));
        }
    }
}
