//! What the register holds and how a change of it is numbered.

use serde::{Deserialize, Serialize};

/// Largest encoded view: with the block's own fields it fits one 4 KiB slot at 64 nodes, 64 tasks.
pub const VALUE_MAX: usize = 3584;

/// One version of the register's content. Epochs of decided values rise by exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Value {
    /// Number of this version; 0 means never written.
    pub epoch: u64,
    /// Drawn by the proposer for every proposal anew: after an unclear outcome it decides who won.
    pub nonce: u64,
    /// The encoded view, at most [`VALUE_MAX`] bytes. The register does not look into it.
    pub bytes: Vec<u8>,
}

impl Value {
    /// Epoch and nonce: what a value is recognised by.
    #[must_use]
    pub const fn id(&self) -> (u64, u64) {
        (self.epoch, self.nonce)
    }
}

/// A proposal's number: unique to its proposer, ordered by counter, then node.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Ballot(pub u64);

impl Ballot {
    /// No ballot yet: smaller than every real one.
    pub const NONE: Ballot = Ballot(0);

    /// Counters from here on make no sense: a thousand ballots a second take 8,000 years to get
    /// there, and beyond 2^56 the arithmetic would wrap.
    pub const COUNTER_MAX: u64 = 1 << 48;

    /// The smallest ballot of `node` above `self`.
    #[must_use]
    pub const fn next_for(self, node: crate::model::NodeId) -> Ballot {
        Ballot((((self.0 >> 8) + 1) << 8) | node.number() as u64)
    }

    /// Can this node have begun it?
    pub(super) const fn is_of(self, node: crate::model::NodeId) -> bool {
        self.0 & 0xff == node.number() as u64 && self.is_possible()
    }

    /// Can any node have begun it?
    pub(super) const fn is_possible(self) -> bool {
        self.0 >> 8 > 0 && self.0 >> 8 < Ballot::COUNTER_MAX
    }

    /// None at all, or one that this node can have begun.
    const fn may_be_of(self, node: crate::model::NodeId) -> bool {
        self.0 == 0 || self.is_of(node)
    }
}

/// A node's own block on a register disk: what Disk Paxos calls `mbal`, `bal`, `inp`. Only its node
/// writes it, at most one write at a time; everybody reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Counts this node's writes of the block, so that of two copies the newer one is known.
    pub writes: u64,
    /// Highest ballot the node has begun.
    pub mbal: Ballot,
    /// Highest ballot in which the node has accepted a value.
    pub bal: Ballot,
    /// The value accepted in `bal`; an epoch of 0 where there is none.
    pub value: Value,
}

impl Block {
    /// Can `node` have written this? What cannot be is treated like a damaged block.
    #[must_use]
    pub fn makes_sense(&self, node: crate::model::NodeId) -> bool {
        self.mbal.may_be_of(node)
            && self.bal.may_be_of(node)
            && self.bal <= self.mbal
            && self.value.bytes.len() <= VALUE_MAX
            && (self.bal != Ballot::NONE || self.value == Value::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NodeId;

    #[test]
    fn ballots_of_two_nodes_never_meet_and_always_rise() {
        let (one, two) = (NodeId::new(1).unwrap(), NodeId::new(64).unwrap());
        let first = Ballot::NONE.next_for(two);
        let second = first.next_for(one);
        assert_eq!(first, Ballot(0x140));
        assert_eq!(second, Ballot(0x201));
        assert!(second.next_for(one) > second);
    }

    #[test]
    fn a_block_that_its_node_cannot_have_written_is_told() {
        let node = NodeId::new(3).unwrap();
        let value = Value {
            epoch: 1,
            nonce: 7,
            bytes: vec![1],
        };
        let good = Block {
            writes: 2,
            mbal: Ballot(0x203),
            bal: Ballot(0x103),
            value,
        };
        assert!(good.makes_sense(node) && Block::default().makes_sense(node));
        let wrong = [
            Block {
                mbal: Ballot(0x202),
                ..good.clone()
            },
            Block {
                bal: Ballot(0x102),
                ..good.clone()
            },
            Block {
                bal: Ballot(0x303),
                ..good.clone()
            },
            Block {
                bal: Ballot::NONE,
                ..good.clone()
            },
            Block {
                mbal: Ballot(u64::MAX << 8 | 3),
                ..good.clone()
            },
            Block {
                mbal: Ballot(3),
                ..Block::default()
            },
            Block {
                value: Value {
                    bytes: vec![0; VALUE_MAX + 1],
                    ..Value::default()
                },
                ..good
            },
        ];
        for block in wrong {
            assert!(!block.makes_sense(node), "{:?} {:?}", block.mbal, block.bal);
        }
    }
}
