//! `lab`: the rig as a program. Shows a cluster, measures it, and cleans up after itself.
#![forbid(unsafe_code)]

#[allow(
    dead_code,
    reason = "the rig serves several programs, each of which uses its part"
)]
#[path = "../../tests/rig/mod.rs"]
mod rig;

mod measure;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = rig::helper::run_if_asked() {
        return code;
    }
    match measure::try_out() {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("lab: {trouble}");
            ExitCode::FAILURE
        }
    }
}
