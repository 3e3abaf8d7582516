//! Which segments of a record are whole, and which of them follow each other up to the newest one.
//!
//! A record may be damaged, cut off, or be written while it is copied. Nothing is taken from it
//! that its checksums do not vouch for, and what is left out is named.

use super::reader::{Entry, RecordError};
use super::{HEAD_WORDS, MAGIC, SEGMENTS, VERSION, WORD, head_check, opened, sealed, slot_of};

/// A segment that is not played: it is not whole, or what follows it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the segment that begins at byte {begins} is left out: {why}")]
pub struct LeftOut {
    /// Where it begins, in bytes.
    pub begins: usize,
    /// Why.
    pub why: Broken,
}

/// What is wrong with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It is not as it was written.
    #[error("it is damaged at byte {at}")]
    Damaged {
        /// Where the entry begins, in bytes.
        at: usize,
    },
    /// It is whole up to there, but the run went on.
    #[error("it breaks off at byte {at}")]
    Short {
        /// Where the next entry would begin, in bytes.
        at: usize,
    },
    /// Nothing; but between it and what is played something is missing.
    #[error("what follows it is missing")]
    Apart,
}

/// One step through a segment.
#[derive(Debug)]
pub(super) enum Step<'b> {
    /// An entry as it was written.
    Entry(&'b [u8]),
    /// There is no more.
    Over,
    /// The file is too short for more.
    Cut,
    /// What is there was not written so.
    Damaged,
}

/// Goes through the entries of one segment.
#[derive(Clone, Debug)]
pub(super) struct Entries<'b> {
    bytes: &'b [u8],
    /// Where the next entry begins, in bytes.
    at: usize,
    /// Where the segment ends.
    end: usize,
    /// Of the entry before.
    crc: u32,
}

impl<'b> Entries<'b> {
    /// Where the next entry begins, in bytes.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The next entry. After anything else the same again.
    pub(super) fn step(&mut self) -> Step<'b> {
        if self.at + WORD > self.end {
            return Step::Over;
        }
        let Some(head) = word_at(self.bytes, self.at) else {
            return Step::Cut;
        };
        if head == 0 {
            return Step::Over;
        }
        let (length, crc) = (head as u32, (head >> 32) as u32);
        let begin = self.at + WORD;
        let room = self.end - begin;
        if length as usize > room {
            return Step::Damaged;
        }
        let Some(payload) = self.bytes.get(begin..begin + length as usize) else {
            return Step::Cut;
        };
        if sealed(crc32c::crc32c_append(self.crc, payload), length) != crc {
            return Step::Damaged;
        }
        (self.at, self.crc) = (begin + payload.len().next_multiple_of(WORD), crc);
        Step::Entry(payload)
    }
}

/// A segment with a number.
#[derive(Debug)]
struct Found<'b> {
    number: u64,
    /// Is the first entry whole? Then the number is right.
    sound: bool,
    begins: usize,
    entries: Entries<'b>,
    /// How it ends, if the run did not go on in the next one.
    broken: Option<Broken>,
}

/// What there is of a record.
#[derive(Debug)]
pub(super) struct Survey<'b> {
    /// Segments that follow each other up to the newest one, from their first entries.
    pub(super) run: Vec<Entries<'b>>,
    /// In the order of the file.
    pub(super) left_out: Vec<LeftOut>,
    /// Is the file shorter than its record was?
    pub(super) cut: bool,
}

impl<'b> Survey<'b> {
    /// Looks through a whole file.
    ///
    /// # Errors
    ///
    /// It is not a record, one of another version, or nothing of it can be played.
    pub(super) fn of(bytes: &'b [u8]) -> Result<Survey<'b>, RecordError> {
        let segment = segment_bytes(bytes)?;
        let places = (0..SEGMENTS).map(|slot| HEAD_WORDS * WORD + slot * segment);
        let found: Vec<Found<'_>> = places
            .filter_map(|begins| Found::at(bytes, begins, segment))
            .collect();
        let sound = found.iter().filter(|found| found.sound);
        let Some(newest) = sound.map(|found| found.number).max() else {
            return Err(unplayable(&found));
        };
        let before = |number: u64| {
            let mut found = found.iter();
            found.find(|found| found.sound && found.number == number && found.broken.is_none())
        };
        let mut oldest = newest;
        while before(oldest - 1).is_some() {
            oldest -= 1;
        }
        let (mut run, left_out): (Vec<_>, Vec<_>) = found
            .into_iter()
            .partition(|found| found.sound && found.number >= oldest);
        run.sort_by_key(|found| found.number);
        let left_out = left_out.iter().map(|found| LeftOut {
            begins: found.begins,
            why: found.broken.unwrap_or(Broken::Apart),
        });
        Ok(Survey {
            left_out: left_out.collect(),
            run: run.into_iter().map(|found| found.entries).collect(),
            cut: bytes.len() < HEAD_WORDS * WORD + SEGMENTS * segment,
        })
    }
}

/// Bytes of each segment, if it is a record of this version.
fn segment_bytes(bytes: &[u8]) -> Result<usize, RecordError> {
    let word = |index: usize| word_at(bytes, index * WORD);
    if word(0) != Some(MAGIC) {
        return Err(RecordError::NotARecord);
    }
    let version = word(1).ok_or(RecordError::NoBeginning)?;
    if version != VERSION {
        return Err(RecordError::Version(version));
    }
    let words = word(2).ok_or(RecordError::NoBeginning)?;
    let check = word(3).ok_or(RecordError::NoBeginning)?;
    let count = usize::try_from(words).ok();
    let count = count.filter(|count| check == head_check(words) && *count <= usize::MAX / WORD);
    let count = count.ok_or(RecordError::Damaged { at: 0 })?;
    Ok(super::segment_words(count) * WORD)
}

fn unplayable(found: &[Found<'_>]) -> RecordError {
    let mut damaged = found.iter().filter_map(|found| match found.broken {
        Some(Broken::Damaged { at }) => Some(RecordError::Damaged { at }),
        Some(Broken::Short { .. } | Broken::Apart) | None => None,
    });
    damaged.next().unwrap_or(RecordError::NoBeginning)
}

impl<'b> Found<'b> {
    /// The segment that begins there; none if it has no number.
    fn at(bytes: &'b [u8], begins: usize, length: usize) -> Option<Found<'b>> {
        let number = word_at(bytes, begins).filter(|number| *number != 0)?;
        let entries = Entries {
            bytes,
            at: begins + WORD,
            end: begins + length,
            crc: opened(number),
        };
        let here = HEAD_WORDS * WORD + slot_of(number) * length == begins;
        let mut ahead = entries.clone();
        let (mut sound, mut next) = (false, false);
        let broken = loop {
            let at = ahead.at;
            match ahead.step() {
                Step::Entry(payload) => {
                    sound = here;
                    next = payload.len() == 1 && matches!(Entry::read(payload), Some(Entry::Next));
                }
                Step::Over | Step::Cut if next => break None,
                Step::Over | Step::Cut => break Some(Broken::Short { at }),
                Step::Damaged => break Some(Broken::Damaged { at }),
            }
        };
        Some(Found {
            number,
            sound,
            begins,
            entries,
            broken,
        })
    }
}

fn word_at(bytes: &[u8], at: usize) -> Option<u64> {
    let word = bytes.get(at..at + WORD)?;
    word.try_into().ok().map(u64::from_le_bytes)
}
