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

use super::helper::{HELPER, READY};
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
    /// Starts one and returns when it can be used. A `lasting` one survives the rig.
    pub(crate) fn start(name: &str, lasting: bool, binds: &[Bind]) -> Result<Machine, Trouble> {
        let own = std::env::current_exe().doing("find the own program")?;
        let mut command = Command::new(own);
        command.args([
            HELPER,
            "life",
            if lasting { "lasting" } else { "bound" },
            name,
        ]);
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
        let mut lines = BufReader::new(output).lines();
        let mut next = || lines.next().unwrap_or_else(|| Ok(String::new()));
        let init = next().doing("hear from a machine")?.parse();
        let init: u32 = init.doing(format!("start machine {name}"))?;
        let machine = Machine {
            name: name.to_owned(),
            stage,
            init,
            dead: false,
        };
        if next().doing("hear from a machine")? != READY {
            return Err(Trouble::new(format!(
                "machine {name} did not come up, see above"
            )));
        }
        Ok(machine)
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

/// `nsenter` into the machine whose process 1 has this id.
pub(crate) fn enter(init: u32) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &init.to_string()]);
    command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--"]);
    command.current_dir("/");
    command
}

fn io_write(mut to: impl std::io::Write, text: &str) -> Result<(), Trouble> {
    to.write_all(text.as_bytes()).doing("write to a program")
}
