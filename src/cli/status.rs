//! `standfast status`: the cluster as this node sees it, and how old each datum is.
//!
//! When the core does not answer, or even the runner is gone, what the shared page says is shown.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use standfast_sys::clock::boottime_ns;

use super::args::{Places, StatusArgs};
use super::context::configured_names;
use super::exit::{Exit, Failure};
use super::{names, picture, words};
use crate::engine::{Snapshot, TaskStatus};
use crate::model::{TaskIndex, TaskState};
use crate::node::control::{Names, PageStatus, Request, Response, Status, ask};
use crate::node::power::desk::FenceStatus;
use crate::node::runner::Lease;

/// Longest time for an answer; the daemon gives its core a second.
const ANSWER_MAX: Duration = Duration::from_secs(4);

/// Between two looks of --watch.
const WATCH: Duration = Duration::from_secs(1);

/// To the upper left corner, without clearing: a screen that flickers is not read.
const HOME: &str = "\x1b[H";
/// Clears the rest of the line, so that nothing of the last look is left.
const LINE_END: &str = "\x1b[K\n";
/// Clears the screen below.
const CLEAR_BELOW: &str = "\x1b[J";
/// Clears the whole screen, once.
const CLEAR: &str = "\x1b[2J";

pub(super) fn run(
    places: &Places,
    args: &StatusArgs,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    if !args.watch {
        let status = look(places)?;
        if args.json {
            writeln!(out, "{:#}", json_report(&status))?;
        } else {
            picture::print(&status, out)?;
        }
        return Ok(health(&status));
    }
    let redraw = !args.json && io::stdout().is_terminal();
    if redraw {
        write!(out, "{CLEAR}")?;
    }
    loop {
        let begun = Instant::now();
        watch_once(places, args.json, redraw, out)?;
        out.flush()?;
        thread::sleep(WATCH.saturating_sub(begun.elapsed()));
    }
}

/// One look of --watch. A daemon that is down is shown, not given up: it may come back.
fn watch_once(places: &Places, as_json: bool, redraw: bool, out: &mut dyn Write) -> io::Result<()> {
    let mut block = Vec::new();
    match (look(places), as_json) {
        (Ok(status), true) => writeln!(block, "{}", json_report(&status))?,
        (Ok(status), false) => picture::print(&status, &mut block)?,
        (Err(failure), true) => writeln!(block, "{}", json!({"error": failure.to_string()}))?,
        (
            Err(Failure::Told {
                problem, remedy, ..
            }),
            false,
        ) => {
            writeln!(block, "{problem}\n  help: {remedy}")?;
        }
        (Err(failure), false) => writeln!(block, "{failure}")?,
    }
    if !redraw {
        out.write_all(&block)?;
        return if as_json { Ok(()) } else { writeln!(out) };
    }
    let text = String::from_utf8_lossy(&block).replace('\n', LINE_END);
    write!(
        out,
        "{HOME}{text}{LINE_END}Every second, Ctrl-C ends{LINE_END}{CLEAR_BELOW}"
    )
}

/// Asks the daemon, or reads the shared page where nobody answers but somebody lives.
fn look(places: &Places) -> Result<Status, Failure> {
    match fetch(places) {
        Err(failure) if failure.exit() == Some(Exit::NotRunning) => {
            from_page(places).ok_or(failure)
        }
        other => other,
    }
}

/// The daemon's answer.
pub(super) fn fetch(places: &Places) -> Result<Status, Failure> {
    match ask(&places.run_dir, &Request::Status, ANSWER_MAX)? {
        Response::Status(status) => Ok(*status),
        other => Err(unexpected(other)),
    }
}

/// An answer to something else than what was asked, or a refusal.
pub(super) fn unexpected(response: Response) -> Failure {
    match response {
        Response::Error(refused) => refused.into(),
        Response::Status(_)
        | Response::Done(_)
        | Response::History(_)
        | Response::Version(_)
        | Response::Counters(_) => Failure::new(
            Exit::Failed,
            "the daemon answered something else than what was asked",
            "use the `standfast` that came with the daemon",
        ),
    }
}

/// The shared page, if the guard that made it lives.
fn from_page(places: &Places) -> Option<Status> {
    let names = configured_names(places).unwrap_or_default();
    let page = Lease::open(&places.run_dir).ok()?.status(names.tasks.len());
    let [guard, _, _] = page.pids;
    let lives = guard != 0 && Path::new(&format!("/proc/{guard}")).exists();
    lives.then_some(Status {
        snapshot: None,
        page,
        names,
        fences: Vec::new(),
    })
}

/// Is all well?
pub(super) fn health(status: &Status) -> Exit {
    let Some(snapshot) = &status.snapshot else {
        return Exit::Attention;
    };
    let runs = |task: &TaskStatus| !task.wanted || owner_state(task) == Some(TaskState::Started);
    if alarms_of_node(status).next().is_none()
        && snapshot.alarms.is_empty()
        && snapshot.tasks.iter().all(runs)
    {
        Exit::Well
    } else {
        Exit::Attention
    }
}

/// What this node knows besides: it should have been reset, or others could not be switched off if
/// they had to be.
pub(super) fn alarms_of_node(status: &Status) -> impl Iterator<Item = String> {
    let in_vain = status.page.watchdog.fell_in_vain.then(|| {
        "this node had to reset itself and could not; the watchdog is not petted any more: switch \
         the node off"
            .to_owned()
    });
    let fences = status.fences.iter().filter_map(|fence| {
        let trouble = fence.trouble.as_ref()?;
        let name = names::of_node(&status.names, fence.node);
        Some(format!("cannot fence {name}: {trouble}"))
    });
    in_vain.into_iter().chain(fences)
}

/// How the task stands on its owner, if it has one that was heard.
pub(super) fn owner_state(task: &TaskStatus) -> Option<TaskState> {
    let owner = task.owner?;
    task.states
        .iter()
        .find(|(node, _)| *node == owner)
        .map(|(_, state)| *state)
}

/// Milliseconds since the picture was taken.
pub(super) fn age_ms(snapshot: &Snapshot) -> f64 {
    boottime_ns().saturating_sub(snapshot.at.0) as f64 / 1e6
}

/// Processes of the daemon with their ids and the age of their last turn.
pub(super) fn processes(page: &PageStatus) -> [(&'static str, u32, f64); 3] {
    let [guard, core, runner] = page.pids;
    let [guard_ms, core_ms, runner_ms] = page.turn_ms;
    [
        ("guard", guard, guard_ms),
        ("core", core, core_ms),
        ("runner", runner, runner_ms),
    ]
}

/// Names of the tasks in a set of bits.
pub(super) fn granted(names: &Names, bits: u64) -> Vec<String> {
    let set = (0..names.tasks.len()).filter(|index| bits >> index & 1 != 0);
    set.filter_map(TaskIndex::new)
        .map(|task| names::of_task(names, task))
        .collect()
}

/// How a task stands here according to its word on the page: state in the low byte, epoch above.
pub(super) fn page_state(word: u64) -> (&'static str, u64) {
    let state = TaskState::from_number((word & 0xff) as u8);
    (state.map_or("?", words::state), word >> 8)
}

fn json_report(status: &Status) -> Value {
    let names = &status.names;
    let mut report = match &status.snapshot {
        Some(snapshot) => snapshot_json(names, snapshot),
        None => json!({
            "epoch": status.page.epoch,
            "standing": "unknown",
            "waiting_for": null,
            "lease_ms": status.page.lease_ms,
            "proof": null,
            "age_ms": null,
            "nodes": [],
            "links": [],
            "register": null,
            "tasks": [],
            "alarms": ["the core does not answer; only `page` is known"],
        }),
    };
    report["cluster"] = names.cluster.clone().into();
    report["node"] = names.node.clone().into();
    report["page"] = page_json(names, &status.page);
    report["fences"] = status
        .fences
        .iter()
        .map(|fence| fence_json(names, fence))
        .collect();
    if let Some(alarms) = report["alarms"].as_array_mut() {
        alarms.extend(alarms_of_node(status).map(Value::from));
    }
    report
}

fn snapshot_json(names: &Names, snapshot: &Snapshot) -> Value {
    let nodes = snapshot.nodes.iter().map(|node| {
        json!({
            "name": names::of_node(names, node.node),
            "id": node.node,
            "state": node.state,
            "standby": node.standby,
            "heard_ms": node.heard_ms,
            "epoch": node.epoch,
            "evicted": node.evicted,
        })
    });
    let links = snapshot.links.iter().map(|link| {
        let peers = link
            .peers
            .iter()
            .map(|(node, ms)| (names::of_node(names, *node), json!(ms)));
        json!({
            "name": names::of_link(names, link.link),
            "up": link.up,
            "reason": link.reason,
            "frames": link.frames,
            "crossed": link.crossed,
            "downs": link.downs,
            "peers": peers.collect::<Map<_, _>>(),
        })
    });
    let alarms = snapshot
        .alarms
        .iter()
        .map(|alarm| names::in_alarm(names, alarm));
    let missing_voters = snapshot
        .register
        .missing_voters
        .iter()
        .map(|node| names::of_node(names, *node));
    json!({
        "epoch": snapshot.epoch,
        "standing": snapshot.standing,
        "waiting_for": snapshot.waiting_for,
        "lease_ms": snapshot.lease_ms,
        "proof": snapshot.proof,
        "age_ms": age_ms(snapshot),
        "nodes": nodes.collect::<Vec<_>>(),
        "links": links.collect::<Vec<_>>(),
        "register": {
            "reachable": snapshot.register.reachable,
            "read_ms": snapshot.register.read_ms,
            "trouble": snapshot.register.trouble,
            "missing_voters": missing_voters.collect::<Vec<_>>(),
            "refused_messages": snapshot.register.refused_messages,
        },
        "tasks": snapshot.tasks.iter().map(|task| task_json(names, task)).collect::<Vec<_>>(),
        "alarms": alarms.collect::<Vec<_>>(),
    })
}

fn task_json(names: &Names, task: &TaskStatus) -> Value {
    let node = |id| names::of_node(names, id);
    let states = task
        .states
        .iter()
        .map(|(id, state)| (node(*id), words::state(*state).into()));
    json!({
        "name": names::of_task(names, task.task),
        "owner": task.owner.map(node),
        "heir": task.heir.map(node),
        "wanted": task.wanted,
        "state": owner_state(task).map(words::state),
        "states": states.collect::<Map<String, Value>>(),
        "blocked": task.blocked,
        "epoch": task.epoch,
        "failed_on": task.failed_on.iter().map(|id| node(*id)).collect::<Vec<_>>(),
        "cause": task.cause,
    })
}

fn fence_json(names: &Names, fence: &FenceStatus) -> Value {
    json!({
        "node": names::of_node(names, fence.node),
        "devices": fence.devices,
        "tried_ms": fence.tried_ms,
        "trouble": fence.trouble,
        "at_work": fence.at_work,
    })
}

fn page_json(names: &Names, page: &PageStatus) -> Value {
    let processes = processes(page).map(|(name, pid, turn_ms)| {
        (
            name.to_owned(),
            json!({"pid": (pid != 0).then_some(pid), "turn_ms": turn_ms}),
        )
    });
    let tasks = names.tasks.iter().zip(&page.tasks).map(|(name, word)| {
        let (state, epoch) = page_state(*word);
        json!({"name": name, "state": state, "epoch": epoch})
    });
    json!({
        "epoch": page.epoch,
        "lease_ms": page.lease_ms,
        "granted": granted(names, page.granted),
        "processes": processes.into_iter().collect::<Map<_, _>>(),
        "addresses": page.addresses,
        "revocations": page.revocations,
        "watchdog": page.watchdog,
        "tasks": tasks.collect::<Vec<_>>(),
    })
}
