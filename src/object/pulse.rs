//! The pulse of a disk: one block read again and again, past the cache, to learn in time that a
//! volume's path is dead. A file system tells only those who use it, and some of them never.
//!
//! ```text
//!  read ---answer---> fine, the next read is due after EVERY
//!   |  `---error----> once more after AGAIN ---error---> failing
//!   '---no answer for `patience`----------------------> silent
//! ```
//! Each read is on a thread set aside: whoever feels the pulse never waits. While a read hangs no
//! other is begun.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use standfast_sys::disk::{DirectDisk, Sectors};
use standfast_sys::sentence;

use super::aside::Aside;

/// Between two reads. With the pulse's patience this says how soon a dead path is known.
const EVERY: Duration = Duration::from_secs(1);

/// Between an error and the read that confirms it: longer than the retries of a path that flaps.
const AGAIN: Duration = Duration::from_millis(250);

/// Between two looks while the read that confirms an error is under way.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The first block, of whatever size the disk has.
const BLOCK_BYTES: usize = 4_096;

/// What the last look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Answered, or not yet too long without an answer.
    Fine,
    /// Two reads in a row have failed.
    Failing {
        /// The kernel's reason.
        reason: String,
    },
    /// A read is without an answer for so long.
    Silent {
        /// Time since it was begun.
        since: Duration,
    },
}

/// One disk, watched.
pub(super) struct Pulse {
    patience: Duration,
    reads: Aside<Result<(), String>>,
    /// When the read that is under way was begun.
    begun: Option<Instant>,
    due: Instant,
    errors: u32,
    /// The last error.
    reason: String,
}

impl Pulse {
    /// A pulse whose first read is due at once. `patience`: how long one read may take.
    pub(super) fn new(patience: Duration) -> Pulse {
        Pulse {
            patience,
            reads: Aside::new(),
            begun: None,
            due: Instant::now(),
            errors: 0,
            reason: String::new(),
        }
    }

    /// When the next look is due.
    pub(super) fn look_at(&self, now: Instant) -> Instant {
        match self.begun {
            Some(begun) => {
                let pause = if self.errors == 0 { EVERY } else { LOOK_AGAIN };
                (begun + self.patience).min(now + pause)
            }
            None => self.due,
        }
    }

    /// Takes in an answer and begins the next read if it is due.
    pub(super) fn look(
        &mut self,
        now: Instant,
        read: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) -> Beat {
        if let Some(begun) = self.begun {
            match self.reads.answer() {
                None => {
                    let since = now.saturating_duration_since(begun);
                    let silent = since >= self.patience;
                    return if silent {
                        Beat::Silent { since }
                    } else {
                        self.beat()
                    };
                }
                Some(Ok(())) => {
                    self.errors = 0;
                    self.due = begun + EVERY;
                }
                Some(Err(reason)) => {
                    self.errors = self.errors.saturating_add(1);
                    self.reason = reason;
                    self.due = now + AGAIN;
                }
            }
            self.begun = None;
        }
        if now >= self.due {
            // Without a thread to be had this is tried again at the next look.
            self.begun = self.reads.begin(read).then_some(now);
            if self.begun.is_none() {
                self.due = now + AGAIN;
            }
        }
        self.beat()
    }

    fn beat(&self) -> Beat {
        if self.errors < 2 {
            return Beat::Fine;
        }
        Beat::Failing {
            reason: self.reason.clone(),
        }
    }
}

/// A read for [`Pulse::look`]. Opens the disk anew, so that one which was swapped or removed is
/// noticed.
pub(super) fn read_first_block(device: &Path) -> impl FnOnce() -> Result<(), String> + use<> {
    let device: PathBuf = device.to_owned();
    move || {
        let disk = DirectDisk::open(&device, false).map_err(|error| sentence(&error))?;
        let mut block = Sectors::new(BLOCK_BYTES);
        disk.read_at(0, &mut block)
            .map_err(|error| sentence(&error))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel, sync_channel};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Looks again and again, by a clock that stands still, until the read that was begun has
    /// answered.
    fn answered(pulse: &mut Pulse, now: Instant) -> Beat {
        let deadline = Instant::now() + Duration::from_secs(20);
        let next = pulse.due;
        // No read is due: only the answer is taken in.
        loop {
            assert!(Instant::now() < deadline, "the read does not end");
            let beat = pulse.look(now, || unreachable!("no read is due yet"));
            if pulse.begun.is_none() {
                assert_ne!(pulse.due, next, "an answer sets a new time");
                return beat;
            }
            std::thread::yield_now();
        }
    }

    fn failing() -> Result<(), String> {
        Err("no path".to_owned())
    }

    #[test]
    fn one_error_is_forgiven_and_two_in_a_row_are_not() {
        let mut pulse = Pulse::new(PATIENCE);
        let mut now = Instant::now();
        for (answer, expected) in [
            (failing as fn() -> _, Beat::Fine),
            (|| Ok(()), Beat::Fine),
            (failing, Beat::Fine),
            (
                failing,
                Beat::Failing {
                    reason: "no path".to_owned(),
                },
            ),
            (|| Ok(()), Beat::Fine),
        ] {
            let _ = pulse.look(now, answer);
            assert_eq!(answered(&mut pulse, now), expected);
            now = pulse.look_at(now);
        }
    }

    #[test]
    fn a_read_without_an_answer_is_silence_and_no_other_is_begun_meanwhile() {
        let mut pulse = Pulse::new(PATIENCE);
        let begun = Instant::now();
        let (release, released): (_, Receiver<()>) = channel();
        let hang = move || {
            let _ = released.recv();
            Ok(())
        };
        assert_eq!(pulse.look(begun, hang), Beat::Fine);
        let (told, ran) = sync_channel(1);
        let look = |pulse: &mut Pulse, after: Duration| {
            let told = told.clone();
            pulse.look(begun + after, move || {
                let _ = told.send(());
                Ok(())
            })
        };
        assert_eq!(look(&mut pulse, PATIENCE - EVERY), Beat::Fine);
        let since = PATIENCE + EVERY;
        assert_eq!(look(&mut pulse, since), Beat::Silent { since });
        assert_eq!(pulse.look_at(begun + since), begun + PATIENCE);
        assert!(ran.try_recv().is_err(), "one read at a time");
        drop(release);
        assert_eq!(answered(&mut pulse, begun), Beat::Fine);
        assert_eq!(look(&mut pulse, since), Beat::Fine);
        ran.recv_timeout(Duration::from_secs(20)).unwrap();
    }

    #[test]
    fn a_disk_that_is_not_there_is_named() {
        let reason = read_first_block(Path::new("/dev/no-such-disk"))().unwrap_err();
        assert!(reason.contains("/dev/no-such-disk"), "{reason}");
    }
}
