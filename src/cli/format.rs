//! `standfast disk format`: writes the cluster's area to a disk, or to the three of one register.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use standfast_sys::disk::DirectDisk;

use super::args::{FormatArgs, Places, RegisterMedium};
use super::context::{Loaded, device_failure, keyring, load, own_node};
use super::exit::{Exit, Failure};
use super::facts::daemon_runs;
use super::question::{confirm, somebody_is_there};
use super::used::{Used, are_written};
use super::{medium, words};
use crate::config::LinkKind;
use crate::frame::Keyring;
use crate::link::AreaDisk;
use crate::model::NodeId;
use crate::register::DISKS_MAX;
use crate::storage::area::{
    self, AreaNonce, Blocks, FormatOptions, Geometry, Header, Medium, Roster, read_header, third,
};

/// A disk that is to be written, or read.
struct Target<'a> {
    device: &'a Path,
    disk: AreaDisk,
}

impl<'a> Target<'a> {
    fn open(device: &'a Path) -> Result<Target<'a>, Failure> {
        let disk = DirectDisk::open(device, true);
        let disk = disk.map_err(|error| device_failure(&error, device))?;
        let disk = AreaDisk::new(disk);
        Ok(Target { device, disk })
    }

    fn failed(&self, error: &dyn Error) -> Failure {
        device_failure(error, self.device)
    }

    /// Refuses what must not be written over, and tells what will be.
    fn examine(
        &self,
        geometry: Geometry,
        force: bool,
        loaded: &Loaded,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        refuse_small(&self.disk, geometry, self.device)?;
        let used = Used::look(&self.disk, self.device, geometry, loaded)?;
        used.refuse(&self.disk, self.device, geometry, force, loaded)?;
        let size = words::bytes(self.disk.size());
        writeln!(out, "{}: {size}, {}", self.device.display(), used.words())?;
        out.flush()?;
        Ok(())
    }

    /// The same for every name of the device.
    fn identity(&self) -> Result<(u32, u32), PathBuf> {
        let device = self.disk.disk().device();
        device.ok_or_else(|| real_path(self.device))
    }
}

pub(super) fn run(
    places: &Places,
    args: &FormatArgs,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let loaded = load(places)?;
    let keyring = keyring(&loaded.config)?;
    if args.replace {
        return replace(places, args, (&loaded, &keyring), out);
    }
    let geometry = room_for_all(args, &loaded)?;
    as_many_as_configured(args, &loaded)?;
    let targets = args.devices.iter().map(|device| Target::open(device));
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    each_once(&targets)?;
    in_order(places, args, &loaded)?;
    for target in &targets {
        target.examine(geometry, args.force, &loaded, out)?;
    }
    let devices: Vec<String> = targets.iter().map(name).collect();
    ask(args, geometry, &devices.join(", "))?;
    let medium = match targets.as_slice() {
        [only] => medium::choose(&only.disk, args.register, geometry, out)?,
        _ => Medium::Paxos,
    };
    let nonces = [nonce()?, nonce()?, nonce()?];
    let roster = Roster::new(nonces).filter(|_| targets.len() == DISKS_MAX);
    for (target, nonce) in targets.iter().zip(nonces) {
        let options = FormatOptions {
            cluster: loaded.config.cluster().id,
            nonce,
            block_size: target.disk.disk().block_bytes(),
            nodes_max: args.nodes_max,
            medium,
            roster,
        };
        let done = area::format(&target.disk, &options, &keyring);
        done.map_err(|error| target.failed(&error))?;
    }
    let on = match devices.len() {
        1 => String::new(),
        count => format!(" on {count} disks"),
    };
    writeln!(
        out,
        "formatted for cluster {}, node ids 1 to {}, register by {}{on}; `standfast disk show {}` \
         shows it",
        loaded.config.cluster().name,
        args.nodes_max,
        medium.name(),
        devices[0]
    )?;
    Ok(Exit::Well)
}

/// `--replace`: the argument for its safety stands with [`area::replace()`].
fn replace(
    places: &Places,
    args: &FormatArgs,
    (loaded, keyring): (&Loaded, &Keyring),
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let [device] = args.devices.as_slice() else {
        let remedy = "name the new disk only; the two others stand in the configuration";
        return Err(Failure::wrong("--replace takes one device", remedy));
    };
    let configured = configured(loaded, own_node(places, &loaded.config)?.id);
    let position = place_of(device, &configured)?;
    let others = (0..DISKS_MAX).filter(|other| *other != position);
    let living = others.map(|other| Living::open(&configured[other], other, (loaded, keyring)));
    let living = living.collect::<Result<Vec<_>, _>>()?;
    let [one, two] = living.as_slice() else {
        unreachable!("two of three");
    };
    if third(&one.header, &two.header) != Some(position) {
        return Err(strangers(one, two));
    }
    refuse_running(&living, places, loaded)?;
    let geometry = one.header.geometry;
    let target = Target::open(device)?;
    target.examine(geometry, args.force, loaded, out)?;
    ask(args, geometry, &name(&target))?;
    let fresh = (nonce()?, target.disk.disk().block_bytes());
    let living = [
        (&one.target.disk, &one.header),
        (&two.target.disk, &two.header),
    ];
    let done = area::replace(&target.disk, fresh, living, keyring);
    done.map_err(|error| target.failed(&error))?;
    writeln!(
        out,
        "{} is disk {} of the register now, with what {} and {} hold; the disk that it replaces \
         never counts again",
        name(&target),
        position + 1,
        name(&one.target),
        name(&two.target)
    )?;
    Ok(Exit::Well)
}

/// One of the two disks that are left.
struct Living<'a> {
    target: Target<'a>,
    header: Header,
}

impl<'a> Living<'a> {
    fn open(
        device: &'a Path,
        position: usize,
        (loaded, keyring): (&Loaded, &Keyring),
    ) -> Result<Living<'a>, Failure> {
        let target = Target::open(device)?;
        let cluster = &loaded.config.cluster().id;
        let read = read_header(&target.disk, keyring, cluster);
        let (header, _) = read.map_err(|error| target.failed(&error))?;
        if (header.disks(), header.position()) != (DISKS_MAX, position) {
            let problem = format!(
                "{} is disk {} of {} in its register, but disk {} in the configuration",
                name(&target),
                header.position() + 1,
                header.disks(),
                position + 1
            );
            let remedy = "correct the devices of the links of kind disk: both disks that are left \
                          must be where they were";
            return Err(Failure::refused(problem, remedy));
        }
        Ok(Living { target, header })
    }
}

fn strangers(one: &Living<'_>, two: &Living<'_>) -> Failure {
    Failure::refused(
        format!(
            "{} and {} do not know each other: they are not of one register, or one of them was \
             replaced",
            name(&one.target),
            name(&two.target)
        ),
        "correct the devices of the links of kind disk; `standfast disk show` tells what each is",
    )
}

/// What a running node changes between reading and writing would be lost.
fn refuse_running(living: &[Living<'_>], places: &Places, loaded: &Loaded) -> Result<(), Failure> {
    let remedy = "stop Standfast on all nodes first. --force does not help against this";
    let areas = living.iter();
    let areas = areas.map(|living| (&living.target.disk, living.header.geometry));
    let written = are_written(&areas.collect::<Vec<_>>(), loaded);
    let written = written.map_err(|error| living[0].target.failed(&error))?;
    let busy = living.iter().zip(written).find(|(_, written)| *written);
    if let Some((busy, _)) = busy {
        let problem = format!(
            "{} is the disk of a running cluster: somebody writes to it right now",
            name(&busy.target)
        );
        return Err(Failure::refused(problem, remedy));
    }
    // It may run without reaching either disk.
    if daemon_runs(places) {
        return Err(Failure::refused("Standfast runs on this node", remedy));
    }
    Ok(())
}

/// The register's devices on this node, in the order of the file.
fn configured(loaded: &Loaded, node: NodeId) -> Vec<PathBuf> {
    let links = loaded.config.disks();
    let path = |kind: &LinkKind| kind.paths().on(node).map(PathBuf::from);
    links.filter_map(|link| path(&link.kind)).collect()
}

fn place_of(device: &Path, configured: &[PathBuf]) -> Result<usize, Failure> {
    if configured.len() != DISKS_MAX {
        let problem = "the configuration has one link of kind disk: there is nothing to fill from";
        let remedy = "use `standfast disk format` without --replace";
        return Err(Failure::wrong(problem, remedy));
    }
    let real = real_path(device);
    let place = configured.iter().position(|path| real_path(path) == real);
    place.ok_or_else(|| {
        let problem = format!(
            "no link of kind disk of this node has the device {}",
            device.display()
        );
        let remedy = "put the new device into the configuration, in the place of the dead one, on \
                      all nodes; or say with --node which node this is";
        Failure::wrong(problem, remedy)
    })
}

/// A register is on all disks of the configuration.
fn as_many_as_configured(args: &FormatArgs, loaded: &Loaded) -> Result<(), Failure> {
    let (named, links) = (args.devices.len(), loaded.config.disks().count().max(1));
    if named != links {
        let problem = match links {
            1 => format!("{named} devices are named, the configuration has one register disk"),
            _ => format!("the configuration has {links} register disks, {named} named"),
        };
        let remedy = match links {
            1 => "name one device, or add links of kind disk: a register is on 1 disk or on 3",
            _ => {
                "name the devices of all links of kind disk, in the order of the file; or write \
                 --replace to put this one in the place of a dead one"
            }
        };
        return Err(Failure::wrong(problem, remedy));
    }
    if named > 1 && args.register == RegisterMedium::CompareAndWrite {
        return Err(Failure::wrong(
            "compare-and-write changes one disk, a register on three is changed by paxos",
            "leave --register out, or keep one link of kind disk",
        ));
    }
    Ok(())
}

fn each_once(targets: &[Target<'_>]) -> Result<(), Failure> {
    for (at, target) in targets.iter().enumerate() {
        let earlier = targets[..at].iter();
        let mut same = earlier.filter(|earlier| earlier.identity() == target.identity());
        if let Some(same) = same.next() {
            return Err(Failure::wrong(
                format!("{} and {} are one disk", name(same), name(target)),
                "name three different disks, best on three arrays",
            ));
        }
    }
    Ok(())
}

/// Where this node's devices can be told, they must be named in the order of the links.
fn in_order(places: &Places, args: &FormatArgs, loaded: &Loaded) -> Result<(), Failure> {
    let Ok(node) = own_node(places, &loaded.config) else {
        return Ok(());
    };
    let configured = configured(loaded, node.id);
    for (at, device) in args.devices.iter().enumerate() {
        let real = real_path(device);
        let place = configured.iter().position(|path| real_path(path) == real);
        if let Some(place) = place.filter(|place| *place != at) {
            let problem = format!(
                "{} is disk {} in the configuration and named as disk {}",
                device.display(),
                place + 1,
                at + 1
            );
            let order: Vec<String> = configured.iter().map(|p| p.display().to_string()).collect();
            let remedy = format!("keep the order of the links: {}", order.join(" "));
            return Err(Failure::wrong(problem, remedy));
        }
    }
    Ok(())
}

fn real_path(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn name(target: &Target<'_>) -> String {
    target.device.display().to_string()
}

/// A script has nobody to ask: what it may destroy, it has named with --force.
fn ask(args: &FormatArgs, geometry: Geometry, devices: &str) -> Result<(), Failure> {
    if args.yes || !somebody_is_there() {
        return Ok(());
    }
    let total = words::bytes(geometry.total());
    confirm(&format!(
        "The first {total} of {devices} will be overwritten."
    ))
}

fn nonce() -> Result<AreaNonce, Failure> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| Failure::failed(&error, "try again"))?;
    Ok(nonce)
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
