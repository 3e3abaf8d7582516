//! What a node wrote down before it reset itself: one sector in a small file of its own disk.
//!
//! Written by a thread that may wait for the disk, while the guard waits for it a moment at most;
//! read, and wiped, after the next boot. All integers are little-endian.
//!
//! ```text
//! offset  bytes  field
//!      0      8  magic     "STFLASTW"
//!      8      2  version   of this layout
//!     10      1  reason    a `Reason`
//!     11      5  zero
//!     16     16  boot      id of the boot that ends
//!     32      8  epoch     of the view the node knew
//!     40      8  tasks     that are not released, bit by task index
//!     48      8  at        boot time, ns
//!     56      4  crc       CRC32C of all before it
//!     60    452  zero
//! ```

use crate::time::Instant;

/// Bytes of the file: one sector, which a disk writes as a whole or not at all.
pub const LAST_WORDS_LEN: usize = 512;

/// First bytes of words that were written.
const MAGIC: [u8; 8] = *b"STFLASTW";

/// Version of the layout.
const VERSION: u16 = 1;

const REASON: usize = 10;
const BOOT: usize = 16;
const EPOCH: usize = 32;
const TASKS: usize = 40;
const AT: usize = 48;
const CRC: usize = 56;
const END: usize = 60;

/// Why a node resets itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// Addresses or processes were still there long after the release bound.
    NotReleased = 1,
    /// A task could not be stopped, such as for a volume that stays mounted, and the node has no
    /// lease any more.
    NotStopped = 2,
}

impl Reason {
    /// For people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Reason::NotReleased => "what it held could not be released in time",
            Reason::NotStopped => "what it ran could not be stopped, and its lease was over",
        }
    }

    /// The reason with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Reason> {
        [Reason::NotReleased, Reason::NotStopped]
            .into_iter()
            .find(|reason| *reason as u8 == number)
    }
}

/// The last words of one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastWords {
    /// Why.
    pub reason: Reason,
    /// The boot that they end.
    pub boot: [u8; 16],
    /// Epoch of the view that the node knew.
    pub epoch: u64,
    /// Tasks that were not released, bit by task index.
    pub tasks: u64,
    /// When, on the clock of that boot.
    pub at: Instant,
}

impl LastWords {
    /// The bytes of the file.
    #[must_use]
    pub fn encode(&self) -> [u8; LAST_WORDS_LEN] {
        let mut bytes = [0; LAST_WORDS_LEN];
        let mut put = |at: usize, field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
        };
        put(0, &MAGIC);
        put(MAGIC.len(), &VERSION.to_le_bytes());
        put(REASON, &[self.reason as u8]);
        put(BOOT, &self.boot);
        put(EPOCH, &self.epoch.to_le_bytes());
        put(TASKS, &self.tasks.to_le_bytes());
        put(AT, &self.at.0.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..CRC]);
        bytes[CRC..END].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// What the file says; `None` for anything but whole words of this version.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<LastWords> {
        let bytes: &[u8; LAST_WORDS_LEN] = bytes.try_into().ok()?;
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        let crc = crc32c::crc32c(&bytes[..CRC]);
        let whole = bytes[..MAGIC.len()] == MAGIC
            && bytes[MAGIC.len()..REASON] == VERSION.to_le_bytes()
            && bytes[CRC..END] == crc.to_le_bytes();
        if !whole {
            return None;
        }
        Some(LastWords {
            reason: Reason::from_number(bytes[REASON])?,
            boot: std::array::from_fn(|byte| bytes[BOOT + byte]),
            epoch: word(EPOCH),
            tasks: word(TASKS),
            at: Instant(word(AT)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> LastWords {
        LastWords {
            reason: Reason::NotReleased,
            boot: std::array::from_fn(|byte| byte as u8),
            epoch: 17,
            tasks: 0b101,
            at: Instant(5_000_000_000),
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_layout() {
        let bytes = words().encode();
        let mut golden = b"STFLASTW\x01\x00\x01\x00\x00\x00\x00\x00".to_vec();
        golden.extend(0..16);
        golden.extend([17, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend([0, 0xf2, 5, 0x2a, 1, 0, 0, 0]);
        assert_eq!(bytes[..CRC], golden);
        assert_eq!(bytes[CRC..END], crc32c::crc32c(&golden).to_le_bytes());
        assert_eq!(bytes[END..], [0; LAST_WORDS_LEN - END]);
        assert_eq!(LastWords::decode(&bytes), Some(words()));
    }

    #[test]
    fn what_is_not_whole_says_nothing() {
        assert_eq!(LastWords::decode(&[]), None);
        assert_eq!(LastWords::decode(&[0; LAST_WORDS_LEN]), None);
        let bytes = words().encode();
        for bit in 0..END * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(LastWords::decode(&changed), None, "bit {bit}");
        }
    }
}
