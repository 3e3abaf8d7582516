//! `standfast history` and `standfast why`: the daemon's records, told so that they answer.
//!
//! When the daemon is down its files are read directly: that is when somebody needs them.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::args::{HistoryArgs, Places, WhyArgs};
use super::context::configured_names;
use super::exit::{Exit, Failure, chain};
use super::{names, status, table, words};
use crate::engine::{Class, TaskStatus};
use crate::model::TaskIndex;
use crate::node::control::{HistoryEntry, Names, Request, Response, ask};
use crate::node::runner::History;

/// Longest time for the daemon to read its files.
const ANSWER_MAX: Duration = Duration::from_secs(10);

pub(super) fn run(
    places: &Places,
    args: &HistoryArgs,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let source = Source::open(places)?;
    let task = args
        .task
        .as_deref()
        .map(|name| names::task(&source.names, name))
        .transpose()?;
    let entries = source.entries(places, args.limit, task)?;
    let names = &source.names;
    if args.json {
        let entries: Vec<Value> = entries
            .iter()
            .map(|entry| entry_json(names, entry))
            .collect();
        let report = json!({"cluster": names.cluster, "node": names.node, "entries": entries});
        writeln!(out, "{report:#}")?;
        return Ok(Exit::Well);
    }
    let rows = entries.iter().map(|entry| {
        let record = &entry.record;
        [
            entry.time.clone(),
            class(record.class).to_owned(),
            subject(names, entry),
            said(names, entry),
        ]
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        writeln!(out, "Node {} has recorded nothing yet.", names.node)?;
    } else {
        write!(
            out,
            "{}",
            table::columns(["TIME", "CLASS", "ABOUT", "WHAT HAPPENED"], rows)
        )?;
    }
    Ok(Exit::Well)
}

pub(super) fn why(places: &Places, args: &WhyArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let source = Source::open(places)?;
    let task = names::task(&source.names, &args.task)?;
    let mut entries = source.entries(places, args.limit, Some(task))?;
    entries.reverse();
    let names = &source.names;
    let now = source.tasks.iter().find(|status| status.task == task);
    if args.json {
        writeln!(out, "{:#}", why_json(names, &args.task, now, &entries))?;
        return Ok(Exit::Well);
    }
    match now {
        Some(now) => writeln!(out, "{}", placement(names, &args.task, now))?,
        None => writeln!(out, "{}: how it stands now is not known", args.task)?,
    }
    if entries.is_empty() {
        writeln!(out, "Node {} has no record about it.", names.node)?;
    }
    for entry in &entries {
        writeln!(out)?;
        decision(names, entry, out)?;
    }
    Ok(Exit::Well)
}

/// Where the records come from.
struct Source {
    names: Names,
    /// How the tasks stand; none while the daemon or its core is down.
    tasks: Vec<TaskStatus>,
    running: bool,
}

impl Source {
    fn open(places: &Places) -> Result<Source, Failure> {
        match status::fetch(places) {
            Ok(status) => {
                let tasks = status
                    .snapshot
                    .map(|snapshot| snapshot.tasks)
                    .unwrap_or_default();
                Ok(Source {
                    names: status.names,
                    tasks,
                    running: true,
                })
            }
            Err(failure) if failure.exit() == Some(Exit::NotRunning) => {
                let names = configured_names(places).ok_or(failure)?;
                let _ = writeln!(
                    io::stderr(),
                    "standfast: the daemon is not running; this is from {}",
                    places.state_dir.display()
                );
                Ok(Source {
                    names,
                    tasks: Vec::new(),
                    running: false,
                })
            }
            Err(failure) => Err(failure),
        }
    }

    fn entries(
        &self,
        places: &Places,
        limit: u32,
        task: Option<TaskIndex>,
    ) -> Result<Vec<HistoryEntry>, Failure> {
        if self.running {
            return match ask(
                &places.run_dir,
                &Request::History { limit, task },
                ANSWER_MAX,
            )? {
                Response::History(entries) => Ok(entries),
                other => Err(status::unexpected(other)),
            };
        }
        let read =
            History::open(&places.state_dir).and_then(|history| history.read(limit as usize, task));
        read.map_err(|error| {
            let problem = format!(
                "the history in {} cannot be read",
                places.state_dir.display()
            );
            let problem = format!("{problem}: {}", chain(&error));
            Failure::new(
                Exit::Failed,
                problem,
                "be root, or name the place with --state-dir",
            )
        })
    }
}

/// One sentence on how a task stands now.
fn placement(names: &Names, name: &str, task: &TaskStatus) -> String {
    let state = status::owner_state(task).map_or("unknown", words::state);
    let mut line = match task.owner {
        Some(owner) => {
            format!(
                "{name} belongs to {} and is {state} there",
                names::of_node(names, owner)
            )
        }
        None => format!("{name} belongs to nobody"),
    };
    if let Some(heir) = task.heir {
        line.push_str(&format!(
            "; it is being handed to {}",
            names::of_node(names, heir)
        ));
    }
    if !task.wanted {
        line.push_str("; it is stopped on purpose");
    }
    line.push_str(&format!(": {}", task.cause));
    if let Some(blocked) = &task.blocked {
        line.push_str(&format!("\nIt does not run: {blocked}"));
    }
    line
}

/// One record in full.
fn decision(names: &Names, entry: &HistoryEntry, out: &mut dyn Write) -> io::Result<()> {
    let record = &entry.record;
    writeln!(
        out,
        "{}  {}  epoch {}",
        entry.time,
        class(record.class),
        record.epoch
    )?;
    let mut line = |label: &str, text: &str| -> io::Result<()> {
        if text.is_empty() {
            Ok(())
        } else {
            writeln!(out, "  {label:<13}{text}")
        }
    };
    line("asked by", entry.asked_by.as_deref().unwrap_or_default())?;
    line("set off by", &record.trigger)?;
    if let Some(node) = record.node {
        line("about node", &names::of_node(names, node))?;
    }
    for evidence in &record.evidence {
        line("seen", evidence)?;
    }
    line("rule", &record.rule)?;
    for rejected in &record.rejected {
        line("not done", rejected)?;
    }
    line("done", &names::in_alarm(names, &record.outcome))
}

pub(super) fn subject(names: &Names, entry: &HistoryEntry) -> String {
    let task = entry.record.task.map(|task| names::of_task(names, task));
    let node = entry.record.node.map(|node| names::of_node(names, node));
    match (task, node) {
        (Some(task), Some(node)) => format!("{task} on {node}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => words::NOTHING.to_owned(),
    }
}

pub(super) fn said(names: &Names, entry: &HistoryEntry) -> String {
    let record = &entry.record;
    let mut text = names::in_alarm(names, &record.outcome);
    if !record.trigger.is_empty() {
        text.push_str(&format!(" ({})", record.trigger));
    }
    if let Some(by) = &entry.asked_by {
        text.push_str(&format!(", asked by {by}"));
    }
    text
}

pub(super) fn entry_json(names: &Names, entry: &HistoryEntry) -> Value {
    let record = &entry.record;
    json!({
        "time": entry.time,
        "asked_by": entry.asked_by,
        "uptime_ms": record.at.0 as f64 / 1e6,
        "epoch": record.epoch,
        "class": class(record.class),
        "task": record.task.map(|task| names::of_task(names, task)),
        "node": record.node.map(|node| names::of_node(names, node)),
        "trigger": record.trigger,
        "evidence": record.evidence,
        "rule": record.rule,
        "rejected": record.rejected,
        "outcome": names::in_alarm(names, &record.outcome),
    })
}

fn why_json(
    names: &Names,
    name: &str,
    now: Option<&TaskStatus>,
    entries: &[HistoryEntry],
) -> Value {
    let node = |id| names::of_node(names, id);
    json!({
        "task": name,
        "owner": now.and_then(|now| now.owner).map(node),
        "heir": now.and_then(|now| now.heir).map(node),
        "wanted": now.map(|now| now.wanted),
        "state": now.and_then(status::owner_state).map(words::state),
        "blocked": now.and_then(|now| now.blocked.clone()),
        "cause": now.map(|now| now.cause.clone()),
        "entries": entries.iter().map(|entry| entry_json(names, entry)).collect::<Vec<_>>(),
    })
}

pub(super) const fn class(class: Class) -> &'static str {
    match class {
        Class::Info => "info",
        Class::Notice => "notice",
        Class::Warning => "warning",
        Class::Major => "major",
        Class::Critical => "critical",
    }
}
