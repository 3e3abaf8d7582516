//! Power fencing: whose machine is to be switched off, and what is proved when it was.
//!
//! ```text
//! eviction of b, in epoch e
//!   |-- lease and release time of b ----------------------------> b is out, as ever
//!   '-- PowerFence b, e --> runner, devices --- off, verified --> b is out at once
//!                                          '--- not off: told; the runner tries again and again
//! over: b is off | b says under e or later that it runs nothing | b is listed again
//! ```
//! It runs beside the wait for the lease and takes nothing from it: no answer and a failure change
//! nothing, but for a task that requires it, which waits for the proof instead of the time.
//!
//! One node asks: the one that has won the eviction, or the lowest member that is there when that
//! one is not. It tells the others by a change of the view that takes the node out of `after`. A
//! member is never switched off: without a lease nothing is asked for, and a member with a lease
//! knows everybody who is in.

use serde::{Deserialize, Serialize};

use super::changes::Change;
use super::{Action, After, Class, Engine, EvictReason, Eviction, PowerOutcome, Record, View};
use crate::model::{NodeId, NodeSet, TaskIndex};

/// What is known and asked about the power of one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Power {
    /// Its eviction that has come into force before the eyes of this engine.
    seen: Option<u64>,
    /// The eviction for which the runner was asked.
    asked: Option<u64>,
    /// The eviction since which it was verified to be off.
    off: Option<u64>,
    /// What stands in the way, as last told.
    failing: Option<String>,
}

impl Engine {
    /// The last eviction of a node that is out of the view.
    fn eviction_of(&self, node: NodeId) -> Option<&Eviction> {
        let listed = self.view.member(node).is_some();
        let mut evictions = self.view.evictions.iter();
        evictions.find(|eviction| eviction.node == node && !listed)
    }

    /// A new view is known: who was put out by it?
    pub(super) fn note_evictions(&mut self, old: &View) {
        for node in self.setup.fences.iter() {
            let eviction = self.eviction_of(node).copied();
            let power = &mut self.power[node.index()];
            match eviction {
                None => (power.seen, power.off) = (None, None),
                Some(eviction) => {
                    let fresh = old.member(node).is_some() && eviction.epoch > old.epoch;
                    if fresh && eviction.reason == EvictReason::Silent {
                        power.seen = Some(eviction.epoch);
                    }
                }
            }
        }
    }

    /// Was the node verified to be off since it was put out? Whatever it ran then is over, and it
    /// cannot run anything again before it is let in.
    pub(super) fn proved_off(&self, node: NodeId) -> bool {
        let eviction = self.eviction_of(node).map(|eviction| eviction.epoch);
        eviction.is_some() && self.power[node.index()].off == eviction
    }

    /// Does the task wait for the proof that the node is off, however long ago it was put out?
    pub(super) fn must_be_off(&self, task: TaskIndex, node: NodeId) -> bool {
        let rebooted = |eviction: &Eviction| eviction.reason == EvictReason::Rebooted;
        self.setup.tasks[task.index()].fence_required
            && self.setup.fences.contains(node)
            && self.eviction_of(node).is_some_and(|gone| !rebooted(gone))
    }

    /// An operator vouches for it.
    pub(super) fn vouched_off(&mut self, node: NodeId) {
        if self.setup.fences.contains(node)
            && let Some(epoch) = self.eviction_of(node).map(|eviction| eviction.epoch)
        {
            self.power[node.index()].off = Some(epoch);
        }
    }

    /// The runner is new: it knows of no order.
    pub(super) fn forget_power_orders(&mut self) {
        for power in &mut self.power {
            power.asked = None;
        }
    }

    pub(super) fn on_power_fenced(&mut self, node: NodeId, epoch: u64, outcome: PowerOutcome) {
        if self.power[node.index()].asked != Some(epoch) {
            return;
        }
        let name = self.name(node).to_owned();
        let power = &mut self.power[node.index()];
        match outcome {
            PowerOutcome::Off { by } => {
                (power.asked, power.off, power.failing) = (None, Some(epoch), None);
                self.urgent = true;
                let text = format!("{name} is off, says {by}");
                self.note(Class::Notice, Some(node), text);
            }
            PowerOutcome::Failed { reason } => {
                if power.failing.as_ref() == Some(&reason) {
                    return;
                }
                power.failing = Some(reason.clone());
                let text = format!("{name} could not be switched off: {reason}");
                self.note(Class::Critical, Some(node), text);
            }
        }
    }

    /// Asks for what is needed and is not asked for, and takes back what is not needed any more.
    pub(super) fn order_power(&mut self) {
        if self.setup.fences.is_empty() || self.distrust.is_some() {
            return;
        }
        if !self.runner_there {
            return self.forget_power_orders();
        }
        let may = self.is_member() && self.lease.valid(self.now);
        for node in self.setup.fences.iter() {
            let wanted = self.wanted_off(node).filter(|_| may);
            let power = &mut self.power[node.index()];
            if wanted == power.asked {
                continue;
            }
            power.asked = wanted;
            power.failing = None;
            self.act(Action::PowerFence {
                node,
                epoch: wanted,
            });
            self.tell_power_order(node, wanted);
        }
    }

    fn tell_power_order(&mut self, node: NodeId, wanted: Option<u64>) {
        let name = self.name(node);
        let Some(epoch) = wanted else {
            let text = format!("{name} need not be switched off any more");
            return self.note(Class::Notice, Some(node), text);
        };
        let record = Record {
            at: self.now,
            epoch: self.view.epoch,
            class: Class::Major,
            task: None,
            node: Some(node),
            trigger: format!("{name} was put out in epoch {epoch}"),
            evidence: Vec::new(),
            rule: "a node that was put out and does not say that it has let go is switched off \
                   where there is a device for it"
                .to_owned(),
            rejected: Vec::new(),
            outcome: format!("{name} is to be switched off"),
        };
        self.record(record);
    }

    /// The eviction for which this node has to see to it that another one is off.
    fn wanted_off(&self, node: NodeId) -> Option<u64> {
        let eviction = self.eviction_of(node)?;
        let epoch = eviction.epoch;
        if self.proved_off(node) || self.says_it_is_empty(node, epoch) {
            return None;
        }
        let seen = self.power[node.index()].seen == Some(epoch);
        let awaited = || {
            self.tasks().any(|task| {
                self.view.task(task).after.may_mean(node) && self.must_be_off(task, node)
            })
        };
        let mine = self.who_sees_to_it(eviction.by) == Some(self.me());
        (mine && (seen || awaited())).then_some(epoch)
    }

    /// It lives, knows that it was put out, and runs nothing.
    fn says_it_is_empty(&self, node: NodeId, epoch: u64) -> bool {
        let peer = self.peers.of(node);
        let runs = |task: TaskIndex| peer.tasks[task.index()].state.may_run();
        self.heard_lately(node) && peer.epoch >= epoch && !self.tasks().any(runs)
    }

    fn who_sees_to_it(&self, by: NodeId) -> Option<NodeId> {
        let there = |node: &NodeId| *node == self.me() || self.heard_lately(*node);
        let members = self.view.full_members();
        let winner = Some(by).filter(|by| members.contains(*by) && there(by));
        winner.or_else(|| members.iter().find(there))
    }

    /// The others learn that a node is off: their tasks need not wait for it.
    pub(super) fn tell_off(&mut self) -> Option<Change> {
        let off = self
            .setup
            .fences
            .iter()
            .filter(|node| self.proved_off(*node));
        let off: NodeSet = off.collect();
        if off.is_empty() {
            return None;
        }
        let mut view = self.next_view();
        let mut first = None;
        for task in self.tasks() {
            let record = self.view.task(task);
            // What is this node's own starts on its own knowledge.
            if record.owner == Some(self.me()) || !off.iter().any(|n| record.after.may_mean(n)) {
                continue;
            }
            let after = if self.earlier_owner_is_out(task, &record) {
                After::Nobody
            } else {
                off.iter().fold(record.after, After::without)
            };
            if after != record.after {
                view.tasks[task.index()].after = after;
                first = first.or(Some((task, off)));
            }
        }
        let (task, off) = first?;
        let names: Vec<&str> = off.iter().map(|node| self.name(node)).collect();
        let what = format!("proof that {} is off", names.join(", "));
        let rule = "a task need not wait for a node that was switched off";
        let mut change = self.change(view, Class::Notice, &what, rule);
        change.record.task = Some(task);
        Some(change)
    }

    /// Nodes that could not be switched off although they should be.
    pub(super) fn power_alarms(&self) -> impl Iterator<Item = String> {
        let nodes = self.setup.fences.iter();
        nodes.filter_map(|node| {
            let power = &self.power[node.index()];
            let reason = power.asked.and(power.failing.as_ref())?;
            Some(format!("cannot switch off {}: {reason}", self.name(node)))
        })
    }
}
