//! A node's own clock: its own zero and a rate within 0.1 % of the true one.

use standfast::time::Instant;

use crate::rng::Rng;

/// True time is whole nanoseconds since the run began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// True time at which it showed `offset`.
    base: u64,
    offset: u64,
    /// Parts per million it runs fast.
    ppm: i64,
}

impl Clock {
    pub(crate) fn new(rng: &mut Rng, base: u64) -> Clock {
        let ppm = match rng.below(4) {
            0 => 1_000,
            1 => -1_000,
            _ => rng.between(0, 2_000) as i64 - 1_000,
        };
        Clock {
            base,
            offset: 1_000_000_000 + rng.below(1 << 40),
            ppm,
        }
    }

    /// The same with another zero.
    pub(crate) fn shifted(mut self, by: u64) -> Clock {
        self.offset += by;
        self
    }

    /// From `now` on it runs this much fast.
    pub(crate) fn run(&mut self, now: u64, ppm: i64) {
        (self.offset, self.base, self.ppm) = (self.at(now).0, now, ppm);
    }

    /// It has stood still for `span` until now.
    pub(crate) fn stood_still(&mut self, span: u64) {
        self.base += span;
    }

    /// What it shows at a true moment that is not before its start.
    pub(crate) fn at(&self, now: u64) -> Instant {
        let passed = now.saturating_sub(self.base);
        assert!(passed < 1 << 52, "a run lasts less than fifty days");
        let gained = (passed as i64 * self.ppm).div_euclid(1_000_000);
        Instant(self.offset + passed.wrapping_add_signed(gained))
    }

    /// The first true moment at which it shows at least `local`.
    pub(crate) fn when(&self, local: Instant) -> u64 {
        let passed = local.0.saturating_sub(self.offset);
        let rate = 1_000_000u64.wrapping_add_signed(self.ppm);
        let span = if passed < u64::MAX / 2_000_000 {
            (passed * 1_000_000).div_ceil(rate)
        } else {
            let exact = (u128::from(passed) * 1_000_000).div_ceil(u128::from(rate));
            exact.min(1 << 62) as u64
        };
        self.base.saturating_add(span)
    }
}
