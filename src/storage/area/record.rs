//! The record that COMPARE AND WRITE works on: one logical block, of which the first 512 bytes
//! matter and the rest is zero.
//!
//! ```text
//! offset  bytes  field
//!      0      4  magic         "STRR"
//!      4      1  version       1
//!      5      1  writer        id of the node that wrote this image
//!      6      1  place         id of the node whose block holds the value; 0 = there is none
//!      7      1  zero
//!      8     16  area nonce    of the format
//!     24     16  boot          the writer's incarnation: boot id
//!     40      4  start         the writer's incarnation: start of the daemon
//!     44      4  zero
//!     48      8  count         number of the image
//!     56      8  bal           ballot in which the disk has accepted the value
//!     64      8  place writes  writes of the block that holds the value: even copy A, odd copy B
//!     72      8  value epoch
//!     80      8  value nonce
//!     88     32  value hash    of epoch, nonce and bytes
//!    120    372  zero
//!    492     16  tag           Purpose::Register, by writer and incarnation, over bytes 0..492
//!    508      4  crc           CRC32C of bytes 0..508
//!    512
//! ```
//!
//! A slot of zeros was never written. The writer's life makes images of two lives differ even where
//! the register would have them alike.

use crate::frame::layout::{Field, tiles};
use crate::frame::tag::{Author, Keyring, Purpose, TAG_LEN};
use crate::model::{Incarnation, NodeId};
use crate::register::{Ballot, Place, Record, Value};

use super::device::read;
use super::{
    AreaError, AreaNonce, Blocks, Header, SECTOR_LEN, SLOT_LEN, Side, SlotError, decode_block,
};

/// Bytes of a record that matter.
pub const RECORD_LEN: usize = SECTOR_LEN;

const RECORD_MAGIC: [u8; 4] = *b"STRR";

/// The only version there is.
const VERSION: u8 = 1;

const MAGIC: Field = Field::new(0, 4);
const VERSION_AT: Field = Field::new(4, 1);
const WRITER: Field = Field::new(5, 1);
const PLACE: Field = Field::new(6, 1);
const ZERO_7: Field = Field::new(7, 1);
const NONCE: Field = Field::new(8, 16);
const BOOT: Field = Field::new(24, 16);
const START: Field = Field::new(40, 4);
const ZERO_44: Field = Field::new(44, 4);
const COUNT: Field = Field::new(48, 8);
const BAL: Field = Field::new(56, 8);
const PLACE_WRITES: Field = Field::new(64, 8);
const VALUE_EPOCH: Field = Field::new(72, 8);
const VALUE_NONCE: Field = Field::new(80, 8);
const VALUE_HASH: Field = Field::new(88, 32);
const ZERO_120: Field = Field::new(120, 372);
const TAG: Field = Field::new(492, TAG_LEN);
const CRC: Field = Field::new(508, 4);

const FIELDS: [Field; 18] = [
    MAGIC,
    VERSION_AT,
    WRITER,
    PLACE,
    ZERO_7,
    NONCE,
    BOOT,
    START,
    ZERO_44,
    COUNT,
    BAL,
    PLACE_WRITES,
    VALUE_EPOCH,
    VALUE_NONCE,
    VALUE_HASH,
    ZERO_120,
    TAG,
    CRC,
];
const _: () = assert!(tiles(&FIELDS, RECORD_LEN));

/// A record as it was found on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredRecord {
    /// The record; the default one where it was never written.
    pub record: Record,
    /// Who wrote it, in which life; `None` where it was never written.
    pub writer: Option<(NodeId, Incarnation)>,
}

/// Writes the record's 512 bytes.
///
/// # Panics
///
/// If `count` is 0, which says never written.
pub fn encode_record(
    area: &AreaNonce,
    record: &Record,
    (node, life): (NodeId, Incarnation),
    keyring: &Keyring,
    out: &mut [u8; RECORD_LEN],
) {
    assert!(record.count > 0, "an image that counts");
    out.fill(0);
    MAGIC.put(out, &RECORD_MAGIC);
    VERSION_AT.put(out, &[VERSION]);
    WRITER.put(out, &[node.number()]);
    NONCE.put(out, area);
    BOOT.put(out, &life.boot);
    START.put(out, &life.start.to_le_bytes());
    COUNT.put(out, &record.count.to_le_bytes());
    BAL.put(out, &record.bal.0.to_le_bytes());
    if let Some(place) = record.place {
        PLACE.put(out, &[place.node.number()]);
        PLACE_WRITES.put(out, &place.writes.to_le_bytes());
    }
    VALUE_EPOCH.put(out, &record.epoch.to_le_bytes());
    VALUE_NONCE.put(out, &record.nonce.to_le_bytes());
    VALUE_HASH.put(out, &record.hash);
    let tag = keyring.tag(Purpose::Register, Author::Node(node, life), &out[..TAG.at]);
    TAG.put(out, &tag);
    let crc = crc32c::crc32c(&out[..CRC.at]);
    CRC.put(out, &crc.to_le_bytes());
}

/// The record in a sector that was read from its place. Zeros were never written.
///
/// # Errors
///
/// [`SlotError`], but for those about places and values.
pub fn decode_record(
    area: &AreaNonce,
    sector: &[u8],
    keyring: &Keyring,
) -> Result<StoredRecord, SlotError> {
    let Some(sector) = sector.first_chunk::<RECORD_LEN>() else {
        return Err(SlotError::TooShort { len: sector.len() });
    };
    if *sector == [0; RECORD_LEN] {
        return Ok(StoredRecord::default());
    }
    if MAGIC.get(sector) != RECORD_MAGIC {
        return Err(SlotError::NotABlock);
    }
    if crc32c::crc32c(&sector[..CRC.at]) != u32::from_le_bytes(CRC.get(sector)) {
        return Err(SlotError::Torn);
    }
    let found = sector[VERSION_AT.at];
    if found != VERSION {
        return Err(SlotError::Version { found });
    }
    if NONCE.get(sector) != *area {
        return Err(SlotError::Stale);
    }
    let life = Incarnation {
        boot: BOOT.get(sector),
        start: u32::from_le_bytes(START.get(sector)),
    };
    let node = NodeId::new(sector[WRITER.at]).ok_or(SlotError::NotABlock)?;
    let author = Author::Node(node, life);
    if !keyring.verify(
        Purpose::Register,
        author,
        &sector[..TAG.at],
        &TAG.get(sector),
    ) {
        return Err(SlotError::WrongKey);
    }
    let word = |field: Field| u64::from_le_bytes(field.get(sector));
    let place = NodeId::new(sector[PLACE.at]).map(|node| Place {
        node,
        writes: word(PLACE_WRITES),
    });
    let record = Record {
        count: word(COUNT),
        bal: Ballot(word(BAL)),
        place,
        epoch: word(VALUE_EPOCH),
        nonce: word(VALUE_NONCE),
        hash: VALUE_HASH.get(sector),
    };
    Ok(StoredRecord {
        record,
        writer: Some((node, life)),
    })
}

/// Reads the record of an area, and the value that it names; no value if that is not there.
///
/// # Errors
///
/// The disk cannot be read; within, the record is not valid.
pub fn read_record(
    dev: &impl Blocks,
    header: &Header,
    keyring: &Keyring,
) -> Result<Result<(StoredRecord, Option<Value>), SlotError>, AreaError> {
    let mut slot = [0; SLOT_LEN];
    read(dev, header.geometry.record(), &mut slot)?;
    let stored = match decode_record(&header.nonce, &slot, keyring) {
        Ok(stored) => stored,
        Err(error) => return Ok(Err(error)),
    };
    let Some(place) = stored.record.place else {
        return Ok(Ok((stored, Some(Value::default()))));
    };
    let side = Side::of_writes(place.writes);
    let Some(offset) = header.geometry.block(place.node, side) else {
        return Ok(Ok((stored, None)));
    };
    read(dev, offset, &mut slot)?;
    let found = decode_block(&header.nonce, (place.node, side), &slot, keyring).ok();
    let value = found.map(|found| found.block.value);
    Ok(Ok((
        stored,
        value.filter(|value| stored.record.names(value)),
    )))
}
