//! Telling a new engine what an old one was told, and comparing what it wants done.

use super::reader::{Entry, Reader};
use super::tape::{BLANK, after, closed};
use super::{Checkpoint, Done, End, LeftOut, RecordError, Start};
use crate::engine::{Action, Engine, Event, Setup};
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
    /// In the life of the engine, from 1.
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

/// A record that is being played: from the beginning of the oldest segment that is whole up to the
/// newest entry.
#[derive(Debug)]
pub struct Replay<'b> {
    reader: Reader<'b>,
    engine: Engine,
    program: String,
    started: Instant,
    begins: Instant,
    /// Turns of the engine, and when the last one was.
    turns: u64,
    now: Instant,
    checkpoints: u64,
    end: Option<End>,
    /// An event that was read before its turn.
    ahead: Option<(Instant, Event)>,
}

impl<'b> Replay<'b> {
    /// Reads what the record begins with, and makes the engine or takes the one that was written
    /// down.
    ///
    /// # Errors
    ///
    /// It is not a record, one of another version, or has no whole beginning.
    pub fn open(bytes: &'b [u8]) -> Result<Replay<'b>, RecordError> {
        let mut reader = Reader::open(bytes)?;
        let at = reader.at();
        let begun = match reader.next()? {
            Ok(Entry::Start(Start {
                program,
                setup,
                now,
            })) => Checkpoint {
                program,
                started: now,
                turns: 0,
                now,
                engine: Engine::new(setup, now),
            },
            Ok(Entry::Checkpoint(checkpoint)) => *checkpoint,
            Ok(_) => return Err(RecordError::Senseless { at }),
            Err(_) => return Err(RecordError::NoBeginning),
        };
        Ok(Replay {
            reader,
            engine: begun.engine,
            program: begun.program,
            started: begun.started,
            begins: begun.now,
            turns: begun.turns,
            now: begun.now,
            checkpoints: 0,
            end: None,
            ahead: None,
        })
    }

    /// Version of the program that wrote it.
    #[must_use]
    pub fn program(&self) -> &str {
        &self.program
    }

    /// What the engine was made from.
    #[must_use]
    pub fn setup(&self) -> &Setup {
        self.engine.setup()
    }

    /// When the engine was made, on the recorded node's clock.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// When the stretch begins that the record still holds: at the start, or with the last turn
    /// before it.
    #[must_use]
    pub fn begins(&self) -> Instant {
        self.begins
    }

    /// Checkpoints that were passed so far, each of which was the engine that had been played up to
    /// there.
    #[must_use]
    pub fn checkpoints(&self) -> u64 {
        self.checkpoints
    }

    /// Segments of the record that are not played, for they are not whole, or something is missing
    /// behind them.
    #[must_use]
    pub fn left_out(&self) -> &[LeftOut] {
        self.reader.left_out()
    }

    /// Bytes of the record that were played so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.reader.read()
    }

    /// How the record ends, once [`Replay::turn`] has come there.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// When the next turn is; none at the end. Compares the checkpoint that lies before it, if one
    /// does.
    ///
    /// # Errors
    ///
    /// The record is damaged, or the checkpoint is not the engine that was played up to there.
    pub fn next_at(&mut self) -> Result<Option<Instant>, RecordError> {
        while self.ahead.is_none() && self.end.is_none() {
            let at = self.reader.at();
            match self.reader.next()? {
                Ok(Entry::Event(now, event)) => self.ahead = Some((now, event)),
                Ok(Entry::Next) => self.pass()?,
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
    /// As [`Replay::next_at`].
    pub fn turn(&mut self) -> Result<Option<Turn>, RecordError> {
        self.next_at()?;
        let Some((now, event)) = self.ahead.take() else {
            return Ok(None);
        };
        self.turns += 1;
        self.now = now;
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

    /// Goes on into the next segment. The engine that was written down there must be this one, and
    /// takes its place, so that the rest shows whether it decides the same.
    fn pass(&mut self) -> Result<(), RecordError> {
        let at = self.reader.at();
        let Ok(Entry::Checkpoint(written)) = self.reader.next()? else {
            return Err(RecordError::Senseless { at });
        };
        if let Some(difference) = self.difference(&written) {
            return Err(RecordError::Checkpoint { at, difference });
        }
        self.engine = written.engine;
        self.checkpoints += 1;
        Ok(())
    }

    fn difference(&self, written: &Checkpoint) -> Option<String> {
        let played = (&self.program, self.started, self.turns, self.now);
        let told = (
            &written.program,
            written.started,
            written.turns,
            written.now,
        );
        if played != told {
            return Some(format!("{told:?} instead of {played:?}"));
        }
        (self.engine != written.engine).then(|| first_difference(&self.engine, &written.engine))
    }
}

/// Where two engines differ, for people: the way to the first line that does, and both.
fn first_difference(played: &Engine, written: &Engine) -> String {
    let (played, written) = (format!("{played:#?}"), format!("{written:#?}"));
    let mut way: Vec<(usize, &str)> = Vec::new();
    for (played, written) in played.lines().zip(written.lines()) {
        let (mine, theirs) = (played.trim_start(), written.trim_start());
        let depth = played.len() - mine.len();
        way.retain(|(above, _)| *above < depth);
        if played != written {
            let names: Vec<&str> = way.iter().map(|(_, name)| *name).collect();
            return format!("{}: {theirs} instead of {mine}", names.join(" "));
        }
        let name = mine.split([':', ' ', '(']).next().unwrap_or_default();
        way.push((depth, name));
    }
    "in what people are not shown".to_owned()
}
