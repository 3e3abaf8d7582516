//! Messages between nodes: up to [`MESSAGE_MAX`] bytes, cut into packets that links carry beside
//! the heartbeat frames.
//!
//! ```text
//! message --split--> Packet, Packet, ... --every link--> Assembler --> message, once
//! ```
//!
//! **Nothing is repeated, acknowledged or put in order here.** A packet may be lost, doubled and
//! overtaken, and with one packet its message is lost; a sender that needs an answer says the same
//! again, under a new number, until it has one. A message that arrives is authentic and whole, and
//! its number is above that of all messages that arrived from the same life of its sender before.
//!
//! An authentic packet need not be fresh: packets of an earlier life of the sender can be sent
//! again by a stranger. The receiver compares the incarnation with that of fresh frames, or takes
//! only messages to which an old one does no harm.
//!
//! Pure: no clock, no socket. Decoding allocates nothing, an [`Assembler`] what it has to keep.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod assembler;
mod packet;
#[cfg(test)]
mod tests;

pub use assembler::Assembler;
pub use packet::{DATA_MAX, Origin, PARTS_MAX, Packet, PacketError, split};

/// Longest message in bytes: a view of the largest cluster, and half a kilobyte around it.
pub const MESSAGE_MAX: usize = 4096;
