//! What a task is made of: things that can be started, stopped and probed.
//!
//! A kind of object is one file and one row of [`KINDS`]; the row gives the configuration its
//! parameters, the runner its builder, the manual its example and the contract test its input.
//! Nothing outside this directory knows a kind by name.
//!
//! Everything runs on the worker thread of the object's task (objects of one step each on a thread
//! of their own), may block, and is bounded by a deadline. A start of what runs and a stop of what
//! is stopped succeed; a stop counts only when it was verified.

mod aside;
mod context;
mod device;
mod disk;
mod doomed;
mod error;
mod holders;
mod ip;
mod parameter;
mod process;
mod program;
mod pulse;
mod script;
mod volume;

use std::os::fd::BorrowedFd;
use std::time::Instant;

use nix::poll::PollFlags;

pub use context::{
    AddressKeeper, AddressOf, BuildContext, Cancel, Context, Notice, Notices, Permit, Urgency,
    Woke, wait_for,
};
pub use disk::GroupError;
pub use error::ObjectError;
pub use standfast_sys::sentence;

use crate::config::kind::{Kind, Remark};
use crate::config::{ObjectConfig, Severity};
use crate::engine::Class;

/// What a look at an object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It runs as configured.
    Running,
    /// Nothing of it runs here.
    Stopped,
    /// Parts of it may run, or it runs badly.
    Failed {
        /// What is wrong.
        reason: String,
    },
    /// No answer within its deadline. Not a failure by itself: a loaded host looks like this too.
    Late,
}

/// What a look that did not succeed says.
impl From<ObjectError> for Probe {
    fn from(error: ObjectError) -> Probe {
        match error {
            ObjectError::Late { .. } | ObjectError::Cancelled => Probe::Late,
            error => Probe::Failed {
                reason: sentence(&error),
            },
        }
    }
}

/// What happened to a started object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Nothing that matters.
    Fine,
    /// Something a person would want to read; the object still runs.
    Note {
        /// How bad it is.
        class: Class,
        /// The sentence.
        text: String,
    },
    /// It does not run any more; a stop and a start may help.
    Broken {
        /// What happened.
        reason: String,
    },
    /// It is of no use on this node, and starting it again would not help.
    Lost {
        /// What happened.
        reason: String,
    },
    /// Another node owns it now: the whole task is to end at once, without another attempt to write
    /// anything back.
    Evicted {
        /// What happened.
        reason: String,
    },
}

/// What to wait for on behalf of a started object.
#[derive(Default)]
pub struct Watch<'a> {
    /// Readiness of this descriptor calls for a look.
    pub descriptor: Option<(BorrowedFd<'a>, PollFlags)>,
    /// So does that of this one.
    pub other: Option<(BorrowedFd<'a>, PollFlags)>,
    /// So does this moment.
    pub at: Option<Instant>,
}

/// One thing that can be started, stopped and probed. Blocks its caller, at most until the
/// deadline.
pub trait Object: Send {
    /// Looks whether it runs, and adopts it if it does: what an earlier runner started is watched
    /// from then on as if this one had.
    fn probe(&mut self, context: &Context<'_>) -> Probe;

    /// Starts it; succeeds at once if it runs. Returns early with [`ObjectError::Cancelled`] once
    /// the context is cancelled.
    ///
    /// # Errors
    ///
    /// What stood in the way. Something of the object may run then; a stop cleans up.
    fn start(&mut self, context: &Context<'_>, deadline: Instant) -> Result<(), ObjectError>;

    /// Stops it, down the whole ladder if need be, and verifies that nothing of it is left.
    /// `forced`, or a cancelled context with [`Urgency::Forced`], skips the polite rungs.
    ///
    /// # Errors
    ///
    /// Something of it may still run; the error says what.
    fn stop(
        &mut self,
        context: &Context<'_>,
        deadline: Instant,
        forced: bool,
    ) -> Result<(), ObjectError>;

    /// Can what stands upon it be started again? Asked before an object of a later step is, for
    /// that may have broken because of this one.
    fn footing(&mut self, _context: &Context<'_>, _deadline: Instant) -> Watched {
        Watched::Fine
    }

    /// What to wait for while it is started.
    fn watch(&self) -> Watch<'_> {
        Watch::default()
    }

    /// Looks at what [`watch`](Object::watch) reported. Never waits for anything.
    fn look(&mut self, _context: &Context<'_>) -> Watched {
        Watched::Fine
    }
}

/// A kind of object: what the configuration knows of it and how to make one.
pub struct ObjectKind {
    /// Name, parameters, example, check.
    pub row: Kind,
    /// Makes one from parameters that passed the row's check.
    pub build: fn(&ObjectConfig, BuildContext) -> Box<dyn Object>,
    /// What should be known of this machine before one with these parameters, which passed the
    /// row's check, is started on it. May take seconds; changes nothing.
    pub survey: fn(&toml::Table) -> Vec<(Severity, Remark)>,
}

/// All kinds, in the order of the manual.
pub const KINDS: &[ObjectKind] = &[
    ip::KIND,
    volume::KIND,
    device::KIND,
    process::KIND,
    script::KIND,
];

/// What should be known of this machine before the object is started on it.
#[must_use]
pub fn survey(config: &ObjectConfig) -> Vec<(Severity, Remark)> {
    let kind = KINDS.iter().find(|kind| kind.row.name == config.kind);
    kind.map_or_else(Vec::new, |kind| (kind.survey)(&config.parameters))
}

/// What the configuration needs to read objects.
#[must_use]
pub fn kind_rows() -> Vec<Kind> {
    KINDS.iter().map(|kind| kind.row).collect()
}

/// Makes the object; none if its kind is not one of [`KINDS`], which a checked configuration
/// excludes.
#[must_use]
pub fn build(config: &ObjectConfig, context: BuildContext) -> Option<Box<dyn Object>> {
    let kind = KINDS.iter().find(|kind| kind.row.name == config.kind)?;
    Some((kind.build)(config, context))
}
