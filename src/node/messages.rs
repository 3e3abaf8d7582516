//! What the node's own processes say to each other, over Unix sockets in the run directory.
//!
//! ```text
//! core   core.sock    SEQPACKET, core listens; one runner at a time; ToRunner / FromRunner
//! guard  guard.sock   SEQPACKET, guard listens; the runner asks: ToGuard, answered by FromGuard
//! runner control.sock stream, runner listens; the command line asks (see `control`)
//! ```
//! Postcard, one message a packet, at most [`MESSAGE_MAX`] bytes. All three processes come from the
//! same binary and are started by the guard, so the format carries no version.

use serde::{Deserialize, Serialize};

use crate::engine::{Command, Order, PowerOutcome, Record, Refusal, Report, Snapshot};
use crate::model::{NodeId, TaskIndex};

/// Largest message in bytes; a snapshot of 64 nodes and 64 tasks stays below it.
pub const MESSAGE_MAX: usize = 64 * 1024;

/// Core to runner.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ToRunner {
    /// Do this to a task.
    Order(Order),
    /// Switch a node off, or let it be; see
    /// [`Action::PowerFence`](crate::engine::Action::PowerFence).
    PowerFence {
        /// Which node.
        node: NodeId,
        /// Epoch of the view that put it out; `None` takes an earlier order back.
        epoch: Option<u64>,
    },
    /// Keep this in the history.
    Record(Record),
    /// Answer to a command.
    Reply {
        /// Number of the command.
        request: u64,
        /// What came of it.
        outcome: Result<String, Refusal>,
    },
    /// Answer to a request for a snapshot.
    Snapshot {
        /// Number of the request.
        request: u64,
        /// The picture.
        snapshot: Box<Snapshot>,
    },
    /// A line of the core's log, which must not write files itself.
    Log {
        /// Severity in `tracing`'s words: error, warn, info, debug.
        level: String,
        /// The line, fields first.
        line: String,
    },
    /// The node has left the cluster: end.
    End,
}

/// Runner to core.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum FromRunner {
    /// About tasks.
    Report(Report),
    /// About a node that is to be switched off.
    PowerFenced {
        /// Which node.
        node: NodeId,
        /// As in the order.
        epoch: u64,
        /// Off, or why not.
        outcome: PowerOutcome,
    },
    /// An operator asks.
    Command {
        /// To be repeated in the reply.
        request: u64,
        /// What is asked.
        command: Command,
    },
    /// An operator wants a picture.
    SnapshotPlease {
        /// To be repeated in the answer.
        request: u64,
    },
}

/// Runner to guard: the guard alone adds and deletes addresses, so that no renewal can cross a
/// release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuard {
    /// Hold this address of a task: add it, announce it, renew it under a valid lease.
    Hold {
        /// Whose.
        task: TaskIndex,
        /// Position among the task's objects.
        object: u8,
        /// Which of the object's addresses.
        address: u8,
    },
    /// Delete it and hold it no more. Not holding it is success.
    Release {
        /// Whose.
        task: TaskIndex,
        /// Position among the task's objects.
        object: u8,
        /// Which of the object's addresses.
        address: u8,
    },
    /// Is it held and present?
    Held {
        /// Whose.
        task: TaskIndex,
        /// Position among the task's objects.
        object: u8,
        /// Which of the object's addresses.
        address: u8,
    },
}

/// Guard to runner, one answer to each request, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGuard {
    /// Done (for `Held`: yes).
    Yes,
    /// For `Held`: no.
    No,
    /// Not done.
    Refused {
        /// Why: no lease, not granted, no such interface, the kernel's word.
        reason: String,
    },
    /// Unasked: something about an address a person or the task's owner should know, such as
    /// another machine using it, or its interface losing carrier. Never an answer.
    Notice {
        /// Whose.
        task: TaskIndex,
        /// Position among the task's objects.
        object: u8,
        /// Is the address of no use now (interface gone or without carrier)?
        useless: bool,
        /// The sentence.
        text: String,
    },
}
