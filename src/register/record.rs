//! The one sector that COMPARE AND WRITE works on, as the register sees it.

use serde::{Deserialize, Serialize};

use crate::model::NodeId;

use super::{Ballot, Block, VALUE_MAX, Value};

/// Which block holds a value: whose it is, and which of its writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Whose block.
    pub node: NodeId,
    /// [`Block::writes`] of it, which names the copy.
    pub writes: u64,
}

/// What the disk itself has accepted, and where the value stands: the *image* of the record.
///
/// No image ever repeats, for `count` rises by one with each. So a command that expects an image
/// that is gone finds it never again, however late it comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// Number of this image; 0 means never written.
    pub count: u64,
    /// Highest ballot in which the disk has accepted a value.
    pub bal: Ballot,
    /// Where that value stands; nowhere while its epoch is 0.
    pub place: Option<Place>,
    /// Its epoch.
    pub epoch: u64,
    /// Its nonce.
    pub nonce: u64,
    /// [`Value::hash`] of it; zeros while its epoch is 0.
    pub hash: [u8; 32],
}

/// The record as one read of the disk shows it. The record had this content at some moment between
/// the beginning and the end of the read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordSeen {
    /// Formatted and never written.
    #[default]
    Blank,
    /// The record and the value that it names.
    Good(Record, Value),
    /// The record; what stands where its value should be is something else. A read that overlaps a
    /// change may see that, so it must look once more before it says so.
    ValueLost(Record),
    /// The record is not valid, or the sector cannot be read.
    Damaged,
}

/// One COMPARE AND WRITE: to be done once, never again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What must be there; anything else is a miscompare.
    pub expected: Record,
    /// What takes its place.
    pub new: Record,
}

/// How a COMPARE AND WRITE has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compared {
    /// The new image is on the disk, durably.
    Done,
    /// Refused because something else was there: it will not be done any more. Whether it was done
    /// before only the next image tells, for something on the way may have sent it twice, and this
    /// is the answer to the second one.
    Miscompare,
    /// Anything else: an error, no answer in time. It may be done, or be done yet.
    Unclear,
}

impl Record {
    /// The image that accepts `value`, which stands at `place`, in `ballot` after this one.
    pub(super) fn accepting(&self, ballot: Ballot, place: Option<Place>, value: &Value) -> Record {
        assert!(ballot > self.bal, "ballots of the record rise");
        let (count, none) = (self.count + 1, value.epoch == 0);
        Record {
            count,
            bal: ballot,
            place: place.filter(|_| !none),
            epoch: value.epoch,
            nonce: value.nonce,
            hash: if none { [0; 32] } else { value.hash() },
        }
    }

    /// The same once more under another number: nothing that expected this one is done any more.
    pub(super) fn renumbered(&self) -> Record {
        Record {
            count: self.count + 1,
            ..*self
        }
    }

    /// Is this the value that it names?
    #[must_use]
    pub fn names(&self, value: &Value) -> bool {
        let none = self.epoch == 0 && *value == Value::default();
        (self.epoch, self.nonce) == value.id() && (none || self.hash == value.hash())
    }

    /// Can anybody have written this? What cannot be is treated like a damaged record.
    #[must_use]
    pub fn makes_sense(&self) -> bool {
        let empty = Record {
            count: self.count,
            bal: self.bal,
            ..Record::default()
        };
        let placed = self.place.is_some_and(|place| place.writes > 0);
        let ballot = self.bal == Ballot::NONE || self.bal.is_possible();
        let value = placed && self.epoch > 0 && self.bal != Ballot::NONE;
        ballot && self.count < u64::MAX && (value || *self == empty) && {
            self.count > 0 || *self == Record::default()
        }
    }
}

impl Value {
    /// BLAKE3 of epoch, nonce (both little-endian) and bytes: what a record knows its value by.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.epoch.to_le_bytes());
        hasher.update(&self.nonce.to_le_bytes());
        hasher.update(&self.bytes);
        *hasher.finalize().as_bytes()
    }
}

impl Block {
    /// A value that is stored for a record to name, in the copy that `writes` names.
    pub(super) fn storing(writes: u64, ballot: Ballot, value: Value) -> Block {
        assert!(
            value.bytes.len() <= VALUE_MAX,
            "it was checked when proposed"
        );
        Block {
            writes,
            mbal: ballot,
            bal: ballot,
            value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_nobody_can_have_written_is_told() {
        let node = NodeId::new(1).unwrap();
        let good = Record {
            count: 2,
            bal: Ballot(0x101),
            place: Some(Place { node, writes: 1 }),
            epoch: 1,
            nonce: 7,
            hash: [9; 32],
        };
        let numbered = Record::default().renumbered();
        assert!(good.makes_sense() && numbered.makes_sense() && Record::default().makes_sense());
        let place = Some(Place { node, writes: 0 });
        let wrong = [
            Record { place, ..good },
            Record {
                place: None,
                ..good
            },
            Record { epoch: 0, ..good },
            Record { count: 0, ..good },
            Record {
                count: u64::MAX,
                ..good
            },
            Record {
                bal: Ballot::NONE,
                ..good
            },
            Record {
                bal: Ballot(1),
                ..good
            },
            Record {
                nonce: 7,
                ..numbered
            },
        ];
        for record in wrong {
            assert!(!record.makes_sense(), "{record:?}");
        }
    }
}
