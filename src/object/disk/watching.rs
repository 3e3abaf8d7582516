//! The thread that watches a disk which was taken: polls it once a heartbeat, and at once when it
//! is asked.
//!
//! When the disk has lost this node's registration and nobody else is the owner, the array takes
//! anybody's writes: the thread then takes the disk offline before it says a word.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::{Condvar, Mutex};

use crate::engine::Class;
use crate::object::{ObjectError, Watched};
use crate::storage::reservation::{Found, ReservedVolume};

/// Most findings that wait for the worker; the oldest goes first, an eviction is the last.
const FOUND_MAX: usize = 64;

/// How long a poll that is under way is waited for when the watch ends.
const REST_MAX: Duration = Duration::from_secs(2);

/// What a disk said to a question whose it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// This node's.
    Ours,
    /// Not this node's any more; why.
    Evicted(String),
    /// It did not say.
    Silent,
}

/// A thread that watches.
pub(super) struct Watching {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    bell: EventFd,
}

#[derive(Default)]
struct State {
    ending: bool,
    ended: bool,
    /// A poll is wanted now.
    hurried: bool,
    /// Polls begun and done.
    begun: u64,
    done: u64,
    /// The last poll was answered.
    answers: bool,
    /// Why the disk is not this node's any more.
    evicted: Option<String>,
    found: VecDeque<Watched>,
}

impl Watching {
    /// Polls so often. `kept` is where a disk that was taken offline is written down.
    pub(super) fn begin(
        name: &str,
        volume: ReservedVolume,
        period: Duration,
        kept: PathBuf,
    ) -> Result<Watching, ObjectError> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_flags(flags).map_err(std::io::Error::from);
        let bell = event.map_err(ObjectError::file("create an event for a reservation"))?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
            bell,
        });
        let mine = Arc::clone(&shared);
        // The kernel shows 15 bytes of a thread's name.
        let thread = thread::Builder::new()
            .name(format!("keep {name}"))
            .spawn(move || mine.keep(volume, period, &kept))
            .map_err(ObjectError::file("start the thread of a reservation"))?;
        Ok(Watching { shared, thread })
    }

    /// Readable while there is something to tell.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.shared.bell.as_fd()
    }

    /// What was seen, one thing at a time.
    pub(super) fn told(&self) -> Option<Watched> {
        let mut state = self.shared.state.lock();
        let next = state.found.pop_front();
        if state.found.is_empty() {
            let _ = self.shared.bell.read();
        }
        next
    }

    /// Polls at once, and says what a poll that began after this call was told.
    pub(super) fn ask(&self, deadline: Instant) -> Asked {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        let wanted = state.begun + 1;
        state.hurried = true;
        shared.changed.notify_all();
        while state.done < wanted && !state.ended {
            if shared.changed.wait_until(&mut state, deadline).timed_out() {
                return Asked::Silent;
            }
        }
        match &state.evicted {
            Some(reason) => Asked::Evicted(reason.clone()),
            None if state.answers && !state.ended => Asked::Ours,
            None => Asked::Silent,
        }
    }

    /// Ends it. A poll that hangs ends by itself.
    pub(super) fn end(self, deadline: Instant) {
        let shared = &self.shared;
        let until = deadline.min(Instant::now() + REST_MAX);
        let mut state = shared.state.lock();
        state.ending = true;
        shared.changed.notify_all();
        while !state.ended {
            if shared.changed.wait_until(&mut state, until).timed_out() {
                return;
            }
        }
        drop(state);
        let _ = self.thread.join();
    }
}

impl Shared {
    fn keep(&self, mut volume: ReservedVolume, period: Duration, kept: &Path) {
        loop {
            let begun = Instant::now();
            let mut state = self.state.lock();
            state.begun += 1;
            state.hurried = false;
            drop(state);
            let found = volume.poll();
            let unowned = |(_, found): &(String, Found)| *found == Found::Evicted { by: None };
            if found.iter().any(unowned)
                && let Err(error) = volume.take_offline(kept)
            {
                tracing::warn!(%error, "a disk that was taken away is still open here");
            }
            let mut state = self.state.lock();
            state.hear(found, volume.answers());
            if !state.found.is_empty() {
                // A full counter is readable already, which is all that is wanted of it.
                let _ = self.bell.write(1);
            }
            self.changed.notify_all();
            let due = begun + period;
            while !state.is_over() && !state.hurried && Instant::now() < due {
                self.changed.wait_until(&mut state, due);
            }
            if state.is_over() {
                state.ended = true;
                self.changed.notify_all();
                return;
            }
        }
    }
}

impl State {
    fn hear(&mut self, found: Vec<(String, Found)>, answers: bool) {
        for (disk, found) in found {
            let told = tell(&disk, &found);
            if let Watched::Evicted { reason } = &told {
                self.evicted.get_or_insert_with(|| reason.clone());
            }
            if self.found.len() == FOUND_MAX {
                self.found.pop_front();
            }
            self.found.push_back(told);
        }
        self.answers = answers;
        self.done = self.begun;
    }

    fn is_over(&self) -> bool {
        self.ending || self.evicted.is_some()
    }
}

fn tell(disk: &str, found: &Found) -> Watched {
    let (class, text) = match found {
        Found::Evicted { by: Some(by) } => {
            let reason = format!("fenced: {disk} has been taken over with key {by}");
            return Watched::Evicted { reason };
        }
        Found::Evicted { by: None } => {
            let reason = format!("fenced: {disk} is not registered for this node any more");
            return Watched::Evicted { reason };
        }
        Found::Stripped => (
            Class::Major,
            format!("the reservation of {disk} was gone, though nobody had taken it; it is back"),
        ),
        Found::PathLost { path, why } => (
            Class::Warning,
            format!("the path {path} to {disk} does not answer: {why}"),
        ),
        Found::PathBack { path } => (
            Class::Notice,
            format!("the path {path} to {disk} answers again"),
        ),
        Found::Registered { path } => (
            Class::Warning,
            format!("the path {path} to {disk} was not registered; it is now"),
        ),
        Found::Removed { key } => (
            Class::Warning,
            format!("removed a registration of {disk} that is out of date: {key}"),
        ),
        Found::Stranger { key } => (
            Class::Major,
            format!("{disk} is registered by somebody else too: {key}"),
        ),
    };
    Watched::Note { class, text }
}
