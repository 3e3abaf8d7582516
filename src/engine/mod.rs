//! The cluster's state machine: decides everything, does nothing itself.
//!
//! ```text
//! handle(now, event) ---> peers, register, task machines take it in
//!                    ---> advance: lease, suspicion, task steps, one change of the view, a frame
//! poll_action() <-------- what to send, write, run, record
//! poll_timeout() <------- when to come back at the latest
//! lease_deadline(), granted() <-- what the guard must know, to be published before any action is
//! done
//! ```
//!
//! Changes of the view are not reactions to events: each turn compares what is known with what
//! should be and proposes the first step towards it (`changes`). A lost race, a crash or a lost
//! message therefore needs no handling of its own: the next turn looks again.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod changes;
mod command;
mod disks;
mod event;
mod fencing;
mod lease;
mod membership;
mod ownership;
mod peers;
mod placement;
mod quorum;
mod record;
mod snapshot;
mod tasks;
#[cfg(test)]
mod tests;
mod turn;
mod view;

use std::collections::VecDeque;

pub use event::{
    Action, Class, Command, Event, Failure, Found, LinkStatus, NodeStatus, Order, PowerOutcome,
    Record, Refusal, RegisterStatus, Report, Snapshot, TaskStatus,
};
pub use view::{
    After, Cause, EvictReason, Eviction, Member, Standing, TaskRecord, View, ViewError,
};

use serde::{Deserialize, Serialize};

use crate::config::Timing;
use crate::mldc::{MESSAGE_MAX, PARTS_MAX};
use crate::model::{
    ClusterId, ConfigHash, Incarnation, LINKS_MAX, NODES_MAX, NodeId, NodeSet, TASKS_MAX,
    TaskIndex, trimmed_array,
};
use crate::register::{DISKS_MAX, MAIL_MAX, Memory, Register, VALUE_MAX};
use crate::time::{Instant, Span};
use changes::Proposal;
use command::Waiting;
use disks::Disks;
use fencing::Power;
use lease::Lease;
use peers::{Peers, Sent};
use quorum::Mail;
use tasks::Local;

/// What an engine is made from.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Setup {
    /// This node.
    pub me: NodeId,
    /// This life of it.
    pub incarnation: Incarnation,
    /// The cluster.
    pub cluster: ClusterId,
    /// All configured nodes and their names, in rising order of ids.
    pub nodes: Vec<(NodeId, String)>,
    /// All configured tasks, by task index.
    pub tasks: Vec<TaskSetup>,
    /// All times.
    pub timing: Timing,
    /// Hash of the configuration.
    pub config_hash: ConfigHash,
    /// Its revision.
    pub config_revision: u32,
    /// Number of links of this node.
    pub links: u8,
    /// Seed for nonces and back-off; different in every life.
    pub seed: u64,
    /// Number that all frames are to be above: of the last one an earlier core of this life has
    /// sent, and some more; 0 in a new life, which begins anywhere.
    pub first_sequence: u64,
    /// What an earlier core of this same life left behind under a living guard.
    pub resumed: Option<Resumed>,
    /// The node is watched by a hardware watchdog.
    pub watchdog: bool,
    /// What the node's own file says it has promised over the network, if that is known already.
    pub memory: Memory,
    /// Links that are networks, bit by position.
    pub networks: u64,
    /// Nodes that the others can switch off.
    pub fences: NodeSet,
    /// Number of disks that the register is on, one or three.
    pub disks: u8,
}

/// What an earlier core of this life left to its successor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// Its lease, still good for what runs.
    pub lease_deadline: Instant,
    /// Tasks it had started, bit by task index.
    pub granted: u64,
}

/// A task as the engine sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSetup {
    /// Its name.
    pub name: String,
    /// Nodes that may run it, the preferred one first.
    pub nodes: Vec<NodeId>,
    /// Is it to run in a cluster that has no record of it yet?
    pub enabled: bool,
    /// Does it wait for the proof that an earlier owner is off, where the time of its lease would
    /// do? Only for nodes that can be switched off.
    pub fence_required: bool,
}

/// A link as the engine sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Eq)]
struct LinkView {
    up: bool,
    reason: String,
    frames: u64,
    crossed: u64,
    downs: u64,
    /// When it last began to empty its socket.
    drained: Option<Instant>,
}

/// The engine. See the module for how it is driven.
///
/// All of it can be written down between two turns and read back: the one that was read decides
/// the same from there on. So nothing here may be left out, and nothing be kept outside.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Engine {
    setup: Setup,
    names: Vec<String>,
    now: Instant,
    started_at: Instant,
    register: Register,
    /// The newest view known to be decided.
    view: View,
    view_known_at: Instant,
    /// Since when each task's record has the epoch it has, on this node's clock.
    #[serde(with = "trimmed_array")]
    task_known_at: [Instant; TASKS_MAX],
    peers: Peers,
    sent: Sent,
    lease: Lease,
    links: Vec<LinkView>,
    #[serde(with = "trimmed_array")]
    local: [Local; TASKS_MAX],
    /// Tasks the guard is to let run, bit by task index.
    granted: u64,
    /// Tasks that could be started here as far as the runner sees.
    fit: u64,
    #[serde(with = "trimmed_array")]
    unfit_since: [Option<Instant>; TASKS_MAX],
    /// Pause before the last failed start or stop is, or was, tried again.
    #[serde(with = "trimmed_array")]
    retry_pause: [Span; TASKS_MAX],
    runner_there: bool,
    proposal: Option<Proposal>,
    propose_after: Instant,
    /// Nodes without which a view was asked for; they are not confirmed until that is settled.
    asked_out: NodeSet,
    /// Nodes the operator vouches are off.
    confirmed_off: NodeSet,
    /// By node index.
    power: Vec<Power>,
    commands: VecDeque<Waiting>,
    leaving: bool,
    left: bool,
    /// After an own stall: nothing is judged or started until fresh knowledge is in.
    distrust: Option<Instant>,
    /// Somebody else uses this node's id.
    doppelganger_at: Option<Instant>,
    /// The last frame with this node's id but of another life, by disk; networks are with the
    /// first.
    doppelganger: [Option<(Incarnation, u64)>; DISKS_MAX],
    member_since: Instant,
    sequence: u64,
    next_beat: Instant,
    urgent: bool,
    next_op: u64,
    disks: Disks,
    /// Silence before this does not count: this node was not listening.
    trusted_at: Instant,
    read_wanted_for: u64,
    mail: Mail,
    random: u64,
    actions: VecDeque<Action>,
    alarms: Vec<String>,
    waiting_for: Option<String>,
}

/// Actions that may wait to be fetched; the caller fetches all after every event, and one event
/// causes at most a frame, two orders for each disk, a record of its own votes, a few messages, one
/// order and a few records for each task, and one order and a record for each node's power. The
/// register is emptied twice in a turn.
const ACTIONS_MAX: usize =
    16 + 4 * DISKS_MAX + 6 * TASKS_MAX + 2 * NODES_MAX + 2 * MAIL_MAX * PARTS_MAX;

/// Longest engine that is reckoned with, in bytes as postcard writes it, for 64 nodes and 64 tasks:
/// the blocks of three disks as last read, three dozen values in the register's hands, an
/// unfinished message of each node, what is known of each node and task, own frames, commands; and
/// as much text of objects, links and devices as the runner can say in one message.
pub const WRITTEN_MAX: usize = DISKS_MAX * NODES_MAX * (VALUE_MAX + 64)
    + 36 * (VALUE_MAX + 64)
    + NODES_MAX * (MESSAGE_MAX + 64)
    + NODES_MAX * 512
    + TASKS_MAX * 256
    + 16 * 1024
    + 64 * 1024;

impl Engine {
    /// A node that has just started and knows nothing yet.
    ///
    /// # Panics
    /// If `setup` names more tasks or links than there can be; the configuration refuses that.
    #[must_use]
    pub fn new(setup: Setup, now: Instant) -> Engine {
        assert!(setup.tasks.len() <= TASKS_MAX && usize::from(setup.links) <= LINKS_MAX);
        let nodes: NodeSet = setup.nodes.iter().map(|(node, _)| *node).collect();
        let backoff = setup.timing.heartbeat.over(2);
        let resumed = setup.resumed.unwrap_or_default();
        let mut local = [Local::Stopped; TASKS_MAX];
        local[..setup.tasks.len()].fill(Local::Unknown);
        let mut engine = Engine {
            register: Register::new(setup.me, nodes, setup.seed, backoff, setup.memory.clone())
                .on_disks(usize::from(setup.disks)),
            names: (1..=64u8).map(|id| name_of(&setup, id)).collect(),
            now,
            started_at: now,
            view: View::default(),
            view_known_at: now,
            task_known_at: [now; TASKS_MAX],
            peers: Peers::new(),
            sent: Sent::new(),
            lease: Lease::resumed(resumed.lease_deadline),
            links: vec![LinkView::default(); usize::from(setup.links)],
            local,
            granted: resumed.granted,
            fit: u64::MAX,
            unfit_since: [None; TASKS_MAX],
            retry_pause: [Span::ZERO; TASKS_MAX],
            runner_there: false,
            proposal: None,
            propose_after: now,
            asked_out: NodeSet::EMPTY,
            confirmed_off: NodeSet::EMPTY,
            power: vec![Power::default(); NODES_MAX],
            commands: VecDeque::new(),
            leaving: false,
            left: false,
            distrust: None,
            doppelganger_at: None,
            doppelganger: [None; DISKS_MAX],
            member_since: now,
            sequence: setup.first_sequence,
            next_beat: now,
            urgent: false,
            next_op: setup.seed | 1,
            disks: Disks::new(setup.disks),
            trusted_at: now,
            read_wanted_for: 0,
            mail: Mail::default(),
            random: setup.seed,
            actions: VecDeque::with_capacity(ACTIONS_MAX),
            alarms: Vec::new(),
            waiting_for: Some("the first read of the register".into()),
            setup,
        };
        engine.begin_numbers();
        engine
    }

    /// A replay may echo what an earlier life sent; numbered alike, it would count as fresh. There
    /// are 2^31 places to begin at, and some ten numbers are fresh at a time.
    fn begin_numbers(&mut self) {
        if self.sequence == 0 {
            self.sequence = self.draw() >> 33;
        }
    }

    /// Takes in one fact and decides what follows from it.
    pub fn handle(&mut self, now: Instant, event: Event) {
        self.begin_turn(now);
        self.take_in(event);
        self.advance();
    }

    /// The next thing to do, in order. To be fetched until there is none after every `handle`, and
    /// after [`Engine::lease_deadline`] and [`Engine::granted`] were published.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What it was made from.
    #[must_use]
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Has one that was read back the tables that every engine has, and nothing left to be fetched?
    /// Whoever reads one that somebody may have changed asks this first.
    #[must_use]
    pub fn makes_sense(&self) -> bool {
        let Setup { tasks, links, .. } = &self.setup;
        tasks.len() <= TASKS_MAX
            && self.view.tasks.len() <= TASKS_MAX
            && usize::from(*links) <= LINKS_MAX
            && self.links.len() == usize::from(*links)
            && self.names.len() == NODES_MAX
            && self.power.len() == NODES_MAX
            && self.peers.make_sense()
            && self.actions.is_empty()
    }

    /// Until when this node may run its tasks, on its own clock; in the past if it may not.
    #[must_use]
    pub fn lease_deadline(&self) -> Instant {
        self.lease.until()
    }

    /// Tasks that may run here under the lease, bit by task index.
    #[must_use]
    pub fn granted(&self) -> u64 {
        self.granted
    }

    /// The newest view known.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Number of the last frame sent.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Does a decision wait for [`Event::LinkDrained`]? Otherwise nobody has to tell it.
    #[must_use]
    pub fn waits_for_drain(&self) -> bool {
        self.distrust.is_some() || self.peers.is_looked_for()
    }

    /// How the task stands here.
    #[must_use]
    pub fn task_state(&self, task: TaskIndex) -> crate::model::TaskState {
        self.local[task.index()].state()
    }

    fn me(&self) -> NodeId {
        self.setup.me
    }

    fn timing(&self) -> &Timing {
        &self.setup.timing
    }

    fn name(&self, node: NodeId) -> &str {
        &self.names[node.index()]
    }

    fn task_name(&self, task: TaskIndex) -> &str {
        &self.setup.tasks[task.index()].name
    }

    fn tasks(&self) -> impl Iterator<Item = TaskIndex> + use<> {
        (0..self.setup.tasks.len()).filter_map(TaskIndex::new)
    }

    fn configured(&self, node: NodeId) -> bool {
        self.setup.nodes.iter().any(|(id, _)| *id == node)
    }

    /// Has this life of this node full rights in the newest view known?
    fn is_member(&self) -> bool {
        self.view.grants(self.me(), self.setup.incarnation)
    }

    /// Is this life of this node listed at all?
    fn is_listed(&self) -> bool {
        let record = self.view.member(self.me());
        record.is_some_and(|member| member.incarnation == self.setup.incarnation)
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): enough for nonces, which need only differ.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }
}

fn name_of(setup: &Setup, id: u8) -> String {
    let known = setup.nodes.iter().find(|(node, _)| node.number() == id);
    known.map_or_else(|| format!("node {id}"), |(_, name)| name.clone())
}
