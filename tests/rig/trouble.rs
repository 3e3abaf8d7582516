//! The one error of the rig: what was being done, and why it did not work.

use std::error::Error;
use std::fmt::{self, Display};

/// Something of the rig did not work. Shown with its cause, because it is shown once, at the end.
#[derive(Debug)]
pub(crate) struct Trouble {
    doing: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Trouble {
    /// Something that is wrong without a deeper cause.
    pub(crate) fn new(doing: impl Display) -> Trouble {
        Trouble {
            doing: doing.to_string(),
            source: None,
        }
    }
}

impl Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.doing)?;
        let mut cause = self.source.as_deref().map(|source| source as &dyn Error);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl Error for Trouble {}

/// Names what failed.
pub(crate) trait Doing<T> {
    /// `what` says what was being done, such as "read the journal".
    fn doing(self, what: impl Display) -> Result<T, Trouble>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Display) -> Result<T, Trouble> {
        self.map_err(|source| Trouble {
            doing: what.to_string(),
            source: Some(source.into()),
        })
    }
}
