//! A register on three disks: any one of them is lost, comes back, or is replaced.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use standfast_sys::loop_device::LoopDevice;

use crate::cuts::commands_work;
use crate::rig::lab::{DISK_BYTES, Lab, Wish};
use crate::rig::node::{ALL_WIRES, image};
use crate::rig::software::disk_link;
use crate::rig::trouble::{Doing, Trouble};
use crate::rig::wait::{PATIENCE, eventually};
use crate::{Scenario, lasting, must, must_move};

/// Both nodes.
const BOTH: [usize; 2] = [0, 1];

pub(crate) fn scenarios() -> Vec<Scenario> {
    let three = Wish::detect(500).on_three_disks();
    vec![
        Scenario::new("one_of_three_disks_lost", three, one_lost).quick(),
        Scenario::new("two_of_three_disks_lost", three, two_lost),
        Scenario::new("murder_with_one_of_three_disks_lost", three, murder),
        Scenario::new("each_node_lost_another_of_three_disks", three, one_each),
        Scenario::new("start_with_one_of_three_disks_absent", three, absent).switched_off(),
        Scenario::new("one_of_three_disks_replaced", three, replaced),
        Scenario::new("one_of_three_disks_hangs", three, hangs).switched_off(),
    ]
}

fn set_disk(lab: &Lab, nodes: &[usize], disk: usize, up: bool) -> Result<(), Trouble> {
    let mut disks = nodes.iter().map(|node| &lab.nodes[*node].disks[disk]);
    disks.try_for_each(|disk| {
        if up { disk.heal() } else { disk.fail() }.doing("fail or heal a disk")
    })
}

/// Waits until every node's status speaks of this disk so, or has no alarm at all.
fn status_says(lab: &Lab, alarm: Option<(usize, &str)>) -> Result<(), Trouble> {
    for node in &lab.nodes {
        let what = format!("the alarms of node {} to be {alarm:?}", node.name);
        eventually(&what, PATIENCE, || {
            let status = node.status().ok()?;
            let alarms = status["alarms"].as_array()?;
            let so = match alarm {
                None => alarms.is_empty(),
                Some((disk, words)) => {
                    let link = format!("link {} ", disk_link(disk));
                    alarms
                        .iter()
                        .filter_map(|alarm| alarm.as_str())
                        .any(|alarm| alarm.starts_with(&link) && alarm.contains(words))
                }
            };
            so.then_some(())
        })?;
    }
    Ok(())
}

const GOES_ON: &str = "the register goes on with the two others";

/// The history of every node has a warning that names the disk.
fn is_recorded(lab: &Lab, disk: usize) -> Result<(), Trouble> {
    let link = format!("link {} is down", disk_link(disk));
    for node in &lab.nodes {
        let what = format!("a warning about {link} on node {}", node.name);
        eventually(&what, PATIENCE, || {
            let text = node.cli(&["history", "--json", "--limit", "100"]).ok()?;
            let history: serde_json::Value = serde_json::from_str(&text).ok()?;
            let is_it = |entry: &serde_json::Value| {
                entry["class"] == "warning" && entry.to_string().contains(&link)
            };
            history["entries"]
                .as_array()?
                .iter()
                .any(is_it)
                .then_some(())
        })?;
    }
    Ok(())
}

fn one_lost(lab: &mut Lab) -> Result<(), Trouble> {
    status_says(lab, None)?;
    for disk in 0..3 {
        let owner = lab.owner()?;
        let from = lab.probe.now();
        set_disk(lab, &BOTH, disk, false)?;
        status_says(lab, Some((disk, GOES_ON)))?;
        is_recorded(lab, disk)?;
        let verdict = lab.watch(from, lasting(3, 20));
        must_move(lab, &verdict, 0)?;
        let verdict = lab.switch_over(1 - owner)?;
        must_move(lab, &verdict, 1)?;
        let from = lab.probe.now();
        set_disk(lab, &BOTH, disk, true)?;
        status_says(lab, None)?;
        let verdict = lab.watch(from, lasting(1, 10));
        must_move(lab, &verdict, 0)?;
    }
    Ok(())
}

/// As with the only disk of one lost: the lease goes on by the networks, and what all nodes agree
/// on is done.
fn two_lost(lab: &mut Lab) -> Result<(), Trouble> {
    let owner = lab.owner()?;
    let from = lab.probe.now();
    set_disk(lab, &BOTH, 2, false)?;
    status_says(lab, Some((2, GOES_ON)))?;
    set_disk(lab, &BOTH, 0, false)?;
    status_says(lab, Some((0, "the register stands still")))?;
    let verdict = lab.watch(from, lasting(5, 60));
    must_move(lab, &verdict, 0)?;
    commands_work(lab, owner)?;
    let from = lab.probe.now();
    set_disk(lab, &BOTH, 2, true)?;
    status_says(lab, Some((0, GOES_ON)))?;
    set_disk(lab, &BOTH, 0, true)?;
    status_says(lab, None)?;
    let verdict = lab.watch(from, lasting(1, 10));
    must_move(lab, &verdict, 0)?;
    let verdict = lab.murder_owner()?;
    must_move(lab, &verdict, 1)
}

fn murder(lab: &mut Lab) -> Result<(), Trouble> {
    for disk in 0..3 {
        set_disk(lab, &BOTH, disk, false)?;
        status_says(lab, Some((disk, GOES_ON)))?;
        let dead = lab.owner()?;
        let verdict = lab.murder_owner()?;
        must_move(lab, &verdict, 1)?;
        let from = lab.probe.now();
        lab.nodes[dead].boot()?;
        lab.settle()?;
        set_disk(lab, &BOTH, disk, true)?;
        status_says(lab, None)?;
        let verdict = lab.watch(from, lasting(1, 10));
        must_move(lab, &verdict, 0)?;
    }
    Ok(())
}

fn one_each(lab: &mut Lab) -> Result<(), Trouble> {
    let from = lab.probe.now();
    set_disk(lab, &[0], 0, false)?;
    set_disk(lab, &[1], 1, false)?;
    let verdict = lab.watch(from, lasting(3, 20));
    must_move(lab, &verdict, 0)?;
    let owner = lab.owner()?;
    commands_work(lab, owner)?;
    let dead = lab.owner()?;
    let verdict = lab.murder_owner()?;
    must_move(lab, &verdict, 1)?;
    let from = lab.probe.now();
    lab.nodes[dead].boot()?;
    lab.settle()?;
    let verdict = lab.watch(from, lasting(1, 10));
    must_move(lab, &verdict, 0)
}

fn absent(lab: &mut Lab) -> Result<(), Trouble> {
    for node in &mut lab.nodes {
        node.power_on()?;
    }
    lab.format_disk()?;
    set_disk(lab, &BOTH, 1, false)?;
    for node in &mut lab.nodes {
        node.start_daemon()?;
    }
    let owner = lab.settle()?;
    status_says(lab, Some((1, GOES_ON)))?;
    commands_work(lab, owner)?;
    let from = lab.probe.now();
    set_disk(lab, &BOTH, 1, true)?;
    status_says(lab, None)?;
    // It counts now: without another one they are a majority again.
    set_disk(lab, &BOTH, 0, false)?;
    status_says(lab, Some((0, GOES_ON)))?;
    let verdict = lab.watch(from, lasting(1, 10));
    must_move(lab, &verdict, 0)?;
    let verdict = lab.murder_owner()?;
    must_move(lab, &verdict, 1)
}

/// The new disk does for the old one all that it did; the old one never counts again.
fn replaced(lab: &mut Lab) -> Result<(), Trouble> {
    let owner = lab.owner()?;
    set_disk(lab, &BOTH, 1, false)?;
    status_says(lab, Some((1, GOES_ON)))?;
    // The dead one has missed this.
    let verdict = lab.switch_over(1 - owner)?;
    must_move(lab, &verdict, 1)?;
    let device = lab.nodes[0].disks[1].path().display().to_string();
    let replace = [
        "disk",
        "format",
        "--replace",
        "--node",
        "a",
        "--force",
        "--yes",
        &device,
    ];
    let image = lab.disk_image(1);
    let stale = fs::read(&image).doing("read an image")?;
    let swap = |content: &[u8]| {
        let file = fs::OpenOptions::new().write(true).open(&image);
        let file = file.doing("open an image")?;
        file.write_all_at(content, 0).doing("write an image")?;
        file.sync_all().doing("write an image")
    };
    swap(&vec![0; stale.len()])?;
    set_disk(lab, &BOTH, 1, true)?;
    let refused = lab.nodes[0].try_cli(&replace)?;
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    must(
        words.contains("running cluster"),
        format!("replaced under running nodes: {words}"),
    )?;
    for node in &lab.nodes {
        node.end_daemon()?;
    }
    lab.nodes[0].cli(&replace)?;
    for node in &mut lab.nodes {
        node.start_daemon()?;
    }
    lab.settle()?;
    status_says(lab, None)?;
    set_disk(lab, &BOTH, 0, false)?;
    status_says(lab, Some((0, GOES_ON)))?;
    let owner = lab.owner()?;
    commands_work(lab, owner)?;
    set_disk(lab, &BOTH, 0, true)?;
    status_says(lab, None)?;
    // The dead one comes back in the place of the new one.
    set_disk(lab, &BOTH, 1, false)?;
    status_says(lab, Some((1, "never formatted")))?;
    swap(&stale)?;
    set_disk(lab, &BOTH, 1, true)?;
    status_says(lab, Some((1, "name another one in its place")))?;
    let verdict = lab.murder_owner()?;
    must_move(lab, &verdict, 1)
}

/// A file system of its own, for a disk whose writes can be made to hang. Taken apart when dropped.
struct Freezer {
    mounted: PathBuf,
}

impl Freezer {
    fn new(directory: &Path) -> Result<Freezer, Trouble> {
        let (file, mounted) = (directory.join("file-system"), directory.join("mounted"));
        image(&file, 4 * DISK_BYTES)?;
        fs::create_dir(&mounted).doing("make a directory")?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&file))?;
        run(Command::new("mount")
            .args(["-o", "loop"])
            .args([&file, &mounted]))?;
        Ok(Freezer { mounted })
    }

    fn set(&self, frozen: bool) -> Result<(), Trouble> {
        let option = if frozen { "-f" } else { "-u" };
        run(Command::new("fsfreeze").arg(option).arg(&self.mounted))
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        // A frozen file system cannot be unmounted, and a failed test leaves it frozen. The nodes
        // may use the disk for a moment longer.
        let _ = Command::new("fsfreeze")
            .arg("-u")
            .arg(&self.mounted)
            .output();
        let _ = Command::new("umount").arg("-l").arg(&self.mounted).status();
    }
}

fn run(command: &mut Command) -> Result<(), Trouble> {
    let output = command.output().doing(format!("{command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    must(output.status.success(), format!("{command:?}: {errors}"))
}

/// The last disk does not fail, it does not answer at all.
fn hangs(lab: &mut Lab) -> Result<(), Trouble> {
    let freezer = Freezer::new(lab.directory())?;
    let file = freezer.mounted.join("disk");
    image(&file, DISK_BYTES)?;
    for node in BOTH {
        let disk = LoopDevice::attach(&file).doing("attach a disk")?;
        lab.plan.disks[node][2] = disk.path().to_owned();
        lab.nodes[node].disks[2] = disk;
    }
    lab.configure()?;
    lab.boot()?;
    let owner = lab.owner()?;
    let from = lab.probe.now();
    freezer.set(true)?;
    status_says(lab, Some((2, "does not answer; the register goes on")))?;
    let verdict = lab.watch(from, lasting(5, 60));
    must_move(lab, &verdict, 0)?;
    commands_work(lab, owner)?;

    let from = lab.probe.now();
    lab.nodes[owner].wire(&ALL_WIRES, false)?;
    for disk in 0..2 {
        set_disk(lab, &[owner], disk, false)?;
    }
    let verdict = lab.moved_to(1 - owner, from)?;
    must_move(lab, &verdict, 1)?;
    lab.nodes[owner].wire(&ALL_WIRES, true)?;
    for disk in 0..2 {
        set_disk(lab, &[owner], disk, true)?;
    }
    lab.settle()?;

    freezer.set(false)?;
    status_says(lab, None)?;
    let verdict = lab.switch_over(owner)?;
    must_move(lab, &verdict, 1)
}
