//! `lab`: the rig as a program. Shows a cluster, measures it, and cleans up after itself.
//!
//! Built and started by scripts/demo; for people who want to look closer: `lab --help`.
#![forbid(unsafe_code)]

#[allow(
    dead_code,
    reason = "the rig serves several programs, each of which uses its part"
)]
#[path = "../../tests/rig/mod.rs"]
mod rig;

mod demo;
mod manage;
mod measure;
mod show;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use rig::keeper;
use rig::trouble::Trouble;

/// A whole Standfast cluster on this machine, made of namespaces. Needs root.
#[derive(Parser)]
#[command(name = "lab", version)]
struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Shows what Standfast does, step by step, and measures it
    Demo(demo::Options),
    /// Measures one thing many times
    Measure(measure::Options),
    /// Runs a command on a machine of a cluster that was kept
    Enter {
        /// a, b, client or switch
        machine: String,
        /// The command; a shell if there is none
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Runs `standfast` on a node of a cluster that was kept
    On {
        /// a or b
        machine: String,
        /// What to tell it, such as `status` or `move web b`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Removes clusters that were kept or left behind by a killed lab
    Clean {
        /// Those of labs that still run, too
        #[arg(long)]
        all: bool,
    },
}

fn main() -> ExitCode {
    if let Some(code) = rig::helper::run_if_asked() {
        return code;
    }
    match Options::parse().action {
        Action::Demo(options) => keeper::run(|| exit_code(demo::run(&options))),
        Action::Measure(options) => keeper::run(|| exit_code(measure::run(&options))),
        Action::Enter { machine, command } => exit_code(manage::enter(&machine, &command)),
        Action::On { machine, arguments } => exit_code(manage::on(&machine, &arguments)),
        Action::Clean { all } => exit_code(manage::clean(all)),
    }
}

fn exit_code(result: Result<(), Trouble>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            keeper::tell(&format!("lab: {trouble}"));
            ExitCode::FAILURE
        }
    }
}
