//! The child between clone and exec, and what it needs, prepared before.
//!
//! Why a raw clone is sound in a process with threads. The child has its own copy of the memory (no
//! `CLONE_VM`): whatever it does, this process does not see. In the copy only the calling thread
//! goes on. A lock that another thread held stays locked for ever, and libc's notes about threads
//! are out of date, because libc was not asked. Hence the child
//!
//! - neither allocates nor locks nor panics: it makes kernel calls on what was prepared, and leaves
//!   by exec or `_exit`;
//! - uses those wrappers that signal-safety(7) allows and that are nothing but the call; where
//!   libc's wrapper speaks to the other threads (user, groups) or takes a lock (dispositions), the
//!   call goes by its number;
//! - never runs a signal handler of this process: all signals are blocked around the clone, and let
//!   in again when the dispositions are the default ones.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use libc::{c_char, c_int, c_long, pid_t};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::stat::Mode;
use nix::unistd::{ForkResult, Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, setpgid};

use super::{Spawn, Step};
use crate::error::{Failed, Naming};
use crate::process::PidFd;

/// `CLONE_INTO_CGROUP` of linux/sched.h; libc's constant has lost it to its 32 bits.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// The first that a child says: it runs.
pub(super) const ALIVE: u8 = 0xff;

/// What a child says then of a failure: the step, then errno in four bytes.
pub(super) const COMPLAINT_LEN: usize = 5;

/// What execvp(3) runs a file with that is neither a binary nor begins with `#!`.
const SHELL: &CStr = c"/bin/sh";

/// Exit status of a child that could not become the program; only [`Spawn`] ever sees it.
const EXIT_FAILED: i32 = 127;

/// Signals of Linux: 1 to 64 (signal(7)).
const SIGNALS: std::ops::RangeInclusive<i32> = 1..=64;

/// Size of the kernel's signal set, the last argument of its signal calls.
const SIGNAL_SET_BYTES: usize = 8;

/// How the child comes into its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Born there.
    Born,
    /// Moved there, by itself.
    Moved,
}

/// The way with the descriptor it needs: the group's directory, or its `cgroup.procs`.
#[derive(Debug)]
enum Entrance {
    Born(File),
    Moved(File),
}

/// A child, as seen by this process.
#[derive(Debug)]
pub(super) enum Divided {
    /// The kernel gave a handle with it.
    Held(PidFd),
    /// Only its number is known.
    Numbered(i32),
}

/// Everything that the child uses.
#[derive(Debug)]
pub(super) struct Prepared {
    entrance: Entrance,
    program: CString,
    /// [`SHELL`], then the arguments, the first of which is the program.
    arguments: Strings,
    environment: Strings,
    directory: CString,
    user: Option<(u32, u32)>,
    input: OwnedFd,
    output: OwnedFd,
    errors: OwnedFd,
}

impl Prepared {
    /// Makes ready what the child needs.
    ///
    /// # Errors
    ///
    /// The group is gone, a string has a zero in it (kind `InvalidInput`), out of descriptors.
    pub(super) fn new(spawn: &Spawn<'_>, way: Way) -> Result<Prepared, Failed> {
        let entrance = match way {
            Way::Born => Entrance::Born(open_directory(spawn.group.path())?),
            Way::Moved => Entrance::Moved(spawn.group.entrance()?),
        };
        let strings = || -> io::Result<_> {
            let words = spawn.command.iter().map(|word| CString::new(word.as_str()));
            let program = words.clone().next().ok_or(Errno::EINVAL)??;
            let shell = std::iter::once(Ok(SHELL.to_owned()));
            let arguments = Strings::new(shell.chain(words).collect::<Result<_, _>>()?);
            let directory = CString::new(spawn.directory.as_os_str().as_bytes())?;
            Ok((
                program,
                arguments,
                directory,
                environment(spawn.environment)?,
            ))
        };
        let (program, arguments, directory, environment) =
            strings().naming("prepare the start of", spawn.program())?;
        // Copies are above 2, and so is what this process opens itself, for the runtime keeps 0 to
        // 2 open: nothing is overwritten before it is used.
        let copies = || -> io::Result<_> {
            let input = File::open("/dev/null")?;
            let copy = |descriptor: std::os::fd::BorrowedFd<'_>| descriptor.try_clone_to_owned();
            Ok((
                copy(input.as_fd())?,
                copy(spawn.output)?,
                copy(spawn.errors)?,
            ))
        };
        let (input, output, errors) = copies().naming("prepare the streams of", spawn.program())?;
        let user = spawn.user;
        Ok(Prepared {
            entrance,
            program,
            arguments,
            environment,
            directory,
            user,
            input,
            output,
            errors,
        })
    }
    /// Clones this process; `None` in the child, which has one thread and must go on to
    /// [`become_program`](Self::become_program).
    ///
    /// # Errors
    ///
    /// What clone3(2) or fork(2) says.
    pub(super) fn divide(&self) -> io::Result<Option<Divided>> {
        match &self.entrance {
            Entrance::Born(directory) => clone_into(directory),
            // SAFETY: the child does nothing but `become_program`, see the head of this file.
            Entrance::Moved(_) => Ok(match unsafe { nix::unistd::fork() }? {
                ForkResult::Parent { child } => Some(Divided::Numbered(child.as_raw())),
                ForkResult::Child => None,
            }),
        }
    }

    /// In the child: becomes the program, or says why not and ends.
    pub(super) fn become_program(&self, complaint: &OwnedFd) -> ! {
        let _ = nix::unistd::write(complaint, &[ALIVE]);
        let (step, errno) = self.exec();
        let [first, second, third, fourth] = (errno as i32).to_ne_bytes();
        let said: [u8; COMPLAINT_LEN] = [step as u8, first, second, third, fourth];
        // Cut off or not heard: the caller takes it for a failed start all the same.
        let _ = nix::unistd::write(complaint, &said);
        // SAFETY: ends the child at once; nothing of this process runs in it, no destructors.
        unsafe { libc::_exit(EXIT_FAILED) }
    }

    /// All steps up to the exec; returns only when one failed.
    fn exec(&self) -> (Step, Errno) {
        let steps: [(Step, Act); 5] = [
            (Step::Group, Prepared::enter_group),
            (Step::ProcessGroup, |_| {
                setpgid(Pid::from_raw(0), Pid::from_raw(0))
            }),
            (Step::Streams, Prepared::connect_streams),
            (Step::User, Prepared::change_user),
            (Step::Directory, |child| chdir(child.directory.as_c_str())),
        ];
        for (step, act) in steps {
            if let Err(errno) = act(self) {
                return (step, errno);
            }
        }
        reset_signals();
        let errno = execute(&self.program, self.arguments.from(1), &self.environment);
        if errno != Errno::ENOEXEC {
            return (Step::Exec, errno);
        }
        let errno = execute(SHELL, self.arguments.from(0), &self.environment);
        (Step::Exec, errno)
    }

    /// Also gives up the protection from the OOM killer, while the user may still do so.
    fn enter_group(&self) -> nix::Result<()> {
        if let Entrance::Moved(procs) = &self.entrance {
            // "0" moves the writer (cgroups(7)).
            nix::unistd::write(procs, b"0")?;
        }
        let (path, flags) = (
            c"/proc/self/oom_score_adj",
            OFlag::O_WRONLY | OFlag::O_CLOEXEC,
        );
        if let Ok(adjustment) = nix::fcntl::open(path, flags, Mode::empty()) {
            // A host whose /proc cannot be written still starts its services.
            let _ = nix::unistd::write(adjustment, b"0");
        }
        Ok(())
    }

    fn connect_streams(&self) -> nix::Result<()> {
        dup2_stdin(&self.input)?;
        dup2_stdout(&self.output)?;
        dup2_stderr(&self.errors)?;
        // All are close-on-exec by custom; this is for what a library may have opened otherwise.
        // Not known before Linux 5.11.
        let flags = libc::CLOSE_RANGE_CLOEXEC;
        // SAFETY: plain integers; nothing is closed before the exec.
        let _ = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, flags) };
        Ok(())
    }

    fn change_user(&self) -> nix::Result<()> {
        let Some((user, group)) = self.user else {
            return Ok(());
        };
        // SAFETY: a plain integer.
        done(unsafe { libc::syscall(libc::SYS_setgid, group) })?;
        if nix::unistd::geteuid().is_root() {
            let none = std::ptr::null::<libc::gid_t>();
            // SAFETY: of no groups the kernel reads none, so that null will do.
            done(unsafe { libc::syscall(libc::SYS_setgroups, 0, none) })?;
        }
        // SAFETY: a plain integer.
        done(unsafe { libc::syscall(libc::SYS_setuid, user) })
    }
}

/// One step of the child.
type Act = fn(&Prepared) -> nix::Result<()>;

/// Strings as execve(2) wants them.
#[derive(Debug)]
struct Strings {
    /// Into `_owned`, whose strings do not move; a null at the end.
    pointers: Vec<*const c_char>,
    _owned: Vec<CString>,
}

impl Strings {
    fn new(owned: Vec<CString>) -> Strings {
        let pointers = owned.iter().map(|string| string.as_ptr());
        Strings {
            pointers: pointers.chain([std::ptr::null()]).collect(),
            _owned: owned,
        }
    }

    /// The strings from this one on.
    fn from(&self, first: usize) -> &[*const c_char] {
        &self.pointers[first..]
    }
}

/// No signal reaches this thread, nor the child, while it exists.
pub(super) struct Quiet {
    before: SigSet,
}

impl Quiet {
    /// Blocks all signals.
    ///
    /// # Errors
    ///
    /// None known; the kernel's answer is passed on.
    pub(super) fn new() -> Result<Quiet, Failed> {
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK);
        Ok(Quiet {
            before: before.naming("block", "signals")?,
        })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // It was the mask before, so it is a good one.
        let _ = self.before.thread_set_mask();
    }
}

fn clone_into(group: &File) -> io::Result<Option<Divided>> {
    let mut handle: c_int = -1;
    let arguments = libc::clone_args {
        flags: CLONE_INTO_CGROUP | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut handle).expose_provenance() as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: group.as_raw_fd() as u64,
    };
    let (address, length) = (&raw const arguments, size_of::<libc::clone_args>());
    // SAFETY: without CLONE_VM and with no stack given this is a fork: the child goes on in its own
    // copy, and does nothing there but `become_program`, see the head of this file.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, address, length) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => {
            // SAFETY: the kernel has just made this descriptor, close-on-exec, for us alone.
            let handle = unsafe { OwnedFd::from_raw_fd(handle) };
            Ok(Some(Divided::Held(PidFd::of_child(handle, pid as pid_t))))
        }
    }
}

/// Default dispositions, also for what this process ignores (exec keeps that), and nothing blocked.
fn reset_signals() {
    // The kernel's sigaction: SIG_DFL, no flags, no restorer, an empty mask.
    let default = [0_u64; 4];
    for signal in SIGNALS {
        let (new, old) = (default.as_ptr(), std::ptr::null_mut::<u64>());
        let (call, length) = (libc::SYS_rt_sigaction, SIGNAL_SET_BYTES);
        // SAFETY: the kernel reads a sigaction that is shorter than `default` or as long. It
        // refuses SIGKILL and SIGSTOP, which have no other disposition.
        let _ = unsafe { libc::syscall(call, signal, new, old, length) };
    }
    // Cannot fail with a good set.
    let _ = SigSet::empty().thread_set_mask();
}

/// Returns only when it failed, and why.
fn execute(program: &CStr, arguments: &[*const c_char], environment: &Strings) -> Errno {
    let (arguments, environment) = (arguments.as_ptr(), environment.from(0).as_ptr());
    // SAFETY: both arrays end with a null, and their strings live as long as `Prepared`.
    unsafe { libc::execve(program.as_ptr(), arguments, environment) };
    Errno::last()
}

fn done(result: c_long) -> nix::Result<()> {
    Errno::result(result).map(drop)
}

fn open_directory(path: &Path) -> Result<File, Failed> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY);
    options.open(path).naming("open", path.display())
}

/// The environment of this process with `more` in it, as `NAME=value`.
fn environment(more: &[(String, String)]) -> io::Result<Strings> {
    let more = more.iter().map(|(name, value)| (name.into(), value.into()));
    let all: BTreeMap<OsString, OsString> = std::env::vars_os().chain(more).collect();
    let lines = all.into_iter().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        CString::new(name.into_vec())
    });
    Ok(Strings::new(lines.collect::<Result<_, _>>()?))
}
