//! The view: what all nodes agree on. It lives in the register and changes only by
//! compare-and-swap.
//!
//! Encoded with postcard behind one version byte; fits [`VALUE_MAX`] at 64 nodes and 64 tasks (a
//! test holds that).

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model::{ConfigHash, Incarnation, NODES_MAX, NodeId, NodeSet, TASKS_MAX, TaskIndex};
use crate::register::VALUE_MAX;

/// First byte of an encoded view.
const VERSION: u8 = 1;

/// How a node stands in the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Listed, so that everybody learns of it and needs its confirmation; has no rights yet.
    Joining,
    /// Every other member has confirmed an epoch that lists it: may own tasks and evict.
    Member,
}

/// One node that is in the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Who.
    pub node: NodeId,
    /// Which life of it; frames of any other life confirm nothing.
    pub incarnation: Incarnation,
    /// With which rights.
    pub standing: Standing,
}

/// Why a node left the view last, kept after it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eviction {
    /// Who was evicted.
    pub node: NodeId,
    /// Epoch of the view without it.
    #[serde(with = "postcard::fixint::le")]
    pub epoch: u64,
    /// Who wrote that view.
    pub by: NodeId,
    /// Why.
    pub reason: EvictReason,
    /// Evictions lately, for the doubling of the time before it is let in again.
    pub times: u8,
}

/// Why a node was put out of the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EvictReason {
    /// Nothing fresh was heard of it on any link.
    Silent,
    /// It was heard of with another boot: its earlier life is over.
    Rebooted,
    /// It was not there when another node started alone.
    ColdStart,
}

/// Why a task's record is as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// As configured; nothing happened yet.
    #[default]
    Initial,
    /// Assigned while nobody owned it.
    Placed,
    /// An operator asked for it.
    Operator,
    /// The owner is in standby or leaves.
    Standby,
    /// The owner (or the heir) was evicted.
    Evicted,
    /// A start failed on the owner, or the task could not be kept running there.
    Failed,
    /// The owner cannot serve it: its service network or storage is gone.
    Unfit,
    /// The heir has taken over what was released to it.
    HandedOver,
    /// A hand-over was called off before the owner stopped.
    CalledOff,
    /// The owner has stopped it and nobody owns it now.
    Stopped,
    /// The owner runs it and nobody has to be waited for any more.
    Settled,
}

/// On whom a task may still be running although it is to run elsewhere. One byte in the view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum After {
    /// On nobody.
    #[default]
    Nobody,
    /// On this node.
    Node(NodeId),
    /// On more than one: everybody has to be asked.
    Anybody,
}

impl After {
    /// The same, and it may run on `node` too.
    #[must_use]
    pub fn with(self, node: NodeId) -> After {
        match self {
            After::Nobody => After::Node(node),
            After::Node(known) if known == node => self,
            After::Node(_) | After::Anybody => After::Anybody,
        }
    }

    /// The same, but it does not run on `node`.
    #[must_use]
    pub fn without(self, node: NodeId) -> After {
        match self {
            After::Node(known) if known == node => After::Nobody,
            After::Nobody | After::Node(_) | After::Anybody => self,
        }
    }

    /// May it still run on `node`?
    #[must_use]
    pub fn may_mean(self, node: NodeId) -> bool {
        match self {
            After::Nobody => false,
            After::Node(known) => known == node,
            After::Anybody => true,
        }
    }
}

impl From<After> for u8 {
    fn from(after: After) -> u8 {
        match after {
            After::Nobody => 0,
            After::Node(node) => node.number(),
            After::Anybody => u8::MAX,
        }
    }
}

impl TryFrom<u8> for After {
    type Error = String;
    fn try_from(number: u8) -> Result<After, String> {
        match number {
            0 => Ok(After::Nobody),
            u8::MAX => Ok(After::Anybody),
            id => NodeId::try_from(id).map(After::Node),
        }
    }
}

/// One task in the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Who may run it.
    #[serde(with = "maybe_node")]
    pub owner: Option<NodeId>,
    /// Who is to run it as soon as the owner has released it.
    #[serde(with = "maybe_node")]
    pub heir: Option<NodeId>,
    /// Rises with every change of owner or heir.
    pub epoch: u32,
    /// Is it to run at all?
    pub wanted: bool,
    /// Who must be out before anybody may start it: it may still be running there.
    pub after: After,
    /// Nodes on which it could not be kept running lately.
    pub failed_on: NodeSet,
    /// Why the last change was made.
    pub cause: Cause,
    /// Who made it.
    #[serde(with = "maybe_node")]
    pub by: Option<NodeId>,
}

/// `None` as 0, so that a view's size does not depend on who owns what.
mod maybe_node {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::model::NodeId;

    pub(super) fn serialize<S: Serializer>(node: &Option<NodeId>, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u8(node.map_or(0, NodeId::number))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<NodeId>, D::Error> {
        match u8::deserialize(d)? {
            0 => Ok(None),
            id => NodeId::try_from(id).map(Some).map_err(D::Error::custom),
        }
    }
}

/// The agreed state of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Number of this view; the register's epoch. 0: the area was never used.
    pub epoch: u64,
    /// Hash of the configuration the view was made under.
    pub config_hash: ConfigHash,
    /// Its revision.
    pub config_revision: u32,
    /// Nodes in the view, in rising order of their ids.
    pub members: Vec<Member>,
    /// Nodes an operator has put in standby.
    pub standby: NodeSet,
    /// Last eviction of each node that was evicted lately, in rising order of ids.
    pub evictions: Vec<Eviction>,
    /// One record for each configured task.
    pub tasks: Vec<TaskRecord>,
}

/// Why bytes are not a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ViewError {
    /// Written by a newer program.
    #[error("the view has format {found}, this program reads format {VERSION}")]
    Version {
        /// The format found.
        found: u8,
    },
    /// Cut short or changed.
    #[error("the view cannot be decoded")]
    Malformed,
    /// More nodes or tasks than there can be, or not in order.
    #[error("the view lists impossible nodes or tasks")]
    Impossible,
}

impl View {
    /// The record of `node`, if it is in the view.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.node == node)
    }

    /// Everybody listed, joining nodes too: all whose confirmation a lease by frames needs.
    #[must_use]
    pub fn listed(&self) -> NodeSet {
        self.members.iter().map(|member| member.node).collect()
    }

    /// Everybody with full rights.
    #[must_use]
    pub fn full_members(&self) -> NodeSet {
        let full = self
            .members
            .iter()
            .filter(|member| member.standing == Standing::Member);
        full.map(|member| member.node).collect()
    }

    /// Is this life of the node listed with full rights?
    #[must_use]
    pub fn grants(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.member(node)
            .is_some_and(|m| m.incarnation == incarnation && m.standing == Standing::Member)
    }

    /// The task's record; a default one for a task the view does not know yet.
    #[must_use]
    pub fn task(&self, task: TaskIndex) -> TaskRecord {
        self.tasks.get(task.index()).copied().unwrap_or_default()
    }

    /// Puts a node in, or changes its record.
    pub fn admit(&mut self, member: Member) {
        self.dismiss(member.node);
        let place = self
            .members
            .partition_point(|other| other.node < member.node);
        self.members.insert(place, member);
    }

    /// Takes a node out of the members, if it is there.
    pub fn dismiss(&mut self, node: NodeId) {
        self.members.retain(|member| member.node != node);
    }

    /// How often the node was evicted lately.
    #[must_use]
    pub fn times_evicted(&self, node: NodeId) -> u32 {
        let record = self.evictions.iter().find(|eviction| eviction.node == node);
        record.map_or(0, |eviction| u32::from(eviction.times))
    }

    /// Takes the node out and keeps why.
    pub fn evict(&mut self, node: NodeId, by: NodeId, reason: EvictReason) {
        self.dismiss(node);
        let times = (self.times_evicted(node) as u8).saturating_add(1);
        self.evictions.retain(|eviction| eviction.node != node);
        let place = self.evictions.partition_point(|other| other.node < node);
        self.evictions.insert(
            place,
            Eviction {
                node,
                epoch: self.epoch,
                by,
                reason,
                times,
            },
        );
    }

    /// The bytes for the register.
    ///
    /// # Panics
    /// If the view is larger than [`VALUE_MAX`]: its tables are bounded so that it cannot be.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes =
            postcard::to_extend(self, bytes).expect("a view has nothing that cannot be written");
        assert!(bytes.len() <= VALUE_MAX, "a view of {} bytes", bytes.len());
        bytes
    }

    /// Reads what [`View::encode`] wrote.
    ///
    /// # Errors
    /// [`ViewError`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<View, ViewError> {
        let (&version, rest) = bytes.split_first().ok_or(ViewError::Malformed)?;
        if version != VERSION {
            return Err(ViewError::Version { found: version });
        }
        let view: View = postcard::from_bytes(rest).map_err(|_| ViewError::Malformed)?;
        let ordered = view
            .members
            .windows(2)
            .all(|pair| pair[0].node < pair[1].node)
            && view
                .evictions
                .windows(2)
                .all(|pair| pair[0].node < pair[1].node);
        let fits = view.members.len() <= NODES_MAX && view.tasks.len() <= TASKS_MAX;
        if ordered && fits {
            Ok(view)
        } else {
            Err(ViewError::Impossible)
        }
    }
}

impl TaskRecord {
    /// The record without its heir, who may have started the task by then.
    #[must_use]
    pub fn without_heir(self) -> TaskRecord {
        let after = self.heir.map_or(self.after, |heir| self.after.with(heir));
        TaskRecord {
            heir: None,
            after,
            ..self
        }
    }
}

impl Default for TaskRecord {
    fn default() -> TaskRecord {
        TaskRecord {
            owner: None,
            heir: None,
            epoch: 0,
            wanted: true,
            after: After::Nobody,
            failed_on: NodeSet::EMPTY,
            cause: Cause::Initial,
            by: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn largest() -> View {
        let incarnation = Incarnation {
            boot: [0xff; 16],
            start: u32::MAX,
        };
        let mut view = View {
            epoch: u64::MAX,
            config_revision: u32::MAX,
            ..View::default()
        };
        view.standby = NodeSet(u64::MAX);
        for node in NodeId::all() {
            view.evict(node, node, EvictReason::ColdStart);
            view.admit(Member {
                node,
                incarnation,
                standing: Standing::Member,
            });
        }
        let task = TaskRecord {
            owner: NodeId::new(64),
            heir: NodeId::new(64),
            epoch: u32::MAX,
            after: After::Anybody,
            failed_on: NodeSet(u64::MAX),
            by: NodeId::new(64),
            ..TaskRecord::default()
        };
        view.tasks = vec![task; TASKS_MAX];
        view
    }

    #[test]
    fn the_largest_view_fits_its_slot() {
        let view = largest();
        assert_eq!(View::decode(&view.encode()), Ok(view));
    }

    #[test]
    fn foreign_bytes_are_refused() {
        assert_eq!(View::decode(&[]), Err(ViewError::Malformed));
        assert_eq!(View::decode(&[9, 1]), Err(ViewError::Version { found: 9 }));
        let mut bytes = largest().encode();
        bytes.truncate(700);
        assert_eq!(View::decode(&bytes), Err(ViewError::Malformed));
    }

    #[test]
    fn who_may_still_run_a_task_is_forgotten_by_name_only() {
        let [two, three] = [2, 3].map(|id| NodeId::new(id).unwrap());
        let only_two = After::Node(two);
        assert_eq!(only_two.with(two), only_two);
        assert_eq!(only_two.with(three), After::Anybody);
        assert_eq!(only_two.without(three), only_two);
        assert_eq!(only_two.without(two), After::Nobody);
        assert_eq!(After::Anybody.without(two), After::Anybody);
        assert!(only_two.may_mean(two) && !only_two.may_mean(three));
        assert!(After::Anybody.may_mean(two) && !After::Nobody.may_mean(two));
    }

    #[test]
    fn evictions_count_up() {
        let mut view = View::default();
        let node = NodeId::new(3).unwrap();
        view.evict(node, node, EvictReason::Silent);
        view.evict(node, node, EvictReason::Rebooted);
        assert_eq!(view.times_evicted(node), 2);
        assert_eq!(view.evictions.len(), 1);
    }
}
