//! Starting from nothing, from something old, and with something wrong.

use std::fs;
use std::time::Duration;

use crate::rig::lab::{Lab, Wish};
use crate::rig::software::Software;
use crate::rig::trouble::{Doing, Trouble};
use crate::rig::wait::{PATIENCE, eventually};
use crate::{Scenario, lasting, must, must_move};

/// How long a node that must not serve is watched.
const WATCHED: Duration = Duration::from_secs(3);

pub(crate) fn scenarios() -> Vec<Scenario> {
    let echo = Wish::detect(500);
    vec![
        Scenario::new("cold_start_of_both", echo, both)
            .switched_off()
            .quick(),
        Scenario::new("cold_start_of_one_alone", echo, alone).switched_off(),
        Scenario::new("cold_start_after_murder_of_the_other", echo, alone_again),
        Scenario::new("cold_start_on_a_foreign_disk", echo, foreign_disk).switched_off(),
        Scenario::new("cold_start_on_a_blank_disk", echo, blank_disk).switched_off(),
        Scenario::new("node_with_another_revision", echo, other_revision),
        Scenario::new("two_nodes_with_the_same_id", echo, same_id),
    ]
}

fn power_on(lab: &mut Lab, nodes: &[usize]) -> Result<(), Trouble> {
    nodes
        .iter()
        .try_for_each(|node| lab.nodes[*node].power_on())
}

fn start_daemons(lab: &mut Lab, nodes: &[usize]) -> Result<(), Trouble> {
    nodes
        .iter()
        .try_for_each(|node| lab.nodes[*node].start_daemon())
}

fn both(lab: &mut Lab) -> Result<(), Trouble> {
    power_on(lab, &[0, 1])?;
    lab.format_disk()?;
    start_daemons(lab, &[0, 1])?;
    lab.settle()?;
    let verdict = lab.watch(0, lasting(2, 10));
    must(
        verdict.moves == 0,
        "the task moved while the cluster formed",
    )
}

fn alone(lab: &mut Lab) -> Result<(), Trouble> {
    power_on(lab, &[0])?;
    lab.format_disk()?;
    start_daemons(lab, &[0])?;
    let owner = lab.settle()?;
    must(owner == 0, "somebody else answers")?;
    let from = lab.probe.now();
    lab.nodes[1].boot()?;
    lab.settle()?;
    let verdict = lab.watch(from, lasting(2, 10));
    must_move(lab, &verdict, 0)
}

/// The register names both; only one of them comes back.
fn alone_again(lab: &mut Lab) -> Result<(), Trouble> {
    let owner = lab.owner()?;
    let mut at = 0;
    for node in &mut lab.nodes {
        at = node.murder()?;
    }
    lab.nodes[1 - owner].boot()?;
    let verdict = lab.moved_to(1 - owner, at)?;
    must_move(lab, &verdict, 1)
}

/// Waits until each node's status says what is wrong, and sees that nobody serves.
fn refuses(lab: &mut Lab, words: &str) -> Result<(), Trouble> {
    for node in &lab.nodes {
        let what = format!("the status of node {} to speak of: {words}", node.name);
        eventually(&what, PATIENCE, || {
            node.status()
                .ok()?
                .to_string()
                .contains(words)
                .then_some(())
        })?;
    }
    let verdict = lab.watch(0, WATCHED);
    must(
        verdict.owner_after.is_none(),
        "a node serves without a register",
    )
}

fn foreign_disk(lab: &mut Lab) -> Result<(), Trouble> {
    power_on(lab, &[0, 1])?;
    lab.format_disk()?;
    let reversed: String = lab.plan.cluster_id.chars().rev().collect();
    lab.plan.cluster_id = reversed;
    lab.configure()?;
    start_daemons(lab, &[0, 1])?;
    refuses(lab, "belongs to another cluster")?;
    lab.format_disk()?;
    lab.settle().map(drop)
}

fn blank_disk(lab: &mut Lab) -> Result<(), Trouble> {
    power_on(lab, &[0, 1])?;
    start_daemons(lab, &[0, 1])?;
    refuses(lab, "never formatted")?;
    lab.format_disk()?;
    lab.settle().map(drop)
}

fn other_revision(lab: &mut Lab) -> Result<(), Trouble> {
    let owner = lab.owner()?;
    let other = 1 - owner;
    let from = lab.probe.now();
    lab.nodes[other].murder()?;
    lab.plan.revision = 2;
    lab.plan.restarts = 9;
    Software::Standfast.configure(&lab.plan, other, &lab.nodes[other].etc())?;
    lab.nodes[other].boot()?;
    let name = lab.name(owner).to_owned();
    eventually(
        &format!("node {name} to say that the revisions differ"),
        PATIENCE,
        || {
            let status = lab.nodes[owner].status().ok()?.to_string();
            status.contains("incompatible").then_some(())
        },
    )?;
    must(
        !lab.nodes[other].has_lease(),
        "a node with another configuration became a member",
    )?;
    let verdict = lab.watch(from, WATCHED);
    must_move(lab, &verdict, 0)
}

fn same_id(lab: &mut Lab) -> Result<(), Trouble> {
    let owner = lab.owner()?;
    let other = 1 - owner;
    let name = lab.name(owner).to_owned();
    let from = lab.probe.now();
    lab.nodes[other].murder()?;
    lab.nodes[other].power_on()?;
    // It gets the owner's path to the disk as well; both paths lead to one disk.
    lab.nodes[other].start_daemon_as(&name)?;
    let verdict = lab.watch(from, lasting(5, 20));
    must_move(lab, &verdict, 0)?;
    lab.nodes[other].murder()?;
    lab.nodes[other].boot()?;
    lab.settle()?;
    fs::metadata(lab.nodes[other].log())
        .doing("find the log")
        .map(drop)
}
