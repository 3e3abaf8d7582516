//! How the register on a disk is changed: what `disk format` chooses, and what `disk contend`
//! proves.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use standfast_sys::disk::DirectDisk;
use standfast_sys::sentence;

use super::args::{ContendArgs, Places, RegisterMedium};
use super::context::{device_failure, keyring, load};
use super::exit::{Exit, Failure};
use crate::link::{AreaDisk, LogicalUnit};
use crate::register::Compared;
use crate::storage::area::{
    AreaError, CompareAndWrite, Contender, ContestReport, Geometry, Medium, Verdict, read_contest,
    read_header, self_test,
};

/// What a new area is formatted for. The disk is tested in the record's place, which the format is
/// going to write over; says on `out` why it is not taken at its word.
pub(super) fn choose(
    disk: &AreaDisk,
    wanted: RegisterMedium,
    geometry: Geometry,
    out: &mut dyn Write,
) -> Result<Medium, Failure> {
    if wanted == RegisterMedium::Paxos {
        return Ok(Medium::Paxos);
    }
    let why = match LogicalUnit::open(disk.disk()) {
        Ok(mut unit) => match self_test(disk, &mut unit, geometry.record()) {
            Ok(()) => match unit.doubt().filter(|_| wanted == RegisterMedium::Auto) {
                None => return Ok(Medium::CompareAndWrite),
                Some(doubt) => doubt.to_owned(),
            },
            Err(error) => sentence(&error),
        },
        Err(error) => sentence(&error),
    };
    if wanted == RegisterMedium::CompareAndWrite {
        let device = disk.disk().path().display();
        return Err(Failure::refused(
            format!("{device} cannot be changed by compare-and-write: {why}"),
            "write --register paxos, which works on every disk",
        ));
    }
    writeln!(out, "register by paxos, not by compare-and-write: {why}")?;
    Ok(Medium::Paxos)
}

/// `disk contend`.
pub(super) fn contend(
    places: &Places,
    args: &ContendArgs,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let loaded = load(places)?;
    let keyring = keyring(&loaded.config)?;
    let device = args.device.as_path();
    let failed = |error: &dyn std::error::Error| device_failure(error, device);
    let disk = AreaDisk::new(DirectDisk::open(device, true).map_err(|error| failed(&error))?);
    let cluster = &loaded.config.cluster().id;
    let (header, _) = read_header(&disk, &keyring, cluster).map_err(|error| failed(&error))?;
    let mut unit = LogicalUnit::open(disk.disk()).map_err(|error| {
        Failure::refused(
            format!(
                "{} cannot compare and write: {}",
                device.display(),
                sentence(&error)
            ),
            "nothing needs to be done for a register by paxos",
        )
    })?;
    let mut id = [0; 8];
    getrandom::fill(&mut id).map_err(|error| Failure::failed(&error, "try again"))?;
    let mut contender = Contender::new(u64::from_le_bytes(id).max(1), args.rounds);
    let wait = Duration::from_secs(args.wait);
    run(&disk, &mut unit, header.geometry, &mut contender, wait).map_err(|error| failed(&error))?;
    tell(device, &contender.report(), args.json, out)
}

/// Reads and changes until it is over, or until nobody else has come for so long.
fn run(
    disk: &AreaDisk,
    unit: &mut LogicalUnit,
    geometry: Geometry,
    contender: &mut Contender,
    wait: Duration,
) -> Result<(), AreaError> {
    let begun = Instant::now();
    loop {
        let block = read_contest(disk, geometry, unit.block_bytes())?;
        let Some(new) = contender.read(&block) else {
            return Ok(());
        };
        if !contender.has_company() && begun.elapsed() > wait {
            return Ok(());
        }
        let outcome = unit.compare_and_write(geometry.contest(), &block, &new);
        contender.answered(outcome.unwrap_or(Compared::Unclear));
    }
}

fn tell(
    device: &Path,
    report: &ContestReport,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let exit = match report.verdict {
        Verdict::Proved => Exit::Well,
        Verdict::NotContended => Exit::Attention,
        Verdict::Broken => Exit::Failed,
    };
    if as_json {
        let mut value = json!(report);
        value["device"] = device.display().to_string().into();
        writeln!(out, "{value:#}")?;
        return Ok(exit);
    }
    let device = device.display();
    let verdict = match report.verdict {
        Verdict::Proved => "each change had one winner",
        Verdict::NotContended => {
            "nothing is proved: no other node changed the block at the same time. Run this on two \
             nodes at once"
        }
        Verdict::Broken => {
            "a change that was won is missing: this disk does not compare and write in one step. \
             Stop Standfast on all nodes and format it with --register paxos"
        }
    };
    writeln!(out, "{device}: {verdict}")?;
    writeln!(
        out,
        "{} changes won here, {} by others, {} refused, {} of unclear outcome",
        report.won, report.others, report.refused, report.unclear
    )?;
    if report.repeated > 0 {
        writeln!(
            out,
            "{} of those won here were told as refused: something on the way sends a command \
             again when its answer is lost",
            report.repeated
        )?;
    }
    Ok(exit)
}
