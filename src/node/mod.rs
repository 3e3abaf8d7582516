//! One node's processes: guard, core and runner, and what they share.

pub mod guard;
pub mod messages;
pub mod page;
