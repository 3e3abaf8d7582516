//! What the guard's threads tell each other without ever waiting: a handful of atomics.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::time::Instant;

/// Shared by the threads `guard`, `watchdog` and `supervisor`.
#[derive(Default)]
pub struct Control {
    /// Until when the watchdog may be petted, ns of boot time: verdict and freshness in one word,
    /// so that a guard that hangs takes its permission back by doing nothing. Written by `guard`.
    pet_until: AtomicU64,
    /// How often the core was ordered to be killed and started anew. Written by `guard`.
    core_kills: AtomicU64,
    /// How often a core was started. Written by `supervisor`.
    core_starts: AtomicU64,
    /// Take everything back and end. Written by `supervisor`.
    end: AtomicBool,
    /// Wakes the thread `guard`.
    guard: OnceLock<mio::Waker>,
    /// So does the core by this one, which it is given as its standard input.
    bell: OnceLock<OwnedFd>,
    /// Wakes the thread `supervisor`.
    supervisor: OnceLock<mio::Waker>,
}

impl Control {
    /// May the watchdog be petted now?
    #[must_use]
    pub fn may_pet(&self, now: Instant) -> bool {
        now.0 < self.pet_until.load(Ordering::Acquire)
    }

    pub(super) fn allow_pets(&self, until: Instant) {
        self.pet_until.store(until.0, Ordering::Release);
    }

    /// How often the core was ordered to be killed so far.
    #[must_use]
    pub fn core_kills(&self) -> u64 {
        self.core_kills.load(Ordering::Acquire)
    }

    pub(super) fn kill_core(&self) {
        self.core_kills.fetch_add(1, Ordering::AcqRel);
        wake(&self.supervisor);
    }

    pub(super) fn core_starts(&self) -> u64 {
        self.core_starts.load(Ordering::Acquire)
    }

    /// A core was started.
    pub fn core_started(&self) {
        self.core_starts.fetch_add(1, Ordering::AcqRel);
    }

    /// Has the guard take everything back and end.
    pub fn end(&self) {
        self.end.store(true, Ordering::Release);
        wake(&self.guard);
    }

    pub(super) fn is_ending(&self) -> bool {
        self.end.load(Ordering::Acquire)
    }

    pub(super) fn set_guard_waker(&self, waker: mio::Waker) {
        let _ = self.guard.set(waker);
    }

    pub(super) fn set_bell(&self, bell: OwnedFd) {
        let _ = self.bell.set(bell);
    }

    /// The core's standard input: a counter of events whose every change gives the guard a turn.
    ///
    /// # Errors
    ///
    /// Out of file descriptors, or there is no guard yet.
    pub fn bell(&self) -> io::Result<OwnedFd> {
        let bell = self.bell.get().ok_or(io::ErrorKind::NotConnected)?;
        bell.try_clone()
    }

    pub(super) fn set_supervisor_waker(&self, waker: mio::Waker) {
        let _ = self.supervisor.set(waker);
    }

    /// The thread `guard` has ended.
    pub(super) fn wake_supervisor(&self) {
        wake(&self.supervisor);
    }
}

fn wake(waker: &OnceLock<mio::Waker>) {
    if let Some(waker) = waker.get() {
        // It fails only when the loop that it wakes is gone.
        let _ = waker.wake();
    }
}
