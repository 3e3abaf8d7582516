//! From a [`Frame`] to its 512 bytes and back.
//!
//! Decoding believes nothing before the tag: cheap checks drop what is not meant for us, then one
//! hash decides, then the fields are read. Nothing allocates.

use super::layout::{
    BOOT, CLUSTER, CONFIG_HASH, CONFIG_REVISION, EPOCH, FITNESS, FLAGS, FRAME_LEN, HEARD, LINK,
    MAGIC, MAGIC_AT, SENDER, SEQUENCE, START, TAG, TASKS, VERSION, VERSION_AT,
};
use super::tag::{Author, Keyring, Purpose};
use super::{Flags, Frame, FrameError, TaskReport};
use crate::model::{ClusterId, Incarnation, NodeId, TaskState};

/// Bits of a task report that hold its state.
const STATE_BITS: u32 = 4;

impl Frame {
    /// Writes the frame and its tag.
    pub fn encode(&self, keyring: &Keyring, out: &mut [u8; FRAME_LEN]) {
        out.fill(0);
        MAGIC_AT.put(out, &MAGIC);
        VERSION_AT.put(out, &[VERSION]);
        SENDER.put(out, &[self.sender.number()]);
        LINK.put(out, &[self.link]);
        CLUSTER.put(out, &self.cluster);
        BOOT.put(out, &self.incarnation.boot);
        START.put(out, &self.incarnation.start.to_le_bytes());
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
        seal(out, keyring, Author::Node(self.sender, self.incarnation));
    }

    /// The frame in the first [`FRAME_LEN`] of `bytes`, if it is a true one of this cluster.
    pub fn decode(
        bytes: &[u8],
        keyring: &Keyring,
        cluster: &ClusterId,
    ) -> Result<Frame, FrameError> {
        let (bytes, sender, incarnation) = authentic(bytes, keyring, cluster)?;
        let mut frame = Frame::blank(*cluster, sender, incarnation);
        frame.fill(bytes)?;
        Ok(frame)
    }

    /// The same into a frame at hand, whatever it held before; an error leaves it as it was.
    pub fn decode_into(
        &mut self,
        bytes: &[u8],
        keyring: &Keyring,
        cluster: &ClusterId,
    ) -> Result<(), FrameError> {
        let (bytes, sender, incarnation) = authentic(bytes, keyring, cluster)?;
        self.fill(bytes)?;
        (self.cluster, self.sender, self.incarnation) = (*cluster, sender, incarnation);
        Ok(())
    }

    /// Reads all fields but those that [`authentic`] has read. An error changes nothing.
    fn fill(&mut self, bytes: &[u8; FRAME_LEN]) -> Result<(), FrameError> {
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
        self.link = bytes[LINK.at];
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
    let sender = NodeId::new(out[SENDER.at]).expect("encode wrote the sender");
    assert_eq!(MAGIC_AT.get(out), MAGIC, "encode wrote the magic");
    out[LINK.at] = link;
    let incarnation = incarnation_of(out);
    seal(out, keyring, Author::Node(sender, incarnation));
}

/// Puts the tag behind the rest.
fn seal(out: &mut [u8; FRAME_LEN], keyring: &Keyring, author: Author) {
    let tag = keyring.tag(Purpose::Frame, author, &out[..TAG.at]);
    TAG.put(out, &tag);
}

/// The bytes of one frame, proved to be `cluster`'s, with who wrote them.
fn authentic<'a>(
    bytes: &'a [u8],
    keyring: &Keyring,
    cluster: &ClusterId,
) -> Result<(&'a [u8; FRAME_LEN], NodeId, Incarnation), FrameError> {
    let Some(bytes) = bytes.first_chunk::<FRAME_LEN>() else {
        return Err(FrameError::TooShort { len: bytes.len() });
    };
    if MAGIC_AT.get(bytes) != MAGIC {
        return Err(FrameError::NotOurs);
    }
    let version = bytes[VERSION_AT.at];
    if version != VERSION {
        return Err(FrameError::Version { found: version });
    }
    let found: ClusterId = CLUSTER.get(bytes);
    if found != *cluster {
        return Err(FrameError::Foreign { cluster: found });
    }
    let found = bytes[SENDER.at];
    let sender = NodeId::new(found).ok_or(FrameError::BadSender { found })?;
    let incarnation = incarnation_of(bytes);
    let author = Author::Node(sender, incarnation);
    if !keyring.verify(Purpose::Frame, author, &bytes[..TAG.at], &TAG.get(bytes)) {
        return Err(FrameError::BadTag);
    }
    Ok((bytes, sender, incarnation))
}

/// The incarnation as it stands in a frame.
fn incarnation_of(bytes: &[u8; FRAME_LEN]) -> Incarnation {
    Incarnation {
        boot: BOOT.get(bytes),
        start: u32::from_le_bytes(START.get(bytes)),
    }
}
