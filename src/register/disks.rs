//! The disks of the register, one or three: what is known of each, and of a majority of them.
//!
//! ```text
//! order --block free--> Own has it --poll--> under way --> landed, or failed
//!   '-----block busy--> due, until the write before it has ended; a newer order takes its place
//! failed --pause--> read --not there--> ordered again, unless there is only this disk
//! ```
//!
//! A disk that shows what cannot be true is *out*: in this life it is neither read nor written any
//! more. Where there is only one, the register itself stops instead.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::Instant;

use super::own::{Finding, Own};
use super::paxos::Stage;
use super::scan::{Blocks, Look, Scan};
use super::{Ballot, Block, BlockSeen, DISKS_MAX, Order, Trouble, Value};

/// The one read of a disk that may be asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Reads {
    /// Any read begun since then answers.
    asked: Option<Instant>,
    /// Not polled yet.
    queued: bool,
    /// No asking before this moment: the last one was no good.
    pause: Instant,
}

/// What the own block is to become.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Due {
    mbal: Ballot,
    accepted: Option<(Ballot, Value)>,
}

/// One disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Disk {
    pub(super) own: Own,
    /// What the last read has shown; none if it was no good.
    look: Option<Look>,
    reads: Reads,
    due: Option<Due>,
    /// The last order was polled.
    begun: bool,
    /// What was ordered last, and from when on to order it again: it is not on the disk.
    ordered: Option<Due>,
    again: Option<Instant>,
    pub(super) read_trouble: Option<Trouble>,
    pub(super) write_failed: bool,
    /// What it showed cannot be.
    out: Option<Trouble>,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Disks {
    all: Vec<Disk>,
}

impl Disks {
    /// # Panics
    /// If there are neither one nor three.
    pub(super) fn new(count: usize) -> Disks {
        assert!(count == 1 || count == DISKS_MAX, "one disk, or three");
        let all = vec![Disk::default(); count];
        Disks { all }
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    fn majority(&self) -> usize {
        self.all.len() / 2 + 1
    }

    /// Is this so of a majority?
    fn most(&self, is_so: impl Fn(&Disk) -> bool) -> bool {
        self.all.iter().filter(|disk| is_so(disk)).count() >= self.majority()
    }

    pub(super) fn of(&self, disk: usize) -> Option<&Disk> {
        self.all.get(disk)
    }

    /// The only one, where there is one: that with the record.
    pub(super) fn first(&mut self) -> &mut Disk {
        &mut self.all[0]
    }

    pub(super) fn of_mut(&mut self, disk: usize) -> Option<&mut Disk> {
        self.all.get_mut(disk).filter(|disk| disk.out.is_none())
    }

    // ---- reading ----

    /// A read of this disk shows the blocks so. Says whether that may be: what a disk has shown
    /// once it does not take back.
    pub(super) fn look(
        &mut self,
        disk: usize,
        at: (Instant, Instant),
        blocks: &Blocks<'_>,
    ) -> bool {
        let several = self.all.len() > 1;
        let Some(disk) = self.of_mut(disk) else {
            return false;
        };
        disk.read_trouble = None;
        let (begun, ended) = at;
        let bal = blocks.bal();
        let before = disk.look.take();
        if several
            && let Some(before) = &before
            && before.ended <= begun
            && (bal < before.bal() || blocks.mbal < before.mbal)
        {
            disk.leave_out(Trouble::WentBack);
            return false;
        }
        let top = match before.and_then(|before| before.top) {
            Some(known) if blocks.top == Some(&known) => Some(known),
            Some(_) | None => blocks.top.map(|block| Arc::new(block.clone())),
        };
        disk.look = Some(Look {
            begun,
            ended,
            mbal: blocks.mbal,
            top,
        });
        true
    }

    /// What a majority says, if one was seen.
    pub(super) fn scan(&self, own: &Arc<Block>) -> Option<Scan> {
        let looks = self.all.iter().filter_map(|disk| disk.look.as_ref());
        Scan::of(looks, self.majority(), own)
    }

    /// The own block as a majority of the disks has it: nothing this node has written with success
    /// is missing in it. Ballot by ballot the highest, for no disk need have both.
    pub(super) fn own_block(&self) -> Option<Block> {
        if !self.most(|disk| disk.own.block().is_some()) {
            return None;
        }
        let mut whole = Block::default();
        for block in self.all.iter().filter_map(|disk| disk.own.block()) {
            whole.mbal = whole.mbal.max(block.mbal);
            if block.bal > whole.bal {
                (whole.bal, whole.value) = (block.bal, block.value.clone());
            }
        }
        Some(whole)
    }

    /// Does the whole register lack something?
    pub(super) fn trouble(&self) -> Option<Trouble> {
        let troubles = |of: fn(&Disk) -> Option<Trouble>| {
            let sound = self.most(|disk| of(disk).is_none());
            (!sound).then(|| self.all.iter().find_map(of)).flatten()
        };
        troubles(Disk::read_trouble).or_else(|| troubles(Disk::trouble))
    }

    // ---- writing ----

    /// Can a majority be written now?
    pub(super) fn are_free(&self) -> bool {
        self.most(|disk| disk.out.is_none() && disk.own.writable().is_some())
    }

    /// Orders the next write of the own block on every disk; without a new value each keeps the one
    /// that it has.
    pub(super) fn order(&mut self, mbal: Ballot, accepted: Option<&(Ballot, Value)>) {
        for disk in &mut self.all {
            (disk.begun, disk.again) = (false, None);
            let accepted = accepted.cloned();
            disk.due = disk.out.is_none().then_some(Due { mbal, accepted });
            disk.order_due();
        }
    }

    /// The value that was written as accepted in this ballot.
    pub(super) fn accepted_in(&self, ballot: Ballot) -> Option<Value> {
        let mut blocks = self.all.iter().filter_map(|disk| disk.own.block());
        let found = blocks.find(|block| block.bal == ballot);
        found.map(|block| block.value.clone())
    }

    /// Takes back what nobody has polled yet.
    pub(super) fn withdraw(&mut self) {
        for disk in &mut self.all {
            (disk.due, disk.ordered, disk.again) = (None, None, None);
            disk.own.withdraw();
        }
    }

    /// The same, unless a write of it has begun already; false then, or if there is none.
    pub(super) fn withdraw_whole(&mut self) -> bool {
        if self.all.iter().any(|disk| disk.begun) {
            return false;
        }
        let none = |disk: &Disk| disk.due.is_none() && disk.own.writable().is_some();
        let any = !self.all.iter().all(none);
        self.withdraw();
        any
    }

    /// Is what this stage of the ballot writes on a majority? Then since when.
    pub(super) fn landed(&self, ballot: Ballot, stage: Stage) -> Option<Instant> {
        let has = |disk: &&Disk| {
            let block = disk.own.block();
            disk.out.is_none()
                && block.is_some_and(|block| match stage {
                    Stage::Promise => block.mbal == ballot,
                    Stage::Accept => block.bal == ballot,
                })
        };
        let on = self.all.iter().filter(has);
        let on_most = on.clone().count() >= self.majority();
        let since = on.map(|disk| disk.own.finished()).max();
        since.filter(|_| on_most)
    }
}

impl Disk {
    fn read_trouble(&self) -> Option<Trouble> {
        self.out.or(self.read_trouble)
    }

    /// Why it is not asked any more.
    pub(super) fn left_out(&self) -> Option<Trouble> {
        self.out
    }

    /// What is wrong with this one.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        let write_trouble = self.write_failed.then_some(Trouble::WriteFailed);
        self.read_trouble().or(write_trouble)
    }

    /// It is not asked any more.
    pub(super) fn leave_out(&mut self, why: Trouble) {
        *self = Disk {
            out: Some(why),
            ..Disk::default()
        };
    }

    /// A read begun at `begun` shows the own block so. Must make sense if it is good.
    pub(super) fn see_own(&mut self, begun: Instant, seen: &BlockSeen) -> Finding {
        let finding = self.own.seen(begun, seen);
        self.write_failed &= finding != Finding::Landed;
        if self.again.is_some_and(|again| begun >= again) {
            self.again = None;
            self.due = self.due.take().or_else(|| self.ordered.take());
        }
        if finding != Finding::Foreign {
            self.order_due();
        }
        finding
    }

    /// What was ordered last is not on the disk: it is ordered again, but not at once.
    pub(super) fn order_again(&mut self, again: Instant) {
        if self.ordered.is_some() && self.own.writable().is_some() {
            self.again = Some(again);
            self.reads.pause = self.reads.pause.max(again);
        }
    }

    /// A read was no good.
    pub(super) fn unreadable(&mut self, trouble: Trouble, again: Instant) {
        self.look = None;
        self.read_trouble = Some(trouble);
        self.reads.pause = again;
    }

    pub(super) fn written(&mut self, at: Instant) {
        if self.own.written(at) {
            self.write_failed = false;
            self.order_due();
        }
    }

    pub(super) fn not_written(&mut self, at: Instant) {
        self.write_failed |= self.own.failed(at);
    }

    /// Orders what is due, if it can be written now. What an earlier life has left on this disk
    /// alone may be of a higher ballot; then the one that this is of comes to nothing.
    fn order_due(&mut self) {
        let Some(block) = self.own.writable() else {
            return;
        };
        let Some(Due { mbal, accepted }) = self.due.take() else {
            return;
        };
        if mbal < block.mbal {
            return;
        }
        self.ordered = Some(Due {
            mbal,
            accepted: accepted.clone(),
        });
        self.own.order(mbal, accepted);
    }

    // ---- what is to be done ----

    pub(super) fn poll(&mut self) -> Option<Order> {
        if let Some(block) = self.own.poll() {
            self.begun = true;
            return Some(Order::Write(block));
        }
        std::mem::take(&mut self.reads.queued).then_some(Order::Read)
    }

    pub(super) fn read_finished(&mut self, begun: Instant) {
        let reads = &mut self.reads;
        if reads.asked.is_some_and(|since| begun >= since) {
            reads.asked = None;
            reads.queued = false;
        }
    }

    /// Was it read since then?
    pub(super) fn is_read_since(&self, since: Instant) -> bool {
        self.look.as_ref().is_some_and(|look| look.begun >= since)
    }

    pub(super) fn is_out(&self) -> bool {
        self.out.is_some()
    }

    /// From when on a read must be begun for the sake of the own block.
    pub(super) fn own_wants_read_since(&self) -> Option<Instant> {
        self.own.wants_read_since().max(self.again)
    }

    /// Asks for a read begun since then; `None` takes back what was not polled yet.
    pub(super) fn ask(&mut self, now: Instant, wanted: Option<Instant>) {
        let reads = &mut self.reads;
        match (wanted, reads.asked) {
            (None, Some(_)) if reads.queued => {
                reads.queued = false;
                reads.asked = None;
            }
            (Some(since), None) if now >= reads.pause => {
                reads.queued = true;
                reads.asked = Some(since);
            }
            (Some(_) | None, Some(_) | None) => {}
        }
    }

    /// When to ask, if a read is wanted.
    pub(super) fn ask_due(&self, wanted: Option<Instant>) -> Option<Instant> {
        let may = self.reads.asked.is_none() && wanted.is_some();
        may.then_some(self.reads.pause)
    }
}
