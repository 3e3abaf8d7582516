//! What the register holds and how a change of it is numbered.

/// Largest encoded view: with the block's own fields it fits one 4 KiB slot at 64 nodes, 64 tasks.
pub const VALUE_MAX: usize = 3584;

/// One version of the register's content. Epochs of decided values rise by exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Value {
    /// Number of this version; 0 means never written.
    pub epoch: u64,
    /// Drawn by the proposer for every proposal anew: after an unclear outcome it decides who won.
    pub nonce: u64,
    /// The encoded view, at most [`VALUE_MAX`] bytes. The register does not look into it.
    pub bytes: Vec<u8>,
}

/// A proposal's number: unique to its proposer, ordered by counter, then node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot(pub u64);

impl Ballot {
    /// No ballot yet: smaller than every real one.
    pub const NONE: Ballot = Ballot(0);

    /// The smallest ballot of `node` above `self`.
    #[must_use]
    pub const fn next_for(self, node: crate::model::NodeId) -> Ballot {
        Ballot((((self.0 >> 8) + 1) << 8) | node.number() as u64)
    }
}

/// A node's own block on a register disk: what Disk Paxos calls `mbal`, `bal`, `inp`. Only its node
/// writes it, at most one write at a time; everybody reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
