//! What can go wrong with an object, each with its data; the kernel's answer is the source.

use std::io;

use standfast_sys::Failed;

use super::disk::GroupError;
use crate::storage::reservation::VolumeError;

/// Why a start or stop did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The deadline passed.
    #[error("{what} in time")]
    Late {
        /// What was waited for, as a whole phrase: "... did not ...".
        what: String,
    },
    /// A stop was ordered meanwhile.
    #[error("given up for a stop that was ordered meanwhile")]
    Cancelled,
    /// The node may not run the task now.
    #[error("the node does not hold a lease for the task")]
    NotPermitted,
    /// Whoever was asked said no.
    #[error("{0}")]
    Refused(String),
    /// A call of the kernel failed.
    #[error(transparent)]
    Kernel(#[from] Failed),
    /// A file could not be read, written or opened.
    #[error("cannot {what}")]
    File {
        /// The operation and the path.
        what: String,
        /// The kernel's word.
        source: io::Error,
    },
    /// A program ended in another way than it had to.
    #[error("{program} {ending}")]
    Program {
        /// Which one.
        program: String,
        /// Its exit code or signal and the last line it printed, as a phrase.
        ending: String,
    },
    /// The disk was not reserved.
    #[error(transparent)]
    Reservation(Box<VolumeError>),
    /// The volume group cannot be used.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The array refuses this node.
    #[error("fenced: the array refuses writes to {device}, another node has reserved it")]
    Fenced {
        /// Which one.
        device: String,
    },
    /// Verified as still there after the last rung of the ladder.
    #[error("{what} is still in use by {holders}")]
    InUse {
        /// What.
        what: String,
        /// Names and process ids, or that nobody was found.
        holders: String,
    },
    /// What is there is not what was configured.
    #[error("{0}")]
    Unexpected(String),
}

impl From<VolumeError> for ObjectError {
    fn from(error: VolumeError) -> ObjectError {
        ObjectError::Reservation(Box::new(error))
    }
}

impl ObjectError {
    pub(super) fn late(what: impl Into<String>) -> ObjectError {
        ObjectError::Late { what: what.into() }
    }

    pub(super) fn file(what: impl Into<String>) -> impl FnOnce(io::Error) -> ObjectError {
        let what = what.into();
        move |source| ObjectError::File { what, source }
    }
}
