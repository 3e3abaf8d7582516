//! What goes into the register and what comes out: plain data, no behaviour.

use serde::{Deserialize, Serialize};

use crate::model::{NodeId, NodeSet};
use crate::time::Instant;

use super::{Block, Change, Compared, Message, RecordSeen, Value};

/// One node's block as one read of the disk shows it. Between the beginning and the end of the
/// read the block had this content; a write that was finished before the read began is in it.
///
/// A block is kept in two copies, written in turn (`writes` odd and even). A reader that finds one
/// copy invalid must read the pair once more and take the valid copy of *that* read: otherwise a
/// read that overlaps two writes could show content older than its own beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlockSeen {
    /// Formatted and never written.
    #[default]
    Blank,
    /// The newer valid copy.
    Good(Block),
    /// Neither copy is valid, or the sectors cannot be read.
    Damaged,
}

/// What one read of the disk shows: which it is, the area was formatted for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seen {
    /// By Disk Paxos: every slot of the disk, by node index; also those of nodes that are not
    /// configured (any more), for the newest value may stand in such a one.
    Blocks(Vec<BlockSeen>),
    /// By compare-and-write: the record, and the value that it names.
    Record(RecordSeen),
}

/// What has happened. The instants are taken by the thread that does the I/O, `begun` before the
/// call is issued, `ended` and `at` after it has returned; so they bracket the I/O whatever
/// the event's way through queues took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A read of all blocks has finished, whoever asked for it.
    ReadDone {
        /// Before the read was issued.
        begun: Instant,
        /// After it had returned.
        ended: Instant,
        /// What it shows.
        seen: &'a Seen,
    },
    /// A read has failed as a whole.
    ReadFailed {
        /// Before the read was issued.
        begun: Instant,
    },
    /// The ordered write is on the disk, whole.
    Written {
        /// After it had returned.
        at: Instant,
    },
    /// The ordered write returned an error: it may be on the disk or not, but it is not under way
    /// any more. A write that has not returned must not be reported at all.
    WriteFailed {
        /// After it had returned.
        at: Instant,
    },
    /// The ordered change of the record has ended. Unlike a write it may be done even after that,
    /// if its outcome is unclear.
    Compared {
        /// After it had returned.
        at: Instant,
        /// How.
        outcome: Compared,
    },
    /// Another node's register speaks. What its node cannot have said is dropped.
    Heard {
        /// Who.
        from: NodeId,
        /// What.
        message: &'a Message,
    },
    /// A node that knows the decided value of this epoch has just said so. Not what the value is:
    /// that the disk shows, to any read begun since then.
    DecidedElsewhere {
        /// Of the newest value which that node knows.
        epoch: u64,
    },
    /// The node's own file was read.
    Remembered(&'a Memory),
    /// The ordered record is in the node's own file, durably.
    Kept,
    /// The ordered record may be in the node's own file or not.
    KeepFailed,
    /// Which of the two quorums can be had from now on; at first it is the disk's.
    Media {
        /// The disk answers.
        disk: bool,
        /// Every other node is heard over a network, and votes.
        network: bool,
    },
    /// Time has passed; due at [`poll_timeout`](super::Register::poll_timeout).
    Tick,
}

/// What the node's own file said at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Memory {
    /// It has not said anything yet: [`Event::Remembered`] will tell.
    #[default]
    Pending,
    /// There is no file yet: this node has never promised anything over the network.
    Nothing,
    /// Its last record.
    Kept(Block),
    /// There is none and none can be written: this node has no voice over the network.
    Unable,
    /// There is one that cannot be read: nobody knows what this node has promised, so it may have
    /// no part in the register until a person has looked at it.
    Lost,
}

/// What to do on a disk. At most one read, and one of the others, is under way on each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Begin a read of all blocks now. Any read begun after the order was polled answers it, so the
    /// heartbeat's next read may serve; after a failure or an unlucky overlap it is ordered again.
    Read,
    /// Write this node's own block, durably: into the copy that does not hold the newest good one,
    /// or, where there is a record, into the one that `writes` names (even A, odd B).
    Write(Block),
    /// Change the record, if it is what is expected: one command, sent once.
    CompareAndWrite(Change),
}

/// What the caller should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// This value is decided, and newer than the one known before. Precedes every other news that
    /// follow from it.
    Learned(Value),
    /// The proposal is decided.
    Won {
        /// What was proposed.
        value: Value,
        /// The end of the read that showed it: no proof of an older value, on any node, is of a
        /// read begun later than this.
        at: Instant,
    },
    /// The register holds something else, and the proposal can never come into force (again).
    Lost {
        /// The decided value.
        current: Value,
        /// The proposal may have been in force for a while, before `current` was built upon it.
        unclear: bool,
    },
    /// Deadline or tries are used up.
    GaveUp {
        /// The proposal may be, or may still come, into force; reads will tell.
        unclear: bool,
    },
    /// Nothing newer than the known value was decided when this read was begun.
    Proof {
        /// Before the read was issued.
        begun: Instant,
        /// Epoch of the known value.
        epoch: u64,
    },
}

/// Why a proposal was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// One at a time.
    #[error("a proposal is already under way")]
    Busy,
    /// Epochs rise by one.
    #[error("epoch {new} does not follow {expected}")]
    NotNext {
        /// Epoch expected in the register.
        expected: u64,
        /// Epoch of the value proposed.
        new: u64,
    },
    /// It would not fit the block.
    #[error("a value of {0} bytes is longer than {max}", max = super::VALUE_MAX)]
    TooLong(usize),
}

/// What keeps the register from working; it heals by itself unless the text says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trouble {
    /// The latest read failed as a whole.
    ReadFailed,
    /// These nodes' blocks cannot be read or make no sense: no proof, no change until they can.
    Damaged(NodeSet),
    /// One disk of several is formatted for compare-and-write; it does not count. Needs a human.
    Mixed,
    /// The record is damaged: no proof, no change until it can be read.
    RecordDamaged,
    /// The record is good, but the value that it names is not where it should be, and this node
    /// does not know it. A node that does stores it anew.
    ValueLost,
    /// The latest write failed and is not on the disk.
    WriteFailed,
    /// The own block is not what was written: a lost write, a late write of an earlier life, or a
    /// second node with this id. This register writes nothing any more; needs a human.
    Foreign,
    /// The disk, or another node, shows an older or another value than the one known as decided, or
    /// the disk an older record: a restored backup, a wrong disk. This register writes nothing any
    /// more; needs a human.
    WentBack,
    /// The node's own file is there but cannot be read. This register takes part in nothing until
    /// the daemon is started with a file that can; needs a human.
    MemoryLost,
}
