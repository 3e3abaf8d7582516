//! A contest: several change one block by COMPARE AND WRITE at once, and each change must have one
//! winner.
//!
//! The block is a counter. Each contender reads it and replaces it by one in which its own count is
//! one higher:
//!
//! ```text
//! offset  bytes  field
//!      0      4  magic     "STCT"
//!      4      4  crc       CRC32C of bytes 8..512
//!      8      8  total     all changes that were ever won
//!     16    256  16 times  id of a contender (0 = none), changes it has won
//!    272      8  departed  changes won by those who are not among the 16 any more
//!    280    232  zero
//! ```
//!
//! Who was told that it has won must find its count in every later block: if two win on one block,
//! the later one writes over the count of the earlier one, which finds it missing. So each
//! contender knows for itself whether one of its changes was lost, and nobody has to compare notes.
//!
//! A count that is one higher than it was told is no lost change. It was done, and the answer was
//! lost: then the outcome is unclear, or something on the way has sent the command again by itself,
//! and what came back is the second one's refusal.
//!
//! The seventeenth contender takes the place of the first, and so on. Who finds itself missing
//! while nobody is left of those who were there before it has made room, and nothing is lost: it
//! ends. While one of them is left it has not.
//!
//! Contests are held by people (`standfast disk contend`) and by the nodes: one that starts is the
//! *challenger*, all others take part as *seconds*. The ids of nodes say which of both they are, so
//! that nobody mistakes a second for a challenger and they call each other for ever:
//!
//! ```text
//! bits 48..64  0x5354      32..40  node
//!      40..48  1 = challenger, 2 = second      0..32  random
//! ```

use serde::Serialize;

use super::device::{AreaError, Blocks, read};
use super::{Geometry, SECTOR_LEN, SLOT_LEN, Side};
use crate::model::NodeId;
use crate::register::Compared;

impl Geometry {
    /// The slot that contests are held in: that of the second shadow copy.
    #[must_use]
    pub const fn contest(self) -> u64 {
        self.view(Side::B)
    }
}

const MAGIC: [u8; 4] = *b"STCT";
const ENTRIES: usize = 16;
const DEPARTED_AT: usize = 16 + 16 * ENTRIES;

/// How the id of a node's contender begins.
const OF_A_NODE: u64 = 0x5354 << 48;

/// What a node takes part in a contest as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It has just started, and calls the others.
    Challenger,
    /// It has been called.
    Second,
}

impl Part {
    /// The id of a contender of this node.
    #[must_use]
    pub fn id(self, node: NodeId, random: u32) -> u64 {
        let part = match self {
            Part::Challenger => 1,
            Part::Second => 2,
        };
        OF_A_NODE | part << 40 | u64::from(node.number()) << 32 | u64::from(random)
    }
}

/// Reads the block of contests. One that is no counter is read once more: it may have been read
/// while it was written.
///
/// # Errors
///
/// The disk cannot be read.
///
/// # Panics
///
/// `length` is not that of a block, 512 to 4096 bytes.
pub fn read_contest(
    dev: &impl Blocks,
    geometry: Geometry,
    length: usize,
) -> Result<Vec<u8>, AreaError> {
    let mut slot = [0; SLOT_LEN];
    read(dev, geometry.contest(), &mut slot)?;
    if Counter::decode(&slot[..length]).is_none() {
        read(dev, geometry.contest(), &mut slot)?;
    }
    Ok(slot[..length].to_vec())
}

/// Tells a node that takes no part when it is called.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    known: Vec<u64>,
}

impl Watch {
    /// Is there a challenger in the block that was not there at the last look?
    ///
    /// # Panics
    ///
    /// The block is shorter than 512 bytes.
    pub fn look(&mut self, block: &[u8]) -> bool {
        let entries = Counter::decode(block).unwrap_or_default().entries;
        let ids = entries.iter().map(|(id, _)| *id);
        let challengers: Vec<u64> = ids.filter(|id| id >> 40 == OF_A_NODE >> 40 | 1).collect();
        let called = challengers.iter().any(|id| !self.known.contains(id));
        self.known = challengers;
        called
    }
}

/// The counter block, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counter {
    total: u64,
    departed: u64,
    /// By the time of their first win; the oldest makes room.
    entries: Vec<(u64, u64)>,
}

impl Counter {
    /// `None` if it is none; zeros count nothing.
    fn decode(block: &[u8]) -> Option<Counter> {
        let word = |at: usize| {
            block[at..at + 8]
                .first_chunk()
                .map_or(0, |b| u64::from_le_bytes(*b))
        };
        let sector = &block[..SECTOR_LEN];
        if sector.iter().all(|byte| *byte == 0) {
            return Some(Counter::default());
        }
        if sector[..4] != MAGIC || sector[4..8] != crc32c::crc32c(&sector[8..]).to_le_bytes() {
            return None;
        }
        let entries = (0..ENTRIES).map(|entry| (word(16 + 16 * entry), word(24 + 16 * entry)));
        Some(Counter {
            total: word(8),
            departed: word(DEPARTED_AT),
            entries: entries.filter(|(id, _)| *id != 0).collect(),
        })
    }

    fn encode(&self, length: usize) -> Vec<u8> {
        let mut block = vec![0; length];
        block[8..16].copy_from_slice(&self.total.to_le_bytes());
        for (entry, (id, wins)) in self.entries.iter().enumerate() {
            let at = 16 + 16 * entry;
            block[at..at + 8].copy_from_slice(&id.to_le_bytes());
            block[at + 8..at + 16].copy_from_slice(&wins.to_le_bytes());
        }
        block[DEPARTED_AT..DEPARTED_AT + 8].copy_from_slice(&self.departed.to_le_bytes());
        block[..4].copy_from_slice(&MAGIC);
        let crc = crc32c::crc32c(&block[8..SECTOR_LEN]).to_le_bytes();
        block[4..8].copy_from_slice(&crc);
        block
    }

    fn place(&self, id: u64) -> Option<usize> {
        self.entries.iter().position(|(known, _)| *known == id)
    }

    fn wins(&self, id: u64) -> u64 {
        self.place(id).map_or(0, |place| self.entries[place].1)
    }

    fn adds_up(&self) -> bool {
        let wins = self.entries.iter().map(|(_, wins)| *wins);
        let sum = wins.fold(self.departed, u64::wrapping_add);
        self.total == sum
    }

    /// One more win of this contender.
    fn won_by(&self, id: u64) -> Counter {
        let mut next = self.clone();
        match next.entries.iter_mut().find(|(known, _)| *known == id) {
            Some((_, wins)) => *wins = wins.wrapping_add(1),
            None => {
                if next.entries.len() == ENTRIES {
                    let (_, wins) = next.entries.remove(0);
                    next.departed = next.departed.wrapping_add(wins);
                }
                next.entries.push((id, 1));
            }
        }
        next.total = next.total.wrapping_add(1);
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
    others: u64,
    /// What the last answer leaves open: the next block tells.
    open: Option<Compared>,
    first: Option<Counter>,
    last: Counter,
    /// Who was there before this one, as far as they have not made room.
    elders: Vec<u64>,
    made_room: bool,
    broken: bool,
}

impl Contender {
    /// `id` is drawn at random, and not 0, or is a [`Part::id`]; `rounds` changes are sent once
    /// others are there.
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
            others: 0,
            open: None,
            first: None,
            last: Counter::default(),
            elders: Vec::new(),
            made_room: false,
            broken: false,
        }
    }

    /// The block that was just read. Returns what to put in its place; nothing once it is over.
    ///
    /// # Panics
    ///
    /// The block is shorter than 512 bytes.
    pub fn read(&mut self, block: &[u8]) -> Option<Vec<u8>> {
        // What is no counter counts nothing.
        let counter = Counter::decode(block).unwrap_or_default();
        let place = counter.place(self.id);
        let mine = counter.wins(self.id);
        if let Some(answer) = self.open.take()
            && mine == self.won + 1
        {
            self.won += 1;
            self.repeated += u64::from(answer == Compared::Miscompare);
        }
        let is_elder = |(id, _): &(u64, u64)| self.elders.contains(id);
        self.made_room = self.won > 0
            && place.is_none()
            && counter.entries.len() == ENTRIES
            && !counter.entries.iter().any(is_elder);
        let counted = mine == self.won || self.made_room;
        self.broken |= !counted || !counter.adds_up() || counter.total < self.last.total;
        let next = counter.won_by(self.id);
        let place = next.place(self.id).unwrap_or(0);
        self.elders = next.entries[..place].iter().map(|(id, _)| *id).collect();
        let before = self.first.get_or_insert_with(|| counter.clone()).total;
        self.others = counter
            .total
            .saturating_sub(before)
            .saturating_sub(self.won);
        self.last = counter;
        let over = self.broken || self.made_room || self.rounds == self.rounds_wanted;
        (!over).then(|| next.encode(block.len()))
    }

    /// How the change that [`read`](Self::read) asked for has ended.
    pub fn answered(&mut self, outcome: Compared) {
        match outcome {
            Compared::Done => self.won += 1,
            Compared::Miscompare => self.refused += 1,
            Compared::Unclear => self.unclear += 1,
        }
        self.open = Some(outcome).filter(|outcome| *outcome != Compared::Done);
        self.rounds += u64::from(self.others > 0);
    }

    /// Has anybody else won a change since the beginning?
    #[must_use]
    pub fn has_company(&self) -> bool {
        self.others > 0
    }

    /// How many others are known to have won one, 16 at most.
    #[must_use]
    pub fn company(&self) -> usize {
        let before = |id| self.first.as_ref().map_or(0, |first| first.wins(id));
        let others = self.last.entries.iter().filter(|(id, _)| *id != self.id);
        others.filter(|(id, wins)| *wins != before(*id)).count()
    }

    /// What has been seen up to the last block that was read.
    #[must_use]
    pub fn report(&self) -> ContestReport {
        let contended = self.refused > self.repeated && self.others > 0;
        let verdict = match (self.broken, contended) {
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
            others: self.others,
            total: self.last.total,
        }
    }
}
