//! How long to leave a failed thing alone: twice as long each time, up to a bound.

use crate::time::{Instant, Span};

/// A growing pause. Forgiven by [`Backoff::forgive`] when the thing has worked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    first: Span,
    longest: Span,
    next: Span,
}

impl Backoff {
    /// Pauses from `first` to `longest`.
    pub(super) const fn new(first: Span, longest: Span) -> Backoff {
        Backoff {
            first,
            longest,
            next: first,
        }
    }

    /// The pause for a failure at `now` ends at the moment returned; the next one is twice as long.
    pub(super) fn fail(&mut self, now: Instant) -> Instant {
        let pause = self.next;
        self.next = self.next.times(2).min(self.longest);
        now + pause
    }

    /// It works: the next failure is the first again.
    pub(super) fn forgive(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_bound_and_start_over_when_forgiven() {
        let mut backoff = Backoff::new(Span(100), Span(500));
        let ends: Vec<u64> = (0..5).map(|_| backoff.fail(Instant(0)).0).collect();
        assert_eq!(ends, [100, 200, 400, 500, 500]);
        backoff.forgive();
        assert_eq!(backoff.fail(Instant(7)), Instant(107));
    }
}
