//! The rig: a whole cluster on one machine, made of namespaces, and a client that watches it.
//!
//! ```text
//!   client ─ svc0 ─┐                       ┌─ image ── loop, a's path ── a
//!                 svc  hb0  hb1  (switch)  │       └── loop, b's path ── b
//!   a ─ svc0, hb0, hb1 ┘    │    │         └─ volume ─ loop, shared ── a, b
//!   b ─ svc0, hb0, hb1 ─────┴────┘
//! ```
//!
//! One implementation for the tests, the demo and the benches. Needs root; touches nothing of the
//! host but loop devices, one directory and the cgroups of a cluster with a name of its own.

pub(crate) mod helper;
pub(crate) mod keeper;
pub(crate) mod lab;
pub(crate) mod leftovers;
pub(crate) mod machine;
pub(crate) mod node;
pub(crate) mod probe;
pub(crate) mod software;
pub(crate) mod started;
pub(crate) mod switch;
pub(crate) mod trouble;
pub(crate) mod verdict;
pub(crate) mod wait;
