//! The interfaces that addresses are to live on, looked up before they are needed and kept up to
//! date by what the kernel tells, each with a socket for ARP once it carries an address.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use standfast_sys::netlink::Link;
use standfast_sys::packet::ArpSocket;

use super::plan::AddressPlan;

/// Token of the first interface's ARP socket; the others follow.
pub(super) const FIRST_TOKEN: usize = 1_000;

/// An interface by its configured name.
struct Interface {
    name: String,
    /// Addresses that may be held on it: who else claims one is a rival.
    claimed: Vec<Ipv4Addr>,
    /// As the kernel last described it; `None` while there is no such interface.
    link: Option<Link>,
    arp: Option<ArpSocket>,
}

/// What a change meant for one of our interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is there with a carrier, and was not or was another one before: announce.
    Usable,
    /// It is gone, switched off or without carrier.
    Useless,
}

/// All interfaces with a claim on them.
pub(super) struct Interfaces {
    list: Vec<Interface>,
    /// Hardware addresses of every interface of this host, ours or not, by index: ARP from one of
    /// them is no rival.
    own_macs: Vec<(u32, [u8; 6])>,
    registry: Registry,
    /// Sockets of interfaces that changed. Closing one waits for the kernel's readers (RCU), so
    /// that is left to a thread that may wait.
    retired: Vec<ArpSocket>,
}

impl Interfaces {
    /// The interfaces of these addresses, all unknown so far.
    pub(super) fn new(plan: &[AddressPlan], registry: Registry) -> Interfaces {
        let mut list: Vec<Interface> = Vec::new();
        for AddressPlan {
            interface: name,
            address,
            ..
        } in plan
        {
            if let Some(known) = list.iter_mut().find(|interface| interface.name == *name) {
                known.claimed.push(*address);
            } else {
                list.push(Interface {
                    name: name.clone(),
                    claimed: vec![*address],
                    link: None,
                    arp: None,
                });
            }
        }
        Interfaces {
            list,
            own_macs: Vec::new(),
            registry,
            retired: Vec::new(),
        }
    }

    /// Position of the interface of this name.
    ///
    /// # Panics
    ///
    /// If the name was not among those given to [`Interfaces::new`].
    pub(super) fn position(&self, name: &str) -> usize {
        let found = self
            .list
            .iter()
            .position(|interface| interface.name == name);
        found.expect("every claim's interface is in the list")
    }

    /// Its configured name.
    pub(super) fn name(&self, position: usize) -> &str {
        &self.list[position].name
    }

    /// As the kernel last described it.
    pub(super) fn link(&self, position: usize) -> Option<&Link> {
        self.list[position].link.as_ref()
    }

    /// Is it there, on and with a carrier?
    pub(super) fn usable(&self, position: usize) -> bool {
        self.link(position).is_some_and(|link| link.running)
    }

    /// Is this the hardware address of one of our own interfaces?
    pub(super) fn is_own(&self, mac: [u8; 6]) -> bool {
        self.own_macs.iter().any(|(_, own)| *own == mac)
    }

    /// Takes over a complete list of the host's interfaces; says what that changed.
    pub(super) fn replace_all(&mut self, links: &[Link]) -> Vec<(usize, Turn)> {
        self.own_macs = links
            .iter()
            .filter_map(|link| Some((link.index, link.mac?)))
            .collect();
        let mut turns = Vec::new();
        for position in 0..self.list.len() {
            let named = links
                .iter()
                .find(|link| link.name == self.list[position].name);
            turns.extend(
                self.set(position, named.cloned())
                    .map(|turn| (position, turn)),
            );
        }
        turns
    }

    /// An interface is new or different in something; it may have been renamed to or from a name of
    /// ours.
    pub(super) fn changed(&mut self, link: Link) -> Vec<(usize, Turn)> {
        self.own_macs.retain(|(index, _)| *index != link.index);
        self.own_macs.extend(link.mac.map(|mac| (link.index, mac)));
        let mut turns = Vec::new();
        for position in 0..self.list.len() {
            let interface = &self.list[position];
            let was = interface
                .link
                .as_ref()
                .is_some_and(|old| old.index == link.index);
            let turn = if interface.name == link.name {
                self.set(position, Some(link.clone()))
            } else if was {
                self.set(position, None)
            } else {
                None
            };
            turns.extend(turn.map(|turn| (position, turn)));
        }
        turns
    }

    /// An interface no longer exists.
    pub(super) fn gone(&mut self, index: u32) -> Vec<(usize, Turn)> {
        self.own_macs.retain(|(own, _)| *own != index);
        let mut turns = Vec::new();
        for position in 0..self.list.len() {
            if self.link(position).is_some_and(|link| link.index == index) {
                turns.extend(self.set(position, None).map(|turn| (position, turn)));
            }
        }
        turns
    }

    /// The socket for ARP on an interface; opened and registered when it is first asked for.
    pub(super) fn arp(&mut self, position: usize) -> Result<&ArpSocket, String> {
        let interface = &mut self.list[position];
        if interface.arp.is_none() {
            let link = interface.link.as_ref().ok_or("no such interface")?;
            let mac = link.mac.ok_or("the interface has no Ethernet address")?;
            let socket = ArpSocket::open_for(link.index, mac, &interface.claimed)
                .map_err(|error| error.to_string())?;
            let token = Token(FIRST_TOKEN + position);
            self.registry
                .register(
                    &mut SourceFd(&socket.as_raw_fd()),
                    token,
                    Interest::READABLE,
                )
                .map_err(|error| error.to_string())?;
            interface.arp = Some(socket);
        }
        interface.arp.as_ref().ok_or_else(|| "no socket".to_owned())
    }

    /// The tokens of all sockets.
    pub(super) fn tokens(&self) -> impl Iterator<Item = Token> + use<> {
        (0..self.list.len()).map(|position| Token(FIRST_TOKEN + position))
    }

    /// The socket of a token that became readable.
    pub(super) fn readable(&self, token: Token) -> Option<(usize, &ArpSocket)> {
        let position = token.0.checked_sub(FIRST_TOKEN)?;
        Some((position, self.list.get(position)?.arp.as_ref()?))
    }

    /// Sockets to be closed by somebody who may wait.
    pub(super) fn take_retired(&mut self) -> Vec<ArpSocket> {
        std::mem::take(&mut self.retired)
    }

    fn set(&mut self, position: usize, link: Option<Link>) -> Option<Turn> {
        let interface = &mut self.list[position];
        let identity = |link: &Option<Link>| link.as_ref().map(|link| (link.index, link.mac));
        let same = identity(&interface.link) == identity(&link);
        let was_usable = interface.link.as_ref().is_some_and(|link| link.running);
        let usable = link.as_ref().is_some_and(|link| link.running);
        let vanished = interface.link.is_some() && link.is_none();
        interface.link = link;
        if !same && let Some(socket) = interface.arp.take() {
            // It may be gone with its interface; then there is nothing to deregister.
            let _ = self.registry.deregister(&mut SourceFd(&socket.as_raw_fd()));
            self.retired.push(socket);
        }
        match (was_usable, usable) {
            (true, true) => (!same).then_some(Turn::Usable),
            (false, true) => Some(Turn::Usable),
            (true, false) => Some(Turn::Useless),
            // Without carrier was said before, gone was not.
            (false, false) => vanished.then_some(Turn::Useless),
        }
    }
}
