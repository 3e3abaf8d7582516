//! One node's processes: guard, core and runner, and what they share.

pub mod control;
pub mod core;
pub mod entry;
pub mod guard;
pub mod messages;
pub mod options;
pub mod page;
pub mod paths;
pub mod power;
pub mod runner;
pub mod secret;
