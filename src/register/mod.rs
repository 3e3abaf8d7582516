//! The register: one small record that all nodes agree on, changed by compare-and-swap only.

mod api;
mod paxos;
mod value;

pub use api::{BlockSeen, Event, News, Order, Refused, Trouble};
pub use paxos::Register;
pub use value::{Ballot, Block, VALUE_MAX, Value};

/// What a read saw of one node's block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockSeen {
    /// Never written.
    Blank,
    /// Valid.
    Good(Block),
    /// Both copies are invalid.
    Damaged,
}

/// What the register wants of the disk; at most one of each is outstanding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Begin a read of all blocks after now.
    Read,
    /// Write the own block.
    Write(Block),
}
