//! From options and configuration to a running core.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use crossbeam_channel::Sender;
use standfast_sys::realtime::{self, Outcome};
use standfast_sys::sentence;
use standfast_sys::sharedpage::SharedPage;
use thiserror::Error;

use super::keep::Keep;
use super::port::Port;
use super::recorder::Recorder;
use super::{PRIORITY, become_realtime_thread, now};
use crate::config::{Config, LinkKind, WatchdogSource};
use crate::engine::{Class, Event, Record, Resumed, Setup, TaskSetup};
use crate::frame::Keyring;
use crate::link::{self, Companions, LinkHandle, Medium, Parameters};
use crate::model::{Incarnation, NodeId};
use crate::node::messages::ToRunner;
use crate::node::options::{NoName, Options};
use crate::node::page::{PAGE_WORDS, word};
use crate::node::paths;
use crate::node::secret::{self, SecretError};
use crate::register::Memory;
use crate::storage::kept::Owner;
use crate::time::Instant;

/// Why the core cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The shared page is not there: the guard makes it.
    #[error("the shared page cannot be opened; is this process started by the guard?")]
    Page(#[source] standfast_sys::Failed),
    /// The guard is gone.
    #[error("the guard that started this process is gone")]
    Orphan(#[source] standfast_sys::Failed),
    /// The host has no usable name.
    #[error(transparent)]
    Name(#[from] NoName),
    /// The configuration does not know this node.
    #[error("the configuration has no node named {0}; name it with --node or add it to the file")]
    Node(String),
    /// The cluster's secret cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// No disk link.
    #[error("the configuration has no disk link; the cluster's register lives on a shared disk")]
    NoDisk,
    /// Sockets or threads.
    #[error("the runner's socket cannot be served")]
    Port(#[source] io::Error),
    /// A link's thread.
    #[error("link {0} cannot be started")]
    Link(String, #[source] io::Error),
    /// The thread for the node's own record.
    #[error("the thread that keeps this node's own record cannot be started")]
    Keep(#[source] io::Error),
    /// No random numbers.
    #[error("the kernel gives no random numbers")]
    Random(#[source] getrandom::Error),
}

/// The page the guard has made; from here on this process dies with the guard.
pub(super) fn open_page(options: &Options) -> Result<SharedPage, StartError> {
    let path = paths::page(&options.run_dir);
    let page = SharedPage::open(&path, PAGE_WORDS).map_err(StartError::Page)?;
    let guard = page.words()[word::GUARD_PID].load(Ordering::Acquire) as u32;
    realtime::die_with_parent(guard).map_err(StartError::Orphan)?;
    Ok(page)
}

pub(super) fn keyring(config: &Config) -> Result<Keyring, StartError> {
    let cluster = config.cluster();
    let secret = secret::read(Path::new(&cluster.secret))?;
    Ok(Keyring::new(&secret, &cluster.id))
}

pub(super) fn setup(
    options: &Options,
    config: &Config,
    page: &SharedPage,
) -> Result<Setup, StartError> {
    let name = options.node_name()?;
    let me = config.node(&name).ok_or(StartError::Node(name))?;
    let words = page.words();
    let load = |index: usize| words[index].load(Ordering::Acquire);
    let mut boot = [0; 16];
    boot[..8].copy_from_slice(&load(word::BOOT_LOW).to_le_bytes());
    boot[8..].copy_from_slice(&load(word::BOOT_HIGH).to_le_bytes());
    let seed = getrandom::u64().map_err(StartError::Random)?;
    let sent = load(word::SEQUENCE);
    let tasks = config.tasks().iter().map(|task| TaskSetup {
        name: task.name.clone(),
        nodes: task.nodes.clone(),
        enabled: task.enabled,
        fence_required: task.fence_required,
    });
    Ok(Setup {
        me: me.id,
        incarnation: Incarnation {
            boot,
            start: load(word::START) as u32,
        },
        cluster: config.cluster().id,
        nodes: config
            .nodes()
            .iter()
            .map(|node| (node.id, node.name.clone()))
            .collect(),
        tasks: tasks.collect(),
        timing: *config.timing(),
        config_hash: config.hash(),
        config_revision: config.revision(),
        links: config.links().len() as u8,
        seed,
        // The highest number that may have been sent stands in the page; a new life begins
        // anywhere.
        first_sequence: if sent == 0 { seed >> 2 } else { sent + 1024 },
        resumed: Some(Resumed {
            lease_deadline: Instant(load(word::LEASE_DEADLINE)),
            granted: load(word::GRANTED),
        }),
        watchdog: matches!(config.watchdog().source, WatchdogSource::Device(_)),
        memory: Memory::Pending,
        networks: networks(config, me.id),
        // Nobody switches himself off.
        fences: config.fenced_nodes().without(me.id),
        disks: config.disks().count() as u8,
    })
}

/// Starts the thread that keeps the node's own record.
pub(super) fn keep(
    options: &Options,
    setup: &Setup,
    keyring: &Keyring,
    events: &Sender<Event>,
) -> Result<Keep, StartError> {
    let path = paths::register(&options.state_dir, &setup.cluster, setup.me);
    let owner = Owner {
        cluster: setup.cluster,
        node: setup.me,
        incarnation: setup.incarnation,
        keyring: keyring.clone(),
    };
    Keep::spawn(path, owner, events.clone()).map_err(StartError::Keep)
}

/// The recorder, if one is asked for. Without it the node works as well: a refusal is only told.
pub(super) fn recorder(
    options: &Options,
    setup: &Setup,
    now: Instant,
    port: &Port,
) -> Option<Recorder> {
    let path = options.record.as_deref()?;
    match Recorder::create(path, options.record_mib, setup, now) {
        Ok(recorder) => Some(recorder),
        Err(error) => {
            warn(port, format!("no record: {}", sentence(&error)));
            None
        }
    }
}

/// Which of this node's links are networks, bit by position.
fn networks(config: &Config, me: NodeId) -> u64 {
    let links = config.links_of(me).enumerate();
    let networks = links.filter(|(_, (link, _))| !matches!(link.kind, LinkKind::Disk { .. }));
    networks.fold(0, |set, (_, (link, _))| set | 1 << link.index)
}

/// Starts a thread for each link, then locks memory and makes this thread a real-time one. Returns
/// the links and the positions of the register's disks among them.
pub(super) fn links(
    config: &Config,
    setup: &Setup,
    keyring: &Keyring,
    events: &Sender<Event>,
) -> Result<(Vec<LinkHandle>, Vec<usize>), StartError> {
    let highest = setup.nodes.iter().map(|(node, _)| *node).max();
    let highest = highest.or(NodeId::new(1)).ok_or(StartError::NoDisk)?;
    if setup.disks == 0 {
        return Err(StartError::NoDisk);
    }
    let companions = Companions::new(setup.disks.into());
    let mut handles = Vec::new();
    let mut disks = Vec::new();
    for (link, path) in config.links_of(setup.me) {
        let medium = match &link.kind {
            LinkKind::Ethernet { ethertype, .. } => Medium::Ethernet {
                interface: path.to_owned(),
                ethertype: *ethertype,
            },
            LinkKind::Disk { .. } => {
                disks.push(handles.len());
                Medium::Disk {
                    device: path.into(),
                    highest,
                    disk: config.disk_position(link),
                    companions: companions.clone(),
                }
            }
        };
        let parameters = Parameters {
            index: link.index,
            medium,
            cluster: setup.cluster,
            node: setup.me,
            incarnation: setup.incarnation,
            keyring: keyring.clone(),
        };
        let handle = link::spawn(parameters, events.clone(), become_realtime_thread)
            .map_err(|error| StartError::Link(link.name.clone(), error))?;
        handles.push(handle);
    }
    Ok((handles, disks))
}

/// Locks memory, makes this thread a real-time one, and says loudly what was refused.
pub(super) fn tell_scheduling(port: &Port) {
    let mut refused = Vec::new();
    match realtime::lock_memory() {
        Ok(None) => {}
        Ok(Some(limit)) => tracing::debug!(%limit, "memory is locked all the same"),
        Err(error) => refused.push(format!("memory is not locked: {error}")),
    }
    realtime::prefault_stack();
    match realtime::become_realtime(PRIORITY) {
        Ok(Outcome::Realtime | Outcome::RealtimeInRootGroup) => {}
        Ok(Outcome::Normal { why, niced }) => {
            let instead = if niced {
                "nice -20 instead"
            } else {
                "normal priority"
            };
            refused.push(format!("no real-time scheduling ({instead}): {why}"));
        }
        Err(error) => refused.push(format!("no real-time scheduling: {error}")),
    }
    if let Err(error) = realtime::protect_from_oom() {
        refused.push(format!("the OOM killer may choose this process: {error}"));
    }
    for outcome in refused {
        warn(port, outcome);
    }
}

/// Records what this core has to do without.
fn warn(port: &Port, outcome: String) {
    port.send(ToRunner::Record(Record {
        at: now(),
        epoch: 0,
        class: Class::Warning,
        task: None,
        node: None,
        trigger: "the core started".into(),
        evidence: Vec::new(),
        rule: String::new(),
        rejected: Vec::new(),
        outcome,
    }));
}
