//! What is known of the other nodes: their frames, their freshness, what they confirm.
//!
//! A frame counts only if it echoes a number this node sent within the last lease time: replays and
//! half-open links give neither life nor proof.

use serde::{Deserialize, Serialize};

use crate::frame::{Flags, Frame, TaskReport};
use crate::model::{
    Incarnation, LINKS_MAX, NODES_MAX, NodeId, TASKS_MAX, TaskIndex, TaskState, trimmed_array,
};
use crate::time::{Instant, Span};

/// Own frames whose sending is remembered: more than can be sent within a lease.
const SENT_MAX: usize = 256;

/// When the last own frames were sent, by sequence number.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Sent {
    #[serde(with = "trimmed_array::boxed")]
    ring: Box<[(u32, Instant); SENT_MAX]>,
}

impl Sent {
    pub(super) fn new() -> Sent {
        Sent {
            ring: Box::new([(0, Instant(0)); SENT_MAX]),
        }
    }

    pub(super) fn note(&mut self, sequence: u64, at: Instant) {
        self.ring[sequence as usize % SENT_MAX] = (sequence as u32, at);
    }

    /// When the frame with these low 32 bits was sent, if that is still remembered.
    pub(super) fn at(&self, heard: u32) -> Option<Instant> {
        let (number, at) = self.ring[heard as usize % SENT_MAX];
        (heard != 0 && number == heard).then_some(at)
    }
}

/// One other node.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Peer {
    /// The life its last fresh frame belonged to.
    pub(super) incarnation: Option<Incarnation>,
    /// Highest sequence number of that life.
    pub(super) sequence: u64,
    /// Another life seen without a fresh echo yet: number to echo, so that it can become fresh.
    pub(super) newcomer: Option<(Incarnation, u64)>,
    /// When the last fresh frame came.
    pub(super) alive_at: Option<Instant>,
    /// When the listed life of it last gave a sign, or was listed.
    pub(super) listed_alive: Instant,
    /// Since when fresh frames have come without a silence.
    pub(super) alive_since: Instant,
    /// Epoch of the view it knows.
    pub(super) epoch: u64,
    pub(super) flags: Flags,
    pub(super) fitness: u8,
    /// It runs another configuration.
    pub(super) incompatible: bool,
    #[serde(with = "trimmed_array")]
    pub(super) tasks: [TaskReport; TASKS_MAX],
    /// Sending time of the newest own frame it has confirmed under the view both know.
    pub(super) confirmed: Option<Instant>,
    /// When it was heard of on each link, fresh or not.
    pub(super) on_link: [Option<Instant>; LINKS_MAX],
    /// Since when it is being looked for once more before it is suspected.
    pub(super) looking: Option<Instant>,
    /// Since when it is suspected.
    pub(super) suspected: Option<Instant>,
}

impl Peer {
    fn new() -> Peer {
        Peer {
            incarnation: None,
            sequence: 0,
            newcomer: None,
            alive_at: None,
            listed_alive: Instant(0),
            alive_since: Instant(0),
            epoch: 0,
            flags: Flags(0),
            fitness: 0,
            incompatible: false,
            tasks: [TaskReport::default(); TASKS_MAX],
            confirmed: None,
            on_link: [None; LINKS_MAX],
            looking: None,
            suspected: None,
        }
    }

    /// The number to echo to it. While its known life speaks, no other life is listened to, so that
    /// a replayed old frame cannot take its place.
    pub(super) fn echo(&self, now: Instant, quiet: Span) -> u32 {
        let speaks = self.alive_at.is_some_and(|at| now.since(at) <= quiet);
        match self.newcomer {
            Some((_, sequence)) if !speaks => sequence as u32,
            Some(_) | None if self.incarnation.is_some() => self.sequence as u32,
            Some(_) | None => 0,
        }
    }

    /// Does it say that the task is in this state, in this task epoch?
    pub(super) fn says(&self, task: TaskIndex, state: TaskState, epoch: u32) -> bool {
        let report = self.tasks[task.index()];
        report.state == state && report.epoch == (epoch & 0xfff) as u16
    }

    /// May a frame of this life be listened to? While its known life speaks, only a later daemon of
    /// the same boot may take its place: a replay, whatever it echoes by chance, must not.
    pub(super) fn may_be(&self, life: Incarnation, now: Instant, quiet: Span) -> bool {
        let Some(known) = self.incarnation.filter(|known| *known != life) else {
            return true;
        };
        let speaks = self.alive_at.is_some_and(|at| now.since(at) <= quiet);
        if known.boot == life.boot {
            life.start > known.start
        } else {
            !speaks
        }
    }

    /// Takes over what a newer fresh frame says. Returns false for one that is not newer.
    pub(super) fn absorb(&mut self, now: Instant, frame: &Frame, silence: Span) -> bool {
        let same_life = self.incarnation == Some(frame.incarnation);
        if same_life && frame.sequence <= self.sequence {
            return false;
        }
        let contiguous = same_life && self.alive_at.is_some_and(|at| now.since(at) <= silence);
        if !contiguous {
            self.alive_since = now;
        }
        if !same_life {
            self.confirmed = None;
        }
        self.incarnation = Some(frame.incarnation);
        self.newcomer = None;
        self.sequence = frame.sequence;
        self.alive_at = Some(now);
        self.epoch = frame.epoch;
        self.flags = frame.flags;
        self.fitness = frame.fitness;
        self.tasks = frame.tasks;
        true
    }

    /// Remembers a life that has not echoed anything fresh yet.
    pub(super) fn glimpse(&mut self, frame: &Frame) {
        if let Some(known) = self.incarnation {
            let same_boot = known.boot == frame.incarnation.boot;
            if same_boot && frame.incarnation.start < known.start {
                return;
            }
            if known == frame.incarnation {
                // Whoever was heard of last is echoed: a replay must not hold the place for ever.
                self.sequence = self.sequence.max(frame.sequence);
                self.newcomer = None;
                return;
            }
        }
        match self.newcomer {
            Some((life, sequence)) if life == frame.incarnation && sequence >= frame.sequence => {}
            Some(_) | None => self.newcomer = Some((frame.incarnation, frame.sequence)),
        }
    }
}

/// All other nodes, by node index.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Peers {
    peers: Vec<Peer>,
}

impl Peers {
    pub(super) fn new() -> Peers {
        Peers {
            peers: (0..NODES_MAX).map(|_| Peer::new()).collect(),
        }
    }

    /// Is there one for each node?
    pub(super) fn make_sense(&self) -> bool {
        self.peers.len() == NODES_MAX
    }

    pub(super) fn of(&self, node: NodeId) -> &Peer {
        &self.peers[node.index()]
    }

    /// Is anybody looked for once more before he is suspected?
    pub(super) fn is_looked_for(&self) -> bool {
        self.peers.iter().any(|peer| peer.looking.is_some())
    }

    pub(super) fn of_mut(&mut self, node: NodeId) -> &mut Peer {
        &mut self.peers[node.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_remembered_numbers_have_a_date() {
        let mut sent = Sent::new();
        assert_eq!(sent.at(0), None);
        for sequence in 1..=600u64 {
            sent.note(sequence, Instant(sequence * 10));
        }
        assert_eq!(sent.at(600), Some(Instant(6000)));
        assert_eq!(sent.at(345), Some(Instant(3450)));
        assert_eq!(sent.at(344), None, "overwritten");
        assert_eq!(sent.at(601), None, "never sent");
    }

    fn life(boot: u8, start: u32) -> Incarnation {
        let boot = [boot; 16];
        Incarnation { boot, start }
    }

    fn frame(life: Incarnation, sequence: u64) -> Frame {
        let mut frame = Frame::blank([7; 16], NodeId::new(2).unwrap(), life);
        frame.sequence = sequence;
        frame
    }

    const SILENCE: Span = Span(40);

    /// One whose first life has spoken at 100.
    fn heard(life: Incarnation, sequence: u64) -> Peer {
        let mut peer = Peer::new();
        assert!(peer.absorb(Instant(100), &frame(life, sequence), SILENCE));
        peer
    }

    #[test]
    fn contact_counts_anew_in_each_life_and_after_each_silence() {
        let mut peer = heard(life(1, 1), 5);
        peer.confirmed = Some(Instant(90));
        for (at, life, sequence, newer, since) in [
            (110, life(1, 1), 6, true, 100),
            (111, life(1, 1), 6, false, 100),
            (150, life(1, 1), 7, true, 100),
            (191, life(1, 1), 8, true, 191),
            (192, life(1, 2), 1, true, 192),
        ] {
            let told = format!("at {at}");
            let absorbed = peer.absorb(Instant(at), &frame(life, sequence), SILENCE);
            assert_eq!(
                (absorbed, peer.alive_since),
                (newer, Instant(since)),
                "{told}"
            );
            assert_eq!(peer.confirmed.is_some(), life.start == 1, "{told}");
        }
    }

    #[test]
    fn another_life_is_echoed_when_the_known_one_is_silent() {
        let quiet = Span(20);
        let mut peer = heard(life(1, 1), 5);
        peer.glimpse(&frame(life(2, 1), 9));
        let echoes = [110, 120, 121].map(|now| peer.echo(Instant(now), quiet));
        assert_eq!(echoes, [5, 5, 9]);
    }

    #[test]
    fn the_last_glimpse_counts_but_none_of_what_is_over() {
        let known = life(1, 2);
        let mut peer = heard(known, 5);
        for (seen, sequence, newcomer) in [
            (life(1, 1), 50, None),
            (life(1, 3), 7, Some((life(1, 3), 7))),
            (life(1, 3), 6, Some((life(1, 3), 7))),
            (life(1, 3), 8, Some((life(1, 3), 8))),
            (life(2, 1), 2, Some((life(2, 1), 2))),
            (known, 4, None),
        ] {
            peer.glimpse(&frame(seen, sequence));
            assert_eq!(peer.newcomer, newcomer, "{seen:?} {sequence}");
        }
        assert_eq!(peer.sequence, 5);
        peer.glimpse(&frame(known, 6));
        assert_eq!(peer.sequence, 6);
    }

    #[test]
    fn a_report_is_about_one_state_in_one_epoch() {
        let task = TaskIndex::new(0).unwrap();
        let mut peer = Peer::new();
        peer.tasks[0] = TaskReport::new(TaskState::Started, 5);
        assert!(peer.says(task, TaskState::Started, 5));
        assert!(!peer.says(task, TaskState::Stopped, 5));
        assert!(!peer.says(task, TaskState::Started, 6));
    }
}
