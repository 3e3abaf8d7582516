//! What this machine is like, for `standfast check --live`: measured here, judged by `config`.
//!
//! Blocks for as long as the disks take. Writes nothing while the daemon runs; while it does not,
//! only what this node's heartbeat slot holds already.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use standfast_sys::disk::DirectDisk;
use standfast_sys::mount::mounts;
use standfast_sys::netlink::Route;

use super::args::Places;
use super::context::Loaded;
use super::disk::behind_blank;
use super::exit::chain;
use crate::config::{
    DiskFacts, HostFacts, InterfaceFacts, LinkConfig, LinkKind, NodeConfig, Problem, Severity,
    WatchdogSource, check_host,
};
use crate::frame::Keyring;
use crate::link::{AreaDisk, Companions, probe_disk};
use crate::model::{NODES_MAX, NodeId};
use crate::node::control::{ControlError, Request, ask};
use crate::node::secret;
use crate::object::survey;
use crate::storage::area::{
    AreaError, Blocks, Header, HeaderError, REGION_LEN, Repair, area_bytes, read_header,
};
use crate::time::Span;

/// Transfers of each kind by which a disk is judged: enough for a 99th percentile, below a second
/// on a disk that will do.
const ROUNDS: usize = 200;

/// How long the daemon may take to say that it is there.
const DAEMON_MAX: Duration = Duration::from_secs(2);

/// This machine, as far as it was looked at.
#[derive(Debug, Serialize)]
pub(super) struct Facts {
    /// Does the daemon run?
    pub(super) daemon_running: bool,
    /// Can the secret be used?
    pub(super) secret_usable: bool,
    /// Is cgroup v2 mounted?
    pub(super) cgroup2_mounted: bool,
    /// Is there a device for the configured watchdog? None if none is configured.
    pub(super) watchdog_present: Option<bool>,
    /// The disks of this node.
    pub(super) disks: Vec<DiskSeen>,
}

/// One disk.
#[derive(Debug, Serialize)]
pub(super) struct DiskSeen {
    /// Its link.
    pub(super) link: String,
    /// Its path.
    pub(super) device: String,
    /// Bytes it has.
    pub(super) size_bytes: u64,
    /// Bytes of a logical block.
    pub(super) logical_block: u32,
    /// What is said about its header: `good`, or what is wrong.
    pub(super) header: String,
    /// 99th percentile of a read, in microseconds; none if it was not measured.
    pub(super) read_us_p99: Option<u64>,
    /// The same for a write.
    pub(super) write_us_p99: Option<u64>,
}

/// Looks at everything, and says what stands between this machine and the configuration.
pub(super) fn look(loaded: &Loaded, places: &Places, node: &NodeConfig) -> (Facts, Vec<Problem>) {
    let mut survey = Survey {
        loaded,
        node,
        running: daemon_runs(places),
        keyring: None,
        headers: Vec::new(),
        problems: Vec::new(),
    };
    survey.take_secret();
    let mut host = HostFacts {
        interfaces: survey.interfaces(),
        ..HostFacts::default()
    };
    let watchdog_present = match &loaded.config.watchdog().source {
        WatchdogSource::Device(path) => {
            Some(fs::metadata(path).is_ok_and(|found| found.file_type().is_char_device()))
        }
        WatchdogSource::StandIn(_) | WatchdogSource::None => None,
    };
    host.watchdog_present = watchdog_present.unwrap_or(false);
    let mut disks = Vec::new();
    for (link, path) in loaded.config.links_of(node.id) {
        if matches!(link.kind, LinkKind::Disk { .. }) {
            let (facts, seen) = survey.disk(link, path);
            host.disks.push(facts);
            disks.push(seen);
        }
    }
    survey.judge_register();
    let cgroup2_mounted = survey.cgroup2();
    survey.agents();
    survey.objects();
    let area = area_bytes(NODES_MAX as u8).unwrap_or(0);
    let mut problems = check_host(&loaded.config, node.id, &host, area);
    problems.append(&mut survey.problems);
    let facts = Facts {
        daemon_running: survey.running,
        secret_usable: survey.keyring.is_some(),
        cgroup2_mounted,
        watchdog_present,
        disks,
    };
    (facts, problems)
}

/// A look at the machine, under way.
struct Survey<'a> {
    loaded: &'a Loaded,
    node: &'a NodeConfig,
    running: bool,
    keyring: Option<Keyring>,
    /// Of each disk that has one: device, place in the configuration, header.
    headers: Vec<(String, usize, Header)>,
    problems: Vec<Problem>,
}

impl Survey<'_> {
    fn take_secret(&mut self) {
        let cluster = self.loaded.config.cluster();
        match secret::read(Path::new(&cluster.secret)) {
            Ok(bytes) => self.keyring = Some(Keyring::new(&bytes, &cluster.id)),
            Err(error) => {
                let place = self.quoted(&cluster.secret);
                let problem = self.problem(Severity::Error, chain(&error), error.remedy());
                self.problems.push(Problem {
                    span: place,
                    ..problem
                });
            }
        }
    }

    fn interfaces(&mut self) -> Vec<InterfaceFacts> {
        match Route::open().and_then(|mut route| route.links()) {
            Ok(links) => {
                let facts = |link: standfast_sys::netlink::Link| InterfaceFacts {
                    name: link.name,
                    up: link.up,
                    running: link.running,
                };
                links.into_iter().map(facts).collect()
            }
            Err(error) => {
                let remedy = "try again; `ip link` should show them";
                let problem = self.problem(Severity::Error, chain(&error), remedy);
                self.problems.push(problem);
                Vec::new()
            }
        }
    }

    fn cgroup2(&mut self) -> bool {
        let mounted = mounts().is_ok_and(|all| all.iter().any(|one| one.fstype == "cgroup2"));
        if !mounted {
            let problem = self.problem(
                Severity::Error,
                "the kernel's cgroup v2 is not mounted: the processes of a task could not be ended \
                 for certain",
                "boot with `systemd.unified_cgroup_hierarchy=1`, or \
                 `mount -t cgroup2 none /sys/fs/cgroup`",
            );
            self.problems.push(problem);
        }
        mounted
    }

    /// An agent that is not there is found out here and not on the day of need.
    fn agents(&mut self) {
        for fence in self.loaded.config.fences() {
            let usable = fs::metadata(&fence.agent)
                .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
            if usable {
                continue;
            }
            let problem = format!("fence `{}`: {} cannot be run", fence.name, fence.agent);
            let remedy = "install the package of this fence agent on every node";
            let name = fence.agent.rsplit('/').next().unwrap_or_default();
            let span = self.quoted(name).or_else(|| self.quoted(&fence.agent));
            let problem = self.problem(Severity::Error, problem, remedy);
            self.problems.push(Problem { span, ..problem });
        }
    }

    /// What the objects of this node's tasks need here.
    fn objects(&mut self) {
        let config = &self.loaded.config;
        let tasks = config.tasks().iter();
        for task in tasks.filter(|task| task.nodes.contains(&self.node.id)) {
            for object in &task.objects {
                for (severity, remark) in survey(object) {
                    let owner = format!("{}/{}", task.name, object.name);
                    let problem = format!("{owner}: {}", remark.problem);
                    let value = object.parameters.get(&remark.key);
                    let value = value.and_then(toml::Value::as_str).unwrap_or_default();
                    let span = self.quoted(value);
                    let problem = self.problem(severity, problem, remark.remedy);
                    self.problems.push(Problem { span, ..problem });
                }
            }
        }
    }

    fn disk(&mut self, link: &LinkConfig, path: &str) -> (DiskFacts, DiskSeen) {
        let mut facts = DiskFacts {
            link: link.index,
            ..DiskFacts::default()
        };
        let mut seen = DiskSeen {
            link: link.name.clone(),
            device: path.to_owned(),
            size_bytes: 0,
            logical_block: 0,
            header: "not read".to_owned(),
            read_us_p99: None,
            write_us_p99: None,
        };
        let place = usize::from(self.loaded.config.disk_position(link));
        if let Err(problem) = self.measure(path, place, &mut seen) {
            facts.problem = Some(problem);
        }
        facts.size_bytes = seen.size_bytes;
        facts.logical_block = seen.logical_block;
        facts.read_us_p99 = seen.read_us_p99.unwrap_or(0);
        facts.write_us_p99 = seen.write_us_p99.unwrap_or(0);
        (facts, seen)
    }

    /// Fills in what can be had; the error says why the rest cannot.
    fn measure(&mut self, path: &str, place: usize, seen: &mut DiskSeen) -> Result<(), String> {
        let device = Path::new(path);
        let disk = DirectDisk::open(device, false).map_err(|error| chain(&error))?;
        let disk = AreaDisk::new(disk);
        seen.size_bytes = disk.disk().bytes();
        seen.logical_block = disk.disk().block_bytes();
        let Some(keyring) = self.keyring.clone() else {
            return Ok(());
        };
        let cluster = self.loaded.config.cluster().id;
        let offset = match read_header(&disk, &keyring, &cluster) {
            Ok((header, repair)) => {
                seen.header = match repair {
                    Repair::None => "good".to_owned(),
                    Repair::Rewrite(side, error) => format!("good; copy {side:?}: {error}"),
                };
                self.headers.push((path.to_owned(), place, header));
                header.geometry.regions()
            }
            Err(AreaError::Header(error)) => {
                let blank = error == HeaderError::Blank;
                let content = behind_blank(&disk).filter(|_| blank);
                let error = if content.is_some() {
                    HeaderError::NotOurs
                } else {
                    error
                };
                seen.header = content.unwrap_or_else(|| error.to_string());
                self.judge_header(path, error, &seen.header);
                0
            }
            // A disk that is too small is told by the check of the host.
            Err(error @ AreaError::TooSmall { .. }) => {
                seen.header = error.to_string();
                return Ok(());
            }
            Err(error) => return Err(chain(&error)),
        };
        let highest = self.highest();
        if self.running {
            seen.read_us_p99 = Some(time_reads(&disk, offset, highest)?);
            return Ok(());
        }
        drop(disk);
        let probe = probe_disk(device, &cluster, &keyring, self.node.id, highest, ROUNDS)
            .map_err(|error| chain(&error))?;
        seen.read_us_p99 = Some(micros(probe.reads.p99));
        seen.write_us_p99 = probe.writes.map(|writes| micros(writes.p99));
        Ok(())
    }

    /// Do the disks belong together, each in its place?
    fn judge_register(&mut self) {
        let headers = std::mem::take(&mut self.headers);
        if headers.is_empty() {
            return;
        }
        let companions = Companions::new(self.loaded.config.disks().count());
        // None can be judged before all were seen.
        for (_, place, header) in &headers {
            let _ = companions.admit(*place, header);
        }
        for (path, place, header) in &headers {
            let Err(stranger) = companions.admit(*place, header) else {
                continue;
            };
            let text = format!("`{path}`: {stranger}");
            let problem = self.problem(Severity::Error, text, stranger.help());
            let span = self.quoted(path);
            self.problems.push(Problem { span, ..problem });
        }
    }

    fn judge_header(&mut self, path: &str, error: HeaderError, words: &str) {
        let severity = match error {
            HeaderError::Blank => Severity::Warning,
            _ => Severity::Error,
        };
        let problem = self.problem(severity, format!("`{path}`: {words}"), error.help());
        self.problems.push(Problem {
            span: self.quoted(path),
            ..problem
        });
    }

    fn highest(&self) -> NodeId {
        let ids = self.loaded.config.nodes().iter().map(|node| node.id);
        ids.max().unwrap_or(self.node.id)
    }

    fn problem(
        &self,
        severity: Severity,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Problem {
        let (problem, remedy) = (problem.into(), remedy.into());
        Problem {
            severity,
            span: None,
            problem,
            remedy,
            also: None,
        }
    }

    /// Where a value stands in the text, if it does.
    fn quoted(&self, value: &str) -> Option<std::ops::Range<usize>> {
        let quoted = format!("\"{value}\"");
        let mut at = 0;
        for line in self.loaded.text.split_inclusive('\n') {
            if !line.trim_start().starts_with('#')
                && let Some(column) = line.find(&quoted)
            {
                return Some(at + column..at + column + quoted.len());
            }
            at += line.len();
        }
        None
    }
}

/// Does this node's daemon run? In doubt it does.
pub(super) fn daemon_runs(places: &Places) -> bool {
    let answer = ask(&places.run_dir, &Request::Version, DAEMON_MAX);
    !matches!(answer, Err(ControlError::NotRunning(_)))
}

/// The 99th percentile of reads of what a heartbeat reads, in microseconds.
fn time_reads(disk: &AreaDisk, offset: u64, highest: NodeId) -> Result<u64, String> {
    let mut buffer = vec![0; usize::from(highest.number()) * REGION_LEN];
    let mut spans = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begun = std::time::Instant::now();
        disk.read_at(offset, &mut buffer)
            .map_err(|error| chain(&error))?;
        spans.push(begun.elapsed().as_micros() as u64);
    }
    spans.sort_unstable();
    Ok(spans[(spans.len() * 99).div_ceil(100) - 1])
}

fn micros(span: Span) -> u64 {
    span.0.div_ceil(1000)
}
