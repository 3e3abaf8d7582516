//! What an object is given: who it belongs to, and what bounds the call that is under way.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;

use super::ObjectError;
use crate::engine::Class;
use crate::model::{ClusterId, NodeId, TaskIndex};
use crate::time::Span;

/// Most notices kept for one object; the oldest goes first. Its worker looks within a millisecond.
const NOTICES_MAX: usize = 64;

/// What an object is built with; the same for its whole life.
#[derive(Clone)]
pub struct BuildContext {
    /// The task it belongs to.
    pub task: TaskIndex,
    /// Name of that task.
    pub task_name: String,
    /// Name of this node.
    pub node: String,
    /// Id of this node.
    pub node_id: NodeId,
    /// Id of the cluster.
    pub cluster: ClusterId,
    /// Position among the task's objects.
    pub position: u8,
    /// The cgroup of the task; an object's processes live in a child named like the object.
    pub cgroup: PathBuf,
    /// For process ids and output: `tasks/<task>` in the run directory. Exists.
    pub directory: PathBuf,
    /// `D`.
    pub detect: Span,
    /// The task has disks, and the array refuses every other node's writes to all of them.
    pub fenced: bool,
    /// Who adds and deletes addresses.
    pub keeper: Arc<dyn AddressKeeper>,
    /// What the keeper says unasked about this object.
    pub notices: Arc<Notices>,
}

/// The one that may add and delete addresses: the guard.
pub trait AddressKeeper: Send + Sync {
    /// Adds an address, announces it and keeps it while the lease lasts.
    ///
    /// # Errors
    ///
    /// Refused, with the keeper's reason, or no answer by the deadline.
    fn hold(&self, whose: AddressOf, deadline: Instant) -> Result<(), ObjectError>;

    /// Deletes an address; not holding it is success.
    ///
    /// # Errors
    ///
    /// Refused, with the keeper's reason, or no answer by the deadline.
    fn release(&self, whose: AddressOf, deadline: Instant) -> Result<(), ObjectError>;

    /// Is it held and present?
    ///
    /// # Errors
    ///
    /// Refused, with the keeper's reason, or no answer by the deadline.
    fn held(&self, whose: AddressOf, deadline: Instant) -> Result<bool, ObjectError>;
}

/// Which address the keeper is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressOf {
    /// Whose.
    pub task: TaskIndex,
    /// Position among the task's objects.
    pub object: u8,
    /// Which of the object's addresses.
    pub address: u8,
    /// The address itself, for sentences.
    pub ip: Ipv4Addr,
}

/// What the address keeper says unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Is the address of no use now?
    pub useless: bool,
    /// The sentence.
    pub text: String,
}

/// Notices for one object, from the keeper's thread to the worker's.
#[derive(Debug)]
pub struct Notices {
    queue: Mutex<VecDeque<Notice>>,
    wake: EventFd,
}

impl Notices {
    /// An empty box.
    ///
    /// # Errors
    ///
    /// Out of file descriptors.
    pub fn new() -> Result<Notices, ObjectError> {
        Ok(Notices {
            queue: Mutex::new(VecDeque::new()),
            wake: event("notices")?,
        })
    }

    /// Adds one and wakes the worker; a full box forgets its oldest.
    pub fn push(&self, notice: Notice) {
        let mut queue = self.queue.lock();
        if queue.len() == NOTICES_MAX {
            queue.pop_front();
        }
        queue.push_back(notice);
        // A full counter is readable already, which is all that is wanted of it.
        let _ = self.wake.write(1);
    }

    /// The oldest.
    pub fn pop(&self) -> Option<Notice> {
        let mut queue = self.queue.lock();
        let notice = queue.pop_front();
        if queue.is_empty() {
            let _ = self.wake.read();
        }
        notice
    }

    /// Readable while there is something to pop.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// Says whether the node may run a task at this moment.
pub trait Permit: Send + Sync {
    /// Does the node hold a lease that covers the task?
    fn may_run(&self, task: TaskIndex) -> bool;
}

/// What bounds one call to an object.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Epoch of the task: the fencing token programs get.
    pub epoch: u32,
    /// May anything be started?
    pub permit: &'a dyn Permit,
    /// Raised when the call is to end early.
    pub cancel: &'a Cancel,
    /// Where sentences for the history go.
    pub note: &'a (dyn Fn(Class, String) + Sync),
}

/// How urgently a call is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Urgency {
    /// A stop was ordered: starts end, stops go on.
    Stop = 1,
    /// A forced stop was ordered: polite rungs of a stop end too.
    Forced = 2,
}

/// Ends a call early, from another thread.
#[derive(Debug)]
pub struct Cancel {
    level: AtomicU8,
    stop: EventFd,
    forced: EventFd,
}

impl Cancel {
    /// Nothing is cancelled yet.
    ///
    /// # Errors
    ///
    /// Out of file descriptors.
    pub fn new() -> Result<Cancel, ObjectError> {
        let level = AtomicU8::new(0);
        Ok(Cancel {
            level,
            stop: event("a cancellation")?,
            forced: event("a cancellation")?,
        })
    }

    /// Cancels; never takes back.
    pub fn raise(&self, urgency: Urgency) {
        self.level.fetch_max(urgency as u8, Ordering::SeqCst);
        let _ = self.stop.write(1);
        if urgency == Urgency::Forced {
            let _ = self.forced.write(1);
        }
    }

    /// Was it raised at least this far?
    #[must_use]
    pub fn is_raised(&self, urgency: Urgency) -> bool {
        self.level.load(Ordering::SeqCst) >= urgency as u8
    }

    /// Readable once it was raised this far.
    pub fn descriptor(&self, urgency: Urgency) -> BorrowedFd<'_> {
        match urgency {
            Urgency::Stop => self.stop.as_fd(),
            Urgency::Forced => self.forced.as_fd(),
        }
    }
}

impl Context<'_> {
    /// Is a stop to begin with its polite rungs?
    pub(super) fn is_polite(&self, forced: bool) -> bool {
        !forced && !self.cancel.is_raised(Urgency::Forced)
    }

    /// Waits for one of the descriptors, or until the call is cancelled, or until the deadline.
    pub(super) fn wait(
        &self,
        descriptors: &[(BorrowedFd<'_>, PollFlags)],
        urgency: Urgency,
        deadline: Instant,
    ) -> Woke {
        let mut all = Vec::with_capacity(descriptors.len() + 1);
        all.push((self.cancel.descriptor(urgency), PollFlags::POLLIN));
        all.extend_from_slice(descriptors);
        match wait_for(&all, Some(deadline)) {
            Woke::Ready(0) => Woke::Cancelled,
            Woke::Ready(at) => Woke::Ready(at - 1),
            woke @ (Woke::Cancelled | Woke::Late) => woke,
        }
    }

    /// A pause between two tries; an error if the call is cancelled meanwhile.
    pub(super) fn pause(&self, length: Duration, urgency: Urgency) -> Result<(), ObjectError> {
        match self.wait(&[], urgency, Instant::now() + length) {
            Woke::Cancelled => Err(ObjectError::Cancelled),
            Woke::Ready(_) | Woke::Late => Ok(()),
        }
    }
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woke {
    /// The descriptor at this position is ready.
    Ready(usize),
    /// The call was cancelled.
    Cancelled,
    /// The deadline passed first.
    Late,
}

/// Waits for the first of some descriptors, at most until the deadline. Interruptions by signals
/// do not end it.
#[must_use]
pub fn wait_for(descriptors: &[(BorrowedFd<'_>, PollFlags)], deadline: Option<Instant>) -> Woke {
    let mut polled: Vec<PollFd<'_>> = descriptors
        .iter()
        .map(|(descriptor, flags)| PollFd::new(*descriptor, *flags))
        .collect();
    loop {
        let timeout = match deadline {
            None => PollTimeout::NONE,
            Some(deadline) => {
                // Rounded up, or the last millisecond would be spent spinning.
                let left = deadline.saturating_duration_since(Instant::now());
                let ms = left.as_micros().div_ceil(1_000).min(60_000);
                PollTimeout::try_from(ms as i32).unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut polled, timeout) {
            Ok(0) => {}
            Ok(_) => {
                let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|seen| !seen.is_empty());
                if let Some(at) = polled.iter().position(ready) {
                    return Woke::Ready(at);
                }
            }
            Err(Errno::EINTR) => {}
            Err(_) => return Woke::Late,
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Woke::Late;
        }
    }
}

fn event(what: &str) -> Result<EventFd, ObjectError> {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(|errno| ObjectError::file(format!("create an event for {what}"))(errno.into()))
}
