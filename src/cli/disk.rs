//! `standfast disk show`: what is in the cluster's area on a disk.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use standfast_sys::disk::DirectDisk;

use super::args::{Places, ShowArgs};
use super::context::{device_failure, keyring, load};
use super::exit::{Exit, Failure};
use super::view::{self, Named, Newest};
use super::{table, words};
use crate::link::AreaDisk;
use crate::model::NODES_MAX;
use crate::storage::area::{
    self, AreaError, AreaReport, Found, Geometry, HeaderError, HeartbeatReport, NodeReport,
    WordsReport, read_header, survey,
};

/// What a disk without an area holds; none if that is nothing.
pub(super) fn content(found: &Found) -> Option<String> {
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
             register by {}{}",
            named.0.cluster().name,
            header.cluster,
            header.nodes_max,
            words::bytes(header.area_bytes),
            header.block_size,
            header.register.name(),
            match header.disks {
                1 => String::new(),
                disks => format!(", disk {} of its {disks}", header.disk),
            }
        )?;
        writeln!(out)?;
        if report.nodes.is_empty() {
            writeln!(out, "No node has written to it yet.")?;
        }
        print_nodes(&report.nodes, named, out)?;
        print_last_words(&report.nodes, named, out)?;
    }
    if let Some(newest) = newest {
        let alone = report
            .header
            .as_ref()
            .is_none_or(|header| header.disks == 1);
        let place = if alone {
            "in the register"
        } else {
            "on this disk"
        };
        writeln!(out, "\nThe newest view {place}:")?;
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
