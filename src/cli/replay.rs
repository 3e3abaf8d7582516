//! `standfast replay`: a recorded run, decided again.

use std::fs;
use std::io::Write;

use serde_json::{Value, json};

use super::args::{Only, ReplayArgs};
use super::exit::{Exit, Failure};
use super::{history, table};
use crate::engine::{Action, Record};
use crate::node::control::{HistoryEntry, Names};
use crate::record::{End, LeftOut, RecordError, Replay, Turn, Verdict};
use crate::time::{Instant, Span};

/// This program's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) fn run(args: &ReplayArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let file = args.file.display().to_string();
    let bytes = fs::read(&args.file).map_err(|error| {
        Failure::new(
            Exit::Failed,
            format!("cannot read {file}: {error}"),
            "name the FILE that the daemon was given with --record; be root",
        )
    })?;
    let mut replay = Replay::open(&bytes).map_err(|error| refused(&file, &error))?;
    let mut played = Played::new(&replay, args);
    let ended = played.play(&mut replay, args, out);
    played.broken = ended.is_err();
    played.astray = matches!(ended, Err(Stop::Record(RecordError::Checkpoint { .. })));
    // What was played until then is told all the same.
    if args.json {
        writeln!(out, "{:#}", played.json(args.only))?;
    } else {
        played.tell(args.only, out)?;
    }
    ended.map_err(|stop| match stop {
        Stop::Record(error) => refused(&file, &error),
        Stop::Output(failure) => failure,
    })?;
    if played.difference.is_some() {
        return Ok(Exit::Differs);
    }
    if played.left_out.is_empty() {
        return Ok(Exit::Well);
    }
    let sentences: Vec<String> = played.left_out.iter().map(LeftOut::to_string).collect();
    let problem = format!("{file}: {}", sentences.join("; "));
    Err(Failure::new(Exit::Failed, problem, COPY_AGAIN))
}

/// What helps against damage.
const COPY_AGAIN: &str = "copy it again from where it was made";

/// Why a record is not played to its end.
enum Stop {
    Record(RecordError),
    Output(Failure),
}

fn refused(file: &str, error: &RecordError) -> Failure {
    let remedy = match error {
        RecordError::NotARecord => "name the FILE that the daemon was given with --record",
        RecordError::Version(_) | RecordError::Senseless { .. } => {
            "use `standfast` of the version that made the record"
        }
        RecordError::NoBeginning => {
            "copy the whole file; if it is whole, the core died at its start: see `journalctl -u \
             standfast`"
        }
        RecordError::Damaged { .. } => COPY_AGAIN,
        RecordError::Checkpoint { .. } => {
            let remedy = "this is a mistake in Standfast: keep the record for its developers";
            return Failure::new(Exit::Differs, format!("{file}: {error}"), remedy);
        }
    };
    Failure::new(Exit::Failed, format!("{file}: {error}"), remedy)
}

/// The first turn that decided otherwise.
struct Difference {
    turn: u64,
    at: String,
    ms: f64,
    event: String,
    actions: Vec<String>,
    recorded: u32,
}

/// What has come of it so far.
struct Played {
    names: Names,
    program: String,
    started: Instant,
    /// When the stretch begins that is played.
    begins: Instant,
    last: Instant,
    checkpoints: u64,
    left_out: Vec<LeftOut>,
    events: u64,
    bytes: usize,
    entries: Vec<HistoryEntry>,
    turns: Vec<Value>,
    difference: Option<Difference>,
    unfinished: bool,
    /// Is the record unreadable from here on?
    broken: bool,
    /// Is the engine another one than a checkpoint's?
    astray: bool,
    end: Option<End>,
}

impl Played {
    fn new(replay: &Replay<'_>, args: &ReplayArgs) -> Played {
        let setup = replay.setup();
        let own = setup.nodes.iter().find(|(node, _)| *node == setup.me);
        let names = Names {
            cluster: args.file.display().to_string(),
            node: own.map(|(_, name)| name.clone()).unwrap_or_default(),
            nodes: setup.nodes.clone(),
            // An engine knows links by their position only.
            links: (0..setup.links).map(|link| link.to_string()).collect(),
            tasks: setup.tasks.iter().map(|task| task.name.clone()).collect(),
        };
        Played {
            names,
            program: replay.program().to_owned(),
            started: replay.started(),
            begins: replay.begins(),
            last: replay.begins(),
            checkpoints: 0,
            left_out: replay.left_out().to_vec(),
            events: 0,
            bytes: 0,
            entries: Vec::new(),
            turns: Vec::new(),
            difference: None,
            unfinished: false,
            broken: false,
            astray: false,
            end: None,
        }
    }

    /// Plays until the end, the wished instant, or the first difference.
    fn play(
        &mut self,
        replay: &mut Replay<'_>,
        args: &ReplayArgs,
        out: &mut dyn Write,
    ) -> Result<(), Stop> {
        let until = args
            .until
            .map(|ms| self.started + Span::from_ms(1).times(ms));
        while let Some(at) = replay.next_at().map_err(Stop::Record)? {
            self.checkpoints = replay.checkpoints();
            if until.is_some_and(|until| at > until) {
                return Ok(());
            }
            let Some(turn) = replay.turn().map_err(Stop::Record)? else {
                break;
            };
            self.bytes = replay.bytes();
            if args.only == Only::All && args.json {
                self.turns.push(self.turn_json(&turn));
            } else if args.only == Only::All {
                self.tell_turn(&turn, out).map_err(Stop::Output)?;
            }
            if self.take(turn) {
                return Ok(());
            }
        }
        self.end = replay.end();
        Ok(())
    }

    /// Takes in a turn; true if it is the one that differs.
    fn take(&mut self, turn: Turn) -> bool {
        self.events += 1;
        self.last = turn.now;
        match turn.verdict {
            Verdict::Same => {}
            Verdict::Unfinished => self.unfinished = true,
            Verdict::Different { recorded, .. } => {
                self.difference = Some(Difference {
                    turn: turn.number,
                    at: self.time(turn.now),
                    ms: self.ms(turn.now),
                    event: format!("{:?}", turn.event),
                    actions: turn.actions.iter().map(in_words).collect(),
                    recorded: recorded.actions,
                });
                return true;
            }
        }
        for action in turn.actions {
            if let Action::Record(record) = action {
                let entry = self.entry(record);
                self.entries.push(entry);
            }
        }
        false
    }

    fn entry(&self, record: Record) -> HistoryEntry {
        HistoryEntry {
            time: self.time(record.at),
            asked_by: None,
            record,
        }
    }

    fn ms(&self, at: Instant) -> f64 {
        at.since(self.started).as_ms_f64()
    }

    /// An instant, for people: since the core's start.
    fn time(&self, at: Instant) -> String {
        format!("+{:.6} s", self.ms(at) / 1e3)
    }

    fn turn_json(&self, turn: &Turn) -> Value {
        json!({
            "turn": turn.number,
            "ms": self.ms(turn.now),
            "event": format!("{:?}", turn.event),
            "actions": turn.actions.iter().map(in_words).collect::<Vec<_>>(),
        })
    }

    fn tell_turn(&self, turn: &Turn, out: &mut dyn Write) -> Result<(), Failure> {
        writeln!(out, "{} {:?}", self.time(turn.now), turn.event)?;
        for action in &turn.actions {
            writeln!(out, "  {}", in_words(action))?;
        }
        Ok(())
    }

    fn tell(&self, only: Only, out: &mut dyn Write) -> Result<(), Failure> {
        let rows = self.entries.iter().map(|entry| {
            [
                entry.time.clone(),
                history::class(entry.record.class).to_owned(),
                history::subject(&self.names, entry),
                history::said(&self.names, entry),
            ]
        });
        let rows: Vec<_> = rows.collect();
        if only == Only::Records && !rows.is_empty() {
            let heading = ["TIME", "CLASS", "ABOUT", "WHAT HAPPENED"];
            writeln!(out, "{}", table::columns(heading, rows))?;
        }
        if let Some(difference) = &self.difference {
            self.tell_difference(difference, out)?;
        }
        if self.unfinished {
            let last = "The record ends within its last turn, so that one was not compared.";
            writeln!(out, "{last}")?;
        }
        match self.end {
            Some(End::Full) => {
                writeln!(
                    out,
                    "What came next found no room in the record; the run went on."
                )?;
            }
            Some(End::Torn) => writeln!(out, "The record was cut here; what is behind is lost.")?,
            Some(End::Open) | None => {}
        }
        let outcome = match self.difference {
            None if self.astray => "and then another engine",
            None if self.broken => "identical so far",
            None => "identical",
            Some(_) => "and the last one differs",
        };
        self.tell_stretch(out)?;
        let (node, seconds) = (&self.names.node, self.seconds());
        let (events, decisions) = (self.events, self.entries.len());
        writeln!(
            out,
            "{seconds:.3} s of node {node}: {events} events, {decisions} decisions, {outcome}"
        )?;
        Ok(())
    }

    /// Which part of the core's life that was.
    fn tell_stretch(&self, out: &mut dyn Write) -> Result<(), Failure> {
        let (from, to) = (self.time(self.begins), self.time(self.last));
        write!(out, "Played from {from} to {to} of the core's life")?;
        if self.begins > self.started && self.left_out.is_empty() {
            write!(out, "; what was before is overwritten")?;
        } else if !self.left_out.is_empty() {
            write!(out, "; parts of the record are left out")?;
        }
        match self.checkpoints {
            0 => writeln!(out, ".")?,
            1 => writeln!(
                out,
                ". The checkpoint between is the engine that was played."
            )?,
            several => writeln!(
                out,
                ". Each of the {several} checkpoints between is the engine that was played."
            )?,
        }
        Ok(())
    }

    /// Length of the stretch that was played.
    fn seconds(&self) -> f64 {
        self.last.since(self.begins).as_ms_f64() / 1e3
    }

    fn tell_difference(&self, found: &Difference, out: &mut dyn Write) -> Result<(), Failure> {
        let Difference {
            turn,
            at,
            event,
            actions,
            recorded,
            ..
        } = found;
        writeln!(out, "Turn {turn} at {at} differs, on {event}")?;
        writeln!(
            out,
            "  then the engine wanted {recorded} things done, now {}, or others:",
            actions.len()
        )?;
        for action in actions {
            writeln!(out, "  {action}")?;
        }
        if self.program != VERSION {
            writeln!(
                out,
                "The record was made by version {}; this is version {VERSION}.",
                self.program
            )?;
        }
        Ok(())
    }

    fn json(&self, only: Only) -> Value {
        let end = match self.end {
            None if self.astray => Some("checkpoint"),
            None if self.broken => Some("damaged"),
            None => None,
            Some(_) if self.unfinished => Some("within a turn"),
            Some(End::Open) => Some("open"),
            Some(End::Full) => Some("full"),
            Some(End::Torn) => Some("torn"),
        };
        let difference = self.difference.as_ref().map(|found| {
            json!({
                "turn": found.turn,
                "ms": found.ms,
                "event": found.event,
                "actions": found.actions,
                "recorded_actions": found.recorded,
            })
        });
        let entries = self.entries.iter();
        let entries = entries.map(|entry| history::entry_json(&self.names, entry));
        let mut report = json!({
            "program": self.program,
            "node": self.names.node,
            "events": self.events,
            "decisions": self.entries.len(),
            "bytes": self.bytes,
            "seconds": self.seconds(),
            "from_ms": self.ms(self.begins),
            "to_ms": self.ms(self.last),
            "checkpoints": self.checkpoints,
            "left_out": self.left_out.iter().map(LeftOut::to_string).collect::<Vec<_>>(),
            "end": end,
            "identical": self.difference.is_none() && !self.astray,
            "difference": difference,
            "entries": entries.collect::<Vec<_>>(),
        });
        if only == Only::All {
            report["turns"] = json!(self.turns);
        }
        report
    }
}

/// An action as a programmer reads it.
fn in_words(action: &Action) -> String {
    format!("{action:?}")
}
