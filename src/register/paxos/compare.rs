//! A ballot on the record: one COMPARE AND WRITE is the disk's promise and its acceptance.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::super::shared::{Attempt, Shared, Sight};
use super::{Newer, Phase, Register, TRIES_MAX};
use crate::register::{Ballot, Change, Compared, Record, RecordSeen, Trouble, Value};
use crate::time::Instant;

impl Register {
    // ---- what a read shows ----

    pub(super) fn record_read(
        &mut self,
        now: Instant,
        (begun, ended): (Instant, Instant),
        seen: &RecordSeen,
    ) {
        let Some((record, value)) = self.legible(now, seen) else {
            return;
        };
        let first = self.shared.is_none();
        let shared = self.shared.get_or_insert_default();
        let doubted = shared.in_doubt();
        match shared.sight((begun, ended), record, &value) {
            Sight::Old => return,
            Sight::WentBack => return self.halt(Trouble::WentBack),
            Sight::Same | Sight::Newer => {}
        }
        let doubt_is_over = doubted && !shared.in_doubt();
        let mine = shared.attempt.take_if(|_| doubt_is_over);
        if let (Some(attempt), Some(proposal)) = (&mine, &mut self.proposal)
            && attempt.was_refused(&record)
            && attempt.proposed
            && proposal.new == *attempt.value
        {
            // The proposal is as little in force as before.
            proposal.tried = attempt.tried;
        }
        shared.value_lost = matches!(seen, RecordSeen::ValueLost(_));
        if first {
            self.acceptor.set_past_open(true);
            shared.close_later(now);
        }
        self.recover();
        if self.halted.is_some() {
            return;
        }
        self.note_open();
        self.take_in_image(now, begun, ended);
        if doubt_is_over && self.halted.is_none() {
            self.doubt_is_over(now, mine.as_ref());
        }
        self.prove_by_image(begun);
    }

    /// What an earlier life of this node had accepted is in its file or, where that has promised no
    /// more, on the disk: whatever the image shows by now is that or newer.
    pub(super) fn recover_by_image(&mut self) {
        if let Some(image) = self.shared.as_ref().and_then(Shared::image)
            && self.acceptor.is_recovered()
        {
            self.acceptor.see(image.record.bal, &image.value);
        }
    }

    /// The record and its value, if that is what stands there or is known from elsewhere.
    fn legible(&mut self, now: Instant, seen: &RecordSeen) -> Option<(Record, Value)> {
        let found = match seen {
            RecordSeen::Blank => Ok((Record::default(), Value::default())),
            RecordSeen::Good(record, value) if record.makes_sense() && record.names(value) => {
                Ok((*record, value.clone()))
            }
            RecordSeen::ValueLost(record) if record.makes_sense() => self
                .remembered(record)
                .map(|value| (*record, value))
                .ok_or(Trouble::ValueLost),
            RecordSeen::Good(..) | RecordSeen::ValueLost(_) | RecordSeen::Damaged => {
                Err(Trouble::RecordDamaged)
            }
        };
        let again = now + self.backoff;
        let disk = self.disks.first();
        disk.read_trouble = None;
        if let Err(trouble) = found {
            disk.unreadable(trouble, again);
        }
        found.ok()
    }

    /// The value that the record names, if this node knows it.
    fn remembered(&self, record: &Record) -> Option<Value> {
        let shared = self.shared.as_ref();
        let image = shared.and_then(|shared| shared.image());
        let attempt = shared.and_then(|shared| shared.attempt.as_ref());
        let voice = self.acceptor.state();
        let known = [
            Some(&self.known),
            Some(&voice.value),
            image.map(|image| &*image.value),
            attempt.map(|attempt| &*attempt.value),
        ];
        let mut known = known.into_iter().flatten();
        known.find(|value| record.names(value)).cloned()
    }

    /// The image is known again after a change that was refused or unclear. What this node has
    /// ordered is done by now, or done never, or may be done yet; then it is closed first.
    fn doubt_is_over(&mut self, now: Instant, mine: Option<&Attempt>) {
        let delay = self.jittered(self.backoff.times(2));
        let Some(shared) = &mut self.shared else {
            return;
        };
        shared.close_later(now + delay);
        let current = shared
            .image()
            .map_or(Record::default(), |image| image.record);
        let Phase::Comparing(ballot) = self.phase else {
            return;
        };
        if current.bal == ballot {
            self.settled(now, ballot);
        } else if mine.is_some_and(|attempt| attempt.expected != current) {
            self.try_again(now);
        } else {
            self.retry(now);
        }
    }

    /// The image was on the disk at some moment after `begun`, and at `at` that was known. What the
    /// disk has accepted this node accepts as well, unless it has promised more; then both have,
    /// and it is decided.
    fn take_in_image(&mut self, now: Instant, begun: Instant, at: Instant) {
        let image = self.shared.as_ref().and_then(Shared::image).cloned();
        let Some(image) = image.filter(|_| self.acceptor.is_recovered()) else {
            return;
        };
        self.release();
        let accepted = self.acceptor.see(image.record.bal, &image.value);
        let own = self.acceptor.state();
        self.highest = self.highest.max(image.record.bal).max(own.mbal);
        let on_disk = image.record.bal >= own.bal;
        let newest = if on_disk { &*image.value } else { &own.value };
        if newest.epoch <= self.known.epoch {
            self.newer = None;
            let same = *newest == self.known;
            if !same && begun >= self.known_at {
                return self.halt(Trouble::WentBack);
            }
        } else if accepted {
            self.learn(newest, at);
        } else {
            self.note_newer(now, at, image.record.bal.max(own.bal), on_disk);
        }
        let lost = self.shared.as_ref().is_some_and(|shared| shared.value_lost);
        if on_disk && !lost {
            self.behind = None;
        } else if self.behind.is_none() {
            self.behind = Some(now + self.settle_delay());
        }
    }

    /// A newer value, but this node cannot say whether it is decided.
    fn note_newer(&mut self, now: Instant, seen: Instant, bal: Ballot, on_disk: bool) {
        let mbal = self.acceptor.promised();
        let before = self
            .newer
            .filter(|newer| newer.bal == bal && newer.mbal == mbal);
        let due = match before {
            Some(newer) => newer.due,
            None => now + self.settle_delay(),
        };
        self.newer = Some(Newer {
            bal,
            seen,
            mbal,
            on_disk,
            due,
        });
    }

    /// Nothing newer than what is known is on the disk, nor in this node.
    fn prove_by_image(&mut self, begun: Instant) {
        let Some(image) = self.shared.as_ref().and_then(Shared::image) else {
            return;
        };
        let own = self.acceptor.state();
        let on_disk = image.record.bal >= own.bal;
        let newest = if on_disk { &*image.value } else { &own.value };
        if *newest == self.known && self.halted.is_none() && self.acceptor.is_recovered() {
            self.outbox.proof = self.outbox.proof.max(Some(begun));
        }
    }

    // ---- a ballot ----

    /// Ballot of the image that is known.
    pub(super) fn image_bal(&self) -> Ballot {
        let image = self.shared.as_ref().and_then(Shared::image);
        image.map_or(Ballot::NONE, |image| image.record.bal)
    }

    /// Begins a ballot on the image that is known.
    pub(super) fn begin_change(&mut self, ballot: Ballot) {
        let shared = self.shared.as_ref().expect("there is a record");
        let image = shared.image().expect("it was read").clone();
        let own = self.acceptor.state();
        let on_disk = image.record.bal >= own.bal;
        let newest = if on_disk {
            image.value.clone()
        } else {
            Arc::new(own.value.clone())
        };
        let fits = |proposal: &&super::Proposal| proposal.expected == newest.id();
        let proposal = self.proposal.as_ref().filter(fits);
        let attempt = Attempt {
            ballot,
            expected: image.record,
            value: proposal.map_or(newest.clone(), |proposal| Arc::new(proposal.new.clone())),
            proposed: proposal.is_some(),
            tried: proposal.is_some_and(|proposal| proposal.tried),
        };
        // If it comes to nothing the next read sees what is missing, and waits again.
        self.behind = None;
        self.acceptor.hold(ballot);
        let me = self.me;
        let shared = self.shared.as_mut().expect("there is a record");
        let at_once = shared.begin(me, attempt);
        self.phase = Phase::Storing(ballot);
        if at_once {
            self.comparing(ballot);
        }
    }

    /// The change itself is ordered.
    fn comparing(&mut self, ballot: Ballot) {
        self.phase = Phase::Comparing(ballot);
        let attempt = self
            .shared
            .as_ref()
            .and_then(|shared| shared.attempt.as_ref());
        if let Some(proposal) = &mut self.proposal {
            proposal.tried |= attempt.is_some_and(|attempt| attempt.proposed);
        }
    }

    /// The store under way has ended.
    pub(super) fn stored(&mut self, now: Instant, whole: bool) {
        let me = self.me;
        let Some(shared) = &mut self.shared else {
            return;
        };
        if !shared.store_ended(me, whole) {
            return;
        }
        self.disks.first().write_failed = !whole;
        let Phase::Storing(ballot) = self.phase else {
            return;
        };
        if !whole {
            shared.attempt = None;
            return self.retry(now);
        }
        let wanted = shared.attempt.as_ref().is_some_and(|attempt| {
            let proposal = self.proposal.as_ref();
            !attempt.proposed || proposal.is_some_and(|proposal| proposal.new == *attempt.value)
        });
        if wanted && self.acceptor.promised() <= ballot && shared.go_on() {
            self.comparing(ballot);
        } else {
            shared.attempt = None;
            self.try_again(now);
        }
    }

    /// The change under way has ended.
    pub(super) fn compared(&mut self, now: Instant, at: Instant, outcome: Compared) {
        let Some(shared) = &mut self.shared else {
            return;
        };
        let Some(change) = shared.compared(at, outcome) else {
            return;
        };
        self.disks.first().write_failed = outcome == Compared::Unclear;
        self.note_open();
        match outcome {
            Compared::Done => self.done(now, at, &change),
            // A read tells.
            Compared::Miscompare | Compared::Unclear => {}
        }
    }

    fn done(&mut self, now: Instant, at: Instant, change: &Change) {
        if let Some(shared) = &mut self.shared {
            shared
                .attempt
                .take_if(|attempt| attempt.ballot == change.new.bal);
        }
        if self.halted.is_some() {
            return;
        }
        // It may have been done long before, and others may have built upon it since.
        self.take_in_image(now, Instant(0), at);
        if let Phase::Comparing(ballot) = self.phase
            && ballot == change.new.bal
        {
            self.settled(now, ballot);
        }
    }

    /// The disk has accepted in the own ballot; if this node has, too, it is decided.
    fn settled(&mut self, now: Instant, ballot: Ballot) {
        if let Some(shared) = &mut self.shared {
            shared.attempt = None;
        }
        let own = self.acceptor.state();
        if own.bal == ballot {
            self.decided(now, self.known_at, own.value.clone());
        } else {
            self.retry(now);
        }
    }

    /// Somebody else was faster: at once again, for that one has got on.
    fn try_again(&mut self, now: Instant) {
        self.phase = Phase::Idle;
        let Some(proposal) = &mut self.proposal else {
            return;
        };
        proposal.tries += 1;
        if proposal.tries == TRIES_MAX {
            self.give_up();
            return;
        }
        self.phase = Phase::Waiting(now);
    }

    // ---- what may land yet ----

    /// Gives up the attempt, for it takes too long. What was ordered may land at any time.
    pub(super) fn drop_attempt(&mut self) {
        if let Some(shared) = &mut self.shared {
            shared.withdraw();
            shared.attempt = None;
        }
        self.release();
    }

    /// Takes back what was not ordered yet.
    pub(super) fn withdraw_change(&mut self) -> bool {
        let withdrawn = self.shared.as_mut().is_some_and(Shared::withdraw);
        self.release();
        withdrawn
    }

    /// The own ballot holds nobody back any more once it is known what has become of its change:
    /// not done and never will be, or done, and then the image is of this ballot or a higher one,
    /// which is accepted unless more was promised.
    fn release(&mut self) {
        let Some(shared) = &self.shared else {
            return;
        };
        if shared.attempt.is_none() && shared.is_settled() {
            self.acceptor.release();
        }
    }

    /// Until it is known what has become of all changes of earlier lives, this node has no voice:
    /// one of them may have been done, of a ballot that it had held.
    fn note_open(&mut self) {
        let Some(shared) = &self.shared else {
            return;
        };
        if shared.is_settled() {
            self.acceptor.set_past_open(false);
        }
    }

    /// When something open is to be closed.
    pub(super) fn close_due(&self) -> Option<Instant> {
        let shared = self.shared.as_ref()?;
        let may = self.media.disk && self.halted.is_none();
        shared.close_due().filter(|_| may)
    }

    /// Gives the image another number, so that what may land cannot.
    pub(super) fn close_open_change(&mut self, now: Instant) {
        if self.close_due().is_some_and(|due| now >= due)
            && let Some(shared) = &mut self.shared
        {
            shared.close();
        }
    }
}
