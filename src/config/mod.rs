//! The cluster's one TOML file, from text to a checked [`Config`](crate::config), and the times
//! derived from it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod kind;
mod timing;

pub use timing::{DETECT_MAX, DETECT_MIN, Timing};
