//! A recorded run: what an engine was told, so that the same engine can be told it again.
//!
//! An engine is a pure function of its [`Setup`] and its events, so these are
//! all that a record holds; of what came of each event it holds a digest, which a replay compares.
//! No key and no secret ever gets into an engine, so none is in a record. Names of nodes and tasks,
//! boot ids, commands of operators and reasons that objects gave are.
//!
//! ```text
//! word    bytes  field                                            words are little-endian, 64 bits
//!    0        8  magic      "STFREC\r\n"
//!    1        8  version    of this layout and of everything in it
//!    2        8  words      of the whole record; a shorter file was cut
//!    3        8  zero
//!    4           entries, one behind the other, then zeros
//!
//! entry:  head     length in bytes (low half), CRC32C (high half): over the payload, then the
//!                  length, begun with the CRC of the entry before
//!         payload  postcard, filled up with zeros to a whole word
//! ```
//!
//! ```text
//! Start | Event, Done | Event, Done | ... | Full
//!         |      `-- after the turn: how many actions, digest of them and of what is published
//!         `-- before the engine sees it: the event that kills an engine is in its record
//! ```
//!
//! The head is written after the payload. A writer that dies in the middle leaves a head of zero,
//! so its record ends with the entry before. A record is of fixed size and of one life from its
//! beginning, because an engine cannot be begun in the middle: when it is full the rest of that
//! life is not recorded.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod reader;
mod replay;
mod tape;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use reader::{End, RecordError};
pub use replay::{Replay, Turn, Verdict};
pub use tape::{Tape, TooSmall};

use crate::engine::{Engine, Setup};
use crate::time::Instant;

/// Of the layout and of all that is written with serde. To be raised whenever either changes; a
/// test notices.
pub const VERSION: u64 = 3;

/// What a record begins with. The line ends show a copy that was taken for text.
const MAGIC: u64 = u64::from_le_bytes(*b"STFREC\r\n");

/// Words before the first entry.
const HEAD_WORDS: usize = 4;

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

/// What a record begins with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    /// Version of the program that wrote it.
    pub program: String,
    /// What the engine was made from.
    pub setup: Setup,
    /// When it was made.
    pub now: Instant,
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
