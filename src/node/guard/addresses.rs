//! The addresses this node holds: added, announced, renewed, defended, deleted. Guard thread only,
//! so that no renewal can cross a release.
//!
//! ```text
//!          hold                     release, or the lease ended
//!  Free ----------> Held ------------------------------------------> Leaving ---> Free
//!                   renewed every quarter of the lifetime            deleted until the kernel
//!                   absent: added again as soon as it may be         has said that it is gone
//! ```
//! The kernel gives each address a finite lifetime: if all our processes are stopped, it drops them
//! by itself. What is added or renewed is so under a lease that is valid *then*, by a fresh look at
//! the clock, because the call before may have waited for the kernel.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;

use standfast_sys::clock::boottime_ns;
use standfast_sys::netlink::{Address, Change, OWN_PROTOCOL, Route};

use super::announce::Schedule;
use super::interfaces::{Interfaces, Turn};
use super::plan::AddressPlan;
use super::rights::Rights;
use super::said::with_cause;
use crate::model::TaskIndex;
use crate::time::{Instant, Span};

/// Between two tries to add an address that somebody keeps deleting or that the kernel refuses.
const READD_MIN: Span = Span::from_ms(50);

/// Between two tries to delete one that the kernel did not confirm.
const DELETE_AGAIN: Span = Span::from_ms(10);

/// The same sentence about an address is not said more often.
const NOTE_MIN: Span = Span::from_ms(1_000);

/// The same rival is not named more often.
const RIVAL_MIN: Span = Span::from_ms(60_000);

/// Notes kept until they are taken; more are dropped, because the owner is told again anyway.
const NOTES_MAX: usize = 512;

/// Which address is meant: task, object and position among the object's addresses.
pub(super) type Id = (TaskIndex, u8, u8);

/// Something the owner of an address should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) id: Id,
    pub(super) useless: bool,
    pub(super) level: tracing::Level,
    pub(super) text: String,
}

struct Held {
    index: u32,
    /// Does the kernel have it, as far as it has told?
    present: bool,
    renew_due: Instant,
    schedule: Schedule,
    /// When it was last added because it was missing, and when that was last said.
    readded: Option<Instant>,
    noted: Option<Instant>,
    rival: Option<([u8; 6], Instant)>,
}

enum State {
    Free,
    Held(Held),
    Leaving { index: u32, again: Instant },
}

struct Entry {
    plan: AddressPlan,
    interface: usize,
    state: State,
    /// Own deletions of which the kernel's notice has not come yet.
    own_deletes: u32,
}

/// All configured addresses of this node.
pub(super) struct Addresses {
    entries: Vec<Entry>,
    interfaces: Interfaces,
    route: Route,
    lifetime: NonZeroU32,
    notes: Vec<Note>,
}

impl Addresses {
    /// Everything free and every interface unknown; see [`Addresses::look`].
    pub(super) fn new(
        plans: &[AddressPlan],
        interfaces: Interfaces,
        route: Route,
        lifetime: NonZeroU32,
    ) -> Addresses {
        let entry = |plan: &AddressPlan| Entry {
            interface: interfaces.position(&plan.interface),
            plan: plan.clone(),
            state: State::Free,
            own_deletes: 0,
        };
        let entries = plans.iter().map(entry).collect();
        Addresses {
            entries,
            interfaces,
            route,
            lifetime,
            notes: Vec::new(),
        }
    }

    /// The interfaces with their sockets.
    pub(super) fn interfaces(&mut self) -> &mut Interfaces {
        &mut self.interfaces
    }

    /// Holds an address; holding it already is success.
    ///
    /// # Errors
    ///
    /// Why it is not held: no right, no interface, the kernel's word.
    pub(super) fn hold(&mut self, id: Id, rights: &Rights) -> Result<(), String> {
        let at = self.find(id)?;
        if let Some(refusal) = rights.refusal(clock(), id.0) {
            return Err(refusal.to_owned());
        }
        let entry = &self.entries[at];
        match &entry.state {
            State::Held(held) if held.present => return Ok(()),
            State::Leaving { .. } => return Err("the address is still being deleted".to_owned()),
            State::Held(_) | State::Free => {}
        }
        let interface = entry.interface;
        let Some(link) = self.interfaces.link(interface) else {
            return Err(format!(
                "there is no interface {}",
                self.interfaces.name(interface)
            ));
        };
        let (index, ip, prefix) = (link.index, entry.plan.address, entry.plan.prefix);
        let added = self
            .route
            .add_address(index, ip, prefix, Some(self.lifetime));
        let (now, quarter) = (clock(), self.quarter());
        let entry = &mut self.entries[at];
        if let Err(error) = added {
            // It may have been added all the same.
            entry.state = State::Leaving { index, again: now };
            self.delete(at, now);
            return Err(with_cause(&error));
        }
        entry.state = State::Held(Held::begin(index, now, quarter));
        if !self.interfaces.usable(interface) {
            let text = format!(
                "{ip}: interface {} has no carrier",
                self.interfaces.name(interface)
            );
            self.note(at, true, text);
        }
        self.announce(at, now, true);
        Ok(())
    }

    /// Lets an address go; not holding it is success.
    ///
    /// # Errors
    ///
    /// The kernel has not confirmed that it is gone; it is asked again until it has.
    pub(super) fn release(&mut self, id: Id) -> Result<(), String> {
        let at = self.find(id)?;
        self.let_go(at, clock())
    }

    /// Is the address held, and does the kernel have it?
    pub(super) fn is_held(&self, id: Id) -> bool {
        let entry = self.entries.iter().find(|entry| entry.plan.id() == id);
        entry.is_some_and(|entry| matches!(&entry.state, State::Held(held) if held.present))
    }

    /// Takes every address of these tasks (bit by task index) out of what is held, without asking
    /// the kernel for anything yet: from here on nothing of them is renewed.
    pub(super) fn drop_tasks(&mut self, tasks: u64) {
        let now = clock();
        for entry in &mut self.entries {
            if let State::Held(held) = &entry.state
                && tasks & entry.plan.task_bit() != 0
            {
                entry.state = State::Leaving {
                    index: held.index,
                    again: now,
                };
            }
        }
    }

    /// Deletes whatever was dropped and is not confirmed as gone, due or not.
    pub(super) fn delete_dropped(&mut self) {
        let now = clock();
        for at in 0..self.entries.len() {
            self.delete(at, now);
        }
    }

    /// Tasks with an address that is held or not yet confirmed as gone.
    pub(super) fn holding(&self) -> u64 {
        let busy = self
            .entries
            .iter()
            .filter(|entry| !matches!(entry.state, State::Free));
        busy.fold(0, |tasks, entry| tasks | entry.plan.task_bit())
    }

    /// How many addresses are held.
    pub(super) fn count(&self) -> usize {
        self.entries
            .iter()
            .filter(|entry| matches!(entry.state, State::Held(_)))
            .count()
    }

    /// What is to be told, oldest first.
    pub(super) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Does what is due: deletes again, renews, adds again, announces.
    pub(super) fn work(&mut self, rights: &Rights) {
        let now = clock();
        for at in 0..self.entries.len() {
            match &self.entries[at].state {
                State::Free => {}
                State::Leaving { again, .. } if *again <= now => self.delete(at, now),
                State::Leaving { .. } => {}
                State::Held(held) => {
                    let (renew, announce) = (held.renew_due <= now, held.schedule.due() <= now);
                    if renew {
                        self.renew(at, rights);
                    }
                    if announce {
                        let task = self.entries[at].plan.task;
                        self.announce(at, now, rights.refusal(now, task).is_none());
                    }
                }
            }
        }
    }

    /// When the next thing is due.
    pub(super) fn next_due(&self) -> Instant {
        let due = |entry: &Entry| match &entry.state {
            State::Free => Instant::NEVER,
            State::Leaving { again, .. } => *again,
            State::Held(held) => held.renew_due.min(held.schedule.due()),
        };
        self.entries.iter().map(due).min().unwrap_or(Instant::NEVER)
    }

    /// Lists interfaces and addresses anew: at the start and after changes were lost. Addresses
    /// with our mark that are configured and not known as held are taken over into the table, so
    /// that the next turn keeps or deletes them by the same rule as all others; those not
    /// configured any more are deleted now.
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub(super) fn look(&mut self) -> Result<(), String> {
        let links = self.route.links().map_err(|error| with_cause(&error))?;
        let addresses = self.route.addresses().map_err(|error| with_cause(&error))?;
        let now = clock();
        let turns = self.interfaces.replace_all(&links);
        for entry in &mut self.entries {
            entry.own_deletes = 0;
            if let State::Held(held) = &mut entry.state
                && !addresses.iter().any(|address| entry.plan.is(address))
            {
                held.missing(now);
            }
        }
        for address in addresses
            .iter()
            .filter(|address| address.protocol == Some(OWN_PROTOCOL))
        {
            self.adopt(address, now);
        }
        self.react(&turns, now);
        Ok(())
    }

    /// The kernel tells of a change. True: changes were lost, look at everything again.
    pub(super) fn changed(&mut self, change: Change) -> bool {
        let now = clock();
        match change {
            Change::Link(link) => {
                let turns = self.interfaces.changed(link);
                self.react(&turns, now);
            }
            Change::LinkGone(link) => {
                let turns = self.interfaces.gone(link.index);
                self.react(&turns, now);
            }
            Change::AddressAdded(_) => {}
            Change::AddressDeleted(address) => self.deleted(&address, now),
            Change::Overrun => return true,
        }
        false
    }

    /// Somebody on the network of an interface claims to have an address.
    pub(super) fn claimed(&mut self, interface: usize, ip: Ipv4Addr, mac: [u8; 6]) {
        if self.interfaces.is_own(mac) {
            return;
        }
        let now = clock();
        let meant = |entry: &Entry| entry.interface == interface && entry.plan.address == ip;
        let Some(at) = self.entries.iter().position(meant) else {
            return;
        };
        let State::Held(held) = &mut self.entries[at].state else {
            return;
        };
        held.schedule.defend(now);
        let known = held
            .rival
            .is_some_and(|(rival, since)| rival == mac && now.since(since) < RIVAL_MIN);
        if !known {
            held.rival = Some((mac, now));
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            let name = self.interfaces.name(interface);
            let text = format!("{ip}: {mac} on {name} claims to have this address too");
            self.note(at, false, text);
        }
    }

    fn find(&self, id: Id) -> Result<usize, String> {
        let found = self.entries.iter().position(|entry| entry.plan.id() == id);
        found.ok_or_else(|| "no such address is configured for this node".to_owned())
    }

    fn quarter(&self) -> Span {
        Span::from_ms(u64::from(self.lifetime.get()) * 250)
    }

    fn let_go(&mut self, at: usize, now: Instant) -> Result<(), String> {
        if let State::Held(held) = &self.entries[at].state {
            self.entries[at].state = State::Leaving {
                index: held.index,
                again: now,
            };
        }
        self.delete(at, now);
        match self.entries[at].state {
            State::Free => Ok(()),
            _ => Err("the kernel has not confirmed the deletion".to_owned()),
        }
    }

    fn delete(&mut self, at: usize, now: Instant) {
        let entry = &mut self.entries[at];
        let State::Leaving { index, .. } = entry.state else {
            return;
        };
        match self
            .route
            .delete_address(index, entry.plan.address, entry.plan.prefix)
        {
            Ok(was_there) => {
                entry.own_deletes += u32::from(was_there);
                entry.state = State::Free;
            }
            Err(_) => {
                entry.state = State::Leaving {
                    index,
                    again: now + DELETE_AGAIN,
                }
            }
        }
    }

    /// Adds an address again, whether it is there or not: to the kernel that is the same.
    fn renew(&mut self, at: usize, rights: &Rights) {
        let (quarter, lifetime) = (self.quarter(), self.lifetime);
        let entry = &mut self.entries[at];
        let link = self.interfaces.link(entry.interface);
        let State::Held(held) = &mut entry.state else {
            return;
        };
        let now = clock();
        let (Some(link), None) = (link, rights.refusal(now, entry.plan.task)) else {
            // A turn or a notice of the kernel comes before this can change.
            held.renew_due = now + quarter;
            return;
        };
        let plan = &entry.plan;
        let renewed = self
            .route
            .add_address(link.index, plan.address, plan.prefix, Some(lifetime));
        let now = clock();
        match renewed {
            Ok(()) => {
                held.index = link.index;
                held.renew_due = now + quarter;
                if !held.present {
                    held.present = true;
                    held.readded = Some(now);
                    held.schedule = Schedule::begin(now);
                }
            }
            Err(error) => {
                held.renew_due = now + READD_MIN;
                let text = format!("{}: {}", plan.address, with_cause(&error));
                self.note_sometimes(at, now, text);
            }
        }
    }

    fn announce(&mut self, at: usize, now: Instant, allowed: bool) {
        let entry = &mut self.entries[at];
        let State::Held(held) = &mut entry.state else {
            return;
        };
        held.schedule.sent(now);
        // Without carrier there is nobody to hear it; it begins anew when the carrier is back.
        if allowed
            && held.present
            && self.interfaces.usable(entry.interface)
            && let Ok(socket) = self.interfaces.arp(entry.interface)
        {
            // A frame that is lost here is replaced by the next round.
            let _ = socket.announce(entry.plan.address);
        }
    }

    fn adopt(&mut self, address: &Address, now: Instant) {
        let Some(at) = self.entries.iter().position(|entry| entry.plan.is(address)) else {
            // Ours by its mark, but not configured: nobody would ever renew or release it.
            let (index, ip, prefix) = (address.interface_index, address.ip, address.prefix);
            let _ = self.route.delete_address(index, ip, prefix);
            return;
        };
        let name = self.interfaces.link(self.entries[at].interface);
        let right_place = name.is_some_and(|link| link.index == address.interface_index);
        let entry = &mut self.entries[at];
        match &entry.state {
            State::Free if right_place => {
                entry.state = State::Held(Held::begin(address.interface_index, now, Span::ZERO));
            }
            // On an interface where the configuration does not want it any more.
            State::Free => {
                entry.state = State::Leaving {
                    index: address.interface_index,
                    again: now,
                };
                self.delete(at, now);
            }
            State::Held(_) | State::Leaving { .. } => {}
        }
    }

    fn deleted(&mut self, address: &Address, now: Instant) {
        let Some(at) = self.entries.iter().position(|entry| entry.plan.is(address)) else {
            return;
        };
        let entry = &mut self.entries[at];
        if entry.own_deletes > 0 {
            entry.own_deletes -= 1;
            return;
        }
        let State::Held(held) = &mut entry.state else {
            return;
        };
        if held.index != address.interface_index {
            return;
        }
        held.missing(now);
        if self.interfaces.link(entry.interface).is_some() {
            let text = format!("{}: somebody deleted it; it is added again", address.ip);
            self.note_sometimes(at, now, text);
        }
    }

    fn react(&mut self, turns: &[(usize, Turn)], now: Instant) {
        for (interface, turn) in turns {
            for at in 0..self.entries.len() {
                let entry = &mut self.entries[at];
                let State::Held(held) = &mut entry.state else {
                    continue;
                };
                if entry.interface != *interface {
                    continue;
                }
                let link = self.interfaces.link(*interface);
                if link.is_none_or(|link| link.index != held.index) {
                    held.missing(now);
                }
                let name = self.interfaces.name(*interface);
                let ip = entry.plan.address;
                let text = match (turn, link.is_some()) {
                    (Turn::Usable, _) => format!("{ip}: interface {name} is usable"),
                    (Turn::Useless, true) => format!("{ip}: interface {name} has no carrier"),
                    (Turn::Useless, false) => format!("{ip}: interface {name} is gone"),
                };
                if *turn == Turn::Usable {
                    held.renew_due = now;
                    held.schedule = Schedule::begin(now);
                }
                match turn {
                    Turn::Usable => self.note_at(tracing::Level::INFO, at, false, text),
                    Turn::Useless => self.note(at, true, text),
                }
            }
        }
    }

    fn note(&mut self, at: usize, useless: bool, text: String) {
        self.note_at(tracing::Level::WARN, at, useless, text);
    }

    fn note_at(&mut self, level: tracing::Level, at: usize, useless: bool, text: String) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(Note {
                id: self.entries[at].plan.id(),
                useless,
                level,
                text,
            });
        }
    }

    fn note_sometimes(&mut self, at: usize, now: Instant, text: String) {
        let useless = !self.interfaces.usable(self.entries[at].interface);
        let State::Held(held) = &mut self.entries[at].state else {
            return;
        };
        if held.noted.is_none_or(|last| now.since(last) >= NOTE_MIN) {
            held.noted = Some(now);
            self.note(at, useless, text);
        }
    }
}

impl Held {
    fn begin(index: u32, now: Instant, quarter: Span) -> Held {
        Held {
            index,
            present: true,
            renew_due: now + quarter,
            schedule: Schedule::begin(now),
            readded: None,
            noted: None,
            rival: None,
        }
    }

    /// The kernel does not have it: add it at once, unless that was just done.
    fn missing(&mut self, now: Instant) {
        self.present = false;
        self.renew_due = self.readded.map_or(now, |last| now.max(last + READD_MIN));
    }
}

fn clock() -> Instant {
    Instant(boottime_ns())
}
