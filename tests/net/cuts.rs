//! Cables and disks that are lost, alone and together, and come back.

use standfast::node::page::word;

use crate::rig::lab::{Lab, Wish};
use crate::rig::node::{ALL_WIRES, HEARTBEATS, Wire};
use crate::rig::software::Service;
use crate::rig::trouble::{Doing, Trouble};
use crate::rig::wait::{PATIENCE, eventually};
use crate::{Scenario, lasting, must_move};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let echo = Wish::detect(500);
    let fast = Wish::detect(100);
    let volume = echo.with(Service::Volume);
    vec![
        Scenario::new("one_cable_pulled", echo, one_cable),
        Scenario::new("all_cables_pulled", echo, all_cables).quick(),
        Scenario::new("all_cables_pulled_at_detect_100", fast, all_cables),
        Scenario::new("disk_lost", echo, disk_lost).quick(),
        Scenario::new("disk_lost_on_the_owner_only", echo, disk_lost_on_owner),
        Scenario::new("service_cable_of_the_owner_pulled", echo, service_cable),
        Scenario::new("owner_cut_off_from_everything", volume, cut_off),
        Scenario::new("owner_cut_off_but_seen_by_clients", echo, cut_off_but_seen).quick(),
        Scenario::new("standby_cut_off_from_everything", echo, standby_cut_off),
        Scenario::new("falling_node_writes_no_frames", echo, falling).quick(),
    ]
}

fn one_cable(lab: &mut Lab) -> Result<(), Trouble> {
    for wire in HEARTBEATS {
        let from = lab.probe.now();
        lab.nodes[0].wire(&[wire], false)?;
        let verdict = lab.watch(from, lasting(2, 10));
        must_move(lab, &verdict, 0)?;
        lab.nodes[0].wire(&[wire], true)?;
    }
    Ok(())
}

/// Whatever is lost, the task moves on command to the other node, and back.
pub(crate) fn commands_work(lab: &mut Lab, owner: usize) -> Result<(), Trouble> {
    let verdict = lab.switch_over(1 - owner)?;
    must_move(lab, &verdict, 1)?;
    let name = lab.name(1 - owner).to_owned();
    let from = lab.probe.now();
    lab.nodes[owner].cli(&["standby", &name])?;
    let verdict = lab.moved_to(owner, from)?;
    must_move(lab, &verdict, 1)?;
    lab.nodes[owner].cli(&["online", &name])?;
    Ok(())
}

fn set_heartbeats(lab: &Lab, up: bool) -> Result<(), Trouble> {
    lab.nodes
        .iter()
        .try_for_each(|node| node.wire(&HEARTBEATS, up))
}

fn all_cables(lab: &mut Lab) -> Result<(), Trouble> {
    let owner = lab.owner()?;
    let from = lab.probe.now();
    set_heartbeats(lab, false)?;
    let verdict = lab.watch(from, lasting(10, 60));
    must_move(lab, &verdict, 0)?;

    commands_work(lab, owner)?;

    let from = lab.probe.now();
    set_heartbeats(lab, true)?;
    lab.settle()?;
    let verdict = lab.watch(from, lasting(2, 10));
    must_move(lab, &verdict, 0)
}

fn set_disks(lab: &Lab, nodes: &[usize], up: bool) -> Result<(), Trouble> {
    let mut disks = nodes.iter().flat_map(|node| &lab.nodes[*node].disks);
    disks.try_for_each(|disk| {
        if up { disk.heal() } else { disk.fail() }.doing("fail or heal a disk")
    })
}

fn lose_disks(lab: &mut Lab, nodes: &[usize]) -> Result<(), Trouble> {
    let owner = lab.owner()?;
    let from = lab.probe.now();
    set_disks(lab, nodes, false)?;
    let verdict = lab.watch(from, lasting(10, 60));
    must_move(lab, &verdict, 0)?;
    commands_work(lab, owner)?;
    let from = lab.probe.now();
    set_disks(lab, nodes, true)?;
    lab.settle()?;
    let verdict = lab.watch(from, lasting(2, 10));
    must_move(lab, &verdict, 0)?;
    let verdict = lab.switch_over(1 - owner)?;
    must_move(lab, &verdict, 1)
}

fn disk_lost(lab: &mut Lab) -> Result<(), Trouble> {
    lose_disks(lab, &[0, 1])
}

fn disk_lost_on_owner(lab: &mut Lab) -> Result<(), Trouble> {
    let owner = lab.owner()?;
    lose_disks(lab, &[owner])
}

fn service_cable(lab: &mut Lab) -> Result<(), Trouble> {
    let owner = lab.owner()?;
    let from = lab.probe.now();
    lab.nodes[owner].wire(&[Wire::Service], false)?;
    let verdict = lab.moved_to(1 - owner, from)?;
    must_move(lab, &verdict, 1)?;
    lab.nodes[owner].wire(&[Wire::Service], true)
}

/// Cuts the node's `wires` and its disk; the other must take over, it must let go, and rejoin.
fn isolate_owner(lab: &mut Lab, wires: &[Wire]) -> Result<(), Trouble> {
    let owner = lab.owner()?;
    let from = lab.probe.now();
    lab.nodes[owner].wire(wires, false)?;
    set_disks(lab, &[owner], false)?;
    lab.nodes[owner].wait_until_released()?;
    println!(
        "    released {:.1} ms after the cut",
        (lab.probe.now() - from) as f64 / 1e6
    );
    let verdict = lab.moved_to(1 - owner, from)?;
    must_move(lab, &verdict, 1)?;
    eventually("the isolated node to lose its lease", PATIENCE, || {
        (!lab.nodes[owner].has_lease()).then_some(())
    })?;

    let from = lab.probe.now();
    lab.nodes[owner].wire(wires, true)?;
    set_disks(lab, &[owner], true)?;
    lab.settle()?;
    let verdict = lab.watch(from, lasting(2, 10));
    must_move(lab, &verdict, 0)
}

fn cut_off(lab: &mut Lab) -> Result<(), Trouble> {
    isolate_owner(lab, &ALL_WIRES)
}

fn cut_off_but_seen(lab: &mut Lab) -> Result<(), Trouble> {
    isolate_owner(lab, &HEARTBEATS)
}

fn standby_cut_off(lab: &mut Lab) -> Result<(), Trouble> {
    let standby = 1 - lab.owner()?;
    let from = lab.probe.now();
    lab.nodes[standby].wire(&ALL_WIRES, false)?;
    set_disks(lab, &[standby], false)?;
    let verdict = lab.watch(from, lasting(5, 60));
    must_move(lab, &verdict, 0)?;
    lab.nodes[standby].wire(&ALL_WIRES, true)?;
    set_disks(lab, &[standby], true)?;
    lab.settle()?;
    let verdict = lab.probe.since(from);
    must_move(lab, &verdict, 0)
}

/// A node whose guard falls is heard by cable and not on the disk, where a frame would wipe what
/// the guard leaves there.
fn falling(lab: &mut Lab) -> Result<(), Trouble> {
    let owner = lab.owner()?;
    let standby = 1 - owner;
    let from = lab.probe.now();
    let heard = |link: &str, within: fn(f64) -> bool| {
        let status = lab.nodes[owner].status().ok()?;
        let links = status["links"].as_array()?;
        let link = links.iter().find(|known| known["name"] == link)?;
        let ms = link["peers"][lab.name(standby)].as_f64()?;
        within(ms).then_some(())
    };
    lab.nodes[standby].set_page(word::FALL, 1)?;
    eventually("no frames on the disk", PATIENCE, || {
        heard("disk-1", |ms| ms > 2_000.0)
    })?;
    for cable in ["hb0", "hb1"] {
        eventually("frames by cable", PATIENCE, || {
            heard(cable, |ms| ms < 1_000.0)
        })?;
    }
    lab.nodes[standby].set_page(word::FALL, 0)?;
    eventually("frames on the disk", PATIENCE, || {
        heard("disk-1", |ms| ms < 1_000.0)
    })?;
    lab.settle()?;
    let verdict = lab.probe.since(from);
    must_move(lab, &verdict, 0)
}
