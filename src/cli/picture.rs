//! `standfast status` for people: first what is wrong, then who sees it, then the tables.

use std::io::{self, Write};

use super::status::{age_ms, alarms_of_node, granted, owner_state, page_state, processes};
use super::{names, table, words};
use crate::engine::{LinkStatus, NodeStatus, Snapshot, TaskStatus};
use crate::node::control::{Names, Status, WatchdogStatus};
use crate::node::page::WatchdogKind;

/// Writes the whole picture.
pub(super) fn print(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    match &status.snapshot {
        Some(snapshot) => print_snapshot(status, snapshot, out),
        None => print_page(status, out),
    }
}

fn print_snapshot(status: &Status, snapshot: &Snapshot, out: &mut dyn Write) -> io::Result<()> {
    let names = &status.names;
    let me = &names.node;
    let head = vec![
        [format!("cluster {}", names.cluster), {
            format!("seen by node {me} {}", words::ago(Some(age_ms(snapshot))))
        }],
        ["this node".to_owned(), standing(snapshot)],
        ["lease".to_owned(), lease(snapshot)],
        ["register".to_owned(), register(names, snapshot)],
        ["watchdog".to_owned(), watchdog(&status.page.watchdog)],
    ];
    write!(out, "{}", table::rows(head))?;
    let nodes = snapshot
        .nodes
        .iter()
        .map(|node| node_row(names, snapshot, node));
    let heading = ["NODE", "STATE", "STANDBY", "HEARD", "EPOCH", "LAST EVICTED"];
    write!(out, "\n{}", table::columns(heading, nodes.collect()))?;
    let links = snapshot.links.iter().map(|link| link_row(names, link));
    let heading = ["LINK", "STATE", "HEARD ON IT", "FRAMES", "DOWNS", "REMARK"];
    write!(out, "\n{}", table::columns(heading, links.collect()))?;
    if snapshot.tasks.is_empty() {
        writeln!(out, "\nNo tasks are configured.")?;
    } else {
        let tasks = snapshot.tasks.iter().map(|task| task_row(names, task));
        let heading = ["TASK", "OWNER", "STATE", "HEIR", "WANTED", "WHY"];
        write!(out, "\n{}", table::columns(heading, tasks.collect()))?;
    }
    print_fences(status, out)?;
    print_attention(status, snapshot, out)
}

fn print_fences(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    if status.fences.is_empty() {
        return Ok(());
    }
    let rows = status.fences.iter().map(|fence| {
        let devices = fence.devices.iter();
        let devices: Vec<String> = devices
            .map(|device| format!("{} (level {})", device.name, device.level))
            .collect();
        let state = match (fence.at_work, &fence.trouble, fence.tried_ms) {
            (true, _, _) => "SWITCHING OFF",
            (false, Some(_), _) => "FAILS",
            (false, None, Some(_)) => "ready",
            (false, None, None) => "not tried yet",
        };
        let troubles = fence.devices.iter().filter_map(|d| d.trouble.clone());
        [
            names::of_node(&status.names, fence.node),
            state.to_owned(),
            words::ago(fence.tried_ms),
            devices.join(", "),
            troubles.collect::<Vec<_>>().join("; "),
        ]
    });
    let heading = ["FENCE OF", "STATE", "TRIED", "DEVICES", "REMARK"];
    write!(out, "\n{}", table::columns(heading, rows.collect()))
}

fn standing(snapshot: &Snapshot) -> String {
    match &snapshot.waiting_for {
        Some(what) => {
            format!(
                "{}, epoch {}; it waits for {what}",
                snapshot.standing, snapshot.epoch
            )
        }
        None => format!("{}, epoch {}", snapshot.standing, snapshot.epoch),
    }
}

fn lease(snapshot: &Snapshot) -> String {
    if snapshot.lease_ms <= 0.0 {
        return "none: this node may run no tasks".to_owned();
    }
    let rests = match snapshot.proof.as_str() {
        "both" => "frames from all members, and the register",
        "frames" => "frames from all members; the register alone would not do",
        "register" => "the register; frames from all members would not do",
        other => other,
    };
    format!(
        "good for {}; rests on {rests}",
        words::ms(snapshot.lease_ms)
    )
}

fn register(names: &Names, snapshot: &Snapshot) -> String {
    let register = &snapshot.register;
    let mut text = if register.reachable {
        "reachable"
    } else {
        "not reachable"
    }
    .to_owned();
    text.push_str(&format!(", last read {}", words::ago(register.read_ms)));
    if let Some(trouble) = &register.trouble {
        text.push_str(&format!("; {trouble}"));
    }
    let missing: Vec<String> = register
        .missing_voters
        .iter()
        .map(|node| names::of_node(names, *node))
        .collect();
    match (register.reachable, missing.as_slice()) {
        (_, []) => text.push_str("; all nodes can agree without the disk"),
        (true, _) => {}
        (false, missing) => {
            let missing = missing.join(", ");
            text.push_str(&format!("; no changes: {missing} cannot agree to them"));
        }
    }
    text
}

fn watchdog(watchdog: &WatchdogStatus) -> String {
    let mut text = match watchdog.kind {
        WatchdogKind::None | WatchdogKind::Missing => String::new(),
        WatchdogKind::StandIn | WatchdogKind::Software | WatchdogKind::Hardware => {
            let (in_force, asked) = (
                words::ms(watchdog.in_force_ms),
                words::ms(watchdog.asked_ms),
            );
            let rounded = watchdog.in_force_ms != watchdog.asked_ms;
            let asked = rounded.then(|| format!(" ({asked} asked for)"));
            let longest = words::ms(watchdog.longest_pet_ms);
            let asked = asked.unwrap_or_default();
            format!("fires after {in_force}{asked}; longest write to it {longest}")
        }
    };
    if let Some(weakness) = watchdog.weakness() {
        let before = if text.is_empty() { "" } else { "; " };
        text.push_str(&format!("{before}WEAK: {weakness}"));
    }
    if watchdog.caused_boot {
        text.push_str("; the last boot was its doing");
    }
    if watchdog.falling {
        text.push_str("; THIS NODE IS ABOUT TO RESET ITSELF");
    }
    if watchdog.fell_in_vain {
        text.push_str("; IT HAS NOT RESET THIS NODE, WHICH HAD TO BE");
    }
    text
}

fn node_row(names: &Names, snapshot: &Snapshot, node: &NodeStatus) -> [String; 6] {
    let me = node.node == snapshot.node;
    [
        names::of_node(names, node.node),
        node.state.clone(),
        if node.standby { "yes" } else { words::NOTHING }.to_owned(),
        if me {
            "this node".to_owned()
        } else {
            words::ago(node.heard_ms)
        },
        node.epoch.to_string(),
        node.evicted
            .clone()
            .unwrap_or_else(|| words::NOTHING.to_owned()),
    ]
}

fn link_row(names: &Names, link: &LinkStatus) -> [String; 6] {
    let peers: Vec<String> = link
        .peers
        .iter()
        .map(|(node, ms)| format!("{} {}", names::of_node(names, *node), words::ago(Some(*ms))))
        .collect();
    let mut remark = if link.up {
        String::new()
    } else {
        link.reason.clone()
    };
    if link.crossed > 0 {
        remark.push_str(&format!(
            " {} frames of another link: swapped cables?",
            link.crossed
        ));
    }
    [
        names::of_link(names, link.link),
        if link.up { "up" } else { "DOWN" }.to_owned(),
        if peers.is_empty() {
            "nobody".to_owned()
        } else {
            peers.join(", ")
        },
        link.frames.to_string(),
        link.downs.to_string(),
        remark.trim().to_owned(),
    ]
}

fn task_row(names: &Names, task: &TaskStatus) -> [String; 6] {
    let node = |id| names::of_node(names, id);
    let nothing = || words::NOTHING.to_owned();
    let mut why = task.cause.clone();
    if !task.failed_on.is_empty() {
        let failed: Vec<String> = task.failed_on.iter().map(|id| node(*id)).collect();
        why.push_str(&format!("; failed on {}", failed.join(", ")));
    }
    [
        names::of_task(names, task.task),
        task.owner.map_or_else(nothing, node),
        owner_state(task).map_or_else(nothing, |state| words::state(state).to_owned()),
        task.heir.map_or_else(nothing, node),
        if task.wanted { "yes" } else { "no" }.to_owned(),
        why,
    ]
}

/// What a person should look at, last, where the eye rests.
fn print_attention(status: &Status, snapshot: &Snapshot, out: &mut dyn Write) -> io::Result<()> {
    let names = &status.names;
    let mut lines: Vec<String> = Vec::new();
    for task in &snapshot.tasks {
        if let Some(blocked) = &task.blocked {
            lines.push(format!(
                "{} does not run: {blocked}",
                names::of_task(names, task.task)
            ));
        }
    }
    lines.extend(
        snapshot
            .alarms
            .iter()
            .map(|alarm| names::in_alarm(names, alarm)),
    );
    lines.extend(alarms_of_node(status));
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nNeeds attention:")?;
    for line in lines {
        writeln!(out, "  ! {line}")?;
    }
    Ok(())
}

/// What is known without the core.
fn print_page(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    let (names, page) = (&status.names, &status.page);
    writeln!(
        out,
        "cluster {}, node {}: the core does not answer; this is from the shared page",
        names.cluster, names.node
    )?;
    let mut rows = vec![[
        "lease".to_owned(),
        match page.lease_ms > 0.0 {
            true => format!("good for {}", words::ms(page.lease_ms)),
            false => "none: this node may run no tasks".to_owned(),
        },
    ]];
    for (name, pid, turn_ms) in processes(page) {
        let text = match pid {
            0 => "not running".to_owned(),
            pid => format!("process {pid}, last turn {}", words::ago(Some(turn_ms))),
        };
        rows.push([name.to_owned(), text]);
    }
    let granted = granted(names, page.granted);
    let granted = if granted.is_empty() {
        "none".to_owned()
    } else {
        granted.join(", ")
    };
    rows.push(["epoch".to_owned(), page.epoch.to_string()]);
    rows.push(["tasks granted".to_owned(), granted]);
    rows.push(["addresses held".to_owned(), page.addresses.to_string()]);
    rows.push([
        "lease lost".to_owned(),
        format!("{} times", page.revocations),
    ]);
    rows.push(["watchdog".to_owned(), watchdog(&page.watchdog)]);
    for (name, word) in names.tasks.iter().zip(&page.tasks) {
        let (state, epoch) = page_state(*word);
        rows.push([
            format!("task {name}"),
            format!("{state} here (epoch {epoch})"),
        ]);
    }
    write!(out, "{}", table::rows(rows))?;
    writeln!(out, "\nNeeds attention:")?;
    writeln!(
        out,
        "  ! the core does not answer: `journalctl -u standfast` may say why"
    )
}
