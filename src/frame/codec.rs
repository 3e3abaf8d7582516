//! From a [`Frame`] to its 512 bytes and back.
//!
//! The head is read and the tag checked first, then the fields. Nothing allocates.

use super::head::{Head, Kind};
use super::layout::{
    BOOT, CLUSTER, CONFIG_HASH, CONFIG_REVISION, EPOCH, FITNESS, FLAGS, FRAME_LEN, HEARD, LINK,
    MAGIC, MAGIC_AT, SENDER, SEQUENCE, START, TASKS,
};
use super::tag::Keyring;
use super::{Flags, Frame, FrameError, TaskReport};
use crate::model::{ClusterId, Incarnation, NodeId, TaskState};

/// Bits of a task report that hold its state.
const STATE_BITS: u32 = 4;

impl Frame {
    /// Writes the frame and its tag.
    pub fn encode(&self, keyring: &Keyring, out: &mut [u8; FRAME_LEN]) {
        out.fill(0);
        let head = Head {
            cluster: self.cluster,
            sender: self.sender,
            link: self.link,
            incarnation: self.incarnation,
        };
        head.put(Kind::Frame, out);
        FLAGS.put(out, &self.flags.0.to_le_bytes());
        FITNESS.put(out, &[self.fitness]);
        SEQUENCE.put(out, &self.sequence.to_le_bytes());
        EPOCH.put(out, &self.epoch.to_le_bytes());
        CONFIG_HASH.put(out, &self.config_hash);
        CONFIG_REVISION.put(out, &self.config_revision.to_le_bytes());
        for (bytes, heard) in out[HEARD.at..HEARD.end()]
            .chunks_exact_mut(4)
            .zip(&self.heard)
        {
            bytes.copy_from_slice(&heard.to_le_bytes());
        }
        for (bytes, task) in out[TASKS.at..TASKS.end()]
            .chunks_exact_mut(2)
            .zip(&self.tasks)
        {
            let packed = task.state as u16 | (task.epoch << STATE_BITS);
            bytes.copy_from_slice(&packed.to_le_bytes());
        }
        head.seal(Kind::Frame, keyring, out);
    }

    /// The frame in the first [`FRAME_LEN`] of `bytes`, if it is a true one of this cluster.
    pub fn decode(
        bytes: &[u8],
        keyring: &Keyring,
        cluster: &ClusterId,
    ) -> Result<Frame, FrameError> {
        let (bytes, head) = Head::authentic(Kind::Frame, bytes, keyring, cluster)?;
        let mut frame = Frame::blank(*cluster, head.sender, head.incarnation);
        frame.fill(bytes, &head)?;
        Ok(frame)
    }

    /// The same into a frame at hand, whatever it held before; an error leaves it as it was.
    pub fn decode_into(
        &mut self,
        bytes: &[u8],
        keyring: &Keyring,
        cluster: &ClusterId,
    ) -> Result<(), FrameError> {
        let (bytes, head) = Head::authentic(Kind::Frame, bytes, keyring, cluster)?;
        self.fill(bytes, &head)
    }

    /// Reads all fields behind the head. An error changes nothing.
    fn fill(&mut self, bytes: &[u8; FRAME_LEN], head: &Head) -> Result<(), FrameError> {
        let mut tasks = self.tasks;
        let packed = bytes[TASKS.at..TASKS.end()].chunks_exact(2);
        for (index, (task, bytes)) in tasks.iter_mut().zip(packed).enumerate() {
            let packed = u16::from_le_bytes([bytes[0], bytes[1]]);
            let found = (packed & ((1 << STATE_BITS) - 1)) as u8;
            let state = TaskState::from_number(found).ok_or(FrameError::BadTaskState {
                task: index as u8,
                found,
            })?;
            *task = TaskReport {
                state,
                epoch: packed >> STATE_BITS,
            };
        }
        self.tasks = tasks;
        for (heard, bytes) in self
            .heard
            .iter_mut()
            .zip(bytes[HEARD.at..HEARD.end()].chunks_exact(4))
        {
            *heard = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        (self.cluster, self.sender) = (head.cluster, head.sender);
        (self.link, self.incarnation) = (head.link, head.incarnation);
        self.flags = Flags(u16::from_le_bytes(FLAGS.get(bytes)));
        self.fitness = bytes[FITNESS.at];
        self.sequence = u64::from_le_bytes(SEQUENCE.get(bytes));
        self.epoch = u64::from_le_bytes(EPOCH.get(bytes));
        self.config_hash = CONFIG_HASH.get(bytes);
        self.config_revision = u32::from_le_bytes(CONFIG_REVISION.get(bytes));
        Ok(())
    }
}

/// Turns an encoded frame into its copy for another link: the same frame goes out on each.
///
/// # Panics
///
/// If `out` is not what [`Frame::encode`] wrote.
pub fn relink(out: &mut [u8; FRAME_LEN], link: u8, keyring: &Keyring) {
    assert_eq!(MAGIC_AT.get(out), MAGIC, "encode wrote the magic");
    out[LINK.at] = link;
    let head = Head {
        cluster: CLUSTER.get(out),
        sender: NodeId::new(out[SENDER.at]).expect("encode wrote the sender"),
        link,
        incarnation: Incarnation {
            boot: BOOT.get(out),
            start: u32::from_le_bytes(START.get(out)),
        },
    };
    head.seal(Kind::Frame, keyring, out);
}
