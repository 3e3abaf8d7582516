//! Time as every layer sees it: an instant and a span, both whole nanoseconds.
//!
//! An [`Instant`] is a reading of one node's `CLOCK_BOOTTIME`; it means nothing on another node and
//! is never compared with a wall clock. Pure code gets it as an argument and never reads a clock.
//! `CLOCK_BOOTTIME` counts suspended time too, so a lease does not survive a suspend unnoticed.

use std::ops::{Add, AddAssign, Sub};

use serde::{Deserialize, Serialize};

/// A moment on this node's boot-time clock, in nanoseconds since boot.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Instant(pub u64);

/// A length of time in nanoseconds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Span(pub u64);

impl Instant {
    /// Later than anything that happens.
    pub const NEVER: Instant = Instant(u64::MAX);

    /// Time since `earlier`; zero if `earlier` is not in the past.
    #[must_use]
    pub fn since(self, earlier: Instant) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(0);

    /// `ms` milliseconds.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Span {
        Span(ms * 1_000_000)
    }

    /// `us` microseconds.
    #[must_use]
    pub const fn from_us(us: u64) -> Span {
        Span(us * 1_000)
    }

    /// Whole milliseconds, rounded down.
    #[must_use]
    pub const fn as_ms(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Milliseconds with their fraction, for people.
    #[must_use]
    pub fn as_ms_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// This span `n` times.
    #[must_use]
    pub const fn times(self, n: u64) -> Span {
        Span(self.0.saturating_mul(n))
    }

    /// This span divided by `n`.
    #[must_use]
    pub const fn over(self, n: u64) -> Span {
        Span(self.0 / n)
    }

    /// The same number of ticks on a clock that may run slow by 0.1 % while the other one runs fast
    /// by 0.1 %: what to wait on this clock to be sure that `self` has passed on the other.
    /// 1.001 / 0.999 < 1 + 1/499.
    #[must_use]
    pub const fn on_worst_clock(self) -> Span {
        Span(self.0 + self.0 / 499 + 1)
    }

    /// For calls of the standard library.
    #[must_use]
    pub const fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_nanos(self.0)
    }
}

impl Add<Span> for Instant {
    type Output = Instant;
    fn add(self, span: Span) -> Instant {
        Instant(self.0.saturating_add(span.0))
    }
}

impl AddAssign<Span> for Instant {
    fn add_assign(&mut self, span: Span) {
        *self = *self + span;
    }
}

impl Sub<Span> for Instant {
    type Output = Instant;
    fn sub(self, span: Span) -> Instant {
        Instant(self.0.saturating_sub(span.0))
    }
}

impl Add for Span {
    type Output = Span;
    fn add(self, other: Span) -> Span {
        Span(self.0.saturating_add(other.0))
    }
}

impl Sub for Span {
    type Output = Span;
    fn sub(self, other: Span) -> Span {
        Span(self.0.saturating_sub(other.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_saturate_instead_of_wrapping() {
        assert_eq!(Instant(5).since(Instant(9)), Span::ZERO);
        assert_eq!(Instant(5) - Span(9), Instant(0));
        assert_eq!(Instant::NEVER + Span::from_ms(1), Instant::NEVER);
    }

    #[test]
    fn worst_clock_covers_both_rates() {
        for ms in [1, 3, 450, 5_000, 600_000] {
            let span = Span::from_ms(ms);
            let (slow, fast) = (0.999, 1.001);
            let real_here = span.on_worst_clock().0 as f64 / fast;
            let real_there = span.0 as f64 / slow;
            assert!(real_here >= real_there, "{ms} ms");
        }
    }
}
