//! Keyed tags: who wrote these bytes, and for what.
//!
//! Everything that reaches a wire or a shared disk ends in a tag, the first 16 bytes of a keyed
//! BLAKE3 hash. Keys are derived, never stored or sent:
//!
//! ```text
//! cluster secret (32) + cluster id (16)
//!   '-- derive_key(context of the purpose)      one per Purpose, when the keyring is made
//!         '-- keyed_hash(node, boot, start)     one per author, on every tag
//! ```
//!
//! So a tag of one purpose, node or life of a node is worth nothing as any other. Whoever knows the
//! secret can speak as every member: tags keep outsiders out, not traitors.
//!
//! The author's key is derived anew for each tag. That is one more compression beside the eight of
//! a frame, about a ninth, and it buys a keyring that has no state: every thread reads the same one
//! without a lock, and no stream of forged incarnations can push a good key out of a cache.

use std::fmt;

use constant_time_eq::constant_time_eq_16;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::model::{ClusterId, Incarnation, NodeId};

/// Bytes of a tag.
pub const TAG_LEN: usize = 16;

/// The end of every record that is authenticated.
pub type Tag = [u8; TAG_LEN];

/// What a tagged record is for. A tag made for one purpose never passes for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The 512-byte heartbeat frame.
    Frame,
    /// A node's register block on a disk.
    Register,
    /// The header of a disk area.
    Header,
    /// The view as copied to a disk or kept by a voter.
    View,
    /// A message or a fragment of one, on whichever medium.
    Message,
    /// What is said before a node is a member: the join handshake.
    Join,
    /// Why a node resets itself, left on a disk.
    LastWords,
}

impl Purpose {
    /// Position in the keyring.
    const fn index(self) -> usize {
        self as usize
    }
}

/// One context per purpose, in the order of [`Purpose`]: constant, and used nowhere else, as
/// BLAKE3's `derive_key` asks.
const CONTEXTS: [&str; 7] = [
    "standfast 2026-01-01 tag key 1: frame",
    "standfast 2026-01-01 tag key 1: register block",
    "standfast 2026-01-01 tag key 1: disk area header",
    "standfast 2026-01-01 tag key 1: view",
    "standfast 2026-01-01 tag key 1: message",
    "standfast 2026-01-01 tag key 1: join",
    "standfast 2026-01-01 tag key 1: last words",
];

/// Who made a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// Anybody who knows the secret: an administrator who formats a disk, a node not yet numbered.
    Cluster,
    /// This node in this life.
    Node(NodeId, Incarnation),
}

/// All keys of one cluster. Holds secrets: overwritten when dropped, never printed.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Keyring {
    purposes: [[u8; 32]; CONTEXTS.len()],
}

impl Keyring {
    /// The keys that follow from a cluster's secret. A different cluster id gives different keys
    /// even where a secret was copied by mistake.
    #[must_use]
    pub fn new(secret: &[u8; 32], cluster: &ClusterId) -> Keyring {
        let mut material = [0; 48];
        material[..32].copy_from_slice(secret);
        material[32..].copy_from_slice(cluster);
        let purposes = CONTEXTS.map(|context| blake3::derive_key(context, &material));
        material.zeroize();
        Keyring { purposes }
    }

    /// The tag of `bytes`.
    #[must_use]
    pub fn tag(&self, purpose: Purpose, author: Author, bytes: &[u8]) -> Tag {
        let mut key = self.author_key(purpose, author);
        let hash = blake3::keyed_hash(&key, bytes);
        key.zeroize();
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&hash.as_bytes()[..TAG_LEN]);
        tag
    }

    /// Is this the tag of `bytes`? Takes the same time wherever a wrong tag differs.
    #[must_use]
    pub fn verify(&self, purpose: Purpose, author: Author, bytes: &[u8], tag: &Tag) -> bool {
        constant_time_eq_16(&self.tag(purpose, author, bytes), tag)
    }

    /// The author's own key: the purpose's key over node, boot and start; zeros for the cluster,
    /// which no node id equals.
    fn author_key(&self, purpose: Purpose, author: Author) -> [u8; 32] {
        let mut name = [0; 21];
        if let Author::Node(node, incarnation) = author {
            name[0] = node.number();
            name[1..17].copy_from_slice(&incarnation.boot);
            name[17..].copy_from_slice(&incarnation.start.to_le_bytes());
        }
        *blake3::keyed_hash(&self.purposes[purpose.index()], &name).as_bytes()
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Incarnation = Incarnation {
        boot: [4; 16],
        start: 1,
    };

    fn node(id: u8) -> Author {
        Author::Node(NodeId::new(id).unwrap(), LIFE)
    }

    #[test]
    fn a_tag_is_bound_to_all_that_it_is_made_of() {
        let ring = Keyring::new(&[1; 32], &[2; 16]);
        let tag = ring.tag(Purpose::Frame, node(1), b"bytes");
        assert!(ring.verify(Purpose::Frame, node(1), b"bytes", &tag));

        let reborn = Incarnation { start: 2, ..LIFE };
        let rebooted = Incarnation {
            boot: [5; 16],
            ..LIFE
        };
        let id = NodeId::new(1).unwrap();
        assert!(!ring.verify(Purpose::Register, node(1), b"bytes", &tag));
        assert!(!ring.verify(Purpose::Frame, node(2), b"bytes", &tag));
        assert!(!ring.verify(Purpose::Frame, Author::Cluster, b"bytes", &tag));
        assert!(!ring.verify(Purpose::Frame, Author::Node(id, reborn), b"bytes", &tag));
        assert!(!ring.verify(Purpose::Frame, Author::Node(id, rebooted), b"bytes", &tag));
        assert!(!ring.verify(Purpose::Frame, node(1), b"bytez", &tag));

        let other_secret = Keyring::new(&[3; 32], &[2; 16]);
        let other_cluster = Keyring::new(&[1; 32], &[3; 16]);
        assert!(!other_secret.verify(Purpose::Frame, node(1), b"bytes", &tag));
        assert!(!other_cluster.verify(Purpose::Frame, node(1), b"bytes", &tag));
    }

    #[test]
    fn every_purpose_has_its_own_key() {
        let ring = Keyring::new(&[1; 32], &[2; 16]);
        for (i, key) in ring.purposes.iter().enumerate() {
            assert!(!ring.purposes[..i].contains(key), "{}", CONTEXTS[i]);
        }
        assert_eq!(Purpose::LastWords.index(), CONTEXTS.len() - 1);
    }

    #[test]
    fn a_keyring_does_not_print_its_keys() {
        assert_eq!(
            format!("{:?}", Keyring::new(&[1; 32], &[2; 16])),
            "Keyring(secret)"
        );
    }
}
