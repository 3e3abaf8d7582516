//! What operators ask for, also at the worst moment.

use std::process::Stdio;
use std::time::Duration;

use crate::rig::lab::{Lab, Wish};
use crate::rig::node::HEARTBEATS;
use crate::rig::software::{Service, TASK};
use crate::rig::trouble::{Doing, Trouble};
use crate::{Scenario, must, must_move};

/// How often the task goes back and forth.
const RUNS: usize = 6;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let address = Wish::detect(500).with(Service::Address);
    let volume = Wish::detect(500).with(Service::Volume);
    vec![
        Scenario::new("switchover_of_an_address", address, back_and_forth).quick(),
        Scenario::new("switchover_with_a_volume", volume, back_and_forth),
        Scenario::new("standby_and_online", Wish::detect(500), standby_and_online),
        Scenario::new("stop_and_start", Wish::detect(500), stop_and_start),
        Scenario::new(
            "cables_pulled_during_a_switchover",
            address,
            cut_in_the_middle,
        ),
        Scenario::new(
            "owner_murdered_during_a_switchover",
            address,
            murder_in_the_middle,
        ),
        Scenario::new(
            "heir_murdered_during_a_switchover",
            address,
            heir_dies_in_the_middle,
        ),
    ]
}

fn back_and_forth(lab: &mut Lab) -> Result<(), Trouble> {
    for _ in 0..RUNS {
        let owner = lab.owner()?;
        let verdict = lab.switch_over(1 - owner)?;
        must_move(lab, &verdict, 1)?;
    }
    Ok(())
}

fn standby_and_online(lab: &mut Lab) -> Result<(), Trouble> {
    let owner = lab.owner()?;
    let name = lab.name(owner).to_owned();
    let from = lab.probe.now();
    lab.nodes[owner].cli(&["standby", &name])?;
    let verdict = lab.moved_to(1 - owner, from)?;
    must_move(lab, &verdict, 1)?;
    let refused = lab.nodes[owner].try_cli(&["move", TASK, &name])?;
    must(
        !refused.status.success(),
        "a task was moved to a node in standby",
    )?;
    lab.nodes[1 - owner].cli(&["online", &name])?;
    let verdict = lab.switch_over(owner)?;
    must_move(lab, &verdict, 1)
}

fn stop_and_start(lab: &mut Lab) -> Result<(), Trouble> {
    let owner = lab.owner()?;
    lab.nodes[1 - owner].cli(&["stop", TASK])?;
    lab.probe.wait_for_silence()?;
    for node in &lab.nodes {
        node.wait_until_released()?;
    }
    let at = lab.probe.now();
    lab.nodes[owner].cli(&["start", TASK])?;
    lab.probe
        .wait_for_owner("the service to answer again", at, |_| true)
        .map(drop)
}

/// Asks for a move and does not wait for it.
fn begin_move(lab: &mut Lab) -> Result<(usize, u64), Trouble> {
    let owner = lab.owner()?;
    let at = lab.probe.now();
    let heir = lab.name(1 - owner).to_owned();
    let mut command = lab.nodes[1 - owner].command(&["move", TASK, &heir])?;
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().doing("start a move")?;
    // A moment that differs from run to run: somewhere in the hand-over.
    std::thread::sleep(Duration::from_micros(3_000 + at % 7_000));
    Ok((owner, at))
}

fn cut_in_the_middle(lab: &mut Lab) -> Result<(), Trouble> {
    for _ in 0..RUNS {
        let (_, at) = begin_move(lab)?;
        for node in &lab.nodes {
            node.wire(&HEARTBEATS, false)?;
        }
        let after = at + Duration::from_secs(1).as_nanos() as u64;
        lab.probe
            .wait_for_owner("somebody to serve", after, |_| true)?;
        for node in &lab.nodes {
            node.wire(&HEARTBEATS, true)?;
        }
        lab.settle()?;
        let verdict = lab.probe.since(at);
        println!(
            "    {} moves, silent {:.1} ms",
            verdict.moves, verdict.silent_ms_max
        );
        must(
            verdict.moves <= 1,
            format!("{} moves for one command", verdict.moves),
        )?;
    }
    Ok(())
}

fn murder_in_the_middle(lab: &mut Lab) -> Result<(), Trouble> {
    let (owner, at) = begin_move(lab)?;
    lab.nodes[owner].murder()?;
    let verdict = lab.moved_to(1 - owner, at)?;
    must_move(lab, &verdict, 1)?;
    lab.nodes[owner].boot()?;
    lab.settle().map(drop)
}

fn heir_dies_in_the_middle(lab: &mut Lab) -> Result<(), Trouble> {
    let (owner, at) = begin_move(lab)?;
    lab.nodes[1 - owner].murder()?;
    let after = at + Duration::from_secs(1).as_nanos() as u64;
    lab.probe
        .wait_for_owner("the old owner to serve again", after, |node| node == owner)?;
    lab.nodes[1 - owner].boot()?;
    lab.settle().map(drop)
}
