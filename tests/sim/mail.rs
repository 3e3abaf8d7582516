//! What the registers have besides the disk: packets over the networks, and a file on each node.

use std::rc::Rc;

use standfast::engine::Event;
use standfast::mldc::Packet;
use standfast::register::Block;

use crate::node::In;
use crate::world::{Ev, World};

impl World {
    /// A packet goes out on every network, with the luck of a frame.
    pub(crate) fn post(&mut self, i: usize, packet: Packet) {
        let packet = Rc::new(packet);
        let bad = !self.calm;
        for link in 0..self.plan.networks {
            if !self.nodes[i].link_up[link] {
                continue;
            }
            for to in packet.to.iter().map(|node| node.index()) {
                let cut = self.cuts.contains_key(&(link, i, to));
                let lost = bad && self.rng.chance(self.plan.loss);
                if to == i || to >= self.nodes.len() || cut || lost {
                    continue;
                }
                let copies = 1 + u64::from(bad && self.rng.chance(self.plan.doubles));
                for _ in 0..copies {
                    let mut delay = 1 + self.rng.below(self.plan.delay);
                    if bad && self.rng.chance(self.plan.late) {
                        delay = self.rng.skewed(self.plan.timing.detect.0);
                    }
                    let power = self.nodes[to].power_life;
                    let (link, packet) = (link as u8, packet.clone());
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
            }
        }
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
        let takes = self.io_time(i);
        self.after(takes, i, Ev::RecordEnds { record });
    }

    pub(crate) fn record_ends(&mut self, i: usize, record: u64) {
        let known = self.nodes[i]
            .record
            .take_if(|(number, _)| *number == record);
        if let Some((_, block)) = known {
            self.put_into_file(i, block);
            let at = self.nodes[i].clock.at(self.now);
            self.deliver(i, In::Other(Event::Kept { at }));
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
