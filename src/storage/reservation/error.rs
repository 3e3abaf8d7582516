//! Why a unit was not taken.

use standfast_sys::scsi::Identity;

use super::key::{Key, Whose};
use super::unit::Fault;

/// Why a unit was not taken. None of them is cured by force.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// A later owner was there: this node is deceived by a lease of old and must not touch
    /// anything.
    #[error(
        "a later owner has been on the disk, {by}; this node's own epoch is {}: it has stood still",
        own.epoch.number()
    )]
    Later {
        /// The later key.
        by: Whose,
        /// The key that was to be registered.
        own: Key,
    },
    /// Others use the disk.
    #[error("the disk is registered by others: {}", listed(keys))]
    Foreign {
        /// Their keys.
        keys: Vec<Whose>,
    },
    /// It is not the disk that was meant.
    #[error("{path} is not the disk {wanted}: it is {}", named(found.as_ref()))]
    OtherDisk {
        /// By which path.
        path: String,
        /// What it must be.
        wanted: Identity,
        /// What it is.
        found: Option<Identity>,
    },
    /// Registrations would be forgotten with the next loss of power.
    #[error("the disk does not keep registrations over a loss of power (PTPL_A is 0)")]
    NotPersistent,
    /// No type 5.
    #[error("the disk cannot reserve write exclusive, registrants only (type 5)")]
    NoSuchType,
    /// The reservation is of another kind, or its holder is not registered.
    #[error("the disk is reserved in another way, by key {key:#018x}")]
    HeldOtherwise {
        /// The holder's key, 0 for all registrants.
        key: u64,
    },
    /// The unit refuses what is needed.
    #[error("the disk refuses reservations: {fault}")]
    Refused {
        /// Its words.
        fault: Fault,
    },
    /// The time was over.
    #[error("the disk could not be taken in time: {what}")]
    Late {
        /// What kept it.
        what: String,
    },
    /// The attempt was ended from outside.
    #[error("given up for a stop that was ordered meanwhile")]
    Cancelled,
}

fn listed(keys: &[Whose]) -> String {
    let all: Vec<String> = keys.iter().map(ToString::to_string).collect();
    all.join(", ")
}

fn named(identity: Option<&Identity>) -> String {
    identity.map_or_else(|| "one without a name".to_owned(), ToString::to_string)
}
