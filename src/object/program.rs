//! Programs in a control group of their own: start, output, end, and the certainty that nothing is
//! left.
//!
//! A program starts inside its group, so whatever it forks is in it too, and one write kills them
//! all. Its output goes straight to a file: no pipe, which would break when the runner dies.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::unistd::User;
use standfast_sys::cgroup::Cgroup;
use standfast_sys::process::{Ended, PidFd, Signal};
use standfast_sys::spawn::Spawn;

use super::{BuildContext, Context, ObjectError, Urgency, Woke, doomed, holders, wait_for};

/// Output above this is moved aside and begun anew; one older file is kept. Both lie in memory.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// How much of the output's end is searched for the last line.
const TAIL_BYTES: u64 = 512;

/// Longest part of the last line that is quoted.
const QUOTE_CHARS: usize = 160;

/// What to start, where, and with what around it.
pub(super) struct Plan<'a> {
    command: &'a [String],
    group: PathBuf,
    /// Where it writes, its errors always.
    output: PathBuf,
    /// Where it writes the rest, anew each time.
    told: Option<&'a Path>,
    environment: Vec<(String, String)>,
    directory: Option<&'a Path>,
    user: Option<&'a str>,
}

impl<'a> Plan<'a> {
    /// A program of the object `name` of a task.
    pub(super) fn new(
        name: &str,
        command: &'a [String],
        context: &BuildContext,
        epoch: u32,
    ) -> Plan<'a> {
        let environment = vec![
            ("STANDFAST_TASK".to_owned(), context.task_name.clone()),
            ("STANDFAST_NODE".to_owned(), context.node.clone()),
            ("STANDFAST_EPOCH".to_owned(), epoch.to_string()),
        ];
        let group = context.cgroup.join(name);
        let output = output_of(name, context);
        Plan {
            command,
            group,
            output,
            told: None,
            environment,
            directory: None,
            user: None,
        }
    }

    pub(super) fn directory(mut self, directory: Option<&'a Path>) -> Plan<'a> {
        self.directory = directory;
        self
    }

    pub(super) fn user(mut self, user: Option<&'a str>) -> Plan<'a> {
        self.user = user;
        self
    }

    pub(super) fn environment(mut self, more: &[(String, String)]) -> Plan<'a> {
        self.environment.extend_from_slice(more);
        self
    }

    /// Runs beside the task's group, not in it: the guard lets nothing live in there once the node
    /// has no right to the task. Only for what takes away and cannot write to what the task owns.
    pub(super) fn beside(mut self, context: &BuildContext) -> Plan<'a> {
        self.group = beside(&context.cgroup, &self.group);
        self
    }

    /// Its output, but not its errors, is all that will be in this file.
    pub(super) fn output(mut self, told: &'a Path) -> Plan<'a> {
        self.told = Some(told);
        self
    }

    /// Starts it and lets it run.
    pub(super) fn spawn(&self) -> Result<Program, ObjectError> {
        let group = Cgroup::create(&self.group)?;
        let errors = open_output(&self.output)?;
        let told = self.told.map(|path| {
            let what = format!("write {}", path.display());
            File::create(path).map_err(ObjectError::file(what))
        });
        let told = told.transpose()?;
        let process = Spawn {
            command: self.command,
            group: &group,
            environment: &self.environment,
            directory: self.directory.unwrap_or(Path::new("/")),
            user: self.user.map(ids_of).transpose()?,
            output: told.as_ref().unwrap_or(&errors).as_fd(),
            errors: errors.as_fd(),
        }
        .start()?;
        Ok(Program {
            process,
            ended: None,
        })
    }

    /// The error for an ending that was not the wanted one.
    pub(super) fn failed(&self, ending: &Ending) -> ObjectError {
        let program = self.command[0].clone();
        ObjectError::Program {
            program,
            ending: ending.with_last_line(&self.output),
        }
    }
}

/// Where what runs beside a task's group for the object `name` runs; see [`Plan::beside`].
pub(super) fn group_beside(name: &str, context: &BuildContext) -> PathBuf {
    beside(&context.cgroup, &context.cgroup.join(name))
}

/// A group for one object. No task has a name like this.
fn beside(task: &Path, object: &Path) -> PathBuf {
    let name = |group: &Path| group.file_name().unwrap_or_default().display().to_string();
    task.with_file_name(format!("{}:{}", name(task), name(object)))
}

/// User and main group of a name.
fn ids_of(name: &str) -> Result<(u32, u32), ObjectError> {
    let user = User::from_name(name).ok().flatten().ok_or_else(|| {
        ObjectError::Unexpected(format!("there is no user `{name}` on this node"))
    })?;
    Ok((user.uid.as_raw(), user.gid.as_raw()))
}

/// Where the programs of an object write.
pub(super) fn output_of(name: &str, context: &BuildContext) -> PathBuf {
    context.directory.join(format!("{name}.log"))
}

/// A program that was started, or adopted from an earlier runner.
pub(super) struct Program {
    process: PidFd,
    ended: Option<Ending>,
}

/// How a program ended; nothing is known of one that is not this runner's child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ending(Option<Ended>);

impl Ending {
    pub(super) fn code(self) -> Option<i32> {
        match self.0 {
            Some(Ended::Exited(code)) => Some(code),
            Some(Ended::Killed(_)) | None => None,
        }
    }

    /// A phrase: how it ended and the last line it wrote.
    pub(super) fn with_last_line(self, output: &Path) -> String {
        let ending = match self.0 {
            Some(Ended::Exited(code)) => format!("ended with exit code {code}"),
            Some(Ended::Killed(signal)) => format!("was killed by {signal}"),
            None => "ended".to_owned(),
        };
        match last_line(output) {
            Some(line) => format!("{ending}; its last line was: {line}"),
            None => ending,
        }
    }
}

impl Program {
    /// Takes over the process of an earlier runner. The caller checks afterwards that it is the
    /// meant one.
    pub(super) fn adopt(pid: i32) -> Option<Program> {
        PidFd::open(pid).ok().map(|process| Program {
            process,
            ended: None,
        })
    }

    pub(super) fn pid(&self) -> i32 {
        self.process.pid()
    }

    pub(super) fn descriptor(&self) -> (std::os::fd::BorrowedFd<'_>, PollFlags) {
        (self.process.as_fd(), PollFlags::POLLIN)
    }

    /// How it ended; none while it runs.
    pub(super) fn ended(&mut self) -> Option<Ending> {
        if self.ended.is_none() && self.process.has_ended().unwrap_or(false) {
            self.ended = Some(Ending(self.process.wait().ok().flatten()));
        }
        self.ended
    }

    /// Collects the child. One that was killed and cannot end before a disk lets it go is waited
    /// for by a thread of its own.
    pub(super) fn collect(mut self) {
        if self.ended().is_some() {
            return;
        }
        let wait = move || {
            let _ = wait_for(&[self.descriptor()], None);
            let _ = self.ended();
        };
        // Without a thread to be had a zombie stays until this process ends.
        let _ = std::thread::Builder::new()
            .name("collect".to_owned())
            .stack_size(COLLECT_STACK_BYTES)
            .spawn(wait);
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<(), ObjectError> {
        self.process.send_signal(signal)?;
        Ok(())
    }
}

/// Runs a program to its end. On the deadline, or when cancelled, it is killed; what it
/// left in its group goes with the object.
pub(super) fn run(
    plan: &Plan<'_>,
    context: &Context<'_>,
    urgency: Urgency,
    deadline: Instant,
) -> Result<Ending, ObjectError> {
    run_until(plan, |program| {
        context.wait(&[program.descriptor()], urgency, deadline)
    })
}

/// The same for what must not be cancelled, and leaves nothing behind.
pub(super) fn run_to_end(plan: &Plan<'_>, deadline: Instant) -> Result<Ending, ObjectError> {
    let ending = run_until(plan, |program| {
        wait_for(&[program.descriptor()], Some(deadline))
    });
    Group::new(plan.group.clone(), false).remove();
    ending
}

fn run_until(
    plan: &Plan<'_>,
    mut wait: impl FnMut(&Program) -> Woke,
) -> Result<Ending, ObjectError> {
    let mut program = plan.spawn()?;
    loop {
        if let Some(ending) = program.ended() {
            return Ok(ending);
        }
        let error = match wait(&program) {
            Woke::Ready(_) => continue,
            Woke::Cancelled => ObjectError::Cancelled,
            Woke::Late => ObjectError::late(format!("{} did not end", plan.command[0])),
        };
        program.signal(Signal::SIGKILL)?;
        let _ = wait_for(
            &[program.descriptor()],
            Some(Instant::now() + Duration::from_secs(1)),
        );
        program.ended();
        return Err(error);
    }
}

/// Stack of a thread that only waits.
const COLLECT_STACK_BYTES: usize = 64 * 1024;

/// How long a killed process gets before it is asked what keeps it.
const DOOMED_AFTER: Duration = Duration::from_secs(2);

/// A control group that is emptied.
pub(super) struct Group {
    path: PathBuf,
    /// What its processes may still have under way to a disk, the array refuses.
    fenced: bool,
}

impl Group {
    pub(super) fn new(path: PathBuf, fenced: bool) -> Group {
        Group { path, fenced }
    }

    /// Does anything run in it?
    pub(super) fn is_populated(&self) -> Result<bool, ObjectError> {
        match Cgroup::open_existing(&self.path)? {
            Some(group) => Ok(group.is_populated()?),
            None => Ok(false),
        }
    }

    /// The processes in it and in those inside it.
    pub(super) fn processes(&self) -> Result<Vec<u32>, ObjectError> {
        match Cgroup::open_existing(&self.path)? {
            None => Ok(Vec::new()),
            Some(group) => {
                let what = format!("list the processes of {}", self.path.display());
                holders::processes_in(group.path()).map_err(ObjectError::file(what))
            }
        }
    }

    /// Waits until nothing runs in it; false at the deadline or when cancelled.
    pub(super) fn wait_empty(
        &self,
        context: Option<(&Context<'_>, Urgency)>,
        deadline: Instant,
    ) -> Result<bool, ObjectError> {
        let Some(group) = Cgroup::open_existing(&self.path)? else {
            return Ok(true);
        };
        let events = group.events()?;
        while events.read()?.populated {
            let wanted = [(events.as_fd(), PollFlags::POLLPRI)];
            let woke = match context {
                Some((context, urgency)) => context.wait(&wanted, urgency, deadline),
                None => wait_for(&wanted, Some(deadline)),
            };
            if !matches!(woke, Woke::Ready(_)) {
                return Ok(!events.read()?.populated);
            }
        }
        Ok(true)
    }

    /// Kills everything in it and waits until it is gone.
    pub(super) fn kill_and_wait(&self, deadline: Instant) -> Result<(), ObjectError> {
        let Some(group) = Cgroup::open_existing(&self.path)? else {
            return Ok(());
        };
        group.kill()?;
        // Killed processes in the middle of a write to a dead disk stay until the disk lets them
        // go. Where the next owner has the array refuse that write, they are as good as gone.
        let soon = deadline.min(Instant::now() + DOOMED_AFTER);
        if self.fenced && (self.wait_empty(None, soon)? || doomed::all_in(group.path())) {
            return Ok(());
        }
        if self.wait_empty(None, deadline)? {
            return Ok(());
        }
        let pids = group.procs().unwrap_or_default();
        let named = pids
            .iter()
            .map(|pid| format!("{} ({pid})", holders::name_of(*pid as u32)));
        let holders = named.collect::<Vec<_>>().join(", ");
        let what = format!("after SIGKILL the control group {}", group.path().display());
        Err(ObjectError::InUse { what, holders })
    }

    /// Kills everything in it, waits until it is gone, and removes the group: one that was killed
    /// takes in new processes, such as the next program or a probe, only by the slow way.
    pub(super) fn end(&self, deadline: Instant) -> Result<(), ObjectError> {
        self.kill_and_wait(deadline)?;
        self.remove();
        Ok(())
    }

    /// Removes it when it is empty. That it stays behind is harmless: an empty group runs nothing.
    pub(super) fn remove(&self) {
        if let Ok(Some(group)) = Cgroup::open_existing(&self.path) {
            let _ = group.remove();
        }
    }

    /// Is this process in the group itself?
    pub(super) fn contains(&self, pid: i32) -> bool {
        let group = Cgroup::open_existing(&self.path).ok().flatten();
        group
            .and_then(|group| group.procs().ok())
            .is_some_and(|pids| pids.contains(&pid))
    }
}

fn open_output(path: &Path) -> Result<File, ObjectError> {
    bound_output(path);
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o640);
    options
        .open(path)
        .map_err(ObjectError::file(format!("open {}", path.display())))
}

/// Moves long output aside. The writer keeps its descriptor, which always appends: copied and cut,
/// not renamed. What is written between the two is lost; it is output, not a record.
pub(super) fn bound_output(path: &Path) {
    let long = fs::metadata(path).is_ok_and(|file| file.len() > OUTPUT_BYTES_MAX);
    if !long {
        return;
    }
    if fs::copy(path, path.with_extension("log.1")).is_ok() {
        let _ = OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|file| file.set_len(0));
    }
}

fn last_line(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))
        .ok()?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    let line = tail.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(
        line.trim()
            .chars()
            .filter(|letter| !letter.is_control())
            .take(QUOTE_CHARS)
            .collect(),
    )
}
