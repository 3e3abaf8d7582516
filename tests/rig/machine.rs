//! A machine of the rig: one set of network, mount, process, host name and IPC namespaces.
//!
//! It lives as long as its process 1. Killing that one takes everything with it in one instant:
//! processes, mounts, interfaces.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::helper::{HELPER, NO_CGROUP, PROCESS, READY};
use super::leftovers::cgroup_mount;
use super::trouble::{Doing, Trouble};

/// A directory of the host that the machine sees under another name.
pub(crate) type Bind = (PathBuf, &'static str);

/// See the module.
#[derive(Debug)]
pub(crate) struct Machine {
    name: String,
    stage: Child,
    init: u32,
    dead: bool,
}

impl Machine {
    /// Starts one and returns when it can be used. A `lasting` one survives the rig. Its control
    /// groups are those below `cgroup`, or the host's.
    pub(crate) fn start(
        name: &str,
        lasting: bool,
        cgroup: Option<&Path>,
        binds: &[Bind],
    ) -> Result<Machine, Trouble> {
        let own = std::env::current_exe().doing("find the own program")?;
        let mut command = Command::new(own);
        command.args([HELPER, "life", if lasting { "lasting" } else { "bound" }]);
        command
            .arg(cgroup.unwrap_or(Path::new(NO_CGROUP)))
            .arg(name);
        command.args(
            binds
                .iter()
                .map(|(from, to)| format!("{}:{to}", from.display())),
        );
        // Its own group: an interrupt at the keyboard is for the rig, which then cleans up in
        // order.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0);
        let mut stage = command.spawn().doing("start a machine")?;
        let output = stage
            .stdout
            .take()
            .ok_or_else(|| Trouble::new("a machine without a voice"))?;
        let (mut init, mut ready) = (None, false);
        // Two processes speak; either may be first.
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            match line.split_once(' ') {
                Some((PROCESS, number)) => init = number.parse().ok(),
                _ => ready |= line == READY,
            }
            if let (Some(init), true) = (init, ready) {
                return Ok(Machine {
                    name: name.to_owned(),
                    stage,
                    init,
                    dead: false,
                });
            }
        }
        drop(stage.kill());
        drop(stage.wait());
        Err(Trouble::new(format!(
            "machine {name} did not come up, see above"
        )))
    }

    /// The host's process id of its process 1.
    pub(crate) fn init(&self) -> u32 {
        self.init
    }

    /// A command that runs inside.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = enter(self.init);
        command.arg(program.as_ref()).process_group(0);
        command
    }

    /// A command that starts a service inside and returns: the service is a child of process 1, as
    /// on any machine, and nothing outside waits for it or stops with it.
    pub(crate) fn service(&self, program: impl AsRef<Path>) -> Command {
        let mut command = self.command("setsid");
        command.arg("--fork").arg(program.as_ref());
        command
    }

    /// Gives lines to `ip -batch` in its network; process ids in them are the host's.
    pub(crate) fn ip(&self, lines: &str) -> Result<(), Trouble> {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &self.init.to_string(),
            "--net",
            "--",
            "ip",
            "-batch",
            "-",
        ]);
        command.stdin(Stdio::piped());
        let mut child = command.spawn().doing("run ip")?;
        let input = child
            .stdin
            .take()
            .ok_or_else(|| Trouble::new("ip does not listen"))?;
        io_write(input, lines)?;
        let status = child.wait().doing("wait for ip")?;
        if status.success() {
            return Ok(());
        }
        Err(Trouble::new(format!(
            "ip on {} refused one of:\n{lines}",
            self.name
        )))
    }

    /// Runs `work` on a thread that sees this machine's network; a socket it opens stays there.
    pub(crate) fn in_network<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, Trouble> + Send,
    ) -> Result<T, Trouble> {
        let path = format!("/proc/{}/ns/net", self.init);
        let network = File::open(&path).doing(path)?;
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                setns(&network, CloneFlags::CLONE_NEWNET).doing("enter a network")?;
                work()
            });
            worker
                .join()
                .unwrap_or_else(|_| Err(Trouble::new("a thread of the rig panicked")))
        })
    }

    /// Where the host finds a path of this machine.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.init))
    }

    /// The host's process id for one of this machine's own.
    pub(crate) fn host_pid(&self, inside: u64) -> Option<Pid> {
        let namespace = fs::metadata(format!("/proc/{}/ns/pid", self.init))
            .ok()?
            .ino();
        let wanted = inside.to_string();
        fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let found = fs::metadata(entry.path().join("ns/pid")).ok()?.ino();
            if found != namespace {
                return None;
            }
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let own = status
                .lines()
                .find_map(|line| line.strip_prefix("NSpid:"))?;
            (own.split_whitespace().next_back() == Some(&wanted)).then_some(Pid::from_raw(pid))
        })
    }

    /// Kills process 1; everything inside dies with it. Does not wait.
    pub(crate) fn kill(&self) {
        // A machine that is already gone is as dead as one can be.
        let _ = kill(Pid::from_raw(self.init.cast_signed()), Signal::SIGKILL);
    }

    /// Waits until nothing of a killed machine is left.
    pub(crate) fn wait(&mut self) {
        if !self.dead {
            self.dead = true;
            drop(self.stage.wait());
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if !self.dead {
            self.kill();
            self.wait();
        }
    }
}

/// `nsenter` into the machine whose process 1 has this id, and into its control group.
pub(crate) fn enter(init: u32) -> Command {
    let mut command = Command::new("sh");
    // The shell is the process that moves; what it becomes then starts everything else there.
    let join = "[ -z \"$0\" ] || echo 0 > \"$0/cgroup.procs\"; exec \"$@\"";
    command
        .args(["-c", join])
        .arg(cgroup_of(init).unwrap_or_default());
    command.args(["nsenter", "--target", &init.to_string()]);
    command.args([
        "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--",
    ]);
    command.current_dir("/");
    command
}

/// The control group of a process, as the host sees it.
fn cgroup_of(pid: u32) -> Option<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(cgroup_mount()?.join(path)).filter(|_| !path.is_empty())
}

fn io_write(mut to: impl std::io::Write, text: &str) -> Result<(), Trouble> {
    to.write_all(text.as_bytes()).doing("write to a program")
}
