//! Reading a record back, entry by entry, from whatever is left of it.

use serde::Deserialize;

use super::tape::sealed;
use super::{Done, HEAD_WORDS, MAGIC, Start, VERSION, WORD};
use crate::engine::{Event, Setup};
use crate::model::{LINKS_MAX, TASKS_MAX};
use crate::time::Instant;

/// Why a record cannot be read, or not to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It does not begin as one.
    #[error("this is not a record of a run")]
    NotARecord,
    /// Another version of the layout.
    #[error("this record has version {0}; this program reads version {VERSION}")]
    Version(u64),
    /// Cut off, or its writer died, before an engine could be made.
    #[error("this record has no beginning")]
    NoBeginning,
    /// An entry is not as it was written.
    #[error("this record is damaged at byte {at}")]
    Damaged {
        /// Where the entry begins, in bytes.
        at: usize,
    },
    /// An entry is whole, but means nothing, or not here.
    #[error("the entry at byte {at} makes no sense to this program")]
    Senseless {
        /// Where the entry begins, in bytes.
        at: usize,
    },
}

/// How a record ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its writer ended, or still lives.
    Open,
    /// There was no more room; the life went on.
    Full,
    /// The file was cut; an entry that is not whole is left out.
    Torn,
}

/// What a record consists of, in the order of [`EntryOut`](super::tape::EntryOut).
#[derive(Debug, Deserialize)]
#[allow(clippy::large_enum_variant)]
pub(super) enum Entry {
    Start(Start),
    Event(Instant, Event),
    Done(Done),
    Full,
}

/// Goes through the entries.
#[derive(Debug)]
pub(super) struct Reader<'b> {
    bytes: &'b [u8],
    /// Where the next entry begins, in bytes.
    at: usize,
    /// Of the entry before.
    crc: u32,
    /// Is the file shorter than its record was?
    cut: bool,
}

impl<'b> Reader<'b> {
    pub(super) fn open(bytes: &'b [u8]) -> Result<Reader<'b>, RecordError> {
        let word = |index: usize| word_at(bytes, index * WORD);
        if word(0) != Some(MAGIC) {
            return Err(RecordError::NotARecord);
        }
        let version = word(1).ok_or(RecordError::NoBeginning)?;
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let words = word(2).ok_or(RecordError::NoBeginning)?;
        let whole = usize::try_from(words)
            .ok()
            .and_then(|words| words.checked_mul(WORD));
        Ok(Reader {
            bytes,
            at: HEAD_WORDS * WORD,
            crc: 0,
            cut: whole.is_none_or(|whole| bytes.len() < whole),
        })
    }

    /// Where the next entry begins, in bytes.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The next entry, or how the record ends.
    pub(super) fn next(&mut self) -> Result<Result<Entry, End>, RecordError> {
        let at = self.at;
        let head = match word_at(self.bytes, at) {
            Some(head) => head,
            None if self.cut => return Ok(Err(End::Torn)),
            None => return Ok(Err(End::Open)),
        };
        if head == 0 {
            return Ok(Err(End::Open));
        }
        let (length, crc) = (head as u32, (head >> 32) as u32);
        let begin = at + WORD;
        let next = begin + (length as usize).next_multiple_of(WORD);
        let Some(payload) = self.bytes.get(begin..begin + length as usize) else {
            return if self.cut {
                Ok(Err(End::Torn))
            } else {
                Err(RecordError::Damaged { at })
            };
        };
        if sealed(crc32c::crc32c_append(self.crc, payload), length) != crc {
            return Err(RecordError::Damaged { at });
        }
        let senseless = RecordError::Senseless { at };
        let entry: Entry = postcard::from_bytes(payload).map_err(|_| senseless.clone())?;
        if !possible(&entry) {
            return Err(senseless);
        }
        (self.at, self.crc) = (next, crc);
        Ok(match entry {
            Entry::Full => Err(End::Full),
            entry => Ok(entry),
        })
    }
}

fn word_at(bytes: &[u8], at: usize) -> Option<u64> {
    let word = bytes.get(at..at + WORD)?;
    word.try_into().ok().map(u64::from_le_bytes)
}

/// Can an engine be made from this, or be told it?
fn possible(entry: &Entry) -> bool {
    match entry {
        Entry::Start(start) => {
            let Setup { tasks, links, .. } = &start.setup;
            tasks.len() <= TASKS_MAX && usize::from(*links) <= LINKS_MAX
        }
        Entry::Event(_, Event::Packet { packet, .. }) => packet.makes_sense(),
        Entry::Event(..) | Entry::Done(_) | Entry::Full => true,
    }
}
