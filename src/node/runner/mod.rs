//! PLACEHOLDER of the runner, to be replaced by the real one.

use std::process::ExitCode;

use crate::config::Config;
use crate::node::options::Options;

/// Waits to be killed.
#[must_use]
pub fn run(_options: &Options, _config: &Config) -> ExitCode {
    loop {
        std::thread::park();
    }
}
