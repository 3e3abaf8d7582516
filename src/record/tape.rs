//! Writing a record: into memory that somebody else keeps, without asking for any.
//!
//! Called by the thread that decides, once before and once after each turn. Nothing here allocates,
//! blocks or fails: what an engine holds goes straight into the words, piece by piece.

use std::sync::atomic::{AtomicU64, Ordering};

use postcard::ser_flavors::Flavor;
use serde::Serialize;

use super::{
    Done, HEAD_WORDS, MAGIC, Standing, Start, VERSION, WORD, head_check, opened, sealed,
    segment_words, slot_of,
};
use crate::engine::{Action, Engine, Event};
use crate::time::Instant;

/// Words kept free behind every event: for what came of it (a head, and a kind and two numbers of
/// at most five bytes each), and for the mark that ends a segment.
const REST_WORDS: usize = 3 + MARK_WORDS;

/// Words of a mark: head and kind.
const MARK_WORDS: usize = 2;

/// Bytes that are checked and stored at once; whole words.
const CHUNK: usize = 256;

/// The memory does not even hold the beginning of a record.
#[derive(Debug, thiserror::Error)]
#[error("{words} words are too few to begin a record")]
pub struct TooSmall {
    /// How many there are.
    pub words: usize,
}

/// Memory of so many words that somebody else may be reading, or may read after this process.
pub trait Words {
    /// How many there are.
    fn count(&self) -> usize;

    /// Stores one. Whoever sees it sees all that was stored before.
    fn store(&self, at: usize, word: u64);
}

impl Words for [AtomicU64] {
    fn count(&self) -> usize {
        self.len()
    }

    fn store(&self, at: usize, word: u64) {
        self[at].store(word, Ordering::Release);
    }
}

/// An entry as it is written; [`Entry`](super::reader::Entry) is what is read.
#[derive(Serialize)]
pub(super) enum EntryOut<'e> {
    Start(&'e Start),
    Checkpoint(CheckpointOut<'e>),
    Event(Instant, &'e Event),
    Done(Done),
    /// The segment is full; what follows is in the next one.
    Next,
    /// There was no more room anywhere.
    Full,
}

/// [`Checkpoint`](super::Checkpoint) as it is written.
#[derive(Serialize)]
pub(super) struct CheckpointOut<'e> {
    pub(super) program: &'e str,
    pub(super) started: Instant,
    pub(super) turns: u64,
    pub(super) now: Instant,
    pub(super) engine: &'e Engine,
}

/// The writer of one record. All calls are to be given the same words, which nobody else writes.
#[derive(Debug)]
pub struct Tape {
    segment: Segment,
    full: bool,
    /// Of the turn that is under way.
    so_far: Done,
    program: String,
    started: Instant,
    /// Turns so far, and when the last one was.
    turns: u64,
    now: Instant,
}

impl Tape {
    /// Begins a record in `words`, which are all zero.
    ///
    /// # Errors
    ///
    /// There are too few.
    pub fn begin<W: Words + ?Sized>(words: &W, start: &Start) -> Result<Tape, TooSmall> {
        let count = words.count();
        let mut segment = Segment::place(count, 1);
        if !segment.put(words, REST_WORDS, &EntryOut::Start(start)) {
            return Err(TooSmall { words: count });
        }
        words.store(segment.begin, segment.number);
        words.store(3, head_check(count as u64));
        words.store(2, count as u64);
        words.store(1, VERSION);
        words.store(0, MAGIC);
        Ok(Tape {
            segment,
            full: false,
            so_far: BLANK,
            program: start.program.clone(),
            started: start.now,
            turns: 0,
            now: start.now,
        })
    }

    /// The engine, which is at rest, is about to be told this. Where there is no room for it the
    /// engine is written down first, into the oldest segment.
    pub fn event<W: Words + ?Sized>(
        &mut self,
        words: &W,
        now: Instant,
        event: &Event,
        engine: &Engine,
    ) {
        self.so_far = BLANK;
        if self.full {
            return;
        }
        let entry = EntryOut::Event(now, event);
        let kept = self.segment.put(words, REST_WORDS, &entry)
            || (self.go_on(words, engine) && self.segment.put(words, REST_WORDS, &entry));
        if kept {
            self.turns += 1;
            self.now = now;
        } else {
            self.full = true;
            self.segment.mark(words, &EntryOut::Full);
        }
    }

    /// The engine wants this done. Writes nothing yet.
    pub fn action(&mut self, action: &Action) {
        if !self.full {
            self.so_far = after(self.so_far, action);
        }
    }

    /// The turn on the last event is over.
    pub fn done<W: Words + ?Sized>(&mut self, words: &W, engine: &Engine) {
        if !self.full {
            let entry = EntryOut::Done(closed(self.so_far, engine));
            let kept = self.segment.put(words, MARK_WORDS, &entry);
            assert!(kept, "room for the end of each turn is kept free");
        }
    }

    /// Was there no room, not even in a segment that was begun anew? Nothing is recorded from then
    /// on.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Begins the oldest segment anew. Says whether the engine fits into it.
    fn go_on<W: Words + ?Sized>(&mut self, words: &W, engine: &Engine) -> bool {
        let mut next = Segment::place(words.count(), self.segment.number + 1);
        words.store(next.begin, 0);
        let checkpoint = EntryOut::Checkpoint(CheckpointOut {
            program: &self.program,
            started: self.started,
            turns: self.turns,
            now: self.now,
            engine,
        });
        if !next.put(words, REST_WORDS, &checkpoint) {
            return false;
        }
        self.segment.mark(words, &EntryOut::Next);
        words.store(next.begin, next.number);
        self.segment = next;
        true
    }
}

/// The segment that is being written.
#[derive(Debug)]
struct Segment {
    number: u64,
    /// The word with its number.
    begin: usize,
    /// The first word behind it.
    end: usize,
    /// The word that the next entry begins with.
    at: usize,
    /// Of the entry before.
    crc: u32,
}

impl Segment {
    /// Where the segment with this number lies in a record of so many words.
    fn place(words: usize, number: u64) -> Segment {
        let begin = HEAD_WORDS + slot_of(number) * segment_words(words);
        Segment {
            number,
            begin,
            end: begin + segment_words(words),
            at: begin + 1,
            crc: opened(number),
        }
    }

    /// Writes an entry if so many words remain free behind it.
    fn put<W: Words + ?Sized>(&mut self, words: &W, free: usize, entry: &EntryOut<'_>) -> bool {
        let end = self.end.saturating_sub(free);
        if self.at >= end {
            return false;
        }
        let sink = Sink::new(self.crc, Some((words, self.at + 1, end)));
        let Ok((payload, length)) = postcard::serialize_with_flavor(entry, sink) else {
            return false;
        };
        let next = self.at + 1 + (length as usize).div_ceil(WORD);
        // Whatever an older segment has left there, the record ends behind this entry.
        if next < self.end {
            words.store(next, 0);
        }
        self.crc = sealed(payload, length);
        words.store(self.at, u64::from(length) | u64::from(self.crc) << 32);
        self.at = next;
        true
    }

    /// Writes the last entry.
    fn mark<W: Words + ?Sized>(&mut self, words: &W, entry: &EntryOut<'_>) {
        let marked = self.put(words, 0, entry);
        assert!(marked, "room for the mark is kept free");
    }
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
    let nowhere: Sink<'_, [AtomicU64]> = Sink::new(begun, None);
    let digested = postcard::serialize_with_flavor(value, nowhere);
    digested.map_or(begun, |(digest, _)| digest)
}

/// Where postcard puts its bytes: into words, if there are to be any, and into a CRC.
struct Sink<'w, W: ?Sized> {
    crc: u32,
    chunk: [u8; CHUNK],
    filled: usize,
    length: usize,
    /// Which words: from one, up to but not with another.
    room: Option<(&'w W, usize, usize)>,
}

impl<'w, W: Words + ?Sized> Sink<'w, W> {
    fn new(crc: u32, room: Option<(&'w W, usize, usize)>) -> Sink<'w, W> {
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
        if let Some((words, begin, end)) = self.room {
            // Only the last chunk is not full, so each one begins with a whole word.
            let first = begin + (self.length - self.filled) / WORD;
            if first + self.filled.div_ceil(WORD) > end {
                return Err(postcard::Error::SerializeBufferFull);
            }
            for (at, piece) in bytes.chunks(WORD).enumerate() {
                let mut word = [0; WORD];
                word[..piece.len()].copy_from_slice(piece);
                words.store(first + at, u64::from_le_bytes(word));
            }
        }
        self.filled = 0;
        Ok(())
    }
}

impl<W: Words + ?Sized> Flavor for Sink<'_, W> {
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
