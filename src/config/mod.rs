//! The cluster's one TOML file, from text to a checked [`Config`], and the times derived from it.
//!
//! Pure: the text is an argument, and so is what was measured on the host. Nothing here reads a
//! file or a clock. A text with any error gives no configuration at all; what is only unwise gives
//! a warning beside it.
//!
//! ```text
//! text -> syntax -> parse (cluster, nodes) -> links, watchdog, fence, tasks -> Config -> derived
//!                   reader: a value, its place, its complaints              \-> host: the facts
//! ```
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod canonical;
mod derived;
mod fence;
mod host;
pub mod kind;
mod links;
mod names;
mod parse;
mod problem;
mod reader;
mod schema;
mod syntax;
mod tasks;
pub mod template;
#[cfg(test)]
mod tests;
mod timing;
mod types;
mod watchdog;

pub use derived::DerivedTime;
pub use fence::{FENCES_MAX, OPTION_BYTES_MAX};
pub use host::{DiskFacts, HostFacts, InterfaceFacts, LOGICAL_BLOCK_MAX, check_host};
pub use names::NAME_MAX;
pub use parse::TEXT_BYTES_MAX;
pub use problem::{ConfigErrors, Look, PROBLEMS_MAX, Problem, Severity, TextSpan, render};
pub(crate) use schema::{listed, nearest};
pub use tasks::{OBJECTS_MAX, STEP_MAX};
pub use timing::{DETECT_MAX, DETECT_MIN, RETRY_MAX, Timing};
pub use types::{
    ClusterConfig, Config, FenceAction, FenceConfig, FenceOption, FencePlug, LinkConfig, LinkKind,
    NodeConfig, ObjectConfig, PerNode, RestartConfig, Secret, TaskConfig, WatchdogConfig,
    WatchdogSource,
};
