//! The cluster's state machine: decides everything, does nothing itself.

mod event;
mod view;

pub use event::{
    Action, Class, Command, Event, Failure, Found, LinkStatus, NodeStatus, Order, Record, Refusal,
    RegisterStatus, Report, Snapshot, TaskStatus,
};
pub use view::{Cause, EvictReason, Eviction, Member, Standing, TaskRecord, View, ViewError};
