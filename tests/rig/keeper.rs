//! The keeper: a process that only waits, and cleans up behind the program that it runs.
//!
//! ```text
//! lab demo ── lab demo ── machines, mkfs, ip, standfast ...
//! keeper      the work    all of them carry the keeper's mark in their environment
//! ```
//!
//! A signal ends the work at once, whatever it is about to make, and nothing is removed before it
//! and all it started are gone: so nothing appears behind the cleaning. The same happens when the
//! work is killed or panics. Further signals wait until all is done, and are then forgotten.

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::getppid;

use super::leftovers::{self, MARK, mark_of};
use super::trouble::{Doing, Trouble};

/// What an interrupted keeper says before it cleans up.
pub(crate) const INTERRUPTED: &str = "interrupted: cleaning up";

/// How the work ended.
enum Ending {
    /// By itself.
    Done(ExitStatus),
    /// This signal came.
    Asked(Signal),
}

/// Runs `work` in a process of its own, cleans up behind it, and returns its exit code, or the
/// shell's for a signal.
///
/// The work is this program again with the same arguments: it is to come here by the same way, and
/// without a thread or anything else that is worth keeping.
pub(crate) fn run(work: impl FnOnce() -> ExitCode) -> ExitCode {
    let result = match is_the_work() {
        Ok(true) => return work(),
        Ok(false) => keep(),
        Err(trouble) => Err(trouble),
    };
    result.unwrap_or_else(|trouble| {
        tell(&trouble.to_string());
        ExitCode::FAILURE
    })
}

/// Is this process the work? Then it ends with its keeper, and a signal ends it.
fn is_the_work() -> Result<bool, Trouble> {
    // A keeper below another one inherits a mark that is not its parent's.
    let given = std::env::var(MARK).ok();
    let kept = || given.is_some() && mark_of(getppid().as_raw().cast_unsigned()) == given;
    if !kept() {
        return Ok(false);
    }
    set_pdeathsig(Signal::SIGKILL).doing("bind the work to its keeper")?;
    if !kept() {
        return Err(Trouble::new("the keeper is gone"));
    }
    SigSet::empty().thread_set_mask().doing("let signals in")?;
    Ok(true)
}

fn keep() -> Result<ExitCode, Trouble> {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGCHLD,
    ] {
        signals.add(signal);
    }
    signals.thread_block().doing("block signals")?;
    let mark = mark_of(std::process::id()).ok_or_else(|| Trouble::new("no /proc"))?;
    let own = std::env::current_exe().doing("find the own program")?;
    let mut command = Command::new(own);
    command.args(std::env::args_os().skip(1)).env(MARK, &mark);
    let mut work = command.spawn().doing("start the work")?;
    let ending = wait(&mut work, &signals)?;
    let signal = match ending {
        Ending::Asked(signal) => {
            work.kill().doing("end the work")?;
            work.wait().doing("wait for the work")?;
            Some(signal as i32)
        }
        Ending::Done(status) => status.signal(),
    };
    if signal.is_some() {
        tell(INTERRUPTED);
    }
    leftovers::clean_up_behind(&mark, signal.is_none())?;
    let code = match (signal, ending) {
        (Some(signal), _) => 128 + signal,
        (None, Ending::Done(status)) => status.code().unwrap_or(1),
        (None, Ending::Asked(_)) => 1,
    };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

fn wait(work: &mut Child, signals: &SigSet) -> Result<Ending, Trouble> {
    loop {
        match signals.wait().doing("wait for a signal")? {
            Signal::SIGCHLD => {}
            signal => return Ok(Ending::Asked(signal)),
        }
        if let Some(status) = work.try_wait().doing("look at the work")? {
            return Ok(Ending::Done(status));
        }
    }
}

/// Says something to whoever still listens: after a hangup nobody does.
pub(crate) fn tell(line: &str) {
    drop(writeln!(io::stderr(), "{line}"));
}
