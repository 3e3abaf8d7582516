//! What the registers have besides the disk: packets over the networks, and a file on each node.

use std::rc::Rc;

use standfast::engine::Event;
use standfast::mldc::Packet;
use standfast::register::Block;

use crate::node::In;
use crate::world::{Ev, World};

/// Packets kept to be replayed.
const OLD_PACKETS_MAX: usize = 64;

/// An outsider keeps one packet in so many.
const OVERHEARD: u64 = 8;

impl World {
    /// A packet goes out on every network, with the luck of a frame.
    pub(crate) fn post(&mut self, i: usize, packet: Packet) {
        let packet = Rc::new(self.through_the_codec(packet));
        for link in 0..self.plan.networks {
            if !self.nodes[i].link_up[link] {
                continue;
            }
            let network = self.plugged(i, link);
            for to in packet.to.iter().map(|node| node.index()) {
                if to == i || to >= self.nodes.len() {
                    continue;
                }
                self.overhear(network, to, &packet);
                let lost = self.is_lost();
                if lost || self.is_cut(network, i, to) {
                    continue;
                }
                for delay in self.delays(network).into_iter().flatten() {
                    self.packet_comes(delay, network, to, packet.clone());
                }
            }
        }
    }

    fn overhear(&mut self, network: usize, to: usize, packet: &Rc<Packet>) {
        if !(packet.number + to as u64).is_multiple_of(OVERHEARD) {
            return;
        }
        if self.old_packets.len() == OLD_PACKETS_MAX {
            self.old_packets.pop_front();
        }
        self.old_packets.push_back((network, to, packet.clone()));
    }

    pub(crate) fn packet_comes(
        &mut self,
        delay: u64,
        network: usize,
        to: usize,
        packet: Rc<Packet>,
    ) {
        let power = self.nodes[to].power_life;
        let link = self.plugged(to, network) as u8;
        self.after(
            delay,
            to,
            Ev::Packet {
                power,
                link,
                packet,
            },
        );
    }

    pub(crate) fn packet(&mut self, i: usize, power: u64, link: u8, packet: &Packet) {
        if self.nodes[i].power_life == power && self.nodes[i].link_up[usize::from(link)] {
            let packet = packet.clone();
            self.deliver(i, In::Other(Event::Packet { link, packet }));
        }
    }

    /// A record goes into the node's own file.
    pub(crate) fn keep_votes(&mut self, i: usize, block: Block) {
        let before = self.nodes[i].votes.as_ref().map_or(0, |kept| kept.writes);
        if block.writes <= before || self.nodes[i].record.is_some() {
            self.fail("records of the own votes come one by one and count up");
        }
        self.proposed(i, &block);
        self.number += 1;
        let record = self.number;
        self.nodes[i].record = Some((record, block));
        let takes = self.io_time(i, 0);
        self.after(takes, i, Ev::RecordEnds { record });
    }

    pub(crate) fn record_ends(&mut self, i: usize, record: u64) {
        let known = self.nodes[i]
            .record
            .take_if(|(number, _)| *number == record);
        let Some((_, block)) = known else { return };
        let at = self.nodes[i].clock.at(self.now);
        let fails = self.plan.files.fails;
        if fails > 0 && !self.calm && self.rng.chance(fails) {
            self.checks.count("record not kept");
            self.nodes[i].unkept = Some(block.clone());
            if self.rng.chance(500) {
                self.put_into_file(i, block);
            }
            let reason = "no space left".to_owned();
            return self.deliver(i, In::Other(Event::KeepFailed { at, reason }));
        }
        self.nodes[i].unkept = None;
        self.put_into_file(i, block);
        self.deliver(i, In::Other(Event::Kept { at }));
    }

    /// A core that was started before its file was read is told now what stands there.
    pub(crate) fn file_speaks(&mut self, i: usize, core: u64) {
        if self.nodes[i].core_life == core {
            let memory = self.nodes[i].memory();
            let trouble = None;
            self.deliver(i, In::Other(Event::Remembered { memory, trouble }));
        }
    }

    /// The core is gone: the record on its way has come to the file or has not.
    pub(crate) fn lose_record(&mut self, i: usize) {
        let lands = self.rng.chance(500);
        if let Some((_, block)) = self.nodes[i].record.take()
            && lands
        {
            self.put_into_file(i, block);
        }
    }

    /// What all have accepted in one ballot is decided.
    fn put_into_file(&mut self, i: usize, block: Block) {
        let all = (1 << self.nodes.len()) - 1;
        let voices = self.accepted.entry(block.bal).or_default();
        let before = std::mem::replace(voices, *voices | 1 << i);
        if before != all && *voices == all && block.value.epoch > 0 {
            self.checks.count("decided by all nodes");
            self.decided(i, block.value.clone());
        }
        self.nodes[i].votes = Some(block);
    }
}
