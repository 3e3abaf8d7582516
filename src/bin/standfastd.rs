//! Parses arguments, calls the library, sets the exit code.

use std::process::ExitCode;

use clap::Parser;
use standfast::node::entry;
use standfast::node::options::Options;

fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    entry::run(&options)
}
