//! The AF_PACKET socket that both kinds share: opened in the one order that loses and leaks
//! nothing.
//!
//! ```text
//! socket(protocol 0) -> filter -> options -> bind(EtherType, interface)
//!     receives nothing until here .............................^
//! ```

use std::io::{self, IoSlice};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::{c_int, sock_filter, sock_fprog};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, setsockopt, sockopt};

use super::Error;
use crate::error::answer;

/// Wanted receive buffer: two thousand frames of 512 bytes, a second of 64 busy nodes.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// Highest priority that needs no CAP_NET_ADMIN: first band of pfifo_fast (socket(7), tc-prio(8)).
const SEND_PRIORITY: c_int = 6;

#[derive(Debug)]
pub(super) struct RawSocket {
    descriptor: OwnedFd,
    interface_index: u32,
}

impl RawSocket {
    /// A socket with its filter in place that receives nothing until [`bind`](Self::bind).
    pub(super) fn open(interface_index: u32, program: &[sock_filter]) -> Result<RawSocket, Error> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let descriptor =
            nix::sys::socket::socket(AddressFamily::Packet, SockType::Raw, flags, None)
                .map_err(|errno| error("open a raw socket", interface_index, errno.into()))?;
        let socket = RawSocket {
            descriptor,
            interface_index,
        };
        socket.attach(program)?;
        socket.tune()?;
        Ok(socket)
    }

    fn attach(&self, program: &[sock_filter]) -> Result<(), Error> {
        let length = u16::try_from(program.len()).expect("filters are short");
        let program = sock_fprog {
            len: length,
            filter: program.as_ptr().cast_mut(),
        };
        self.set(
            "attach a filter",
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            &program,
        )?;
        self.set(
            "lock the filter",
            libc::SOL_SOCKET,
            libc::SO_LOCK_FILTER,
            &1,
        )
    }

    fn tune(&self) -> Result<(), Error> {
        self.set(
            "ignore own frames",
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            &1,
        )?;
        let forced = setsockopt(
            &self.descriptor,
            sockopt::RcvBufForce,
            &RECEIVE_BUFFER_BYTES,
        );
        forced
            .or_else(|_| setsockopt(&self.descriptor, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES))
            .map_err(|errno| self.error("size the receive buffer", errno.into()))?;
        setsockopt(&self.descriptor, sockopt::RxqOvfl, &1)
            .map_err(|errno| self.error("count lost frames", errno.into()))?;
        setsockopt(&self.descriptor, sockopt::Priority, &SEND_PRIORITY)
            .map_err(|errno| self.error("set the send priority", errno.into()))
    }

    /// Lets the interface's hardware filter pass this multicast address while the socket is open.
    pub(super) fn join(&self, group: [u8; 6]) -> Result<(), Error> {
        let mut address = [0; 8];
        address[..6].copy_from_slice(&group);
        let request = libc::packet_mreq {
            mr_ifindex: self.kernel_index(),
            mr_type: libc::PACKET_MR_MULTICAST as u16,
            mr_alen: 6,
            mr_address: address,
        };
        self.set(
            "join the group",
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            &request,
        )
    }

    /// From now on frames of `ethertype` from this interface arrive.
    pub(super) fn bind(&self, ethertype: u16) -> Result<(), Error> {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: ethertype.to_be(),
            sll_ifindex: self.kernel_index(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address is a live sockaddr_ll and the length is its size; the kernel copies
        // it.
        let result = unsafe { libc::bind(self.raw(), (&raw const address).cast(), length) };
        answer(result)
            .map(drop)
            .map_err(|source| self.error("bind a raw socket", source))
    }

    /// Sends the parts as one frame or not at all.
    pub(super) fn send(&self, parts: &[IoSlice<'_>]) -> Result<(), Error> {
        let sent = nix::sys::socket::sendmsg::<()>(self.raw(), parts, &[], MsgFlags::empty(), None);
        match sent {
            Ok(_) => Ok(()),
            Err(errno @ (Errno::EAGAIN | Errno::ENOBUFS)) => Err(Error::QueueFull {
                interface_index: self.interface_index,
                source: errno.into(),
            }),
            Err(errno) => Err(self.error("send a frame", errno.into())),
        }
    }

    pub(super) fn interface_index(&self) -> u32 {
        self.interface_index
    }

    pub(super) fn error(&self, operation: &'static str, source: io::Error) -> Error {
        error(operation, self.interface_index, source)
    }

    /// Interface indices are positive `int`s in the kernel; anything else finds no interface.
    fn kernel_index(&self) -> c_int {
        c_int::try_from(self.interface_index).unwrap_or(-1)
    }

    fn raw(&self) -> c_int {
        self.descriptor.as_raw_fd()
    }

    fn set<T: Copy>(
        &self,
        operation: &'static str,
        level: c_int,
        name: c_int,
        value: &T,
    ) -> Result<(), Error> {
        let length = size_of::<T>() as libc::socklen_t;
        // SAFETY: value is live for the call and the length is its size; the kernel copies it, and
        // what a filter program points to is borrowed by the only caller that passes one.
        let result = unsafe {
            libc::setsockopt(
                self.raw(),
                level,
                name,
                std::ptr::from_ref(value).cast(),
                length,
            )
        };
        answer(result)
            .map(drop)
            .map_err(|source| self.error(operation, source))
    }
}

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn error(operation: &'static str, interface_index: u32, source: io::Error) -> Error {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENETDOWN | Errno::ENXIO | Errno::ENODEV) => Error::LinkGone {
            interface_index,
            source,
        },
        _ => Error::Refused {
            operation,
            interface_index,
            source,
        },
    }
}
