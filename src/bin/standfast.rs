//! The command line: parses arguments, calls the library, sets the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    standfast::cli::main()
}
