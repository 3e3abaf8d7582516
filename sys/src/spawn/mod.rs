//! Starting a program inside a control group, so that not even its first instruction runs outside.
//!
//! ```text
//! caller   prepares   signals off ──clone3──> signals on   waits ......... pidfd | error
//! child                               │  becomes a plain program ── execve
//!                                     └─ born in the group      └─ on failure: step and errno
//! ```
//! A process that is born in its group (`CLONE_INTO_CGROUP`, Linux 5.7) costs a fork and an exec.
//! One that is moved there afterwards waits for RCU as well, 10 ms and more; that is the way left
//! for kernels and sandboxes that refuse the first.
//!
//! Not for a process with locked memory or real-time threads: the copy stalls it. May block: the
//! exec reads the program from its disk.

mod child;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::wait::{Id, WaitPidFlag, waitid};

use crate::cgroup::Cgroup;
use crate::error::{Failed, Naming};
use crate::process::PidFd;
use child::{ALIVE, COMPLAINT_LEN, Divided, Prepared, Quiet, Way};

/// The operation whose failure may be a refusal.
const FORK: &str = "fork for";

/// A program to start. It begins like any other, whatever this process does: no signal blocked or
/// ignored, a process group of its own, not protected from the OOM killer, standard input empty,
/// and nothing open but its output.
#[derive(Clone, Copy, Debug)]
pub struct Spawn<'a> {
    /// The program, a path with a `/` in it, then its arguments.
    pub command: &'a [String],
    /// The group it and all its children live in.
    pub group: &'a Cgroup,
    /// Variables beside those of this process; a later one of the same name wins.
    pub environment: &'a [(String, String)],
    /// Where it starts.
    pub directory: &'a Path,
    /// User and group; root then has no other groups. Without: those of this process.
    pub user: Option<(u32, u32)>,
    /// Its standard output.
    pub output: BorrowedFd<'a>,
    /// Its standard error.
    pub errors: BorrowedFd<'a>,
}

/// What the child does before it is the program, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Step {
    Group,
    ProcessGroup,
    Streams,
    User,
    Directory,
    Exec,
}

impl Step {
    const ALL: [Step; 6] = [
        Step::Group,
        Step::ProcessGroup,
        Step::Streams,
        Step::User,
        Step::Directory,
        Step::Exec,
    ];
}

impl Spawn<'_> {
    /// Starts it, and returns when it runs. The handle of a child that nobody waits for leaves a
    /// zombie when dropped. A kill of the group at this very moment may or may not reach the
    /// program: whoever depends on it asks after the start whether it was still wanted.
    ///
    /// # Errors
    ///
    /// The first step that failed, with its reason: `ENOENT` for a program that is not there. The
    /// program has not run then, and no process is left.
    pub fn start(&self) -> Result<PidFd, Failed> {
        match self.start_by(Way::Born) {
            Ok(Some(child)) => return Ok(child),
            Ok(None) => {}
            Err(error) if is_refusal(&error) => {}
            Err(error) => return Err(error),
        }
        let moved = self.start_by(Way::Moved)?;
        moved.ok_or_else(|| Failed::new("start", self.program(), Errno::ECANCELED))
    }

    /// `None` if the child was killed before its first instruction. Linux 6.18 does that to all
    /// that are born in a group which was ever killed: to learn of a kill during the birth it
    /// compares the group's count of kills with the count of the *parent's* group.
    fn start_by(&self, way: Way) -> Result<Option<PidFd>, Failed> {
        let prepared = Prepared::new(self, way)?;
        let (complaints, complaint) =
            nix::unistd::pipe2(OFlag::O_CLOEXEC).naming("make", "a pipe to a child")?;
        let child = {
            let _quiet = Quiet::new()?;
            match prepared.divide().naming(FORK, self.program())? {
                Some(child) => child,
                None => prepared.become_program(&complaint),
            }
        };
        drop(complaint);
        let child = match child {
            Divided::Held(child) => child,
            // Nobody has waited for it yet: the number is still its own.
            Divided::Numbered(pid) => PidFd::open(pid)?,
        };
        let mut said = Vec::with_capacity(1 + COMPLAINT_LEN);
        // The end of the file is the exec, which closes the other end.
        let heard = File::from(complaints).read_to_end(&mut said);
        match (said.split_first(), heard) {
            (Some((&ALIVE, [])), Ok(_)) => Ok(Some(child)),
            (None, Ok(_)) => collect(&child).map(|()| None),
            (said, _) => {
                collect(&child)?;
                Err(self.failed(said.and_then(|(_, complaint)| understand(complaint))))
            }
        }
    }

    fn program(&self) -> &str {
        self.command.first().map_or("", String::as_str)
    }

    fn failed(&self, complaint: Option<(Step, Errno)>) -> Failed {
        let (step, errno) = complaint.unwrap_or((Step::Exec, Errno::EIO));
        let program = self.program();
        match step {
            Step::Group => {
                let group = self.group.path().display();
                Failed::new("move", format_args!("{program} to {group}"), errno)
            }
            Step::ProcessGroup => Failed::new("make a process group for", program, errno),
            Step::Streams => Failed::new("connect the output of", program, errno),
            Step::User => Failed::new("change the user for", program, errno),
            Step::Directory => {
                let directory = self.directory.display();
                Failed::new("enter", format_args!("{directory} for {program}"), errno)
            }
            Step::Exec => Failed::new("start", program, errno),
        }
    }
}

/// Does this answer of clone3 mean "not here" and not "not now"? Unknown call, unknown flag (older
/// kernels find the longer argument too big), or forbidden by a sandbox.
fn is_refusal(error: &Failed) -> bool {
    let refusals = [
        Errno::ENOSYS,
        Errno::EINVAL,
        Errno::E2BIG,
        Errno::EPERM,
        Errno::EACCES,
    ];
    let errno = error.errno().map(Errno::from_raw);
    error.operation() == FORK && errno.is_some_and(|errno| refusals.contains(&errno))
}

fn understand(said: &[u8]) -> Option<(Step, Errno)> {
    let (step, errno) = said.split_first()?;
    let step = *Step::ALL.get(usize::from(*step))?;
    let errno = i32::from_ne_bytes(errno.try_into().ok()?);
    Some((step, Errno::from_raw(errno)))
}

/// Waits for a child that is about to end.
fn collect(child: &PidFd) -> Result<(), Failed> {
    while let Err(errno) = waitid(Id::PIDFd(child.as_fd()), WaitPidFlag::WEXITED) {
        if errno != Errno::EINTR {
            return Err(errno).naming("wait for process", child.pid());
        }
    }
    Ok(())
}
