//! A configuration that was checked: what the rest of the house reads.
//!
//! A [`Config`] comes only from [`Config::parse`], so whoever holds one may rely on it: names and
//! ids are unique, every name that is mentioned exists, every node has an interface on every
//! network link, times fit together.

use std::fmt;

use super::Timing;
use super::kind::Claims;
use super::problem::{Problem, TextSpan};
use crate::model::{ClusterId, ConfigHash, NodeId, NodeSet, TaskIndex};
use crate::time::Span;

/// The whole configuration of a cluster, the same on all its nodes.
#[derive(Clone, Debug)]
pub struct Config {
    pub(super) revision: u32,
    pub(super) hash: ConfigHash,
    pub(super) cluster: ClusterConfig,
    pub(super) timing: Timing,
    pub(super) detect: Place,
    pub(super) nodes: Vec<NodeConfig>,
    pub(super) links: Vec<LinkConfig>,
    pub(super) watchdog: WatchdogConfig,
    pub(super) fences: Vec<FenceConfig>,
    pub(super) tasks: Vec<TaskConfig>,
    pub(super) warnings: Vec<Problem>,
}

impl Config {
    /// `revision` as written, 1 if it is not.
    #[must_use]
    pub fn revision(&self) -> u32 {
        self.revision
    }

    /// Two nodes with the same hash have the same values under all keys; comments, blank space and
    /// the order of keys within a table do not count.
    #[must_use]
    pub fn hash(&self) -> ConfigHash {
        self.hash
    }

    /// `[cluster]` without `detect`.
    #[must_use]
    pub fn cluster(&self) -> &ClusterConfig {
        &self.cluster
    }

    /// Every time, derived from `detect`.
    #[must_use]
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// All nodes, 1 to 64, by rising id.
    #[must_use]
    pub fn nodes(&self) -> &[NodeConfig] {
        &self.nodes
    }

    /// All links in the order of the file, at most [`LINKS_MAX`](crate::model::LINKS_MAX). At least
    /// one is a disk, unless the cluster has a single node.
    #[must_use]
    pub fn links(&self) -> &[LinkConfig] {
        &self.links
    }

    /// The register's disks: the links of kind disk in the order of the file.
    pub fn disks(&self) -> impl Iterator<Item = &LinkConfig> {
        let links = self.links.iter();
        links.filter(|link| matches!(link.kind, LinkKind::Disk { .. }))
    }

    /// Position of a link among the register's disks.
    #[must_use]
    pub fn disk_position(&self, link: &LinkConfig) -> u8 {
        let before = self.disks().filter(|disk| disk.index < link.index);
        before.count() as u8
    }

    /// What resets a node that hangs.
    #[must_use]
    pub fn watchdog(&self) -> &WatchdogConfig {
        &self.watchdog
    }

    /// What switches nodes off, in the order of the file, at most
    /// [`FENCES_MAX`](super::FENCES_MAX).
    #[must_use]
    pub fn fences(&self) -> &[FenceConfig] {
        &self.fences
    }

    /// Nodes that can be switched off.
    #[must_use]
    pub fn fenced_nodes(&self) -> NodeSet {
        let plugs = self.fences.iter().flat_map(|fence| &fence.plugs);
        plugs.map(|plug| plug.node).collect()
    }

    /// All tasks in the order of the file, at most [`TASKS_MAX`](crate::model::TASKS_MAX).
    #[must_use]
    pub fn tasks(&self) -> &[TaskConfig] {
        &self.tasks
    }

    /// What is allowed but should be known, in the order of the text.
    #[must_use]
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// The node of this name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeConfig> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The node with this id.
    #[must_use]
    pub fn node_by_id(&self, id: NodeId) -> Option<&NodeConfig> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The task of this name.
    #[must_use]
    pub fn task(&self, name: &str) -> Option<&TaskConfig> {
        self.tasks.iter().find(|task| task.name == name)
    }

    /// The links of a node with the interface or device each one uses there, in the order of the
    /// file; none for a node that is not configured.
    pub fn links_of(&self, node: NodeId) -> impl Iterator<Item = (&LinkConfig, &str)> {
        self.links
            .iter()
            .filter_map(move |link| Some((link, link.kind.paths().on(node)?)))
    }
}

/// Who the cluster is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// 1 to 32 of a-z, 0-9 and the hyphen.
    pub name: String,
    /// Tells clusters on one wire or one array apart; never all zero.
    pub id: ClusterId,
    /// Absolute path of the file with the cluster's secret.
    pub secret: String,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Unique; 1 to 32 of a-z, 0-9 and the hyphen.
    pub name: String,
    /// Unique; fixes the node's slot on the disk.
    pub id: NodeId,
}

/// One path between all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// Unique; 1 to 32 of a-z, 0-9 and the hyphen.
    pub name: String,
    /// Position in the file, from 0, below [`LINKS_MAX`](crate::model::LINKS_MAX).
    pub index: u8,
    /// What it is made of.
    pub kind: LinkKind,
}

/// What a link is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// Raw frames on a network card.
    Ethernet {
        /// Interface of each node.
        interfaces: PerNode,
        /// IEEE 802.3 type field of the frames, 0x0600..=0xFFFF.
        ethertype: u16,
    },
    /// Sectors of a disk that all nodes reach; it carries the register too.
    Disk {
        /// Absolute path of the block device on each node.
        devices: PerNode,
    },
}

impl LinkKind {
    /// Interfaces or devices, whichever it has.
    #[must_use]
    pub fn paths(&self) -> &PerNode {
        match self {
            LinkKind::Ethernet { interfaces, .. } => interfaces,
            LinkKind::Disk { devices } => devices,
        }
    }
}

/// One text for each node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PerNode {
    /// By rising id.
    pub(super) entries: Vec<(NodeId, String, Place)>,
}

impl PerNode {
    /// What this node uses; `None` only for a node that is not configured.
    #[must_use]
    pub fn on(&self, node: NodeId) -> Option<&str> {
        self.entry(node).map(|(_, text, _)| text.as_str())
    }

    /// All of them, by rising id.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &str)> {
        self.entries
            .iter()
            .map(|(node, text, _)| (*node, text.as_str()))
    }

    pub(super) fn place_on(&self, node: NodeId) -> Option<TextSpan> {
        self.entry(node).map(|(_, _, place)| place.0.clone())
    }

    fn entry(&self, node: NodeId) -> Option<&(NodeId, String, Place)> {
        self.entries.iter().find(|(id, _, _)| *id == node)
    }
}

/// What resets a node that hangs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchdogConfig {
    /// Where the pets go.
    pub source: WatchdogSource,
    /// Whole seconds without a pet after which the node is reset.
    pub timeout: Span,
    /// Does a node that cannot let go reset itself? Never without a device.
    pub self_fence: bool,
    /// Where the source is written; none if it is the default.
    pub(super) written: Option<Place>,
}

/// Where a watchdog's pets go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchdogSource {
    /// A watchdog device, by absolute path.
    Device(String),
    /// An ordinary file, by absolute path, for machines without a watchdog: it resets nothing.
    StandIn(String),
    /// None at all.
    None,
}

/// A device that switches nodes off, through an agent for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceConfig {
    /// Unique; 1 to 32 of a-z, 0-9 and the hyphen.
    pub name: String,
    /// Absolute path of the agent.
    pub agent: String,
    /// 1..=9: tried in rising order; all devices of a level must succeed.
    pub level: u8,
    /// Longest time for one call of the agent.
    pub timeout: Span,
    /// How often the device is tried, to know of a fault before the day of need.
    pub test_every: Span,
    /// What is done once the node is off.
    pub action: FenceAction,
    /// What the agent is told beside action and plug.
    pub options: Vec<FenceOption>,
    /// Which nodes it switches off; never empty.
    pub plugs: Vec<FencePlug>,
}

/// What is done with a node that was switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceAction {
    /// It stays off until somebody switches it on.
    Off,
    /// It is switched on again.
    Reboot,
}

/// One line for an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceOption {
    /// Its name.
    pub name: String,
    /// What it is set to.
    pub value: Secret,
}

/// A node on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FencePlug {
    /// Which node.
    pub node: NodeId,
    /// What the device calls it, where it has more than one.
    pub plug: Option<String>,
}

/// A text that may be a password: it shows itself to nobody by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub(super) String);

impl Secret {
    /// The text, for whoever has to know it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What the cluster keeps running.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskConfig {
    /// Unique; 1 to 32 of a-z, 0-9 and the hyphen.
    pub name: String,
    /// Position in the file.
    pub index: TaskIndex,
    /// Where it may run, the preferred node first; never empty, no node twice.
    pub nodes: Vec<NodeId>,
    /// Is it to run at all?
    pub enabled: bool,
    /// Does it wait for the proof that a node which had it is off? Then all its nodes can be
    /// switched off.
    pub fence_required: bool,
    /// When to restart in place instead of moving.
    pub restart: RestartConfig,
    /// What it is made of, in the order of the file; never empty.
    pub objects: Vec<ObjectConfig>,
}

impl TaskConfig {
    /// Objects by step: steps rising, the objects of one step in the order of the file.
    #[must_use]
    pub fn steps(&self) -> Vec<(u8, Vec<&ObjectConfig>)> {
        let mut steps: Vec<(u8, Vec<&ObjectConfig>)> = Vec::new();
        for object in &self.objects {
            match steps.binary_search_by_key(&object.step, |(step, _)| *step) {
                Ok(at) => steps[at].1.push(object),
                Err(at) => steps.insert(at, (object.step, vec![object])),
            }
        }
        steps
    }

    /// Has it disks, and does the array refuse every other node's writes to all of them?
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        let mut disks = self
            .objects
            .iter()
            .filter_map(|object| object.claims.fenced);
        disks
            .next()
            .is_some_and(|first| first && disks.all(|fenced| fenced))
    }

    /// Longest time from the first start to the last one done: the objects of a step start
    /// together, the steps one after the other.
    #[must_use]
    pub fn start_max(&self) -> Span {
        let slowest = |(_, objects): (u8, Vec<&ObjectConfig>)| {
            objects
                .iter()
                .map(|object| Span::from_ms(object.claims.start_ms_max))
                .max()
        };
        self.steps()
            .into_iter()
            .filter_map(slowest)
            .fold(Span::ZERO, |sum, step| sum + step)
    }
}

/// How often a process that died is started again on the same node before its task moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartConfig {
    /// Restarts within the window; 0 moves the task at once.
    pub attempts: u32,
    /// Time after which a restart is forgotten.
    pub window: Span,
}

/// One thing that can be started, stopped and probed.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectConfig {
    /// Unique within its task; 1 to 32 of a-z, 0-9 and the hyphen.
    pub name: String,
    /// Name of its [`Kind`](super::kind::Kind).
    pub kind: &'static str,
    /// 1..=64: rising at start, falling at stop; equal steps go together.
    pub step: u8,
    /// What its kind is told, already checked by it.
    pub parameters: toml::Table,
    /// What its kind says it needs for itself alone.
    pub claims: Claims,
    /// Where a problem of the object is shown.
    pub(super) place: Place,
}

/// Where a value stands in the text. Two configurations that differ only in this are equal.
#[derive(Clone, Debug, Default)]
pub(super) struct Place(pub(super) TextSpan);

impl PartialEq for Place {
    fn eq(&self, _: &Place) -> bool {
        true
    }
}

impl Eq for Place {}
