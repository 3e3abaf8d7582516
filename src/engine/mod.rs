//! The cluster's state machine: decides everything, does nothing itself.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod event;
mod view;

pub use event::{
    Action, Class, Command, Event, Failure, Found, LinkStatus, NodeStatus, Order, Record, Refusal,
    RegisterStatus, Report, Snapshot, TaskStatus,
};
pub use view::{Cause, EvictReason, Eviction, Member, Standing, TaskRecord, View, ViewError};
