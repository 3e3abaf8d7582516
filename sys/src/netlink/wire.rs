//! Netlink messages inside a datagram, and the socket they come from (netlink(7)).
//!
//! Only a datagram from the kernel itself (port 0) is looked at.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{DecodeError, NetlinkBuffer};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvmsg, socket,
};

/// Larger than any datagram the kernel makes for a dump or a notice.
pub(super) const BUFFER_BYTES: usize = 64 * 1024;

/// One netlink message with its payload.
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

/// What one receive call brought.
pub(super) enum Received {
    /// A datagram of so many bytes from the kernel.
    Datagram(usize),
    /// The datagram did not fit, or the kernel had no room to queue one: something is lost.
    Lost,
    /// Nothing is waiting, or nothing came in time.
    Nothing,
}

/// A bound rtnetlink socket that hears the multicast `groups` (bits of `RTMGRP_*`).
pub(super) fn open(groups: u32, flags: SockFlag) -> io::Result<OwnedFd> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    let protocol = SockProtocol::NetlinkRoute;
    let descriptor = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(descriptor.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(descriptor)
}

/// Receives the next datagram from the kernel; those from processes are thrown away.
pub(super) fn receive(descriptor: &OwnedFd, buffer: &mut [u8]) -> io::Result<Received> {
    loop {
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::empty();
        match recvmsg::<NetlinkAddr>(descriptor.as_raw_fd(), &mut parts, None, flags) {
            Ok(message) if message.address.is_none_or(|sender| sender.pid() != 0) => {}
            Ok(message) if message.flags.contains(MsgFlags::MSG_TRUNC) => {
                return Ok(Received::Lost);
            }
            Ok(message) => return Ok(Received::Datagram(message.bytes)),
            Err(Errno::EAGAIN) => return Ok(Received::Nothing),
            Err(Errno::ENOBUFS) => return Ok(Received::Lost),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Takes the first message off `datagram`; the rest follows it.
pub(super) fn split(datagram: &[u8]) -> Result<Option<(Message<'_>, &[u8])>, DecodeError> {
    if datagram.is_empty() {
        return Ok(None);
    }
    let buffer = NetlinkBuffer::new_checked(datagram)?;
    let message = Message {
        kind: buffer.message_type(),
        flags: buffer.flags(),
        sequence: buffer.sequence_number(),
        payload: buffer.payload(),
    };
    let aligned = (buffer.length() as usize).next_multiple_of(4);
    Ok(Some((message, datagram.get(aligned..).unwrap_or_default())))
}

/// An undecodable message as an error of std.
pub(super) fn malformed(error: DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
