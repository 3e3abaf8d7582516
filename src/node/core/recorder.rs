//! The recorder: what the engine is told, into memory that outlives this process.
//!
//! The memory is a file on tmpfs, made whole and mapped before the core begins its work: nothing is
//! asked of the kernel afterwards, no disk is ever waited for, and whoever opens the file sees what
//! this process wrote, however it ended. A reboot or a power cut ends it. A file on a disk would
//! not do: the kernel makes the writer of a mapped page wait while it writes that page back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use standfast_sys::Failed;
use standfast_sys::sharedpage::SharedPage;

use crate::engine::{Action, Class, Engine, Event, Record, Setup};
use crate::record::{Start, Tape, TooSmall};
use crate::time::Instant;

/// Words of a mebibyte.
const MIB_WORDS: usize = (1 << 20) / size_of::<u64>();

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
    #[error("the record is too small")]
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
    begun: Instant,
    path: PathBuf,
    /// Was it told that the record is full?
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
            begun: now,
            path: path.to_owned(),
            told: false,
        })
    }

    /// The engine is about to be told this.
    pub(super) fn event(&mut self, now: Instant, event: &Event) {
        self.tape.event(self.page.words(), now, event);
    }

    /// The engine wants this done.
    pub(super) fn action(&mut self, action: &Action) {
        self.tape.action(action);
    }

    /// The turn is over. Gives what the history is to say when the record has become full.
    pub(super) fn done(&mut self, now: Instant, engine: &Engine) -> Option<Record> {
        self.tape.done(self.page.words(), engine);
        if self.told || !self.tape.is_full() {
            return None;
        }
        self.told = true;
        let seconds = now.since(self.begun).as_ms() / 1_000;
        Some(Record {
            at: now,
            epoch: engine.view().epoch,
            class: Class::Info,
            task: None,
            node: None,
            trigger: "the record of the run is full".into(),
            evidence: Vec::new(),
            rule: String::new(),
            rejected: Vec::new(),
            outcome: format!(
                "{} holds the first {seconds} s of this core; recording has ended",
                self.path.display()
            ),
        })
    }
}
