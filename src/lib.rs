//! Standfast keeps services running on 2 to 64 Linux servers, and never on two at once.
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod engine;
pub mod frame;
pub mod link;
pub mod mldc;
pub mod model;
pub mod node;
pub mod object;
pub mod record;
pub mod register;
pub mod storage;
pub mod time;
