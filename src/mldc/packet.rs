//! The 512 bytes of a packet, and how a message is cut into packets.
//!
//! Little-endian; kept for ever for version 1. The head and the place of the tag are those of a
//! [frame](crate::frame::layout), so that a wire and the kernel's filter treat both alike.
//!
//! ```text
//! offset  bytes  field
//!      0      4  magic            "STF1"
//!      4      1  version          1
//!      5      1  sender           node id, 1..=64
//!      6      1  link             the sender's number of the link it goes out on
//!      7      1  kind             1
//!      8     16  cluster          id of the cluster
//!     24     16  boot             the sender's incarnation: boot id
//!     40      4  start            the sender's incarnation: start of the daemon
//!     44      1  part             position of this packet in the message, from 0
//!     45      1  parts            packets of the message, 1..=10
//!     46      2  length           bytes of data in this packet, 0..=424
//!     48      2  total            bytes of the message, 0..=4096
//!     50      6  zero
//!     56      8  to               bit by node index: who is meant, at least one
//!     64      8  number           of the message, rising within an incarnation, to whomever
//!     72    424  data             then zeros
//!    496     16  tag              Purpose::Message, by sender and incarnation, over bytes 0..496
//!    512
//! ```
//!
//! Every packet but the last is full, so `parts` and `length` follow from `total` and `part`; a
//! packet in which they do not is refused. What is zero is covered by the tag but not judged.

use serde::{Deserialize, Serialize};

use super::MESSAGE_MAX;
use crate::frame::layout::{
    BOOT, CLUSTER, FRAME_LEN, Field, KIND, LINK, MAGIC_AT, SENDER, START, TAG, VERSION_AT, tiles,
};
use crate::frame::{Head, HeadError, Keyring, Kind};
use crate::model::{ClusterId, Incarnation, NodeId, NodeSet};

const PART: Field = Field::new(44, 1);
const PARTS: Field = Field::new(45, 1);
const LENGTH: Field = Field::new(46, 2);
const TOTAL: Field = Field::new(48, 2);
const ZERO_50: Field = Field::new(50, 6);
const TO: Field = Field::new(56, 8);
const NUMBER: Field = Field::new(64, 8);
const DATA: Field = Field::new(72, 424);

const FIELDS: [Field; 17] = [
    MAGIC_AT, VERSION_AT, SENDER, LINK, KIND, CLUSTER, BOOT, START, PART, PARTS, LENGTH, TOTAL,
    ZERO_50, TO, NUMBER, DATA, TAG,
];
const _: () = assert!(tiles(&FIELDS, FRAME_LEN));

/// Most bytes of a message that one packet carries.
pub const DATA_MAX: usize = DATA.len;

/// Most packets of a message.
pub const PARTS_MAX: usize = MESSAGE_MAX.div_ceil(DATA_MAX);

/// One piece of a message. The layout above is what goes over the wire; serde is for records of
/// what came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// Whose it is.
    pub origin: Origin,
    /// The sender's number of the link this copy went out on.
    pub link: u8,
    /// Who is meant.
    pub to: NodeSet,
    /// Number of the message.
    pub number: u64,
    /// Position in the message; below the number of parts that `total` needs.
    part: u8,
    /// Bytes of the message, at most [`MESSAGE_MAX`].
    total: u16,
    /// Zeros behind what belongs to the message.
    #[serde(with = "crate::model::trimmed_array")]
    data: [u8; DATA_MAX],
}

/// Who sends a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The cluster.
    pub cluster: ClusterId,
    /// The sender.
    pub sender: NodeId,
    /// The sender's life.
    pub incarnation: Incarnation,
}

/// Cuts a message into 1 to [`PARTS_MAX`] packets, all for link 0.
///
/// `number` must be above that of every other message of the same life of the sender, to whomever
/// it went: a receiver takes nothing below the highest number it has had a whole message of.
///
/// # Panics
///
/// If the message is longer than [`MESSAGE_MAX`].
pub fn split(
    origin: Origin,
    to: NodeSet,
    number: u64,
    message: &[u8],
) -> impl Iterator<Item = Packet> {
    let total = message.len();
    assert!(total <= MESSAGE_MAX, "a message of {total} bytes");
    (0..parts_of(total)).map(move |part| {
        let at = part * DATA_MAX;
        let piece = &message[at..at + length_of(total, part)];
        let mut data = [0; DATA_MAX];
        data[..piece.len()].copy_from_slice(piece);
        Packet {
            origin,
            link: 0,
            to,
            number,
            part: part as u8,
            total: total as u16,
            data,
        }
    })
}

/// Packets of a message of `total` bytes; an empty one still takes a packet.
const fn parts_of(total: usize) -> usize {
    if total == 0 {
        1
    } else {
        total.div_ceil(DATA_MAX)
    }
}

/// Bytes in packet `part` of a message of `total` bytes; `part` is below [`parts_of`] it.
const fn length_of(total: usize, part: usize) -> usize {
    let left = total - part * DATA_MAX;
    if left < DATA_MAX { left } else { DATA_MAX }
}

impl Packet {
    /// Does the part exist in a message of this length? So for each one that was decoded or cut;
    /// not for each one that serde has made.
    #[must_use]
    pub const fn makes_sense(&self) -> bool {
        self.total() <= MESSAGE_MAX && self.part() < self.parts()
    }

    /// Position in the message, 0 to one less than [`Packet::parts`].
    #[must_use]
    pub const fn part(&self) -> usize {
        self.part as usize
    }

    /// Packets of the message, 1..=[`PARTS_MAX`].
    #[must_use]
    pub const fn parts(&self) -> usize {
        parts_of(self.total())
    }

    /// Bytes of the whole message, 0..=[`MESSAGE_MAX`].
    #[must_use]
    pub const fn total(&self) -> usize {
        self.total as usize
    }

    /// Where in the message [`Packet::data`] belongs.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.part() * DATA_MAX
    }

    /// The piece of the message.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data[..length_of(self.total(), self.part())]
    }

    /// Do the bytes claim to be a packet rather than a frame? Proves nothing.
    #[must_use]
    pub fn claimed(bytes: &[u8]) -> bool {
        Kind::Packet.claimed(bytes)
    }

    /// Writes the packet and its tag.
    pub fn encode(&self, keyring: &Keyring, out: &mut [u8; FRAME_LEN]) {
        let Origin {
            cluster,
            sender,
            incarnation,
        } = self.origin;
        let head = Head {
            cluster,
            sender,
            link: self.link,
            incarnation,
        };
        out.fill(0);
        head.put(Kind::Packet, out);
        PART.put(out, &[self.part]);
        PARTS.put(out, &[self.parts() as u8]);
        LENGTH.put(out, &(self.data().len() as u16).to_le_bytes());
        TOTAL.put(out, &self.total.to_le_bytes());
        TO.put(out, &self.to.0.to_le_bytes());
        NUMBER.put(out, &self.number.to_le_bytes());
        DATA.put(out, &self.data);
        head.seal(Kind::Packet, keyring, out);
    }

    /// The packet in the first [`FRAME_LEN`] of `bytes`, if it is a true one of this cluster,
    /// whomever it is meant for.
    ///
    /// # Errors
    ///
    /// Not a packet, not ours, forged, or one that contradicts itself.
    pub fn decode(
        bytes: &[u8],
        keyring: &Keyring,
        cluster: &ClusterId,
    ) -> Result<Packet, PacketError> {
        let (bytes, head) = Head::authentic(Kind::Packet, bytes, keyring, cluster)?;
        let to = NodeSet(u64::from_le_bytes(TO.get(bytes)));
        if to.is_empty() {
            return Err(PacketError::NoReceiver);
        }
        let total = u16::from_le_bytes(TOTAL.get(bytes));
        let length = u16::from_le_bytes(LENGTH.get(bytes));
        let (part, parts) = (bytes[PART.at], bytes[PARTS.at]);
        let bad_parts = PacketError::BadParts { part, parts, total };
        let possible = usize::from(total) <= MESSAGE_MAX && part < parts;
        if !possible || parts_of(total.into()) != usize::from(parts) {
            return Err(bad_parts);
        }
        let expected = length_of(total.into(), part.into());
        if usize::from(length) != expected {
            return Err(PacketError::BadLength { length, expected });
        }
        let mut data = [0; DATA_MAX];
        data[..expected].copy_from_slice(&bytes[DATA.at..DATA.at + expected]);
        Ok(Packet {
            origin: Origin {
                cluster: head.cluster,
                sender: head.sender,
                incarnation: head.incarnation,
            },
            link: head.link,
            to,
            number: u64::from_le_bytes(NUMBER.get(bytes)),
            part,
            total,
            data,
        })
    }
}

/// Why bytes are not a packet for us, in the order in which it is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Not even the head is good.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// Authentic, but meant for nobody.
    #[error("meant for nobody")]
    NoReceiver,
    /// Authentic, but no message of this length has such a part.
    #[error("part {part} of {parts} of a message of {total} bytes makes no sense")]
    BadParts {
        /// The part it claims to be, from 0.
        part: u8,
        /// The number of parts it claims.
        parts: u8,
        /// The length of the message it claims.
        total: u16,
    },
    /// Authentic, but with more or less data than this part of the message has.
    #[error("{length} bytes of data, {expected} expected")]
    BadLength {
        /// The length it claims.
        length: u16,
        /// The length that follows from the rest.
        expected: usize,
    },
}

impl PacketError {
    /// Names of a table of counters, by [`PacketError::kind`].
    pub const KINDS: [&str; HeadError::COUNT + 3] = [
        "packet-too-short",
        "packet-not-ours",
        "packet-version",
        "packet-kind",
        "packet-foreign",
        "packet-bad-sender",
        "packet-bad-tag",
        "packet-no-receiver",
        "packet-bad-parts",
        "packet-bad-length",
    ];

    /// Position in a table of counters.
    #[must_use]
    pub const fn kind(self) -> usize {
        match self {
            PacketError::Head(error) => error.kind(),
            PacketError::NoReceiver => HeadError::COUNT,
            PacketError::BadParts { .. } => HeadError::COUNT + 1,
            PacketError::BadLength { .. } => HeadError::COUNT + 2,
        }
    }
}
