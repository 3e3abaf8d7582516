//! A node dies, or dies and is back before anybody could miss it.

use std::fs;

use crate::rig::lab::{Lab, Wish};
use crate::rig::software::{DATA, Service};
use crate::rig::trouble::{Doing, Trouble};
use crate::{Scenario, must, must_move};

/// Murders in a row; `lab measure murder` does more.
const RUNS: usize = 3;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let volume = Wish::detect(500).with(Service::Volume);
    vec![
        Scenario::new("murder_at_detect_500", Wish::detect(500), murders).quick(),
        Scenario::new("murder_at_detect_100", Wish::detect(100), murders),
        Scenario::new("murder_with_a_mounted_volume", volume, murder_with_volume),
        Scenario::new("reboot_faster_than_detect", Wish::detect(500), fast_reboot).quick(),
        Scenario::new("reboot_of_the_standby", Wish::detect(500), standby_reboot),
        Scenario::new("murder_of_both", Wish::detect(500), both_die),
    ]
}

fn murders(lab: &mut Lab) -> Result<(), Trouble> {
    for _ in 0..RUNS {
        let owner = lab.owner()?;
        let verdict = lab.murder_owner()?;
        must_move(lab, &verdict, 1)?;
        let from = lab.probe.now();
        lab.nodes[owner].boot()?;
        lab.settle()?;
        let verdict = lab.probe.since(from);
        must_move(lab, &verdict, 0)?;
    }
    Ok(())
}

fn murder_with_volume(lab: &mut Lab) -> Result<(), Trouble> {
    let owner = lab.owner()?;
    let mark = |lab: &Lab, node: usize| {
        let machine = lab.nodes[node].machine()?;
        Ok(machine.path(DATA).join("mark"))
    };
    let path = mark(lab, owner)?;
    let file = fs::File::create(&path).doing("write to the volume")?;
    file.sync_all().doing("sync the volume")?;
    // An open file would keep the dead node's mount alive: both nodes have the same kernel.
    drop(file);
    let verdict = lab.murder_owner()?;
    must_move(lab, &verdict, 1)?;
    must(
        mark(lab, 1 - owner)?.exists(),
        "what was written before the murder is not there",
    )
}

fn fast_reboot(lab: &mut Lab) -> Result<(), Trouble> {
    for _ in 0..RUNS {
        let owner = lab.owner()?;
        let at = lab.nodes[owner].murder()?;
        lab.nodes[owner].boot()?;
        lab.probe
            .wait_for_owner("the service to answer again", at, |_| true)?;
        lab.settle()?;
        let verdict = lab.probe.since(at);
        println!("    silent for {:.1} ms", verdict.silent_ms_max);
        must(
            verdict.moves <= 1,
            format!("{} moves after one reboot", verdict.moves),
        )?;
    }
    Ok(())
}

fn standby_reboot(lab: &mut Lab) -> Result<(), Trouble> {
    let standby = 1 - lab.owner()?;
    let at = lab.nodes[standby].murder()?;
    lab.nodes[standby].boot()?;
    lab.settle()?;
    let verdict = lab.probe.since(at);
    must_move(lab, &verdict, 0)
}

fn both_die(lab: &mut Lab) -> Result<(), Trouble> {
    let epoch = lab.nodes[0].page(standfast::node::page::word::EPOCH);
    let mut at = 0;
    for node in &mut lab.nodes {
        at = node.murder()?;
    }
    for node in &mut lab.nodes {
        node.boot()?;
    }
    lab.probe
        .wait_for_owner("the service to answer again", at, |_| true)?;
    lab.settle()?;
    let later = lab.nodes[0].page(standfast::node::page::word::EPOCH);
    must(
        later > epoch,
        format!("the epoch was {epoch:?} and is {later:?}"),
    )
}
