//! Compare-and-swap by Disk Paxos on one shared disk.

use crate::model::{NodeId, NodeSet};
use crate::time::{Instant, Span};

use super::{Event, News, Order, Refused, Trouble, Value};

/// One node's part of the register.
#[derive(Debug)]
pub struct Register {
    known: Value,
}

impl Register {
    /// A register that knows nothing yet; `seed` is for the jitter of its `backoff`.
    #[must_use]
    pub fn new(_me: NodeId, _nodes: NodeSet, _seed: u64, _backoff: Span) -> Register {
        Register {
            known: Value::default(),
        }
    }

    /// Takes in what has happened.
    pub fn handle(&mut self, _now: Instant, _event: Event<'_>) {}

    /// Asks for `new` in the place of the value with the epoch and nonce `expected`; the answer is
    /// one of `Won`, `Lost`, `GaveUp`.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn propose(
        &mut self,
        _now: Instant,
        _expected: (u64, u64),
        _new: Value,
        _deadline: Instant,
    ) -> Result<(), Refused> {
        Ok(())
    }

    /// What to do next.
    #[must_use]
    pub fn poll_order(&mut self) -> Option<Order> {
        None
    }

    /// What has become known.
    #[must_use]
    pub fn poll_news(&mut self) -> Option<News> {
        None
    }

    /// When to come back with [`Event::Tick`] if nothing else happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        Instant::NEVER
    }

    /// The newest value known to be decided; epoch 0 if none is.
    #[must_use]
    pub fn known(&self) -> &Value {
        &self.known
    }

    /// Has the own block been read since the start?
    #[must_use]
    pub fn is_recovered(&self) -> bool {
        false
    }

    /// What is wrong, if anything.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        None
    }
}
