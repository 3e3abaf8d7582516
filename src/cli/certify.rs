//! `standfast disk certify`: is an array fit for a cluster?

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use standfast_sys::disk::looks_used;
use standfast_sys::scsi::ScsiPath;
use standfast_sys::sentence;

use super::args::CertifyArgs;
use super::context::device_failure;
use super::exit::{Exit, Failure};
use super::question::confirm;
use super::{table, words};
use crate::storage::certify::{
    CertifyError, Finding, Lun, Options, Report, Role, ScsiLun, Verdict, certify,
};

/// What one machine cannot make happen by itself: for a person, before the array is trusted.
const BY_HAND: [&str; 4] = [
    "switch the array off and on while a key is registered: it must still be there",
    "let a controller of the array fail: keys and reservation must be seen by the other one",
    "pull and return a cable of a node with several paths: the path must come back with its key",
    "register all nodes by all paths at once: the unit must have room for nodes x paths keys",
];

pub(super) fn run(args: &CertifyArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let device = args.devices[0].as_path();
    refuse_used(device, args.force)?;
    let paths = args
        .devices
        .iter()
        .map(|device| open(device))
        .collect::<Result<Vec<Arc<dyn Lun>>, Failure>>()?;
    refuse_other_units(&paths, &args.devices)?;
    if !args.yes {
        let size = words::bytes(crate::storage::certify::BYTES_MIN);
        let name = device.display();
        confirm(&format!("The first {size} of {name} will be overwritten."))?;
    }
    let role = if args.second {
        Role::Second
    } else {
        Role::First
    };
    let options = Options {
        rounds: args.rounds,
        settle: Duration::from_secs(args.settle),
        ..Options::new(role)
    };
    let report = certify(&paths, &options).map_err(|error| failure(&error, device))?;
    if args.json {
        writeln!(out, "{:#}", json_report(device, role, &report))?;
    } else {
        print(device, role, &report, out)?;
    }
    Ok(if report.is_fit() {
        Exit::Well
    } else {
        Exit::Attention
    })
}

fn open(device: &Path) -> Result<Arc<dyn Lun>, Failure> {
    let path = ScsiPath::open(device).map_err(|error| device_failure(&error, device))?;
    match ScsiLun::new(path) {
        Ok(lun) => Ok(Arc::new(lun)),
        Err(fault) => Err(Failure::refused(
            format!(
                "{} does not answer as a disk: {}",
                device.display(),
                sentence(&fault)
            ),
            "name the disk's SCSI paths, such as /dev/sdb; maps of several paths, loop devices and \
             NVMe cannot be tested",
        )),
    }
}

fn refuse_used(device: &Path, force: bool) -> Result<(), Failure> {
    let findings = looks_used(device).map_err(|error| device_failure(&error, device))?;
    if findings.is_empty() || force {
        return Ok(());
    }
    let found: Vec<String> = findings.iter().map(ToString::to_string).collect();
    Err(Failure::refused(
        format!("{} is not empty: {}", device.display(), found.join("; ")),
        "the test overwrites it: take another disk of the same array, or add --force",
    ))
}

fn refuse_other_units(
    paths: &[Arc<dyn Lun>],
    devices: &[std::path::PathBuf],
) -> Result<(), Failure> {
    let names = paths
        .iter()
        .map(|path| path.facts().ok().map(|facts| facts.identity));
    let names: Vec<Option<String>> = names.collect();
    for (name, device) in names.iter().zip(devices) {
        let same = name.is_some() && *name == names[0];
        let told = name.as_ref().is_some_and(|name| !name.is_empty());
        if !same || (paths.len() > 1 && !told) {
            let first = devices[0].display();
            return Err(Failure::refused(
                format!(
                    "{} is not known to lead to the same disk as {first}",
                    device.display()
                ),
                "name only paths with the same VPD page 83h",
            ));
        }
    }
    Ok(())
}

fn failure(error: &CertifyError, device: &Path) -> Failure {
    let problem = format!("{}: {}", device.display(), sentence(error));
    match error {
        CertifyError::Foreign { .. } => Failure::refused(
            problem,
            "somebody uses this disk; if that is over, `sg_persist --out --clear` takes keys away",
        ),
        CertifyError::Small { .. } => Failure::refused(problem, "take a larger disk"),
        CertifyError::Alone { .. } => Failure::refused(
            problem,
            "run it on both nodes, on one with --second, within two minutes",
        ),
        CertifyError::Command { .. } | CertifyError::Findings(_) => Failure::failed(
            error,
            "without this command the array is not fit; see its manual",
        ),
    }
}

fn print(device: &Path, role: Role, report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let facts = &report.facts;
    let size = words::bytes(facts.blocks * u64::from(facts.block_bytes));
    let name = device.display();
    writeln!(
        out,
        "{name}: {} {} {}",
        facts.vendor, facts.product, facts.revision
    )?;
    writeln!(
        out,
        "{}, serial {}, {size} in blocks of {} bytes\n",
        facts.identity, facts.serial, facts.block_bytes
    )?;
    let row = |finding: &Finding| {
        [
            verdict(&finding.verdict).to_owned(),
            finding.node.to_string(),
            finding.asked.sentence().to_owned(),
            finding.detail.clone(),
        ]
    };
    let rows = report.findings.iter().map(row).collect();
    let heading = ["ANSWER", "NODE", "QUESTION", "DETAIL"];
    writeln!(out, "{}", table::columns(heading, rows))?;
    let known = report.findings.iter().filter_map(|one| report.known(one));
    for known in known {
        writeln!(out, "Known of {}: {}.\n", known.vendor, known.why)?;
    }
    if role == Role::Second {
        return writeln!(out, "The report of both nodes is told by the first one.");
    }
    writeln!(out, "Not tried, for a person to try:")?;
    for line in BY_HAND {
        writeln!(out, "  - {line}")?;
    }
    let fit = if report.is_fit() { "fit" } else { "NOT fit" };
    writeln!(
        out,
        "\nAs far as tested, this array is {fit} for a cluster."
    )
}

fn verdict(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "yes",
        Verdict::Failed => "NO",
        Verdict::Absent => "absent",
    }
}

fn json_report(device: &Path, role: Role, report: &Report) -> Value {
    let findings = report.findings.iter().map(|finding| {
        json!({
            "asked": finding.asked,
            "question": finding.asked.sentence(),
            "needed": finding.asked.is_needed(),
            "verdict": finding.verdict,
            "detail": finding.detail,
            "node": finding.node,
            "known": report.known(finding).map(|known| known.why),
        })
    });
    json!({
        "device": device.display().to_string(),
        "role": if role == Role::First { "first" } else { "second" },
        "facts": report.facts,
        "findings": findings.collect::<Vec<_>>(),
        "not_tried": if role == Role::First { BY_HAND.to_vec() } else { Vec::new() },
        "fit": report.is_fit(),
    })
}
