//! A node's last words: why it has reset itself, for the other nodes to read. The second sector of
//! its heartbeat slot, behind the frame.
//!
//! ```text
//! offset  bytes  field
//!      0      4  magic         "STRW"
//!      4      1  version       1
//!      5      1  node          id of the node that said them
//!      6      1  reason        a `Reason`
//!      7      1  zero
//!      8     16  area nonce    of the format
//!     24     16  boot          the node's incarnation: boot id
//!     40      4  start         the node's incarnation: start of the daemon
//!     44      4  zero
//!     48      8  epoch         of the view the node knew
//!     56      8  tasks         that were not released, bit by task index
//!     64      8  at            boot time, ns
//!     72      8  wall          milliseconds since 1970 on the node's wall clock; 0 = not known
//!     80    412  zero
//!    492     16  tag           Purpose::LastWords, by node and incarnation, over bytes 0..492
//!    508      4  crc           CRC32C of bytes 0..508
//!    512
//! ```
//!
//! A heartbeat writes the whole slot, and zeros here: last words stand until the next heartbeat of
//! their node on this disk, that is, for as long as it is down. A core that sees its guard fall
//! writes none any more, unless nothing resets the node. One that was under way already may still
//! wipe them, so nothing may depend on them: they are for people.

use crate::frame::layout::{Field, tiles};
use crate::frame::tag::{Author, Keyring, Purpose, TAG_LEN};
use crate::model::{Incarnation, NodeId};
use crate::storage::last_words::{LastWords, Reason};
use crate::time::Instant;

use super::{AreaNonce, SECTOR_LEN};

const WORDS_MAGIC: [u8; 4] = *b"STRW";

/// The only version there is.
const VERSION: u8 = 1;

const MAGIC: Field = Field::new(0, 4);
const VERSION_AT: Field = Field::new(4, 1);
const NODE: Field = Field::new(5, 1);
const REASON: Field = Field::new(6, 1);
const ZERO_7: Field = Field::new(7, 1);
const NONCE: Field = Field::new(8, 16);
const BOOT: Field = Field::new(24, 16);
const START: Field = Field::new(40, 4);
const ZERO_44: Field = Field::new(44, 4);
const EPOCH: Field = Field::new(48, 8);
const TASKS: Field = Field::new(56, 8);
const AT: Field = Field::new(64, 8);
const WALL: Field = Field::new(72, 8);
const ZERO_80: Field = Field::new(80, 412);
const TAG: Field = Field::new(492, TAG_LEN);
const CRC: Field = Field::new(508, 4);

const FIELDS: [Field; 16] = [
    MAGIC, VERSION_AT, NODE, REASON, ZERO_7, NONCE, BOOT, START, ZERO_44, EPOCH, TASKS, AT, WALL,
    ZERO_80, TAG, CRC,
];
const _: () = assert!(tiles(&FIELDS, SECTOR_LEN));

/// Last words as they stand in an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredWords {
    /// What was said; its boot is that of the author's tag.
    pub words: LastWords,
    /// Start of the daemon within the boot.
    pub start: u32,
    /// When, in milliseconds since 1970 on the wall clock of the node that fell; 0 if it had none.
    pub wall_ms: u64,
}

/// Why a sector holds no last words that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// Shorter than a sector.
    #[error("{len} bytes, a sector has {SECTOR_LEN}")]
    TooShort {
        /// Bytes there are.
        len: usize,
    },
    /// Something else was written here.
    #[error("something else was written over them")]
    NotWords,
    /// The check sum is wrong.
    #[error("damaged: the disk lost a part of them")]
    Damaged,
    /// A version this program does not know.
    #[error("version {found}, this program knows version {VERSION}")]
    Version {
        /// The version it has.
        found: u8,
    },
    /// Whole, but another node's.
    #[error("said by node {node}, which does not belong here")]
    Misplaced {
        /// The node they name.
        node: u8,
    },
    /// Whole, but of an earlier format or another disk.
    #[error("of an earlier format or of another disk")]
    Stale,
    /// Whole, but forged or written with another secret.
    #[error("the tag is wrong: forged, or written with another cluster secret")]
    WrongKey,
    /// Authentic, but a reason this program does not know.
    #[error("reason {found}, which this program does not know")]
    Reason {
        /// Its number.
        found: u8,
    },
}

/// Writes the sector with `node`'s last words.
pub fn encode_words(
    area: &AreaNonce,
    node: NodeId,
    stored: &StoredWords,
    keyring: &Keyring,
    out: &mut [u8; SECTOR_LEN],
) {
    let words = &stored.words;
    out.fill(0);
    MAGIC.put(out, &WORDS_MAGIC);
    VERSION_AT.put(out, &[VERSION]);
    NODE.put(out, &[node.number()]);
    REASON.put(out, &[words.reason as u8]);
    NONCE.put(out, area);
    BOOT.put(out, &words.boot);
    START.put(out, &stored.start.to_le_bytes());
    EPOCH.put(out, &words.epoch.to_le_bytes());
    TASKS.put(out, &words.tasks.to_le_bytes());
    AT.put(out, &words.at.0.to_le_bytes());
    WALL.put(out, &stored.wall_ms.to_le_bytes());
    let tag = keyring.tag(Purpose::LastWords, author(node, stored), &out[..TAG.at]);
    TAG.put(out, &tag);
    let crc = crc32c::crc32c(&out[..CRC.at]);
    CRC.put(out, &crc.to_le_bytes());
}

/// The last words in a sector that was read from `node`'s place. Zeros: none were said.
///
/// # Errors
///
/// [`WordsError`].
pub fn decode_words(
    area: &AreaNonce,
    node: NodeId,
    sector: &[u8],
    keyring: &Keyring,
) -> Result<Option<StoredWords>, WordsError> {
    let Some(sector) = sector.first_chunk::<SECTOR_LEN>() else {
        return Err(WordsError::TooShort { len: sector.len() });
    };
    if *sector == [0; SECTOR_LEN] {
        return Ok(None);
    }
    if MAGIC.get(sector) != WORDS_MAGIC {
        return Err(WordsError::NotWords);
    }
    if crc32c::crc32c(&sector[..CRC.at]) != u32::from_le_bytes(CRC.get(sector)) {
        return Err(WordsError::Damaged);
    }
    let found = sector[VERSION_AT.at];
    if found != VERSION {
        return Err(WordsError::Version { found });
    }
    if sector[NODE.at] != node.number() {
        let node = sector[NODE.at];
        return Err(WordsError::Misplaced { node });
    }
    if NONCE.get(sector) != *area {
        return Err(WordsError::Stale);
    }
    let found = sector[REASON.at];
    let word = |field: Field| u64::from_le_bytes(field.get(sector));
    let stored = |reason| StoredWords {
        words: LastWords {
            reason,
            boot: BOOT.get(sector),
            epoch: word(EPOCH),
            tasks: word(TASKS),
            at: Instant(word(AT)),
        },
        start: u32::from_le_bytes(START.get(sector)),
        wall_ms: word(WALL),
    };
    // Of whom the tag must be does not hang on the reason.
    let author = author(node, &stored(Reason::NotReleased));
    let (bytes, tag) = (&sector[..TAG.at], TAG.get(sector));
    if !keyring.verify(Purpose::LastWords, author, bytes, &tag) {
        return Err(WordsError::WrongKey);
    }
    let reason = Reason::from_number(found).ok_or(WordsError::Reason { found })?;
    Ok(Some(stored(reason)))
}

fn author(node: NodeId, stored: &StoredWords) -> Author {
    let (boot, start) = (stored.words.boot, stored.start);
    Author::Node(node, Incarnation { boot, start })
}
