//! Where each field of the 512 bytes lies. Little-endian; kept for ever for version 1.
//!
//! One Ethernet payload, one disk sector or one datagram is one frame, the same bytes on all.
//!
//! ```text
//! offset  bytes  field
//!      0      4  magic            "STF1"
//!      4      1  version          1
//!      5      1  sender           node id, 1..=64
//!      6      1  link             the sender's number of the link it goes out on
//!      7      1  kind             0 = heartbeat frame; 1 = packet of a message, another table
//!      8     16  cluster          id of the cluster
//!     24     16  boot             the sender's incarnation: boot id
//!     40      4  start            the sender's incarnation: start of the daemon
//!     44      2  flags
//!     46      1  fitness          0 to 255, higher is fitter
//!     47      1  zero
//!     48      8  sequence         rises by one with each frame of an incarnation
//!     56      8  epoch            of the newest view the sender knows
//!     64      8  config hash
//!     72      4  config revision
//!     76      4  zero
//!     80    256  heard            64 x u32: low half of the sequence of the last fresh frame heard
//!                                 from node 1..=64, 0 = none
//!    336    128  tasks            64 x u16: TaskState in bits 0..=3, task epoch modulo 4096 above
//!    464     32  zero
//!    496     16  tag              Purpose::Frame, by sender and incarnation, over bytes 0..496
//!    512
//! ```
//!
//! The head, bytes 0..44, and the place of the tag are the same for all kinds.
//!
//! What is zero here is covered by the tag but not judged: a later sender may use it.

use crate::frame::tag::TAG_LEN;
use crate::model::{NODES_MAX, TASKS_MAX};

/// Bytes of a frame.
pub const FRAME_LEN: usize = 512;

/// "STF1" as it stands in memory.
pub const MAGIC: [u8; 4] = *b"STF1";

/// The only version there is.
pub const VERSION: u8 = 1;

/// A run of bytes within a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    /// Offset of the first byte.
    pub(crate) at: usize,
    /// Number of bytes.
    pub(crate) len: usize,
}

impl Field {
    /// The field that begins at `at`.
    pub(crate) const fn new(at: usize, len: usize) -> Field {
        Field { at, len }
    }

    /// Offset behind the last byte.
    pub(crate) const fn end(self) -> usize {
        self.at + self.len
    }

    /// The field's bytes. `N` must be its length; `bytes` must reach to its end.
    pub(crate) fn get<const N: usize>(self, bytes: &[u8]) -> [u8; N] {
        let mut value = [0; N];
        value.copy_from_slice(&bytes[self.at..self.end()]);
        value
    }

    /// Writes the field's bytes, as many as it has.
    pub(crate) fn put(self, bytes: &mut [u8], value: &[u8]) {
        bytes[self.at..self.end()].copy_from_slice(value);
    }
}

/// Do the fields cover `total` bytes in order, without a gap and without an overlap?
pub(crate) const fn tiles(fields: &[Field], total: usize) -> bool {
    let mut at = 0;
    let mut i = 0;
    while i < fields.len() {
        if fields[i].at != at {
            return false;
        }
        at += fields[i].len;
        i += 1;
    }
    at == total
}

pub(crate) const MAGIC_AT: Field = Field::new(0, 4);
pub(crate) const VERSION_AT: Field = Field::new(4, 1);
pub(crate) const SENDER: Field = Field::new(5, 1);
pub(crate) const LINK: Field = Field::new(6, 1);
pub(crate) const KIND: Field = Field::new(7, 1);
pub(crate) const CLUSTER: Field = Field::new(8, 16);
pub(crate) const BOOT: Field = Field::new(24, 16);
pub(crate) const START: Field = Field::new(40, 4);
pub(super) const FLAGS: Field = Field::new(44, 2);
pub(super) const FITNESS: Field = Field::new(46, 1);
const ZERO_47: Field = Field::new(47, 1);
pub(super) const SEQUENCE: Field = Field::new(48, 8);
pub(super) const EPOCH: Field = Field::new(56, 8);
pub(super) const CONFIG_HASH: Field = Field::new(64, 8);
pub(super) const CONFIG_REVISION: Field = Field::new(72, 4);
const KIND6: Field = Field::new(76, 4);
pub(super) const HEARD: Field = Field::new(80, 4 * NODES_MAX);
pub(super) const TASKS: Field = Field::new(336, 2 * TASKS_MAX);
const ZERO_464: Field = Field::new(464, 32);
pub(crate) const TAG: Field = Field::new(496, TAG_LEN);

const FIELDS: [Field; 20] = [
    MAGIC_AT,
    VERSION_AT,
    SENDER,
    LINK,
    KIND,
    CLUSTER,
    BOOT,
    START,
    FLAGS,
    FITNESS,
    ZERO_47,
    SEQUENCE,
    EPOCH,
    CONFIG_HASH,
    CONFIG_REVISION,
    KIND6,
    HEARD,
    TASKS,
    ZERO_464,
    TAG,
];

const _: () = assert!(tiles(&FIELDS, FRAME_LEN));
