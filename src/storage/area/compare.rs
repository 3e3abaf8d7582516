//! Does a disk keep what COMPARE AND WRITE promises? By one node alone, and by several at once.
//!
//! The contest of several is a counter in one block. Each contender reads it and replaces it by one
//! in which its own count is one higher:
//!
//! ```text
//! offset  bytes  field
//!      0      4  magic     "STCT"
//!      4      4  crc       CRC32C of bytes 8..512
//!      8      8  total     all changes that were ever won
//!     16    256  16 times  id of a contender (0 = none), changes it has won
//!    272    240  zero
//! ```
//!
//! Who was told that it has won must find its count in every later block: if two win on one block,
//! the later one writes over the count of the earlier one, which finds it missing. So each
//! contender knows for itself whether one of its changes was lost, and nobody has to compare notes.
//!
//! A count that is one higher than it was told is no lost change. It was done, and the answer was
//! lost: then the outcome is unclear, or something on the way has sent the command again by itself,
//! and what came back is the second one's refusal.

use std::io;

use serde::Serialize;

use super::device::{AreaError, Blocks, read};
use super::{Geometry, SECTOR_LEN, SLOT_LEN, Side};
use crate::register::Compared;

/// COMPARE AND WRITE of one logical block.
pub trait CompareAndWrite {
    /// Bytes of a logical block.
    fn block_bytes(&self) -> usize;

    /// Writes `new` at byte `offset` if `expected` is there; one block each. Sent once.
    ///
    /// # Errors
    ///
    /// Whatever is neither done nor refused; it may be done, or be done later.
    fn compare_and_write(
        &mut self,
        offset: u64,
        expected: &[u8],
        new: &[u8],
    ) -> io::Result<Compared>;
}

/// Targets that offer the command and do not keep what it promises: vendor, beginning of the
/// product, and why (the INQUIRY fields without the blanks that fill them).
pub const FAKES: [(&str, &str, &str); 1] = [(
    "IET",
    "VIRTUAL-DISK",
    "tgt compares and writes in two steps without a lock, so that two nodes can both win",
)];

/// Targets that keep it until something else happens to the disk: the vendor, and what. They are
/// used where a person asks for that, and not by choice.
pub const DOUBTFUL: [(&str, &str); 1] = [(
    "LIO-ORG",
    "Linux's target lets two nodes win at once from the moment on at which a reservation of this \
     disk has made it refuse one of them",
)];

/// Why a disk has failed its self-test.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] AreaError),
    /// A command had no clear outcome.
    #[error("COMPARE AND WRITE had no clear outcome")]
    Command(#[source] io::Error),
    /// It refused what was there, or took what was not.
    #[error("{expected}, but the disk said otherwise")]
    Answer {
        /// What should have happened, in words.
        expected: &'static str,
    },
    /// It said one thing and did another.
    #[error("{expected}, but other bytes were read back")]
    Content {
        /// What should have been there, in words.
        expected: &'static str,
    },
}

/// Makes the disk change a block, refuse a change, and change it back, and reads the block after
/// each. Nobody else may use the block meanwhile, whose content is as before in the end.
///
/// # Errors
///
/// [`SelfTestError`]; then the block may hold something else.
pub fn self_test(
    dev: &impl Blocks,
    target: &mut dyn CompareAndWrite,
    offset: u64,
) -> Result<(), SelfTestError> {
    let length = target.block_bytes();
    let mut slot = [0; SLOT_LEN];
    read(dev, offset, &mut slot)?;
    let before = slot[..length].to_vec();
    let inverted: Vec<u8> = before.iter().map(|byte| !byte).collect();
    // Differs from what is there in the last byte only.
    let mut nearly = inverted.clone();
    nearly[length - 1] ^= 1;
    let steps = [
        (
            &before,
            &inverted,
            Compared::Done,
            "a block that was as expected is changed",
        ),
        (
            &nearly,
            &before,
            Compared::Miscompare,
            "a block with another last byte is left alone",
        ),
        (
            &before,
            &nearly,
            Compared::Miscompare,
            "a block that is another one is left alone",
        ),
        (
            &inverted,
            &before,
            Compared::Done,
            "the block is changed back",
        ),
    ];
    let mut now = &before;
    for (expected, new, answer, words) in steps {
        let answered = target.compare_and_write(offset, expected, new);
        if answered.map_err(SelfTestError::Command)? != answer {
            return Err(SelfTestError::Answer { expected: words });
        }
        if answer == Compared::Done {
            now = new;
        }
        read(dev, offset, &mut slot)?;
        if slot[..length] != **now {
            return Err(SelfTestError::Content { expected: words });
        }
    }
    Ok(())
}

impl Geometry {
    /// The slot that contests are held in: that of the second shadow copy.
    #[must_use]
    pub const fn contest(self) -> u64 {
        self.view(Side::B)
    }
}

const MAGIC: [u8; 4] = *b"STCT";
const ENTRIES: usize = 16;

/// The counter block, decoded. What is no counter counts nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counter {
    total: u64,
    /// By the time of their first win; the oldest makes room.
    entries: Vec<(u64, u64)>,
}

impl Counter {
    fn decode(block: &[u8]) -> Counter {
        let word = |at: usize| {
            block[at..at + 8]
                .first_chunk()
                .map_or(0, |b| u64::from_le_bytes(*b))
        };
        let crc = crc32c::crc32c(&block[8..SECTOR_LEN]).to_le_bytes();
        if block[..4] != MAGIC || block[4..8] != crc {
            return Counter::default();
        }
        let entries = (0..ENTRIES).map(|entry| (word(16 + 16 * entry), word(24 + 16 * entry)));
        Counter {
            total: word(8),
            entries: entries.filter(|(id, _)| *id != 0).collect(),
        }
    }

    fn encode(&self, length: usize) -> Vec<u8> {
        let mut block = vec![0; length];
        block[8..16].copy_from_slice(&self.total.to_le_bytes());
        for (entry, (id, wins)) in self.entries.iter().enumerate() {
            let at = 16 + 16 * entry;
            block[at..at + 8].copy_from_slice(&id.to_le_bytes());
            block[at + 8..at + 16].copy_from_slice(&wins.to_le_bytes());
        }
        block[..4].copy_from_slice(&MAGIC);
        let crc = crc32c::crc32c(&block[8..SECTOR_LEN]).to_le_bytes();
        block[4..8].copy_from_slice(&crc);
        block
    }

    fn wins(&self, id: u64) -> u64 {
        let own = self.entries.iter().find(|(known, _)| *known == id);
        own.map_or(0, |(_, wins)| *wins)
    }

    /// All others together.
    fn others(&self, id: u64) -> u64 {
        let others = self.entries.iter().filter(|(known, _)| *known != id);
        others.map(|(_, wins)| wins).sum()
    }

    fn adds_up(&self) -> bool {
        self.total == self.entries.iter().map(|(_, wins)| wins).sum::<u64>()
    }

    /// One more win of this contender.
    fn won_by(&self, id: u64) -> Counter {
        let mut next = self.clone();
        match next.entries.iter_mut().find(|(known, _)| *known == id) {
            Some((_, wins)) => *wins += 1,
            None => {
                if next.entries.len() == ENTRIES {
                    let (_, gone) = next.entries.remove(0);
                    next.total -= gone;
                }
                next.entries.push((id, 1));
            }
        }
        next.total += 1;
        next
    }
}

/// What a contest has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Several changed the block at once, and each change had one winner.
    Proved,
    /// Nobody else was there, or never at the same time: nothing is proved.
    NotContended,
    /// A change that was won is missing: the disk does not do what it says.
    Broken,
}

/// How a contest went, for one contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ContestReport {
    /// What it has shown.
    pub verdict: Verdict,
    /// Changes that were sent while others were there.
    pub rounds: u64,
    /// Changes won, those before others came included.
    pub won: u64,
    /// Changes told as refused, because somebody was faster.
    pub refused: u64,
    /// Changes of unclear outcome.
    pub unclear: u64,
    /// Changes that were told as refused and were done: something on the way had sent them twice.
    pub repeated: u64,
    /// Changes that others have won meanwhile.
    pub others: u64,
    /// Changes of the last block read, of all times and contenders.
    pub total: u64,
}

/// One contender, which is shown each block that is read and told each answer.
#[derive(Clone, Debug)]
pub struct Contender {
    id: u64,
    rounds_wanted: u64,
    rounds: u64,
    won: u64,
    refused: u64,
    unclear: u64,
    repeated: u64,
    /// What the last answer leaves open: the next block tells.
    open: Option<Compared>,
    first: Option<Counter>,
    last: Counter,
    broken: bool,
}

impl Contender {
    /// `id` is drawn at random, and not 0; `rounds` changes are sent once others are there.
    ///
    /// # Panics
    ///
    /// `id` is 0.
    #[must_use]
    pub fn new(id: u64, rounds: u64) -> Contender {
        assert_ne!(id, 0, "0 is nobody");
        Contender {
            id,
            rounds_wanted: rounds,
            rounds: 0,
            won: 0,
            refused: 0,
            unclear: 0,
            repeated: 0,
            open: None,
            first: None,
            last: Counter::default(),
            broken: false,
        }
    }

    /// The block that was just read. Returns what to put in its place; nothing once it is over.
    ///
    /// # Panics
    ///
    /// The block is shorter than 512 bytes.
    pub fn read(&mut self, block: &[u8]) -> Option<Vec<u8>> {
        let counter = Counter::decode(block);
        let mine = counter.wins(self.id);
        if let Some(answer) = self.open.take()
            && mine == self.won + 1
        {
            self.won += 1;
            self.repeated += u64::from(answer == Compared::Miscompare);
        }
        self.broken |= mine != self.won || !counter.adds_up() || counter.total < self.last.total;
        let next = counter.won_by(self.id).encode(block.len());
        self.first.get_or_insert_with(|| counter.clone());
        self.last = counter;
        let over = self.broken || self.rounds == self.rounds_wanted;
        (!over).then_some(next)
    }

    /// How the change that [`read`](Self::read) asked for has ended.
    pub fn answered(&mut self, outcome: Compared) {
        match outcome {
            Compared::Done => self.won += 1,
            Compared::Miscompare => self.refused += 1,
            Compared::Unclear => self.unclear += 1,
        }
        self.open = Some(outcome).filter(|outcome| *outcome != Compared::Done);
        self.rounds += u64::from(self.others() > 0);
    }

    /// Has anybody else won a change since the beginning?
    #[must_use]
    pub fn has_company(&self) -> bool {
        self.others() > 0
    }

    fn others(&self) -> u64 {
        let first = self.first.as_ref().map_or(0, |first| first.others(self.id));
        self.last.others(self.id).saturating_sub(first)
    }

    /// What has been seen up to the last block that was read.
    #[must_use]
    pub fn report(&self) -> ContestReport {
        let verdict = match (self.broken, self.refused > 0 && self.others() > 0) {
            (true, _) => Verdict::Broken,
            (false, true) => Verdict::Proved,
            (false, false) => Verdict::NotContended,
        };
        ContestReport {
            verdict,
            rounds: self.rounds,
            won: self.won,
            refused: self.refused,
            unclear: self.unclear,
            repeated: self.repeated,
            others: self.others(),
            total: self.last.total,
        }
    }
}
