//! The command line `standfast`: what an administrator types, and what he reads at 3 a.m.
//!
//! Runs on one thread and may block. Data goes to standard output, questions and problems to
//! standard error, each problem with its remedy; the exit code says what came of it ([`Exit`]). A
//! reader that has seen enough (`| head`) is no problem.
//!
//! ```text
//! args, help    what can be typed, and the lesson that goes with it
//! init, check + facts, disk + view, format + used    without a daemon
//! reservations                        who may write to a disk
//! replay                              from a record alone
//! status + picture, history, order, fence    through the control socket
//! words, table, names                 how things are said
//! ```

pub mod args;
mod certify;
mod check;
mod context;
mod disk;
mod exit;
mod facts;
mod fence;
mod format;
mod help;
mod history;
mod init;
mod medium;
mod names;
mod order;
mod picture;
mod question;
mod replay;
mod reservations;
mod status;
mod table;
mod used;
mod view;
mod words;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command, DiskCommand};
pub use exit::{Exit, Failure};

/// Parses the arguments of this process, does what they say, and tells how it went.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help that nobody reads to its end is no failure.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Wrong as u8));
        }
    };
    let mut out = io::stdout().lock();
    let outcome = run(&cli, &mut out).and_then(|exit| {
        out.flush()?;
        Ok(exit)
    });
    ExitCode::from(tell(outcome) as u8)
}

/// Does what a command line says.
///
/// # Errors
///
/// What is to be told on standard error, with the exit code.
pub fn run(cli: &Cli, out: &mut dyn Write) -> Result<Exit, Failure> {
    let places = &cli.places;
    match &cli.command {
        Command::Init(args) => init::run(args, out),
        Command::Check(args) => check::run(places, args, out),
        Command::Disk(DiskCommand::Format(args)) => format::run(places, args, out),
        Command::Disk(DiskCommand::Show(args)) => disk::show(places, args, out),
        Command::Disk(DiskCommand::Certify(args)) => certify::run(args, out),
        Command::Disk(DiskCommand::Reservations(args)) => {
            reservations::reservations(places, args, out)
        }
        Command::Disk(DiskCommand::Release(args)) => reservations::release(places, args, out),
        Command::Disk(DiskCommand::Contend(args)) => medium::contend(places, args, out),
        Command::Status(args) => status::run(places, args, out),
        Command::Why(args) => history::why(places, args, out),
        Command::History(args) => history::run(places, args, out),
        Command::Move(args) => order::move_task(places, args, out),
        Command::Start(args) => order::start(places, args, out),
        Command::Stop(args) => order::stop(places, args, out),
        Command::Standby(args) => order::standby(places, args, out),
        Command::Online(args) => order::online(places, args, out),
        Command::ConfirmOff(args) => order::confirm_off(places, args, out),
        Command::Fence(args) => fence::run(places, args, out),
        Command::Replay(args) => replay::run(args, out),
    }
}

/// Says on standard error what is to be said, and gives the exit code.
fn tell(outcome: Result<Exit, Failure>) -> Exit {
    // Who has closed standard error does not want to know.
    let mut err = io::stderr().lock();
    match outcome {
        Ok(exit) | Err(Failure::Shown(exit)) => exit,
        Err(Failure::Told {
            exit,
            problem,
            remedy,
        }) => {
            let _ = writeln!(err, "standfast: {problem}\n  help: {remedy}");
            exit
        }
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Well,
        Err(Failure::Output(error)) => {
            let _ = writeln!(err, "standfast: cannot write the output: {error}");
            Exit::Failed
        }
    }
}
