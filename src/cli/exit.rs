//! How a command ends: a number for scripts, and on standard error a problem with its remedy.

use std::io;

use crate::node::control::{Code, ControlError, Refused};
use crate::node::secret::SecretError;

/// What the exit code says. The numbers are part of the interface and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or all is well.
    Well = 0,
    /// Something needs attention: an alarm, a task that should run and does not, a warning.
    Attention = 1,
    /// The command line or the configuration is wrong.
    Wrong = 2,
    /// The daemon does not run on this node.
    NotRunning = 3,
    /// Refused, with reason and remedy; nothing was changed.
    Refused = 4,
    /// Not done in time; it may still happen.
    Late = 5,
    /// A file, a disk or the daemon failed.
    Failed = 6,
    /// A recorded run was not repeated: the engine decided otherwise.
    Differs = 7,
}

/// The table at the end of `standfast --help`.
pub(super) const TABLE: &str = "\
Exit codes:
  0  done; for `status` and `check`: all is well
  1  needs attention: an alarm, a task that should run and does not, a warning with --strict
  2  the command line or the configuration is wrong
  3  the daemon does not run on this node
  4  refused, with the reason and what to do instead; nothing was changed
  5  not done in time; it may still happen: look with `standfast status`
  6  a file, a disk or the daemon failed
  7  `replay` decided otherwise than was recorded";

/// Why a command did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// To be told on standard error.
    #[error("{problem}")]
    Told {
        /// The exit code.
        exit: Exit,
        /// What is wrong, in one sentence without a full stop.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
    /// Was told already, on standard output.
    #[error("told already")]
    Shown(Exit),
    /// Standard output takes no more.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl Failure {
    /// A problem with its remedy.
    pub(super) fn new(
        exit: Exit,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Failure {
        Failure::Told {
            exit,
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// A mistake on the command line or in the configuration.
    pub(super) fn wrong(problem: impl Into<String>, remedy: impl Into<String>) -> Failure {
        Failure::new(Exit::Wrong, problem, remedy)
    }

    /// Something that was asked for and is not done.
    pub(super) fn refused(problem: impl Into<String>, remedy: impl Into<String>) -> Failure {
        Failure::new(Exit::Refused, problem, remedy)
    }

    /// The exit code, unless the output is what failed.
    pub(super) fn exit(&self) -> Option<Exit> {
        match self {
            Failure::Told { exit, .. } | Failure::Shown(exit) => Some(*exit),
            Failure::Output(_) => None,
        }
    }

    /// Something that went wrong, with all its causes.
    pub(super) fn failed(error: &dyn std::error::Error, remedy: impl Into<String>) -> Failure {
        Failure::new(Exit::Failed, chain(error), remedy)
    }
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Transparent errors repeat what is said already.
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

impl From<SecretError> for Failure {
    fn from(error: SecretError) -> Failure {
        let exit = match error {
            SecretError::Read { .. } | SecretError::Write { .. } => Exit::Failed,
            SecretError::Exposed { .. }
            | SecretError::NotAFile { .. }
            | SecretError::Length { .. }
            | SecretError::NotHex { .. } => Exit::Wrong,
        };
        Failure::new(exit, chain(&error), error.remedy())
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Failure {
        let (exit, remedy) = match &error {
            ControlError::NotRunning(_) => (
                Exit::NotRunning,
                "`systemctl start standfast`, or `journalctl -u standfast` if it does not stay up",
            ),
            ControlError::Denied(_) => (
                Exit::Refused,
                "use `sudo`, or have root add you with `usermod -aG standfast USER`",
            ),
            ControlError::OtherVersion(_) => (
                Exit::Failed,
                "restart the daemon after an update: tasks keep running meanwhile",
            ),
            ControlError::Late(_) => (
                Exit::Late,
                "`standfast status` tells whether the daemon is stuck; the tasks do not need it \
                 for this",
            ),
            ControlError::Broken(_) => (
                Exit::Failed,
                "try again; if it stays, something else listens there, or `journalctl -u \
                 standfast` says more",
            ),
        };
        Failure::new(exit, chain(&error), remedy)
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Failure {
        let exit = match refused.code {
            Code::Refused | Code::Busy => Exit::Refused,
            Code::NoAnswer => Exit::Late,
            Code::BadRequest | Code::Unreadable | Code::Device => Exit::Failed,
        };
        Failure::new(exit, refused.reason, refused.remedy)
    }
}
