//! The words every layer shares: who the nodes are, which life of a node is meant, how a task
//! stands.
//!
//! Plain data without behaviour of its own; limits that other layers are built on stand here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Most nodes of a cluster; ids run from 1 to this.
pub const NODES_MAX: usize = 64;

/// Most tasks of a cluster; indexes run from 0 to one less.
pub const TASKS_MAX: usize = 64;

/// Most links of a node, disks included.
pub const LINKS_MAX: usize = 8;

/// A node's number, 1..=64, fixed in the configuration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct NodeId(u8);

impl NodeId {
    /// The node with this number, if it is one of 1..=64.
    #[must_use]
    pub const fn new(id: u8) -> Option<NodeId> {
        if id >= 1 && id as usize <= NODES_MAX {
            Some(NodeId(id))
        } else {
            None
        }
    }

    /// The number, 1..=64.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Position in tables of [`NODES_MAX`] entries, 0..=63.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize - 1
    }

    /// All 64 possible nodes, in rising order.
    pub fn all() -> impl Iterator<Item = NodeId> {
        (1..=NODES_MAX as u8).map(NodeId)
    }
}

impl TryFrom<u8> for NodeId {
    type Error = String;
    fn try_from(id: u8) -> Result<NodeId, String> {
        NodeId::new(id).ok_or_else(|| format!("node id {id} is not within 1 to {NODES_MAX}"))
    }
}

impl From<NodeId> for u8 {
    fn from(id: NodeId) -> u8 {
        id.0
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A set of nodes, one bit each: bit `id - 1`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeSet(#[serde(with = "postcard::fixint::le")] pub u64);

impl NodeSet {
    /// Nobody.
    pub const EMPTY: NodeSet = NodeSet(0);

    /// Just this node.
    #[must_use]
    pub const fn only(node: NodeId) -> NodeSet {
        NodeSet(1 << node.index())
    }

    /// Is the node in the set?
    #[must_use]
    pub const fn contains(self, node: NodeId) -> bool {
        self.0 & (1 << node.index()) != 0
    }

    /// Adds a node.
    pub fn insert(&mut self, node: NodeId) {
        self.0 |= 1 << node.index();
    }

    /// Takes a node out.
    pub fn remove(&mut self, node: NodeId) {
        self.0 &= !(1 << node.index());
    }

    /// The same set with `node` in it.
    #[must_use]
    pub const fn with(self, node: NodeId) -> NodeSet {
        NodeSet(self.0 | (1 << node.index()))
    }

    /// The same set with `node` not in it.
    #[must_use]
    pub const fn without(self, node: NodeId) -> NodeSet {
        NodeSet(self.0 & !(1 << node.index()))
    }

    /// Those of this set that are not in the other.
    #[must_use]
    pub const fn minus(self, other: NodeSet) -> NodeSet {
        NodeSet(self.0 & !other.0)
    }

    /// Is nobody in it?
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many are in it.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Members in rising order.
    pub fn iter(self) -> impl Iterator<Item = NodeId> {
        // Bit by bit, not node by node: every turn of the engine goes through such sets.
        let mut left = self.0;
        std::iter::from_fn(move || {
            let node = NodeId::new(left.trailing_zeros() as u8 + 1)?;
            left &= left - 1;
            Some(node)
        })
    }
}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> NodeSet {
        nodes.into_iter().fold(NodeSet::EMPTY, NodeSet::with)
    }
}

impl fmt::Debug for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Position of a task in the configuration, 0..=63.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct TaskIndex(u8);

impl TaskIndex {
    /// The task at this position, if it is one of 0..=63.
    #[must_use]
    pub const fn new(index: usize) -> Option<TaskIndex> {
        if index < TASKS_MAX {
            Some(TaskIndex(index as u8))
        } else {
            None
        }
    }

    /// Position in tables of [`TASKS_MAX`] entries.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl TryFrom<u8> for TaskIndex {
    type Error = String;
    fn try_from(index: u8) -> Result<TaskIndex, String> {
        TaskIndex::new(index as usize)
            .ok_or_else(|| format!("task index {index} is not within 0 to {}", TASKS_MAX - 1))
    }
}

impl From<TaskIndex> for u8 {
    fn from(task: TaskIndex) -> u8 {
        task.0
    }
}

/// One life of a node: the kernel's boot and the daemon's start within it.
///
/// A changed `boot` proves that everything of the earlier life is gone; a changed `start` alone
/// proves only that the earlier daemon is gone, while the tasks may still run.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Incarnation {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: [u8; 16],
    /// Starts of the daemon within this boot, from 1. A restart of the core under a living guard
    /// does not count: the guard holds the lease meanwhile.
    pub start: u32,
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.boot[..4] {
            write!(f, "{byte:02x}")?;
        }
        write!(f, ".{}", self.start)
    }
}

/// How a task stands on the node that says so. Four bits in a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum TaskState {
    /// Nothing of it runs here, as far as this node knows.
    #[default]
    Stopped = 0,
    /// Objects are being started.
    Starting = 1,
    /// All objects run.
    Started = 2,
    /// Objects are being stopped.
    Stopping = 3,
    /// A start failed here and everything was cleaned up: nothing of it runs here.
    Failed = 4,
    /// Stopping did not succeed: something of it may still run here.
    StopFailed = 5,
    /// Verified as stopped for the task epoch beside it, and not to be started again in that epoch.
    Released = 6,
    /// Not probed yet since the daemon started: something of it may run here.
    Unknown = 7,
}

impl TaskState {
    /// The state with this number, if there is one.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<TaskState> {
        Some(match number {
            0 => TaskState::Stopped,
            1 => TaskState::Starting,
            2 => TaskState::Started,
            3 => TaskState::Stopping,
            4 => TaskState::Failed,
            5 => TaskState::StopFailed,
            6 => TaskState::Released,
            7 => TaskState::Unknown,
            _ => return None,
        })
    }

    /// May anything of the task be running on a node that says so?
    #[must_use]
    pub const fn may_run(self) -> bool {
        match self {
            TaskState::Stopped | TaskState::Failed | TaskState::Released => false,
            TaskState::Starting
            | TaskState::Started
            | TaskState::Stopping
            | TaskState::StopFailed
            | TaskState::Unknown => true,
        }
    }
}

/// A cluster's identity: 16 random bytes made once by `standfast init`.
pub type ClusterId = [u8; 16];

/// The first 8 bytes of the BLAKE3 hash of a configuration's canonical form.
pub type ConfigHash = [u8; 8];

/// Arrays of any length for serde, which knows those of up to 32 elements: a sequence that ends
/// with the last element that is not the default one.
pub mod trimmed_array {
    use std::fmt;
    use std::marker::PhantomData;

    use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
    use serde::ser::{Serialize, SerializeSeq, Serializer};

    /// Writes what does not follow by itself.
    ///
    /// # Errors
    ///
    /// The serializer's.
    pub fn serialize<S, T, const N: usize>(array: &[T; N], serializer: S) -> Result<S::Ok, S::Error>
    where
        S: Serializer,
        T: Serialize + Default + PartialEq,
    {
        let blank = T::default();
        let last = array.iter().rposition(|element| *element != blank);
        let length = last.map_or(0, |last| last + 1);
        let mut sequence = serializer.serialize_seq(Some(length))?;
        for element in &array[..length] {
            sequence.serialize_element(element)?;
        }
        sequence.end()
    }

    /// Reads it, and fills up with default elements.
    ///
    /// # Errors
    ///
    /// The deserializer's, or there are too many elements.
    pub fn deserialize<'de, D, T, const N: usize>(deserializer: D) -> Result<[T; N], D::Error>
    where
        D: Deserializer<'de>,
        T: Deserialize<'de> + Default,
    {
        deserializer.deserialize_seq(Elements(PhantomData))
    }

    /// The same of an array in a box.
    pub mod boxed {
        pub use super::serialize;
        use super::{Deserialize, Deserializer};

        /// Reads it, and fills up with default elements.
        ///
        /// # Errors
        ///
        /// The deserializer's, or there are too many elements.
        pub fn deserialize<'de, D, T, const N: usize>(
            deserializer: D,
        ) -> Result<Box<[T; N]>, D::Error>
        where
            D: Deserializer<'de>,
            T: Deserialize<'de> + Default,
        {
            super::deserialize(deserializer).map(Box::new)
        }
    }

    struct Elements<T, const N: usize>(PhantomData<T>);

    impl<'de, T, const N: usize> Visitor<'de> for Elements<T, N>
    where
        T: Deserialize<'de> + Default,
    {
        type Value = [T; N];

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {N} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<[T; N], A::Error> {
            let mut array = std::array::from_fn(|_| T::default());
            let mut count = 0;
            while let Some(element) = elements.next_element()? {
                let place = array.get_mut(count);
                *place.ok_or_else(|| A::Error::invalid_length(count, &self))? = element;
                count += 1;
            }
            Ok(array)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Holder<const N: usize>(#[serde(with = "trimmed_array")] [u32; N]);

    #[test]
    fn a_set_gives_each_member_once_in_rising_order() {
        let ids = |set: NodeSet| set.iter().map(NodeId::number).collect::<Vec<_>>();
        assert!(ids(NodeSet::EMPTY).is_empty());
        assert_eq!(ids(NodeSet(1 << 63 | 1 << 5 | 1)), [1, 6, 64]);
        assert_eq!(ids(NodeSet(u64::MAX)), (1..=64).collect::<Vec<u8>>());
    }

    #[test]
    fn arrays_are_written_up_to_their_last_word() {
        for (filled, bytes) in [(0, 1), (1, 2), (64, 65)] {
            let mut array = Holder([0; 64]);
            array.0[..filled].fill(7);
            let written = postcard::to_allocvec(&array).unwrap();
            assert_eq!(written.len(), bytes);
            assert_eq!(postcard::from_bytes(&written), Ok(array));
        }
        let inner = Holder([0, 5, 0]);
        let written = postcard::to_allocvec(&inner).unwrap();
        assert_eq!(written, [2, 0, 5]);
        assert_eq!(postcard::from_bytes(&written), Ok(inner));
        let too_many = postcard::to_allocvec(&Holder([1; 4])).unwrap();
        assert!(postcard::from_bytes::<Holder<3>>(&too_many).is_err());
    }
}
