//! The control socket: what the command line asks the daemon of this node, and how.
//!
//! A stream socket, one request and one answer a connection. The header never changes, so that any
//! version can tell any other that they differ:
//!
//! ```text
//! 0   4   magic "SFCT"
//! 4   2   version of the body, little-endian
//! 6   4   length of the body in bytes, little-endian, at most 1 MiB
//! 10  ..  body: postcard; in an answer to another version, one sentence in UTF-8
//! ```

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::page::WatchdogKind;
use super::paths;
use super::power::desk::{FenceStatus, Wish};
use crate::config::{Config, NodeConfig};
use crate::engine::{Command, Record, Snapshot};
use crate::model::{NodeId, TaskIndex};

/// First bytes of every message.
pub const MAGIC: [u8; 4] = *b"SFCT";

/// Version of requests and responses.
pub const VERSION: u16 = 2;

/// Length of the header in bytes.
pub const HEADER_BYTES: usize = 10;

/// Longest body in bytes.
pub const BODY_MAX: usize = 1 << 20;

/// Longest time a client may take to send its request and to take its answer, each.
pub const CLIENT_IO_MAX: Duration = Duration::from_secs(5);

/// Longest time the daemon waits for the devices that switch a node off.
pub const FENCE_MAX: Duration = Duration::from_secs(1_800);

/// Longest time the daemon waits for the outcome of a command.
pub const COMMAND_MAX: Duration = Duration::from_secs(30);

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// A picture of the cluster.
    Status,
    /// To change something.
    Command(Command),
    /// The latest entries of the history.
    History {
        /// At most so many.
        limit: u32,
        /// Only about this task.
        task: Option<TaskIndex>,
    },
    /// To try the devices that switch a node off, or to switch it off.
    Fence {
        /// Which node.
        node: NodeId,
        /// Which of the two.
        wish: Wish,
    },
    /// Which program the daemon is.
    Version,
    /// Counters of the runner.
    Counters,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Command`] and [`Request::Fence`]: what came of it, for people.
    Done(String),
    /// To [`Request::History`]: oldest first.
    History(Vec<HistoryEntry>),
    /// To [`Request::Version`]: the package's version.
    Version(String),
    /// To [`Request::Counters`].
    Counters(Counters),
    /// Not done.
    Error(Refused),
}

/// Why a request was not granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// In which of the ways a program may want to tell apart.
    pub code: Code,
    /// What stands against it.
    pub reason: String,
    /// What to do instead.
    pub remedy: String,
}

/// Ways not to grant a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Code {
    /// The cluster's rules are against it.
    Refused,
    /// The core did not answer in time; it may still happen.
    NoAnswer,
    /// The request was not understood.
    BadRequest,
    /// Too many clients at once.
    Busy,
    /// The history cannot be read.
    Unreadable,
    /// A device that switches a node off has failed.
    Device,
}

/// The answer to [`Request::Status`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The core's picture; none if it does not answer.
    pub snapshot: Option<Snapshot>,
    /// What the shared page says, which is there even when every process is stuck.
    pub page: PageStatus,
    /// What everything is called.
    pub names: Names,
    /// How the devices stand that switch other nodes off, as this node finds them.
    pub fences: Vec<FenceStatus>,
}

/// The shared page at one moment; times in milliseconds of age.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PageStatus {
    /// Epoch of the view the core knows.
    pub epoch: u64,
    /// How long the lease is still good for; 0 if there is none.
    pub lease_ms: f64,
    /// Tasks granted to this node, bit by index.
    pub granted: u64,
    /// Process ids of guard, core and runner; 0 where there is none.
    pub pids: [u32; 3],
    /// Age of the last turn of guard, core and runner.
    pub turn_ms: [f64; 3],
    /// Addresses held.
    pub addresses: u64,
    /// Times the lease ran out with something granted.
    pub revocations: u64,
    /// State word of each configured task as the core wrote it.
    pub tasks: Vec<u64>,
    /// What watches the guard.
    pub watchdog: WatchdogStatus,
}

/// The watchdog in a [`PageStatus`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WatchdogStatus {
    /// What sort.
    pub kind: WatchdogKind,
    /// Its timeout as configured, in milliseconds; 0 if there is none.
    pub asked_ms: f64,
    /// Its timeout in force.
    pub in_force_ms: f64,
    /// The longest write to it that the guard has seen.
    pub longest_pet_ms: f64,
    /// Writes to it that took longer than an eighth of the timeout.
    pub late_pets: u64,
    /// It has caused the last boot.
    pub caused_boot: bool,
    /// The node is about to reset itself.
    pub falling: bool,
    /// It was to reset itself, and neither the kernel nor the watchdog has done it.
    pub fell_in_vain: bool,
}

impl WatchdogStatus {
    /// What weakens it, in a phrase; none for hardware with time to spare.
    #[must_use]
    pub fn weakness(&self) -> Option<String> {
        let told = match self.kind {
            WatchdogKind::None => "there is none: a node that hangs is not reset".to_owned(),
            WatchdogKind::Missing => {
                "the configured device cannot be had: a node that hangs is not reset".to_owned()
            }
            WatchdogKind::StandIn => "it is a stand-in and resets nothing".to_owned(),
            WatchdogKind::Software => {
                "it is a timer of the kernel: one that hangs is not reset".to_owned()
            }
            WatchdogKind::Hardware if self.late_pets > 0 => format!(
                "{} writes to it took long, the longest {:.0} ms",
                self.late_pets, self.longest_pet_ms
            ),
            WatchdogKind::Hardware => return None,
        };
        Some(told)
    }
}

/// Names from the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The cluster.
    pub cluster: String,
    /// The node that answers.
    pub node: String,
    /// Every node.
    pub nodes: Vec<(NodeId, String)>,
    /// Links by position.
    pub links: Vec<String>,
    /// Tasks by position.
    pub tasks: Vec<String>,
}

impl Names {
    /// What the configuration calls everything, seen from this node.
    #[must_use]
    pub fn of(config: &Config, node: &NodeConfig) -> Names {
        let nodes = config.nodes().iter();
        Names {
            cluster: config.cluster().name.clone(),
            node: node.name.clone(),
            nodes: nodes.map(|node| (node.id, node.name.clone())).collect(),
            links: config
                .links()
                .iter()
                .map(|link| link.name.clone())
                .collect(),
            tasks: config
                .tasks()
                .iter()
                .map(|task| task.name.clone())
                .collect(),
        }
    }
}

/// One line of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Wall-clock time it was written, RFC 3339 in UTC; for people only.
    pub time: String,
    /// Who asked, where somebody did: user and process.
    pub asked_by: Option<String>,
    /// What happened.
    pub record: Record,
}

/// What the runner counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Requests on the control socket that were not understood.
    pub bad_requests: u64,
    /// Clients that were sent away because there were too many.
    pub busy: u64,
    /// Entries of the history that could not be written.
    pub history_lost: u64,
    /// Messages to the core that were given up.
    pub reports_lost: u64,
    /// Connections to the core so far.
    pub core_connections: u64,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("the daemon is not running on this node: nothing listens at {0}")]
    NotRunning(String),
    /// This user may not.
    #[error("permission denied at {0}: be root or a member of the group `standfast`")]
    Denied(String),
    /// The daemon is of another version; its own sentence.
    #[error("{0}")]
    OtherVersion(String),
    /// No answer by the deadline.
    #[error("the daemon did not answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// The answer is not one, or the connection broke.
    #[error("the daemon's answer could not be read")]
    Broken(#[source] io::Error),
}

/// Asks the daemon of this node.
///
/// # Errors
///
/// See [`ControlError`]; a refusal is not one, but a [`Response::Error`].
pub fn ask(
    run_dir: &Path,
    request: &Request,
    deadline: Duration,
) -> Result<Response, ControlError> {
    let path = paths::control_socket(run_dir);
    let named = path.display().to_string();
    let broken = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ControlError::Late(deadline),
        _ => ControlError::Broken(error),
    };
    let mut stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => ControlError::Denied(named),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ControlError::NotRunning(named)
        }
        _ => ControlError::Broken(error),
    })?;
    let mut timed = Timed {
        stream: &mut stream,
        until: Instant::now() + deadline,
    };
    // A daemon that sends clients away answers without reading: its answer is worth more than the
    // error of our writing.
    let sent = send(&mut timed, request);
    let (version, body) = match receive(&mut timed) {
        Ok(answer) => answer,
        Err(error) => return Err(broken(sent.err().unwrap_or(error))),
    };
    if version != VERSION {
        return Err(ControlError::OtherVersion(
            String::from_utf8_lossy(&body).into_owned(),
        ));
    }
    decode(&body).map_err(broken)
}

/// The sentence for a client of another version.
#[must_use]
pub fn other_version(theirs: u16) -> String {
    format!(
        "this node's daemon is standfastd {} and speaks version {VERSION} of the control socket; \
         the program that asks speaks version {theirs}: use the program that came with the daemon",
        env!("CARGO_PKG_VERSION")
    )
}

/// Writes one message with this version's header.
///
/// # Errors
///
/// The peer's connection is gone or it reads too slowly; `InvalidInput` if the body is too long.
pub fn send(stream: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let body = postcard::to_stdvec(message).map_err(io::Error::other)?;
    send_body(stream, &body)
}

/// Writes a body as it is.
///
/// # Errors
///
/// As for [`send`].
pub fn send_body(stream: &mut impl Write, body: &[u8]) -> io::Result<()> {
    if body.len() > BODY_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            Malformed::TooLong(body.len()),
        ));
    }
    let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
    message.extend_from_slice(&MAGIC);
    message.extend_from_slice(&VERSION.to_le_bytes());
    message.extend_from_slice(&(body.len() as u32).to_le_bytes());
    message.extend_from_slice(body);
    stream.write_all(&message)
}

/// Reads one message of any version: the version and the body.
///
/// # Errors
///
/// `InvalidData` for what is not a message, `UnexpectedEof` for half of one, and what the socket
/// says.
pub fn receive(stream: &mut impl Read) -> io::Result<(u16, Vec<u8>)> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header)?;
    let [m0, m1, m2, m3, v0, v1, l0, l1, l2, l3] = header;
    let refuse = |why| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    if [m0, m1, m2, m3] != MAGIC {
        return refuse(Malformed::Magic);
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if length > BODY_MAX {
        return refuse(Malformed::TooLong(length));
    }
    // Grows with what really comes, not with what the header promises.
    let mut body = Vec::new();
    stream.take(length as u64).read_to_end(&mut body)?;
    if body.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((u16::from_le_bytes([v0, v1]), body))
}

/// The body as a message of this version.
///
/// # Errors
///
/// `InvalidData` if it is not one.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    let refuse = |_| io::Error::new(io::ErrorKind::InvalidData, Malformed::Body);
    let (message, rest) = postcard::take_from_bytes(body).map_err(refuse)?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, Malformed::Body))
    }
}

/// What is wrong with a message.
#[derive(Debug)]
enum Malformed {
    Magic,
    TooLong(usize),
    Body,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Magic => f.write_str("not a message of the control socket"),
            Malformed::TooLong(length) => write!(f, "{length} bytes are more than {BODY_MAX}"),
            Malformed::Body => f.write_str("the body is not a message of this version"),
        }
    }
}

impl std::error::Error for Malformed {}

/// A stream on which the whole of a message, not each of its pieces, has a deadline.
pub(super) struct Timed<'a> {
    pub(super) stream: &'a mut UnixStream,
    pub(super) until: Instant,
}

impl Timed<'_> {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Err(io::ErrorKind::TimedOut.into())
        } else {
            Ok(Some(left))
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
