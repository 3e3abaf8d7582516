//! Raw Ethernet: cluster frames and ARP on one interface, below IP and below the firewall
//! (packet(7)).
//!
//! A socket belongs to the thread of its link. Nothing here blocks; sending and receiving allocate
//! nothing. Frames can be lost at any time, doubled or delayed, and whatever arrives may have been
//! made by anybody: the filter in the kernel only keeps noise away, it proves nothing.

mod arp;
mod batch;
mod filter;
mod raw;
#[cfg(test)]
mod tests;

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

pub use arp::{ArpOperation, ArpPacket, ArpSocket};
pub use batch::{BATCH_FRAMES, FRAME_BYTES_MAX, Frame, RecvBatch};
pub use filter::FrameFilter;

use raw::RawSocket;

/// Destination, source and EtherType, before every payload (IEEE 802.3).
pub const HEADER_BYTES: usize = 14;

/// Why a raw socket could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The interface is down (`ENETDOWN`) or no longer exists (`ENXIO`, `ENODEV`). Reported once
    /// when it happens and again for every send. A socket survives down and up; it does not survive
    /// the removal of its interface: look up the new index and open another.
    #[error("interface {interface_index} is down or gone")]
    LinkGone {
        /// The interface the socket is bound to.
        interface_index: u32,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The send buffer or the device's queue is full (`EAGAIN`, `ENOBUFS`): this frame is lost. The
    /// next heartbeat replaces it; count it.
    #[error("the send queue of interface {interface_index} is full")]
    QueueFull {
        /// The interface the socket is bound to.
        interface_index: u32,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// Any other refusal: no privilege (CAP_NET_RAW), no memory, a payload above the MTU.
    #[error("cannot {operation} on interface {interface_index}")]
    Refused {
        /// What was tried, as the words after "cannot".
        operation: &'static str,
        /// The interface the socket is bound to.
        interface_index: u32,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

/// A socket for one EtherType on one interface.
#[derive(Debug)]
pub struct PacketSocket {
    socket: RawSocket,
    ethertype: u16,
}

impl PacketSocket {
    /// Opens a socket that receives what passes `filter`, for this host or for `group_mac`, from
    /// one interface only. The filter is in place before the first frame can arrive, and own frames
    /// never come back.
    ///
    /// Receive buffer: 1 MiB, or as much as `net.core.rmem_max` allows without CAP_NET_ADMIN.
    ///
    /// # Errors
    ///
    /// [`Error::LinkGone`] if no such interface exists or it is down; [`Error::Refused`] without
    /// CAP_NET_RAW.
    pub fn open(
        interface_index: u32,
        group_mac: [u8; 6],
        filter: &FrameFilter,
    ) -> Result<PacketSocket, Error> {
        let socket = RawSocket::open(interface_index, &filter.compile())?;
        socket.join(group_mac)?;
        socket.bind(filter.ethertype)?;
        Ok(PacketSocket {
            socket,
            ethertype: filter.ethertype,
        })
    }

    /// Sends one frame: header and payload are gathered by the kernel, which pads to the minimum of
    /// Ethernet where the driver needs it.
    ///
    /// # Errors
    ///
    /// [`Error::LinkGone`], [`Error::QueueFull`]; [`Error::Refused`] for a payload above the MTU.
    pub fn send(
        &self,
        destination_mac: [u8; 6],
        source_mac: [u8; 6],
        payload: &[u8],
    ) -> Result<(), Error> {
        let header = header(destination_mac, source_mac, self.ethertype);
        self.socket
            .send(&[IoSlice::new(&header), IoSlice::new(payload)])
    }

    /// Receives up to [`BATCH_FRAMES`] waiting frames into `batch`, replacing what it held. `Ok(0)`
    /// says that nothing more is waiting; call until then before waiting for the descriptor again,
    /// or an edge-triggered loop sleeps on a full socket.
    ///
    /// # Errors
    ///
    /// [`Error::LinkGone`] once when the interface goes down; [`Error::Refused`] otherwise.
    pub fn recv(&self, batch: &mut RecvBatch) -> Result<usize, Error> {
        batch.fill(&self.socket)
    }

    /// The interface that the socket is bound to.
    #[must_use]
    pub fn interface_index(&self) -> u32 {
        self.socket.interface_index()
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

fn header(destination: [u8; 6], source: [u8; 6], ethertype: u16) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..6].copy_from_slice(&destination);
    header[6..12].copy_from_slice(&source);
    header[12..].copy_from_slice(&ethertype.to_be_bytes());
    header
}
