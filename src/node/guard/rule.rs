//! The guard's rule: when to let go, when to pet the watchdog, when to restart the core.
//!
//! Pure, so that the simulator runs the same code: time is an argument, the page and what is still
//! held are numbers. It is asked again and again and remembers only what it needs to tell an edge
//! from a level.
//!
//! ```text
//!        lease valid          lease end      verified                       lease valid again
//! |------------------------------|--------------|---------------------------------|---->
//!  pet                            release, no pet  pet (nothing left to protect)     pet
//!                                 |-- G --|        release again whatever turns up
//!                                         overdue, if not verified by now
//!                                 |---- stalled core: kill and restart it ----|
//! ```
//! Releasing is a level, not an edge: without a lease *anything* that is held is taken back in
//! every turn, so a process started a moment too late, or left over from an earlier life, lives
//! for one turn only. And a release once begun is carried to its verified end, even if the lease
//! comes back meanwhile: a process that cannot be killed must end in a reset, not in a rejoin.

use crate::config::Timing;
use crate::time::{Instant, Span};

#[cfg(test)]
mod tests;

/// Longest time a core that was just started may need to its first turn: reading the configuration,
/// locking memory, opening disks.
pub const CORE_START_MAX: Span = Span::from_ms(5_000);

/// A core is never called stalled before this, however short `detect` is.
pub const CORE_STALL_MIN: Span = Span::from_ms(500);

/// What the rule looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageReading {
    /// End of the lease; zero is none.
    pub lease_deadline: Instant,
    /// Tasks granted to this node, bit by task index.
    pub granted: u64,
    /// Turns of the engine.
    pub core_turns: u64,
    /// Tasks of which something is held here, as far as the kernel says: an address, or a process
    /// in the cgroup. Needed only when [`Rule::needs_holding`] says so.
    pub holding: u64,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// End of the lease if it is valid now: until then, things granted may be added and renewed.
    pub lease_until: Option<Instant>,
    /// Take back everything of these tasks (bit by task index), whether or not anything is known to
    /// be held.
    pub release: Option<u64>,
    /// Set when the lease was found to have ended with something granted or held, or when something
    /// new turned up after that: all tasks taken back since the lease ended.
    pub revoked: Option<u64>,
    /// May the watchdog be petted until the next turn is overdue?
    pub pet: bool,
    /// The release bound `G` is over and something is still held; a person should know.
    pub overdue: bool,
    /// Kill the core and start another.
    pub restart_core: bool,
    /// Latest moment of the next turn.
    pub next: Instant,
}

/// The rule with its memory.
#[derive(Clone, Debug)]
pub struct Rule {
    timing: Timing,
    /// The deadline last read, and the latest moment it can stand for.
    deadline: (Instant, Instant),
    /// Tasks taken back since the lease ended; empty while it is valid.
    released: u64,
    /// Tasks whose release is not verified.
    pending: u64,
    /// Since when there have been such tasks.
    releasing: Option<Instant>,
    /// The core's turns as last read, when they last changed, and how long they may stand still.
    core_turns: u64,
    core_moved: Instant,
    core_patience: Span,
    last_turn: Instant,
}

impl Rule {
    /// A rule that has seen nothing yet; `now` is when the core is (about to be) started.
    #[must_use]
    pub fn new(timing: Timing, now: Instant) -> Rule {
        Rule {
            timing,
            deadline: (Instant(0), Instant(0)),
            released: 0,
            pending: 0,
            releasing: None,
            core_turns: 0,
            core_moved: now,
            core_patience: CORE_START_MAX,
            last_turn: now,
        }
    }

    /// May this node run tasks at `now`, given the deadline in the page?
    ///
    /// No proof of membership is dated in the future, so no lease ends later than `L` after it was
    /// first seen: a deadline beyond that (a torn page, a bug) counts only up to there.
    pub fn lease_valid(&mut self, now: Instant, lease_deadline: Instant) -> bool {
        if self.deadline.0 != lease_deadline {
            self.deadline = (lease_deadline, lease_deadline.min(now + self.timing.lease));
        }
        now < self.deadline.1
    }

    /// Must [`PageReading::holding`] be right at `now`? While it need not, nobody has to ask the
    /// kernel.
    pub fn needs_holding(&mut self, now: Instant, lease_deadline: Instant) -> bool {
        self.pending != 0 || !self.lease_valid(now, lease_deadline)
    }

    /// One turn. Asked at least as often as [`Decision::next`] says; later is safe for everybody
    /// but this node, which the watchdog then resets.
    pub fn turn(&mut self, now: Instant, page: &PageReading) -> Decision {
        let lease_valid = self.lease_valid(now, page.lease_deadline);
        let (release, revoked) = self.release(now, lease_valid, page);
        let overdue = self
            .releasing
            .is_some_and(|since| now.since(since) >= self.timing.release);
        let restart_core = self.core_stalled(now, page.core_turns) && !lease_valid;
        if restart_core {
            self.core_restarted(now);
        }
        self.last_turn = now;
        Decision {
            lease_until: lease_valid.then_some(self.deadline.1),
            release,
            revoked,
            // Either the right is proved or nothing is left that would need it.
            pet: self.releasing.is_none(),
            overdue,
            restart_core,
            next: self.next(now, lease_valid),
        }
    }

    /// The core was started anew, for whatever reason: it gets its time to begin.
    pub fn core_restarted(&mut self, now: Instant) {
        self.core_moved = now;
        self.core_patience = CORE_START_MAX;
    }

    /// Longest time between two turns while nothing happens: a heartbeat under a lease, whose end
    /// is known and which nobody ends sooner without a word; a quarter of that without one, because
    /// whatever is held then is wrong.
    #[must_use]
    pub fn turn_max(timing: &Timing, lease_valid: bool) -> Span {
        timing.heartbeat.over(if lease_valid { 1 } else { 4 })
    }

    /// Must the guard be told at once that the page has this deadline now, after that one? The
    /// core asks: an eviction ends a lease before the time for which the guard has set its timer.
    #[must_use]
    pub fn must_hear(before: Instant, deadline: Instant) -> bool {
        deadline < before
    }

    fn release(
        &mut self,
        now: Instant,
        lease_valid: bool,
        page: &PageReading,
    ) -> (Option<u64>, Option<u64>) {
        // The page goes on granting what was taken back until the core has taken note.
        let wrongful = if lease_valid {
            0
        } else {
            (page.granted & !self.released) | page.holding
        };
        let outstanding = wrongful | (self.pending & page.holding);
        self.pending = outstanding;
        if lease_valid {
            self.released &= outstanding;
        }
        if outstanding == 0 {
            self.releasing = None;
            return (None, None);
        }
        self.releasing.get_or_insert(now);
        let more = outstanding & !self.released != 0;
        self.released |= outstanding;
        (Some(outstanding), more.then_some(self.released))
    }

    /// Has the core made no turn for too long? A guard that was itself held up judges nobody.
    fn core_stalled(&mut self, now: Instant, core_turns: u64) -> bool {
        if core_turns != self.core_turns {
            self.core_turns = core_turns;
            self.core_moved = now;
            self.core_patience = self.timing.detect.max(CORE_STALL_MIN);
        } else if now.since(self.last_turn) > self.timing.stall {
            self.core_moved = now;
        }
        now.since(self.core_moved) >= self.core_patience
    }

    fn next(&self, now: Instant, lease_valid: bool) -> Instant {
        if self.releasing.is_some() {
            // Short against G, so that the verification does not use it up.
            return now + self.timing.release.over(32);
        }
        let next = now + Rule::turn_max(&self.timing, lease_valid);
        if lease_valid {
            next.min(self.deadline.1)
        } else {
            next
        }
    }
}
