//! The recorder: what the engine is told, into memory that outlives this process.
//!
//! The memory is a file on tmpfs, made whole and mapped before the core begins its work: nothing is
//! asked of the kernel afterwards, no disk is ever waited for, and whoever opens the file sees what
//! this process wrote, however it ended. A reboot or a power cut ends it. A file on a disk would
//! not do: the kernel makes the writer of a mapped page wait while it writes that page back.
//!
//! The file holds the newest stretch of this life, as long as fits; see [`record`](crate::record).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use standfast_sys::Failed;
use standfast_sys::sharedpage::SharedPage;

use crate::engine::{Action, Class, Engine, Event, Record, Setup};
use crate::record::{Start, Tape, TooSmall, WORDS_MIN};
use crate::time::Instant;

/// Words of a mebibyte.
const MIB_WORDS: usize = (1 << 20) / size_of::<u64>();

/// Least size of a record in mebibytes: the largest cluster's engine fits twice into each part.
pub const RECORD_MIB_MIN: u32 = WORDS_MIN.div_ceil(MIB_WORDS) as u32;

/// Largest size, for it is locked memory.
pub const RECORD_MIB_MAX: u32 = 1024;

/// Why a record cannot lie where it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The directory cannot be looked at.
    #[error("cannot look at {}, where the record is to be", directory.display())]
    Look {
        /// Which.
        directory: PathBuf,
        /// Why.
        source: Errno,
    },
    /// It is on a disk, or on nobody knows what.
    #[error("{} is not on tmpfs: the core would have to wait for a disk", directory.display())]
    NotInMemory {
        /// Which.
        directory: PathBuf,
    },
}

impl PlaceError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            PlaceError::Look { .. } => "name a FILE in a directory that is there",
            PlaceError::NotInMemory { .. } => {
                "let --record name a file below /run, for example /run/standfast.record"
            }
        }
    }
}

/// Why there is no recorder.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecorderError {
    /// The place is wrong.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The record of the life before cannot be put aside.
    #[error("the record before cannot be kept as {}", path.display())]
    Before { path: PathBuf, source: io::Error },
    /// There is no memory, or the file cannot be made.
    #[error(transparent)]
    Make(#[from] Failed),
    /// The configuration alone fills it.
    #[error("the record is too small; use --record-mib {RECORD_MIB_MIN} or more")]
    TooSmall(#[from] TooSmall),
}

/// May a record lie there?
///
/// # Errors
///
/// There is no such directory, or it is not in memory.
pub fn check_place(record: &Path) -> Result<(), PlaceError> {
    let directory = match record.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    match statfs(&directory) {
        Ok(found) if found.filesystem_type() == TMPFS_MAGIC => Ok(()),
        Ok(_) => Err(PlaceError::NotInMemory { directory }),
        Err(source) => Err(PlaceError::Look { directory, source }),
    }
}

/// Where the record of the life before is kept.
fn before(record: &Path) -> PathBuf {
    let mut name = record.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// See the module.
#[derive(Debug)]
pub(super) struct Recorder {
    page: SharedPage,
    tape: Tape,
    path: PathBuf,
    /// Was it told that recording has ended?
    told: bool,
}

impl Recorder {
    /// Puts the record of the life before aside and begins a new one of `mib` mebibytes.
    pub(super) fn create(
        path: &Path,
        mib: u32,
        setup: &Setup,
        now: Instant,
    ) -> Result<Recorder, RecorderError> {
        check_place(path)?;
        match fs::rename(path, before(path)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                let path = before(path);
                return Err(RecorderError::Before { path, source });
            }
        }
        let page = SharedPage::create(path, mib as usize * MIB_WORDS)?;
        let start = Start {
            program: env!("CARGO_PKG_VERSION").into(),
            setup: setup.clone(),
            now,
        };
        let tape = Tape::begin(page.words(), &start)?;
        Ok(Recorder {
            page,
            tape,
            path: path.to_owned(),
            told: false,
        })
    }

    /// The engine is about to be told this.
    pub(super) fn event(&mut self, now: Instant, event: &Event, engine: &Engine) {
        self.tape.event(self.page.words(), now, event, engine);
    }

    /// The engine wants this done.
    pub(super) fn action(&mut self, action: &Action) {
        self.tape.action(action);
    }

    /// The turn is over. Gives what the history is to say when recording has ended.
    pub(super) fn done(&mut self, now: Instant, engine: &Engine) -> Option<Record> {
        self.tape.done(self.page.words(), engine);
        if self.told || !self.tape.is_full() {
            return None;
        }
        self.told = true;
        Some(Record {
            at: now,
            epoch: engine.view().epoch,
            class: Class::Warning,
            task: None,
            node: None,
            trigger: "the record of the run has no room for what came now".into(),
            evidence: Vec::new(),
            rule: String::new(),
            rejected: Vec::new(),
            outcome: format!(
                "recording has ended; {} holds what was before, a larger --record-mib holds more",
                self.path.display()
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Timing;
    use crate::engine::Report;
    use crate::model::{Incarnation, NodeId, NodeSet};
    use crate::record::{End, Replay, Verdict};
    use crate::register::Memory;
    use crate::time::Span;

    fn setup(start: u32) -> Setup {
        let me = NodeId::new(1).unwrap();
        Setup {
            me,
            incarnation: Incarnation {
                boot: [1; 16],
                start,
            },
            cluster: [7; 16],
            nodes: vec![(me, "a".into())],
            tasks: Vec::new(),
            timing: Timing::from_detect(Span::from_ms(500)),
            config_hash: [1; 8],
            config_revision: 1,
            links: 1,
            seed: 3,
            first_sequence: 0,
            resumed: None,
            watchdog: false,
            memory: Memory::Pending,
            networks: 1,
            fences: NodeSet::EMPTY,
            disks: 1,
        }
    }

    /// A life of so many turns, recorded as the core does it; what the history is to be told.
    fn life(path: &Path, start: u32, turns: u32, note: &str) -> Vec<Record> {
        let now = Instant(1_000_000_000);
        let mut recorder = Recorder::create(path, 1, &setup(start), now).unwrap();
        let mut engine = Engine::new(setup(start), now);
        let mut told = Vec::new();
        for turn in 0..turns {
            let now = now + Span::from_ms(10).times(turn.into());
            let event = Event::Report(Report::Note {
                task: None,
                class: Class::Info,
                text: note.to_owned(),
            });
            recorder.event(now, &event, &engine);
            engine.handle(now, event);
            while let Some(action) = engine.poll_action() {
                recorder.action(&action);
            }
            told.extend(recorder.done(now, &engine));
        }
        told
    }

    /// Which life a record is of, how many of its turns were repeated, and how it ends.
    fn played(path: &Path) -> (u32, u32, Option<End>) {
        let bytes = fs::read(path).unwrap();
        let mut replay = Replay::open(&bytes).unwrap();
        let mut same = 0;
        while let Some(turn) = replay.turn().unwrap() {
            same += u32::from(turn.verdict == Verdict::Same);
        }
        (replay.setup().incarnation.start, same, replay.end())
    }

    #[test]
    fn each_life_begins_a_record_and_keeps_that_of_the_life_before() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = directory.path().join("record");
        assert!(life(&path, 1, 10, "one").is_empty());
        assert_eq!(played(&path), (1, 10, Some(End::Open)));
        assert!(life(&path, 2, 20, "two").is_empty());
        assert_eq!(played(&path), (2, 20, Some(End::Open)));
        assert_eq!(played(&before(&path)), (1, 10, Some(End::Open)));
        life(&path, 3, 30, "three");
        assert_eq!(played(&before(&path)).0, 2);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_record_goes_on_for_ever_and_holds_the_newest_turns() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = directory.path().join("record");
        assert!(life(&path, 1, 400, &"x".repeat(10_000)).is_empty());
        let (_, same, end) = played(&path);
        assert!((70..110).contains(&same), "{same}");
        assert_eq!(end, Some(End::Open));
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 1 << 20);
        let mut replay = Replay::open(&bytes).unwrap();
        let mut last = 0;
        while let Some(turn) = replay.turn().unwrap() {
            last = turn.number;
        }
        assert_eq!((last, replay.checkpoints()), (400, 3));
    }

    #[test]
    fn what_no_record_has_room_for_ends_it_and_is_told_once() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = directory.path().join("record");
        let told = life(&path, 1, 3, &"x".repeat(300_000));
        let [record] = &told[..] else {
            panic!("{told:?}");
        };
        assert!(record.outcome.contains("recording has ended"), "{record:?}");
        assert_eq!(played(&path), (1, 0, Some(End::Full)));
    }

    #[test]
    fn a_place_that_is_not_in_memory_is_refused() {
        let there = tempfile::tempdir_in("/dev/shm").unwrap();
        assert!(check_place(&there.path().join("record")).is_ok());
        let wrong = check_place(Path::new("/proc/record")).unwrap_err();
        assert!(matches!(wrong, PlaceError::NotInMemory { .. }), "{wrong}");
        assert!(wrong.remedy().contains("/run"));
        let missing = check_place(&there.path().join("no/record")).unwrap_err();
        assert!(matches!(missing, PlaceError::Look { .. }), "{missing}");
        let now = Instant(1);
        let refused = Recorder::create(Path::new("/proc/record"), 1, &setup(1), now);
        assert!(matches!(refused, Err(RecorderError::Place(_))));
    }
}
