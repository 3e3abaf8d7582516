//! What the configuration must know of a kind of object: a row, not an enum.
//!
//! The rows stand beside the kinds' code, in `object`; the configuration gets them as an argument,
//! so that it stays pure and a new kind is one file and one row.

use std::net::Ipv4Addr;

/// One kind of object as the configuration sees it.
#[derive(Clone, Copy)]
pub struct Kind {
    /// Value of `kind = "..."`.
    pub name: &'static str,
    /// One sentence for help and errors.
    pub summary: &'static str,
    /// Names of all parameters, for "did you mean"; required ones are checked by `check`.
    pub parameters: &'static [&'static str],
    /// A complete `[[task.object]]` that passes `check`.
    pub example: &'static str,
    /// Checks the parameters (everything but `name`, `kind` and `step`) and tells what they claim.
    pub check: fn(&toml::Table) -> Result<Claims, ParameterError>,
}

/// What an object needs for itself alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Addresses that the guard holds for it.
    pub addresses: Vec<AddressClaim>,
    /// Names of things no two objects may share, such as `mount /srv/data` or `address 10.0.0.9`.
    pub exclusive: Vec<String>,
    /// The same of things that objects of one task may share, such as `group vg0`.
    pub of_task: Vec<String>,
    /// Longest time a start may take, in milliseconds; printed by `check` and used as a deadline.
    pub start_ms_max: u64,
    /// Longest time a stop may take up to the last rung of its ladder, in milliseconds.
    pub stop_ms_max: u64,
    /// What is allowed but should be known; told as warnings.
    pub remarks: Vec<Remark>,
    /// Of what writes to a shared disk: does the array refuse the writes of every other node?
    pub fenced: Option<bool>,
}

/// Something about an object that is allowed but should be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The parameter at which it is shown.
    pub key: String,
    /// What should be known.
    pub problem: String,
    /// What to write if it is not meant so.
    pub remedy: String,
}

/// One address on one interface, which may be named differently on each node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressClaim {
    /// The address.
    pub address: Ipv4Addr,
    /// Prefix length, 1..=32.
    pub prefix: u8,
    /// Interface by node name; `*` stands for every node.
    pub interfaces: Vec<(String, String)>,
}

impl AddressClaim {
    /// The interface on the node of this name, if one is configured.
    #[must_use]
    pub fn interface_on(&self, node: &str) -> Option<&str> {
        let named = |wanted: &str| {
            self.interfaces
                .iter()
                .find(|(name, _)| name == wanted)
                .map(|(_, i)| i.as_str())
        };
        named(node).or_else(|| named("*"))
    }
}

/// A parameter that cannot be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterError {
    /// The parameter, or the empty string where one is missing altogether.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}
