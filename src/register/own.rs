//! The own block: what is on the disk of it, and the one write of it that may be under way.
//!
//! ```text
//! Idle --order--> Ordered --poll--> UnderWay --Written--> Idle
//!                    |                 '--WriteFailed--> Unclear --a read begun after it--> Idle
//!                    '--withdraw--> Idle
//! ```
//!
//! Nothing is ordered before a read has shown the block once, nor while a write may still land. A
//! failed write is never simply repeated: it may have landed and been seen, and its repetition into
//! the same copy, if torn, would take it back. The read says which it is, and `writes` goes on
//! from what is there, so that every write goes into the copy that is not the newest.

use serde::{Deserialize, Serialize};

use crate::time::Instant;

use super::{Ballot, Block, BlockSeen, Value};

/// The one write that may be under way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
enum Writing {
    #[default]
    Idle,
    Ordered(Block),
    UnderWay(Block),
    /// Returned an error at this moment; a read begun later shows what became of it.
    Unclear(Block, Instant),
}

/// What a read said about the own block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing new.
    Same,
    /// A failed write is on the disk after all.
    Landed,
    /// A failed write is not on the disk.
    NotLanded,
    /// Somebody else wrote it, or a write was lost.
    Foreign,
}

/// The own block.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Own {
    /// What is on the disk; none before the first read. Newer by a write under way.
    block: Option<Block>,
    writing: Writing,
    /// End of the last write, failed or not.
    finished: Instant,
}

impl Own {
    /// The block, once it has been read.
    pub(super) fn block(&self) -> Option<&Block> {
        self.block.as_ref()
    }

    /// End of the last write, failed or not.
    pub(super) fn finished(&self) -> Instant {
        self.finished
    }

    /// The block, if a write of it may be ordered now.
    pub(super) fn writable(&self) -> Option<&Block> {
        match self.writing {
            Writing::Idle => self.block.as_ref(),
            Writing::Ordered(_) | Writing::UnderWay(_) | Writing::Unclear(..) => None,
        }
    }

    /// From when on a read must be begun to recover the block or to clear up a failed write.
    pub(super) fn wants_read_since(&self) -> Option<Instant> {
        match (&self.block, &self.writing) {
            (None, _) => Some(Instant(0)),
            (Some(_), Writing::Unclear(_, at)) => Some(*at),
            (Some(_), Writing::Idle | Writing::Ordered(_) | Writing::UnderWay(_)) => None,
        }
    }

    /// Orders the next write. Ballots on the own block never fall.
    pub(super) fn order(&mut self, mbal: Ballot, accepted: Option<(Ballot, Value)>) {
        let block = self
            .writable()
            .expect("a write is ordered only when it may be");
        let (bal, value) = accepted.unwrap_or_else(|| (block.bal, block.value.clone()));
        assert!(
            mbal >= block.mbal && bal >= block.bal && bal <= mbal,
            "own ballots never fall"
        );
        let writes = block.writes + 1;
        self.writing = Writing::Ordered(Block {
            writes,
            mbal,
            bal,
            value,
        });
    }

    /// Takes back an order that nobody has polled yet; false if there is none.
    pub(super) fn withdraw(&mut self) -> bool {
        match self.writing {
            Writing::Ordered(_) => {
                self.writing = Writing::Idle;
                true
            }
            Writing::Idle | Writing::UnderWay(_) | Writing::Unclear(..) => false,
        }
    }

    /// The write to be done now.
    pub(super) fn poll(&mut self) -> Option<Block> {
        match std::mem::take(&mut self.writing) {
            Writing::Ordered(block) => {
                self.writing = Writing::UnderWay(block.clone());
                Some(block)
            }
            other @ (Writing::Idle | Writing::UnderWay(_) | Writing::Unclear(..)) => {
                self.writing = other;
                None
            }
        }
    }

    /// The write under way is on the disk; false if there is none.
    pub(super) fn written(&mut self, at: Instant) -> bool {
        match std::mem::take(&mut self.writing) {
            Writing::UnderWay(block) => {
                self.block = Some(block);
                self.finished = at;
                true
            }
            other @ (Writing::Idle | Writing::Ordered(_) | Writing::Unclear(..)) => {
                self.writing = other;
                false
            }
        }
    }

    /// The write under way returned an error; false if there is none.
    pub(super) fn failed(&mut self, at: Instant) -> bool {
        match std::mem::take(&mut self.writing) {
            Writing::UnderWay(block) => {
                self.writing = Writing::Unclear(block, at);
                self.finished = at;
                true
            }
            other @ (Writing::Idle | Writing::Ordered(_) | Writing::Unclear(..)) => {
                self.writing = other;
                false
            }
        }
    }

    /// A read begun at `begun` shows the own block so. Must make sense if it is good.
    pub(super) fn seen(&mut self, begun: Instant, seen: &BlockSeen) -> Finding {
        let blank = Block::default();
        let seen = match seen {
            BlockSeen::Blank => &blank,
            BlockSeen::Good(block) => block,
            BlockSeen::Damaged => return Finding::Same,
        };
        let Some(block) = &self.block else {
            self.block = Some(seen.clone());
            return Finding::Same;
        };
        if begun < self.finished {
            return Finding::Same;
        }
        match &self.writing {
            Writing::Idle | Writing::Ordered(_) if seen == block => Finding::Same,
            Writing::UnderWay(new) if seen == block || seen == new => Finding::Same,
            Writing::Unclear(new, _) if seen == new => {
                self.block = Some(new.clone());
                self.writing = Writing::Idle;
                Finding::Landed
            }
            Writing::Unclear(..) if seen == block => {
                self.writing = Writing::Idle;
                Finding::NotLanded
            }
            Writing::Idle | Writing::Ordered(_) | Writing::UnderWay(_) | Writing::Unclear(..) => {
                Finding::Foreign
            }
        }
    }
}
