//! The history: records as lines of JSON in the state directory, for `history` and `why`.
//!
//! Written by a thread of its own, because a disk may hang: then entries wait in a bounded queue,
//! and what finds it full is counted and dropped. Nothing here can stop a task. A crash may tear
//! the last line; readers skip what they do not understand.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::SystemTime;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use serde::{Deserialize, Serialize};

use crate::engine::Record;
use crate::model::TaskIndex;
use crate::node::control::HistoryEntry;

/// A file above this is moved aside; one older file is kept.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Most entries that wait for the disk.
const WAITING_MAX: usize = 1_024;

/// Most entries of one answer.
const ENTRIES_MAX: usize = 5_000;

/// Longest line that is read; what writes is far below.
const LINE_BYTES_MAX: usize = 256 * 1024;

/// Most bytes of entries in one answer, so that it fits into a message.
const ANSWER_BYTES_MAX: usize = 900 * 1024;

/// One line.
#[derive(Serialize, Deserialize)]
struct Line {
    time: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    asked_by: Option<String>,
    #[serde(flatten)]
    record: Record,
}

/// Where entries go.
#[derive(Clone)]
pub struct History {
    queue: Sender<Line>,
    directory: PathBuf,
    lost: Arc<AtomicU64>,
}

impl History {
    /// Starts the writer. The directory is made when it is first needed.
    ///
    /// # Errors
    ///
    /// No thread is to be had.
    pub fn open(directory: &Path) -> io::Result<History> {
        let (queue, entries) = bounded(WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let (to, counter) = (directory.to_owned(), Arc::clone(&lost));
        let writer = move || write_all(&to, &entries, &counter);
        thread::Builder::new()
            .name("history".to_owned())
            .spawn(writer)?;
        Ok(History {
            queue,
            directory: directory.to_owned(),
            lost,
        })
    }

    /// Keeps a record, with the wall-clock time and who asked for it, if somebody did.
    pub fn keep(&self, record: Record, asked_by: Option<String>) {
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        match self.queue.try_send(Line {
            time,
            asked_by,
            record,
        }) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Entries that could not be written so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// The latest entries, oldest first; may block as long as the disk does.
    ///
    /// # Errors
    ///
    /// A file is there and cannot be read.
    pub fn read(&self, limit: usize, task: Option<TaskIndex>) -> io::Result<Vec<HistoryEntry>> {
        let limit = limit.min(ENTRIES_MAX);
        let mut found = std::collections::VecDeque::new();
        let mut bytes = 0;
        for path in [older(&self.directory), current(&self.directory)] {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let mut reader = BufReader::new(file);
            while let Some((line, length)) = next_line(&mut reader)? {
                let Some(line) = line else { continue };
                if task.is_some() && line.record.task != task {
                    continue;
                }
                found.push_back((line, length));
                bytes += length;
                while found.len() > limit || bytes > ANSWER_BYTES_MAX {
                    bytes -= found.pop_front().map_or(0, |(_, length)| length);
                }
            }
        }
        let entry = |(line, _): (Line, usize)| HistoryEntry {
            time: line.time,
            asked_by: line.asked_by,
            record: line.record,
        };
        Ok(found.into_iter().map(entry).collect())
    }
}

/// The next line and its length; none inside for one that is torn or of another program.
fn next_line(reader: &mut impl BufRead) -> io::Result<Option<(Option<Line>, usize)>> {
    let mut bytes = Vec::new();
    let length =
        io::Read::take(&mut *reader, LINE_BYTES_MAX as u64).read_until(b'\n', &mut bytes)?;
    if length == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&bytes).ok(), length)))
}

fn current(directory: &Path) -> PathBuf {
    directory.join("history.jsonl")
}

fn older(directory: &Path) -> PathBuf {
    directory.join("history.jsonl.1")
}

fn write_all(directory: &Path, entries: &Receiver<Line>, lost: &AtomicU64) {
    let mut file = None;
    for line in entries {
        let written = write_one(directory, &mut file, &line);
        if let Err(error) = written {
            // Opened anew for the next entry: the directory may have come back.
            file = None;
            if lost.fetch_add(1, Ordering::Relaxed) == 0 {
                let path = current(directory);
                tracing::error!(%error, path = %path.display(), "history not written");
            }
        }
    }
}

fn write_one(directory: &Path, file: &mut Option<File>, line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    let open = match file {
        Some(open) => open,
        None => file.insert(open_file(directory)?),
    };
    open.write_all(&text)?;
    if open.metadata()?.len() > FILE_BYTES_MAX {
        *file = None;
        fs::rename(current(directory), older(directory))?;
    }
    Ok(())
}

/// Opens for appending; a torn last line of an earlier life gets its end first.
fn open_file(directory: &Path) -> io::Result<File> {
    fs::create_dir_all(directory)?;
    let path = current(directory);
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .read(true)
        .open(path)?;
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut last, length - 1)?;
    }
    if last != [b'\n'] {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Class;
    use crate::time::Instant;

    fn record(number: u64, task: usize) -> Record {
        Record {
            at: Instant(number),
            epoch: 1,
            class: Class::Info,
            task: TaskIndex::new(task),
            node: None,
            trigger: format!("entry {number}"),
            evidence: vec!["x".repeat(1_000)],
            rule: String::new(),
            rejected: Vec::new(),
            outcome: String::new(),
        }
    }

    fn line(number: u64) -> Line {
        let time = "2026-01-01T00:00:00.000Z".to_owned();
        Line {
            time,
            asked_by: None,
            record: record(number, (number % 2) as usize),
        }
    }

    #[test]
    fn entries_come_back_in_order_across_a_rotation_and_a_torn_line() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = None;
        let count = FILE_BYTES_MAX / 1_000 + 100;
        for number in 0..count {
            write_one(directory.path(), &mut file, &line(number)).unwrap();
        }
        assert!(older(directory.path()).exists());
        file.take().unwrap().write_all(b"{\"time\":\"2026").unwrap();
        write_one(directory.path(), &mut file, &line(count)).unwrap();
        let history = History::open(directory.path()).unwrap();
        let numbers = |entries: Vec<HistoryEntry>| -> Vec<u64> {
            entries.into_iter().map(|entry| entry.record.at.0).collect()
        };
        let latest = numbers(history.read(200, None).unwrap());
        assert_eq!(latest, (count - 199..=count).collect::<Vec<_>>());
        let even = numbers(history.read(3, TaskIndex::new(0)).unwrap());
        assert!(
            even.len() == 3 && even.iter().all(|number| number % 2 == 0),
            "{even:?}"
        );
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_counted_not_fatal() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "in the way").unwrap();
        let lost = AtomicU64::new(0);
        let (queue, entries) = bounded(2);
        queue.send(line(1)).unwrap();
        queue.send(line(2)).unwrap();
        drop(queue);
        write_all(&path, &entries, &lost);
        assert_eq!(lost.load(Ordering::Relaxed), 2);
    }
}
