//! What the engine is told and what it orders: facts in, orders out.
//!
//! ```text
//!  link threads --- Frame, Packet, LinkState ---.             .--> Send, Mail, to all link threads
//!  disk thread ---- DiskRead, DiskWritten -------> Engine ----+--> Disk, to the disk thread
//!  runner --------- Report, Command ------------'             '--> Order, Record, Reply, to runner
//! ```
//! Everything here can be recorded and replayed; nothing refers to a clock, socket or file.

use serde::{Deserialize, Serialize};

use crate::frame::Frame;
use crate::mldc::Packet;
use crate::model::{NodeId, TaskIndex, TaskState};
use crate::register::{Block, Compared, Memory, Order as DiskOrder, Seen};
use crate::time::Instant;

/// A fact the engine is told. By value, frame and all: a box would be an allocation for each frame.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)]
pub enum Event {
    /// Nothing happened but time; also what the caller uses to reach `poll_timeout`.
    Tick,
    /// A frame came in on a link; its tag and cluster were checked.
    Frame {
        /// Position of the link it came in on.
        link: u8,
        /// The frame.
        frame: Frame,
    },
    /// A packet of a message for this node came in on a link; its tag and cluster were checked. The
    /// same one may come on other links too, and one may come again much later.
    Packet {
        /// Position of the link it came in on.
        link: u8,
        /// The packet.
        packet: Packet,
    },
    /// A link thread has emptied its socket or read all slots, having begun at `begun`: what it has
    /// not reported by now was not there.
    LinkDrained {
        /// Position of the link.
        link: u8,
        /// When it began to look.
        begun: Instant,
    },
    /// A link came up or went down.
    LinkState {
        /// Position of the link.
        link: u8,
        /// Can frames leave on it?
        up: bool,
        /// Why, for people.
        reason: String,
    },
    /// A read of the register has ended.
    DiskRead {
        /// Position of the disk among those of the register.
        disk: u8,
        /// Before the read was issued.
        begun: Instant,
        /// After it had returned.
        ended: Instant,
        /// What it saw; `None` if nothing changed since the read before.
        seen: Option<Seen>,
    },
    /// A read of the register blocks has failed.
    DiskReadFailed {
        /// Position of the disk among those of the register.
        disk: u8,
        /// When it was begun.
        begun: Instant,
    },
    /// The write that was ordered is on the disk.
    DiskWritten {
        /// Position of the disk among those of the register.
        disk: u8,
        /// After it had returned.
        at: Instant,
    },
    /// The write that was ordered has failed; it may have landed, and is not in flight any more.
    DiskWriteFailed {
        /// Position of the disk among those of the register.
        disk: u8,
        /// After it had returned.
        at: Instant,
    },
    /// The change of the record that was ordered has ended.
    DiskCompared {
        /// After it had returned.
        at: Instant,
        /// How.
        outcome: Compared,
    },
    /// The node's own file was read, or cannot be.
    Remembered {
        /// What it says.
        memory: Memory,
        /// Why it cannot be read or written, and what to do, for people.
        trouble: Option<String>,
    },
    /// The record that was ordered is in the node's own file.
    Kept {
        /// After the write had returned.
        at: Instant,
    },
    /// The record that was ordered may be in the node's own file or not.
    KeepFailed {
        /// After the write had returned.
        at: Instant,
        /// Why, for people.
        reason: String,
    },
    /// The guard has taken back what it held for these tasks (bit by task index).
    Revoked {
        /// Which tasks.
        tasks: u64,
    },
    /// What the runner has come to with a node that it was to switch off.
    PowerFenced {
        /// Which node.
        node: NodeId,
        /// As in the order: what belongs to an earlier one proves nothing.
        epoch: u64,
        /// Off, or why not.
        outcome: PowerOutcome,
    },
    /// The runner speaks.
    Report(Report),
    /// The operator asks, through the runner.
    Command {
        /// Repeated in the reply.
        request: u64,
        /// What is asked.
        command: Command,
    },
    /// The daemon is to leave the cluster and end.
    Leave,
}

/// What the engine wants done. The caller does it and reports; the engine never waits. By value, as
/// events are.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)]
pub enum Action {
    /// Send this frame on every link, with the link's own number in it.
    Send(Frame),
    /// Send this packet on every network link, with the link's own number in it. May be lost.
    Mail(Packet),
    /// Read or change the register on one of its disks.
    Disk {
        /// Position of the disk among those of the register.
        disk: u8,
        /// What to do there.
        order: DiskOrder,
    },
    /// Put this record of the node's own votes into its file.
    Keep(Block),
    /// Have the runner do something.
    Order(Order),
    /// Have the runner switch a node off through its devices, and try again until it is off or this
    /// is taken back.
    PowerFence {
        /// Which node.
        node: NodeId,
        /// Epoch of the view that put it out; `None` takes an earlier order back.
        epoch: Option<u64>,
    },
    /// Keep this for `history` and `why`.
    Record(Record),
    /// Answer a command.
    Reply {
        /// Number of the command.
        request: u64,
        /// What came of it.
        outcome: Result<String, Refusal>,
    },
    /// The node has left the view and holds nothing: the daemon may end.
    Left,
}

/// An order to the runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Start all objects of a task, in the order of their steps. A failure cleans up.
    Start {
        /// Repeated in the report.
        op: u64,
        /// Which task.
        task: TaskIndex,
        /// Its epoch: the fencing token objects may use.
        epoch: u32,
    },
    /// Stop all objects of a task, last step first, down the whole ladder if need be.
    Stop {
        /// Repeated in the report.
        op: u64,
        /// Which task.
        task: TaskIndex,
        /// Its epoch.
        epoch: u32,
        /// Skip the polite rungs: the lease is gone.
        forced: bool,
    },
}

/// What came of switching a node off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PowerOutcome {
    /// It was off, as its devices say themselves, at some time after the order was given.
    Off {
        /// Which devices, for people.
        by: String,
    },
    /// Not yet, or nobody knows; it is tried again.
    Failed {
        /// Why, for people.
        reason: String,
    },
}

/// What the runner found when it looked at a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// Every object is stopped.
    Stopped,
    /// Every object runs.
    Running,
    /// Some objects run, or one could not be probed.
    Partly,
}

/// What the runner reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The runner is there and has looked at every task, by task index. Orders that were given to
    /// an earlier runner and not reported are lost.
    Hello {
        /// One entry for each configured task.
        found: Vec<Found>,
    },
    /// The runner's connection is gone.
    Gone,
    /// An order has been carried out, or has failed.
    Done {
        /// Number of the order.
        op: u64,
        /// Which task.
        task: TaskIndex,
        /// Nothing, or what failed. After a failed start everything was stopped again, unless
        /// `stopped` is false.
        failure: Option<Failure>,
    },
    /// A started task does not run any more and the runner's own budget is used up, or there is
    /// nothing it could do. Parts of it may still run.
    Lost {
        /// Which task.
        task: TaskIndex,
        /// What happened.
        failure: Failure,
    },
    /// Something a person would want to read in the history.
    Note {
        /// About which task.
        task: Option<TaskIndex>,
        /// How bad it is.
        class: Class,
        /// The sentence.
        text: String,
    },
    /// How fit the node is to run a task now (service network, storage); sent on change.
    Fit {
        /// Bit by task index: could be started here as far as can be seen.
        tasks: u64,
    },
}

/// What went wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Name of the object.
    pub object: String,
    /// What happened, in a sentence.
    pub reason: String,
    /// Is everything of the task verified as stopped?
    pub stopped: bool,
}

/// What an operator may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Hand the task over to a node, once.
    Move {
        /// Which task.
        task: TaskIndex,
        /// To whom.
        to: NodeId,
    },
    /// Let the task run; forgets earlier failures.
    Start {
        /// Which task.
        task: TaskIndex,
    },
    /// Stop the task and keep it stopped.
    Stop {
        /// Which task.
        task: TaskIndex,
    },
    /// No tasks on this node from now on.
    Standby {
        /// Which node.
        node: NodeId,
    },
    /// The node may run tasks again.
    Online {
        /// Which node.
        node: NodeId,
    },
    /// The operator vouches that these nodes are off. Needed only when a node starts alone and two
    /// or more others, in full contact with each other but not with the disk, could still be at
    /// work.
    ConfirmOff {
        /// The node that is off.
        node: NodeId,
    },
}

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What stands against it.
    pub reason: String,
    /// What to do instead.
    pub remedy: String,
}

/// How much an entry of the history matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Worth knowing later.
    Info,
    /// A change somebody asked for.
    Notice,
    /// Degraded, but safe.
    Warning,
    /// A fault that was handled.
    Major,
    /// A human is needed.
    Critical,
}

/// One decision or change of state, as `history` and `why` tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When, on this node's clock.
    pub at: Instant,
    /// Epoch of the view it was made under.
    pub epoch: u64,
    /// How much it matters.
    pub class: Class,
    /// About which task.
    pub task: Option<TaskIndex>,
    /// About which node.
    pub node: Option<NodeId>,
    /// What set it off.
    pub trigger: String,
    /// What was seen, with numbers.
    pub evidence: Vec<String>,
    /// The rule that applied.
    pub rule: String,
    /// Other ways, and why they were not taken.
    pub rejected: Vec<String>,
    /// What was done.
    pub outcome: String,
}

/// A picture of the engine for `status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When it was taken, on this node's clock.
    pub at: Instant,
    /// The node that took it.
    pub node: NodeId,
    /// Epoch of the view it knows.
    pub epoch: u64,
    /// In one word: `outside`, `joining`, `member`.
    pub standing: String,
    /// Why it is not a member, where it is not.
    pub waiting_for: Option<String>,
    /// Milliseconds its lease is still good for; 0 if it has none.
    pub lease_ms: f64,
    /// On what the lease rests: `frames`, `register`, `both`, `none`.
    pub proof: String,
    /// All configured nodes.
    pub nodes: Vec<NodeStatus>,
    /// All links of this node.
    pub links: Vec<LinkStatus>,
    /// The register, as seen from here.
    pub register: RegisterStatus,
    /// All tasks.
    pub tasks: Vec<TaskStatus>,
    /// What a person should look at.
    pub alarms: Vec<String>,
}

/// A node in a [`Snapshot`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Which.
    pub node: NodeId,
    /// `member`, `joining`, `outside`, `silent`, `incompatible`.
    pub state: String,
    /// In standby?
    pub standby: bool,
    /// Milliseconds since it was last heard of, on any link; none for this node or if never.
    pub heard_ms: Option<f64>,
    /// Epoch it says it knows.
    pub epoch: u64,
    /// Its last eviction, in words.
    pub evicted: Option<String>,
}

/// A link in a [`Snapshot`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Position in the configuration.
    pub link: u8,
    /// Can frames leave on it?
    pub up: bool,
    /// Why, for people.
    pub reason: String,
    /// Frames heard.
    pub frames: u64,
    /// Milliseconds since each other node was heard of on this link, if ever.
    pub peers: Vec<(NodeId, f64)>,
    /// Frames of another link of this cluster that came in here: cables are swapped.
    pub crossed: u64,
    /// Times it went down.
    pub downs: u64,
}

/// The register in a [`Snapshot`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegisterStatus {
    /// Did the last read succeed?
    pub reachable: bool,
    /// Milliseconds since the last successful read was begun.
    pub read_ms: Option<f64>,
    /// What stands in its way.
    pub trouble: Option<String>,
    /// Nodes that could not agree to a change if the disk did not answer; with none missing a lost
    /// disk costs no command.
    pub missing_voters: Vec<NodeId>,
    /// Messages of other nodes that were not listened to.
    pub refused_messages: u64,
}

/// A task in a [`Snapshot`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// Which.
    pub task: TaskIndex,
    /// Who may run it.
    pub owner: Option<NodeId>,
    /// Who gets it next.
    pub heir: Option<NodeId>,
    /// Its epoch.
    pub epoch: u32,
    /// Is it to run?
    pub wanted: bool,
    /// How it stands on each node that has said so.
    pub states: Vec<(NodeId, TaskState)>,
    /// Why it does not run, where it does not.
    pub blocked: Option<String>,
    /// Nodes on which it failed lately.
    pub failed_on: Vec<NodeId>,
    /// Why it is where it is, in words.
    pub cause: String,
}
