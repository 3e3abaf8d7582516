//! The bytes behind frames and blocks, where it matters what they are: what outsiders make of them,
//! what a torn write leaves, what a garbled read returns. Everything goes through the real codecs.
//!
//! Elsewhere frames and blocks travel as values: encoding each would cost most of the time.

use std::rc::Rc;

use standfast::frame::{FRAME_LEN, Frame, Keyring};
use standfast::mldc::Packet;
use standfast::model::{ClusterId, Incarnation, NodeId};
use standfast::register::{Block, BlockSeen};
use standfast::storage::area::newest_block;
use standfast::storage::area::{SECTOR_LEN, SLOT_LEN, Side, Slot, decode_block, encode_block};

use crate::checks::{Violation, s9};
use crate::disk::Read;
use crate::strike::Attack;
use crate::world::World;

/// The simulated cluster.
pub(crate) const CLUSTER: ClusterId = [7; 16];

/// The format of its disk area.
const AREA: [u8; 16] = [9; 16];

/// The cluster's keys, and those of somebody who does not know its secret.
pub(crate) struct Keys {
    pub(crate) own: Keyring,
    other: Keyring,
}

impl Keys {
    pub(crate) fn new() -> Keys {
        Keys {
            own: Keyring::new(&[1; 32], &CLUSTER),
            other: Keyring::new(&[2; 32], &CLUSTER),
        }
    }
}

impl World {
    pub(crate) fn is_outside(&self, rule: Result<(), String>) {
        if let Err(what) = rule {
            self.violated(Violation::new("S9", what, Vec::new()));
        }
    }

    /// An outsider, who has heard some of what was on the networks, acts `count` times.
    pub(crate) fn attack(&mut self, attack: Attack, count: u64) {
        for _ in 0..count {
            if self.old_frames.is_empty() {
                return;
            }
            self.attack_packet(attack);
            let place = self.rng.below(self.old_frames.len() as u64) as usize;
            let (link, to, frame) = self.old_frames[place].clone();
            match attack {
                Attack::Replay => self.replay(link, to, &frame),
                Attack::Flip => self.flip(&frame),
                Attack::Forge => self.forge(&frame),
                Attack::Slots => self.overwrite(&frame),
            }
        }
    }

    /// The same for the packets that the registers exchange, if there were any.
    fn attack_packet(&mut self, attack: Attack) {
        if self.old_packets.is_empty() {
            return;
        }
        let place = self.rng.below(self.old_packets.len() as u64) as usize;
        let (network, to, packet) = self.old_packets[place].clone();
        let mut bytes = [0; FRAME_LEN];
        match attack {
            Attack::Replay => {
                self.checks.count("replayed packet");
                let delay = self.rng.below(self.plan.timing.heartbeat.0);
                self.packet_comes(delay, network, to, packet);
                return;
            }
            Attack::Flip => {
                packet.encode(&self.keys.own, &mut bytes);
                let bit = self.rng.below(FRAME_LEN as u64 * 8) as usize;
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            Attack::Forge => packet.encode(&self.keys.other, &mut bytes),
            Attack::Slots => return,
        }
        let decoded = Packet::decode(&bytes, &self.keys.own, &CLUSTER);
        let rule = s9::refused("a packet that nobody wrote", decoded).map(|_| ());
        self.is_outside(rule);
        self.checks.count("refused packet");
    }

    /// What a hearer makes of the packet.
    pub(crate) fn through_the_codec(&self, packet: Packet) -> Packet {
        let mut bytes = [0; FRAME_LEN];
        packet.encode(&self.keys.own, &mut bytes);
        let decoded = Packet::decode(&bytes, &self.keys.own, &CLUSTER);
        match s9::faithful(&packet, decoded) {
            Ok(heard) => heard,
            Err(what) => self.violated(Violation::new("S9", what, Vec::new())),
        }
    }

    fn encoded(&self, frame: &Frame, keys: &Keyring) -> [u8; FRAME_LEN] {
        let mut bytes = [0; FRAME_LEN];
        frame.encode(keys, &mut bytes);
        bytes
    }

    fn replay(&mut self, link: usize, to: usize, frame: &Frame) {
        let bytes = self.encoded(frame, &self.keys.own);
        let decoded = Frame::decode(&bytes, &self.keys.own, &CLUSTER);
        match s9::faithful(frame, decoded) {
            Ok(frame) => {
                let delay = self.rng.below(self.plan.timing.heartbeat.0);
                self.arrive(delay, link, to, Rc::new(frame));
            }
            Err(what) => self.is_outside(Err(what)),
        }
    }

    fn flip(&mut self, frame: &Frame) {
        let mut bytes = self.encoded(frame, &self.keys.own);
        let bit = self.rng.below(FRAME_LEN as u64 * 8) as usize;
        bytes[bit / 8] ^= 1 << (bit % 8);
        self.refuse(&format!("a frame with bit {bit} changed"), &bytes);
    }

    /// The best that can be made without the secret: a frame that is fresh in every respect and
    /// claims the newest epoch.
    fn forge(&mut self, frame: &Frame) {
        let mut forged = frame.clone();
        forged.sequence += 1_000;
        forged.epoch += 1;
        let bytes = self.encoded(&forged, &self.keys.other);
        self.refuse("a frame made with another secret", &bytes);
    }

    fn refuse(&mut self, what: &str, bytes: &[u8]) {
        let decoded = Frame::decode(bytes, &self.keys.own, &CLUSTER);
        let rule = s9::refused(what, decoded).map(|_| ());
        self.is_outside(rule);
        self.checks.count("refused frame");
    }

    /// Somebody writes over a heartbeat on the disk: an older one, or bytes that are none.
    fn overwrite(&mut self, frame: &Rc<Frame>) {
        let slot = frame.sender.index();
        let d = match self.disks.len() {
            1 => 0,
            count => self.rng.below(count as u64) as usize,
        };
        if self.rng.chance(500) {
            self.disks[d].frames[slot] = Some(frame.clone());
        } else {
            self.flip(frame);
            self.disks[d].frames[slot] = None;
        }
    }

    /// One bit of each copy of some blocks, and of some heartbeats, is not what it was.
    pub(crate) fn garble(&mut self, read: &mut Read) {
        if read.record.is_some() && self.rng.chance(500) {
            self.garble_record(read);
        }
        for slot in 0..read.blocks.len() {
            if self.rng.chance(500) {
                read.frames[slot] = None;
            }
            let BlockSeen::Good(block) = &read.blocks[slot] else {
                continue;
            };
            if self.rng.chance(500) {
                let block = block.clone();
                self.garble_block(slot, &block);
                read.blocks[slot] = BlockSeen::Damaged;
            }
        }
    }

    fn garble_block(&mut self, slot: usize, block: &Block) {
        let node = NodeId::new(slot as u8 + 1).expect("few nodes");
        let bits = [Side::A, Side::B].map(|side| (side, self.rng.below(SLOT_LEN as u64 * 8)));
        for (side, bit) in bits {
            let bit = bit as usize;
            let mut bytes = self.slot(node, side, block);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let decoded = decode_block(&AREA, (node, side), &bytes[..], &self.keys.own);
            let rule = s9::refused(&format!("a block with bit {bit} changed"), decoded);
            self.is_outside(rule.map(|_| ()));
            self.checks.count("refused block");
        }
    }

    fn slot(&self, node: NodeId, side: Side, block: &Block) -> Box<Slot> {
        let mut bytes = Box::new([0; SLOT_LEN]);
        let writer = Incarnation::default();
        encode_block(
            &AREA,
            (node, side),
            block,
            writer,
            &self.keys.own,
            &mut bytes,
        );
        bytes
    }

    /// The power fails while the node's writes are under way: each is done, or not, or in part.
    pub(crate) fn writes_tear(&mut self, i: usize) {
        (0..self.disks.len()).for_each(|d| self.tears_on(i, d));
    }

    fn tears_on(&mut self, i: usize, d: usize) {
        if self.nodes[i].disks[d].slot.take().is_some() && self.rng.chance(300) {
            let slot = self.nodes[i].slot;
            self.disks[d].frames[slot] = None;
        }
        let how = self.rng.below(3);
        // What the array has of a command it may do at any time.
        self.nodes[i].disks[d].command = None;
        let Some(write) = self.nodes[i].disks[d].write.take() else {
            return;
        };
        if let Some(record) = &mut self.disks[d].record {
            let slot = self.nodes[i].slot;
            let landed = match how {
                1 => Ok(()),
                _ if write.lands => record.land(slot, write.block, how == 0),
                _ => Ok(()),
            };
            if let Err(what) = landed {
                self.goes_back(i, what);
            }
            return;
        }
        let whole = SLOT_LEN / SECTOR_LEN;
        let sectors = match how {
            0 => whole,
            1 => 0,
            _ => self.rng.below(whole as u64 - 1) as usize + 1,
        };
        if write.lands && self.torn((i, d), &write.block, sectors) == write.block {
            self.lands(i, d, write.block);
        }
    }

    /// What a reader takes for the block after the first `sectors` of the new one were written over
    /// the older of its two copies.
    fn torn(&mut self, (i, d): (usize, usize), new: &Block, sectors: usize) -> Block {
        let (slot, node) = (self.nodes[i].slot, self.nodes[i].id);
        let old = self.disks[d].block(slot).clone();
        if old.writes == 0 || old.writes >= new.writes {
            return if sectors == 0 { old } else { new.clone() };
        }
        let older = Block {
            writes: old.writes - 1,
            ..old.clone()
        };
        let kept = self.slot(node, Side::A, &old);
        let mut torn = if older.writes == 0 {
            Box::new([0; SLOT_LEN])
        } else {
            self.slot(node, Side::B, &older)
        };
        let fresh = self.slot(node, Side::B, new);
        let end = sectors * SECTOR_LEN;
        torn[..end].copy_from_slice(&fresh[..end]);
        let newest = newest_block(&AREA, node, &kept[..], &torn[..], &self.keys.own);
        let seen = newest.expect("one copy is whole").stored.block;
        if seen != old && seen != *new {
            let what = format!("a torn block of {node} is neither the old nor the new one");
            self.is_outside(Err(what));
        }
        self.checks.count("torn block");
        seen
    }
}
