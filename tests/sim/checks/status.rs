//! What `status` shows: at any moment nothing that its own engine contradicts, and of a cluster in
//! which all is well nothing that would worry anybody.
//!
//! A person decides by it (what to move, whom to vouch for), so it is judged like the rest: after
//! every strike, when it has most to explain, and once more at the end.

use std::collections::BTreeSet;

use standfast::engine::{Engine, NodeStatus, Snapshot, Standing};
use standfast::model::{Incarnation, NodeId, TaskState};
use standfast::time::Instant;

use super::Violation;
use super::s6::Place;
use crate::world::World;

/// A picture beside the engine it was taken of.
#[derive(Clone, Copy)]
pub(crate) struct Sitter<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) now: Instant,
    /// Silence after which a node is not taken to be there, in milliseconds.
    pub(crate) suspect_ms: f64,
}

/// What the picture shows otherwise than it is.
pub(crate) fn check(seen: &Snapshot, sitter: Sitter<'_>) -> Result<(), String> {
    let view = sitter.engine.view();
    let listed = view.member(sitter.node);
    let listed = listed.filter(|member| member.incarnation == sitter.incarnation);
    let standing = match listed.map(|member| member.standing) {
        Some(Standing::Member) => "member",
        Some(Standing::Joining) => "joining",
        None => "outside",
    };
    if (seen.node, seen.epoch, &*seen.standing) != (sitter.node, view.epoch, standing) {
        return Err(format!("it is {standing} in epoch {}", view.epoch));
    }
    if standing == "member" && seen.waiting_for.is_some() {
        return Err("a member waits for nothing".into());
    }
    let valid = sitter.now < sitter.engine.lease_deadline();
    if (seen.lease_ms > 0.0) != valid {
        return Err(format!("a lease of {} ms, valid: {valid}", seen.lease_ms));
    }
    for task in &seen.tasks {
        let here = (sitter.node, sitter.engine.task_state(task.task));
        if !task.states.contains(&here) {
            return Err(format!("task {:?} is {here:?}", task.task));
        }
        let mut states = task.states.iter();
        let runs = states.any(|(_, state)| *state == TaskState::Started);
        if (task.wanted && !runs) != task.blocked.is_some() {
            let why = &task.blocked;
            return Err(format!("task {:?}, runs: {runs}, {why:?}", task.task));
        }
    }
    for node in seen.nodes.iter().filter(|node| node.node != sitter.node) {
        if !may_be_shown(node, sitter) {
            return Err(format!("{node:?} in {view:?}"));
        }
    }
    let different: BTreeSet<_> = seen.alarms.iter().collect();
    if different.len() < seen.alarms.len() {
        return Err(format!("an alarm twice: {:?}", seen.alarms));
    }
    Ok(())
}

/// Another node: is it listed as it is shown, and silent only if it is?
fn may_be_shown(node: &NodeStatus, sitter: Sitter<'_>) -> bool {
    let listed = sitter.engine.view().member(node.node);
    let listed = listed.map(|member| member.standing);
    match &*node.state {
        "member" => listed == Some(Standing::Member) && node.heard_ms.is_some(),
        "joining" => listed == Some(Standing::Joining) && node.heard_ms.is_some(),
        "outside" => listed.is_none() && node.heard_ms.is_some(),
        "silent" => node.heard_ms.is_none_or(|ms| ms > sitter.suspect_ms),
        state => state == "incompatible",
    }
}

/// What would worry somebody although all is well.
pub(crate) fn check_well(seen: &Snapshot) -> Result<(), String> {
    if seen.standing != "member" || seen.lease_ms <= 0.0 || seen.proof == "none" {
        return Err(format!("{}, lease by {}", seen.standing, seen.proof));
    }
    if let Some(node) = seen.nodes.iter().find(|node| node.state != "member") {
        return Err(format!("node {} is {}", node.node, node.state));
    }
    // A hand-over, or a stop or start that takes long, may be under way all the same.
    let works = |state: &TaskState| matches!(state, TaskState::Starting | TaskState::Stopping);
    let mut stuck = seen.tasks.iter().filter(|task| {
        let quiet = !task.states.iter().any(|(_, state)| works(state));
        task.blocked.is_some() && task.heir.is_none() && quiet
    });
    if let Some(task) = stuck.next() {
        return Err(format!("task {:?}: {:?}", task.task, task.blocked));
    }
    // A failed write is told until another one succeeds, and nothing is written without need.
    if !seen.register.reachable {
        return Err(format!("{:?}", seen.register));
    }
    Ok(())
}

impl World {
    fn pictures(&self) -> impl Iterator<Item = (usize, Sitter<'_>, Snapshot)> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter_map(|(i, node)| {
            let now = node.clock.at(self.now);
            let engine = node.engine.as_ref()?;
            let sitter = Sitter {
                engine,
                node: node.id,
                incarnation: node.incarnation,
                now,
                suspect_ms: self.plan.timing.suspect.as_ms_f64(),
            };
            Some((i, sitter, engine.snapshot(now)))
        })
    }

    /// After a strike.
    pub(crate) fn judge_status(&self) {
        for (i, sitter, seen) in self.pictures() {
            if let Err(what) = check(&seen, sitter) {
                self.violated(Violation::new("status", what, vec![i]));
            }
        }
    }

    /// When all has been well for a while.
    pub(crate) fn judge_calm_status(&self) {
        self.judge_status();
        for (i, _, seen) in self.pictures() {
            // What a disk was asked while it hung comes back when it would have, healed or not.
            let read_by = self.now.saturating_sub(self.plan.timing.suspect.0);
            let sick = |disk| {
                !self
                    .troubles
                    .is_well(Place::Disk { node: i, disk }, read_by)
            };
            if (0..self.disks.len()).any(sick) {
                continue;
            }
            if let Err(what) = check_well(&seen) {
                self.violated(Violation::new("status", what, vec![i]));
            }
        }
    }
}

#[test]
fn a_picture_that_is_not_so_is_found() {
    use crate::plan::Plan;
    use crate::rng::Rng;

    let mut world = World::new(Plan::calm(2, 1, 500), Rng::new(1), false);
    world.power_up_all();
    assert!(world.run_while(60_000_000_000, |world| world.is_well().is_err()));
    world.run_until(world.now + 1_000_000_000);
    let (_, sitter, good) = world.pictures().next().expect("it is up");
    assert_eq!((check(&good, sitter), check_well(&good)), (Ok(()), Ok(())));
    let spoilt: [fn(&mut Snapshot); 10] = [
        |seen| seen.epoch += 1,
        |seen| seen.standing = "joining".into(),
        |seen| seen.waiting_for = Some("rain".into()),
        |seen| seen.lease_ms = 0.0,
        |seen| seen.tasks[0].blocked = Some("nothing".into()),
        |seen| seen.alarms = vec!["fire".into(); 2],
        |seen| seen.nodes[1].state = "silent".into(),
        |seen| seen.nodes[1].state = "outside".into(),
        |seen| seen.nodes[1].state = "joining".into(),
        |seen| seen.nodes[1].heard_ms = None,
    ];
    for (number, spoil) in spoilt.iter().enumerate() {
        let mut seen = good.clone();
        spoil(&mut seen);
        assert!(check(&seen, sitter).is_err(), "{number}");
    }
    let worrying: [fn(&mut Snapshot); 4] = [
        |seen| seen.proof = "none".into(),
        |seen| seen.nodes[1].state = "silent".into(),
        |seen| seen.tasks[0].blocked = Some("nothing".into()),
        |seen| seen.register.reachable = false,
    ];
    for (number, worry) in worrying.iter().enumerate() {
        let mut seen = good.clone();
        worry(&mut seen);
        assert!(check_well(&seen).is_err(), "{number}");
    }
}
