//! Asking the kernel for something and waiting, for a bounded time, until it has answered.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REPLACE,
    NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, CacheInfo,
};
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, NetlinkAddr, SockFlag, sendto, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::link::Link;
use super::{OWN_PROTOCOL, wire};
use crate::error::{Failed, Naming};

/// Longest wait for an answer of the kernel, which normally comes in microseconds.
pub const ANSWER_TIMEOUT: Duration = Duration::from_millis(200);

/// How often a dump is begun again because the tables changed under it.
const DUMP_ATTEMPTS: u32 = 5;

/// An IPv4 address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface that has it.
    pub interface_index: u32,
    /// The address itself.
    pub ip: Ipv4Addr,
    /// Length of the network prefix in bits.
    pub prefix: u8,
    /// Who added it (`IFA_PROTO`): [`OWN_PROTOCOL`] for ours, `None` when nobody said.
    pub protocol: Option<u8>,
    /// Seconds until the kernel removes it by itself; `None` for never.
    pub valid_seconds: Option<u32>,
}

/// Takes the kind and the payload of one message of an answer.
type Take<'a> = &'a mut dyn FnMut(u16, &[u8]) -> Result<(), DecodeError>;

/// A socket for requests to the kernel's routing tables in this network namespace.
#[derive(Debug)]
pub struct Route {
    descriptor: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Route {
    /// Opens the socket; every later call uses it.
    ///
    /// # Errors
    ///
    /// Out of file descriptors or memory.
    pub fn open() -> Result<Route, Failed> {
        let opened = wire::open(0, SockFlag::empty()).and_then(|descriptor| {
            let timeout = TimeVal::milliseconds(ANSWER_TIMEOUT.as_millis() as i64);
            setsockopt(&descriptor, sockopt::ReceiveTimeout, &timeout)?;
            Ok(descriptor)
        });
        let descriptor = opened.naming("open", "a netlink socket")?;
        Ok(Route {
            descriptor,
            sequence: 0,
            buffer: vec![0; wire::BUFFER_BYTES],
        })
    }

    /// Adds an address, or renews the lifetime of one that is there with the same prefix: calling
    /// it twice is not an error, so there is no `EEXIST`. The same `ip` with another `prefix` is
    /// another address to the kernel.
    ///
    /// With a lifetime the kernel itself removes the address when it is not renewed; it looks about
    /// once a second, so removal can be that much late. `u32::MAX` seconds is "for ever" to the
    /// kernel. A /32 comes without a route of its own (`IFA_F_NOPREFIXROUTE`), networks shorter
    /// than /31 get their broadcast address.
    ///
    /// # Errors
    ///
    /// No such interface (`ENODEV`), no privilege (CAP_NET_ADMIN), `EINVAL` for a prefix above 32,
    /// or no answer in [`ANSWER_TIMEOUT`] (kind `TimedOut`: it may or may not have been done).
    pub fn add_address(
        &mut self,
        interface_index: u32,
        ip: Ipv4Addr,
        prefix: u8,
        lifetime_seconds: Option<NonZeroU32>,
    ) -> Result<(), Failed> {
        let mut message = address_message(interface_index, ip, prefix);
        let attributes = &mut message.attributes;
        attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(
            OWN_PROTOCOL,
        )));
        if prefix == 32 {
            attributes.push(AddressAttribute::Flags(AddressFlags::Noprefixroute));
        }
        if let Some(broadcast) = broadcast(ip, prefix) {
            attributes.push(AddressAttribute::Broadcast(broadcast));
        }
        if let Some(seconds) = lifetime_seconds {
            let mut lifetime = CacheInfo::default();
            lifetime.ifa_valid = seconds.get();
            lifetime.ifa_preferred = seconds.get();
            attributes.push(AddressAttribute::CacheInfo(lifetime));
        }
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.order(RouteNetlinkMessage::NewAddress(message), flags)
            .naming(
                "add address",
                Named {
                    interface_index,
                    ip,
                    prefix,
                },
            )
    }

    /// Removes an address at once. `Ok(false)` if it was not there, or its interface was not.
    ///
    /// # Errors
    ///
    /// No privilege, or no answer in [`ANSWER_TIMEOUT`] (kind `TimedOut`: look with
    /// [`addresses`](Self::addresses)).
    pub fn delete_address(
        &mut self,
        interface_index: u32,
        ip: Ipv4Addr,
        prefix: u8,
    ) -> Result<bool, Failed> {
        let message = address_message(interface_index, ip, prefix);
        match self.order(RouteNetlinkMessage::DelAddress(message), NLM_F_ACK) {
            Ok(()) => Ok(true),
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EADDRNOTAVAIL | Errno::ENODEV) => Ok(false),
                _ => Err(error).naming(
                    "delete address",
                    Named {
                        interface_index,
                        ip,
                        prefix,
                    },
                ),
            },
        }
    }

    /// All IPv4 addresses of this network namespace.
    ///
    /// # Errors
    ///
    /// No answer in [`ANSWER_TIMEOUT`], or the table kept changing (kind `Interrupted`).
    pub fn addresses(&mut self) -> Result<Vec<Address>, Failed> {
        let mut request = AddressMessage::default();
        request.header.family = AddressFamily::Inet;
        let request = RouteNetlinkMessage::GetAddress(request);
        self.dump(&request, libc::RTM_NEWADDR, Address::parse)
            .naming("list", "addresses")
    }

    /// All network interfaces of this network namespace.
    ///
    /// # Errors
    ///
    /// As for [`addresses`](Self::addresses).
    pub fn links(&mut self) -> Result<Vec<Link>, Failed> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.dump(&request, libc::RTM_NEWLINK, Link::parse)
            .naming("list", "network interfaces")
    }

    /// The network interface of this name, if there is one.
    ///
    /// # Errors
    ///
    /// As for [`addresses`](Self::addresses).
    pub fn link_by_name(&mut self, name: &str) -> Result<Option<Link>, Failed> {
        Ok(self.links()?.into_iter().find(|link| link.name == name))
    }

    /// Sends a request that the kernel answers with success or an error number.
    fn order(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_REQUEST | flags)?;
        self.collect(&mut |_, _| Ok(())).map(drop)
    }

    /// Asks for a whole table; begins again when the kernel says that it changed meanwhile.
    fn dump<T>(
        &mut self,
        request: &RouteNetlinkMessage,
        wanted: u16,
        parse: fn(&[u8]) -> Result<Option<T>, DecodeError>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut rows = Vec::new();
            self.send(request.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            let consistent = self.collect(&mut |kind, payload| {
                if kind == wanted {
                    rows.extend(parse(payload)?);
                }
                Ok(())
            })?;
            if consistent {
                return Ok(rows);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "the table changes faster than it is read",
        ))
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let length = message.buffer_len();
        message.serialize(&mut self.buffer[..length]);
        let kernel = NetlinkAddr::new(0, 0);
        let descriptor = self.descriptor.as_raw_fd();
        sendto(
            descriptor,
            &self.buffer[..length],
            &kernel,
            MsgFlags::empty(),
        )?;
        Ok(())
    }

    /// Hands every message that answers the last request to `take`, until the kernel says that it
    /// was the last. Late answers to requests that timed out are skipped. False: the dump is
    /// inconsistent.
    fn collect(&mut self, take: Take<'_>) -> io::Result<bool> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut consistent = true;
        while Instant::now() < deadline {
            let length = match wire::receive(&self.descriptor, &mut self.buffer)? {
                wire::Received::Datagram(length) => length,
                wire::Received::Lost => return Err(Errno::ENOBUFS.into()),
                wire::Received::Nothing => break,
            };
            let mut rest = &self.buffer[..length];
            while let Some((message, next)) = wire::split(rest).map_err(wire::malformed)? {
                rest = next;
                if message.sequence != self.sequence {
                    continue;
                }
                consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => return verdict(message.payload, consistent),
                    kind => take(kind, message.payload).map_err(wire::malformed)?,
                }
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl Address {
    /// Decodes the payload of an `RTM_NEWADDR` or `RTM_DELADDR`; `None` unless it is about IPv4.
    pub(super) fn parse(payload: &[u8]) -> Result<Option<Address>, DecodeError> {
        let message = <AddressMessage as netlink_packet_core::Parseable<[u8]>>::parse(payload)?;
        let (mut local, mut peer, mut protocol, mut valid_seconds) = (None, None, None, None);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(IpAddr::V4(ip)) => local = Some(*ip),
                AddressAttribute::Address(IpAddr::V4(ip)) => peer = Some(*ip),
                AddressAttribute::Protocol(number) => protocol = Some(u8::from(*number)),
                AddressAttribute::CacheInfo(lifetime) => valid_seconds = Some(lifetime.ifa_valid),
                _ => {}
            }
        }
        Ok(local.or(peer).map(|ip| Address {
            interface_index: message.header.index,
            ip,
            prefix: message.header.prefix_len,
            protocol,
            // All ones is the kernel's "for ever".
            valid_seconds: valid_seconds.filter(|seconds| *seconds != u32::MAX),
        }))
    }
}

/// How an address is called in an error.
struct Named {
    interface_index: u32,
    ip: Ipv4Addr,
    prefix: u8,
}

impl std::fmt::Display for Named {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{}/{} on interface {}",
            self.ip, self.prefix, self.interface_index
        )
    }
}

fn address_message(interface_index: u32, ip: Ipv4Addr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.index = interface_index;
    message.header.prefix_len = prefix;
    message
        .attributes
        .push(AddressAttribute::Local(IpAddr::V4(ip)));
    message
        .attributes
        .push(AddressAttribute::Address(IpAddr::V4(ip)));
    message
}

fn broadcast(ip: Ipv4Addr, prefix: u8) -> Option<Ipv4Addr> {
    let hosts = u32::MAX
        .checked_shr(u32::from(prefix))
        .filter(|_| prefix < 31)?;
    Some(Ipv4Addr::from_bits(ip.to_bits() | hosts))
}

/// The end of an answer: zero or a negative error number (netlink(7), `struct nlmsgerr`; a dump's
/// end carries it in the same place).
fn verdict(payload: &[u8], consistent: bool) -> io::Result<bool> {
    match payload.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
        None | Some(0) => Ok(consistent),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}
