//! The eight bytes that a node registers with, and what can be read from those of others.
//!
//! ```text
//! 63..48 4843h   47..32 hash of the cluster id   31..24 node id   23..0 epoch of the task
//! ```
//! Never zero, and of no form that other products use (theirs are letters or small numbers). The
//! epoch tells whom a machine that stood still has been followed by: whoever finds a later one
//! than his own is deceived by an old lease.

use std::fmt;

use crate::model::{ClusterId, NodeId};

/// The first sixteen bits.
const MAGIC: u16 = 0x4843;

/// How much of a task's epoch a key holds.
const EPOCH_BITS: u32 = 24;

/// The low bits of a task's epoch, as far as a key holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyEpoch(u32);

impl KeyEpoch {
    /// Of this epoch.
    #[must_use]
    pub fn new(epoch: u32) -> KeyEpoch {
        KeyEpoch(epoch & ((1 << EPOCH_BITS) - 1))
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }

    /// Is it the later one? By serial arithmetic (RFC 1982): right while the two are less than
    /// eight million changes of owner apart.
    #[must_use]
    pub fn is_later_than(self, other: KeyEpoch) -> bool {
        let ahead = KeyEpoch::new(self.0.wrapping_sub(other.0)).0;
        (1..1 << (EPOCH_BITS - 1)).contains(&ahead)
    }
}

/// A cluster, as far as a key can name it. Two clusters in 65536 look the same: they must not share
/// a disk, which the identity in the configuration of either rules out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterTag(u16);

impl ClusterTag {
    /// Of this cluster.
    #[must_use]
    pub fn new(cluster: &ClusterId) -> ClusterTag {
        let hash = blake3::derive_key("standfast 2026 cluster in a reservation key", cluster);
        ClusterTag(u16::from_be_bytes([hash[0], hash[1]]))
    }
}

/// What a node registers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Which cluster.
    pub cluster: ClusterTag,
    /// Which of its nodes.
    pub node: NodeId,
    /// Under which epoch of the task.
    pub epoch: KeyEpoch,
}

impl Key {
    /// The eight bytes.
    #[must_use]
    pub fn number(self) -> u64 {
        u64::from(MAGIC) << 48
            | u64::from(self.cluster.0) << 32
            | u64::from(self.node.number()) << EPOCH_BITS
            | u64::from(self.epoch.0)
    }

    /// Reads a key, if it is one of a node of some cluster.
    #[must_use]
    pub fn read(number: u64) -> Option<Key> {
        if number >> 48 != u64::from(MAGIC) {
            return None;
        }
        Some(Key {
            cluster: ClusterTag((number >> 32) as u16),
            node: NodeId::new((number >> EPOCH_BITS) as u8)?,
            epoch: KeyEpoch::new(number as u32),
        })
    }
}

/// Whose a key is, seen from one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A node's of this cluster.
    Ours(Key),
    /// A node's of another cluster of the same kind.
    OtherCluster(Key),
    /// Of something else.
    Foreign(u64),
}

impl Whose {
    /// Reads a key.
    #[must_use]
    pub fn read(number: u64, cluster: ClusterTag) -> Whose {
        match Key::read(number) {
            Some(key) if key.cluster == cluster => Whose::Ours(key),
            Some(key) => Whose::OtherCluster(key),
            None => Whose::Foreign(number),
        }
    }
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whose::Ours(key) => write!(
                f,
                "{:#018x} of node {} at epoch {}",
                key.number(),
                key.node.number(),
                key.epoch.0
            ),
            Whose::OtherCluster(key) => write!(
                f,
                "{:#018x} of node {} of another cluster",
                key.number(),
                key.node.number()
            ),
            Whose::Foreign(number) => write!(f, "{number:#018x} of something else"),
        }
    }
}
