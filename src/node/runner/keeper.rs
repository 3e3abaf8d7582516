//! The runner's side of the guard's socket: asks for addresses, and passes on what the guard says
//! unasked.
//!
//! Answers come in the order of the questions. One thread reads them all; whoever asks waits for
//! his own. A guard that does not answer in time costs the asker his deadline and nobody else's
//! order.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use nix::poll::PollFlags;
use parking_lot::Mutex;
use standfast_sys::socket::{Received, SeqSocket};

use crate::model::TaskIndex;
use crate::node::messages::{FromGuard, MESSAGE_MAX, ToGuard};
use crate::object::{AddressKeeper, AddressOf, Notice, Notices, ObjectError, wait_for};

/// Most questions without an answer; more are refused at once.
const WAITING_MAX: usize = 256;

/// Where notices about an object go.
pub struct Subscriber {
    /// Whose.
    pub task: TaskIndex,
    /// Position among the task's objects.
    pub object: u8,
    /// Its box.
    pub notices: Arc<Notices>,
}

/// The connection to the guard, made again when it was lost.
pub struct Keeper {
    path: PathBuf,
    connection: Mutex<Option<Arc<Connection>>>,
    subscribers: Arc<Mutex<Vec<Subscriber>>>,
}

struct Connection {
    socket: SeqSocket,
    /// Those who wait for an answer, in the order of their questions; none after the connection
    /// ended.
    waiting: Mutex<Option<VecDeque<Sender<FromGuard>>>>,
}

impl Keeper {
    /// Connects when first needed.
    #[must_use]
    pub fn new(path: PathBuf) -> Keeper {
        let subscribers = Arc::new(Mutex::new(Vec::new()));
        Keeper {
            path,
            connection: Mutex::new(None),
            subscribers,
        }
    }

    /// Passes on notices from now on.
    pub fn subscribe(&self, subscriber: Subscriber) {
        self.subscribers.lock().push(subscriber);
    }

    /// Connects now, so that notices come even if nobody asks.
    ///
    /// # Errors
    ///
    /// The guard does not listen.
    pub fn connect(&self) -> Result<(), ObjectError> {
        self.connection().map(drop)
    }

    fn connection(&self) -> Result<Arc<Connection>, ObjectError> {
        let mut current = self.connection.lock();
        if let Some(connection) = &*current
            && connection.waiting.lock().is_some()
        {
            return Ok(Arc::clone(connection));
        }
        let socket = SeqSocket::connect(&self.path)?;
        let waiting = Mutex::new(Some(VecDeque::new()));
        let connection = Arc::new(Connection { socket, waiting });
        let (reader, subscribers) = (Arc::clone(&connection), Arc::clone(&self.subscribers));
        thread::Builder::new()
            .name("guard".to_owned())
            .spawn(move || reader.read_all(&subscribers))
            .map_err(|source| ObjectError::File {
                what: "start a thread".to_owned(),
                source,
            })?;
        *current = Some(Arc::clone(&connection));
        Ok(connection)
    }

    fn ask(&self, question: &ToGuard, deadline: Instant) -> Result<FromGuard, ObjectError> {
        let answer = self.connection()?.send(question)?;
        match answer.recv_deadline(deadline) {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Timeout) => Err(ObjectError::Late {
                what: "the guard did not answer".to_owned(),
            }),
            Err(RecvTimeoutError::Disconnected) => Err(ObjectError::Refused(
                "the guard closed its connection".to_owned(),
            )),
        }
    }
}

impl Connection {
    fn send(&self, question: &ToGuard) -> Result<Receiver<FromGuard>, ObjectError> {
        let packet = postcard::to_stdvec(question).expect("three numbers can be encoded");
        let refuse = |why: &str| Err(ObjectError::Refused(why.to_owned()));
        // Held over the send: the order of the queue is the order on the socket.
        let mut waiting = self.waiting.lock();
        let Some(queue) = &mut *waiting else {
            return refuse("the guard closed its connection");
        };
        if queue.len() >= WAITING_MAX {
            return refuse("too many questions wait for the guard");
        }
        if !self.socket.send(&packet)? {
            return refuse("the guard does not read its questions");
        }
        let (sender, receiver) = bounded(1);
        queue.push_back(sender);
        Ok(receiver)
    }

    fn read_all(&self, subscribers: &Mutex<Vec<Subscriber>>) {
        let mut buffer = vec![0; MESSAGE_MAX];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(Received::Message(length)) => {
                    let Ok(message) = postcard::from_bytes(&buffer[..length]) else {
                        break;
                    };
                    if !self.deliver(message, subscribers) {
                        break;
                    }
                }
                Ok(Received::Nothing) => {
                    let _ = wait_for(&[(self.socket.as_fd(), PollFlags::POLLIN)], None);
                }
                Ok(Received::Closed) | Err(_) => break,
            }
        }
        // Drops the senders: everybody who waits learns it.
        *self.waiting.lock() = None;
    }

    /// False for an answer nobody asked for: questions and answers would be confused from then on.
    fn deliver(&self, message: FromGuard, subscribers: &Mutex<Vec<Subscriber>>) -> bool {
        if let FromGuard::Notice {
            task,
            object,
            useless,
            text,
        } = message
        {
            let notice = Notice { useless, text };
            let subscribers = subscribers.lock();
            let meant = subscribers
                .iter()
                .find(|one| one.task == task && one.object == object);
            if let Some(meant) = meant {
                meant.notices.push(notice);
            }
            return true;
        }
        let asker = self.waiting.lock().as_mut().and_then(VecDeque::pop_front);
        match asker {
            Some(asker) => {
                // He may have given up.
                let _ = asker.send(message);
                true
            }
            None => false,
        }
    }
}

impl AddressKeeper for Keeper {
    fn hold(&self, whose: AddressOf, deadline: Instant) -> Result<(), ObjectError> {
        let AddressOf {
            task,
            object,
            address,
            ip,
        } = whose;
        let answer = self.ask(
            &ToGuard::Hold {
                task,
                object,
                address,
            },
            deadline,
        )?;
        done(answer, &format!("add {ip}"))
    }

    fn release(&self, whose: AddressOf, deadline: Instant) -> Result<(), ObjectError> {
        let AddressOf {
            task,
            object,
            address,
            ip,
        } = whose;
        let answer = self.ask(
            &ToGuard::Release {
                task,
                object,
                address,
            },
            deadline,
        )?;
        done(answer, &format!("delete {ip}"))
    }

    fn held(&self, whose: AddressOf, deadline: Instant) -> Result<bool, ObjectError> {
        let AddressOf {
            task,
            object,
            address,
            ip,
        } = whose;
        match self.ask(
            &ToGuard::Held {
                task,
                object,
                address,
            },
            deadline,
        )? {
            FromGuard::Yes => Ok(true),
            FromGuard::No => Ok(false),
            other @ (FromGuard::Refused { .. } | FromGuard::Notice { .. }) => {
                done(other, &format!("tell about {ip}")).map(|()| false)
            }
        }
    }
}

fn done(answer: FromGuard, what: &str) -> Result<(), ObjectError> {
    match answer {
        FromGuard::Yes => Ok(()),
        FromGuard::Refused { reason } => Err(ObjectError::Refused(format!(
            "the guard did not {what}: {reason}"
        ))),
        FromGuard::No | FromGuard::Notice { .. } => {
            Err(ObjectError::Refused(format!("the guard did not {what}")))
        }
    }
}
