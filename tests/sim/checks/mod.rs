//! What must hold after every event, judged from the truth: what runs, what is on the disk.
//!
//! One file for each of S1 to S9, and one for what `status` shows. Each is a rule over plain
//! observations, so that it can be shown to fire, and has below it what the world feeds it. `judge`
//! runs after every event; what happens at one moment only (a start, a decision, a write) is judged
//! at that moment.

pub(crate) mod s1;
pub(crate) mod s2;
pub(crate) mod s3;
pub(crate) mod s4;
pub(crate) mod s5;
pub(crate) mod s6;
pub(crate) mod s7;
pub(crate) mod s8;
pub(crate) mod s9;
pub(crate) mod status;

use std::collections::BTreeMap;

use standfast::engine::{Cause, EvictReason, View};
use standfast::model::NodeSet;
use standfast::register::Value;

use crate::plan::Plan;
use crate::world::World;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) rule: &'static str,
    pub(crate) what: String,
    /// Nodes whose last events tell how it came about; all of them if none is named.
    pub(crate) nodes: Vec<usize>,
}

impl Violation {
    pub(crate) fn new(rule: &'static str, what: String, nodes: Vec<usize>) -> Violation {
        Violation { rule, what, nodes }
    }
}

/// A view that was decided.
#[derive(Clone, Debug)]
pub(crate) struct Decided {
    pub(crate) nonce: u64,
    pub(crate) view: View,
    /// Who was listed in the view before.
    pub(crate) before: NodeSet,
    /// True moment.
    pub(crate) at: u64,
}

/// What the checkers remember.
pub(crate) struct Checks {
    /// Decided views by epoch.
    pub(crate) decided: BTreeMap<u64, Decided>,
    /// Is S6 judged? Directed tests may do to a node what nothing justifies.
    pub(crate) s6: bool,
    /// What each node holds, bit by task, as seen after its last event.
    pub(crate) holding: Vec<u64>,
    pub(crate) release: s5::Release,
    pub(crate) writes: s3::Writes,
    pub(crate) origin: s9::Origin,
    /// Nodes to which an operator has asked each task to be moved.
    pub(crate) asked: Vec<NodeSet>,
    /// How often what happened.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

/// What is counted beside the faults; everything must happen in an everyday run.
pub(crate) const COUNTED: [&str; 32] = [
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
    "refused frame",
    "refused packet",
    "replayed packet",
    "packet of an earlier life",
    "refused block",
    "torn block",
    "struck in a write",
    "refused write",
    "fenced",
    "fence failed",
    "refused record",
    "command refused",
    "command without an answer",
    "command sent twice",
    "command done late",
    "record not kept",
];

impl Checks {
    pub(crate) fn new(plan: &Plan) -> Checks {
        Checks {
            decided: BTreeMap::new(),
            s6: true,
            holding: vec![0; plan.nodes],
            release: s5::Release::new(plan.nodes, plan.timing.release.on_worst_clock().0),
            writes: s3::Writes::new(plan.tasks),
            origin: s9::Origin::default(),
            asked: vec![NodeSet::EMPTY; plan.tasks],
            counts: BTreeMap::new(),
        }
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_insert(0) += 1;
    }

    /// Is this value, by epoch and nonce, a decided one?
    pub(crate) fn decided_is(&self, (epoch, nonce): (u64, u64)) -> bool {
        let known = self.decided.get(&epoch);
        known.is_some_and(|known| known.nonce == nonce)
    }

    pub(crate) fn newest(&self) -> Option<&View> {
        self.decided.last_key_value().map(|(_, known)| &known.view)
    }
}

impl World {
    /// After every event, which was one of node `i`.
    pub(crate) fn judge(&mut self, i: usize) {
        let holding = self.nodes[i].holding();
        if let Some(seen) = self.checks.holding.get_mut(i) {
            *seen = holding;
        } else {
            self.checks.holding.push(holding);
        }
        self.judge_single();
        self.judge_release(i, holding);
    }

    /// A value is decided, as judged from the disk's content alone.
    pub(crate) fn decided(&mut self, i: usize, value: Value) {
        if value.epoch == 0 {
            return;
        }
        let newest = self.checks.decided.last_key_value();
        let newest = newest.map(|(epoch, known)| (*epoch, known.nonce));
        let known = self.checks.decided.get(&value.epoch);
        let known = known.map(|known| known.nonce);
        match s4::decision(newest, known, value.id()) {
            Ok(true) => {}
            Ok(false) => return,
            Err(what) => self.violated(Violation::new("S4", what, Vec::new())),
        }
        if !self.checks.origin.knows(value.id()) {
            let what = format!("nobody has proposed the view of epoch {}", value.epoch);
            self.violated(Violation::new("S9", what, Vec::new()));
        }
        let mut view = View::decode(&value.bytes).expect("engines write views");
        view.epoch = value.epoch;
        let before = self.checks.newest().cloned();
        self.say(i, || describe(&view));
        if let Some(before) = &before {
            if let Err(what) = s4::task_epochs(before, &view) {
                self.violated(Violation::new("S4", what, Vec::new()));
            }
            self.count_causes(before, &view);
            self.judge_decision(before, &view, value.id());
        }
        let decided = Decided {
            nonce: value.nonce,
            view,
            before: before.map_or(NodeSet::EMPTY, |before| before.listed()),
            at: self.now,
        };
        self.checks.decided.insert(value.epoch, decided);
    }

    fn count_causes(&mut self, before: &View, view: &View) {
        for (old, new) in before.tasks.iter().zip(&view.tasks) {
            let changed = new.epoch != old.epoch;
            self.checks.count(if changed {
                cause(new.cause)
            } else {
                cause(Cause::Initial)
            });
        }
        let new = view
            .evictions
            .iter()
            .filter(|gone| gone.epoch == view.epoch);
        for eviction in new {
            self.checks.count(match eviction.reason {
                EvictReason::Silent => "eviction silent",
                EvictReason::Rebooted => "eviction rebooted",
                EvictReason::ColdStart => "eviction cold start",
            });
        }
    }

    /// The machine that lives this life of the node, if it still does.
    pub(crate) fn living(&self, node: standfast::model::NodeId, boot: [u8; 16]) -> Option<usize> {
        let mut nodes = self.nodes.iter();
        nodes.position(|known| known.on && known.id == node && known.incarnation.boot == boot)
    }

    /// Does the cluster do what it is for: everybody in, every task running once?
    pub(crate) fn is_well(&self) -> Result<(), String> {
        let Some(view) = self.checks.newest() else {
            return Err("no view was ever decided".into());
        };
        for node in &self.nodes[..self.plan.nodes] {
            if !view.grants(node.id, node.incarnation) {
                return Err(format!("node {} is no member", node.id));
            }
            if node.epoch != view.epoch {
                return Err(format!("node {} does not know the newest view", node.id));
            }
        }
        self.all_run()
    }

    /// Does every task run, as a whole and once?
    pub(crate) fn all_run(&self) -> Result<(), String> {
        for task in 0..self.plan.tasks {
            let held = || self.nodes.iter().map(|node| &node.held[task]);
            let whole = held().filter(|held| held.whole).count();
            let any = held().filter(|held| held.running).count();
            if (whole, any) != (1, 1) {
                let name = &self.plan.names.tasks[task];
                return Err(format!("{name} runs on {any} nodes, as a whole on {whole}"));
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
    let members = view.members.iter();
    let members = members
        .map(|member| {
            let (node, life) = (member.node, member.incarnation);
            format!("{node}:{life:?} {:?}", member.standing)
        })
        .collect::<Vec<_>>();
    let tasks = view.tasks.iter();
    let tasks = tasks
        .map(|task| {
            let wanted = if task.wanted { "" } else { " unwanted" };
            format!(
                "{:?}>{:?} e{} after {:?} {:?}{wanted}",
                task.owner, task.heir, task.epoch, task.after, task.cause
            )
        })
        .collect::<Vec<_>>();
    let (members, tasks) = (members.join(", "), tasks.join(", "));
    format!("DECIDED {} [{members}] [{tasks}]", view.epoch)
}
