//! Writing a record: into memory that somebody else keeps, without asking for any.
//!
//! Called by the thread that decides, once before and once after each turn. Nothing here allocates,
//! blocks or fails: when the memory is used up the tape stops.

use std::sync::atomic::{AtomicU64, Ordering};

use postcard::ser_flavors::Flavor;
use serde::Serialize;

use super::{Done, HEAD_WORDS, MAGIC, Standing, Start, VERSION, WORD};
use crate::engine::{Action, Engine, Event};
use crate::time::Instant;

/// Words kept free for the mark that the record is full: head and kind.
const FULL_WORDS: usize = 2;

/// Bytes that are checked and stored at once; whole words.
const CHUNK: usize = 256;

/// The memory does not even hold the beginning of a record.
#[derive(Debug, thiserror::Error)]
#[error("{words} words are too few to begin a record")]
pub struct TooSmall {
    /// How many there are.
    pub words: usize,
}

/// An entry as it is written; [`Entry`](super::reader::Entry) is what is read.
#[derive(Serialize)]
pub(super) enum EntryOut<'e> {
    Start(&'e Start),
    Event(Instant, &'e Event),
    Done(Done),
    Full,
}

/// The writer of one record. All calls are to be given the same words, which nobody else writes.
#[derive(Debug)]
pub struct Tape {
    /// The word that the next entry begins with.
    at: usize,
    /// Of the entry before.
    crc: u32,
    full: bool,
    /// Of the turn that is under way.
    so_far: Done,
}

impl Tape {
    /// Begins a record in `words`, which are all zero.
    ///
    /// # Errors
    ///
    /// There are too few.
    pub fn begin(words: &[AtomicU64], start: &Start) -> Result<Tape, TooSmall> {
        let too_small = TooSmall { words: words.len() };
        if words.len() <= HEAD_WORDS + FULL_WORDS {
            return Err(too_small);
        }
        words[1].store(VERSION, Ordering::Relaxed);
        words[2].store(words.len() as u64, Ordering::Relaxed);
        let mut tape = Tape {
            at: HEAD_WORDS,
            crc: 0,
            full: false,
            so_far: BLANK,
        };
        if !tape.put(words, words.len() - FULL_WORDS, &EntryOut::Start(start)) {
            return Err(too_small);
        }
        words[0].store(MAGIC, Ordering::Release);
        Ok(tape)
    }

    /// The engine is about to be told this.
    pub fn event(&mut self, words: &[AtomicU64], now: Instant, event: &Event) {
        self.so_far = BLANK;
        self.write(words, &EntryOut::Event(now, event));
    }

    /// The engine wants this done. Writes nothing yet.
    pub fn action(&mut self, action: &Action) {
        if !self.full {
            self.so_far = after(self.so_far, action);
        }
    }

    /// The turn on the last event is over.
    pub fn done(&mut self, words: &[AtomicU64], engine: &Engine) {
        if !self.full {
            self.write(words, &EntryOut::Done(closed(self.so_far, engine)));
        }
    }

    /// Is there no more room? Nothing is recorded from then on.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full
    }

    fn write(&mut self, words: &[AtomicU64], entry: &EntryOut<'_>) {
        if self.full || self.put(words, words.len() - FULL_WORDS, entry) {
            return;
        }
        self.full = true;
        let marked = self.put(words, words.len(), &EntryOut::Full);
        assert!(marked, "room for the mark is kept free");
    }

    /// Writes an entry if it fits into the words below `end`.
    fn put(&mut self, words: &[AtomicU64], end: usize, entry: &EntryOut<'_>) -> bool {
        let Some(room) = words.get(self.at + 1..end) else {
            return false;
        };
        let sink = Sink::new(self.crc, Some(room));
        let Ok((payload, length)) = postcard::serialize_with_flavor(entry, sink) else {
            return false;
        };
        self.crc = sealed(payload, length);
        let head = u64::from(length) | u64::from(self.crc) << 32;
        words[self.at].store(head, Ordering::Release);
        self.at += 1 + (length as usize).div_ceil(WORD);
        true
    }
}

/// The CRC of an entry: that of its payload and of its length.
pub(super) fn sealed(payload: u32, length: u32) -> u32 {
    crc32c::crc32c_append(payload, &length.to_le_bytes())
}

/// A turn of which nothing is known yet.
pub(super) const BLANK: Done = Done {
    actions: 0,
    digest: 0,
};

/// A turn in which this was done too.
pub(super) fn after(so_far: Done, action: &Action) -> Done {
    Done {
        actions: so_far.actions + 1,
        digest: digest(so_far.digest, action),
    }
}

/// A turn of which all is known.
pub(super) fn closed(so_far: Done, engine: &Engine) -> Done {
    Done {
        digest: digest(so_far.digest, &Standing::of(engine)),
        ..so_far
    }
}

fn digest(begun: u32, value: &impl Serialize) -> u32 {
    let digested = postcard::serialize_with_flavor(value, Sink::new(begun, None));
    digested.map_or(begun, |(digest, _)| digest)
}

/// Where postcard puts its bytes: into words, if there are to be any, and into a CRC.
struct Sink<'w> {
    crc: u32,
    chunk: [u8; CHUNK],
    filled: usize,
    length: usize,
    room: Option<&'w [AtomicU64]>,
}

impl<'w> Sink<'w> {
    fn new(crc: u32, room: Option<&'w [AtomicU64]>) -> Sink<'w> {
        Sink {
            crc,
            chunk: [0; CHUNK],
            filled: 0,
            length: 0,
            room,
        }
    }

    /// Checks and stores what has come together.
    fn flush(&mut self) -> postcard::Result<()> {
        let bytes = &self.chunk[..self.filled];
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        if let Some(room) = self.room {
            // Only the last chunk is not full, so each one begins with a whole word.
            let first = (self.length - self.filled) / WORD;
            for (at, piece) in bytes.chunks(WORD).enumerate() {
                let mut word = [0; WORD];
                word[..piece.len()].copy_from_slice(piece);
                let place = room.get(first + at);
                let place = place.ok_or(postcard::Error::SerializeBufferFull)?;
                place.store(u64::from_le_bytes(word), Ordering::Relaxed);
            }
        }
        self.filled = 0;
        Ok(())
    }
}

impl Flavor for Sink<'_> {
    /// CRC and length.
    type Output = (u32, u32);

    fn try_extend(&mut self, mut data: &[u8]) -> postcard::Result<()> {
        while !data.is_empty() {
            let free = CHUNK - self.filled;
            let (piece, rest) = data.split_at(data.len().min(free));
            self.chunk[self.filled..self.filled + piece.len()].copy_from_slice(piece);
            self.filled += piece.len();
            self.length += piece.len();
            data = rest;
            if self.filled == CHUNK {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.chunk[self.filled] = byte;
        self.filled += 1;
        self.length += 1;
        if self.filled == CHUNK {
            self.flush()?;
        }
        Ok(())
    }

    fn finalize(mut self) -> postcard::Result<(u32, u32)> {
        self.flush()?;
        let length = u32::try_from(self.length);
        Ok((
            self.crc,
            length.map_err(|_| postcard::Error::SerializeBufferFull)?,
        ))
    }
}
