//! What every 512 bytes on a wire begin and end with: whose they are, of which kind, and the tag.
//!
//! Believes nothing before the tag: cheap checks drop what is not meant for us, then one hash
//! decides. Nothing allocates.

use super::layout::{
    BOOT, CLUSTER, FRAME_LEN, KIND, LINK, MAGIC, MAGIC_AT, SENDER, START, TAG, VERSION, VERSION_AT,
};
use super::tag::{Author, Keyring, Purpose};
use crate::model::{ClusterId, Incarnation, NodeId};

/// What follows the head. The kernel's filter does not look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A heartbeat [`Frame`](super::Frame).
    Frame = 0,
    /// A packet of a message.
    Packet = 1,
}

impl Kind {
    /// What the tag is made for.
    const fn purpose(self) -> Purpose {
        match self {
            Kind::Frame => Purpose::Frame,
            Kind::Packet => Purpose::Message,
        }
    }

    /// Do the bytes claim to be of this kind? Decides nothing but who is to look at them.
    pub(crate) fn claimed(self, bytes: &[u8]) -> bool {
        bytes.get(KIND.at) == Some(&(self as u8))
    }
}

/// The fields that all kinds have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The cluster.
    pub(crate) cluster: ClusterId,
    /// Who wrote it.
    pub(crate) sender: NodeId,
    /// The sender's number of the link it goes out on.
    pub(crate) link: u8,
    /// The sender's life.
    pub(crate) incarnation: Incarnation,
}

impl Head {
    /// Writes the head; the rest is left as it is.
    pub(crate) fn put(&self, kind: Kind, out: &mut [u8; FRAME_LEN]) {
        MAGIC_AT.put(out, &MAGIC);
        VERSION_AT.put(out, &[VERSION]);
        SENDER.put(out, &[self.sender.number()]);
        LINK.put(out, &[self.link]);
        KIND.put(out, &[kind as u8]);
        CLUSTER.put(out, &self.cluster);
        BOOT.put(out, &self.incarnation.boot);
        START.put(out, &self.incarnation.start.to_le_bytes());
    }

    /// Puts the tag behind the rest.
    pub(crate) fn seal(&self, kind: Kind, keyring: &Keyring, out: &mut [u8; FRAME_LEN]) {
        let author = Author::Node(self.sender, self.incarnation);
        let tag = keyring.tag(kind.purpose(), author, &out[..TAG.at]);
        TAG.put(out, &tag);
    }

    /// The bytes of one frame or packet of this kind, proved to be `cluster`'s, and their head.
    pub(crate) fn authentic<'a>(
        kind: Kind,
        bytes: &'a [u8],
        keyring: &Keyring,
        cluster: &ClusterId,
    ) -> Result<(&'a [u8; FRAME_LEN], Head), HeadError> {
        let Some(bytes) = bytes.first_chunk::<FRAME_LEN>() else {
            return Err(HeadError::TooShort { len: bytes.len() });
        };
        if MAGIC_AT.get(bytes) != MAGIC {
            return Err(HeadError::NotOurs);
        }
        let version = bytes[VERSION_AT.at];
        if version != VERSION {
            return Err(HeadError::Version { found: version });
        }
        let found = bytes[KIND.at];
        if found != kind as u8 {
            return Err(HeadError::Kind { found });
        }
        let found: ClusterId = CLUSTER.get(bytes);
        if found != *cluster {
            return Err(HeadError::Foreign { cluster: found });
        }
        let found = bytes[SENDER.at];
        let sender = NodeId::new(found).ok_or(HeadError::BadSender { found })?;
        let head = Head {
            cluster: *cluster,
            sender,
            link: bytes[LINK.at],
            incarnation: Incarnation {
                boot: BOOT.get(bytes),
                start: u32::from_le_bytes(START.get(bytes)),
            },
        };
        let author = Author::Node(sender, head.incarnation);
        if !keyring.verify(kind.purpose(), author, &bytes[..TAG.at], &TAG.get(bytes)) {
            return Err(HeadError::BadTag);
        }
        Ok((bytes, head))
    }
}

/// Why bytes are nothing of this cluster's, in the order in which it is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Shorter than a frame.
    #[error("{len} bytes, a frame or packet has {FRAME_LEN}")]
    TooShort {
        /// Bytes there are.
        len: usize,
    },
    /// Something else entirely: the magic is missing.
    #[error("nothing of Standfast")]
    NotOurs,
    /// A version this program does not know.
    #[error("version {found}, this program knows version {VERSION}")]
    Version {
        /// The version it claims.
        found: u8,
    },
    /// Not of the kind that was looked for.
    #[error("kind {found} is another one, or has no meaning")]
    Kind {
        /// The kind it claims.
        found: u8,
    },
    /// Another cluster's: both share a wire or a disk.
    #[error("of another cluster")]
    Foreign {
        /// The cluster it claims to belong to.
        cluster: ClusterId,
    },
    /// The sender's number is none of 1..=64.
    #[error("sender {found} is not a node id")]
    BadSender {
        /// The number it claims.
        found: u8,
    },
    /// Damaged, forged, or written with another secret.
    #[error("the tag is wrong: damaged, forged or made with another secret")]
    BadTag,
}

impl HeadError {
    /// How many there are.
    pub(crate) const COUNT: usize = 7;

    /// Position among them.
    pub(crate) const fn kind(self) -> usize {
        match self {
            HeadError::TooShort { .. } => 0,
            HeadError::NotOurs => 1,
            HeadError::Version { .. } => 2,
            HeadError::Kind { .. } => 3,
            HeadError::Foreign { .. } => 4,
            HeadError::BadSender { .. } => 5,
            HeadError::BadTag => 6,
        }
    }
}
