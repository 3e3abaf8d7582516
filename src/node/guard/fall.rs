//! The last rung: a node that cannot let go resets itself.
//!
//! ```text
//! release begun     overdue            fall begins          words kept, or time is up
//!      |--- G ---------|---- patience -----|--- at most WORDS_MAX ---|
//!                       no pets             reason to another thread  reset: 'b', without a sync
//! ```
//! From the moment the fall begins the watchdog is not petted any more, whatever happens: should
//! the order to the kernel be lost, the hardware carries it out. What is written before is written
//! by a thread that may wait for the disk; the guard never does.
//!
//! A node without an armed watchdog has no such rung: there `standfastd` may be a guest of
//! somebody else's machine, as in a container.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::fcntl::OFlag;

use super::STACK_BYTES;
use crate::config::Timing;
use crate::storage::last_words::{LAST_WORDS_LEN, LastWords, Reason};
use crate::time::{Instant, Span};

/// After the release bound a kill that is only slow, of a process with much memory, gets this long
/// at least: meanwhile the lifetime of addresses and the reservation stand between this node and
/// its data.
const PATIENCE_MIN: Span = Span::from_ms(250);

/// How long the reset waits for the last words.
const WORDS_MAX: Span = Span::from_ms(200);

/// Where the kernel takes orders (Documentation/admin-guide/sysrq.rst). What root writes there is
/// done whatever the mask of the keyboard's requests says.
const SYSRQ: &str = "/proc/sysrq-trigger";

/// "Will immediately reboot the system without syncing or unmounting your disks."
const REBOOT: &[u8] = b"b";

/// Where the kernel takes lines for its own log.
const KMSG: &str = "/dev/kmsg";

/// Resets this machine.
pub trait Reset: Send {
    /// Does it, at once; whoever comes back from it is still alive.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    fn reset(&self) -> io::Result<()>;
}

/// The kernel's own reset, opened before it is needed.
pub struct SysRq(File);

impl SysRq {
    /// Opens it; nothing is ordered yet.
    ///
    /// # Errors
    ///
    /// The kernel has none, or this user may not.
    pub fn open() -> io::Result<SysRq> {
        OpenOptions::new().write(true).open(SYSRQ).map(SysRq)
    }
}

impl Reset for SysRq {
    fn reset(&self) -> io::Result<()> {
        (&self.0).write_all(REBOOT)
    }
}

/// Keeps what is said last, on a thread of its own.
pub struct Farewell {
    words: Sender<LastWords>,
    kept: Arc<AtomicBool>,
}

impl Farewell {
    /// Opens, and where needed makes, the file at `path`, so that later one write to a place it has
    /// already is enough. The words go to the kernel's log too, if there is one. May block.
    ///
    /// # Errors
    ///
    /// The file cannot be made, or there is no thread.
    pub fn prepare(path: &Path, kernel_log: Option<File>) -> io::Result<Farewell> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.mode(0o600).custom_flags(OFlag::O_DSYNC.bits());
        let file = options.open(path)?;
        if file.metadata()?.len() != LAST_WORDS_LEN as u64 {
            file.set_len(0)?;
            file.write_all_at(&[0; LAST_WORDS_LEN], 0)?;
        }
        let (words, said) = bounded(1);
        let kept = Arc::new(AtomicBool::new(false));
        let mark = Arc::clone(&kept);
        std::thread::Builder::new()
            .name("farewell".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || keep(&file, kernel_log, &said, &mark))?;
        Ok(Farewell { words, kept })
    }

    /// Has them kept; never waits.
    fn say(&self, words: LastWords) {
        // It is said once; a full queue would hold the same words.
        let _ = self.words.try_send(words);
    }

    fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Acquire)
    }
}

/// Where the kernel takes lines for its log, if it does.
pub(super) fn kernel_log() -> Option<File> {
    OpenOptions::new().write(true).open(KMSG).ok()
}

fn keep(file: &File, kernel_log: Option<File>, said: &Receiver<LastWords>, kept: &AtomicBool) {
    while let Ok(words) = said.recv() {
        if let Some(mut log) = kernel_log.as_ref() {
            let (epoch, tasks) = (words.epoch, words.tasks);
            let line = format!(
                "standfast: resetting this node at epoch {epoch}, tasks={tasks:#x}: {}\n",
                words.reason.words()
            );
            let _ = log.write_all(line.as_bytes());
        }
        // What cannot be written must not keep the node from its reset.
        let _ = file.write_all_at(&words.encode(), 0);
        kept.store(true, Ordering::Release);
    }
}

/// How a node without a lease stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sight {
    /// Tasks whose release is overdue, bit by task index; zero if it is not.
    pub(super) overdue: u64,
    /// Tasks that could not be stopped.
    pub(super) stuck: u64,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Stand,
    /// Have the last words kept: why, and of which tasks.
    Say(Reason, u64),
    /// Nothing yet: they are being kept.
    Wait,
    /// Reset the node.
    Reset,
}

/// When a node falls. Pure: time is an argument.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fall {
    patience: Span,
    overdue: Option<Instant>,
    stuck: Option<Instant>,
    begun: Option<Instant>,
    done: bool,
}

impl Fall {
    pub(super) fn new(timing: &Timing) -> Fall {
        Fall {
            patience: timing.release.max(PATIENCE_MIN),
            overdue: None,
            stuck: None,
            begun: None,
            done: false,
        }
    }

    /// From here on nothing can call it off.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// One look. `kept`: the last words are.
    pub(super) fn step(&mut self, now: Instant, sight: Sight, kept: bool) -> Step {
        if let Some(begun) = self.begun {
            if !self.done && (kept || now.since(begun) >= WORDS_MAX) {
                self.done = true;
                return Step::Reset;
            }
            return Step::Wait;
        }
        let patience = self.patience;
        let long = |since: &mut Option<Instant>, tasks: u64| {
            if tasks == 0 {
                *since = None;
                return false;
            }
            now.since(*since.get_or_insert(now)) >= patience
        };
        let overdue = long(&mut self.overdue, sight.overdue);
        let stuck = long(&mut self.stuck, sight.stuck);
        let (reason, tasks) = match (overdue, stuck) {
            (true, _) => (Reason::NotReleased, sight.overdue),
            (false, true) => (Reason::NotStopped, sight.stuck),
            (false, false) => return Step::Stand,
        };
        self.begun = Some(now);
        Step::Say(reason, tasks)
    }
}

/// The means of the last rung, where there is one.
pub struct LastRung {
    /// Resets the machine; without it only the pets end.
    pub reset: Option<Box<dyn Reset>>,
    /// Keeps the reason; without it nobody will know.
    pub farewell: Option<Farewell>,
    /// The boot that would end.
    pub boot: [u8; 16],
}

impl LastRung {
    pub(super) fn say(&self, reason: Reason, tasks: u64, epoch: u64, at: Instant) {
        if let Some(farewell) = &self.farewell {
            farewell.say(LastWords {
                reason,
                boot: self.boot,
                epoch,
                tasks,
                at,
            });
        }
    }

    pub(super) fn is_said(&self) -> bool {
        self.farewell.as_ref().is_none_or(Farewell::is_kept)
    }

    pub(super) fn reset(&self) -> io::Result<()> {
        match &self.reset {
            Some(reset) => reset.reset(),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Sight = Sight {
        overdue: 0,
        stuck: 0,
    };
    const OVERDUE: Sight = Sight {
        overdue: 0b10,
        stuck: 0,
    };
    const STUCK: Sight = Sight {
        overdue: 0,
        stuck: 0b1,
    };

    fn at(ms: u64) -> Instant {
        Instant(9_000_000_000) + Span::from_ms(ms)
    }

    /// D = 500 ms: the release bound is 50 ms, so patience is the smallest one.
    fn fall() -> Fall {
        Fall::new(&Timing::from_detect(Span::from_ms(500)))
    }

    #[test]
    fn what_is_released_in_time_costs_nothing() {
        let mut fall = fall();
        for round in 0..10 {
            let now = round * 1_000;
            assert_eq!(fall.step(at(now), OVERDUE, false), Step::Stand);
            assert_eq!(fall.step(at(now + 249), STUCK, false), Step::Stand);
            assert_eq!(fall.step(at(now + 498), NOTHING, false), Step::Stand);
        }
        assert!(!fall.has_begun());
    }

    #[test]
    fn words_first_then_one_reset() {
        let mut fall = fall();
        assert_eq!(fall.step(at(0), OVERDUE, false), Step::Stand);
        let said = Step::Say(Reason::NotReleased, 0b10);
        assert_eq!(fall.step(at(250), OVERDUE, false), said);
        assert!(fall.has_begun());
        assert_eq!(fall.step(at(260), NOTHING, false), Step::Wait);
        assert_eq!(fall.step(at(270), NOTHING, true), Step::Reset);
        assert_eq!(fall.step(at(280), NOTHING, true), Step::Wait);
    }

    #[test]
    fn a_disk_that_hangs_does_not_hold_up_the_reset() {
        let mut fall = fall();
        assert_eq!(fall.step(at(0), STUCK, false), Step::Stand);
        let said = Step::Say(Reason::NotStopped, 0b1);
        assert_eq!(fall.step(at(400), STUCK, false), said);
        assert_eq!(fall.step(at(599), STUCK, false), Step::Wait);
        assert_eq!(fall.step(at(600), STUCK, false), Step::Reset);
    }

    #[test]
    fn a_long_release_bound_is_waited_for() {
        let mut fall = Fall::new(&Timing::from_detect(Span::from_ms(10_000)));
        assert_eq!(fall.step(at(0), OVERDUE, false), Step::Stand);
        assert_eq!(fall.step(at(999), OVERDUE, false), Step::Stand);
        assert!(matches!(
            fall.step(at(1_000), OVERDUE, false),
            Step::Say(..)
        ));
    }

    #[test]
    fn what_was_said_is_in_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state").join("last-words");
        let farewell = Farewell::prepare(&path, None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), [0; LAST_WORDS_LEN]);
        let rung = LastRung {
            reset: None,
            farewell: Some(farewell),
            boot: [7; 16],
        };
        assert!(!rung.is_said());
        rung.say(Reason::NotStopped, 1, 17, at(0));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !rung.is_said() {
            assert!(std::time::Instant::now() < deadline, "it is never kept");
            std::thread::yield_now();
        }
        let words = LastWords::decode(&fs::read(&path).unwrap()).unwrap();
        assert_eq!((words.reason, words.boot), (Reason::NotStopped, [7; 16]));
        // The next life finds them: they are not overwritten before they were told.
        drop(Farewell::prepare(&path, None).unwrap());
        assert_eq!(fs::read(&path).unwrap(), words.encode());
        assert!(rung.reset().is_err(), "there is nothing to reset with");
    }
}
