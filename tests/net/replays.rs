//! What the real cores were told, when they were told it, makes an engine decide the same again.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::processes::replaced;
use crate::rig::lab::{Lab, Wish};
use crate::rig::node::Role;
use crate::rig::software::program;
use crate::rig::trouble::{Doing, Trouble};
use crate::{Scenario, must, must_move};

/// Where each node records, in its own memory.
const RECORD: &str = "/run/record";

/// Where it keeps the record of the core's life before.
const RECORD_BEFORE: &str = "/run/record.1";

/// Options of a daemon that records: a few minutes of a lab fit.
const OPTIONS: [&str; 4] = ["--record", RECORD, "--record-mib", "12"];

pub(crate) fn scenarios() -> Vec<Scenario> {
    let (one, three) = (Wish::detect(500), Wish::detect(500).on_three_disks());
    let run = Scenario::new("recorded_run_replays", one, recorded_run);
    let on_three = Scenario::new("recorded_run_on_three_disks_replays", three, recorded_run);
    vec![run.switched_off().quick(), on_three.switched_off()]
}

/// A switchover, a killed core and a murder, recorded on both nodes.
fn recorded_run(lab: &mut Lab) -> Result<(), Trouble> {
    for node in &mut lab.nodes {
        node.options = OPTIONS.map(str::to_owned).into();
    }
    lab.boot()?;
    let owner = lab.owner()?;
    let verdict = lab.switch_over(1 - owner)?;
    must_move(lab, &verdict, 1)?;
    let victim = lab.owner()?;
    let survivor = 1 - victim;

    let core = lab.nodes[victim].pid(Role::Core)?;
    let at = lab.nodes[victim].signal(&[Role::Core], Signal::SIGKILL)?;
    replaced(lab, victim, Role::Core, core)?;
    lab.settle()?;
    let verdict = lab.watch(at, Duration::from_secs(1));
    must_move(lab, &verdict, 0)?;
    let killed = copy(lab, victim, RECORD_BEFORE)?;
    let killed = must_repeat(&killed, "the core that was killed")?;
    must_tell(&killed, "move was asked for")?;

    // The dead node's memory goes with it, but for what is open.
    let path = lab.nodes[victim].machine()?.path(RECORD);
    let mut open = File::open(&path).doing(path.display())?;
    let verdict = lab.murder_owner()?;
    must_move(lab, &verdict, 1)?;
    let dead = lab.directory().join("record-of-the-dead");
    let mut file = File::create(&dead).doing(dead.display())?;
    io::copy(&mut open, &mut file).doing("copy a record")?;
    must_repeat(&dead, "the node that was murdered")?;

    let living = lab.nodes[survivor].machine()?.path(RECORD);
    let living = must_repeat(&living, "the node that took over")?;
    must_tell(&living, "evict")
}

/// A record as it is now.
fn copy(lab: &Lab, node: usize, record: &str) -> Result<PathBuf, Trouble> {
    let from = lab.nodes[node].machine()?.path(record);
    let to = lab.directory().join("record-of-the-killed");
    fs::copy(&from, &to).doing(from.display())?;
    Ok(to)
}

/// Plays a record with the real program; every turn must be the same.
fn must_repeat(record: &Path, whose: &str) -> Result<Value, Trouble> {
    let mut command = Command::new(program("standfast")?);
    command.arg("replay").arg(record);
    let plain = command.output().doing("run standfast")?;
    let text = String::from_utf8_lossy(&plain.stdout).into_owned();
    let errors = String::from_utf8_lossy(&plain.stderr).into_owned();
    let last = text.lines().last().unwrap_or_default().to_owned();
    let good = plain.status.success() && last.ends_with(" decisions, identical");
    must(good, format!("{whose}: {errors}{text}"))?;
    let json = command.arg("--json").output().doing("run standfast")?;
    let report: Value = serde_json::from_slice(&json.stdout).doing("read the report")?;
    let (bytes, seconds) = (report["bytes"].as_f64(), report["seconds"].as_f64());
    let rate = bytes.unwrap_or(0.0) / seconds.unwrap_or(f64::NAN) / 1024.0;
    println!("    {whose}: {last}, {rate:.1} KiB a second");
    let many = report["events"].as_u64() > Some(100);
    must(many, format!("{whose}: few events in {report}"))?;
    let whole = report["left_out"].as_array().is_some_and(Vec::is_empty);
    must(whole, format!("{whose}: a part is not whole in {report}"))?;
    Ok(report)
}

/// Says what one of the decisions must tell.
fn must_tell(report: &Value, word: &str) -> Result<(), Trouble> {
    let entries = report["entries"].to_string();
    must(
        entries.contains(word),
        format!("no decision tells of `{word}`: {entries}"),
    )
}
