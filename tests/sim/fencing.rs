//! Devices that switch nodes off, and the runner's agents for them: slow, failing, but never lying.
//! Somebody comes later and switches the node on again.

use standfast::engine::{Event, PowerOutcome};
use standfast::model::NodeId;

use crate::checks::Violation;
use crate::world::{Ev, World};

/// How good the devices of a run are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fences {
    /// Tasks that wait for the proof that a node is off, bit by index.
    pub(crate) required: u64,
    /// Per mille of calls that fail, and of calls that take twenty times as long.
    pub(crate) fails: u64,
    pub(crate) slow: u64,
    /// Longest usual time of a call.
    pub(crate) takes: u64,
    /// Longest until somebody switches the node on again, if anybody does.
    pub(crate) on_again: Option<u64>,
}

/// What an agent on its way is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Agent {
    epoch: u64,
    runner: u64,
    number: u64,
}

impl World {
    /// The runner of node `i` is told to switch a node off, or to let it be.
    pub(crate) fn power_ordered(&mut self, i: usize, node: NodeId, epoch: Option<u64>) {
        let target = node.index();
        let named = &self.plan.names.nodes[self.nodes[i].slot];
        if let Some(engine) = &self.nodes[i].engine
            && let Some(epoch) = epoch
            && (engine.view().member(node).is_some() || epoch > engine.view().epoch)
        {
            let what = format!("{named} wants to switch off a member, {node}");
            self.violated(Violation::new("S6", what, vec![i, target]));
        }
        let soon = self.now + self.rng.below(self.plan.jitter) + 1;
        let from = &mut self.nodes[i];
        from.order_at = from.order_at.max(soon);
        let (runner, delay) = (from.runner_life, from.order_at - self.now);
        let ev = Ev::PowerOrder {
            runner,
            node,
            epoch,
        };
        self.after(delay, i, ev);
    }

    pub(crate) fn take_power_order(
        &mut self,
        i: usize,
        runner: u64,
        node: NodeId,
        epoch: Option<u64>,
    ) {
        let from = &self.nodes[i];
        if from.runner_life != runner || !from.runner_up {
            return;
        }
        match epoch {
            Some(epoch) => self.agent_starts(i, node, epoch),
            None => drop(self.agents.remove(&(i, node.index()))),
        }
    }

    fn agent_starts(&mut self, i: usize, node: NodeId, epoch: u64) {
        let Some(fences) = self.plan.fences else {
            return;
        };
        self.number += 1;
        let (number, runner) = (self.number, self.nodes[i].runner_life);
        let agent = Agent {
            epoch,
            runner,
            number,
        };
        self.agents.insert((i, node.index()), agent);
        let slow = self.nodes[node.index()].fence_slow || self.rng.chance(fences.slow);
        let longest = if slow {
            fences.takes * 20
        } else {
            fences.takes
        };
        let delay = self.rng.below(longest) + 1;
        self.after(delay, i, Ev::AgentActs { node, number });
    }

    /// The agent comes to its end: the node is off, or the call has failed.
    pub(crate) fn agent_acts(&mut self, i: usize, node: NodeId, number: u64) {
        let target = node.index();
        let (Some(agent), Some(fences)) = (self.agents.get(&(i, target)), self.plan.fences) else {
            return;
        };
        let agent = *agent;
        if agent.number != number || agent.runner != self.nodes[i].runner_life {
            return;
        }
        // When everything is put in order nobody is switched off any more.
        let fails = self.calm || self.nodes[target].fence_fails || self.rng.chance(fences.fails);
        let outcome = if fails {
            self.checks.count("fence failed");
            self.agent_starts(i, node, agent.epoch);
            PowerOutcome::Failed {
                reason: "the device does not answer".into(),
            }
        } else {
            self.checks.count("fenced");
            self.agents.remove(&(i, target));
            self.switched_off(i, target);
            PowerOutcome::Off { by: "ipmi".into() }
        };
        let core = self.nodes[i].core_life;
        let event = Box::new(Event::PowerFenced {
            node,
            epoch: agent.epoch,
            outcome,
        });
        let delay = self.rng.below(self.plan.jitter) + 1;
        self.after(delay, i, Ev::Tell { core, event });
    }

    fn switched_off(&mut self, by: usize, target: usize) {
        if !self.nodes[target].on {
            return;
        }
        let (id, life) = (self.nodes[target].id, self.nodes[target].incarnation);
        let long_ago = self.now.saturating_sub(self.plan.timing.detect.0);
        // Who stands still takes nothing back, and its devices do what they were told before.
        let attentive = !self.troubles.of_node(by, self.now, self.now);
        let mut decided = self.checks.decided.values();
        let in_since = decided.rfind(|known| known.at < long_ago);
        if attentive
            && in_since.is_some_and(|known| known.view.grants(id, life))
            && self
                .checks
                .newest()
                .is_some_and(|view| view.grants(id, life))
        {
            let what = format!("node {id} is switched off long after it was let in");
            self.violated(Violation::new("S6", what, vec![target]));
        }
        self.power_cut(target);
        if let Some(longest) = self.plan.fences.and_then(|fences| fences.on_again) {
            let delay = self.rng.skewed(longest);
            self.after(delay, target, Ev::PowerOn);
        }
    }
}
