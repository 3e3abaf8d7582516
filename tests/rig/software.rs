//! What runs on the nodes: Standfast, or a peer that it is compared with.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::machine::Machine;
use super::trouble::{Doing, Trouble};

/// The floating address.
pub(crate) const ADDRESS: &str = "10.77.0.100";

/// Port of the echo servers.
pub(crate) const PORT: u16 = 7000;

/// The one task of a lab.
pub(crate) const TASK: &str = "web";

/// The object of the task that mounts the volume.
pub(crate) const VOLUME: &str = "data";

/// Where a node finds its files.
pub(crate) const RUN_DIR: &str = "/run/standfast";
/// The shared configuration, a directory of the node's own on the host.
pub(crate) const ETC: &str = "/run/etc";
/// What survives a reboot.
pub(crate) const STATE: &str = "/run/state";
/// The boot id of this life.
pub(crate) const BOOT_ID: &str = "/run/boot_id";
/// The fence agent, in [`ETC`].
const AGENT: &str = "fence_file";

/// It asks for power to be cut with a file `off-PLUG` beside itself, and waits for the answer, a
/// file `dead-PLUG`.
const FENCE: &str = "#!/bin/sh\n\
    while read -r line; do\n\
    case $line in action=*) action=${line#action=} ;; plug=*) plug=${line#plug=} ;; esac\n\
    done\n\
    cd \"$(dirname \"$0\")\" || exit 1\n\
    case $action in\n\
    off) : >\"off-$plug\"; until [ -e \"dead-$plug\" ]; do sleep 0.01; done ;;\n\
    status) [ -e \"dead-$plug\" ] && exit 2 ;;\n\
    esac\n\
    exit 0\n";

/// Where the volume is mounted.
pub(crate) const DATA: &str = "/run/data";

/// The same for the command line.
pub(crate) const PLACES: [&str; 6] = [
    "--config",
    "/run/etc/cluster.toml",
    "--run-dir",
    RUN_DIR,
    "--state-dir",
    STATE,
];

/// Real-time priority of the programs whose answers are measured.
const PRIORITY: &str = "30";

/// The high-availability software under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Software {
    /// Ours.
    Standfast,
    /// keepalived with adverts of so many milliseconds; at 10 and below real-time.
    Keepalived {
        /// Between two adverts.
        advert_ms: u32,
    },
}

/// What the task consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Only the address; each node has an echo server of its own, outside of the task.
    Address,
    /// The address, then an echo server.
    Echo,
    /// A mounted ext4 volume, then the address, then an echo server.
    Volume,
}

/// Everything a configuration is made of.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Name of the cluster.
    pub(crate) cluster: String,
    /// 32 hex digits.
    pub(crate) cluster_id: String,
    /// `revision` of the file.
    pub(crate) revision: u32,
    /// The one knob.
    pub(crate) detect_ms: u32,
    /// Name and number of each node.
    pub(crate) nodes: Vec<(String, u8)>,
    /// Each node's paths to the register's disks.
    pub(crate) disks: Vec<Vec<PathBuf>>,
    /// The shared volume.
    pub(crate) volume: PathBuf,
    /// What the task consists of.
    pub(crate) service: Service,
    /// Restarts of a failed program before the task moves.
    pub(crate) restarts: u32,
    /// Each node has a device that switches it off, and the task requires it.
    pub(crate) fenced: bool,
}

impl Plan {
    /// The cluster's configuration file.
    pub(crate) fn toml(&self) -> String {
        let Plan {
            cluster,
            cluster_id,
            revision,
            detect_ms,
            restarts,
            ..
        } = self;
        let mut text = format!(
            "revision = {revision}\n\n[cluster]\nname = \"{cluster}\"\nid = \"{cluster_id}\"\n\
             detect = \"{detect_ms}ms\"\nsecret = \"{ETC}/secret\"\n\n\
             [watchdog]\ndevice = \"none\"\n"
        );
        for (name, id) in &self.nodes {
            text += &format!("\n[[node]]\nname = \"{name}\"\nid = {id}\n");
        }
        for cable in ["hb0", "hb1"] {
            text += &format!(
                "\n[[link]]\nname = \"{cable}\"\nkind = \"ethernet\"\ninterface = \"{cable}\"\n"
            );
        }
        self.disk_links(&mut text);
        if self.fenced {
            for (name, _) in &self.nodes {
                text += &format!(
                    "\n[[fence]]\nname = \"power-of-{name}\"\nagent = \"{ETC}/{AGENT}\"\n\
                     plug = {{ {name} = \"{name}\" }}\n"
                );
            }
        }
        let fenced = self.fenced;
        text += &format!(
            "\n[[task]]\nname = \"{TASK}\"\nfence-required = {fenced}\n\n\
             [task.restart]\nattempts = {restarts}\nwindow = \"10m\"\n"
        );
        self.objects(&mut text);
        text
    }

    fn disk_links(&self, text: &mut String) {
        let count = self.disks.iter().map(Vec::len).max().unwrap_or(0);
        for disk in 0..count {
            let nodes = self.nodes.iter().zip(&self.disks);
            let path = |((name, _), paths): (&(String, u8), &Vec<PathBuf>)| {
                format!("{name} = {:?}", paths[disk])
            };
            let paths = nodes.map(path).collect::<Vec<_>>().join(", ");
            let link = disk_link(disk);
            let head = format!("name = \"{link}\"\nkind = \"disk\"\n");
            let _ = write!(text, "\n[[link]]\n{head}device = {{ {paths} }}\n");
        }
    }

    fn objects(&self, text: &mut String) {
        let mut step = 0;
        let mut object = |name: &str, kind: &str, lines: &str| {
            step += 1;
            let head = format!("name = \"{name}\"\nkind = \"{kind}\"\nstep = {step}\n");
            let _ = write!(text, "\n[[task.object]]\n{head}{lines}\n");
        };
        if self.service == Service::Volume {
            let device = &self.volume;
            let lines = format!("device = {device:?}\nmount = \"{DATA}\"\nfilesystem = \"ext4\"");
            object(VOLUME, "volume", &lines);
        }
        object(
            "address",
            "ip",
            &format!("address = \"{ADDRESS}/32\"\ninterface = \"svc0\""),
        );
        if self.service != Service::Address {
            let words = echo_command();
            object("echo", "process", &format!("command = {words:?}"));
        }
    }
}

/// Name of the link to one of the register's disks.
pub(crate) fn disk_link(disk: usize) -> String {
    format!("disk-{}", disk + 1)
}

/// The echo server's command line, real-time where that is allowed.
pub(crate) fn echo_command() -> Vec<String> {
    let own = std::env::current_exe()
        .unwrap_or_default()
        .display()
        .to_string();
    let mut words = Vec::new();
    let tried = Command::new("chrt")
        .args(["--fifo", PRIORITY, "true"])
        .output();
    if tried.is_ok_and(|output| output.status.success()) {
        words.extend(["/usr/bin/chrt", "--fifo", PRIORITY].map(str::to_owned));
    }
    words.extend([
        own,
        super::helper::HELPER.to_owned(),
        "echo".to_owned(),
        PORT.to_string(),
    ]);
    words
}

impl Software {
    /// Writes the files of one node.
    pub(crate) fn configure(self, plan: &Plan, node: usize, etc: &Path) -> Result<(), Trouble> {
        let write = |name: &str, text: &str, mode: u32| {
            let path = etc.join(name);
            fs::write(&path, text).doing(path.display())?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).doing(path.display())
        };
        match self {
            Software::Standfast => {
                write("cluster.toml", &plan.toml(), 0o644)?;
                write(AGENT, FENCE, 0o755)?;
                write(
                    "secret",
                    &format!("{}{}\n", plan.cluster_id, plan.cluster_id),
                    0o600,
                )
            }
            Software::Keepalived { advert_ms } => {
                write("keepalived.conf", &keepalived(advert_ms, node), 0o644)
            }
        }
    }

    /// The daemon's command.
    pub(crate) fn daemon(self, machine: &Machine, node: &str) -> Result<Command, Trouble> {
        Ok(match self {
            Software::Standfast => {
                let mut command = machine.service(program("standfastd")?);
                command.args(["--config", &format!("{ETC}/cluster.toml"), "--node", node]);
                command.args([
                    "--run-dir",
                    RUN_DIR,
                    "--state-dir",
                    STATE,
                    "--boot-id",
                    BOOT_ID,
                ]);
                command
            }
            Software::Keepalived { .. } => {
                let mut command = machine.service("keepalived");
                command.args([
                    "-P",
                    "-n",
                    "-l",
                    "-D",
                    "-f",
                    &format!("{ETC}/keepalived.conf"),
                ]);
                command.args(["-p", "/run/keepalived.pid", "-r", "/run/vrrp.pid"]);
                command
            }
        })
    }
}

/// One of the product's programs: beside this one, one directory up.
pub(crate) fn program(name: &str) -> Result<PathBuf, Trouble> {
    let own = std::env::current_exe().doing("find the own program")?;
    let directory = std::env::var_os("STANDFAST_BIN").map(PathBuf::from);
    let directory = directory.or_else(|| Some(own.parent()?.parent()?.to_owned()));
    let path = directory.unwrap_or_default().join(name);
    if path.exists() {
        return Ok(path);
    }
    Err(Trouble::new(format!(
        "there is no {}: build it first",
        path.display()
    )))
}

fn keepalived(advert_ms: u32, node: usize) -> String {
    let real_time = "vrrp_rt_priority 50\n  vrrp_rlimit_rttime 500000\n  vrrp_no_swap\n";
    let (fast, priority) = match advert_ms {
        0..=10 => (real_time, 254 - node),
        11..1000 => ("", 254 - node),
        _ => ("", 100 - node),
    };
    let seconds = f64::from(advert_ms) / 1000.0;
    format!(
        "global_defs {{\n  router_id node{node}\n  vrrp_version 3\n  {fast}}}\n\
         vrrp_instance VI_1 {{\n  state BACKUP\n  interface svc0\n  virtual_router_id 51\n\
         \x20 priority {priority}\n  advert_int {seconds}\n  nopreempt\n\
         \x20 virtual_ipaddress {{\n    {ADDRESS}/32 dev svc0\n  }}\n}}\n"
    )
}
