//! What one read of all blocks says, whoever's they are, together with the node's own voice.

use crate::model::{NodeId, NodeSet};

use super::{Ballot, Block, BlockSeen, Value};

/// The blocks of one read, boiled down.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    /// Highest ballot begun by anybody, the own node included.
    pub(super) mbal: Ballot,
    /// The block with the highest accepted ballot; none where nothing was ever accepted.
    pub(super) top: Option<&'a Block>,
    /// Highest ballot that a value was accepted in *on the disk*.
    pub(super) disk_bal: Ballot,
    /// Blocks that nothing can be said about. Unless this is empty the rest is a lower bound only.
    pub(super) damaged: NodeSet,
}

impl<'a> Scan<'a> {
    /// Looks at every block there is, those of `nodes` must be there, and then at what this node
    /// itself has promised and accepted.
    pub(super) fn of(blocks: &'a [BlockSeen], nodes: NodeSet, own: &'a Block) -> Scan<'a> {
        let mut scan = Scan {
            mbal: Ballot::NONE,
            top: None,
            disk_bal: Ballot::NONE,
            damaged: NodeSet::EMPTY,
        };
        for (index, node) in NodeId::all().enumerate() {
            match blocks.get(index) {
                Some(BlockSeen::Blank) => {}
                Some(BlockSeen::Good(block)) if block.makes_sense(node) => scan.add(block),
                Some(BlockSeen::Good(_) | BlockSeen::Damaged) => scan.damaged.insert(node),
                None if nodes.contains(node) => scan.damaged.insert(node),
                None => {}
            }
        }
        scan.disk_bal = scan.bal();
        scan.add(own);
        scan
    }

    fn add(&mut self, block: &'a Block) {
        self.mbal = self.mbal.max(block.mbal);
        if block.bal > self.bal() {
            self.top = Some(block);
        }
    }

    /// Is the value of the highest ballot on the disk, and not only in this node?
    pub(super) fn is_on_disk(&self) -> bool {
        self.disk_bal == self.bal()
    }

    /// Highest accepted ballot.
    pub(super) fn bal(&self) -> Ballot {
        self.top.map_or(Ballot::NONE, |block| block.bal)
    }

    /// The value of the highest accepted ballot.
    pub(super) fn value(&self) -> Option<&'a Value> {
        self.top.map(|block| &block.value)
    }
}
