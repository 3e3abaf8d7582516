//! A cluster ready to be tormented: two nodes, a switch, shared disks, a client.

use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use standfast_sys::loop_device::LoopDevice;

use super::leftovers::Journal;
use super::machine::Machine;
use super::node::{Node, Parts, image};
use super::probe::{Probe, Target};
use super::software::{ADDRESS, PORT, Plan, Service, Software, TASK};
use super::switch::{Cable, Switch};
use super::trouble::{Doing, Trouble};
use super::verdict::Verdict;

/// Size of a disk of the register.
pub(crate) const DISK_BYTES: u64 = 8 << 20;

/// Size of the volume: about the smallest ext4 with a journal.
const VOLUME_BYTES: u64 = 16 << 20;

/// How long everything is watched after a service has moved.
const AFTERMATH: Duration = Duration::from_millis(300);

/// The client's place in the service network.
const CLIENT_MAC: [u8; 6] = [0x02, 0x53, 0x46, 0x00, 0xFE, 0x00];

/// What a lab is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// The one knob.
    pub(crate) detect_ms: u32,
    /// What the task consists of.
    pub(crate) service: Service,
    /// What runs on the nodes.
    pub(crate) software: Software,
    /// Restarts of a failed program before the task moves.
    pub(crate) restarts: u32,
    /// Is it to survive the rig?
    pub(crate) lasting: bool,
    /// Does the task wait until a node that was put out is switched off? Whoever runs the lab is
    /// the device.
    pub(crate) fenced: bool,
    /// The register's disks: one or three.
    pub(crate) disks: usize,
}

impl Wish {
    /// An address and an echo server under Standfast.
    pub(crate) fn detect(detect_ms: u32) -> Wish {
        let (service, software) = (Service::Echo, Software::Standfast);
        Wish {
            detect_ms,
            service,
            software,
            restarts: 3,
            lasting: false,
            fenced: false,
            disks: 1,
        }
    }

    /// The same with a register on three disks.
    pub(crate) fn on_three_disks(self) -> Wish {
        Wish { disks: 3, ..self }
    }

    /// The same with another task.
    pub(crate) fn with(self, service: Service) -> Wish {
        Wish { service, ..self }
    }
}

/// See the module. Fields go away in this order, the journal's directory last.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) probe: Probe,
    pub(crate) nodes: Vec<Node>,
    pub(crate) plan: Plan,
    pub(crate) wish: Wish,
    volume: LoopDevice,
    client: Machine,
    switch: Rc<Switch>,
    journal: Rc<Journal>,
}

impl Lab {
    /// Builds everything; the nodes are switched off and the disks are blank.
    pub(crate) fn build(wish: Wish) -> Result<Lab, Trouble> {
        let journal = Rc::new(Journal::open()?);
        let switch = Rc::new(Switch::start(wish.lasting, &["svc", "hb0", "hb1"])?);
        journal.note("switch", switch.machine().init())?;
        let client = Machine::start("client", wish.lasting, None, &[])?;
        journal.note("client", client.init())?;
        let cable = Cable {
            interface: "svc0",
            mac: CLIENT_MAC,
            network: "svc",
            port: "client",
        };
        switch.plug(&client, &[cable])?;
        client.ip("addr add 10.77.0.1/24 dev svc0\nlink set svc0 up\n")?;
        let volume = make_volume(&journal, wish.lasting)?;
        for disk in 0..wish.disks {
            image(&disk_image(&journal, disk), DISK_BYTES)?;
        }
        let mut nodes = Vec::new();
        for (index, name) in ["a", "b"].into_iter().enumerate() {
            let disks = attach_disks(&journal, &wish)?;
            let Wish {
                software,
                service,
                lasting,
                ..
            } = wish;
            let (switch, journal) = (Rc::clone(&switch), Rc::clone(&journal));
            let name = name.to_owned();
            nodes.push(Node::new(Parts {
                name,
                index,
                disks,
                software,
                service,
                switch,
                journal,
                lasting,
            })?);
        }
        let plan = plan(&wish, &journal, &nodes, &volume);
        let probe = Probe::start(&client, "svc0", CLIENT_MAC, target(&nodes)?)?;
        let lab = Lab {
            probe,
            nodes,
            plan,
            wish,
            volume,
            client,
            switch,
            journal,
        };
        lab.configure()?;
        Ok(lab)
    }

    /// Builds everything, formats the disk, boots all nodes and waits until one of them serves and
    /// the others are ready to.
    pub(crate) fn start(wish: Wish) -> Result<Lab, Trouble> {
        let mut lab = Lab::build(wish)?;
        lab.boot()?;
        Ok(lab)
    }

    /// Formats the disk, boots all nodes and waits until one of them serves and the others are
    /// ready to.
    pub(crate) fn boot(&mut self) -> Result<(), Trouble> {
        for node in &mut self.nodes {
            node.power_on()?;
        }
        self.format_disk()?;
        for node in &mut self.nodes {
            node.start_daemon()?;
        }
        self.settle().map(drop)
    }

    /// Writes the configuration of all nodes anew.
    pub(crate) fn configure(&self) -> Result<(), Trouble> {
        for node in &self.nodes {
            self.wish
                .software
                .configure(&self.plan, node.index, &node.etc())?;
        }
        Ok(())
    }

    /// Makes the register's disks empty and ready; at least the first node must be switched on.
    pub(crate) fn format_disk(&self) -> Result<(), Trouble> {
        if self.wish.software != Software::Standfast {
            return Ok(());
        }
        let node = &self.nodes[0];
        let devices = node
            .disks
            .iter()
            .map(|disk| disk.path().display().to_string());
        let devices: Vec<String> = devices.collect();
        let mut words = vec!["disk", "format", "--force", "--yes"];
        words.extend(devices.iter().map(String::as_str));
        node.cli(&words).map(drop)
    }

    /// Waits until every node that is switched on can run tasks and one of them does.
    pub(crate) fn settle(&mut self) -> Result<usize, Trouble> {
        let owner = self.owner()?;
        for node in self.nodes.iter().filter(|node| node.machine().is_ok()) {
            node.wait_until_ready()?;
        }
        Ok(owner)
    }

    /// Waits until this node serves, watches on for a moment, and judges everything since `from`.
    pub(crate) fn moved_to(&mut self, node: usize, from: u64) -> Result<Verdict, Trouble> {
        let what = format!("the service to answer from node {}", self.nodes[node].name);
        self.probe
            .wait_for_owner(&what, from, |owner| owner == node)?;
        Ok(self.watch(from, AFTERMATH))
    }

    /// Watches on for `time` and judges everything since `from`.
    pub(crate) fn watch(&mut self, from: u64, time: Duration) -> Verdict {
        std::thread::sleep(time);
        self.probe.since(from)
    }

    /// The node that serves now.
    pub(crate) fn owner(&mut self) -> Result<usize, Trouble> {
        self.probe
            .wait_for_owner("the service to answer", 0, |_| true)
    }

    /// Asks for the task on this node and waits until it is there.
    pub(crate) fn switch_over(&mut self, to: usize) -> Result<Verdict, Trouble> {
        let from = self.probe.now();
        match self.wish.software {
            Software::Standfast => {
                let name = self.nodes[to].name.clone();
                self.nodes[to].cli(&["move", TASK, &name])?;
            }
            // It has no other way than to end on the owner.
            Software::Keepalived { .. } => self.nodes[1 - to].end_daemon()?,
        }
        self.moved_to(to, from)
    }

    /// Kills the owner and pulls its cables in one instant, and waits for the other to take over.
    pub(crate) fn murder_owner(&mut self) -> Result<Verdict, Trouble> {
        let owner = self.owner()?;
        let at = self.nodes[owner].murder()?;
        self.moved_to(1 - owner, at)
    }

    /// Kills the task's program on its owner and waits until the service answers again.
    pub(crate) fn kill_program(&mut self) -> Result<Verdict, Trouble> {
        let owner = self.owner()?;
        let victims = self.nodes[owner].program_pids();
        if victims.is_empty() {
            return Err(Trouble::new(format!(
                "no program runs on node {}",
                self.name(owner)
            )));
        }
        let at = self.probe.now();
        for victim in victims {
            kill(victim, Signal::SIGKILL).doing("kill the program")?;
        }
        self.probe
            .wait_for_owner("the service to answer again", at, |_| true)?;
        Ok(self.watch(at, AFTERMATH))
    }

    /// Name of a node.
    pub(crate) fn name(&self, node: usize) -> &str {
        &self.nodes[node].name
    }

    /// Leaves everything running when this value goes away.
    pub(crate) fn keep(self) -> Result<(), Trouble> {
        self.journal.keep()?;
        // Nothing of a lasting lab may end with this program; the loop devices and the machines
        // were started in a way that outlives it.
        std::mem::forget(self);
        Ok(())
    }

    /// The client's machine.
    pub(crate) fn client(&self) -> &Machine {
        &self.client
    }

    /// The shared volume's device.
    pub(crate) fn volume(&self) -> &LoopDevice {
        &self.volume
    }

    /// The switch.
    pub(crate) fn switch(&self) -> &Switch {
        &self.switch
    }

    /// The content of one of the register's disks.
    pub(crate) fn disk_image(&self, disk: usize) -> PathBuf {
        disk_image(&self.journal, disk)
    }

    /// Its directory on the host.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.journal.directory()
    }
}

fn disk_image(journal: &Journal, disk: usize) -> PathBuf {
    journal.directory().join(format!("heartbeat-{}", disk + 1))
}

/// One node's paths to the register's disks.
fn attach_disks(journal: &Journal, wish: &Wish) -> Result<Vec<LoopDevice>, Trouble> {
    let attach = |disk| {
        let mut device = LoopDevice::attach(&disk_image(journal, disk)).doing("attach a disk")?;
        if wish.lasting {
            device.make_lasting().doing("keep a disk")?;
        }
        Ok(device)
    };
    (0..wish.disks).map(attach).collect()
}

fn make_volume(journal: &Journal, lasting: bool) -> Result<LoopDevice, Trouble> {
    let path = journal.directory().join("volume");
    image(&path, VOLUME_BYTES)?;
    let mut command = Command::new("mkfs.ext4");
    let made = command
        .args(["-q", "-F", "-E", "lazy_itable_init=0"])
        .arg(&path)
        .output();
    let made = made.doing("run mkfs.ext4")?;
    if !made.status.success() {
        return Err(Trouble::new(String::from_utf8_lossy(&made.stderr)));
    }
    let mut volume = LoopDevice::attach(&path).doing("attach the volume")?;
    if lasting {
        volume.make_lasting().doing("keep the volume")?;
    }
    Ok(volume)
}

fn plan(wish: &Wish, journal: &Journal, nodes: &[Node], volume: &LoopDevice) -> Plan {
    let unique = standfast_sys::clock::boottime_ns() | 1;
    Plan {
        cluster: journal.name().to_owned(),
        cluster_id: format!("{:016x}{unique:016x}", std::process::id()),
        revision: 1,
        detect_ms: wish.detect_ms,
        nodes: nodes
            .iter()
            .map(|node| (node.name.clone(), node.index as u8 + 1))
            .collect(),
        disks: nodes
            .iter()
            .map(|node| {
                node.disks
                    .iter()
                    .map(|disk| disk.path().to_owned())
                    .collect()
            })
            .collect(),
        volume: volume.path().to_owned(),
        service: wish.service,
        restarts: wish.restarts,
        fenced: wish.fenced,
    }
}

fn target(nodes: &[Node]) -> Result<Target, Trouble> {
    let nodes = nodes
        .iter()
        .map(|node| (node.name.clone(), Node::mac(node.index, 0)))
        .collect();
    let address = ADDRESS.parse().doing("read the address")?;
    let askers = [10, 77, 0, 200].into();
    Ok(Target {
        address,
        port: PORT,
        askers,
        nodes,
    })
}
