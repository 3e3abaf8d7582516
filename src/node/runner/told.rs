//! What a node tells once after it has started: what its last boot ended with, and what its
//! watchdog is worth.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use standfast_sys::clock::boottime_ns;

use super::history::History;
use super::lease::Lease;
use super::{RunnerError, failed, tell};
use crate::config::{Config, NodeConfig};
use crate::engine::{Class, Record};
use crate::model::{NodeId, TaskIndex};
use crate::node::control::WatchdogStatus;
use crate::node::options::Options;
use crate::node::page::WatchdogKind;
use crate::node::paths;
use crate::storage::last_words::{LAST_WORDS_LEN, LastWords};
use crate::time::Instant;

/// Who tells, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Teller {
    pub(super) node: NodeId,
    pub(super) now: Instant,
    /// Epoch that the records bear.
    pub(super) epoch: u64,
}

impl Teller {
    /// Of this moment.
    pub(super) fn now(node: NodeId, lease: &Lease) -> Teller {
        Teller {
            node,
            now: Instant(boottime_ns()),
            epoch: lease.epoch(),
        }
    }

    pub(super) fn record(&self, class: Class, trigger: &str, outcome: String) -> Record {
        Record {
            at: self.now,
            epoch: self.epoch,
            class,
            task: None,
            node: Some(self.node),
            trigger: trigger.to_owned(),
            evidence: Vec::new(),
            rule: String::new(),
            rejected: Vec::new(),
            outcome,
        }
    }

    /// What there is to say of the watchdog; `first` in this boot.
    pub(super) fn watchdog(&self, watchdog: &WatchdogStatus, first: bool) -> Vec<Record> {
        let mut records = Vec::new();
        if first && watchdog.caused_boot {
            let outcome = "the last boot was by the watchdog: this node had hung, or could not \
                           let go";
            records.push(self.record(Class::Major, "the node has booted", outcome.to_owned()));
        }
        let trigger = "the watchdog was armed";
        if watchdog.in_force_ms != watchdog.asked_ms {
            let (asked, in_force) = (watchdog.asked_ms / 1e3, watchdog.in_force_ms / 1e3);
            let outcome = format!("its driver makes {in_force} s of a timeout of {asked} s");
            records.push(self.record(Class::Notice, trigger, outcome));
        }
        let weak = match watchdog.kind {
            WatchdogKind::Software | WatchdogKind::Missing => watchdog.weakness(),
            // As configured, which `check` warns of.
            WatchdogKind::None | WatchdogKind::StandIn | WatchdogKind::Hardware => None,
        };
        if let Some(weak) = weak {
            records.push(self.record(Class::Warning, trigger, format!("weak watchdog: {weak}")));
        }
        records
    }

    /// What the last boot said before it reset itself: one record for each task, so that `why` has
    /// it too.
    pub(super) fn last_words(&self, words: &LastWords) -> Vec<Record> {
        let tasks = (0..u64::BITS as usize).filter(|task| words.tasks >> task & 1 != 0);
        let mut tasks: Vec<Option<TaskIndex>> = tasks.map(TaskIndex::new).collect();
        if tasks.is_empty() {
            tasks.push(None);
        }
        let (epoch, reason) = (words.epoch, words.reason.words());
        let outcome = format!("this node reset itself at epoch {epoch}: {reason}");
        let record = |task| Record {
            task,
            epoch,
            rule: "a node that cannot let go of what it may not have any more resets itself"
                .to_owned(),
            ..self.record(Class::Critical, "the node has booted", outcome.clone())
        };
        tasks.into_iter().map(record).collect()
    }
}

/// The history, in which the last boot and the watchdog have their say first.
pub(super) fn open_history(
    options: &Options,
    config: &Config,
    node: &NodeConfig,
    lease: &Lease,
) -> Result<History, RunnerError> {
    let history = History::open(&options.state_dir).map_err(failed("start the history"))?;
    let words = paths::last_words(&options.state_dir, &config.cluster().id, node.id);
    for record in of_the_start(node.id, &words, lease) {
        tell(&record);
        history.keep(record, None);
    }
    Ok(history)
}

/// What the history is to say of the last boot and of the watchdog, once each.
fn of_the_start(node: NodeId, last_words: &Path, lease: &Lease) -> Vec<Record> {
    let teller = Teller::now(node, lease);
    let words = take_last_words(last_words, lease.boot()).unwrap_or_else(|error| {
        let path = last_words.display();
        tracing::warn!(%error, %path, "what this node said last is lost");
        None
    });
    let mut records = words.map_or_else(Vec::new, |words| teller.last_words(&words));
    let (told, start) = lease.tell_watchdog();
    if told != start {
        records.extend(teller.watchdog(&lease.watchdog(), told == 0));
    }
    records
}

/// Reads and wipes what an earlier boot has left. `None` if there is nothing, or it is of this
/// boot: then the reset has not come, and may still.
///
/// # Errors
///
/// It cannot be read, or not be wiped, and would be told again.
pub(super) fn take_last_words(path: &Path, boot: [u8; 16]) -> io::Result<Option<LastWords>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(words) = LastWords::decode(&bytes).filter(|words| words.boot != boot) else {
        return Ok(None);
    };
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(OFlag::O_DSYNC.bits());
    options.open(path)?.write_all_at(&[0; LAST_WORDS_LEN], 0)?;
    Ok(Some(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::last_words::Reason;

    const TELLER: Teller = Teller {
        node: NodeId::new(1).unwrap(),
        now: Instant(5),
        epoch: 0,
    };

    fn outcomes(records: &[Record]) -> Vec<&str> {
        records
            .iter()
            .map(|record| record.outcome.as_str())
            .collect()
    }

    #[test]
    fn last_words_are_told_once_and_not_in_the_boot_that_said_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("last-words");
        assert_eq!(take_last_words(&path, [1; 16]).unwrap(), None);
        let words = LastWords {
            reason: Reason::NotReleased,
            boot: [1; 16],
            epoch: 17,
            tasks: 0b101,
            at: Instant(3),
        };
        fs::write(&path, words.encode()).unwrap();
        assert_eq!(take_last_words(&path, [1; 16]).unwrap(), None);
        assert_eq!(take_last_words(&path, [2; 16]).unwrap(), Some(words));
        assert_eq!(take_last_words(&path, [3; 16]).unwrap(), None);
        let records = TELLER.last_words(&words);
        let text = "this node reset itself at epoch 17: what it held could not be released in time";
        assert_eq!(outcomes(&records), [text, text]);
        let tasks: Vec<_> = records.iter().map(|record| record.task).collect();
        assert_eq!(tasks, [TaskIndex::new(0), TaskIndex::new(2)]);
        let idle = TELLER.last_words(&LastWords { tasks: 0, ..words });
        assert_eq!((idle.len(), idle[0].task), (1, None));
    }

    #[test]
    fn a_boot_by_the_watchdog_is_told_once_and_weakness_at_each_start() {
        let mut watchdog = WatchdogStatus {
            kind: WatchdogKind::Hardware,
            asked_ms: 10_000.0,
            in_force_ms: 10_000.0,
            ..WatchdogStatus::default()
        };
        assert_eq!(TELLER.watchdog(&watchdog, true), []);
        watchdog.caused_boot = true;
        let told = TELLER.watchdog(&watchdog, true);
        assert!(outcomes(&told)[0].starts_with("the last boot was by the watchdog"));
        assert_eq!(TELLER.watchdog(&watchdog, false), []);
        watchdog.kind = WatchdogKind::Software;
        watchdog.in_force_ms = 16_000.0;
        let told = TELLER.watchdog(&watchdog, false);
        let expected = [
            "its driver makes 16 s of a timeout of 10 s",
            "weak watchdog: it is a timer of the kernel: one that hangs is not reset",
        ];
        assert_eq!(outcomes(&told), expected);
        watchdog.kind = WatchdogKind::StandIn;
        watchdog.in_force_ms = 10_000.0;
        assert_eq!(TELLER.watchdog(&watchdog, false), []);
    }
}
