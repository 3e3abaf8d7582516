//! A recorded run: what an engine was told, so that the same engine can be told it again.
//!
//! An engine is a pure function of its [`Setup`] and its events, so these are
//! all that a record holds; of what came of each event it holds a digest, which a replay compares.
//! No key and no secret ever gets into an engine, so none is in a record. Names of nodes and tasks,
//! boot ids, commands of operators and reasons that objects gave are.
//!
//! A record is of fixed size and keeps the newest stretch of one life of a core: a ring of
//! [`SEGMENTS`] segments. When one is full the oldest is begun anew, with a checkpoint: the whole
//! engine as it is then. So each segment can be played by itself.
//!
//! ```text
//! word    bytes  field                                            words are little-endian, 64 bits
//!    0        8  magic      "STFREC\r\n"
//!    1        8  version    of this layout and of everything in it
//!    2        8  words      of the whole record; a shorter file was cut
//!    3        8  CRC32C     of the three before
//!    4           segments, one behind the other, all of the same length
//!
//! segment:  number   of this segment in the life, from 1; 0: there is none, or it is being begun
//!           entries, one behind the other, up to a head of zero
//!
//! entry:    head     length in bytes (low half), CRC32C (high half): over the payload, then the
//!                    length, begun with the CRC of the entry before, or of the segment's number
//!           payload  postcard, filled up with zeros to a whole word
//! ```
//!
//! ```text
//! Start      | Event, Done | Event, Done | ... | Next
//! Checkpoint | Event, Done | Event, Done | ... | Next, or Full
//!   |            |      `-- after the turn: how many actions, digest of them and of what is
//!   |            |          published
//!   |            `-- before the engine sees it: the event that kills an engine is in its record
//!   `-- a replay that comes from the segment before has the same engine here, or says so
//! ```
//!
//! **Whenever its writer dies, a record can be read.** Words become visible in the order in which
//! they are stored. Of an entry that is the payload, the zero behind it and then the head: until
//! the head is there the record ends with the entry before, and what an older segment has left
//! behind it means nothing. Of a segment it is the zero in place of the old number, the checkpoint,
//! `Next` in the segment before, and then the number: until then there is one segment less, the
//! oldest.
//!
//! What no segment has room for, an engine or an event beyond all that is reckoned with
//! ([`WRITTEN_MAX`]), ends the recording, and the record says so.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod reader;
mod replay;
mod survey;
mod tape;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use reader::{End, RecordError};
pub use replay::{Replay, Turn, Verdict};
pub use survey::{Broken, LeftOut};
pub use tape::{Tape, TooSmall, Words};

use crate::engine::{Engine, Setup, WRITTEN_MAX};
use crate::time::Instant;

/// Of the layout and of all that is written with serde, the engine's own state too. To be raised
/// whenever any of it changes; a test notices what it can.
pub const VERSION: u64 = 6;

/// Segments of a record. The oldest is given up as a whole, so at least all but one of them, three
/// quarters of the record, hold what happened last.
pub const SEGMENTS: usize = 4;

/// Least size of a record, in words, in which the longest such engine takes half a segment at most.
pub const WORDS_MIN: usize = HEAD_WORDS + SEGMENTS * 2 * WRITTEN_MAX.div_ceil(WORD);

/// What a record begins with. The line ends show a copy that was taken for text.
const MAGIC: u64 = u64::from_le_bytes(*b"STFREC\r\n");

/// Words before the first segment.
const HEAD_WORDS: usize = 4;

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

/// What the record of a life begins with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    /// Version of the program that wrote it.
    pub program: String,
    /// What the engine was made from.
    pub setup: Setup,
    /// When it was made.
    pub now: Instant,
}

/// What each later segment begins with, in the order of
/// [`CheckpointOut`](tape::CheckpointOut): the engine between two turns.
#[derive(Debug, Deserialize)]
struct Checkpoint {
    /// Version of the program that wrote it.
    program: String,
    /// When the engine was made.
    started: Instant,
    /// Turns that it has had.
    turns: u64,
    /// When the last of them was.
    now: Instant,
    engine: Engine,
}

/// What came of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Number of actions.
    pub actions: u32,
    /// CRC32C over the actions in their order, then over what the engine publishes. Two turns that
    /// differ have the same one by chance once in four thousand million times.
    pub digest: u32,
}

/// What an engine publishes for the guard, besides its actions.
#[derive(Clone, Copy, Debug, Serialize)]
struct Standing {
    lease_deadline: Instant,
    granted: u64,
    sequence: u64,
    epoch: u64,
}

impl Standing {
    fn of(engine: &Engine) -> Standing {
        Standing {
            lease_deadline: engine.lease_deadline(),
            granted: engine.granted(),
            sequence: engine.sequence(),
            epoch: engine.view().epoch,
        }
    }
}

/// Words of each segment of a record of so many words.
fn segment_words(words: usize) -> usize {
    words.saturating_sub(HEAD_WORDS) / SEGMENTS
}

/// Which of the segments has this number, from 1.
fn slot_of(number: u64) -> usize {
    (number.wrapping_sub(1) % SEGMENTS as u64) as usize
}

/// The CRC of an entry: that of its payload and of its length.
fn sealed(payload: u32, length: u32) -> u32 {
    crc32c::crc32c_append(payload, &length.to_le_bytes())
}

/// What the CRC of a segment's first entry is begun with.
fn opened(number: u64) -> u32 {
    crc32c::crc32c(&number.to_le_bytes())
}

/// The CRC of the record's head.
fn head_check(words: u64) -> u64 {
    let head = [MAGIC, VERSION, words].map(u64::to_le_bytes);
    u64::from(crc32c::crc32c(head.as_flattened()))
}
