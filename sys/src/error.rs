//! The error that most modules return: which operation, on what, and the kernel's answer.
//!
//! Modules whose callers must tell cases apart have an enum of their own around it.

use std::fmt::Display;
use std::io;

/// A kernel call that failed. The kernel's own error is the source.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {subject}")]
pub struct Failed {
    operation: &'static str,
    subject: String,
    source: io::Error,
}

impl Failed {
    /// Names a failed call: `operation` completes "cannot ...", `subject` is what it was applied
    /// to.
    pub(crate) fn new(
        operation: &'static str,
        subject: impl Display,
        source: impl Into<io::Error>,
    ) -> Failed {
        Failed {
            operation,
            subject: subject.to_string(),
            source: source.into(),
        }
    }

    /// What was tried, as the words after "cannot".
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// Why it failed, in the words of std.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// The kernel's error number, when the kernel was asked at all.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

/// Gives a failed call its name, where a kernel call returns.
pub(crate) trait Naming<T> {
    /// Wraps the error; see [`Failed::new`].
    fn naming(self, operation: &'static str, subject: impl Display) -> Result<T, Failed>;
}

impl<T, E: Into<io::Error>> Naming<T> for Result<T, E> {
    fn naming(self, operation: &'static str, subject: impl Display) -> Result<T, Failed> {
        self.map_err(|source| Failed::new(operation, subject, source))
    }
}

/// The answer of a raw libc call: negative means that errno holds the reason.
pub(crate) fn answer(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// An error and all its causes as one sentence, for logs and for people. A cause that its effect
/// already ends with is not said twice.
#[must_use]
pub fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
