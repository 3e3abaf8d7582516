//! Compares a configuration with what was measured on a node: a cable that is not there, a disk
//! that is too slow for `detect`.
//!
//! Whoever calls does the measuring; here it is only judged, with the same carets and remedies as
//! the text itself. A fact that may change at any moment (a cable) is a warning, one that makes the
//! node useless is an error.

use super::problem::{Problem, TextSpan};
use super::reader::shown;
use super::schema::{listed, nearest};
use super::types::{Config, LinkConfig, LinkKind, WatchdogSource};
use super::{DETECT_MAX, DETECT_MIN};
use crate::model::NodeId;
use crate::time::Span;

/// Largest logical block in bytes: every slot of the disk area is one block or several.
pub const LOGICAL_BLOCK_MAX: u32 = 4_096;

/// What was measured on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// All network interfaces.
    pub interfaces: Vec<InterfaceFacts>,
    /// One for each disk link.
    pub disks: Vec<DiskFacts>,
    /// Is there a watchdog at the configured path?
    pub watchdog_present: bool,
}

/// One network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceFacts {
    /// Its name on this node.
    pub name: String,
    /// Was it switched on (IFF_UP)?
    pub up: bool,
    /// Does it have a carrier (IFF_RUNNING)?
    pub running: bool,
}

/// The disk of one link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskFacts {
    /// Index of the link.
    pub link: u8,
    /// Size of the device.
    pub size_bytes: u64,
    /// Logical block size in bytes.
    pub logical_block: u32,
    /// 99th percentile of one synchronous write of a slot, in microseconds.
    pub write_us_p99: u64,
    /// 99th percentile of one read of all slots, in microseconds.
    pub read_us_p99: u64,
    /// Why it could not be examined; the numbers then mean nothing.
    pub problem: Option<String>,
}

/// What stands between this node and the configuration, in the order of its links and tasks.
/// `area_bytes` is the size of the area that a disk link needs.
#[must_use]
pub fn check_host(
    config: &Config,
    node: NodeId,
    facts: &HostFacts,
    area_bytes: u64,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (link, path) in config.links_of(node) {
        let place = link.kind.paths().place_on(node);
        match link.kind {
            LinkKind::Ethernet { .. } => {
                check_interface(
                    path,
                    place,
                    &format!("link `{}`", link.name),
                    facts,
                    &mut problems,
                );
            }
            LinkKind::Disk { .. } => {
                let disk = Disk {
                    config,
                    link,
                    path,
                    place,
                };
                disk.check(facts, area_bytes, &mut problems);
            }
        }
    }
    check_addresses(config, node, facts, &mut problems);
    problems.extend(check_watchdog(config, facts));
    problems
}

fn check_interface(
    name: &str,
    place: Option<TextSpan>,
    user: &str,
    facts: &HostFacts,
    problems: &mut Vec<Problem>,
) {
    let Some(found) = facts
        .interfaces
        .iter()
        .find(|interface| interface.name == name)
    else {
        let others = || {
            let others = facts
                .interfaces
                .iter()
                .map(|interface| interface.name.as_str());
            others.filter(|name| *name != "lo")
        };
        let remedy = match nearest(name, others()) {
            Some(meant) => format!("did you mean `{meant}`? Here are {}", listed(others())),
            None => format!("this node has {}; see `ip link`", listed(others())),
        };
        let problem = format!("there is no interface `{name}` on this node, needed by {user}");
        problems.push(Problem::error(place, problem, remedy));
        return;
    };
    let (problem, remedy) = match (found.up, found.running) {
        (false, _) => (
            "is switched off",
            format!("`ip link set {name} up`, now and at every boot"),
        ),
        (true, false) => (
            "has no carrier",
            "check the cable and the switch or card at its other end".to_owned(),
        ),
        (true, true) => return,
    };
    let problem = format!("interface `{name}` {problem}, needed by {user}");
    problems.push(Problem::warning(place, problem, remedy));
}

struct Disk<'c> {
    config: &'c Config,
    link: &'c LinkConfig,
    path: &'c str,
    place: Option<TextSpan>,
}

impl Disk<'_> {
    fn check(&self, facts: &HostFacts, area_bytes: u64, problems: &mut Vec<Problem>) {
        let path = self.path;
        let mut error = |problem: String, remedy: String| {
            problems.push(Problem::error(self.place.clone(), problem, remedy));
        };
        let Some(disk) = facts.disks.iter().find(|disk| disk.link == self.link.index) else {
            let remedy = "check that the device exists: `ls -lL`, `lsblk`";
            return error(format!("`{path}` was not examined"), remedy.to_owned());
        };
        if let Some(reason) = &disk.problem {
            let remedy = "check that the device exists and is not in use: `ls -lL`, `lsblk`";
            return error(
                format!("`{path}` cannot be used: {reason}"),
                remedy.to_owned(),
            );
        }
        if disk.size_bytes < area_bytes {
            let problem = format!("`{path}` has {} bytes, too few", disk.size_bytes);
            let mib = area_bytes.div_ceil(1 << 20);
            error(
                problem,
                format!("use a device of {mib} MiB ({area_bytes} bytes) or more"),
            );
        }
        let block = disk.logical_block;
        if !(512..=LOGICAL_BLOCK_MAX).contains(&block) || !block.is_power_of_two() {
            let problem = format!("`{path}` has logical blocks of {block} bytes");
            let remedy = format!("use a device with blocks of 512 to {LOGICAL_BLOCK_MAX} bytes");
            error(problem, remedy);
        }
        problems.extend(self.check_latency(disk));
    }

    fn check_latency(&self, disk: &DiskFacts) -> Option<Problem> {
        let budget = self.config.timing().disk_budget();
        let micros = disk.write_us_p99.saturating_add(disk.read_us_p99);
        let needed = Span(micros.saturating_mul(1_000));
        if needed <= budget {
            return None;
        }
        let problem = format!(
            "`detect` is too short for `{}`: a write and a read take {} ms, allowed are {} ms",
            self.path,
            needed.as_ms_f64(),
            budget.as_ms_f64()
        );
        let smallest = smallest_detect(needed);
        let remedy = if smallest <= DETECT_MAX {
            format!(
                "write `detect = \"{}\"` or more, or use a faster disk",
                shown(smallest)
            )
        } else {
            "use a faster disk: none of the times that `detect` can take is enough".to_owned()
        };
        let detect = self.config.detect.0.clone();
        let problem = Problem::error(detect, problem, remedy);
        Some(match self.place.clone() {
            Some(place) => problem.and_at(place, "measured here"),
            None => problem,
        })
    }
}

/// The smallest `detect` in whole hundredths of a second whose disk budget holds `needed`.
fn smallest_detect(needed: Span) -> Span {
    let step = Span::from_ms(10);
    step.times(needed.times(20).0.div_ceil(step.0))
        .max(DETECT_MIN)
}

fn check_addresses(config: &Config, node: NodeId, facts: &HostFacts, problems: &mut Vec<Problem>) {
    let Some(node) = config.node_by_id(node) else {
        return;
    };
    for task in config
        .tasks()
        .iter()
        .filter(|task| task.nodes.contains(&node.id))
    {
        for object in &task.objects {
            for claim in &object.claims.addresses {
                let Some(name) = claim.interface_on(&node.name) else {
                    continue;
                };
                let user = format!("{}/{}", task.name, object.name);
                let place = Some(object.place.0.clone());
                check_interface(name, place, &user, facts, problems);
            }
        }
    }
}

fn check_watchdog(config: &Config, facts: &HostFacts) -> Option<Problem> {
    let WatchdogSource::Device(path) = &config.watchdog().source else {
        return None;
    };
    if facts.watchdog_present {
        return None;
    }
    let problem = format!("there is no watchdog `{path}` on this node");
    let load = "load the machine's watchdog driver, or `modprobe softdog`";
    Some(match &config.watchdog().written {
        Some(place) => {
            let remedy = format!("{load}, or write `device = \"none\"` to go without");
            Problem::error(place.0.clone(), problem, remedy)
        }
        None => {
            let problem = format!("{problem}: if it hangs completely, nothing resets it");
            Problem::warning(None, problem, load)
        }
    })
}
