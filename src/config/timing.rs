//! Every time the cluster uses, derived from the one knob: `detect`.
//!
//! ```text
//! 0          S = 4h        r = S + C                    r + L + G = D
//! |- silent -|- race (C) --|------ lease L + release G -|- heir starts
//! ```
//!
//! `h = D/10`, `S = 4h`, `C = 1h`, `L = 4h`, `G = 1h`; the sum is `D` and the constructor holds it.

use serde::{Deserialize, Serialize};

use crate::time::Span;

/// Smallest `detect` that can be written down: below it the kernel's timers and one disk write no
/// longer fit into a heartbeat.
pub const DETECT_MIN: Span = Span::from_ms(20);

/// Largest `detect`: beyond it nobody would call it high availability.
pub const DETECT_MAX: Span = Span::from_ms(60_000);

/// Longest pause before a task that could not be kept running, or could not be stopped, is tried
/// again.
pub const RETRY_MAX: Span = Span::from_ms(60_000);

/// All derived times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// `D`: silence after which a node's tasks may run elsewhere.
    pub detect: Span,
    /// `h`: between two frames of a node.
    pub heartbeat: Span,
    /// `S`: silence after which a node is suspected and a view without it is asked for.
    pub suspect: Span,
    /// `L`: how long a proof of membership carries the right to run tasks.
    pub lease: Span,
    /// `G`: within which a node has released everything after its lease ended.
    pub release: Span,
    /// `C`: allowed for the compare-and-swap before the takeover would come later than `D`.
    pub race: Span,
    /// How long a less fit node lets a fitter one go first in the race; far below `L`.
    pub yield_race: Span,
    /// Own gap between two turns after which a node no longer trusts what it believed before.
    pub stall: Span,
    /// How long a node that wants to join must have been in two-way contact with all members.
    pub stable: Span,
    /// Longest value that `stable` is doubled to by flapping.
    pub stable_max: Span,
    /// Time after which an uneventful membership forgives its earlier flaps.
    pub forgive: Span,
}

impl Timing {
    /// Derives everything. `detect` is clamped to [`DETECT_MIN`]..=[`DETECT_MAX`]; the
    /// configuration refuses what lies outside before it gets here.
    #[must_use]
    pub fn from_detect(detect: Span) -> Timing {
        let detect = detect.clamp(DETECT_MIN, DETECT_MAX);
        let heartbeat = detect.over(10);
        let timing = Timing {
            detect,
            heartbeat,
            suspect: heartbeat.times(4),
            lease: heartbeat.times(4),
            release: heartbeat,
            race: heartbeat,
            yield_race: heartbeat.over(2),
            stall: heartbeat.times(2),
            stable: detect.times(2).max(Span::from_ms(500)),
            stable_max: detect.times(128).max(Span::from_ms(60_000)),
            forgive: Span::from_ms(600_000),
        };
        assert!(
            timing.suspect + timing.race + timing.lease + timing.release <= timing.detect,
            "the inequality of the lease holds by construction"
        );
        // A hand-over rests on it: whoever comes back, or starts alone, has seen the end of all
        // that was still running or still on its way when it was gone.
        let over = timing.suspect + timing.release;
        assert!(
            timing.stable > over && timing.detect > over,
            "nobody is back before its earlier life is over"
        );
        timing
    }

    /// How long an evicted node may still act, seen from the node that knows it is evicted.
    #[must_use]
    pub fn out_after(&self) -> Span {
        (self.lease + self.release).on_worst_clock()
    }

    /// Within which a cluster in which nothing is wrong any more has given every task to a node
    /// that starts it, but for pauses after failures. At the worst every node is out: each hears
    /// nobody for `detect` and may need as long again for a decision that was lost to another;
    /// tasks wait for their preferred node as long as it needs to join and is decided on twice;
    /// then earlier owners have their time, `detect` at most.
    #[must_use]
    pub fn recovery(&self) -> Span {
        self.stable + self.detect.times(6)
    }

    /// Within which one write and one read of a disk must be done, at their 99th percentile: half a
    /// heartbeat, so that a frame through the disk is never late by a whole one.
    #[must_use]
    pub fn disk_budget(&self) -> Span {
        self.heartbeat.over(2)
    }

    /// Lifetime that addresses are given in the kernel, which counts whole seconds: the first one
    /// that is not below lease and release together. Renewed with every heartbeat under a lease.
    #[must_use]
    pub fn address_lifetime(&self) -> Span {
        let second = Span::from_ms(1_000);
        second.times((self.lease + self.release).0.div_ceil(second.0))
    }

    /// How long `stable` lasts for a node that was evicted `times` times lately.
    #[must_use]
    pub fn stable_after(&self, times: u32) -> Span {
        let doubled = self.stable.times(1 << times.saturating_sub(1).min(16));
        doubled.min(self.stable_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_times_fit_into_detect() {
        for ms in [20, 30, 100, 500, 7_777, 60_000] {
            let timing = Timing::from_detect(Span::from_ms(ms));
            assert!(timing.suspect + timing.race + timing.lease + timing.release <= timing.detect);
            assert!(timing.yield_race.times(4) <= timing.lease);
        }
    }

    #[test]
    fn flapping_doubles_up_to_a_bound() {
        let timing = Timing::from_detect(Span::from_ms(500));
        assert_eq!(timing.stable_after(0), timing.stable);
        assert_eq!(timing.stable_after(1), timing.stable);
        assert_eq!(timing.stable_after(2), timing.stable.times(2));
        assert_eq!(timing.stable_after(60), timing.stable_max);
    }
}
