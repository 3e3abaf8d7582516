//! A node: a machine with cables, disks and the daemon, and everything that can befall it.
//!
//! Between two lives nothing stays but its name, its hardware addresses and its state directory:
//! the next life has new namespaces and a new boot id.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::rc::Rc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use standfast::node::page::word;
use standfast_sys::clock::boottime_ns;
use standfast_sys::loop_device::LoopDevice;

use super::leftovers::Journal;
use super::machine::Machine;
use super::software::{self, BOOT_ID, ETC, RUN_DIR, STATE, Service, Software};
use super::switch::{Cable, Switch};
use super::trouble::{Doing, Trouble};
use super::wait::{PATIENCE, eventually};

/// The networks, in the order of a node's interfaces: interface and bridge.
pub(crate) const NETWORKS: [(&str, &str); 3] = [("svc0", "svc"), ("hb0", "hb0"), ("hb1", "hb1")];

/// A cable of a node, as its place in [`NETWORKS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// To the clients.
    Service = 0,
    /// The first between the nodes.
    Heartbeat0 = 1,
    /// The second.
    Heartbeat1 = 2,
}

/// All cables between the nodes.
pub(crate) const HEARTBEATS: [Wire; 2] = [Wire::Heartbeat0, Wire::Heartbeat1];
/// All cables.
pub(crate) const ALL_WIRES: [Wire; 3] = [Wire::Service, Wire::Heartbeat0, Wire::Heartbeat1];

/// One of the daemon's processes, as the word of the shared page that tells its process id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Releases when the lease ends.
    Guard = word::GUARD_PID as isize,
    /// Decides.
    Core = word::CORE_PID as isize,
    /// Starts, stops and probes.
    Runner = word::RUNNER_PID as isize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// Position among the nodes.
    pub(crate) index: usize,
    /// Its paths to the register's disks.
    pub(crate) disks: Vec<LoopDevice>,
    /// Options of the daemon besides those that every lab needs.
    pub(crate) options: Vec<String>,
    directory: PathBuf,
    software: Software,
    service: Service,
    switch: Rc<Switch>,
    journal: Rc<Journal>,
    lasting: bool,
    life: u32,
    ports: Vec<u32>,
    machine: Option<Machine>,
    cgroup: Option<PathBuf>,
}

/// What a node is made of.
pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) index: usize,
    pub(crate) disks: Vec<LoopDevice>,
    pub(crate) software: Software,
    pub(crate) service: Service,
    pub(crate) switch: Rc<Switch>,
    pub(crate) journal: Rc<Journal>,
    pub(crate) lasting: bool,
}

impl Node {
    /// A node that is switched off.
    pub(crate) fn new(parts: Parts) -> Result<Node, Trouble> {
        let Parts {
            name,
            index,
            disks,
            software,
            service,
            switch,
            journal,
            lasting,
        } = parts;
        let directory = journal.directory().join(&name);
        for part in ["etc", "state"] {
            let path = directory.join(part);
            fs::create_dir_all(&path).doing(path.display())?;
        }
        let (ports, machine, cgroup) = (Vec::new(), None, None);
        let life = 0;
        Ok(Node {
            name,
            index,
            disks,
            options: Vec::new(),
            directory,
            software,
            service,
            switch,
            journal,
            lasting,
            life,
            ports,
            machine,
            cgroup,
        })
    }

    /// Hardware address of one of its interfaces, the same in every life.
    pub(crate) fn mac(index: usize, network: usize) -> [u8; 6] {
        [0x02, 0x53, 0x46, 0x00, index as u8 + 1, network as u8]
    }

    /// The directory of its configuration on the host.
    pub(crate) fn etc(&self) -> PathBuf {
        self.directory.join("etc")
    }

    /// What its daemons have written so far.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// The machine of this life.
    pub(crate) fn machine(&self) -> Result<&Machine, Trouble> {
        let off = || Trouble::new(format!("node {} is switched off", self.name));
        self.machine.as_ref().ok_or_else(off)
    }

    /// Begins a new life without the daemon.
    pub(crate) fn power_on(&mut self) -> Result<(), Trouble> {
        self.life += 1;
        let binds = [(self.etc(), ETC), (self.directory.join("state"), STATE)];
        let cgroup = self
            .journal
            .cgroup(&format!("{}{}", self.name, self.life))?;
        let machine = Machine::start(&self.name, self.lasting, cgroup.as_deref(), &binds)?;
        self.cgroup = cgroup;
        self.journal.note(&self.name, machine.init())?;
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/uuid").doing("make a boot id")?;
        fs::write(machine.path(BOOT_ID), boot_id).doing("write the boot id")?;
        let ports = NETWORKS.map(|(_, bridge)| format!("{}{}-{bridge}", self.name, self.life));
        let cables: Vec<Cable<'_>> = NETWORKS
            .iter()
            .enumerate()
            .map(|(at, &(interface, bridge))| {
                let mac = Node::mac(self.index, at);
                Cable {
                    interface,
                    mac,
                    network: bridge,
                    port: &ports[at],
                }
            })
            .collect();
        self.ports = self.switch.plug(&machine, &cables)?;
        let address = self.index + 11;
        let mut lines = format!("addr add 10.77.0.{address}/24 dev svc0\n");
        for (interface, _) in NETWORKS {
            lines += &format!("link set {interface} up\n");
        }
        machine.ip(&lines)?;
        self.machine = Some(machine);
        if self.service == Service::Address {
            self.start_responder()?;
        }
        Ok(())
    }

    fn start_responder(&self) -> Result<(), Trouble> {
        let mut command = self.machine()?.service(&software::echo_command()[0]);
        command
            .args(&software::echo_command()[1..])
            .stdout(Stdio::null());
        begin(command, "the echo server")
    }

    /// Starts the daemon.
    pub(crate) fn start_daemon(&mut self) -> Result<(), Trouble> {
        let name = self.name.clone();
        self.start_daemon_as(&name)
    }

    /// Starts the daemon under another node's name: an administrator's mistake.
    pub(crate) fn start_daemon_as(&mut self, name: &str) -> Result<(), Trouble> {
        let mut options = OpenOptions::new();
        let log = options
            .create(true)
            .append(true)
            .open(self.log())
            .doing("open a log")?;
        let again = log.try_clone().doing("open a log")?;
        let mut command = self.software.daemon(self.machine()?, name)?;
        command.args(&self.options).stdout(log).stderr(again);
        begin(command, "the daemon")
    }

    /// A whole boot: a new life and the daemon.
    pub(crate) fn boot(&mut self) -> Result<(), Trouble> {
        self.power_on()?;
        self.start_daemon()
    }

    /// Kills everything in it and pulls all its cables in one instant; returns when that was.
    pub(crate) fn murder(&mut self) -> Result<u64, Trouble> {
        let Some(machine) = &mut self.machine else {
            return Ok(boottime_ns());
        };
        let at = boottime_ns();
        machine.kill();
        self.switch.set(&self.ports, false)?;
        machine.wait();
        self.machine = None;
        Ok(at)
    }

    /// Pulls or plugs cables of this node.
    pub(crate) fn wire(&self, wires: &[Wire], up: bool) -> Result<(), Trouble> {
        let ports: Vec<u32> = wires
            .iter()
            .map(|wire| self.ports[*wire as usize])
            .collect();
        self.switch.set(&ports, up)
    }

    /// Sends a signal to some of the daemon's processes, all at once; returns when that was.
    pub(crate) fn signal(&self, roles: &[Role], signal: Signal) -> Result<u64, Trouble> {
        let pids: Vec<Pid> = roles
            .iter()
            .map(|role| self.pid(*role))
            .collect::<Result<_, _>>()?;
        let at = boottime_ns();
        for pid in pids {
            kill(pid, signal).doing(format!("send {signal} to {pid} of node {}", self.name))?;
        }
        Ok(at)
    }

    /// The host's process id of one of the daemon's processes.
    pub(crate) fn pid(&self, role: Role) -> Result<Pid, Trouble> {
        let machine = self.machine()?;
        let find = || machine.host_pid(self.page(role as usize)?);
        eventually(
            &format!("the {role:?} of node {}", self.name),
            PATIENCE,
            find,
        )
    }

    /// A word of the shared page; none while there is no page.
    pub(crate) fn page(&self, word: usize) -> Option<u64> {
        let page = fs::read(self.machine.as_ref()?.path(RUN_DIR).join("page")).ok()?;
        let bytes = page.get(word * 8..word * 8 + 8)?;
        bytes.try_into().ok().map(u64::from_le_bytes)
    }

    /// Sets a word of the shared page, as one of the node's own processes would.
    pub(crate) fn set_page(&self, word: usize, value: u64) -> Result<(), Trouble> {
        let path = self.machine()?.path(RUN_DIR).join("page");
        let page = OpenOptions::new().write(true).open(&path);
        page.and_then(|page| page.write_all_at(&value.to_le_bytes(), word as u64 * 8))
            .doing(path.display())
    }

    /// Does it hold a lease: is it a member that may run tasks?
    pub(crate) fn has_lease(&self) -> bool {
        self.page(word::LEASE_DEADLINE)
            .is_some_and(|deadline| deadline > boottime_ns())
    }

    /// Waits until it could take the task: it holds a lease, or the peer's daemon says so.
    pub(crate) fn wait_until_ready(&self) -> Result<(), Trouble> {
        let what = format!("node {} to become a member", self.name);
        eventually(&what, PATIENCE, || match self.software {
            Software::Standfast => self.has_lease().then_some(()),
            Software::Keepalived { .. } => {
                let log = fs::read_to_string(self.log()).ok()?;
                let life = log.rfind("Starting VRRP child").unwrap_or(0);
                log[life..].contains(" STATE").then_some(())
            }
        })
    }

    /// Ends the daemon in order, as the system does on shutdown.
    pub(crate) fn end_daemon(&self) -> Result<(), Trouble> {
        let machine = self.machine()?;
        let daemon = match self.software {
            Software::Standfast => self.page(Role::Guard as usize),
            Software::Keepalived { .. } => {
                let pid = fs::read_to_string(machine.path("/run/keepalived.pid"));
                pid.ok().and_then(|pid| pid.trim().parse().ok())
            }
        };
        let daemon = daemon.and_then(|pid| machine.host_pid(pid));
        let daemon = daemon.ok_or_else(|| Trouble::new("no daemon to end"))?;
        kill(daemon, Signal::SIGTERM).doing("end the daemon")?;
        let process = PathBuf::from(format!("/proc/{daemon}"));
        eventually("the daemon to end", PATIENCE, || {
            (!process.exists()).then_some(())
        })
    }

    /// A command of `standfast` on this node.
    pub(crate) fn command(&self, arguments: &[&str]) -> Result<Command, Trouble> {
        let mut command = self.machine()?.command(software::program("standfast")?);
        command
            .args(software::PLACES)
            .args(arguments)
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Runs it and returns what it printed, whatever its exit code is.
    pub(crate) fn try_cli(&self, arguments: &[&str]) -> Result<Output, Trouble> {
        self.command(arguments)?.output().doing("run standfast")
    }

    /// Runs it and returns what it printed; it must succeed.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Result<String, Trouble> {
        let output = self.try_cli(arguments)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        let command = arguments.join(" ");
        Err(Trouble::new(format!(
            "standfast {command} on {}: {errors}{text}",
            self.name
        )))
    }

    /// What `status --json` says, whatever its exit code says about it.
    pub(crate) fn status(&self) -> Result<serde_json::Value, Trouble> {
        let output = self.try_cli(&["status", "--json"])?;
        serde_json::from_slice(&output.stdout).doing("read the status")
    }

    /// Keeps `count` cores busy at normal priority until the value goes away.
    pub(crate) fn burn(&self, count: usize) -> Result<Vec<Burner>, Trouble> {
        let own = std::env::current_exe().doing("find the own program")?;
        let burner = |_| {
            let mut command = self.machine()?.command(&own);
            command
                .args([super::helper::HELPER, "burn"])
                .process_group(0);
            Ok(Burner(command.spawn().doing("start a busy loop")?))
        };
        (0..count).map(burner).collect()
    }

    /// The processes of the task's program, by the host's process ids.
    pub(crate) fn program_pids(&self) -> Vec<Pid> {
        self.cgroup
            .as_deref()
            .map(|own| pids_below(&own.join("standfast")))
            .unwrap_or_default()
    }

    /// Is the floating address on it?
    pub(crate) fn holds_address(&self) -> Result<bool, Trouble> {
        let mut command = self.machine()?.command("ip");
        let output = command
            .args(["-o", "addr", "show", "dev", "svc0"])
            .output()
            .doing("run ip")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.contains(&format!(" {}/", software::ADDRESS)))
    }

    /// Waits until neither the address nor a program of the task is left on it.
    pub(crate) fn wait_until_released(&self) -> Result<(), Trouble> {
        eventually(&format!("node {} to let go", self.name), PATIENCE, || {
            let gone = self.program_pids().is_empty() && !self.holds_address().ok()?;
            gone.then_some(())
        })
    }

    /// The end of its log, for a failure's report.
    pub(crate) fn last_words(&self, lines: usize) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// A busy loop; ends with this value.
#[derive(Debug)]
pub(crate) struct Burner(Child);

impl Drop for Burner {
    fn drop(&mut self) {
        // The loop dies with nsenter, its parent.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Starts a service and returns when it is on its own.
fn begin(mut command: Command, what: &str) -> Result<(), Trouble> {
    let started = command
        .stdin(Stdio::null())
        .status()
        .doing(format!("start {what}"))?;
    let failed = || Trouble::new(format!("cannot start {what}: {started}"));
    started.success().then_some(()).ok_or_else(failed)
}

fn pids_below(cgroup: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<Pid> = text
        .lines()
        .filter_map(|line| line.parse().ok())
        .map(Pid::from_raw)
        .collect();
    if let Ok(entries) = fs::read_dir(cgroup) {
        for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
            pids.extend(pids_below(&entry.path()));
        }
    }
    pids
}

/// Makes a sparse file for a disk.
pub(crate) fn image(path: &Path, bytes: u64) -> Result<(), Trouble> {
    File::create(path)
        .and_then(|file| file.set_len(bytes))
        .doing(path.display())
}
