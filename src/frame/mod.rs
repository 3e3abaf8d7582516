//! The fixed 512 bytes that every link carries.

use crate::model::{ClusterId, ConfigHash, Incarnation, NODES_MAX, NodeId, TASKS_MAX, TaskState};

/// How one task stands on the sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskReport {
    /// The state.
    pub state: TaskState,
    /// The task's epoch modulo 4096.
    pub epoch: u16,
}

/// What else the sender says of itself; unknown bits are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u16);

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Cluster.
    pub cluster: ClusterId,
    /// Sender.
    pub sender: NodeId,
    /// Link it was sent on.
    pub link: u8,
    /// The sender's life.
    pub incarnation: Incarnation,
    /// Flags.
    pub flags: Flags,
    /// Fitness.
    pub fitness: u8,
    /// Sequence.
    pub sequence: u64,
    /// Epoch of the view the sender knows.
    pub epoch: u64,
    /// Configuration hash.
    pub config_hash: ConfigHash,
    /// Configuration revision.
    pub config_revision: u32,
    /// Heard numbers by node index.
    pub heard: [u32; NODES_MAX],
    /// Task reports by task index.
    pub tasks: [TaskReport; TASKS_MAX],
}
