//! `standfast disk`: writes the cluster's area to a disk, and shows what is there.

use std::io::{self, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use standfast_sys::disk::{DirectDisk, Finding, looks_used};

use super::args::{FormatArgs, Places, ShowArgs};
use super::context::{Loaded, device_failure, keyring, load};
use super::exit::{Exit, Failure};
use super::question::{confirm, somebody_is_there};
use super::view::{self, Named, Newest};
use super::{medium, table, words};
use crate::link::AreaDisk;
use crate::model::NODES_MAX;
use crate::storage::area::{
    self, AreaError, AreaReport, Blocks, FormatOptions, Found, Geometry, HeaderError,
    HeartbeatReport, NodeReport, WordsReport, read_header, survey,
};

/// How long a formatted disk is watched for somebody who writes to it, at least.
const WATCH_MIN: Duration = Duration::from_millis(500);

pub(super) fn format(
    places: &Places,
    args: &FormatArgs,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let loaded = load(places)?;
    let keyring = keyring(&loaded.config)?;
    let device = args.device.as_path();
    let failed = |error: &dyn std::error::Error| device_failure(error, device);
    let geometry = room_for_all(args, &loaded)?;
    let disk = AreaDisk::new(DirectDisk::open(device, true).map_err(|error| failed(&error))?);
    refuse_small(&disk, geometry, device)?;
    let used = Used::look(&disk, device, geometry, &loaded)?;
    used.refuse(&disk, device, geometry, args.force, &loaded)?;
    let size = words::bytes(disk.size());
    writeln!(out, "{}: {size}, {}", device.display(), used.words())?;
    out.flush()?;
    // A script has nobody to ask: what it may destroy, it has named with --force.
    if !args.yes && somebody_is_there() {
        let total = words::bytes(geometry.total());
        confirm(&format!(
            "The first {total} of {} will be overwritten.",
            device.display()
        ))?;
    }
    let medium = medium::choose(&disk, args.register, geometry, out)?;
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| Failure::failed(&error, "try again"))?;
    let options = FormatOptions {
        cluster: loaded.config.cluster().id,
        nonce,
        block_size: disk.disk().block_bytes(),
        nodes_max: args.nodes_max,
        medium,
    };
    area::format(&disk, &options, &keyring).map_err(|error| failed(&error))?;
    writeln!(
        out,
        "formatted for cluster {}, node ids 1 to {}, register by {}; `standfast disk show {}` \
         shows it",
        loaded.config.cluster().name,
        args.nodes_max,
        medium.name(),
        device.display()
    )?;
    Ok(Exit::Well)
}

/// The geometry that was asked for, if every configured node has a place in it.
fn room_for_all(args: &FormatArgs, loaded: &Loaded) -> Result<Geometry, Failure> {
    let nodes = loaded.config.nodes().iter();
    let highest = nodes.map(|node| node.id.number()).max().unwrap_or(1);
    if args.nodes_max < highest {
        let problem = format!("the configuration has a node with id {highest}");
        return Err(Failure::wrong(
            problem,
            format!("write --nodes-max {highest} or more"),
        ));
    }
    Ok(Geometry::new(args.nodes_max).expect("clap takes 1 to 64 only"))
}

fn refuse_small(disk: &AreaDisk, geometry: Geometry, device: &Path) -> Result<(), Failure> {
    let (size, needed) = (disk.size(), geometry.total());
    if size >= needed {
        return Ok(());
    }
    let problem = format!(
        "{} is too small: it has {size} bytes, an area for node ids 1 to {} takes {needed}",
        device.display(),
        geometry.nodes_max()
    );
    Err(Failure::refused(
        problem,
        format!("use a device of {} MiB or more", needed.div_ceil(1 << 20)),
    ))
}

/// What a format would destroy.
struct Used {
    /// Of the kernel: mounted, claimed, data.
    findings: Vec<Finding>,
    /// Where the area would be.
    found: Found,
    /// The area is this cluster's.
    own: bool,
}

impl Used {
    fn look(
        disk: &AreaDisk,
        device: &Path,
        geometry: Geometry,
        loaded: &Loaded,
    ) -> Result<Used, Failure> {
        let failed = |error: &dyn std::error::Error| device_failure(error, device);
        let findings = looks_used(device).map_err(|error| failed(&error))?;
        let found = survey(disk, geometry.total()).map_err(|error| failed(&error))?;
        let id = hex(&loaded.config.cluster().id);
        let own = matches!(&found, Found::Area { cluster: Some(cluster) } if *cluster == id);
        Ok(Used {
            findings,
            found,
            own,
        })
    }

    /// In use by the kernel: no wish can make that right.
    fn busy(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| match finding {
            Finding::Mounted { .. } | Finding::Claimed | Finding::Held { .. } => true,
            Finding::Signature { .. } | Finding::Data { .. } => false,
        })
    }

    fn refuse(
        &self,
        disk: &AreaDisk,
        device: &Path,
        geometry: Geometry,
        force: bool,
        loaded: &Loaded,
    ) -> Result<(), Failure> {
        let name = device.display();
        if let Some(finding) = self.busy() {
            return Err(Failure::refused(
                format!("{name} is in use on this machine: {finding}"),
                "check the device; if it is the right one, unmount or release it first. --force \
                 does not help against this",
            ));
        }
        if self.is_blank() {
            return Ok(());
        }
        if !force {
            let remedy = if self.own {
                "it is formatted already: nothing needs to be done. --force makes a new one; stop \
                 Standfast on all nodes first"
            } else {
                "check the device: its content would be lost. If it can go, add --force"
            };
            return Err(Failure::refused(
                format!("{name} is not empty: {}", self.words()),
                remedy,
            ));
        }
        let area = matches!(self.found, Found::Area { .. });
        if area && is_written(disk, geometry, loaded).map_err(|e| device_failure(&e, device))? {
            return Err(Failure::refused(
                format!("{name} is the disk of a running cluster: somebody writes to it right now"),
                "stop Standfast on all nodes first. --force does not help against this",
            ));
        }
        Ok(())
    }

    fn is_blank(&self) -> bool {
        self.findings.is_empty() && self.found == Found::Blank
    }

    /// All that is known about it, for a person.
    fn words(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        match &self.found {
            Found::Area { .. } if self.own => words.push("the disk area of this cluster".into()),
            Found::Area {
                cluster: Some(cluster),
            } => {
                words.push(format!("the disk area of another cluster, {cluster}"));
            }
            Found::Area { cluster: None } => {
                words.push("a disk area of Standfast with a damaged header".into());
            }
            Found::Blank | Found::Known { .. } | Found::Data { .. } => {}
        }
        let area = !words.is_empty();
        // Beside an area, data that nobody knows is the area itself.
        let told = |finding: &&Finding| !(area && matches!(finding, Finding::Data { .. }));
        words.extend(self.findings.iter().filter(told).map(ToString::to_string));
        if words.is_empty() {
            match content(&self.found) {
                Some(content) => words.push(content),
                None => return "empty".to_owned(),
            }
        }
        words.join("; ")
    }
}

/// What a disk without an area holds; none if that is nothing.
fn content(found: &Found) -> Option<String> {
    match found {
        Found::Known { name } => Some((*name).to_owned()),
        Found::Data { offset } => Some(format!("data at byte {offset}")),
        Found::Blank | Found::Area { .. } => None,
    }
}

/// What stands where an area would, on a disk whose header is blank: a file system leaves its first
/// sector empty, and "never formatted" would invite to format it.
pub(super) fn behind_blank(disk: &AreaDisk) -> Option<String> {
    let found = survey(disk, Geometry::new(NODES_MAX as u8)?.total()).ok()?;
    content(&found).map(|content| format!("{}; it holds {content}", HeaderError::NotOurs))
}

/// Does the area change while one looks? Compares two reads some heartbeats apart.
fn is_written(disk: &AreaDisk, geometry: Geometry, loaded: &Loaded) -> Result<bool, AreaError> {
    let mut reads = [
        vec![0; geometry.total() as usize],
        vec![0; geometry.total() as usize],
    ];
    for (at, bytes) in reads.iter_mut().enumerate() {
        if at > 0 {
            thread::sleep(WATCH_MIN.max(loaded.config.timing().suspect.to_std()));
        }
        let len = bytes.len();
        disk.read_at(0, bytes).map_err(|source| AreaError::Read {
            offset: 0,
            len,
            source,
        })?;
    }
    Ok(reads[0] != reads[1])
}

pub(super) fn show(places: &Places, args: &ShowArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let loaded = load(places)?;
    let keyring = keyring(&loaded.config)?;
    let device = args.device.as_path();
    let failed = |error: &dyn std::error::Error| device_failure(error, device);
    let disk = AreaDisk::new(DirectDisk::open(device, false).map_err(|error| failed(&error))?);
    let cluster = &loaded.config.cluster().id;
    let mut report = area::show(&disk, &keyring, cluster).map_err(|error| failed(&error))?;
    let mut newest = None;
    match read_header(&disk, &keyring, cluster) {
        Ok((header, _)) => {
            match view::newest(&disk, &header, &keyring).map_err(|error| failed(&error))? {
                Some(Ok(found)) => newest = Some(found),
                Some(Err(problem)) => report.problems.push(problem),
                None => {}
            }
        }
        Err(AreaError::Header(HeaderError::Blank)) => {
            if let Some(problem) = behind_blank(&disk) {
                report.problems = vec![format!("{problem}; {}", HeaderError::NotOurs.help())];
            }
        }
        // Among the report's problems already.
        Err(_) => {}
    }
    let named = Named(&loaded.config);
    if args.json {
        let report = json_report(device, &report, newest.as_ref(), &named);
        writeln!(out, "{report:#}")?;
    } else {
        print(device, &report, newest.as_ref(), &named, out)?;
    }
    Ok(if report.problems.is_empty() {
        Exit::Well
    } else {
        Exit::Attention
    })
}

fn print(
    device: &Path,
    report: &AreaReport,
    newest: Option<&Newest>,
    named: &Named<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(
        out,
        "{}: {}",
        device.display(),
        words::bytes(report.size_bytes)
    )?;
    if let Some(header) = &report.header {
        writeln!(
            out,
            "area of cluster {} ({}), node ids 1 to {}, {}, formatted for blocks of {} bytes, \
             register by {}",
            named.0.cluster().name,
            header.cluster,
            header.nodes_max,
            words::bytes(header.area_bytes),
            header.block_size,
            header.register.name()
        )?;
        writeln!(out)?;
        if report.nodes.is_empty() {
            writeln!(out, "No node has written to it yet.")?;
        }
        print_nodes(&report.nodes, named, out)?;
        print_last_words(&report.nodes, named, out)?;
    }
    if let Some(newest) = newest {
        writeln!(out, "\nThe newest view in the register:")?;
        for line in view::sentences(newest, named) {
            writeln!(out, "  {line}")?;
        }
    }
    if !report.problems.is_empty() {
        writeln!(out, "\nProblems:")?;
    }
    for problem in &report.problems {
        writeln!(out, "  ! {problem}")?;
    }
    Ok(())
}

fn print_nodes(nodes: &[NodeReport], named: &Named<'_>, out: &mut dyn Write) -> io::Result<()> {
    if nodes.is_empty() {
        return Ok(());
    }
    let beat = |report: &NodeReport, value: fn(&HeartbeatReport) -> String| {
        report
            .heartbeat
            .as_ref()
            .map_or_else(|| words::NOTHING.to_owned(), value)
    };
    let rows = nodes.iter().map(|report| {
        let tasks = report.heartbeat.as_ref().map_or_else(
            || words::NOTHING.to_owned(),
            |heartbeat| view::task_states(&heartbeat.tasks, named),
        );
        [
            named.node(report.node),
            beat(report, |heartbeat| heartbeat.sequence.to_string()),
            beat(report, |heartbeat| heartbeat.epoch.to_string()),
            beat(report, |heartbeat| heartbeat.config_revision.to_string()),
            tasks,
        ]
    });
    let heading = ["HEARTBEAT OF", "NUMBER", "EPOCH", "CONFIG", "TASKS"];
    writeln!(out, "{}", table::columns(heading, rows.collect()))?;
    let rows = nodes.iter().filter_map(|report| {
        let block = report.block.as_ref()?;
        Some([
            named.node(report.node),
            block.writes.to_string(),
            block.mbal.to_string(),
            block.bal.to_string(),
            block.value_epoch.to_string(),
            format!("{:?}", block.copy),
        ])
    });
    let heading = [
        "REGISTER BLOCK OF",
        "WRITES",
        "BEGUN",
        "ACCEPTED",
        "EPOCH",
        "COPY",
    ];
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        Ok(())
    } else {
        write!(out, "{}", table::columns(heading, rows))
    }
}

fn print_last_words(
    nodes: &[NodeReport],
    named: &Named<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let now = SystemTime::now();
    let said = |report: &NodeReport| Some((report.node, report.last_words.clone()?));
    for (at, (node, said)) in nodes.iter().filter_map(said).enumerate() {
        if at == 0 {
            writeln!(out, "\nLast words:")?;
        }
        let (node, said) = (named.node(node), last_words(&said, now, named));
        writeln!(out, "  {node} {said}")?;
    }
    Ok(())
}

/// `reset itself 42 s ago at epoch 17: ...; tasks db`. How long ago is left out where, by this
/// node's clock, it is yet to come.
fn last_words(said: &WordsReport, now: SystemTime, named: &Named<'_>) -> String {
    let then = said.wall_ms.map(Duration::from_millis);
    let then = then.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
    let past = then.and_then(|then| now.duration_since(then).ok());
    let ago = past.map_or_else(String::new, |past| {
        format!(" {}", words::ago(Some(past.as_secs_f64() * 1e3)))
    });
    let (epoch, reason) = (said.epoch, said.reason);
    let names: Vec<String> = said.tasks.iter().map(|task| named.task(*task)).collect();
    let tasks = match names.as_slice() {
        [] => String::new(),
        names => format!("; tasks {}", names.join(", ")),
    };
    format!("reset itself{ago} at epoch {epoch}: {reason}{tasks}")
}

fn json_report(
    device: &Path,
    report: &AreaReport,
    newest: Option<&Newest>,
    named: &Named<'_>,
) -> Value {
    let nodes = report.nodes.iter().map(|node| {
        json!({
            "node": node.node,
            "name": named.node(node.node),
            "heartbeat": node.heartbeat.as_ref().map(|heartbeat| heartbeat_json(heartbeat, named)),
            "block": node.block,
            "last_words": node.last_words.as_ref().map(|words| words_json(words, named)),
        })
    });
    json!({
        "device": device.display().to_string(),
        "size_bytes": report.size_bytes,
        "header": report.header,
        "record": report.record,
        "nodes": nodes.collect::<Vec<_>>(),
        "view": newest.map(|newest| view::json(newest, named)),
        "problems": report.problems,
    })
}

/// With names of tasks in place of their numbers.
fn heartbeat_json(heartbeat: &HeartbeatReport, named: &Named<'_>) -> Value {
    let mut value = json!(heartbeat);
    let states: serde_json::Map<String, Value> = heartbeat
        .tasks
        .iter()
        .map(|(task, state)| (named.task(*task), words::state(*state).into()))
        .collect();
    value["tasks"] = states.into();
    value
}

/// With names of tasks in place of their numbers.
fn words_json(words: &WordsReport, named: &Named<'_>) -> Value {
    let mut value = json!(words);
    let tasks = words.tasks.iter().map(|task| named.task(*task));
    value["tasks"] = tasks.collect();
    value
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
