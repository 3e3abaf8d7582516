//! Another process, held by a descriptor instead of a number that may be given to somebody else.
//!
//! Readable when the process has ended, child or not, within a millisecond and without polling
//! (pidfd_open(2)). Safe from any thread; only [`PidFd::wait_ended`] waits.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
pub use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use crate::error::{Failed, Naming, answer};

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It left by itself with this exit status.
    Exited(i32),
    /// This signal killed it.
    Killed(Signal),
}

/// A handle on one process.
#[derive(Debug)]
pub struct PidFd {
    descriptor: OwnedFd,
    pid: i32,
}

impl PidFd {
    /// Takes hold of the process that has this number now. For a child that was not yet waited for,
    /// or when the process is checked to be the meant one *after* this, there is no race.
    ///
    /// # Errors
    ///
    /// `ESRCH` if there is no such process, `EINVAL` for a number that is no process.
    pub fn open(pid: i32) -> Result<PidFd, Failed> {
        // SAFETY: plain integers; the call makes a new close-on-exec descriptor or fails.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let number = answer(result as libc::c_int).naming("watch process", pid)?;
        // SAFETY: the kernel has just made this descriptor and nobody else knows it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        Ok(PidFd { descriptor, pid })
    }

    /// The handle that came with a child when it was made.
    pub(crate) fn of_child(descriptor: OwnedFd, pid: i32) -> PidFd {
        PidFd { descriptor, pid }
    }

    /// The number of the process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal. `Ok(false)` if the process has already ended.
    ///
    /// # Errors
    ///
    /// `EPERM` for a process of another user.
    pub fn send_signal(&self, signal: Signal) -> Result<bool, Failed> {
        let none = std::ptr::null::<libc::siginfo_t>();
        let (call, descriptor) = (libc::SYS_pidfd_send_signal, self.as_raw_fd());
        // SAFETY: a null siginfo asks the kernel to fill in its own, as for kill(2).
        let result = unsafe { libc::syscall(call, descriptor, signal as libc::c_int, none, 0) };
        match answer(result as libc::c_int) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(false),
            Err(error) => Err(Failed::new(
                "signal",
                format_args!("process {} with {signal}", self.pid),
                error,
            )),
        }
    }

    /// Whether the process has ended; works for any process.
    ///
    /// # Errors
    ///
    /// None known; the kernel's answer is passed on.
    pub fn has_ended(&self) -> Result<bool, Failed> {
        self.wait_ended(Duration::ZERO)
    }

    /// Waits until the process has ended, `at_most` so long, rounded up to milliseconds; works for
    /// any process. `Ok(false)` if it has not, or a signal came in between.
    ///
    /// # Errors
    ///
    /// None known; the kernel's answer is passed on.
    pub fn wait_ended(&self, at_most: Duration) -> Result<bool, Failed> {
        let mut descriptors = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        let ms = at_most.as_nanos().div_ceil(1_000_000);
        let at_most = PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX);
        match poll(&mut descriptors, at_most) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(Failed::new("look at process", self.pid, errno)),
        }
    }

    /// Collects how a child ended, once; `None` while it runs.
    ///
    /// # Errors
    ///
    /// `ECHILD` if it is not a child of this process or was already collected.
    pub fn wait(&self) -> Result<Option<Ended>, Failed> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        match waitid(Id::PIDFd(self.as_fd()), flags).naming("wait for process", self.pid)? {
            WaitStatus::Exited(_, status) => Ok(Some(Ended::Exited(status))),
            WaitStatus::Signaled(_, signal, _) => Ok(Some(Ended::Killed(signal))),
            _ => Ok(None),
        }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for PidFd {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::testing::{becomes_readable, is_readable};

    fn spawn(program: &str, argument: &str) -> (Child, PidFd) {
        let child = Command::new(program).arg(argument).spawn().unwrap();
        let watched = PidFd::open(child.id() as i32).unwrap();
        (child, watched)
    }

    #[test]
    fn a_childs_end_is_noticed_and_collected_once() {
        for (program, argument, expected) in [
            ("true", "", Ended::Exited(0)),
            ("false", "", Ended::Exited(1)),
        ] {
            let (_child, watched) = spawn(program, argument);
            assert!(becomes_readable(&watched));
            assert!(watched.has_ended().unwrap());
            assert_eq!(watched.wait().unwrap(), Some(expected));
            assert_eq!(watched.wait().unwrap_err().errno(), Some(libc::ECHILD));
            assert!(!watched.send_signal(Signal::SIGKILL).unwrap());
        }
    }

    #[test]
    fn a_signal_reaches_the_process() {
        let (_child, watched) = spawn("sleep", "1000");
        assert_eq!(watched.wait().unwrap(), None);
        assert!(!is_readable(&watched) && !watched.has_ended().unwrap());
        assert!(watched.send_signal(Signal::SIGTERM).unwrap());
        assert!(becomes_readable(&watched));
        assert_eq!(
            watched.wait().unwrap(),
            Some(Ended::Killed(Signal::SIGTERM))
        );
    }

    #[test]
    fn an_end_is_waited_for_and_no_longer_than_was_said() {
        let (_child, watched) = spawn("sleep", "1000");
        assert!(!watched.wait_ended(Duration::from_micros(10)).unwrap());
        assert!(watched.send_signal(Signal::SIGKILL).unwrap());
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !watched.wait_ended(Duration::MAX).unwrap() {
            assert!(std::time::Instant::now() < deadline, "it does not end");
        }
        assert!(watched.wait_ended(Duration::ZERO).unwrap());
        watched.wait().unwrap();
    }

    #[test]
    fn the_end_of_somebody_elses_child_is_noticed() {
        let script = "sleep 1000 >/dev/null & echo $!; wait";
        let mut shell = Command::new("sh")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = shell.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
        let watched = PidFd::open(line.trim().parse().unwrap()).unwrap();
        assert!(!watched.has_ended().unwrap());
        assert_eq!(watched.wait().unwrap_err().errno(), Some(libc::ECHILD));
        assert!(watched.send_signal(Signal::SIGKILL).unwrap());
        assert!(becomes_readable(&watched));
        shell.wait().unwrap();
        assert!(!watched.send_signal(Signal::SIGKILL).unwrap());
    }

    #[test]
    fn no_process_no_handle() {
        // Far above pid_max.
        assert_eq!(
            PidFd::open(i32::MAX).unwrap_err().errno(),
            Some(libc::ESRCH)
        );
        assert_eq!(PidFd::open(0).unwrap_err().errno(), Some(libc::EINVAL));
    }
}
