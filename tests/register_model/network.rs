//! What the registers have besides the disk: a network that loses, delays and doubles, and a file
//! each.

use standfast::model::{NodeId, NodeSet};
use standfast::register::{Block, Event, Memory};

use crate::world::{FAULTS_END, HEARTBEAT, IO, Step, World};

/// A record on its way into a node's file.
pub(crate) struct Record {
    id: u64,
    block: Block,
    fails: bool,
    lands: bool,
}

impl World {
    /// What the node can reach from now on, as it is told at its heartbeat.
    pub(crate) fn media(&mut self, index: usize) {
        let rate = self.faults.away;
        if self.fault(rate) {
            self.counts.away += 1;
            let until = self.now + self.below(10 * HEARTBEAT);
            let (all, count) = (self.chance(500), self.nodes.len());
            let gone = if all { 0..count } else { index..index + 1 };
            let disks = self.disks.len();
            // One of several mostly: the others must do.
            let disks = if disks > 1 && self.chance(700) {
                let one = self.below(disks as u64) as usize;
                one..one + 1
            } else {
                0..disks
            };
            for node in &mut self.nodes[gone] {
                for away_until in &mut node.away_until[disks.clone()] {
                    *away_until = (*away_until).max(until);
                }
            }
        }
        // Only a hint: it may be wrong.
        let wrong = self.fault(100);
        let disks = 0..self.disks.len();
        let there = disks.filter(|disk| !self.is_away(index, *disk)).count();
        let disk = there > self.disks.len() / 2 && !wrong;
        let network = !self.fault(100);
        self.feed(index, Event::Media { disk, network });
        if self.chance(300) {
            let others = self.everybody().without(id(index));
            if let Some(register) = &mut self.nodes[index].register
                && register.known().epoch > 0
            {
                let value = register.known().clone();
                register.tell(others, value);
            }
            self.feed(index, Event::Tick);
        }
    }

    pub(crate) fn is_away(&self, index: usize, disk: usize) -> bool {
        let dead = self
            .dead
            .is_some_and(|(dead, since)| dead == disk && self.now > since);
        let dry = self.dry && self.now > self.dry_from();
        dead || dry || self.now < self.nodes[index].away_until[disk]
    }

    /// Long enough after the faults for everybody to have read the disk again.
    pub(crate) fn dry_from(&self) -> u64 {
        FAULTS_END + 40 * HEARTBEAT
    }

    fn everybody(&self) -> NodeSet {
        (0..self.nodes.len()).map(id).collect()
    }

    /// Takes up what the register wants sent and kept.
    pub(crate) fn send(&mut self, index: usize) {
        while let Some((to, message)) = self.nodes[index]
            .register
            .as_mut()
            .and_then(|register| register.poll_mail())
        {
            for other in to.iter().map(NodeId::index) {
                let rate = self.faults.lost_mail;
                if self.fault(rate) {
                    continue;
                }
                self.counts.mail += 1;
                let copies = if self.fault(50) { 2 } else { 1 };
                for _ in 0..copies {
                    let takes = self.io();
                    let mail = self.random();
                    self.mail.insert(mail, (index, message.clone()));
                    self.after(takes, other, Step::MailArrives { mail });
                }
            }
        }
        let record = self.nodes[index].register.as_mut();
        if let Some(block) = record.and_then(|register| register.poll_record()) {
            self.issue_record(index, block);
        }
    }

    pub(crate) fn mail_arrives(&mut self, index: usize, mail: u64) {
        if let Some((from, message)) = self.mail.remove(&mail) {
            let (from, message) = (id(from), &message);
            self.feed(index, Event::Heard { from, message });
        }
    }

    /// The file of the own votes speaks after the start.
    pub(crate) fn remembers(&mut self, index: usize) {
        let file = self.nodes[index].file.clone();
        let memory = file.map_or(Memory::Nothing, Memory::Kept);
        self.feed(index, Event::Remembered(&memory));
    }

    fn issue_record(&mut self, index: usize, block: Block) {
        let before = self.nodes[index]
            .file
            .as_ref()
            .map_or(0, |file| file.writes);
        assert!(block.writes > before, "records count up");
        let rate = self.faults.record_error;
        let fails = self.fault(rate);
        let lands = !fails || self.chance(500);
        let (lands_after, returns) = (1 + self.below(IO), self.io());
        let id = self.random();
        let record = Record {
            id,
            block,
            fails,
            lands,
        };
        let before = self.nodes[index].record.replace(record);
        assert!(before.is_none(), "two records at once");
        self.after(lands_after, index, Step::RecordLands { record: id });
        self.after(
            lands_after + returns,
            index,
            Step::RecordReturns { record: id },
        );
    }

    pub(crate) fn record_lands(&mut self, index: usize, record: u64) {
        let known = self.nodes[index].record.as_ref();
        let lands = known.filter(|known| known.id == record && known.lands);
        if let Some(block) = lands.map(|known| known.block.clone()) {
            self.put_into_file(index, block);
        }
    }

    fn put_into_file(&mut self, index: usize, block: Block) {
        let count = self.nodes.len();
        let voices = self.accepted.entry(block.bal).or_default();
        *voices |= 1 << index;
        if *voices == (1 << count) - 1 && block.value.epoch > 0 {
            self.counts.by_all += 1;
            self.chain.decide(block.value.id(), self.now);
        }
        self.nodes[index].file = Some(block);
    }

    pub(crate) fn record_returns(&mut self, index: usize, record: u64) {
        let known = self.nodes[index].record.take_if(|known| known.id == record);
        if let Some(record) = known {
            let event = if record.fails {
                Event::KeepFailed
            } else {
                Event::Kept
            };
            self.feed(index, event);
        }
    }

    /// A crash: what was on its way into the file may have got there.
    pub(crate) fn lose_record(&mut self, index: usize) {
        let lands = self.chance(500);
        if let Some(record) = self.nodes[index].record.take()
            && lands
        {
            self.put_into_file(index, record.block);
        }
    }

    /// Everybody has to win once more, now without the disk.
    pub(crate) fn dry_out(&mut self) {
        for node in &mut self.nodes {
            node.content = false;
        }
    }
}

fn id(index: usize) -> NodeId {
    NodeId::new(index as u8 + 1).expect("few")
}
