//! The slot of a register block: what one node tells all others about its ballots and its value.
//!
//! ```text
//! offset  bytes  field
//!      0      4  magic         "STRB"
//!      4      1  version       1
//!      5      1  node          id of the node whose block it is
//!      6      1  copy          0 = A, 1 = B
//!      7      1  zero
//!      8     16  area nonce    of the format
//!     24     16  boot          the writer's incarnation: boot id
//!     40      4  start         the writer's incarnation: start of the daemon
//!     44      4  value length  bytes of the value, 0..=3584
//!     48      8  writes
//!     56      8  mbal
//!     64      8  bal
//!     72      8  value epoch
//!     80      8  value nonce
//!     88     32  tail hash     BLAKE3 of bytes 512..4096
//!    120    372  zero
//!    492     16  tag           Purpose::Register, by node and incarnation, over bytes 0..492
//!    508      4  crc           CRC32C of bytes 0..508
//!    512   3584  value, then zeros
//!   4096
//! ```
//!
//! A disk may tear a slot at any 512 bytes, but Disk Paxos needs a block that is either the old or
//! the new one. So there are two copies, and a writer writes the one that does not hold its newest
//! good block ([`NewestBlock::next`]), again and again until the disk confirms it:
//!
//! ```text
//! A: 6  B: 7      newest is 7, the next write goes to A
//! A: 8? B: 7      torn: still 7
//! A: 8  B: 7      written: 8
//! ```
//!
//! A reader cannot tell a torn write, which nobody was told of, from later damage of a confirmed
//! one; [`NewestBlock::damaged`] says that one of the two has happened. A writer that repeats each
//! confirmed block into the other copy when it has the time makes the second harmless. Nor can tags
//! tell that a disk was set back to an earlier content: its owner notices, others do not.

use crate::frame::layout::{Field, tiles};
use crate::frame::tag::{Author, Keyring, Purpose, TAG_LEN};
use crate::model::{Incarnation, NodeId};
use crate::register::{Ballot, Block, VALUE_MAX, Value};

use super::{AreaNonce, SECTOR_LEN, SLOT_LEN, Side, Slot};

const BLOCK_MAGIC: [u8; 4] = *b"STRB";

/// The only version there is.
const VERSION: u8 = 1;

const MAGIC: Field = Field::new(0, 4);
const VERSION_AT: Field = Field::new(4, 1);
const NODE: Field = Field::new(5, 1);
const COPY: Field = Field::new(6, 1);
const ZERO_7: Field = Field::new(7, 1);
const NONCE: Field = Field::new(8, 16);
const BOOT: Field = Field::new(24, 16);
const START: Field = Field::new(40, 4);
const VALUE_LEN: Field = Field::new(44, 4);
const WRITES: Field = Field::new(48, 8);
const MBAL: Field = Field::new(56, 8);
const BAL: Field = Field::new(64, 8);
const VALUE_EPOCH: Field = Field::new(72, 8);
const VALUE_NONCE: Field = Field::new(80, 8);
const TAIL_HASH: Field = Field::new(88, 32);
const ZERO_120: Field = Field::new(120, 372);
const TAG: Field = Field::new(492, TAG_LEN);
const CRC: Field = Field::new(508, 4);
const TAIL: Field = Field::new(SECTOR_LEN, VALUE_MAX);

const FIELDS: [Field; 19] = [
    MAGIC,
    VERSION_AT,
    NODE,
    COPY,
    ZERO_7,
    NONCE,
    BOOT,
    START,
    VALUE_LEN,
    WRITES,
    MBAL,
    BAL,
    VALUE_EPOCH,
    VALUE_NONCE,
    TAIL_HASH,
    ZERO_120,
    TAG,
    CRC,
    TAIL,
];
const _: () = assert!(tiles(&FIELDS, SLOT_LEN));

/// A block as it was found in a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredBlock {
    /// The block; the default one where the slot was never written.
    pub block: Block,
    /// The life of the node that wrote it; `None` where the slot was never written.
    pub writer: Option<Incarnation>,
}

/// Why a slot holds no block that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// Shorter than a slot.
    #[error("{len} bytes, a slot has {SLOT_LEN}")]
    TooShort {
        /// Bytes there are.
        len: usize,
    },
    /// A write was interrupted, or the disk has lost a part.
    #[error("damaged: a write was interrupted or the disk lost a part of it")]
    Torn,
    /// Something else was written here.
    #[error("not a register block: something else was written over it")]
    NotABlock,
    /// A version this program does not know.
    #[error("register block version {found}, this program knows version {VERSION}")]
    Version {
        /// The version it has.
        found: u8,
    },
    /// A whole block, in the wrong place.
    #[error("a block of node {node}, copy {copy}, which does not belong here")]
    Misplaced {
        /// The node it names.
        node: u8,
        /// The copy it names.
        copy: u8,
    },
    /// A whole block, of an earlier format or another disk.
    #[error("a block of an earlier format or of another disk")]
    Stale,
    /// Whole, but forged or written with another secret.
    #[error("the tag is wrong: forged, or written with another cluster secret")]
    WrongKey,
    /// Authentic, but too long a value for this program.
    #[error("a value of {len} bytes, at most {VALUE_MAX} fit")]
    ValueLength {
        /// The length it claims.
        len: u32,
    },
    /// Both copies are good and count the same writes, but differ.
    #[error("both copies count {writes} writes but differ: two writers use one node id")]
    Contradiction {
        /// What both count.
        writes: u64,
    },
}

/// Neither copy of a node's block counts. Never to be taken for a block that was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the register block of node {node} is lost; copy A: {a}; copy B: {b}")]
pub struct BlockLost {
    /// Whose block it was.
    pub node: NodeId,
    /// What is wrong with copy A.
    pub a: SlotError,
    /// What is wrong with copy B.
    pub b: SlotError,
}

/// The block that counts, of the two copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewestBlock {
    /// What was found.
    pub stored: StoredBlock,
    /// The copy the block's owner must write next, and write again until the disk confirms.
    pub next: Side,
    /// What is wrong with the copy `next`, if anything.
    pub damaged: Option<SlotError>,
}

/// Writes the slot of `node`'s block.
///
/// # Panics
///
/// If the value is longer than [`VALUE_MAX`], or `writes` is 0, which says never written.
pub fn encode_block(
    area: &AreaNonce,
    (node, side): (NodeId, Side),
    block: &Block,
    writer: Incarnation,
    keyring: &Keyring,
    out: &mut Slot,
) {
    let value = &block.value;
    assert!(block.writes > 0, "a block that counts its own write");
    assert!(
        value.bytes.len() <= VALUE_MAX,
        "a value of {} bytes",
        value.bytes.len()
    );
    out.fill(0);
    out[TAIL.at..TAIL.at + value.bytes.len()].copy_from_slice(&value.bytes);
    MAGIC.put(out, &BLOCK_MAGIC);
    VERSION_AT.put(out, &[VERSION]);
    NODE.put(out, &[node.number()]);
    COPY.put(out, &[side as u8]);
    NONCE.put(out, area);
    BOOT.put(out, &writer.boot);
    START.put(out, &writer.start.to_le_bytes());
    VALUE_LEN.put(out, &(value.bytes.len() as u32).to_le_bytes());
    WRITES.put(out, &block.writes.to_le_bytes());
    MBAL.put(out, &block.mbal.0.to_le_bytes());
    BAL.put(out, &block.bal.0.to_le_bytes());
    VALUE_EPOCH.put(out, &value.epoch.to_le_bytes());
    VALUE_NONCE.put(out, &value.nonce.to_le_bytes());
    let tail_hash = blake3::hash(&out[TAIL.at..]);
    TAIL_HASH.put(out, tail_hash.as_bytes());
    let author = Author::Node(node, writer);
    let tag = keyring.tag(Purpose::Register, author, &out[..TAG.at]);
    TAG.put(out, &tag);
    let crc = crc32c::crc32c(&out[..CRC.at]);
    CRC.put(out, &crc.to_le_bytes());
}

/// The block in a slot that was read from the place of `node`'s copy `side`. A slot of zeros was
/// never written and holds the default block.
pub fn decode_block(
    area: &AreaNonce,
    (node, side): (NodeId, Side),
    slot: &[u8],
    keyring: &Keyring,
) -> Result<StoredBlock, SlotError> {
    let Some(slot) = slot.first_chunk::<SLOT_LEN>() else {
        return Err(SlotError::TooShort { len: slot.len() });
    };
    if *slot == [0; SLOT_LEN] {
        return Ok(StoredBlock::default());
    }
    let writer = intact(area, (node, side), slot, keyring)?;
    let len = u32::from_le_bytes(VALUE_LEN.get(slot));
    let bytes = slot[TAIL.at..]
        .get(..len as usize)
        .ok_or(SlotError::ValueLength { len })?;
    let word = |field: Field| u64::from_le_bytes(field.get(slot));
    let block = Block {
        writes: word(WRITES),
        mbal: Ballot(word(MBAL)),
        bal: Ballot(word(BAL)),
        value: Value {
            epoch: word(VALUE_EPOCH),
            nonce: word(VALUE_NONCE),
            bytes: bytes.to_vec(),
        },
    };
    Ok(StoredBlock {
        block,
        writer: Some(writer),
    })
}

/// Of both copies of `node`'s block, the good one that counts more writes.
pub fn newest_block(
    area: &AreaNonce,
    node: NodeId,
    copy_a: &[u8],
    copy_b: &[u8],
    keyring: &Keyring,
) -> Result<NewestBlock, BlockLost> {
    let a = decode_block(area, (node, Side::A), copy_a, keyring);
    let b = decode_block(area, (node, Side::B), copy_b, keyring);
    let (stored, next, damaged) = match (a, b) {
        (Ok(a), Ok(b)) => {
            let writes = a.block.writes;
            if writes == b.block.writes && a.block != b.block {
                let contradiction = SlotError::Contradiction { writes };
                return Err(BlockLost {
                    node,
                    a: contradiction,
                    b: contradiction,
                });
            }
            if writes > b.block.writes {
                (a, Side::B, None)
            } else {
                (b, Side::A, None)
            }
        }
        (Ok(a), Err(error)) => (a, Side::B, Some(error)),
        (Err(error), Ok(b)) => (b, Side::A, Some(error)),
        (Err(a), Err(b)) => return Err(BlockLost { node, a, b }),
    };
    Ok(NewestBlock {
        stored,
        next,
        damaged,
    })
}

/// Who wrote the slot, if all of it is whole, in its place and authentic.
fn intact(
    area: &AreaNonce,
    (node, side): (NodeId, Side),
    slot: &Slot,
    keyring: &Keyring,
) -> Result<Incarnation, SlotError> {
    if MAGIC.get(slot) != BLOCK_MAGIC {
        let blank = slot[..SECTOR_LEN].iter().all(|byte| *byte == 0);
        return Err(if blank {
            SlotError::Torn
        } else {
            SlotError::NotABlock
        });
    }
    if crc32c::crc32c(&slot[..CRC.at]) != u32::from_le_bytes(CRC.get(slot)) {
        return Err(SlotError::Torn);
    }
    let found = slot[VERSION_AT.at];
    if found != VERSION {
        return Err(SlotError::Version { found });
    }
    let (found_node, found_copy) = (slot[NODE.at], slot[COPY.at]);
    if found_node != node.number() || found_copy != side as u8 {
        return Err(SlotError::Misplaced {
            node: found_node,
            copy: found_copy,
        });
    }
    if NONCE.get(slot) != *area {
        return Err(SlotError::Stale);
    }
    let start = u32::from_le_bytes(START.get(slot));
    let writer = Incarnation {
        boot: BOOT.get(slot),
        start,
    };
    let author = Author::Node(node, writer);
    if !keyring.verify(Purpose::Register, author, &slot[..TAG.at], &TAG.get(slot)) {
        return Err(SlotError::WrongKey);
    }
    if blake3::hash(&slot[TAIL.at..]).as_bytes() != &TAIL_HASH.get::<32>(slot) {
        return Err(SlotError::Torn);
    }
    Ok(writer)
}
