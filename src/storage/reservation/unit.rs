//! What the agent asks of a logical unit, and what can come back: the seam between deciding and
//! doing.

use std::time::{Duration, Instant};

use standfast_sys::scsi::Identity;

/// One question or order, for one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The unit's names.
    Identity,
    /// READ KEYS.
    Keys,
    /// READ RESERVATION.
    Holder,
    /// REPORT CAPABILITIES.
    Capabilities,
    /// Is this path registered with this key? A REGISTER of the key that it has: refused without
    /// one, and else changing nothing but the generation.
    ///
    /// A write would tell as well, were there one that writes nothing: targets are known that
    /// judge by the data that comes with a command, and let one without data pass.
    IsRegistered {
        /// The key this path is to have.
        key: u64,
    },
    /// REGISTER AND IGNORE EXISTING KEY, so that it outlives a loss of power.
    Register {
        /// The key this path is to have.
        key: u64,
    },
    /// REGISTER with no new key.
    Unregister {
        /// The key this path has.
        key: u64,
    },
    /// RESERVE: write exclusive, registrants only.
    Reserve {
        /// The key this path has.
        key: u64,
    },
    /// RELEASE of the same.
    Release {
        /// The key this path has.
        key: u64,
    },
    /// PREEMPT AND ABORT: write exclusive, registrants only.
    Preempt {
        /// The key this path has.
        own: u64,
        /// Whose registrations go.
        victim: u64,
    },
    /// LOGICAL UNIT RESET.
    Reset,
}

/// Who holds a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The holder's key; 0 where all registrants hold it.
    pub key: u64,
    /// Is it write exclusive, registrants only (type 5)?
    pub is_ours_in_kind: bool,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To an order: done.
    Done,
    /// All names of the unit.
    Identities(Vec<Identity>),
    /// Every key, once for each path that has it.
    Keys {
        /// Rises with each change of registrations.
        generation: u32,
        /// The keys.
        keys: Vec<u64>,
    },
    /// The reservation.
    Holder(Option<Held>),
    /// What the unit can and does.
    Capabilities {
        /// Registrations outlive a loss of power.
        outlives_power: bool,
        /// The type that is used here is known.
        has_type: bool,
    },
    /// Whether this path is registered with the key.
    Registered(bool),
}

/// Why nothing came back, or not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// RESERVATION CONFLICT: a key that is not there, or somebody else's reservation.
    #[error("reservation conflict")]
    Conflict,
    /// No answer in time. It may have been done, or be done later.
    #[error("{0}")]
    Late(String),
    /// The path failed. It may have been done.
    #[error("{0}")]
    Path(String),
    /// The unit does not know the command.
    #[error("{0}")]
    Unknown(String),
    /// The unit says no.
    #[error("{0}")]
    Refused(String),
}

impl Fault {
    /// Is it the path's trouble, so that another may do better?
    #[must_use]
    pub fn is_of_the_path(&self) -> bool {
        match self {
            Fault::Late(_) | Fault::Path(_) => true,
            Fault::Conflict | Fault::Unknown(_) | Fault::Refused(_) => false,
        }
    }
}

/// A logical unit with its paths.
pub trait Unit: Send {
    /// How many paths there are, at least one.
    fn paths(&self) -> usize;

    /// A path's name, for people.
    fn path_name(&self, path: usize) -> String;

    /// Asks all of this at once and waits for the answers, at most so long; what has not come then
    /// is [`Fault::Late`]. One answer to each, in their order. One round trip to the unit.
    fn round(&mut self, asks: &[(usize, Ask)], patience: Duration) -> Vec<Result<Answer, Fault>>;

    /// The time.
    fn now(&self) -> Instant;

    /// Waits before another try.
    fn pause(&mut self, length: Duration);
}
