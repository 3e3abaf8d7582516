//! Signals as something to read in a loop, instead of code that runs at any moment (signalfd(2)).
//!
//! Made in the first thread before any other: threads inherit what is blocked, and a signal that
//! one thread does not block would still be delivered there. Programs inherit it too, and one that
//! was started with `SIGTERM` blocked cannot be terminated: start them with
//! [`Spawn`](crate::spawn::Spawn).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::sys::signal::SigSet;
pub use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Failed, Naming};

/// What stops, reloads and informs a daemon.
pub const DAEMON_SIGNALS: [Signal; 4] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGCHLD,
];

/// A signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Which.
    pub signal: Signal,
    /// The process that sent it or, for `SIGCHLD`, that ended. Several of one kind that wait
    /// together are delivered as one: on `SIGCHLD` look at all children.
    pub pid: u32,
}

/// Blocked signals, read as data.
#[derive(Debug)]
pub struct Signals {
    descriptor: SignalFd,
}

impl Signals {
    /// Blocks `signals` in the calling thread and all that it makes from now on, and collects them
    /// here. They stay blocked when this is dropped.
    ///
    /// # Errors
    ///
    /// Out of file descriptors or memory.
    pub fn block(signals: &[Signal]) -> Result<Signals, Failed> {
        let set: SigSet = signals.iter().copied().collect();
        set.thread_block().naming("block", "signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let descriptor = SignalFd::with_flags(&set, flags).naming("collect", "signals")?;
        Ok(Signals { descriptor })
    }

    /// The next signal; `None` when none is waiting.
    ///
    /// # Errors
    ///
    /// None known; the kernel's answer is passed on.
    pub fn next_signal(&self) -> Result<Option<Arrived>, Failed> {
        let read = self.descriptor.read_signal().naming("read", "signals")?;
        let arrived = read.and_then(|info| {
            let signal = Signal::try_from(info.ssi_signo.cast_signed()).ok()?;
            Some(Arrived {
                signal,
                pid: info.ssi_pid,
            })
        });
        Ok(arrived)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::raise;

    use super::*;
    use crate::testing::{becomes_readable, is_readable};

    #[test]
    fn a_signal_is_read_instead_of_killing() {
        let thread = std::thread::spawn(|| {
            let signals = Signals::block(&DAEMON_SIGNALS).unwrap();
            assert_eq!(signals.next_signal().unwrap(), None);
            assert!(!is_readable(&signals));
            for signal in [Signal::SIGTERM, Signal::SIGHUP] {
                raise(signal).unwrap();
                assert!(becomes_readable(&signals));
                let pid = std::process::id();
                assert_eq!(
                    signals.next_signal().unwrap(),
                    Some(Arrived { signal, pid })
                );
            }
            assert_eq!(signals.next_signal().unwrap(), None);
        });
        thread.join().unwrap();
    }
}
