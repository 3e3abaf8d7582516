//! The lease: until when this node may run its tasks, and on what proof.
//!
//! A proof is dated by the moment before it was asked for. Two kinds: every other listed node has
//! confirmed a frame of ours (dated by its sending) under the same view, or a read of the register
//! (dated by its beginning) showed no newer value. A node that is alone in the view has nobody who
//! could confirm: for it only the register counts, since whoever may come must write there first.

use serde::{Deserialize, Serialize};

use crate::time::{Instant, Span};

/// The right to run tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Lease {
    until: Instant,
    /// Date of the newest proof by frames.
    pub(super) by_frames: Option<Instant>,
    /// Date of the newest proof by the register.
    pub(super) by_register: Option<Instant>,
}

impl Lease {
    /// What an earlier core of the same life had; its end does not move by that.
    pub(super) fn resumed(until: Instant) -> Lease {
        Lease {
            until,
            by_frames: None,
            by_register: None,
        }
    }

    pub(super) fn until(self) -> Instant {
        self.until
    }

    pub(super) fn valid(self, now: Instant) -> bool {
        now < self.until
    }

    /// A proof of this date has come in. Dates may come out of order; the end never moves back.
    pub(super) fn prove(&mut self, date: Instant, length: Span) {
        self.until = self.until.max(date + length);
    }

    /// The node is known not to be a member: nothing it holds is good any more.
    pub(super) fn end(&mut self) {
        *self = Lease::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_proof_does_not_shorten_the_lease() {
        let mut lease = Lease::default();
        lease.prove(Instant(1000), Span(500));
        lease.prove(Instant(400), Span(500));
        assert!(lease.valid(Instant(1499)) && !lease.valid(Instant(1500)));
        lease.end();
        assert!(!lease.valid(Instant(0)));
    }
}
