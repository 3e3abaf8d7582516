//! The clock of the lease and the timer that wakes a loop by it.
//!
//! `CLOCK_BOOTTIME` and no other: it never jumps with the wall clock, and unlike `CLOCK_MONOTONIC`
//! it goes on while the machine sleeps, so a lease runs out during a suspend (clock_gettime(2)).
//! Safe from any thread; nothing here blocks or allocates.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::error::{Failed, Naming};

/// Nanoseconds since this machine was booted, including time spent suspended.
///
/// # Panics
///
/// When the kernel has no `CLOCK_BOOTTIME`: before Linux 2.6.39, on which nothing here runs.
#[must_use]
pub fn boottime_ns() -> u64 {
    let now = nix::time::ClockId::CLOCK_BOOTTIME
        .now()
        .expect("CLOCK_BOOTTIME exists");
    let duration = Duration::from(now);
    // 2^64 ns are 584 years of uptime.
    duration.as_secs() * 1_000_000_000 + u64::from(duration.subsec_nanos())
}

/// A one-shot timer on [`boottime_ns`] that makes a file descriptor readable (timerfd_create(2)).
#[derive(Debug)]
pub struct Timer {
    timer: TimerFd,
}

impl Timer {
    /// A timer that is not armed. Non-blocking and close-on-exec.
    ///
    /// # Errors
    ///
    /// Out of file descriptors or memory.
    pub fn new() -> Result<Timer, Failed> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags).naming("create", "a timer")?;
        Ok(Timer { timer })
    }

    /// Fires once when the clock reaches `deadline_ns`, at once if it has already passed. Replaces
    /// what was armed and forgets an expiration that was not yet read.
    ///
    /// # Errors
    ///
    /// `deadline_ns` is beyond what the kernel can represent (`i64` seconds).
    pub fn arm_at(&self, deadline_ns: u64) -> Result<(), Failed> {
        // All zero would mean "disarm" to the kernel; one nanosecond after boot is as good as zero.
        let deadline = TimeSpec::from_duration(Duration::from_nanos(deadline_ns.max(1)));
        self.timer
            .set(
                Expiration::OneShot(deadline),
                TimerSetTimeFlags::TFD_TIMER_ABSTIME,
            )
            .naming("arm the timer at", deadline_ns)
    }

    /// Stops the timer and forgets an expiration that was not yet read.
    ///
    /// # Errors
    ///
    /// None known; the kernel's answer is passed on.
    pub fn disarm(&self) -> Result<(), Failed> {
        self.timer.unset().naming("disarm", "the timer")
    }

    /// How often the timer fired since it was last read: 0 (not yet) or 1, never waiting.
    ///
    /// # Errors
    ///
    /// None known; the kernel's answer is passed on.
    pub fn read(&self) -> Result<u64, Failed> {
        let mut count = [0; 8];
        loop {
            match nix::unistd::read(&self.timer, &mut count) {
                Ok(_) => return Ok(u64::from_ne_bytes(count)),
                Err(Errno::EAGAIN) => return Ok(0),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Failed::new("read", "the timer", errno)),
            }
        }
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{becomes_readable, is_readable};

    #[test]
    fn the_clock_never_goes_back() {
        let mut last = boottime_ns();
        for _ in 0..1000 {
            let now = boottime_ns();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn the_timer_fires_once_and_not_before_its_time() {
        let timer = Timer::new().unwrap();
        assert_eq!(timer.read().unwrap(), 0);
        let deadline_ns = boottime_ns() + 5_000_000;
        timer.arm_at(deadline_ns).unwrap();
        assert!(becomes_readable(&timer));
        assert!(boottime_ns() >= deadline_ns);
        assert_eq!(timer.read().unwrap(), 1);
        assert_eq!(timer.read().unwrap(), 0);
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_once_even_at_zero() {
        let timer = Timer::new().unwrap();
        for deadline_ns in [0, 1, boottime_ns()] {
            timer.arm_at(deadline_ns).unwrap();
            assert!(becomes_readable(&timer));
            assert_eq!(timer.read().unwrap(), 1);
        }
    }

    #[test]
    fn disarming_forgets_an_unread_expiration() {
        let timer = Timer::new().unwrap();
        timer.arm_at(1).unwrap();
        assert!(becomes_readable(&timer));
        timer.disarm().unwrap();
        assert!(!is_readable(&timer));
        assert_eq!(timer.read().unwrap(), 0);
    }

    #[test]
    fn the_timer_is_closed_on_exec() {
        use nix::fcntl::{FcntlArg, FdFlag, fcntl};
        let timer = Timer::new().unwrap();
        let flags = fcntl(&timer, FcntlArg::F_GETFD).unwrap();
        assert!(FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC));
    }
}
