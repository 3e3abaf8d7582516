//! The register: one small record that all nodes agree on, changed by compare-and-swap only.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod api;
mod paxos;
mod value;

pub use api::{BlockSeen, Event, News, Order, Refused, Trouble};
pub use paxos::Register;
pub use value::{Ballot, Block, VALUE_MAX, Value};
