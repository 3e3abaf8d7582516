//! From packets back to messages.

use serde::{Deserialize, Serialize};

use super::packet::Packet;
use crate::model::{Incarnation, NODES_MAX, NodeId, trimmed_array};

/// Puts the messages of all senders together, each given once however often its packets come.
///
/// Of each sender one message is kept under assembly, at most [`MESSAGE_MAX`](super::MESSAGE_MAX)
/// bytes, so all together take at most a quarter of a megabyte; a sender that never sends takes
/// none. A packet of a newer message drops the unfinished older one: its sender has gone on.
///
/// It is kept in mind which life of a sender sent last, and the number of its newest whole message:
/// what is not newer is dropped. A packet of another life begins anew, but for an earlier start
/// within the same boot, which cannot be alive any more. Which of two boots is the later one cannot
/// be told from here.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Assembler {
    #[serde(with = "trimmed_array")]
    senders: [Option<Box<Sender>>; NODES_MAX],
}

/// What is known of one sender.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Sender {
    incarnation: Incarnation,
    /// Number of its newest whole message.
    completed: Option<u64>,
    unfinished: Option<Unfinished>,
}

/// A message of which packets are missing.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Unfinished {
    number: u64,
    /// Bit by part: not here yet.
    missing: u16,
    /// As long as the message; zeros where parts are missing.
    bytes: Vec<u8>,
}

impl Default for Assembler {
    fn default() -> Assembler {
        Assembler::new()
    }
}

impl Assembler {
    /// One that has heard of nobody.
    #[must_use]
    pub const fn new() -> Assembler {
        Assembler {
            senders: [const { None }; NODES_MAX],
        }
    }

    /// Takes in a packet that is meant for this node. The message, if it is whole now.
    pub fn take(&mut self, packet: &Packet) -> Option<(NodeId, Incarnation, Vec<u8>)> {
        let (node, incarnation) = (packet.origin.sender, packet.origin.incarnation);
        let place = &mut self.senders[node.index()];
        let sender = place.get_or_insert_with(|| Box::new(Sender::new(incarnation)));
        if incarnation != sender.incarnation {
            let known = sender.incarnation;
            if incarnation.boot == known.boot && incarnation.start < known.start {
                return None;
            }
            **sender = Sender::new(incarnation);
        }
        let bytes = sender.take(packet)?;
        Some((node, incarnation, bytes))
    }
}

impl Sender {
    const fn new(incarnation: Incarnation) -> Sender {
        Sender {
            incarnation,
            completed: None,
            unfinished: None,
        }
    }

    fn take(&mut self, packet: &Packet) -> Option<Vec<u8>> {
        let newest = self.unfinished.as_ref().map(|message| message.number);
        if Some(packet.number) <= self.completed || Some(packet.number) < newest {
            return None;
        }
        if Some(packet.number) != newest {
            self.unfinished = Some(Unfinished::new(packet));
        }
        let message = self.unfinished.as_mut()?;
        if !message.add(packet) {
            return None;
        }
        self.completed = Some(packet.number);
        self.unfinished.take().map(|message| message.bytes)
    }
}

impl Unfinished {
    fn new(packet: &Packet) -> Unfinished {
        Unfinished {
            number: packet.number,
            missing: (1 << packet.parts()) - 1,
            bytes: vec![0; packet.total()],
        }
    }

    /// Adds a part. Says whether the message is whole now.
    fn add(&mut self, packet: &Packet) -> bool {
        // Two lengths of one message: its sender has given one number twice.
        if packet.total() != self.bytes.len() {
            return false;
        }
        let at = packet.offset();
        let data = packet.data();
        self.bytes[at..at + data.len()].copy_from_slice(data);
        self.missing &= !(1 << packet.part());
        self.missing == 0
    }
}
