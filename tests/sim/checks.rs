//! What must hold after every event, judged from the truth: what runs, what is on the disk.
//!
//! S1 one runner of a task; S2 who starts it owns it; S4 nothing goes back; S5 who is out has
//! released in time; S6 nobody is put out without a reason.

use std::collections::BTreeMap;

use standfast::engine::{Cause, EvictReason, View};
use standfast::model::{NodeId, TaskIndex};
use standfast::register::Value;

use crate::plan::Plan;
use crate::world::{Ev, World};

/// What the checkers remember.
pub(crate) struct Checks {
    /// Decided views by epoch, with the nonce and the true moment.
    pub(crate) decided: BTreeMap<u64, (u64, View, u64)>,
    pub(crate) forbids_eviction: bool,
    /// How often what happened.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

/// What is counted beside the faults; everything must happen in an everyday run.
pub(crate) const COUNTED: [&str; 16] = [
    "start",
    "adopted",
    "released by the guard",
    "eviction silent",
    "eviction rebooted",
    "eviction cold start",
    "view initial or other",
    "task placed",
    "task by operator",
    "task for standby",
    "task evicted",
    "task failed",
    "task unfit",
    "task handed over",
    "task called off",
    "task stopped",
];

impl Checks {
    pub(crate) fn new(plan: &Plan) -> Checks {
        Checks {
            decided: BTreeMap::new(),
            forbids_eviction: plan.forbids_eviction(),
            counts: BTreeMap::new(),
        }
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_insert(0) += 1;
    }

    pub(crate) fn newest(&self) -> Option<&View> {
        self.decided.last_key_value().map(|(_, (_, view, _))| view)
    }
}

impl World {
    /// A value is decided, as judged from the disk's content alone.
    pub(crate) fn decided(&mut self, i: usize, value: Value) {
        if value.epoch == 0 {
            return;
        }
        if let Some((nonce, _, _)) = self.checks.decided.get(&value.epoch) {
            if *nonce != value.nonce {
                self.fail("S4: two views are decided for one epoch");
            }
            return;
        }
        let mut view = View::decode(&value.bytes).expect("engines write views");
        view.epoch = value.epoch;
        let before = self.checks.newest().cloned();
        if before
            .as_ref()
            .is_some_and(|before| before.epoch > view.epoch)
        {
            self.fail("S4: a view older than the newest decided one is decided");
        }
        self.say(i, || describe(&view));
        if let Some(before) = before {
            self.compare(&before, &view);
        }
        let now = self.now;
        self.checks
            .decided
            .insert(value.epoch, (value.nonce, view, now));
    }

    fn compare(&mut self, before: &View, view: &View) {
        for (old, new) in before.tasks.iter().zip(&view.tasks) {
            let moved = (old.owner, old.heir) != (new.owner, new.heir);
            if new.epoch < old.epoch || (moved && new.epoch == old.epoch) {
                self.fail("S4: a task's epoch does not rise with its changes");
            }
            let changed = new.epoch != old.epoch;
            self.checks.count(if changed {
                cause(new.cause)
            } else {
                cause(Cause::Initial)
            });
        }
        let bound = self.plan.timing.out_after().0;
        for old in &before.members {
            let i = old.node.index();
            let same = view
                .member(old.node)
                .is_some_and(|new| new.incarnation == old.incarnation);
            if same || view.member(old.node).is_some() {
                continue;
            }
            if self.nodes[i].incarnation.boot == old.incarnation.boot {
                let power = self.nodes[i].power_life;
                self.after(
                    bound,
                    i,
                    Ev::MustBeOut {
                        power,
                        epoch: view.epoch,
                    },
                );
            }
            self.check_eviction(old.node, view);
        }
    }

    /// S6: where nothing justifies it, nobody is put out.
    fn check_eviction(&mut self, node: NodeId, view: &View) {
        let Some(eviction) = view.evictions.iter().find(|eviction| eviction.node == node) else {
            return;
        };
        if eviction.epoch != view.epoch {
            return;
        }
        self.checks.count(match eviction.reason {
            EvictReason::Silent => "eviction silent",
            EvictReason::Rebooted => "eviction rebooted",
            EvictReason::ColdStart => "eviction cold start",
        });
        let i = node.index();
        let recent = self.nodes[i].troubled_at + self.plan.timing.detect.0 * 2 > self.now;
        let cold = eviction.reason == EvictReason::ColdStart;
        if self.checks.forbids_eviction && !recent && !cold {
            self.fail(&format!(
                "S6: healthy node {node} was put out: {:?}",
                eviction.reason
            ));
        }
    }

    /// S5: a node put out by the view `epoch` has released everything it held then.
    pub(crate) fn check_out(&mut self, i: usize, power: u64, epoch: u64) {
        let node = &self.nodes[i];
        if node.power_life != power || node.below_the_guard(self.now, self.plan.timing.release.0) {
            return;
        }
        let held = node.holding();
        let since = |(_, (_, view, _)): (&u64, &(u64, View, u64))| view.member(node.id).is_some();
        let back = self.checks.decided.range(epoch..).any(since);
        if held != 0 && !back {
            self.fail(&format!(
                "S5: node {} still runs {held:b} after it was put out",
                i + 1
            ));
        }
    }

    /// S1: at most one node runs the task. A node frozen with its guard does not count: what it
    /// still has in its kernel is the business of the layers below.
    pub(crate) fn check_single(&mut self, task: usize) {
        let runs = |i: &usize| self.nodes[*i].held[task].running;
        let all: Vec<usize> = (0..self.nodes.len()).filter(runs).collect();
        let release = self.plan.timing.release.0;
        let frozen = |i: &&usize| self.nodes[**i].below_the_guard(self.now, release);
        let mut awake = all.iter().filter(|i| !frozen(i));
        if let (Some(one), Some(two)) = (awake.next(), awake.next()) {
            self.fail(&format!(
                "S1: t{task} runs on nodes {} and {}",
                one + 1,
                two + 1
            ));
        }
    }

    /// S2: who starts a task owns it, or inherits what was released, in the view it knows; that
    /// view is decided, and no newer one takes the task away for longer than a lease can last.
    pub(crate) fn check_start(&mut self, i: usize, task: usize) {
        self.checks.count("start");
        let node = &self.nodes[i];
        let index = TaskIndex::new(task).expect("few tasks");
        let Some(engine) = &node.engine else { return };
        let me = Some(node.id);
        let entitles = |view: &View| {
            let record = view.task(index);
            record.wanted && (record.owner == me || record.heir == me)
        };
        let newer = self.checks.decided.range(engine.view().epoch..);
        let lease = self.plan.timing.out_after().0;
        let mut lost_at = None;
        let mut known = false;
        for (epoch, (_, view, at)) in newer {
            known |= *epoch == engine.view().epoch;
            if !view.grants(node.id, node.incarnation) {
                lost_at = lost_at.or(Some(*at));
            }
        }
        if !known || !entitles(engine.view()) {
            // The order may have been overtaken by a newer view on its way to the runner.
            let was = self
                .checks
                .decided
                .range(..=engine.view().epoch)
                .rev()
                .take(3);
            let lately = was.into_iter().any(|(_, (_, view, _))| entitles(view));
            if !lately {
                self.fail(&format!(
                    "S2: node {} starts t{task} without owning it",
                    i + 1
                ));
            }
        }
        if lost_at.is_some_and(|at| self.now > at + lease) {
            self.fail(&format!(
                "S2: node {} starts t{task} long after it was put out",
                i + 1
            ));
        }
    }

    /// Does the cluster do what it is for: everybody in, every task running once?
    pub(crate) fn is_well(&self) -> Result<(), String> {
        let Some(view) = self.checks.newest() else {
            return Err("no view was ever decided".into());
        };
        for node in &self.nodes {
            if !view.grants(node.id, node.incarnation) {
                return Err(format!("node {} is no member", node.id));
            }
            if node.epoch != view.epoch {
                return Err(format!("node {} does not know the newest view", node.id));
            }
        }
        for task in 0..self.plan.tasks {
            let whole = self
                .nodes
                .iter()
                .filter(|node| node.held[task].whole)
                .count();
            let any = self
                .nodes
                .iter()
                .filter(|node| node.held[task].running)
                .count();
            if (whole, any) != (1, 1) {
                return Err(format!(
                    "t{task} runs on {any} nodes, as a whole on {whole}"
                ));
            }
        }
        Ok(())
    }
}

fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Initial | Cause::Settled => "view initial or other",
        Cause::Placed => "task placed",
        Cause::Operator => "task by operator",
        Cause::Standby => "task for standby",
        Cause::Evicted => "task evicted",
        Cause::Failed => "task failed",
        Cause::Unfit => "task unfit",
        Cause::HandedOver => "task handed over",
        Cause::CalledOff => "task called off",
        Cause::Stopped => "task stopped",
    }
}

fn describe(view: &View) -> String {
    let members: Vec<String> = view
        .members
        .iter()
        .map(|member| {
            format!(
                "{}:{:?} {:?}",
                member.node, member.incarnation, member.standing
            )
        })
        .collect();
    let tasks: Vec<String> = view
        .tasks
        .iter()
        .map(|task| {
            format!(
                "{:?}>{:?} e{} after {:?} {:?}{}",
                task.owner,
                task.heir,
                task.epoch,
                task.after,
                task.cause,
                if task.wanted { "" } else { " unwanted" }
            )
        })
        .collect();
    format!(
        "DECIDED {} [{}] [{}]",
        view.epoch,
        members.join(", "),
        tasks.join(", ")
    )
}
