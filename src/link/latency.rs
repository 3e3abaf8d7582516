//! How long a disk takes: a small histogram that forgets slowly.
//!
//! Buckets are a quarter of a power of two wide, so a percentile is at most 25 % too high and never
//! too low. When [`SAMPLES_MAX`] samples are in, all buckets are halved: what happened a few
//! thousand samples ago no longer counts. One thread writes; readers may see a sample in one bucket
//! and not yet in the sum, which no percentile notices.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use serde::Serialize;

use crate::time::Span;

/// Samples after which the past loses half of its weight.
const SAMPLES_MAX: u32 = 2048;

/// Buckets: 4 for each power of two from 2^10 ns up; the last one takes all beyond 2^33 ns, 8 s.
const BUCKETS: usize = 4 * 24;

/// Below this power of two, about a microsecond, all is one bucket.
const LOWEST_POWER: u32 = 10;

/// A histogram of durations.
#[derive(Debug)]
pub struct Latency {
    buckets: [AtomicU32; BUCKETS],
    last: AtomicU64,
    worst: AtomicU64,
    samples: AtomicU64,
}

/// A [`Latency`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LatencySeen {
    /// Samples since the start.
    pub samples: u64,
    /// The last one.
    pub last: Span,
    /// Half of the last few thousand were no longer than this.
    pub median: Span,
    /// 99 % of the last few thousand were no longer than this.
    pub p99: Span,
    /// The longest since the start.
    pub worst: Span,
}

impl Default for Latency {
    fn default() -> Latency {
        Latency {
            buckets: [const { AtomicU32::new(0) }; BUCKETS],
            last: AtomicU64::new(0),
            worst: AtomicU64::new(0),
            samples: AtomicU64::new(0),
        }
    }
}

impl Latency {
    /// Adds a sample. For one thread only.
    pub(super) fn add(&self, took: Span) {
        self.last.store(took.0, Ordering::Relaxed);
        self.worst.fetch_max(took.0, Ordering::Relaxed);
        self.samples.fetch_add(1, Ordering::Relaxed);
        self.buckets[bucket_of(took)].fetch_add(1, Ordering::Relaxed);
        let total: u32 = self
            .buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .sum();
        if total >= SAMPLES_MAX {
            for bucket in &self.buckets {
                bucket.store(bucket.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
            }
        }
    }

    /// What it says now. Everything is zero before the first sample.
    #[must_use]
    pub fn seen(&self) -> LatencySeen {
        let counts = self
            .buckets
            .each_ref()
            .map(|bucket| bucket.load(Ordering::Relaxed));
        let worst = Span(self.worst.load(Ordering::Relaxed));
        LatencySeen {
            samples: self.samples.load(Ordering::Relaxed),
            last: Span(self.last.load(Ordering::Relaxed)),
            median: percentile(&counts, 50).min(worst),
            p99: percentile(&counts, 99).min(worst),
            worst,
        }
    }
}

/// The upper end of the bucket that the percentile falls into.
fn percentile(counts: &[u32; BUCKETS], percent: u64) -> Span {
    let total: u64 = counts.iter().map(|count| u64::from(*count)).sum();
    let wanted = (total * percent).div_ceil(100);
    let mut sum = 0;
    for (bucket, count) in counts.iter().enumerate() {
        sum += u64::from(*count);
        if sum >= wanted && sum > 0 {
            return upper_end(bucket);
        }
    }
    Span::ZERO
}

fn bucket_of(span: Span) -> usize {
    let power = span.0.max(1).ilog2();
    if power < LOWEST_POWER {
        return 0;
    }
    let quarter = (span.0 >> (power - 2)) & 3;
    (4 * (power - LOWEST_POWER) as usize + quarter as usize).min(BUCKETS - 1)
}

/// The largest span of a bucket; the last bucket has none.
fn upper_end(bucket: usize) -> Span {
    if bucket == BUCKETS - 1 {
        return Span(u64::MAX);
    }
    let (power, quarter) = (LOWEST_POWER as usize + bucket / 4, bucket as u64 % 4);
    Span(((5 + quarter) << (power - 2)) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_span_lies_within_a_quarter_below_its_buckets_end() {
        for span in [1024, 1279, 1280, 5_000, 123_456, 1 << 20, 7_999_999_999] {
            let end = upper_end(bucket_of(Span(span))).0;
            assert!(span <= end && end < span + span / 4 + 1, "{span} {end}");
        }
        assert_eq!(bucket_of(Span::ZERO), 0);
        assert_eq!(bucket_of(Span(u64::MAX)), BUCKETS - 1);
    }

    #[test]
    fn percentiles_follow_the_samples_and_forget() {
        let latency = Latency::default();
        assert_eq!(latency.seen(), LatencySeen::default());
        (0..98).for_each(|_| latency.add(Span::from_us(100)));
        latency.add(Span::from_ms(5));
        latency.add(Span::from_ms(5));
        let seen = latency.seen();
        assert!(seen.median >= Span::from_us(100) && seen.median < Span::from_us(126));
        assert_eq!((seen.p99, seen.worst), (Span::from_ms(5), Span::from_ms(5)));
        assert_eq!((seen.samples, seen.last), (100, Span::from_ms(5)));
        (0..10_000).for_each(|_| latency.add(Span::from_us(100)));
        let seen = latency.seen();
        assert!(seen.p99 < Span::from_us(126));
        assert_eq!(seen.worst, Span::from_ms(5));
    }
}
