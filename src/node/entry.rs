//! The way into the daemon: reads the configuration and becomes the process that the options name.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use nix::sys::signal::SigSet;
use standfast_sys::sentence;

use super::options::{Options, Role};
use super::{core, guard, runner};
use crate::config::{Config, ConfigErrors};
use crate::object;

/// Exit code when the configuration cannot be used.
const EXIT_CONFIG: u8 = 2;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not pass the check.
    #[error("{report}")]
    Refused {
        /// Everything that is wrong, with file, line, caret and remedy.
        report: String,
        /// The same as data.
        source: ConfigErrors,
    },
}

/// Reads and checks the configuration that the options name. Returns its text as well.
///
/// # Errors
///
/// There is none, or it is refused.
fn read_config(options: &Options) -> Result<(Config, String), ConfigError> {
    let path = &options.config;
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.clone(),
        source,
    })?;
    match Config::parse(&text, &object::kind_rows()) {
        Ok(config) => Ok((config, text)),
        Err(source) => Err(ConfigError::Refused {
            report: source.render(&path.display().to_string(), &text),
            source,
        }),
    }
}

/// Runs this process to its end. Called by its first thread, before any other was made.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    // The guard collects its signals and its children inherit that; each role begins with none
    // blocked and none lost, whoever started it.
    let _ = SigSet::empty().thread_set_mask();
    let (config, text) = match read_config(options) {
        Ok(read) => read,
        Err(error) => {
            match &error {
                // Lines and carets, which the log would break.
                ConfigError::Refused { report, .. } => eprintln!("{report}"),
                ConfigError::Read { source, .. } => eprintln!("{error}: {source}"),
            }
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if let (Role::Guard, Some(record)) = (options.role, &options.record)
        && let Err(error) = core::check_place(record)
    {
        eprintln!("{}\n  help: {}", sentence(&error), error.remedy());
        return ExitCode::from(EXIT_CONFIG);
    }
    match options.role {
        Role::Guard => guard::run(options, &config, &text),
        Role::Core => core::run(options, &config),
        Role::Runner => runner::run(options, &config),
    }
}
