//! The frame: the fixed 512 bytes that every link carries, and the tags that prove who wrote them.
//!
//! A frame says who its sender is, which life of it, what it has heard of whom and how its tasks
//! stand; [`layout`] has the table. Pure: bytes in, a [`Frame`] or a reason to drop them out, no
//! allocation on either way. Called by the link threads for each frame they see. What is refused
//! here is a peer's or a stranger's doing: it is counted by [`FrameError::kind`], never logged.
//!
//! A frame that decodes is authentic, not fresh: a replayed one decodes as well. The engine judges
//! freshness by incarnation, sequence and echo.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod codec;
mod head;
pub mod layout;
pub mod tag;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use codec::relink;
pub use head::HeadError;
pub(crate) use head::{Head, Kind};
pub use layout::FRAME_LEN;
pub use tag::Keyring;

use crate::model::{ClusterId, ConfigHash, Incarnation, NODES_MAX, NodeId, TASKS_MAX, TaskState};

/// What one node tells all others at every heartbeat. [`layout`] is what goes over the wire; serde
/// is for records of what came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Who says all this.
    pub sender: NodeId,
    /// The sender's number of the link this copy went out on: tells cross-wired cables.
    pub link: u8,
    /// The sender's life.
    pub incarnation: Incarnation,
    /// Yes-or-no facts about the sender.
    pub flags: Flags,
    /// How fit the sender is to run tasks, higher is fitter; decides who goes first in a race.
    pub fitness: u8,
    /// Number of this frame, rising from a random one in each incarnation, so that an echo of one
    /// life is none of another. Copies on several links share it.
    pub sequence: u64,
    /// Epoch of the newest view the sender knows.
    pub epoch: u64,
    /// Hash of the configuration the sender runs with.
    pub config_hash: ConfigHash,
    /// Revision of that configuration.
    pub config_revision: u32,
    /// By [`NodeId::index`]: low half of the sequence of the last fresh frame heard from that node,
    /// 0 where there is none. A sender skips the sequences whose low half is 0.
    #[serde(with = "crate::model::trimmed_array")]
    pub heard: [u32; NODES_MAX],
    /// By task index: how each task stands on the sender.
    #[serde(with = "crate::model::trimmed_array")]
    pub tasks: [TaskReport; TASKS_MAX],
}

impl Frame {
    /// A frame that says nothing yet: to be filled, or decoded into.
    #[must_use]
    pub const fn blank(cluster: ClusterId, sender: NodeId, incarnation: Incarnation) -> Frame {
        Frame {
            cluster,
            sender,
            link: 0,
            incarnation,
            flags: Flags(0),
            fitness: 0,
            sequence: 0,
            epoch: 0,
            config_hash: [0; 8],
            config_revision: 0,
            heard: [0; NODES_MAX],
            tasks: [TaskReport {
                state: TaskState::Stopped,
                epoch: 0,
            }; TASKS_MAX],
        }
    }
}

/// How one task stands on the sender, and for which of its epochs the sender says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskReport {
    /// The state.
    pub state: TaskState,
    /// The task epoch modulo [`TaskReport::EPOCHS`]; higher bits are not sent.
    pub epoch: u16,
}

impl TaskReport {
    /// Task epochs a report can tell apart. A report is at most a few epochs old: it comes with a
    /// fresh frame, and each task epoch is a write of the register.
    pub const EPOCHS: u16 = 1 << 12;

    /// The report of `state` in `task_epoch`.
    #[must_use]
    pub const fn new(state: TaskState, task_epoch: u64) -> TaskReport {
        TaskReport {
            state,
            epoch: (task_epoch % Self::EPOCHS as u64) as u16,
        }
    }

    /// Is the report about this epoch of the task?
    #[must_use]
    pub const fn is_for(self, task_epoch: u64) -> bool {
        self.epoch as u64 == task_epoch % Self::EPOCHS as u64
    }
}

/// Yes-or-no facts about the sender. Bits without a name are kept as they came.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flags(pub u16);

impl Flags {
    /// Not a member, and asks to be let in.
    pub const WANTS_IN: Flags = Flags(1 << 0);
    /// Is shutting down on purpose: hand its tasks over, do not let it in.
    pub const LEAVING: Flags = Flags(1 << 1);
    /// Runs no tasks by the operator's will.
    pub const STANDBY: Flags = Flags(1 << 2);
    /// Holds its lease at the moment of sending.
    pub const HOLDS_LEASE: Flags = Flags(1 << 3);
    /// Is a member that every other member has confirmed.
    pub const ACTIVE: Flags = Flags(1 << 4);
    /// A hardware watchdog resets it should it hang.
    pub const WATCHDOG: Flags = Flags(1 << 5);
    /// Its service networks work.
    pub const SERVICE_NETWORK_OK: Flags = Flags(1 << 6);
    /// Its storage paths work.
    pub const STORAGE_OK: Flags = Flags(1 << 7);
    /// Can agree to changes of the view without the shared disk.
    pub const VOTES: Flags = Flags(1 << 8);

    /// The named bits, lowest first.
    pub const NAMES: [&str; 9] = [
        "wants-in",
        "leaving",
        "standby",
        "holds-lease",
        "active",
        "watchdog",
        "service-network-ok",
        "storage-ok",
        "votes",
    ];

    /// Are all bits of `flags` set?
    #[must_use]
    pub const fn contains(self, flags: Flags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// The same flags with these set.
    #[must_use]
    pub const fn with(self, flags: Flags) -> Flags {
        Flags(self.0 | flags.0)
    }

    /// The same flags with these cleared.
    #[must_use]
    pub const fn without(self, flags: Flags) -> Flags {
        Flags(self.0 & !flags.0)
    }

    /// The same flags with these set if `on`, else cleared.
    #[must_use]
    pub const fn set(self, flags: Flags, on: bool) -> Flags {
        if on {
            self.with(flags)
        } else {
            self.without(flags)
        }
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for bit in (0..16).filter(|bit| self.0 & (1 << bit) != 0) {
            match Self::NAMES.get(bit) {
                Some(name) => write!(f, "{separator}{name}")?,
                None => write!(f, "{separator}bit-{bit}")?,
            }
            separator = " ";
        }
        Ok(())
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({self})")
    }
}

/// Why bytes are not a frame for us, in the order in which it is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not even the head is good.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// Authentic, but a task's state has no meaning here: a newer program.
    #[error("state {found} of task {task} has no meaning")]
    BadTaskState {
        /// Index of the task.
        task: u8,
        /// The number it claims.
        found: u8,
    },
}

impl FrameError {
    /// Names of a table of counters, by [`FrameError::kind`].
    pub const KINDS: [&str; 8] = [
        "too-short",
        "not-ours",
        "version",
        "kind",
        "foreign",
        "bad-sender",
        "bad-tag",
        "bad-task-state",
    ];

    /// Position in a table of counters.
    #[must_use]
    pub const fn kind(self) -> usize {
        match self {
            FrameError::Head(error) => error.kind(),
            FrameError::BadTaskState { .. } => HeadError::COUNT,
        }
    }
}
