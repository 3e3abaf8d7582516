//! The runner's end of the core: core.sock, one runner at a time.
//!
//! A thread of normal priority. Orders to a runner that is gone are thrown away before the engine
//! hears that it is gone: the next runner begins with a look at everything, not with old orders.
//! Records wait for the next runner, the newest [`BACKLOG_MAX`] of them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use standfast_sys::socket::{Received, SeqListener, SeqSocket};

use crate::engine::{Event, Report};
use crate::node::messages::{FromRunner, MESSAGE_MAX, ToRunner};
use crate::node::paths;

/// Messages that may wait for the port's thread.
const QUEUE_MAX: usize = 4096;

/// Records kept while there is no runner; the oldest goes first.
const BACKLOG_MAX: usize = 512;

const STACK_BYTES: usize = 256 * 1024;

const LISTENER: Token = Token(0);
const RUNNER: Token = Token(1);
const WAKE: Token = Token(2);

/// What the runner asks that is not the engine's to decide.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request {
    /// A picture, please.
    Snapshot {
        /// To be repeated in the answer.
        request: u64,
    },
}

/// The engine's handle.
#[derive(Debug)]
pub(super) struct Port {
    queue: Sender<ToRunner>,
    waker: Arc<Waker>,
}

impl Port {
    /// Listens and starts the thread.
    ///
    /// # Errors
    /// The socket cannot be made, or there is no thread to be had.
    pub(super) fn spawn(
        run_dir: &Path,
        events: Sender<Event>,
        requests: Sender<Request>,
    ) -> io::Result<Port> {
        let listener =
            SeqListener::bind(&paths::core_socket(run_dir), 0o600).map_err(io::Error::other)?;
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        poll.registry().register(
            &mut SourceFd(&listener.as_raw_fd()),
            LISTENER,
            Interest::READABLE,
        )?;
        let (queue, queued) = bounded(QUEUE_MAX);
        let thread = Thread {
            poll,
            listener,
            runner: None,
            writable: false,
            queued,
            unsent: VecDeque::new(),
            events,
            requests,
            buffer: vec![0; MESSAGE_MAX],
        };
        std::thread::Builder::new()
            .name("port".into())
            .stack_size(STACK_BYTES)
            .spawn(move || thread.run())?;
        Ok(Port { queue, waker })
    }

    /// Has the runner told. Never blocks; when the queue is full the runner is not reading, and the
    /// message is lost with it.
    pub(super) fn send(&self, message: ToRunner) {
        match self.queue.try_send(message) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
        // A failing eventfd has no remedy here; the thread also wakes for every message received.
        let _ = self.waker.wake();
    }
}

struct Thread {
    poll: Poll,
    listener: SeqListener,
    runner: Option<SeqSocket>,
    writable: bool,
    queued: Receiver<ToRunner>,
    unsent: VecDeque<ToRunner>,
    events: Sender<Event>,
    requests: Sender<Request>,
    buffer: Vec<u8>,
}

impl Thread {
    fn run(mut self) {
        let mut events = Events::with_capacity(8);
        loop {
            if let Err(error) = self.poll.poll(&mut events, None)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "the core cannot wait for its runner");
                std::process::abort();
            }
            let told: Vec<Token> = events.iter().map(|event| event.token()).collect();
            if told.contains(&LISTENER) {
                self.accept();
            }
            if told.contains(&RUNNER) {
                self.writable = true;
                self.receive();
            }
            self.flush();
        }
    }

    /// A new runner replaces the old one: the guard starts one only when the other is dead.
    fn accept(&mut self) {
        while let Ok(Some(socket)) = self.listener.accept() {
            self.drop_runner();
            let registered = self.poll.registry().register(
                &mut SourceFd(&socket.as_raw_fd()),
                RUNNER,
                Interest::READABLE | Interest::WRITABLE,
            );
            if registered.is_ok() {
                self.runner = Some(socket);
                self.writable = true;
                self.receive();
            }
        }
    }

    fn drop_runner(&mut self) {
        let Some(socket) = self.runner.take() else {
            return;
        };
        // The descriptor is closed right after; a refusal changes nothing.
        let _ = self
            .poll
            .registry()
            .deregister(&mut SourceFd(&socket.as_raw_fd()));
        drop(socket);
        self.take_queued();
        self.unsent
            .retain(|message| matches!(message, ToRunner::Record(_)));
        self.tell(Event::Report(Report::Gone));
    }

    fn tell(&self, event: Event) {
        // The engine takes everything from this channel or the process is at its end.
        let _ = self.events.send(event);
    }

    fn receive(&mut self) {
        loop {
            let Some(runner) = &self.runner else { return };
            match runner.recv(&mut self.buffer) {
                Ok(Received::Message(length)) => {
                    match postcard::from_bytes::<FromRunner>(&self.buffer[..length]) {
                        Ok(message) => self.take(message),
                        Err(_) => return self.drop_runner(),
                    }
                }
                Ok(Received::Nothing) => return,
                Ok(Received::Closed) | Err(_) => return self.drop_runner(),
            }
        }
    }

    fn take(&self, message: FromRunner) {
        match message {
            FromRunner::Report(report) => self.tell(Event::Report(report)),
            FromRunner::PowerFenced {
                node,
                epoch,
                outcome,
            } => self.tell(Event::PowerFenced {
                node,
                epoch,
                outcome,
            }),
            FromRunner::Command { request, command } => {
                self.tell(Event::Command { request, command });
            }
            FromRunner::SnapshotPlease { request } => {
                // A full queue means that the engine is busy; the runner's own deadline answers.
                let _ = self.requests.try_send(Request::Snapshot { request });
            }
        }
    }

    fn take_queued(&mut self) {
        for message in self.queued.try_iter() {
            if self.runner.is_none() && !matches!(message, ToRunner::Record(_)) {
                continue;
            }
            self.unsent.push_back(message);
            if self.unsent.len() > BACKLOG_MAX + QUEUE_MAX {
                self.unsent.pop_front();
            }
        }
        if self.runner.is_none() {
            let surplus = self.unsent.len().saturating_sub(BACKLOG_MAX);
            self.unsent.drain(..surplus);
        }
    }

    fn flush(&mut self) {
        self.take_queued();
        while self.writable {
            let (Some(runner), Some(message)) = (&self.runner, self.unsent.front()) else {
                return;
            };
            let sent = match postcard::to_slice(message, &mut self.buffer) {
                Ok(bytes) => runner.send(bytes),
                Err(_) => Ok(true), // longer than a message may be: nobody could take it
            };
            match sent {
                Ok(true) => drop(self.unsent.pop_front()),
                Ok(false) => self.writable = false,
                Err(_) => return self.drop_runner(),
            }
        }
    }
}
