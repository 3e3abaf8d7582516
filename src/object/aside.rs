//! A call that may hang, such as mount(2) on a dead disk, on a thread of its own.
//!
//! The caller waits until a deadline and then goes on; the thread cannot be ended and stays behind
//! until the kernel lets it go. At most one call per [`Aside`] is under way: while one hangs, no
//! other is begun, so a dead disk costs one thread and not one per attempt.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Stack of such a thread.
const STACK_BYTES: usize = 256 * 1024;

/// Calls on a thread of their own, one at a time.
pub(super) struct Aside<T> {
    pending: Option<Receiver<T>>,
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// Not by the deadline; it goes on.
    Late,
    /// An earlier call has not come back and still goes on.
    StillBusy,
}

impl<T: Send + 'static> Aside<T> {
    pub(super) fn new() -> Aside<T> {
        Aside { pending: None }
    }

    /// Makes the call and waits for it, at most until the deadline.
    pub(super) fn call(
        &mut self,
        deadline: Instant,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        self.settle(deadline)?;
        let Some(receiver) = spawn(call) else {
            return Err(NoAnswer::Late);
        };
        let answer = receiver.recv_timeout(left(deadline));
        match answer {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Timeout) => {
                self.pending = Some(receiver);
                Err(NoAnswer::Late)
            }
            Err(RecvTimeoutError::Disconnected) => Err(NoAnswer::Late),
        }
    }

    /// Begins a call without waiting for it; false if one is under way already, or if there is no
    /// thread to be had.
    pub(super) fn begin(&mut self, call: impl FnOnce() -> T + Send + 'static) -> bool {
        if self.pending.is_some() {
            return false;
        }
        self.pending = spawn(call);
        self.pending.is_some()
    }

    /// The answer of a call that was begun, if it has come.
    pub(super) fn answer(&mut self) -> Option<T> {
        let answer = self.pending.as_ref()?.try_recv();
        if !matches!(answer, Err(TryRecvError::Empty)) {
            self.pending = None;
        }
        answer.ok()
    }

    /// The answer of a call that was begun, waited for until the deadline.
    pub(super) fn await_answer(&mut self, deadline: Instant) -> Option<T> {
        let answer = self.pending.as_ref()?.recv_timeout(left(deadline));
        if !matches!(answer, Err(RecvTimeoutError::Timeout)) {
            self.pending = None;
        }
        answer.ok()
    }

    /// Waits for a call that an earlier caller gave up on; its answer is of no use any more.
    pub(super) fn settle(&mut self, deadline: Instant) -> Result<(), NoAnswer> {
        let Some(receiver) = &self.pending else {
            return Ok(());
        };
        match receiver.recv_timeout(left(deadline)) {
            Ok(_) | Err(RecvTimeoutError::Disconnected) => {
                self.pending = None;
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => Err(NoAnswer::StillBusy),
        }
    }
}

fn spawn<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Option<Receiver<T>> {
    let (sender, receiver) = sync_channel(1);
    let spawned = thread::Builder::new()
        .name("aside".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || drop(sender.send(call())));
    spawned.ok().map(|_| receiver)
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_call_that_hangs_is_left_behind_and_no_other_is_begun_meanwhile() {
        let (release, released) = sync_channel::<()>(0);
        let mut aside = Aside::new();
        let hang = move || {
            let _ = released.recv();
            1
        };
        assert_eq!(aside.call(Instant::now(), hang), Err(NoAnswer::Late));
        assert_eq!(aside.call(Instant::now(), || 2), Err(NoAnswer::StillBusy));
        drop(release);
        assert_eq!(aside.call(Instant::now() + PATIENCE, || 3), Ok(3));
    }
}
