//! Serves the control socket: one thread accepts, one thread for each of a bounded number of
//! clients.
//!
//! A client can be refused, cut off and counted; it can ask the core for something. It can do
//! nothing to a running task by itself, and a client that hangs holds nobody up.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{UnixCredentials, getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Group, chown};
use standfast_sys::clock::boottime_ns;

use super::history::History;
use super::lease::Lease;
use crate::engine::{Class, Command, Record, Refusal, Snapshot};
use crate::model::{NodeId, TaskIndex};
use crate::node::control::{
    CLIENT_IO_MAX, COMMAND_MAX, Code, Counters, FENCE_MAX, Names, Refused, Request, Response,
    Status, Timed, VERSION, decode, other_version, receive, send, send_body,
};
use crate::node::power::desk::{Desk, Wish};
use crate::time;

/// Most clients at once; a further one is told so and cut off.
const CLIENTS_MAX: usize = 16;

/// How long the core may take for its picture before the shared page must do.
const SNAPSHOT_MAX: Duration = Duration::from_secs(1);

/// The group whose members may use the socket, beside root.
const GROUP: &str = "standfast";

/// Pause after an accept that failed, such as for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A question of a client that only the core can answer.
pub(super) enum Ask {
    /// For its picture.
    Snapshot(Sender<Box<Snapshot>>),
    /// To do something.
    Command(Command, Sender<Result<String, Refusal>>),
}

/// Counters that other threads write.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) bad_requests: AtomicU64,
    pub(super) busy: AtomicU64,
    pub(super) reports_lost: AtomicU64,
    pub(super) core_connections: AtomicU64,
}

/// What serving a client needs.
pub(super) struct Server {
    pub(super) asks: Sender<Ask>,
    pub(super) bell: Arc<EventFd>,
    pub(super) history: History,
    pub(super) lease: Arc<Lease>,
    pub(super) names: Names,
    pub(super) node: NodeId,
    pub(super) desk: Arc<Desk>,
    pub(super) shared: Arc<Shared>,
}

/// Listens at `path`, in place of an earlier runner's socket, and serves from threads of its own.
pub(super) fn listen(path: &Path, server: Server) -> io::Result<()> {
    // Beside and renamed: the path never leads to a socket that is not ready, or open to all.
    let beside = path.with_extension("sock.new");
    let _ = fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside)?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o660))?;
    if let Ok(Some(group)) = Group::from_name(GROUP) {
        chown(&beside, None, Some(group.gid))?;
    }
    fs::rename(&beside, path)?;
    let server = Arc::new(server);
    let accept = move || accept_all(&listener, &server);
    thread::Builder::new()
        .name("control".to_owned())
        .spawn(accept)?;
    Ok(())
}

fn accept_all(listener: &UnixListener, server: &Arc<Server>) {
    let clients = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(ACCEPT_AGAIN);
            continue;
        };
        if clients.fetch_add(1, Ordering::SeqCst) >= CLIENTS_MAX {
            clients.fetch_sub(1, Ordering::SeqCst);
            server.shared.busy.fetch_add(1, Ordering::Relaxed);
            turn_away(stream);
            continue;
        }
        let place = Place(Arc::clone(&clients));
        let server = Arc::clone(server);
        let serve = move || {
            let _place = place;
            server.serve(stream);
        };
        // Without a thread the stream and the place are dropped: the client sees the end.
        let _ = thread::Builder::new()
            .name("client".to_owned())
            .spawn(serve);
    }
}

/// One of the clients' places, free again when dropped.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Says so if that can be said at once.
fn turn_away(mut stream: UnixStream) {
    let remedy = "try again in a moment";
    let busy = refused(
        Code::Busy,
        format!("{CLIENTS_MAX} programs ask already"),
        remedy,
    );
    if stream.set_nonblocking(true).is_ok() {
        let _ = send(&mut stream, &busy);
    }
}

impl Server {
    fn serve(&self, mut stream: UnixStream) {
        let until = Instant::now() + CLIENT_IO_MAX;
        let request = receive(&mut Timed {
            stream: &mut stream,
            until,
        });
        let (version, body) = match request {
            Ok(request) => request,
            Err(_) => return self.count_bad(),
        };
        if version != VERSION {
            let mut timed = Timed {
                stream: &mut stream,
                until,
            };
            let _ = send_body(&mut timed, other_version(version).as_bytes());
            return;
        }
        let response = match decode(&body) {
            Ok(request) => self.answer(&request, getsockopt(&stream, PeerCredentials).ok()),
            Err(error) => {
                self.count_bad();
                refused(
                    Code::BadRequest,
                    error.to_string(),
                    "ask with the program of this version",
                )
            }
        };
        let mut timed = Timed {
            stream: &mut stream,
            until: Instant::now() + CLIENT_IO_MAX,
        };
        let _ = send(&mut timed, &response).and_then(|()| timed.flush());
    }

    fn count_bad(&self) {
        self.shared.bad_requests.fetch_add(1, Ordering::Relaxed);
    }

    fn answer(&self, request: &Request, peer: Option<UnixCredentials>) -> Response {
        match request {
            Request::Status => Response::Status(Box::new(self.status())),
            Request::Command(command) => self.command(command, peer),
            Request::History { limit, task } => match self.history.read(*limit as usize, *task) {
                Ok(entries) => Response::History(entries),
                Err(error) => {
                    let reason = format!("the history cannot be read: {error}");
                    refused(
                        Code::Unreadable,
                        reason,
                        "look at the state directory and its disk",
                    )
                }
            },
            Request::Fence { node, wish } => self.fence(*node, *wish, peer),
            Request::Version => Response::Version(env!("CARGO_PKG_VERSION").to_owned()),
            Request::Counters => Response::Counters(self.counters()),
        }
    }

    fn counters(&self) -> Counters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            bad_requests: load(&self.shared.bad_requests),
            busy: load(&self.shared.busy),
            history_lost: self.history.lost(),
            reports_lost: load(&self.shared.reports_lost),
            core_connections: load(&self.shared.core_connections),
        }
    }

    fn status(&self) -> Status {
        let (sender, receiver) = bounded(1);
        let snapshot = self
            .ask(Ask::Snapshot(sender), &receiver, SNAPSHOT_MAX)
            .ok()
            .map(|snapshot| *snapshot);
        let page = self.lease.status(self.names.tasks.len());
        Status {
            snapshot,
            page,
            names: self.names.clone(),
            fences: self.desk.status(),
        }
    }

    fn command(&self, command: &Command, peer: Option<UnixCredentials>) -> Response {
        let (sender, receiver) = bounded(1);
        let outcome = self.ask(
            Ask::Command(command.clone(), sender),
            &receiver,
            COMMAND_MAX,
        );
        let (text, response) = match outcome {
            Ok(Ok(done)) => (done.clone(), Response::Done(done)),
            Ok(Err(Refusal { reason, remedy })) => (
                format!("refused: {reason}"),
                refused(Code::Refused, reason, remedy),
            ),
            Err(_) => {
                let reason = "the core does not answer; what was asked may still happen";
                let remedy = "look at the status, and ask again";
                (reason.to_owned(), refused(Code::NoAnswer, reason, remedy))
            }
        };
        self.history
            .keep(self.record(command, text), Some(asked_by(peer)));
        response
    }

    /// Tries a node's devices, or switches it off, as a person asks: he answers for it.
    fn fence(&self, node: NodeId, wish: Wish, peer: Option<UnixCredentials>) -> Response {
        let name = self.name_of(node);
        let words = match wish {
            Wish::Test => format!("test the fence devices of {name}"),
            Wish::Off => format!("switch {name} off"),
        };
        let (sender, receiver) = bounded(1);
        let reply = match self.desk.ask(node, wish, sender) {
            Ok(()) => receiver.recv_timeout(FENCE_MAX),
            Err(why) => {
                let remedy = "see [[fence]] in the configuration, and `standfast status`";
                return refused(Code::Refused, why, remedy);
            }
        };
        let (outcome, response) = match reply {
            Ok(Ok(done)) => (done.clone(), Response::Done(done)),
            Ok(Err(why)) => {
                let remedy = "call the agent by hand with the same options, and look at the device";
                (why.clone(), refused(Code::Device, why, remedy))
            }
            Err(_) => {
                let reason = "the devices do not answer; what was asked may still happen";
                let remedy = "look at the status, and at the device";
                (reason.to_owned(), refused(Code::NoAnswer, reason, remedy))
            }
        };
        let asked = (None, Some(node), words);
        self.history
            .keep(self.record_of(asked, outcome), Some(asked_by(peer)));
        response
    }

    fn name_of(&self, node: NodeId) -> String {
        let known = self.names.nodes.iter().find(|(id, _)| *id == node);
        known.map_or_else(|| format!("node {node}"), |(_, name)| name.clone())
    }

    fn ask<T>(
        &self,
        ask: Ask,
        answer: &Receiver<T>,
        patience: Duration,
    ) -> Result<T, RecvTimeoutError> {
        let deadline = Instant::now() + patience;
        let sent = self.asks.send_deadline(ask, deadline);
        sent.map_err(|_| RecvTimeoutError::Timeout)?;
        let _ = self.bell.write(1);
        answer.recv_deadline(deadline)
    }

    fn record(&self, command: &Command, outcome: String) -> Record {
        self.record_of(self.in_words(command), outcome)
    }

    fn record_of(
        &self,
        (task, node, words): (Option<TaskIndex>, Option<NodeId>, String),
        outcome: String,
    ) -> Record {
        Record {
            at: time::Instant(boottime_ns()),
            epoch: self.lease.epoch(),
            class: Class::Notice,
            task,
            node: Some(node.unwrap_or(self.node)),
            trigger: format!("a command: {words}"),
            evidence: Vec::new(),
            rule: "an administrator asked on the control socket".to_owned(),
            rejected: Vec::new(),
            outcome,
        }
    }

    fn in_words(&self, command: &Command) -> (Option<TaskIndex>, Option<NodeId>, String) {
        let task_name = |task: &TaskIndex| match self.names.tasks.get(task.index()) {
            Some(name) => name.clone(),
            None => format!("task {}", task.index()),
        };
        let node_name = |id: &NodeId| self.name_of(*id);
        match command {
            Command::Move { task, to } => {
                let words = format!("move {} to {}", task_name(task), node_name(to));
                (Some(*task), Some(*to), words)
            }
            Command::Start { task } => (Some(*task), None, format!("start {}", task_name(task))),
            Command::Stop { task } => (Some(*task), None, format!("stop {}", task_name(task))),
            Command::Standby { node } => {
                (None, Some(*node), format!("standby {}", node_name(node)))
            }
            Command::Online { node } => (None, Some(*node), format!("online {}", node_name(node))),
            Command::ConfirmOff { node } => (
                None,
                Some(*node),
                format!("confirm that {} is off", node_name(node)),
            ),
        }
    }
}

fn refused(code: Code, reason: impl Into<String>, remedy: impl Into<String>) -> Response {
    Response::Error(Refused {
        code,
        reason: reason.into(),
        remedy: remedy.into(),
    })
}

/// The client as the kernel knows it.
fn asked_by(peer: Option<UnixCredentials>) -> String {
    let Some(peer) = peer else {
        return "somebody unknown".to_owned();
    };
    let program = fs::read_to_string(format!("/proc/{}/comm", peer.pid())).unwrap_or_default();
    format!(
        "user {}, process {} {}",
        peer.uid(),
        peer.pid(),
        program.trim_end()
    )
}
