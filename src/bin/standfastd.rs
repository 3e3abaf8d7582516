//! Parses arguments, calls the library, sets the exit code.

use std::process::ExitCode;

use clap::Parser;
use nix::sys::signal::SigSet;
use standfast::config::Config;
use standfast::node::options::{Options, Role};
use standfast::node::{core, guard, runner};
use standfast::object;

/// Exit code when the configuration cannot be used.
const EXIT_CONFIG: u8 = 2;

fn main() -> ExitCode {
    // The guard collects its signals and its children inherit that; each role begins with none
    // blocked and none lost, whoever started it.
    let _ = SigSet::empty().thread_set_mask();
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    let config = match read_config(&options) {
        Ok(config) => config,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match options.role {
        Role::Guard => guard::run(&options, &config),
        Role::Core => core::run(&options, &config),
        Role::Runner => runner::run(&options, &config),
    }
}

fn read_config(options: &Options) -> Result<Config, String> {
    let path = options.config.display().to_string();
    let text = std::fs::read_to_string(&options.config)
        .map_err(|error| format!("cannot read {path}: {error}"))?;
    Config::parse(&text, &object::kind_rows()).map_err(|errors| errors.render(&path, &text))
}
