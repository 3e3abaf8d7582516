//! The register: one small record that all nodes agree on, changed by compare-and-swap only.

mod value;

pub use value::{Ballot, Block, VALUE_MAX, Value};
