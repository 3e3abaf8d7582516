//! The runner's side of the core's socket: connects again and again, and never waits for the core.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use standfast_sys::socket::{Received, SeqSocket};

use crate::node::messages::{FromRunner, MESSAGE_MAX, ToRunner};

/// Messages that may wait for the core. When it is full the connection is closed: the greeting of
/// the next one tells how everything stands, so nothing is lost for good.
const OUTBOX_MAX: usize = 1_024;

/// First pause before another attempt to connect; each failure doubles it.
const AGAIN_MIN: Duration = Duration::from_millis(5);

/// Longest pause: the core is restarted within a heartbeat or not at all.
const AGAIN_MAX: Duration = Duration::from_millis(250);

/// Most messages taken in a row before the runner looks at other things.
const TURN_MAX: usize = 64;

/// The connection to the core, if there is one.
pub(super) struct Core {
    path: PathBuf,
    socket: Option<SeqSocket>,
    outbox: VecDeque<Vec<u8>>,
    attempt_at: Instant,
    pause: Duration,
    buffer: Vec<u8>,
    /// Connections so far; tells answers to an earlier core's orders from those to this one's.
    pub(super) connections: u64,
    /// Messages that were given up.
    pub(super) lost: u64,
}

impl Core {
    pub(super) fn new(path: PathBuf) -> Core {
        Core {
            path,
            socket: None,
            outbox: VecDeque::new(),
            attempt_at: Instant::now(),
            pause: AGAIN_MIN,
            buffer: vec![0; MESSAGE_MAX],
            connections: 0,
            lost: 0,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.socket.is_some()
    }

    /// Connects if there is no connection and the pause is over; true for a new connection.
    pub(super) fn connect(&mut self) -> bool {
        if self.socket.is_some() || Instant::now() < self.attempt_at {
            return false;
        }
        match SeqSocket::connect(&self.path) {
            Ok(socket) => {
                self.socket = Some(socket);
                self.connections += 1;
                true
            }
            Err(_) => {
                self.attempt_at = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(AGAIN_MAX);
                false
            }
        }
    }

    /// When to try again; none while connected.
    pub(super) fn attempt_at(&self) -> Option<Instant> {
        self.socket.is_none().then_some(self.attempt_at)
    }

    /// What to wait for.
    pub(super) fn watch(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let writable = if self.outbox.is_empty() {
            PollFlags::empty()
        } else {
            PollFlags::POLLOUT
        };
        self.socket
            .as_ref()
            .map(|socket| (socket.as_fd(), PollFlags::POLLIN | writable))
    }

    /// Sends, now or when the core reads again. Without a connection the message is dropped: the
    /// greeting says more.
    pub(super) fn send(&mut self, message: &FromRunner) {
        if self.socket.is_none() {
            return;
        }
        let packet = postcard::to_stdvec(message).expect("reports can be encoded");
        if packet.len() > MESSAGE_MAX || self.outbox.len() >= OUTBOX_MAX {
            self.lost += 1;
            return self.disconnect("the core does not read");
        }
        self.outbox.push_back(packet);
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        let Some(socket) = &self.socket else { return };
        while let Some(packet) = self.outbox.front() {
            match socket.send(packet) {
                Ok(true) => drop(self.outbox.pop_front()),
                Ok(false) => return,
                Err(_) => return self.disconnect("the core is gone"),
            }
        }
    }

    /// What has come in, at most some of it.
    pub(super) fn receive(&mut self) -> Vec<ToRunner> {
        let mut messages = Vec::new();
        while messages.len() < TURN_MAX {
            let Some(socket) = &self.socket else { break };
            match socket.recv(&mut self.buffer) {
                Ok(Received::Message(length)) => {
                    match postcard::from_bytes(&self.buffer[..length]) {
                        Ok(message) => messages.push(message),
                        Err(_) => self.disconnect("the core said something unknown"),
                    }
                }
                Ok(Received::Nothing) => break,
                Ok(Received::Closed) | Err(_) => self.disconnect("the core is gone"),
            }
        }
        if !messages.is_empty() {
            self.pause = AGAIN_MIN;
        }
        messages
    }

    fn disconnect(&mut self, reason: &str) {
        tracing::warn!(reason, "connection to the core closed");
        self.socket = None;
        self.outbox.clear();
        self.attempt_at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(AGAIN_MAX);
    }
}
