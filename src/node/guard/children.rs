//! The processes that the supervisor starts and starts again: core and runner.

use std::io;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use standfast_sys::clock::boottime_ns;
use standfast_sys::process::PidFd;

use super::control::Control;
use crate::node::options::{Options, Role};
use crate::time::{Instant, Span};

/// First wait before a restart that is not the first, doubled each time.
const WAIT_MIN: Span = Span::from_ms(50);

/// Longest wait before a restart.
const WAIT_MAX: Span = Span::from_ms(1_000);

/// How often a process is looked at that cannot be watched, for want of a file descriptor.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A process that lived this long has its earlier deaths forgiven.
const FORGIVE: Span = Span::from_ms(10_000);

/// How long to wait before a process that died is started again: the first time not at all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    deaths: u32,
}

impl Backoff {
    /// The process has died after `lived`; the wait before the next start.
    pub(super) fn died(&mut self, lived: Span) -> Span {
        if lived >= FORGIVE {
            self.deaths = 0;
        }
        let wait = match self.deaths {
            0 => Span::ZERO,
            deaths => WAIT_MIN.times(1 << (deaths - 1).min(8)).min(WAIT_MAX),
        };
        self.deaths = self.deaths.saturating_add(1);
        wait
    }
}

/// One role and its process, while there is one.
pub(super) struct Keeper {
    role: Role,
    process: Option<(Child, Instant)>,
    backoff: Backoff,
    start_at: Instant,
}

impl Keeper {
    /// A keeper whose process is to be started at once.
    pub(super) fn new(role: Role) -> Keeper {
        Keeper {
            role,
            process: None,
            backoff: Backoff::default(),
            start_at: Instant(0),
        }
    }

    /// Which process it keeps.
    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// When the process is to be started; `None` while it lives.
    pub(super) fn start_due(&self) -> Option<Instant> {
        self.process.is_none().then_some(self.start_at)
    }

    /// Starts the process, by posix_spawn: nothing of this process is copied, which would stall its
    /// real-time threads. A failure counts as a death.
    ///
    /// # Errors
    ///
    /// It cannot be started; there is a later time to start it then.
    pub(super) fn start(&mut self, options: &Options, control: &Control) -> io::Result<u32> {
        let spawned = std::env::current_exe().and_then(|program| {
            let stdin = match self.role {
                Role::Core => control.bell()?.into(),
                Role::Guard | Role::Runner => Stdio::null(),
            };
            let mut command = Command::new(program);
            command
                .args(options.arguments(self.role))
                .stdin(stdin)
                .spawn()
        });
        let now = Instant(boottime_ns());
        match spawned {
            Ok(child) => {
                let pid = child.id();
                self.process = Some((child, now));
                Ok(pid)
            }
            Err(error) => {
                self.start_at = now + self.backoff.died(Span::ZERO).max(WAIT_MIN);
                Err(error)
            }
        }
    }

    /// Has it ended? Says how, once, and sets the time of the next start.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        let (child, started) = self.process.as_mut()?;
        let status = child.try_wait().ok().flatten()?;
        let now = Instant(boottime_ns());
        self.start_at = now + self.backoff.died(now.since(*started));
        self.process = None;
        Some(status)
    }

    /// Kills the process at once.
    pub(super) fn kill(&mut self) {
        if let Some((child, _)) = &mut self.process {
            // Not waited for yet, so the number is still its own; it fails only if it has ended.
            let _ = child.kill();
        }
    }

    /// Asks the process to end.
    pub(super) fn terminate(&mut self) {
        if let Some((child, _)) = &self.process {
            let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
    }

    /// Waits until the process has ended, or until then; sooner if a signal comes. Tells nothing:
    /// ask [`Keeper::ended`].
    pub(super) fn wait(&self, until: Instant) {
        let Some((child, _)) = &self.process else {
            return;
        };
        let at_most = until.since(Instant(boottime_ns())).to_std();
        // Not waited for yet, so the number is still its own.
        let watched = PidFd::open(child.id().cast_signed());
        if watched.and_then(|child| child.wait_ended(at_most)).is_err() {
            std::thread::sleep(at_most.min(LOOK_EVERY));
        }
    }

    /// Is there a process?
    pub(super) fn is_alive(&self) -> bool {
        self.process.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_process_is_waited_for_and_no_longer_than_was_said() {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let mut keeper = Keeper::new(Role::Runner);
        keeper.wait(Instant(boottime_ns()) + FORGIVE.times(1_000));
        keeper.process = Some((child, Instant(boottime_ns())));
        keeper.wait(Instant(boottime_ns()));
        assert!(keeper.ended().is_none());
        keeper.terminate();
        let deadline = Instant(boottime_ns()) + FORGIVE.times(2);
        while keeper.ended().is_none() {
            assert!(Instant(boottime_ns()) < deadline, "it does not end");
            keeper.wait(deadline);
        }
    }

    #[test]
    fn the_first_restart_is_immediate_and_later_ones_wait_longer() {
        let mut backoff = Backoff::default();
        let short = Span::from_ms(20);
        let waits: Vec<u64> = (0..8).map(|_| backoff.died(short).as_ms()).collect();
        assert_eq!(waits, [0, 50, 100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(backoff.died(FORGIVE), Span::ZERO);
        assert_eq!(backoff.died(short).as_ms(), 50);
        for _ in 0..100 {
            assert!(backoff.died(short) <= WAIT_MAX);
        }
    }
}
