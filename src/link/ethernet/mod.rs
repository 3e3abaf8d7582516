//! A network card as a link: raw Ethernet frames, one socket bound to one interface.
//!
//! The path is a socket on the interface of the configured name, watched over netlink:
//!
//! ```text
//!            no such interface, off, unusable
//!         .-------------------------------------.
//!         v                                     |
//!  [no socket] --interface is on--> [socket] ---+-- carrier: up, after a pause if it has flapped
//!         ^                             |       '-- no carrier: down, but still listening
//!         '-- refused: growing pause <--'
//! ```
//!
//! Frames are taken in whenever there is a socket, whatever the state says: the state has
//! hysteresis, the traffic has none. The kernel's filter passes frames of this EtherType with the
//! magic and the first half of the cluster's id, so that a flood or another cluster on the wire
//! costs nothing here; what passes and is not good is counted by its error.
//!
//! Runs in the link's thread. Listing interfaces, at the start and after lost notices, can wait for
//! a hung driver of any card; nothing else here waits.

mod interface;

use std::os::fd::AsRawFd;
use std::sync::Arc;

use mio::unix::SourceFd;
use mio::{Interest, Registry};
use standfast_sys::packet::{
    BATCH_FRAMES, Error as PacketError, FrameFilter, PacketSocket, RecvBatch,
};
use standfast_sys::sentence;

use super::backoff::Backoff;
use super::counters::{Count, Counters};
use super::outlet::Outlet;
use super::{Link, Load, Parameters, Readiness, Received, Scope, State, TRAFFIC};
use crate::frame::layout::{FRAME_LEN, MAGIC};
use crate::frame::{Frame, Keyring};
use crate::mldc::Packet;
use crate::model::{ClusterId, Incarnation, NodeId};
use crate::time::{Instant, Span};
use interface::{Interface, Usable};

/// Where the cluster's id stands in a frame, and how much of it the kernel compares.
const CLUSTER_AT: usize = 8;

/// Calls that one turn may receive with, 64 frames each: more than a full socket buffer holds.
const BATCHES_MAX: usize = 64;

/// How long a path that has failed must be good before it is called up again: 100 ms after the
/// first failure, doubled by each further one.
const STEADY_FIRST: Span = Span::from_ms(100);

/// The longest such time.
const STEADY_MAX: Span = Span::from_ms(10_000);

/// A path that was up for so long has its failures forgiven.
const FORGIVE_AFTER: Span = Span::from_ms(60_000);

/// Pause after the first refusal of the kernel, doubled by each further one.
const RETRY_FIRST: Span = Span::from_ms(50);

/// The longest pause.
const RETRY_MAX: Span = Span::from_ms(2_000);

/// The multicast address of a cluster's frames: locally administered, so it collides with no
/// vendor's and no protocol's, and the rest is taken from the cluster's id, so that a card drops
/// another cluster's frames by itself.
#[must_use]
pub fn group_mac(cluster: &ClusterId) -> [u8; 6] {
    let [a, b, c, d, e, ..] = *blake3::hash(cluster).as_bytes();
    [0x03, a, b, c, d, e]
}

/// What the kernel is to pass on. Too short ones and those of unknown versions pass and are
/// counted.
fn filter(ethertype: u16, cluster: &ClusterId) -> FrameFilter {
    let [a, b, c, d, e, f, g, h, ..] = *cluster;
    FrameFilter {
        ethertype,
        min_len: 0,
        magic: Some((0, MAGIC)),
        cluster: (CLUSTER_AT as u32, [a, b, c, d, e, f, g, h]),
        not_sender: None,
    }
}

/// One network card.
pub(super) struct EthernetLink {
    index: u8,
    cluster: ClusterId,
    node: NodeId,
    incarnation: Incarnation,
    keyring: Keyring,
    filter: FrameFilter,
    group_mac: [u8; 6],
    counters: Arc<Counters>,
    interface: Interface,
    socket: Option<PacketSocket>,
    batch: RecvBatch,
    /// What the batches of earlier sockets have counted: drops and oversized.
    batch_before: (u64, u64),
    /// Frames are decoded into this one; what it holds between two is of no interest.
    heard: Frame,
    bytes: [u8; FRAME_LEN],
    state: State,
    /// Why the kernel refused the path when it was last tried, and when to try again.
    refused: Option<(String, Instant)>,
    retry: Backoff,
    steady: Backoff,
    /// When the state changed to what it is; none before the first state.
    since: Option<Instant>,
    /// When a good path may be called up again.
    steady_at: Option<Instant>,
}

impl EthernetLink {
    pub(super) fn new(
        parameters: Parameters,
        interface: String,
        ethertype: u16,
        counters: Arc<Counters>,
    ) -> EthernetLink {
        let Parameters {
            index,
            cluster,
            node,
            incarnation,
            keyring,
            ..
        } = parameters;
        EthernetLink {
            index,
            cluster,
            node,
            incarnation,
            keyring,
            filter: filter(ethertype, &cluster),
            group_mac: group_mac(&cluster),
            counters,
            interface: Interface::new(interface),
            socket: None,
            batch: RecvBatch::new(),
            batch_before: (0, 0),
            heard: Frame::blank(cluster, node, incarnation),
            bytes: [0; FRAME_LEN],
            state: State::down("not tried yet"),
            refused: None,
            retry: Backoff::new(RETRY_FIRST, RETRY_MAX),
            steady: Backoff::new(STEADY_FIRST, STEADY_MAX),
            since: None,
            steady_at: None,
        }
    }

    /// Opens or closes the socket so that it fits the interface.
    fn fit_socket(&mut self, now: Instant, registry: &Registry) {
        let usable = self.interface.usable();
        if self.socket.as_ref().map(PacketSocket::interface_index) != usable.index() {
            self.close();
        }
        let index = match usable {
            Usable::No(_) | Usable::Off(..) => {
                self.refused = None;
                return;
            }
            Usable::NoCarrier(index, _) | Usable::Yes(index, _) => index,
        };
        let waiting = self.refused.as_ref().is_some_and(|(_, again)| now < *again);
        if self.socket.is_some() || waiting {
            return;
        }
        match self.open(index, registry) {
            Ok(socket) => {
                self.socket = Some(socket);
                self.refused = None;
            }
            Err(reason) => self.refuse(reason, now),
        }
    }

    fn open(&self, index: u32, registry: &Registry) -> Result<PacketSocket, String> {
        let socket = PacketSocket::open(index, self.group_mac, &self.filter)
            .map_err(|error| sentence(&error))?;
        registry
            .register(
                &mut SourceFd(&socket.as_raw_fd()),
                TRAFFIC,
                Interest::READABLE,
            )
            .map_err(|error| format!("cannot wait for the socket: {error}"))?;
        Ok(socket)
    }

    /// Drops the socket, and with it what it has not been asked for.
    fn close(&mut self) {
        if self.socket.take().is_some() {
            self.batch_before = self.batch_totals();
            self.batch = RecvBatch::new();
        }
    }

    /// The kernel does not let us: another try after a pause.
    fn refuse(&mut self, reason: String, now: Instant) {
        self.close();
        self.refused = Some((reason, self.retry.fail(now)));
    }

    /// What the path is like at this moment.
    fn found(&self) -> State {
        if let Some((reason, _)) = &self.refused {
            return State::down(reason.clone());
        }
        match self.interface.usable() {
            Usable::No(reason) | Usable::Off(_, reason) | Usable::NoCarrier(_, reason) => {
                State::down(reason)
            }
            Usable::Yes(_, reason) => State::up(reason),
        }
    }

    /// Takes over what was found: bad news at once, good news after the pause.
    fn judge(&mut self, now: Instant) {
        let found = self.found();
        let Some(since) = self.since else {
            (self.state, self.since) = (found, Some(now));
            return;
        };
        if !found.up {
            if self.state.up {
                self.since = Some(now);
            }
            (self.state, self.steady_at) = (found, None);
            return;
        }
        if self.state.up {
            if now.since(since) > FORGIVE_AFTER {
                self.steady.forgive();
                self.retry.forgive();
            }
            self.state = found;
            return;
        }
        let steady_at = match self.steady_at {
            Some(at) => at,
            None => self.steady.fail(now),
        };
        self.steady_at = Some(steady_at);
        if now >= steady_at {
            (self.state, self.since, self.steady_at) = (found, Some(now), None);
        }
    }

    /// Decodes the frames of the batch and hands on all but this life's own: the engine must know
    /// of another machine with this node's id.
    fn hear(&mut self, out: &mut Outlet) {
        for frame in self.batch.frames() {
            if Packet::claimed(frame.payload) {
                self.hear_packet(frame.payload, out);
                continue;
            }
            match self
                .heard
                .decode_into(frame.payload, &self.keyring, &self.cluster)
            {
                Err(error) => self.counters.refuse(error),
                Ok(()) if self.heard.sender != self.node => out.frame(&self.heard),
                Ok(()) if self.heard.incarnation == self.incarnation => {
                    self.counters.add(Count::Echoed);
                }
                Ok(()) => {
                    self.counters.add(Count::Impostor);
                    out.frame(&self.heard);
                }
            }
        }
    }

    /// Hands on a packet that another node has sent to this one.
    fn hear_packet(&self, payload: &[u8], out: &mut Outlet) {
        match Packet::decode(payload, &self.keyring, &self.cluster) {
            Err(error) => self.counters.refuse_packet(error),
            Ok(packet) if packet.origin.sender == self.node => {
                let own = packet.origin.incarnation == self.incarnation;
                self.counters
                    .add(if own { Count::Echoed } else { Count::Impostor });
            }
            Ok(packet) if !packet.to.contains(self.node) => self.counters.add(Count::MailElsewhere),
            Ok(packet) => out.packet(packet),
        }
    }

    fn batch_totals(&self) -> (u64, u64) {
        let (drops, oversized) = self.batch_before;
        (
            drops + self.batch.drops(),
            oversized + self.batch.oversized(),
        )
    }

    /// Notes a failed send. What a full queue has swallowed, the next heartbeat replaces.
    fn not_sent(&mut self, error: &PacketError) {
        match error {
            PacketError::QueueFull { .. } => self.counters.add(Count::SendFull),
            // Netlink tells the rest of the story.
            PacketError::LinkGone { .. } => self.counters.add(Count::SendFailed),
            other => {
                self.counters.add(Count::SendFailed);
                self.refuse(sentence(other), super::now());
            }
        }
    }
}

impl Link for EthernetLink {
    fn ready(&mut self, now: Instant, registry: &Registry, changed: bool) -> Readiness {
        self.interface.look(now, registry, changed);
        self.fit_socket(now, registry);
        self.judge(now);
        let retry_at = self.refused.as_ref().map(|(_, again)| *again);
        let dates = [retry_at, self.steady_at, self.interface.look_again()];
        let again = dates.into_iter().flatten().min().unwrap_or(Instant::NEVER);
        Readiness {
            again,
            answers: true,
        }
    }

    fn recv(&mut self, _scope: Scope, out: &mut Outlet) -> Received {
        for _ in 0..BATCHES_MAX {
            // Without a socket nothing can have come.
            let Some(socket) = &self.socket else {
                return Received::All;
            };
            let received = socket.recv(&mut self.batch);
            let (drops, oversized) = self.batch_totals();
            self.counters.set(Count::SocketFull, drops);
            self.counters.set(Count::Oversized, oversized);
            match received {
                Ok(0) => return Received::All,
                Ok(count) => {
                    self.hear(out);
                    // The kernel stops short only at an empty queue.
                    if count < BATCH_FRAMES {
                        return Received::All;
                    }
                }
                // Told once; what is queued behind it can still be received.
                Err(PacketError::LinkGone { .. }) => self.counters.add(Count::RecvFailed),
                Err(error) => {
                    self.counters.add(Count::RecvFailed);
                    self.refuse(sentence(&error), super::now());
                    return Received::Unknown;
                }
            }
        }
        Received::More
    }

    fn send(&mut self, load: Load<'_>, out: &mut Outlet) {
        let sent = match load {
            Load::Block(_) | Load::Change(_) => return,
            Load::Frame(frame) => {
                let mut frame = frame.clone();
                frame.link = self.index;
                frame.encode(&self.keyring, &mut self.bytes);
                Count::Sent
            }
            Load::Packet(packet) => {
                let mut packet = packet.clone();
                packet.link = self.index;
                packet.encode(&self.keyring, &mut self.bytes);
                Count::MailSent
            }
        };
        let (Some(socket), Some(mac)) = (&self.socket, self.interface.mac()) else {
            self.counters.add(Count::Unsent);
            return;
        };
        match socket.send(self.group_mac, mac, &self.bytes) {
            Ok(()) => self.counters.add(sent),
            Err(error) => {
                // A socket that is given up takes what it has received with it.
                self.recv(Scope::Used, out);
                self.not_sent(&error);
            }
        }
    }

    fn reads_after_write(&self) -> bool {
        false
    }

    fn state(&self) -> &State {
        &self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_a_local_multicast_address_of_the_cluster() {
        let (one, other) = (group_mac(&[1; 16]), group_mac(&[2; 16]));
        assert_eq!(one[0] & 0b11, 0b11);
        assert_ne!(one, other);
    }

    #[test]
    fn the_filter_looks_where_a_frame_has_its_cluster() {
        let cluster = *b"0123456789abcdef";
        let node = NodeId::new(1).unwrap();
        let mut bytes = [0; FRAME_LEN];
        let keyring = Keyring::new(&[0; 32], &cluster);
        Frame::blank(cluster, node, Incarnation::default()).encode(&keyring, &mut bytes);
        let filter = filter(0x88B5, &cluster);
        let (at, wanted) = filter.cluster;
        assert_eq!(bytes[at as usize..at as usize + 8], wanted);
        let (at, magic) = filter.magic.unwrap();
        assert_eq!(bytes[at as usize..at as usize + 4], magic);
    }
}
