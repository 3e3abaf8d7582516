//! What reads of the disks say, whoever's the blocks are, together with the node's own voice.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{NodeId, NodeSet};
use crate::time::Instant;

use super::{Ballot, Block, BlockSeen, Value};

/// The blocks of one read of one disk, boiled down.
#[derive(Debug)]
pub(super) struct Blocks<'a> {
    /// Highest ballot begun by anybody.
    pub(super) mbal: Ballot,
    /// The block with the highest accepted ballot; none where nothing was ever accepted.
    pub(super) top: Option<&'a Block>,
    /// Blocks that nothing can be said about. Unless this is empty the rest is a lower bound only.
    pub(super) damaged: NodeSet,
}

impl<'a> Blocks<'a> {
    /// Looks at every block there is; those of `nodes` must be there.
    pub(super) fn of(blocks: &'a [BlockSeen], nodes: NodeSet) -> Blocks<'a> {
        let mut all = Blocks {
            mbal: Ballot::NONE,
            top: None,
            damaged: NodeSet::EMPTY,
        };
        for (index, node) in NodeId::all().enumerate() {
            match blocks.get(index) {
                Some(BlockSeen::Blank) => {}
                Some(BlockSeen::Good(block)) if block.makes_sense(node) => all.add(block),
                Some(BlockSeen::Good(_) | BlockSeen::Damaged) => all.damaged.insert(node),
                None if nodes.contains(node) => all.damaged.insert(node),
                None => {}
            }
        }
        all
    }

    fn add(&mut self, block: &'a Block) {
        self.mbal = self.mbal.max(block.mbal);
        if block.bal > self.bal() {
            self.top = Some(block);
        }
    }

    /// Highest accepted ballot.
    pub(super) fn bal(&self) -> Ballot {
        self.top.map_or(Ballot::NONE, |block| block.bal)
    }
}

/// What the last good read of one disk has left behind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Look {
    /// Before it was issued, and after it had returned.
    pub(super) begun: Instant,
    pub(super) ended: Instant,
    /// Highest ballot begun by anybody.
    pub(super) mbal: Ballot,
    /// The block with the highest accepted ballot.
    pub(super) top: Option<Arc<Block>>,
}

impl Look {
    /// Highest accepted ballot.
    pub(super) fn bal(&self) -> Ballot {
        self.top.as_ref().map_or(Ballot::NONE, |block| block.bal)
    }
}

/// What a majority of the disks and the node itself say.
#[derive(Debug)]
pub(super) struct Scan {
    /// Each disk of some majority was read no earlier than this.
    pub(super) begun: Instant,
    /// All reads that are in this had ended by then.
    pub(super) ended: Instant,
    /// Highest ballot begun by anybody, the own node included.
    pub(super) mbal: Ballot,
    /// The block with the highest accepted ballot; none where nothing was ever accepted.
    top: Option<Arc<Block>>,
    /// The value of that ballot is on a majority of the disks, and not only on fewer or in this
    /// node.
    pub(super) is_on_disk: bool,
}

impl Scan {
    /// Puts together what was last seen of each disk, and what this node itself has promised and
    /// accepted; nothing while fewer disks were seen than it takes for a majority.
    pub(super) fn of<'a>(
        looks: impl Iterator<Item = &'a Look> + Clone,
        majority: usize,
        own: &Arc<Block>,
    ) -> Option<Scan> {
        // Of the moments, latest first, the one that a majority is not earlier than.
        let later = |than: Instant| looks.clone().filter(move |look| look.begun > than).count();
        let seen = looks.clone().count();
        if seen < majority {
            return None;
        }
        let begun = looks
            .clone()
            .map(|look| look.begun)
            .filter(|begun| later(*begun) < majority)
            .min()?;
        let ended = looks.clone().map(|look| look.ended).max()?;
        let top = looks.clone().max_by_key(|look| look.bal());
        let top = top.and_then(|look| look.top.as_ref());
        let bal = top.map_or(Ballot::NONE, |block| block.bal);
        let top = if own.bal > bal { Some(own) } else { top };
        let bal = bal.max(own.bal);
        let holding = looks.clone().filter(|look| look.bal() == bal).count();
        let mbal = looks.map(|look| look.mbal).max();
        Some(Scan {
            begun,
            ended,
            mbal: own.mbal.max(mbal.unwrap_or_default()),
            top: top.cloned(),
            is_on_disk: holding >= majority,
        })
    }

    /// Highest accepted ballot.
    pub(super) fn bal(&self) -> Ballot {
        self.top.as_ref().map_or(Ballot::NONE, |block| block.bal)
    }

    /// The value of the highest accepted ballot.
    pub(super) fn value(&self) -> Option<&Value> {
        self.top.as_ref().map(|block| &block.value)
    }
}
