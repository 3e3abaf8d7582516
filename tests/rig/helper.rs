//! The rig's small processes: the same program again, called as `... helper NAME ARGUMENTS`.
//!
//! ```text
//! the rig ── life ── init      life makes the namespaces, init is process 1 inside
//!                     |- the daemon and its tasks (entered by nsenter)
//!                     '- echo, burn
//! ```
//!
//! Each dies with its parent unless it is told to last, so a killed rig takes everything with it.

use std::fs;
use std::io::{self, Write};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::leftovers::cgroup_mount;
use super::trouble::{Doing, Trouble};

/// First argument of every helper.
pub(crate) const HELPER: &str = "helper";

/// What a machine prints before the process id of its process 1.
pub(crate) const PROCESS: &str = "process";

/// What a machine prints when it is ready to be used.
pub(crate) const READY: &str = "ready";

/// Stands for a machine that shares the host's control groups.
pub(crate) const NO_CGROUP: &str = "-";

/// Largest question an echo server answers; the rest of it is cut off.
const QUESTION_MAX: usize = 64;

/// Runs the helper that the arguments ask for; `None` when they ask for none.
pub(crate) fn run_if_asked() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        [HELPER, "life", rest @ ..] => life(rest),
        [HELPER, "init", rest @ ..] => init(rest),
        [HELPER, "echo", port] => echo(port),
        [HELPER, "burn"] => burn(),
        [HELPER, rest @ ..] => Err(Trouble::new(format!("no such helper: {rest:?}"))),
        _ => return None,
    };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("{}: {trouble}", words[1..].join(" "));
            ExitCode::FAILURE
        }
    })
}

/// `life bound|lasting NAME FROM:TO...`: makes the namespaces and prints the process id of their
/// init.
fn life(words: &[&str]) -> Result<(), Trouble> {
    if words.first() == Some(&"bound") {
        set_pdeathsig(Signal::SIGKILL).doing("bind the life to its parent")?;
    }
    if let Some(cgroup) = words.get(1).filter(|cgroup| **cgroup != NO_CGROUP) {
        fs::write(Path::new(cgroup).join("cgroup.procs"), "0").doing("enter a control group")?;
    }
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWCGROUP
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID;
    unshare(namespaces).doing("make namespaces, as root")?;
    let own = std::env::current_exe().doing("find the own program")?;
    let init = Command::new(own)
        .args([HELPER, "init"])
        .args(words)
        .stdin(Stdio::null())
        .spawn();
    let mut init = init.doing("start process 1")?;
    say(&format!("{PROCESS} {}", init.id()))?;
    init.wait().doing("wait for process 1")?;
    Ok(())
}

/// `init bound|lasting CGROUP NAME FROM:TO...`: gives the machine its own `/run` and `/proc`, a
/// name and a loopback interface, then reaps orphans until it is killed.
fn init(words: &[&str]) -> Result<(), Trouble> {
    let [bound, cgroup, name, binds @ ..] = words else {
        return Err(Trouble::new("init wants to know its name"));
    };
    if *bound == "bound" {
        set_pdeathsig(Signal::SIGKILL).doing("bind process 1 to its parent")?;
    }
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.thread_block().doing("block SIGCHLD")?;
    let nothing: Option<&str> = None;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(nothing, "/", nothing, private, nothing).doing("make mounts private")?;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), quiet, nothing).doing("mount /proc")?;
    if *cgroup != NO_CGROUP {
        own_cgroups()?;
    }
    fs::write("/proc/sys/kernel/hostname", name).doing("set the host name")?;
    for which in ["all", "default"] {
        // Without the setting there is no IPv6 to be quiet about.
        let setting = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
        drop(fs::write(setting, "1"));
    }
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), safe, Some("mode=755")).doing("mount /run")?;
    for bind in binds {
        let (from, to) = bind.split_once(':').unwrap_or((bind, bind));
        fs::create_dir_all(to).doing(to)?;
        mount(Some(from), to, nothing, MsFlags::MS_BIND, nothing).doing(bind)?;
    }
    fs::create_dir_all(Path::new("/run/data")).doing("make a mount point")?;
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    if !up.doing("run ip")?.success() {
        return Err(Trouble::new("the loopback interface does not come up"));
    }
    say(READY)?;
    loop {
        children.wait().doing("wait for a child")?;
        while !matches!(
            waitpid(None, Some(WaitPidFlag::WNOHANG)),
            Ok(WaitStatus::StillAlive) | Err(_)
        ) {}
    }
}

/// Mounts the control groups of this machine over the host's, and moves process 1 to a leaf of
/// them: the daemon finds a tree that nobody else has, as on a machine of its own.
fn own_cgroups() -> Result<(), Trouble> {
    let place = cgroup_mount().ok_or_else(|| Trouble::new("no control groups of version 2"))?;
    let nothing: Option<&str> = None;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // The kernel does not mount one file system twice on one place.
    umount2(&place, MntFlags::MNT_DETACH).doing("hide the host's control groups")?;
    mount(Some("cgroup2"), &place, Some("cgroup2"), safe, nothing).doing("mount cgroup2")?;
    let leaf = place.join("machine");
    fs::create_dir(&leaf).doing("make a control group")?;
    fs::write(leaf.join("cgroup.procs"), "0").doing("move to a control group")
}

/// `echo PORT`: answers each datagram with its first bytes and the name of this machine.
///
/// Nobody who asks is trusted with more than the length of the answer.
fn echo(port: &str) -> Result<(), Trouble> {
    let port: u16 = port.parse().doing("read the port")?;
    let socket = UdpSocket::bind(("0.0.0.0", port)).doing("bind the echo server")?;
    let name = fs::read_to_string("/proc/sys/kernel/hostname").doing("read the host name")?;
    let mut buffer = [0; QUESTION_MAX];
    loop {
        let (length, asker) = socket.recv_from(&mut buffer).doing("receive")?;
        let answer = [&buffer[..length], name.trim().as_bytes()].concat();
        // An asker that is gone is no reason to end.
        drop(socket.send_to(&answer, asker));
    }
}

/// `burn`: keeps one core busy at normal priority.
fn burn() -> Result<(), Trouble> {
    set_pdeathsig(Signal::SIGKILL).doing("bind the loop to its parent")?;
    loop {
        std::hint::spin_loop();
    }
}

fn say(line: &str) -> Result<(), Trouble> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .doing("print")
}
