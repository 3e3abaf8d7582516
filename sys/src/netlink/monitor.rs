//! What changes in the kernel's links and IPv4 addresses, as it tells its subscribers.
//!
//! A pulled cable can be reported up to a second late: the kernel batches carrier losses. The
//! silence of the peer is the faster sign.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use netlink_packet_core::DecodeError;
use nix::sys::socket::{SockFlag, setsockopt, sockopt};

use super::link::Link;
use super::route::Address;
use super::wire::{self, Received};
use crate::error::{Failed, Naming};

/// Wanted receive buffer: thousands of changes between two turns of a loop.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// One change, in the order in which the kernel made them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An interface is new or different in something: compare with what was known.
    Link(Link),
    /// An interface no longer exists.
    LinkGone(Link),
    /// An address was added, or its lifetime renewed.
    AddressAdded(Address),
    /// An address was removed, by whomever.
    AddressDeleted(Address),
    /// Changes were lost because they came faster than they were read: list everything anew.
    Overrun,
}

/// A subscription to changes in this network namespace; readable when there are some.
#[derive(Debug)]
pub struct Monitor {
    descriptor: OwnedFd,
    buffer: Vec<u8>,
    /// The part of the buffer that holds messages not yet looked at.
    unread: std::ops::Range<usize>,
}

impl Monitor {
    /// Subscribes to links and addresses. List them *after* this, so that no change falls between.
    ///
    /// # Errors
    ///
    /// Out of file descriptors or memory.
    pub fn open() -> Result<Monitor, Failed> {
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR;
        Monitor::subscribe(groups, "links and addresses")
    }

    /// Subscribes to links alone, and is not woken by each renewal of an address. List them *after*
    /// this.
    ///
    /// # Errors
    ///
    /// Out of file descriptors or memory.
    pub fn open_links() -> Result<Monitor, Failed> {
        Monitor::subscribe(libc::RTMGRP_LINK, "links")
    }

    fn subscribe(groups: libc::c_int, what: &'static str) -> Result<Monitor, Failed> {
        let descriptor =
            wire::open(groups as u32, SockFlag::SOCK_NONBLOCK).naming("subscribe to", what)?;
        let forced = setsockopt(&descriptor, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES);
        forced
            .or_else(|_| setsockopt(&descriptor, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES))
            .naming("size the receive buffer of", "the netlink subscription")?;
        Ok(Monitor {
            descriptor,
            buffer: vec![0; wire::BUFFER_BYTES],
            unread: 0..0,
        })
    }

    /// The next change; `None` when nothing more is waiting. Never waits. What cannot be decoded
    /// counts as lost: [`Change::Overrun`].
    ///
    /// # Errors
    ///
    /// The kernel refuses to receive; the subscription is then of no use any more.
    pub fn next_change(&mut self) -> Result<Option<Change>, Failed> {
        loop {
            while !self.unread.is_empty() {
                let (change, rest) = match take_change(&self.buffer[self.unread.clone()]) {
                    Ok(taken) => taken,
                    Err(_) => (Some(Change::Overrun), 0),
                };
                self.unread.start = self.unread.end - rest;
                if change.is_some() {
                    return Ok(change);
                }
            }
            let received = wire::receive(&self.descriptor, &mut self.buffer)
                .naming("receive", "changes of links and addresses")?;
            match received {
                Received::Datagram(length) => self.unread = 0..length,
                Received::Lost => return Ok(Some(Change::Overrun)),
                Received::Nothing => return Ok(None),
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

/// Decodes the first message; says how many bytes follow it.
fn take_change(datagram: &[u8]) -> Result<(Option<Change>, usize), DecodeError> {
    let Some((message, rest)) = wire::split(datagram)? else {
        return Ok((None, 0));
    };
    let change = match message.kind {
        libc::RTM_NEWLINK => Link::parse(message.payload)?.map(Change::Link),
        libc::RTM_DELLINK => Link::parse(message.payload)?.map(Change::LinkGone),
        libc::RTM_NEWADDR => Address::parse(message.payload)?.map(Change::AddressAdded),
        libc::RTM_DELADDR => Address::parse(message.payload)?.map(Change::AddressDeleted),
        _ => None,
    };
    Ok((change, rest.len()))
}
