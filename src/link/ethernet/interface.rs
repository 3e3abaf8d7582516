//! The network interface of a configured name, as the kernel tells of it.
//!
//! The name is what the operator wrote, the index is what the socket is bound to; either can go to
//! another card while we run.

use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Registry};
use standfast_sys::netlink::{Change, Link, Monitor, Route};
use standfast_sys::sentence;

use crate::frame::FRAME_LEN;
use crate::link::CHANGES;
use crate::link::backoff::Backoff;
use crate::time::{Instant, Span};

/// Pause after netlink has failed for the first time, and the longest one.
const RETRY: (Span, Span) = (Span::from_ms(100), Span::from_ms(5_000));

/// What can be done with the interface, and why, in words. The number is its index.
pub(super) enum Usable {
    /// Nothing.
    No(String),
    /// A socket that is open stays good, but none can be opened and no frame will pass.
    Off(u32, String),
    /// A socket can be opened, but no frame will pass.
    NoCarrier(u32, String),
    /// Frames pass.
    Yes(u32, String),
}

impl Usable {
    /// The interface that an open socket must be bound to.
    pub(super) fn index(&self) -> Option<u32> {
        match self {
            Usable::No(_) => None,
            Usable::Off(index, _) | Usable::NoCarrier(index, _) | Usable::Yes(index, _) => {
                Some(*index)
            }
        }
    }
}

/// One interface, watched.
pub(super) struct Interface {
    name: String,
    watch: Option<Watch>,
    known: Option<Link>,
    /// Why netlink does not work, and when to try again.
    trouble: Option<(String, Instant)>,
    retry: Backoff,
}

/// What the interface is watched through.
struct Watch {
    monitor: Monitor,
    route: Route,
}

impl Interface {
    pub(super) fn new(name: String) -> Interface {
        let retry = Backoff::new(RETRY.0, RETRY.1);
        Interface {
            name,
            watch: None,
            known: None,
            trouble: None,
            retry,
        }
    }

    /// Brings what is known up to date, if `changed` or if it never was.
    pub(super) fn look(&mut self, now: Instant, registry: &Registry, changed: bool) {
        let waiting = self.look_again().is_some_and(|again| now < again);
        if waiting || (self.watch.is_some() && !changed) {
            return;
        }
        match self.update(registry) {
            Ok(()) => {
                self.trouble = None;
                self.retry.forgive();
            }
            Err(reason) => {
                self.watch = None;
                self.trouble = Some((reason, self.retry.fail(now)));
            }
        }
    }

    /// When [`Interface::look`] is due without a change being reported.
    pub(super) fn look_again(&self) -> Option<Instant> {
        self.trouble.as_ref().map(|(_, again)| *again)
    }

    /// The hardware address to send from.
    pub(super) fn mac(&self) -> Option<[u8; 6]> {
        self.known.as_ref().and_then(|link| link.mac)
    }

    /// What can be done with it now. With netlink broken the last known picture stays in use.
    pub(super) fn usable(&self) -> Usable {
        let name = &self.name;
        let Some(link) = &self.known else {
            let why = self
                .trouble
                .as_ref()
                .map(|(reason, _)| format!(": {reason}"));
            let why = why.unwrap_or_default();
            return Usable::No(format!("there is no interface {name} on this node{why}"));
        };
        if link.mac.is_none() {
            return Usable::No(format!("{name} is not an Ethernet interface"));
        }
        if (link.mtu as usize) < FRAME_LEN {
            return Usable::No(format!(
                "{name} has an MTU of {}, {FRAME_LEN} needed",
                link.mtu
            ));
        }
        if !link.up {
            let reason = format!("{name} is switched off ('ip link set {name} up')");
            return Usable::Off(link.index, reason);
        }
        if !link.running {
            let reason = format!("{name} has no carrier: cable, switch port or the other end");
            return Usable::NoCarrier(link.index, reason);
        }
        let reason = match link.master {
            Some(_) => format!(
                "{name} is up, but part of a bridge or bond, which may take its frames away: \
                 configure the bridge or bond itself"
            ),
            None => format!("{name} is up"),
        };
        Usable::Yes(link.index, reason)
    }

    fn update(&mut self, registry: &Registry) -> Result<(), String> {
        let mut list_anew = self.watch.is_none();
        if list_anew {
            self.watch = Some(Watch::open(registry)?);
        }
        let Some(watch) = &mut self.watch else {
            return Ok(());
        };
        // Bounded by what the kernel queues: more than that is an overrun.
        while let Some(change) = watch
            .monitor
            .next_change()
            .map_err(|error| sentence(&error))?
        {
            match change {
                Change::Link(link) if link.name == self.name => self.known = Some(link),
                Change::Link(link) | Change::LinkGone(link) => {
                    // Renamed or removed. A namesake would come with a notice of its own, but that
                    // one may be older than this.
                    list_anew |= self
                        .known
                        .as_ref()
                        .is_some_and(|known| known.index == link.index);
                }
                Change::Overrun => list_anew = true,
                Change::AddressAdded(_) | Change::AddressDeleted(_) => {}
            }
        }
        if list_anew {
            let found = watch.route.link_by_name(&self.name);
            self.known = found.map_err(|error| sentence(&error))?;
        }
        Ok(())
    }
}

impl Watch {
    fn open(registry: &Registry) -> Result<Watch, String> {
        let monitor = Monitor::open_links().map_err(|error| sentence(&error))?;
        let route = Route::open().map_err(|error| sentence(&error))?;
        registry
            .register(
                &mut SourceFd(&monitor.as_raw_fd()),
                CHANGES,
                Interest::READABLE,
            )
            .map_err(|error| format!("cannot wait for netlink: {error}"))?;
        Ok(Watch { monitor, route })
    }
}
