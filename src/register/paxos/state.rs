//! What a [`Register`](super::Register) remembers while it works.

use serde::{Deserialize, Serialize};

use crate::register::{Ballot, News, Value};
use crate::time::Instant;

/// Where the ballot stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Phase {
    Idle,
    /// To begin a ballot at this moment, or later when the own block is free.
    Waiting(Instant),
    /// The own block is being written for this stage.
    Writing(Ballot, Stage),
    /// It was written at this moment; a read begun since then decides.
    Reading(Ballot, Stage, Instant),
    /// The value is being stored in the own block, for the record to name it.
    Storing(Ballot),
    /// The record is being changed, or it is not clear whether it was.
    Comparing(Ballot),
    /// All nodes are asked over the network; `round` has their answers.
    Asking(Ballot, Stage),
}

/// Which quorum can be had.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Media {
    pub(super) disk: bool,
    pub(super) network: bool,
}

/// Paxos' phase 1 and phase 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::register) enum Stage {
    Promise,
    Accept,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Proposal {
    pub(super) expected: (u64, u64),
    pub(super) new: Value,
    pub(super) deadline: Instant,
    /// Ballots that came to nothing.
    pub(super) tries: u32,
    /// `new` was, or may have been, written as accepted.
    pub(super) tried: bool,
}

/// An accepted value that is not known to be decided.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Newer {
    pub(super) bal: Ballot,
    /// End of the first read that showed it.
    pub(super) seen: Instant,
    /// Highest ballot beside it; while that is higher, plain reads do not show it as decided.
    pub(super) mbal: Ballot,
    /// It stands on the disk; what stands in this node alone no read shows as decided.
    pub(super) on_disk: bool,
    /// When to settle it, if nothing moves until then.
    pub(super) due: Instant,
}

/// Another node knows a decided value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Elsewhere {
    pub(super) epoch: u64,
    /// When it was first heard that there is one of this epoch.
    pub(super) since: Instant,
}

/// News not polled yet. One of each: newer ones take the place of older ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Outbox {
    pub(super) learned: Option<Value>,
    pub(super) outcome: Option<News>,
    pub(super) proof: Option<Instant>,
}
