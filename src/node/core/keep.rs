//! The thread that keeps this node's record: what it has promised must be on its own disk first.
//!
//! A thread of its own, because a disk may hang. Then the engine waits for no answer and promises
//! nothing; whatever does not need a promise goes on. One write is under way at most.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use standfast_sys::sentence;

use super::{become_realtime_thread, now};
use crate::engine::Event;
use crate::register::{Block, Memory};
use crate::storage::kept::{Kept, Owner};

/// When nothing was to be kept for so long, the newest record is repeated into the other copy.
const IDLE: Duration = Duration::from_millis(200);

const STACK_BYTES: usize = 256 * 1024;

/// The engine's handle.
#[derive(Debug)]
pub(super) struct Keep {
    orders: Sender<Block>,
}

impl Keep {
    /// Starts the thread, which opens the file at once and tells what it holds.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn spawn(path: PathBuf, owner: Owner, events: Sender<Event>) -> io::Result<Keep> {
        let (orders, ordered) = bounded(1);
        std::thread::Builder::new()
            .name("keep".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                become_realtime_thread();
                run(&path, owner, &ordered, &events);
            })?;
        Ok(Keep { orders })
    }

    /// Has a record kept; [`Event::Kept`] or [`Event::KeepFailed`] answers. Never blocks.
    ///
    /// # Panics
    ///
    /// If two are waiting: the engine orders one after the other.
    pub(super) fn order(&self, block: Block) {
        let taken = self.orders.try_send(block);
        taken.expect("the engine has one record under way at most");
    }
}

/// Opens the file, then keeps what is ordered until the core ends.
fn run(path: &Path, owner: Owner, orders: &Receiver<Block>, events: &Sender<Event>) {
    let (mut kept, memory, trouble) = match Kept::open(path, owner) {
        Ok((kept, found)) => (Ok(kept), found.map_or(Memory::Nothing, Memory::Kept), None),
        Err(error) => {
            let reason = format!("{}; {}", sentence(&error), error.remedy());
            let memory = if error.never_was() {
                Memory::Unable
            } else {
                Memory::Lost
            };
            (Err(reason.clone()), memory, Some(reason))
        }
    };
    if events.send(Event::Remembered { memory, trouble }).is_err() {
        return;
    }
    while let Some(block) = next(&mut kept, orders) {
        let result = match &mut kept {
            Ok(kept) => kept.keep(&block).map_err(|error| sentence(&error)),
            Err(reason) => Err(reason.clone()),
        };
        let at = now();
        let event = match result {
            Ok(()) => Event::Kept { at },
            Err(reason) => Event::KeepFailed { at, reason },
        };
        if events.send(event).is_err() {
            return;
        }
    }
}

/// The next order; none when the core has ended. Repeats the newest record when there is time.
fn next(kept: &mut Result<Kept, String>, orders: &Receiver<Block>) -> Option<Block> {
    if let Ok(kept) = kept
        && kept.wants_repetition()
    {
        match orders.recv_timeout(IDLE) {
            Ok(block) => return Some(block),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {
                // The record stands in one copy; a disk that refuses shows at the next one.
                let _ = kept.repeat();
            }
        }
    }
    orders.recv().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Keyring;
    use crate::model::{Incarnation, NodeId};
    use crate::register::Ballot;

    /// How long a test waits for what must happen.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn owner() -> Owner {
        Owner {
            cluster: [1; 16],
            node: NodeId::new(1).unwrap(),
            incarnation: Incarnation::default(),
            keyring: Keyring::new(&[7; 32], &[1; 16]),
        }
    }

    fn record(counter: u64) -> Block {
        Block {
            mbal: Ballot(counter << 8 | 2),
            ..Block::default()
        }
    }

    fn started(path: &Path) -> (Keep, Receiver<Event>) {
        let (events, told) = bounded(4);
        (Keep::spawn(path.into(), owner(), events).unwrap(), told)
    }

    /// Opens the file once an earlier thread has let go of it.
    fn reopened(path: &Path) -> Kept {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            match Kept::open(path, owner()) {
                Ok((kept, _)) => return kept,
                Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
            }
            std::thread::yield_now();
        }
    }

    /// What the thread says first.
    fn remembered(told: &Receiver<Event>) -> (Memory, Option<String>) {
        match told.recv_timeout(PATIENCE) {
            Ok(Event::Remembered { memory, trouble }) => (memory, trouble),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn records_are_kept_one_after_the_other_and_found_by_the_next_core() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("register");
        let (keep, told) = started(&path);
        assert_eq!(remembered(&told), (Memory::Nothing, None));
        for counter in 1..=3 {
            let before = now();
            keep.order(record(counter));
            match told.recv_timeout(PATIENCE) {
                Ok(Event::Kept { at }) => assert!(at >= before),
                other => panic!("{other:?}"),
            }
        }
        drop(keep);
        drop(reopened(&path));
        let (_keep, told) = started(&path);
        let (Memory::Kept(found), None) = remembered(&told) else {
            panic!("nothing was found");
        };
        assert_eq!(Block { writes: 0, ..found }, record(3));
    }

    #[test]
    fn what_cannot_be_kept_is_told_with_its_reason() {
        let (keep, told) = started(Path::new("/sys/register"));
        let (memory, reason) = remembered(&told);
        assert_eq!(memory, Memory::Unable);
        let reason = reason.unwrap();
        assert!(
            reason.starts_with("cannot create /sys/register: "),
            "{reason}"
        );
        assert!(
            reason.contains("restart Standfast on this node"),
            "{reason}"
        );
        keep.order(record(1));
        match told.recv_timeout(PATIENCE) {
            Ok(Event::KeepFailed { reason: again, .. }) => assert_eq!(again, reason),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_record_that_is_there_but_cannot_be_read_is_told_as_lost() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("register");
        std::fs::write(&path, b"scribble").unwrap();
        let (_keep, told) = started(&path);
        let (memory, reason) = remembered(&told);
        assert_eq!(memory, Memory::Lost);
        assert!(reason.unwrap().contains("has 8 bytes"));
    }
}
