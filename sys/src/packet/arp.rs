//! ARP by hand: tell the network where an address now lives, and ask whether somebody has it.
//!
//! Used by the link and runner threads; nothing here blocks. Nobody answers an announcement, so it
//! is repeated by the caller; a probe is answered by whoever holds the address (RFC 826, RFC 5227).
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 14 | Ethernet header, EtherType 0x0806 |
//! | 14 | 2 | hardware type, 1 |
//! | 16 | 2 | protocol, 0x0800 |
//! | 18 | 2 | address lengths, 6 and 4 |
//! | 20 | 2 | operation, 1 request or 2 reply |
//! | 22 | 6 | sender hardware address |
//! | 28 | 4 | sender protocol address |
//! | 32 | 6 | target hardware address |
//! | 38 | 4 | target protocol address |

use std::io::IoSlice;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;

use super::raw::RawSocket;
use super::{Error, filter, header};

/// Everything that is looked at; switches and drivers may pad behind it.
pub(super) const FRAME_BYTES: usize = 42;

const ETHERTYPE_ARP: u16 = 0x0806;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
const EVERYBODY: [u8; 6] = [0xFF; 6];
const NOBODY: [u8; 6] = [0; 6];

/// What an ARP packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpOperation {
    /// Asks who has the target address; an announcement or a probe is one too.
    Request,
    /// Says who has the sender address.
    Reply,
    /// A number that RFC 826 does not know, kept as it is.
    Other(u16),
}

/// An ARP packet from somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpPacket {
    /// What it is for.
    pub operation: ArpOperation,
    /// Hardware address that the sender claims.
    pub sender_mac: [u8; 6],
    /// Address that the sender claims to have; 0.0.0.0 in a probe.
    pub sender_ip: Ipv4Addr,
    /// Address that it is about.
    pub target_ip: Ipv4Addr,
}

/// A socket that speaks ARP on one interface and hears the ARP of everybody else there.
#[derive(Debug)]
pub struct ArpSocket {
    socket: RawSocket,
    own_mac: [u8; 6],
}

impl ArpSocket {
    /// Opens the socket on an interface with the hardware address `own_mac`. Open it anew when the
    /// interface changes its address (bonding). It hears all ARP of others.
    ///
    /// # Errors
    ///
    /// As for [`PacketSocket::open`](super::PacketSocket::open).
    pub fn open(interface_index: u32, own_mac: [u8; 6]) -> Result<ArpSocket, Error> {
        ArpSocket::open_for(interface_index, own_mac, &[])
    }

    /// The same, but it hears only others that claim to have one of these addresses; the questions
    /// of a busy network do not wake it. No addresses, or more than 200, are as all.
    ///
    /// # Errors
    ///
    /// As for [`PacketSocket::open`](super::PacketSocket::open).
    pub fn open_for(
        interface_index: u32,
        own_mac: [u8; 6],
        senders: &[Ipv4Addr],
    ) -> Result<ArpSocket, Error> {
        let filter = filter::arp_of_others(own_mac, senders);
        let socket = RawSocket::open(interface_index, &filter)?;
        socket.bind(ETHERTYPE_ARP)?;
        Ok(ArpSocket { socket, own_mac })
    }

    /// Says to everybody "`ip` is here": a request and then a reply, because some stacks learn from
    /// one only and some from the other only. Repeat it over the next seconds; frames get lost.
    ///
    /// # Errors
    ///
    /// As for [`PacketSocket::send`](super::PacketSocket::send). When the first form fails the
    /// second is not tried.
    pub fn announce(&self, ip: Ipv4Addr) -> Result<(), Error> {
        self.send(&frame(REQUEST, self.own_mac, ip, NOBODY, ip))?;
        self.send(&frame(REPLY, self.own_mac, ip, EVERYBODY, ip))
    }

    /// Asks who has `ip` without claiming any address (RFC 5227 section 2.1.1): whoever answers
    /// with `sender_ip == ip` still has it.
    ///
    /// # Errors
    ///
    /// As for [`PacketSocket::send`](super::PacketSocket::send).
    pub fn probe(&self, ip: Ipv4Addr) -> Result<(), Error> {
        self.send(&frame(
            REQUEST,
            self.own_mac,
            Ipv4Addr::UNSPECIFIED,
            NOBODY,
            ip,
        ))
    }

    /// Asks who has `ip` in the name of `from`, as a host does before it sends: the answer's target
    /// is `from`, which tells one question from another.
    ///
    /// # Errors
    ///
    /// As for [`PacketSocket::send`](super::PacketSocket::send).
    pub fn ask(&self, from: Ipv4Addr, ip: Ipv4Addr) -> Result<(), Error> {
        self.send(&frame(REQUEST, self.own_mac, from, NOBODY, ip))
    }

    /// The next ARP packet of somebody else; `None` when none is waiting.
    ///
    /// # Errors
    ///
    /// As for [`PacketSocket::recv`](super::PacketSocket::recv).
    pub fn recv(&self) -> Result<Option<ArpPacket>, Error> {
        let mut buffer = [0; FRAME_BYTES];
        loop {
            // What follows the packet is cut off by the kernel.
            match nix::sys::socket::recv(self.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                // The filter let nothing shorter through.
                Ok(length) if length < FRAME_BYTES => {}
                Ok(_) => return Ok(Some(parse(&buffer))),
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(self.socket.error("receive ARP", errno.into())),
            }
        }
    }

    fn send(&self, frame: &[u8]) -> Result<(), Error> {
        self.socket.send(&[IoSlice::new(frame)])
    }
}

impl AsFd for ArpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for ArpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

pub(super) fn frame(
    operation: u16,
    sender_mac: [u8; 6],
    sender_ip: Ipv4Addr,
    target_mac: [u8; 6],
    target_ip: Ipv4Addr,
) -> [u8; FRAME_BYTES] {
    let mut frame = [0; FRAME_BYTES];
    frame[..14].copy_from_slice(&header(EVERYBODY, sender_mac, ETHERTYPE_ARP));
    frame[14..20].copy_from_slice(&[0, 1, 8, 0, 6, 4]);
    frame[20..22].copy_from_slice(&operation.to_be_bytes());
    frame[22..28].copy_from_slice(&sender_mac);
    frame[28..32].copy_from_slice(&sender_ip.octets());
    frame[32..38].copy_from_slice(&target_mac);
    frame[38..42].copy_from_slice(&target_ip.octets());
    frame
}

fn parse(frame: &[u8; FRAME_BYTES]) -> ArpPacket {
    let ip = |at: usize| Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]);
    let mut sender_mac = [0; 6];
    sender_mac.copy_from_slice(&frame[22..28]);
    let operation = match u16::from_be_bytes([frame[20], frame[21]]) {
        REQUEST => ArpOperation::Request,
        REPLY => ArpOperation::Reply,
        other => ArpOperation::Other(other),
    };
    ArpPacket {
        operation,
        sender_mac,
        sender_ip: ip(28),
        target_ip: ip(38),
    }
}
