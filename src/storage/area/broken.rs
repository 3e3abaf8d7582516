//! That a disk's COMPARE AND WRITE was found broken: written on the disk itself, so that every node
//! knows, and every later start, until the disk is formatted again. In the slot of the first shadow
//! copy.
//!
//! ```text
//! offset  bytes  field
//!      0      4  magic         "STRB"
//!      4      1  version       1
//!      5      1  node          id of the node that has found it
//!      6      2  zero
//!      8     16  area nonce    of the format
//!     24     16  boot          the node's incarnation: boot id
//!     40      4  start         the node's incarnation: start of the daemon
//!     44      4  zero
//!     48      8  won           changes that the node had won in the contest
//!     56      8  wall          milliseconds since 1970 on the node's wall clock; 0 = not known
//!     64    428  zero
//!    492     16  tag           Purpose::Register, by node and incarnation, over bytes 0..492
//!    508      4  crc           CRC32C of bytes 0..508
//!    512
//! ```
//!
//! It is written by plain writes only: a change of the counter beside it, which may yet be under
//! way on a disk that is not to be trusted with one, cannot touch it. Whoever finds the same writes
//! the same.

use crate::frame::layout::{Field, tiles};
use crate::frame::tag::{Author, Keyring, Purpose, TAG_LEN};
use crate::model::{Incarnation, NodeId};

use super::device::{AreaError, Blocks, read, write_slot};
use super::{AreaNonce, Geometry, Header, SECTOR_LEN, SLOT_LEN, Side};

const BROKEN_MAGIC: [u8; 4] = *b"STRB";

/// The only version there is.
const VERSION: u8 = 1;

const MAGIC: Field = Field::new(0, 4);
const VERSION_AT: Field = Field::new(4, 1);
const NODE: Field = Field::new(5, 1);
const ZERO_6: Field = Field::new(6, 2);
const NONCE: Field = Field::new(8, 16);
const BOOT: Field = Field::new(24, 16);
const START: Field = Field::new(40, 4);
const ZERO_44: Field = Field::new(44, 4);
const WON: Field = Field::new(48, 8);
const WALL: Field = Field::new(56, 8);
const ZERO_64: Field = Field::new(64, 428);
const TAG: Field = Field::new(492, TAG_LEN);
const CRC: Field = Field::new(508, 4);

const FIELDS: [Field; 13] = [
    MAGIC, VERSION_AT, NODE, ZERO_6, NONCE, BOOT, START, ZERO_44, WON, WALL, ZERO_64, TAG, CRC,
];
const _: () = assert!(tiles(&FIELDS, SECTOR_LEN));

/// A change that was won by COMPARE AND WRITE, and is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The node that has lost it.
    pub node: NodeId,
    /// In which life.
    pub life: Incarnation,
    /// Changes it had won in this contest.
    pub won: u64,
    /// When, in milliseconds since 1970 on its wall clock; 0 if it had none.
    pub wall_ms: u64,
}

impl Broken {
    /// What it means, and what to do.
    #[must_use]
    pub fn words(&self) -> String {
        format!(
            "a change that node {} had won by compare-and-write is missing on this disk: it lets \
             two nodes win at once, so the register is not changed any more. Stop Standfast on all \
             nodes and run 'standfast disk format --register paxos'",
            self.node
        )
    }
}

impl Geometry {
    /// The slot that tells of a broken COMPARE AND WRITE: that of the first shadow copy.
    #[must_use]
    pub const fn broken(self) -> u64 {
        self.view(Side::A)
    }
}

/// Reads whether COMPARE AND WRITE of this area was found broken. What is damaged, forged or of an
/// earlier format says nothing.
///
/// # Errors
///
/// The disk cannot be read.
pub fn read_broken(
    dev: &impl Blocks,
    header: &Header,
    keyring: &Keyring,
) -> Result<Option<Broken>, AreaError> {
    let mut slot = [0; SLOT_LEN];
    read(dev, header.geometry.broken(), &mut slot)?;
    Ok(decode(&header.nonce, &slot, keyring))
}

/// Writes it down, and reads it back.
///
/// # Errors
///
/// The disk cannot be written or read, or does not keep it.
pub fn write_broken(
    dev: &impl Blocks,
    header: &Header,
    broken: &Broken,
    keyring: &Keyring,
) -> Result<(), AreaError> {
    let mut slot = [0; SLOT_LEN];
    encode(&header.nonce, broken, keyring, &mut slot);
    write_slot(dev, header.geometry.broken(), &slot)
}

fn encode(area: &AreaNonce, broken: &Broken, keyring: &Keyring, out: &mut [u8; SLOT_LEN]) {
    let Broken {
        node,
        life,
        won,
        wall_ms,
    } = *broken;
    MAGIC.put(out, &BROKEN_MAGIC);
    VERSION_AT.put(out, &[VERSION]);
    NODE.put(out, &[node.number()]);
    NONCE.put(out, area);
    BOOT.put(out, &life.boot);
    START.put(out, &life.start.to_le_bytes());
    WON.put(out, &won.to_le_bytes());
    WALL.put(out, &wall_ms.to_le_bytes());
    let author = Author::Node(node, life);
    let tag = keyring.tag(Purpose::Register, author, &out[..TAG.at]);
    TAG.put(out, &tag);
    let crc = crc32c::crc32c(&out[..CRC.at]);
    CRC.put(out, &crc.to_le_bytes());
}

fn decode(area: &AreaNonce, slot: &[u8; SLOT_LEN], keyring: &Keyring) -> Option<Broken> {
    let magic = MAGIC.get(slot) == BROKEN_MAGIC && slot[VERSION_AT.at] == VERSION;
    if !magic || NONCE.get(slot) != *area {
        return None;
    }
    let node = NodeId::new(slot[NODE.at])?;
    let life = Incarnation {
        boot: BOOT.get(slot),
        start: u32::from_le_bytes(START.get(slot)),
    };
    let author = Author::Node(node, life);
    let tag = TAG.get(slot);
    let whole = crc32c::crc32c(&slot[..CRC.at]) == u32::from_le_bytes(CRC.get(slot))
        && keyring.verify(Purpose::Register, author, &slot[..TAG.at], &tag);
    whole.then(|| Broken {
        node,
        life,
        won: u64::from_le_bytes(WON.get(slot)),
        wall_ms: u64::from_le_bytes(WALL.get(slot)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AREA: AreaNonce = [5; 16];

    fn keyring() -> Keyring {
        Keyring::new(&[1; 32], &[7; 16])
    }

    fn found() -> Broken {
        Broken {
            node: NodeId::new(3).unwrap(),
            life: Incarnation {
                boot: [9; 16],
                start: 4,
            },
            won: 17,
            wall_ms: 1_700_000_000_000,
        }
    }

    fn slot() -> [u8; SLOT_LEN] {
        let mut slot = [0; SLOT_LEN];
        encode(&AREA, &found(), &keyring(), &mut slot);
        slot
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(decode(&AREA, &slot(), &keyring()), Some(found()));
        assert_eq!(decode(&AREA, &[0; SLOT_LEN], &keyring()), None);
    }

    #[test]
    fn damaged_forged_and_earlier_ones_say_nothing() {
        for bit in 0..SECTOR_LEN * 8 {
            let mut slot = slot();
            slot[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&AREA, &slot, &keyring()), None, "bit {bit}");
        }
        assert_eq!(decode(&[6; 16], &slot(), &keyring()), None);
        let other = Keyring::new(&[2; 32], &[7; 16]);
        assert_eq!(decode(&AREA, &slot(), &other), None);
    }
}
