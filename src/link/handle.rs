//! A link as the rest of the process sees it: a place for the newest frame, a short queue for
//! packets, and a bell.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use mio::Waker;
use parking_lot::Mutex;

use super::counters::{Count, Counters};
use crate::frame::Frame;
use crate::mldc::Packet;
use crate::register::{Block, Change, Order};

/// Packets that may wait for a link: six of the longest messages. When it is full the oldest goes.
pub const MAIL_MAX: usize = 64;

/// A running link. Dropping it stops the thread without waiting for it.
#[derive(Debug)]
pub struct LinkHandle {
    pub(super) inbox: Arc<Inbox>,
    pub(super) counters: Arc<Counters>,
    pub(super) thread: Option<JoinHandle<()>>,
    /// Disconnected when the thread ends.
    pub(super) ended: Receiver<()>,
}

/// A write or a change was ordered while another one had not been taken up: the register never does
/// that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a write of the register is already waiting for the disk")]
pub struct OrderRefused;

impl LinkHandle {
    /// Has the frame sent, with the link's own number in it. Takes the place of a frame that has
    /// not been sent yet. With `tell_drained` the link also looks, and tells, whether all that was
    /// there by then has been heard ([`Event::LinkDrained`](crate::engine::Event::LinkDrained)).
    /// Never blocks.
    pub fn send(&self, frame: &Frame, tell_drained: bool) {
        let mut work = self.inbox.work.lock();
        if work.frame.replace(frame.clone()).is_some() {
            self.counters.add(Count::Superseded);
        }
        work.tell_drained |= tell_drained;
        drop(work);
        self.inbox.wake();
    }

    /// Does it take packets? A network does, a disk does not.
    #[must_use]
    pub fn carries_mail(&self) -> bool {
        self.inbox.carries_mail
    }

    /// Has a packet sent, with the link's own number in it, after the frame if one waits. A disk
    /// ignores it. At most [`MAIL_MAX`] wait; the oldest of them makes room. Never blocks.
    pub fn mail(&self, packet: &Packet) {
        if !self.inbox.carries_mail {
            return;
        }
        let mut work = self.inbox.work.lock();
        if work.mail.len() == MAIL_MAX {
            work.mail.pop_front();
            self.counters.add(Count::MailFull);
        }
        work.mail.push_back(packet.clone());
        drop(work);
        self.inbox.wake();
    }

    /// Has the register read, the own block written or the record changed; a network link ignores
    /// it. A read that is ordered while a read or a write waits is the same as that one's read.
    /// Never blocks.
    ///
    /// # Errors
    ///
    /// A write or a change is waiting already.
    pub fn order(&self, order: Order) -> Result<(), OrderRefused> {
        let mut work = self.inbox.work.lock();
        match order {
            Order::Read => work.read = true,
            Order::Write(_) if work.write.is_some() => return Err(OrderRefused),
            Order::Write(block) => work.write = Some(block),
            Order::CompareAndWrite(_) if work.change.is_some() => return Err(OrderRefused),
            Order::CompareAndWrite(change) => work.change = Some(change),
        }
        drop(work);
        self.inbox.wake();
        Ok(())
    }

    /// What the link has done and refused so far.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Has the thread end after what it is doing. Never blocks.
    pub fn stop(&self) {
        self.inbox.stopped.store(true, Ordering::Release);
        self.inbox.wake();
    }

    /// Stops the thread and waits until it has ended, at most `patience`: a thread in a hung disk
    /// does not end. Says whether it did.
    pub fn join(mut self, patience: Duration) -> bool {
        self.stop();
        match self.ended.recv_timeout(patience) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => {
                // A panic has been told on stderr already; it ends the process in release builds.
                self.thread
                    .take()
                    .is_none_or(|thread| thread.join().is_ok())
            }
        }
    }
}

impl Drop for LinkHandle {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the thread has to do.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// The newest frame not yet sent.
    pub(super) frame: Option<Frame>,
    /// Packets not yet sent, the oldest first; at most [`MAIL_MAX`].
    pub(super) mail: VecDeque<Packet>,
    /// The own block to write; a read follows it.
    pub(super) write: Option<Block>,
    /// The record to change.
    pub(super) change: Option<Change>,
    /// The register is to be read.
    pub(super) read: bool,
    /// After the frame: tell that all has been heard.
    pub(super) tell_drained: bool,
}

impl Work {
    pub(super) fn is_empty(&self) -> bool {
        let writes = self.write.is_some() || self.change.is_some();
        self.frame.is_none() && self.mail.is_empty() && !writes && !self.read
    }
}

/// Both ends of a [`LinkHandle`].
#[derive(Debug)]
pub(super) struct Inbox {
    /// Locked for the time of a copy only.
    work: Mutex<Work>,
    carries_mail: bool,
    stopped: AtomicBool,
    waker: Waker,
}

impl Inbox {
    pub(super) fn new(waker: Waker, carries_mail: bool) -> Inbox {
        Inbox {
            work: Mutex::default(),
            carries_mail,
            stopped: AtomicBool::new(false),
            waker,
        }
    }

    /// Takes the work, disk orders only if they can be answered.
    pub(super) fn take(&self, orders_too: bool) -> Work {
        let mut work = self.work.lock();
        if orders_too {
            return std::mem::take(&mut *work);
        }
        Work {
            frame: work.frame.take(),
            mail: std::mem::take(&mut work.mail),
            write: None,
            change: None,
            read: false,
            tell_drained: std::mem::take(&mut work.tell_drained),
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn wake(&self) {
        // An eventfd of our own: writing to it fails only when the process is out of its mind, and
        // the next heartbeat rings again.
        let _ = self.waker.wake();
    }
}
