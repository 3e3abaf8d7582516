//! `standfast disk reservations` and `disk release`: who may write to a disk, and how a person
//! gives it back to everybody.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use standfast_sys::disk::{Finding, looks_used};
use standfast_sys::scsi::{Capabilities, Registrant, RegistrantList, ReservationType, ScsiPath};

use super::args::{Places, ReleaseArgs, ReservationsArgs};
use super::context::{Loaded, device_failure, load, own_node};
use super::exit::{Exit, Failure, chain};
use super::question::confirm;
use super::{table, words};
use crate::storage::reservation::{
    Answer, Ask, Bounds, Claim, ClusterTag, Disk, Held, Key, PathUnit, ReservedVolume, Roots,
    TakeError, Transport, Unit, VolumeError, Whose, disks_below,
};

/// How long a disk may take for one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a release may take in all.
const RELEASE_MAX: Duration = Duration::from_secs(30);

/// All that is known of one disk.
#[derive(Serialize)]
struct DiskReport {
    identity: Option<String>,
    vendor: Option<String>,
    product: Option<String>,
    size_bytes: Option<u64>,
    paths: Vec<PathReport>,
    capabilities: Option<CapabilitiesReport>,
    generation: Option<u32>,
    holder: Option<HolderReport>,
    registrations: Vec<RegistrationReport>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct PathReport {
    path: String,
    answers: bool,
    keys: Option<usize>,
    trouble: Option<String>,
}

#[derive(Serialize)]
struct CapabilitiesReport {
    can_outlive_power: bool,
    outlives_power: bool,
    all_target_ports: bool,
    has_type_5: bool,
}

#[derive(Serialize)]
struct HolderReport {
    key: String,
    whose: String,
    kind: &'static str,
}

#[derive(Serialize)]
struct RegistrationReport {
    key: String,
    whose: String,
    initiator: Option<String>,
    target_port: Option<u16>,
    holds: Option<bool>,
}

/// The cluster's names for keys, if there is a configuration.
struct Names(Option<Loaded>);

impl Names {
    fn whose(&self, number: u64) -> String {
        let Some(loaded) = &self.0 else {
            return match Key::read(number) {
                Some(key) => format!("node {} at epoch {}", key.node.number(), key.epoch.number()),
                None => "something else".to_owned(),
            };
        };
        let tag = ClusterTag::new(&loaded.config.cluster().id);
        match Whose::read(number, tag) {
            Whose::Ours(key) => {
                let node = loaded.config.node_by_id(key.node);
                let name = node.map_or_else(
                    || format!("node {}, which is not configured,", key.node.number()),
                    |node| node.name.clone(),
                );
                format!("{name} at epoch {}", key.epoch.number())
            }
            Whose::OtherCluster(key) => format!("node {} of another cluster", key.node.number()),
            Whose::Foreign(_) => "something else".to_owned(),
        }
    }
}

fn key(number: u64) -> String {
    format!("{number:#018x}")
}

pub(super) fn reservations(
    places: &Places,
    args: &ReservationsArgs,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    // An array is looked at before there is a cluster, too.
    let loaded = places.config.exists().then(|| load(places)).transpose()?;
    let names = Names(loaded);
    let device = args.device.as_path();
    let disks =
        disks_below(device, &Roots::default()).map_err(|error| device_failure(&error, device))?;
    let reports: Vec<DiskReport> = disks.iter().map(|disk| examine(disk, &names)).collect();
    if args.json {
        let report = serde_json::json!({"device": device.display().to_string(), "disks": reports});
        writeln!(out, "{report:#}")?;
    } else {
        for report in &reports {
            print(report, out)?;
        }
    }
    let well = reports.iter().all(|report| report.problems.is_empty());
    Ok(if well { Exit::Well } else { Exit::Attention })
}

fn examine(disk: &Disk, names: &Names) -> DiskReport {
    let mut report = DiskReport {
        identity: disk.identity.as_ref().map(ToString::to_string),
        vendor: None,
        product: None,
        size_bytes: None,
        paths: Vec::new(),
        capabilities: None,
        generation: None,
        holder: None,
        registrations: Vec::new(),
        problems: Vec::new(),
    };
    let mut unit = PathUnit::open(disk, PATIENCE);
    let mut living = None;
    let mut asks = Vec::new();
    for path in 0..unit.paths() {
        asks.push((path, Ask::Keys));
        asks.push((path, Ask::Holder));
    }
    let answers = unit.round(&asks, PATIENCE);
    for (path, told) in answers.chunks_exact(2).enumerate() {
        let trouble = told.iter().find_map(|answer| answer.as_ref().err());
        let one = PathReport {
            path: unit.path_name(path),
            answers: told[0].is_ok(),
            keys: match &told[0] {
                Ok(Answer::Keys { keys, .. }) => Some(keys.len()),
                Ok(_) | Err(_) => None,
            },
            trouble: trouble.map(ToString::to_string),
        };
        if let Some(trouble) = &one.trouble {
            report.problems.push(format!("{}: {trouble}", one.path));
        }
        report.paths.push(one);
        if living.is_none()
            && let (Ok(Answer::Keys { generation, keys }), Ok(Answer::Holder(held))) =
                (&told[0], &told[1])
        {
            living = Some(path);
            report.generation = Some(*generation);
            report.holder = held.map(|held| holder(held, names));
            report.registrations = keys.iter().map(|number| plain(*number, names)).collect();
        }
    }
    if disk.transport == Transport::Scsi
        && let Some(living) = living
        && let Ok(path) = ScsiPath::open(&disk.paths[living])
    {
        describe(&path, names, &mut report);
    }
    report
}

fn holder(held: Held, names: &Names) -> HolderReport {
    let kind = match held.is_ours_in_kind {
        true => ReservationType::WriteExclusiveRegistrantsOnly.name(),
        false => "of another type",
    };
    HolderReport {
        key: key(held.key),
        whose: match held.key {
            0 => "all that are registered".to_owned(),
            number => names.whose(number),
        },
        kind,
    }
}

fn plain(number: u64, names: &Names) -> RegistrationReport {
    RegistrationReport {
        key: key(number),
        whose: names.whose(number),
        initiator: None,
        target_port: None,
        holds: None,
    }
}

/// What only SCSI tells; not every target tells all of it.
fn describe(path: &ScsiPath, names: &Names, report: &mut DiskReport) {
    if let Ok(standard) = path.inquiry(PATIENCE) {
        report.vendor = Some(standard.vendor);
        report.product = Some(standard.product);
    }
    if let Ok(capacity) = path.capacity(PATIENCE) {
        report.size_bytes = capacity.blocks.checked_mul(capacity.block_bytes.into());
    }
    match path.capabilities(PATIENCE) {
        Ok(told) => report.capabilities = Some(capabilities(&told)),
        Err(error) => report.problems.push(chain(&error)),
    }
    if let Ok(Some(held)) = path.read_reservation(PATIENCE)
        && let Some(holder) = &mut report.holder
    {
        holder.kind = held.kind.name();
    }
    if let Ok(RegistrantList { registrants, .. }) = path.full_status(PATIENCE) {
        let one = |registrant: &Registrant| RegistrationReport {
            initiator: Some(registrant.initiator_words()),
            target_port: Some(registrant.target_port),
            holds: Some(registrant.holds.is_some()),
            ..plain(registrant.key, names)
        };
        report.registrations = registrants.iter().map(one).collect();
    }
}

fn capabilities(told: &Capabilities) -> CapabilitiesReport {
    CapabilitiesReport {
        can_outlive_power: told.can_outlive_power,
        outlives_power: told.outlives_power,
        all_target_ports: told.all_target_ports,
        has_type_5: told.has(ReservationType::WriteExclusiveRegistrantsOnly),
    }
}

fn print(report: &DiskReport, out: &mut dyn Write) -> io::Result<()> {
    let name = report
        .identity
        .as_deref()
        .unwrap_or("a disk without a name");
    let known = [&report.vendor, &report.product];
    let mut about: Vec<String> = known.into_iter().flatten().cloned().collect();
    about.extend(report.size_bytes.map(words::bytes));
    writeln!(out, "{name}: {}", about.join(", "))?;
    let mut rows = Vec::new();
    if let Some(can) = &report.capabilities {
        rows.push([
            "write exclusive, registrants only".to_owned(),
            yes(can.has_type_5),
        ]);
        let kept = format!(
            "{}, active: {}",
            yes(can.can_outlive_power),
            yes(can.outlives_power)
        );
        rows.push(["kept over a loss of power".to_owned(), kept]);
    }
    let held = match &report.holder {
        Some(holder) => format!("{} by {}, key {}", holder.kind, holder.whose, holder.key),
        None if report.generation.is_some() => "no".to_owned(),
        None => "unknown".to_owned(),
    };
    rows.push(["reserved".to_owned(), held]);
    writeln!(out, "{}", table::rows(rows))?;
    print_paths(report, out)?;
    print_registrations(report, out)?;
    for problem in &report.problems {
        writeln!(out, "  ! {problem}")?;
    }
    Ok(())
}

fn print_paths(report: &DiskReport, out: &mut dyn Write) -> io::Result<()> {
    let rows = report.paths.iter().map(|path| {
        let count = |keys: usize| keys.to_string();
        let keys = path.keys.map_or_else(|| words::NOTHING.to_owned(), count);
        [path.path.clone(), yes(path.answers), keys]
    });
    let heading = ["PATH OF THIS NODE", "ANSWERS", "SEES KEYS"];
    writeln!(out, "{}", table::columns(heading, rows.collect()))
}

fn print_registrations(report: &DiskReport, out: &mut dyn Write) -> io::Result<()> {
    if report.registrations.is_empty() && report.generation.is_some() {
        return writeln!(out, "Nobody is registered.");
    }
    let rows = report.registrations.iter().map(|one| {
        [
            one.key.clone(),
            one.whose.clone(),
            one.initiator
                .clone()
                .unwrap_or_else(|| words::NOTHING.to_owned()),
            one.target_port
                .map_or_else(|| words::NOTHING.to_owned(), |port| port.to_string()),
            one.holds.map_or_else(|| words::NOTHING.to_owned(), yes),
        ]
    });
    let heading = ["REGISTERED KEY", "WHOSE", "FROM", "AT PORT", "HOLDS"];
    write!(out, "{}", table::columns(heading, rows.collect()))
}

fn yes(truth: bool) -> String {
    if truth { "yes" } else { "no" }.to_owned()
}

pub(super) fn release(
    places: &Places,
    args: &ReleaseArgs,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let loaded = load(places)?;
    let node = own_node(places, &loaded.config)?;
    let device = args.device.as_path();
    let cluster = ClusterTag::new(&loaded.config.cluster().id);
    refuse_in_use(device)?;
    let failed = |error: &VolumeError| refusal(error, device);
    let latest = ReservedVolume::latest_epoch(device, cluster, PATIENCE);
    let Some(epoch) = latest.map_err(|error| failed(&error))? else {
        writeln!(
            out,
            "{}: no node of this cluster has reserved it",
            device.display()
        )?;
        return Ok(Exit::Well);
    };
    if !args.yes {
        confirm(&format!(
            "After this every node can write to {}; a node that has it mounted is cut off at once.",
            device.display()
        ))?;
    }
    let own = Key {
        cluster,
        node: node.id,
        epoch,
    };
    let claim = Claim {
        devices: std::slice::from_ref(&args.device),
        identity: None,
        own,
    };
    let bounds = Bounds {
        patience: PATIENCE,
        deadline: Instant::now() + RELEASE_MAX,
        cancelled: &|| false,
    };
    // Only who holds it can let go of it: so it is taken first, which ends all others' writes.
    let volume = ReservedVolume::take(claim, bounds).map_err(|error| failed(&error))?;
    volume.release(own).map_err(|error| failed(&error))?;
    writeln!(out, "{}: released; nobody is registered", device.display())?;
    Ok(Exit::Well)
}

fn refuse_in_use(device: &Path) -> Result<(), Failure> {
    let findings = looks_used(device).map_err(|error| device_failure(&error, device))?;
    let used = findings.iter().find(|finding| match finding {
        Finding::Mounted { .. } => true,
        Finding::Claimed
        | Finding::Held { .. }
        | Finding::Signature { .. }
        | Finding::Data { .. } => false,
    });
    match used {
        None => Ok(()),
        Some(finding) => Err(Failure::refused(
            format!("{} is in use on this machine: {finding}", device.display()),
            "stop its task first with `standfast stop TASK`",
        )),
    }
}

fn refusal(error: &VolumeError, device: &Path) -> Failure {
    match error {
        VolumeError::Take {
            source: TakeError::Foreign { .. },
            ..
        } => Failure::refused(
            chain(error),
            "find out whose it is; other products' keys are never touched. `sg_persist` can",
        ),
        error => device_failure(error, device),
    }
}
