//! When to tell the network where an address lives.
//!
//! Announcements get lost, and some receivers ignore a change within a second of the last one, so
//! they are repeated: at once and after 0.1, 0.5, 1, 2, 4, 8, 16, 32 s, then every 60 s while the
//! address is held, which also mends what a rival has left behind.

use crate::time::{Instant, Span};

/// Since the beginning.
const ROUNDS_MS: [u64; 8] = [100, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000];

/// After the last of the rounds.
const REFRESH: Span = Span::from_ms(60_000);

/// A rival is answered at most this often.
const DEFEND_MIN: Span = Span::from_ms(1_000);

/// The announcements of one address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    began: Instant,
    round: usize,
    due: Instant,
    last: Option<Instant>,
}

impl Schedule {
    /// A schedule whose first announcement is due at once.
    pub(super) fn begin(now: Instant) -> Schedule {
        Schedule {
            began: now,
            round: 0,
            due: now,
            last: None,
        }
    }

    /// When the next announcement is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// One was sent. Rounds that were missed meanwhile are not made up for.
    pub(super) fn sent(&mut self, now: Instant) {
        self.last = Some(now);
        let rounds = ROUNDS_MS[self.round..]
            .iter()
            .map(|ms| self.began + Span::from_ms(*ms));
        let missed = rounds.take_while(|due| *due <= now).count();
        self.round += missed;
        self.due = match ROUNDS_MS.get(self.round) {
            Some(ms) => self.began + Span::from_ms(*ms),
            None => now + REFRESH,
        };
    }

    /// Somebody else claims the address: the next announcement is due at once, or a second after
    /// the last one, so that two nodes that both defend an address do not flood the network.
    pub(super) fn defend(&mut self, now: Instant) {
        let due = self.last.map_or(now, |last| now.max(last + DEFEND_MIN));
        self.due = self.due.min(due);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant(7_000_000_000) + Span::from_ms(ms)
    }

    #[test]
    fn announced_often_at_first_and_every_minute_for_ever() {
        let mut schedule = Schedule::begin(at(0));
        let mut dues = Vec::new();
        for _ in 0..12 {
            dues.push(schedule.due().since(at(0)).as_ms());
            schedule.sent(schedule.due());
        }
        let first = [0, 100, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000];
        assert_eq!(dues[..9], first);
        assert_eq!(dues[9..], [92_000, 152_000, 212_000]);
    }

    #[test]
    fn late_rounds_are_not_sent_in_a_burst() {
        let mut schedule = Schedule::begin(at(0));
        schedule.sent(at(0));
        schedule.sent(at(3_000));
        assert_eq!(schedule.due(), at(4_000));
    }

    #[test]
    fn a_rival_is_answered_at_once_but_only_once_a_second() {
        let mut schedule = Schedule::begin(at(0));
        schedule.sent(at(40_000));
        for ms in [45_000, 45_001, 45_500] {
            schedule.defend(at(ms));
        }
        assert_eq!(schedule.due(), at(45_000));
        schedule.sent(at(45_500));
        for ms in 45_501..46_400 {
            schedule.defend(at(ms));
        }
        assert_eq!(schedule.due(), at(46_500));
    }
}
