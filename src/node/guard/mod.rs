//! The guard.

pub mod rule;
