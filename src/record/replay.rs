//! Telling a new engine what an old one was told, and comparing what it wants done.

use super::reader::{Entry, Reader};
use super::tape::{BLANK, after, closed};
use super::{Done, End, RecordError, Start};
use crate::engine::{Action, Engine, Event};
use crate::time::Instant;

/// What the comparison of a turn has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same as recorded.
    Same,
    /// Something else.
    Different {
        /// What came of it then.
        recorded: Done,
        /// What came of it now.
        found: Done,
    },
    /// What came of it was not recorded: the recorded core ended within this turn, or the record
    /// did.
    Unfinished,
}

/// One turn, played again.
#[derive(Debug)]
pub struct Turn {
    /// From 1.
    pub number: u64,
    /// When, on the recorded node's clock.
    pub now: Instant,
    /// What the engine was told.
    pub event: Event,
    /// What it wants done now, in order.
    pub actions: Vec<Action>,
    /// Is that what it wanted then?
    pub verdict: Verdict,
}

/// A record that is being played.
#[derive(Debug)]
pub struct Replay<'b> {
    reader: Reader<'b>,
    start: Start,
    engine: Engine,
    turns: u64,
    end: Option<End>,
    /// An event that was read before its turn.
    ahead: Option<(Instant, Event)>,
}

impl<'b> Replay<'b> {
    /// Reads the beginning of a record and makes the engine.
    ///
    /// # Errors
    ///
    /// It is not a record, one of another version, or has no whole beginning.
    pub fn open(bytes: &'b [u8]) -> Result<Replay<'b>, RecordError> {
        let mut reader = Reader::open(bytes)?;
        let at = reader.at();
        let start = match reader.next()? {
            Ok(Entry::Start(start)) => start,
            Ok(_) => return Err(RecordError::Senseless { at }),
            Err(_) => return Err(RecordError::NoBeginning),
        };
        let engine = Engine::new(start.setup.clone(), start.now);
        Ok(Replay {
            reader,
            start,
            engine,
            turns: 0,
            end: None,
            ahead: None,
        })
    }

    /// What the record begins with.
    #[must_use]
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// Bytes of the record that were played so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.reader.at()
    }

    /// How the record ends, once [`Replay::turn`] has come there.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// When the next turn is; none at the end.
    ///
    /// # Errors
    ///
    /// The record is damaged.
    pub fn next_at(&mut self) -> Result<Option<Instant>, RecordError> {
        if self.ahead.is_none() && self.end.is_none() {
            let at = self.reader.at();
            match self.reader.next()? {
                Ok(Entry::Event(now, event)) => self.ahead = Some((now, event)),
                Ok(_) => return Err(RecordError::Senseless { at }),
                Err(end) => self.end = Some(end),
            }
        }
        Ok(self.ahead.as_ref().map(|(now, _)| *now))
    }

    /// Plays the next turn; none at the end. After a turn that differs the engines go separate
    /// ways, and what follows says nothing.
    ///
    /// # Errors
    ///
    /// The record is damaged.
    pub fn turn(&mut self) -> Result<Option<Turn>, RecordError> {
        self.next_at()?;
        let Some((now, event)) = self.ahead.take() else {
            return Ok(None);
        };
        self.turns += 1;
        self.engine.handle(now, event.clone());
        let mut found = BLANK;
        let mut actions = Vec::new();
        while let Some(action) = self.engine.poll_action() {
            found = after(found, &action);
            actions.push(action);
        }
        let verdict = self.compare(closed(found, &self.engine))?;
        Ok(Some(Turn {
            number: self.turns,
            now,
            event,
            actions,
            verdict,
        }))
    }

    fn compare(&mut self, found: Done) -> Result<Verdict, RecordError> {
        let at = self.reader.at();
        match self.reader.next()? {
            Ok(Entry::Done(recorded)) if recorded == found => Ok(Verdict::Same),
            Ok(Entry::Done(recorded)) => Ok(Verdict::Different { recorded, found }),
            Ok(_) => Err(RecordError::Senseless { at }),
            Err(end) => {
                self.end = Some(end);
                Ok(Verdict::Unfinished)
            }
        }
    }
}
