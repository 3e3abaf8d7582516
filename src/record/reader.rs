//! Reading a record back, entry by entry, from whatever is left of it.

use serde::Deserialize;

use super::survey::{Entries, LeftOut, Step, Survey};
use super::{Checkpoint, Done, Start, VERSION};
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
    /// The engine that was written down there is another one than that which was played up to
    /// there: it was not written down as a whole, or the two decide differently.
    #[error("the checkpoint at byte {at} is not what the run before it leads to: {difference}")]
    Checkpoint {
        /// Where the entry begins, in bytes.
        at: usize,
        /// What of it is otherwise, for people.
        difference: String,
    },
}

/// How a record ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its writer ended, or still lives.
    Open,
    /// There was no room for what came then; the life went on.
    Full,
    /// The file was cut; an entry that is not whole is left out.
    Torn,
}

/// What a record consists of, in the order of [`EntryOut`](super::tape::EntryOut).
#[derive(Debug, Deserialize)]
#[allow(clippy::large_enum_variant)]
pub(super) enum Entry {
    Start(Start),
    Checkpoint(Box<Checkpoint>),
    Event(Instant, Event),
    Done(Done),
    Next,
    Full,
}

impl Entry {
    /// What these bytes mean, if they mean anything.
    pub(super) fn read(payload: &[u8]) -> Option<Entry> {
        let entry = postcard::from_bytes(payload).ok();
        entry.filter(possible)
    }
}

/// Goes through the entries of all segments that follow each other.
#[derive(Debug)]
pub(super) struct Reader<'b> {
    segment: Entries<'b>,
    later: std::vec::IntoIter<Entries<'b>>,
    left_out: Vec<LeftOut>,
    /// Is the file shorter than its record was?
    cut: bool,
    read: usize,
}

impl<'b> Reader<'b> {
    pub(super) fn open(bytes: &'b [u8]) -> Result<Reader<'b>, RecordError> {
        let Survey { run, left_out, cut } = Survey::of(bytes)?;
        let mut later = run.into_iter();
        Ok(Reader {
            segment: later.next().ok_or(RecordError::NoBeginning)?,
            later,
            left_out,
            cut,
            read: 0,
        })
    }

    /// Where the next entry begins, in bytes.
    pub(super) fn at(&self) -> usize {
        self.segment.at()
    }

    /// Bytes of the entries read so far.
    pub(super) fn read(&self) -> usize {
        self.read
    }

    /// Segments that are not read.
    pub(super) fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// The next entry, or how the record ends.
    pub(super) fn next(&mut self) -> Result<Result<Entry, End>, RecordError> {
        let at = self.segment.at();
        let payload = match self.segment.step() {
            Step::Entry(payload) => payload,
            Step::Over => return Ok(Err(End::Open)),
            Step::Cut => return Ok(Err(End::Torn)),
            Step::Damaged => return Err(RecordError::Damaged { at }),
        };
        let entry = Entry::read(payload).ok_or(RecordError::Senseless { at })?;
        self.read += self.segment.at() - at;
        Ok(match entry {
            Entry::Full => Err(End::Full),
            Entry::Next => match self.later.next() {
                Some(segment) => {
                    self.segment = segment;
                    Ok(Entry::Next)
                }
                // Its writer ended before the next one was there.
                None if !self.cut => Err(End::Open),
                None => Err(End::Torn),
            },
            entry => Ok(entry),
        })
    }
}

/// Can an engine be made from this, or be told it?
fn possible(entry: &Entry) -> bool {
    match entry {
        Entry::Start(start) => {
            let Setup { tasks, links, .. } = &start.setup;
            tasks.len() <= TASKS_MAX && usize::from(*links) <= LINKS_MAX
        }
        Entry::Checkpoint(checkpoint) => checkpoint.engine.makes_sense(),
        Entry::Event(_, Event::Packet { packet, .. }) => packet.makes_sense(),
        Entry::Event(..) | Entry::Done(_) | Entry::Next | Entry::Full => true,
    }
}
