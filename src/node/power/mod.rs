//! Power fencing: switches other nodes off through installed fence agents. Part of the runner,
//! which may fork and may wait.
//!
//! ```text
//! agent    one call: options in, exit code out, a deadline
//! ladder   the devices of a node, by level: off, and verified
//! desk     one thread for each node that has devices: orders, questions of people, tries
//! ```

pub mod agent;
pub mod desk;
pub mod ladder;
#[cfg(test)]
mod tests;
