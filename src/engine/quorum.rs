//! Which quorum can change the view now, and what the registers say to each other.
//!
//! Usually the shared disk, or two of three, and the node that asks are enough. Without them every
//! configured node must agree, over the networks; so a lost disk costs no command as long as all
//! nodes are there. What was agreed without the disk is told to whoever cannot read it there.

use serde::{Deserialize, Serialize};

use super::snapshot::trouble_words;
use super::{Action, Class, Engine};
use crate::frame::Flags;
use crate::mldc::{Assembler, Origin, Packet, split};
use crate::model::{NodeId, NodeSet};
use crate::register::{self, Memory, Message};

/// What passes between the registers.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Mail {
    /// Which quorum the register was told of: disk, network.
    media: Option<(bool, bool)>,
    assembler: Assembler,
    /// Number of the last message sent.
    number: u64,
    /// Packets and messages of others that were not listened to.
    pub(super) refused: u64,
}

impl Engine {
    /// Can a change of the view be decided at all, as far as can be seen from here?
    pub(super) fn can_change(&self) -> bool {
        let all = || self.is_member() && self.missing_voters().is_empty();
        self.register.halted().is_none() && (self.disks.are_read() || all())
    }

    /// Nodes that would have to agree to a change without the disk, and cannot now.
    pub(super) fn missing_voters(&self) -> NodeSet {
        let nodes = self.setup.nodes.iter().map(|(node, _)| *node);
        let missing = nodes.filter(|node| {
            if *node == self.me() {
                return !self.register.votes() || self.id_in_use();
            }
            let peer = self.peers.of(*node);
            let votes = peer.flags.contains(Flags::VOTES) && !peer.incompatible;
            !votes || !self.heard_lately(*node) || !self.heard_on_network(*node)
        });
        missing.collect()
    }

    /// Has anything come from the node over a network lately?
    pub(super) fn heard_on_network(&self, node: NodeId) -> bool {
        let networks = (0..self.links.len()).filter(|link| self.setup.networks >> link & 1 == 1);
        let peer = self.peers.of(node);
        let mut heard = networks.filter_map(|link| peer.on_link[link]);
        heard.any(|at| self.now.since(at) <= self.timing().suspect)
    }

    /// Tells the register which quorum there is, if that has changed.
    pub(super) fn tell_media(&mut self) {
        let disk = self.disk_answers();
        let network = !disk && self.is_member() && self.missing_voters().is_empty();
        if self.mail.media != Some((disk, network)) {
            self.mail.media = Some((disk, network));
            self.register
                .handle(self.now, register::Event::Media { disk, network });
        }
    }

    /// What this node has promised over the networks is known now, or cannot be known.
    pub(super) fn on_remembered(&mut self, memory: &Memory, trouble: Option<String>) {
        self.register
            .handle(self.now, register::Event::Remembered(memory));
        if let Some(why) = trouble {
            match memory {
                Memory::Lost => {
                    let what = "this node can neither join nor change anything";
                    self.alarm(format!("{what}: {why}"));
                }
                Memory::Unable | Memory::Pending | Memory::Nothing | Memory::Kept(_) => {
                    let what = "this node cannot agree to changes without the shared disk";
                    self.note(Class::Warning, None, format!("{what}: {why}"));
                }
            }
        }
    }

    /// A piece of a message. Of a life that is not the one whose frames are fresh, and while
    /// another machine uses this node's number, nothing is listened to.
    pub(super) fn on_packet(&mut self, packet: &Packet) {
        let from = packet.origin.sender;
        let peer = self.peers.of(from);
        let known = peer.incarnation == Some(packet.origin.incarnation);
        if !known || peer.incompatible || !self.configured(from) || self.id_in_use() {
            self.mail.refused += 1;
            return;
        }
        let Some((from, _, bytes)) = self.mail.assembler.take(packet) else {
            return;
        };
        match Message::decode(&bytes) {
            Ok(message) => {
                let message = &message;
                self.register
                    .handle(self.now, register::Event::Heard { from, message });
            }
            Err(_) => self.mail.refused += 1,
        }
    }

    /// Puts what the registers say to each other on its way.
    pub(super) fn post(&mut self) {
        while let Some((to, message)) = self.register.poll_mail() {
            if self.id_in_use() {
                continue;
            }
            // Above all numbers of an earlier core of this life, as frames are.
            self.mail.number = self.sequence.max(self.mail.number + 1);
            let origin = Origin {
                cluster: self.setup.cluster,
                sender: self.me(),
                incarnation: self.setup.incarnation,
            };
            for packet in split(origin, to, self.mail.number, &message.encode()) {
                self.act(Action::Mail(packet));
            }
        }
        if let Some(record) = self.register.poll_record() {
            self.act(Action::Keep(record));
        }
    }

    /// This node has changed the view: whoever is on a network need not read the disk for it.
    pub(super) fn tell_all(&mut self) {
        let nodes = self.setup.nodes.iter().map(|(node, _)| *node);
        let others: NodeSet = nodes.filter(|node| *node != self.me()).collect();
        let value = self.register.known().clone();
        self.register.tell(others, value);
    }

    /// At a heartbeat: who knows an older view and cannot read the newer one hears of it. Who reads
    /// the disk is told as well if that takes long: the view may not be there.
    pub(super) fn tell_lagging(&mut self) {
        let slow = self.now.since(self.view_known_at) >= self.timing().heartbeat.over(2);
        let nodes = self.setup.nodes.iter().map(|(node, _)| *node);
        let lagging: NodeSet = nodes
            .filter(|node| {
                let peer = self.peers.of(*node);
                let reads = peer.flags.contains(Flags::STORAGE_OK);
                *node != self.me()
                    && peer.epoch < self.view.epoch
                    && (slow || !reads)
                    && self.heard_lately(*node)
                    && self.heard_on_network(*node)
            })
            .collect();
        let known = self.register.known();
        if !lagging.is_empty() && known.epoch == self.view.epoch {
            let value = known.clone();
            self.register.tell(lagging, value);
        }
    }

    /// Why no change can be decided now, for people.
    pub(super) fn why_no_change(&self) -> Option<String> {
        if let Some(trouble) = self.register.halted() {
            return Some(trouble_words(trouble));
        }
        if self.disk_answers() {
            return None;
        }
        let names: Vec<&str> = self
            .missing_voters()
            .iter()
            .map(|node| self.name(node))
            .collect();
        (!names.is_empty()).then(|| {
            let names = names.join(", ");
            format!(
                "the shared disk does not answer, and without it every node must agree: {names} \
                 cannot"
            )
        })
    }
}
