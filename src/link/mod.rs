//! The links: one thread for each network card and each disk, carrying frames both ways.
//!
//! ```text
//!            LinkHandle                          link thread
//! engine --> newest frame, mail, orders --wake--> turn: ready, then send, then recv
//! engine <-- Event ---------- bounded channel <-------'
//! ```
//!
//! A turn of the thread is: notice what changed about the path, wait, carry out disk orders, send
//! the newest frame, take in what has come. A path that fails is down with a reason, is tried again
//! with a growing pause, and never touches another link. A hung disk stops its own thread only.
//!
//! What is bounded, and what happens at the bound:
//!
//! - frames to send: one. A newer frame takes the place of one not yet sent, which is counted.
//! - packets to send: [`MAIL_MAX`]. A newer packet takes the place of the oldest, which is counted:
//!   its message is lost, and its sender repeats what still matters.
//! - disk orders: one write and one read; the engine has no more under way.
//! - events: the caller's channel. When it is full a frame is dropped and counted, and the thread
//!   does not claim to have drained its link; a packet is dropped and counted; every other event
//!   waits for room, which stops this link's thread and nothing else: with an engine that does not
//!   listen it has nothing to do.
//!
//! Packets go out on networks only. What nodes agree on over messages they agree on over a disk by
//! the register's blocks, so a disk has no use for them.
//!
//! Nothing is logged here: states go out as events, everything else is counted.

mod backoff;
mod counters;
mod disk;
mod ethernet;
mod handle;
mod latency;
mod outlet;
mod thread;

use std::fmt;
use std::path::PathBuf;

use mio::{Registry, Token};

pub use counters::{Count, Counters};
pub use disk::{
    AreaDisk, CannotCompare, Companions, DiskProbe, LogicalUnit, Measured, ProbeError, Stranger,
    probe_disk,
};
pub use ethernet::group_mac;
pub use handle::{LinkHandle, MAIL_MAX, OrderRefused};
pub use latency::{Latency, LatencySeen};
pub use thread::spawn;

use crate::frame::{Frame, Keyring};
use crate::mldc::Packet;
use crate::model::{ClusterId, Incarnation, NodeId};
use crate::register::{Block, Change};
use crate::time::Instant;
use outlet::Outlet;

/// What a link is made of on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Medium {
    /// Raw frames on a network card.
    Ethernet {
        /// Name of the interface; it need not exist yet.
        interface: String,
        /// IEEE 802.3 type field of the frames.
        ethertype: u16,
    },
    /// Sectors of a disk that all nodes reach.
    Disk {
        /// Path of the block device; it need not exist yet.
        device: PathBuf,
        /// The highest id that is configured: slots up to here are read at every heartbeat.
        highest: NodeId,
        /// Position among the register's disks.
        disk: u8,
        /// All of those; the same value for each of them.
        companions: Companions,
    },
}

impl Medium {
    /// Does it carry packets of messages?
    const fn carries_mail(&self) -> bool {
        match self {
            Medium::Ethernet { .. } => true,
            Medium::Disk { .. } => false,
        }
    }
}

/// All that a link's thread has to know.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// Position in the configuration: put into every frame sent and every event.
    pub index: u8,
    /// What the link is made of.
    pub medium: Medium,
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// This life of it: written into register blocks.
    pub incarnation: Incarnation,
    /// The cluster's keys.
    pub keyring: Keyring,
}

/// One path as its thread drives it. Nothing here waits, but for a disk, which is nothing else.
trait Link {
    /// Opens what can be opened, and registers what to wait for. `changed`: [`CHANGES`] was
    /// reported since the last call.
    fn ready(&mut self, now: Instant, registry: &Registry, changed: bool) -> Readiness;

    /// Takes in all that is there and tells it.
    fn recv(&mut self, scope: Scope, out: &mut Outlet) -> Received;

    /// Sends a frame or a packet, or writes or changes the register and tells what came of it.
    /// What cannot leave is counted and forgotten.
    fn send(&mut self, load: Load<'_>, out: &mut Outlet);

    /// After each write of the register block the register wants a read: no need to be asked.
    fn reads_after_write(&self) -> bool;

    /// Whether it works, and why; changes in all three calls.
    fn state(&self) -> &State;
}

/// What leaves on a link.
enum Load<'a> {
    /// A heartbeat.
    Frame(&'a Frame),
    /// A packet of a message; only a network takes it.
    Packet(&'a Packet),
    /// This node's register block; only a disk takes it.
    Block(&'a Block),
    /// A change of the register's record; only a disk takes it.
    Change(&'a Change),
}

/// How far a [`Link::recv`] looks; a network has no far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// For a heartbeat: what is in use.
    Used,
    /// For the register: every place there is.
    All,
}

/// What [`Link::ready`] found.
struct Readiness {
    /// When to look again at the latest, whatever happens.
    again: Instant,
    /// Disk orders can be answered now: the disk works, or another try has just failed. Otherwise
    /// they wait for the next try, so that the engine cannot spin on a dead disk.
    answers: bool,
}

/// What [`Link::recv`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Received {
    /// All that was there has been told.
    All,
    /// It stopped at its bound; call again.
    More,
    /// There is no telling what was there.
    Unknown,
}

/// Whether frames can leave, and why, in words for a person at night.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    up: bool,
    reason: String,
}

impl State {
    fn up(reason: impl Into<String>) -> State {
        State {
            up: true,
            reason: reason.into(),
        }
    }

    fn down(reason: impl Into<String>) -> State {
        State {
            up: false,
            reason: reason.into(),
        }
    }
}

/// The waker's events.
const WAKE: Token = Token(0);

/// Something has come in: [`Link::recv`] is due.
const TRAFFIC: Token = Token(1);

/// Something about the path has changed: [`Link::ready`] is to look.
const CHANGES: Token = Token(2);

/// Now, on the clock of the lease.
fn now() -> Instant {
    Instant(standfast_sys::clock::boottime_ns())
}

impl fmt::Display for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Medium::Ethernet { interface, .. } => write!(f, "interface {interface}"),
            Medium::Disk { device, .. } => write!(f, "disk {}", device.display()),
        }
    }
}
