//! Where a task may run, and where it should.

use super::{Engine, View};
use crate::frame::Flags;
use crate::model::{NodeId, NodeSet, TaskIndex};

impl Engine {
    /// The best node for the task in `view`, nobody of `not`: the first of its list that is a full
    /// member, heard, not in standby, has not failed lately and says that it is fit; if none is
    /// fit, the first that is at least there.
    pub(super) fn candidate(&self, view: &View, task: TaskIndex, not: NodeSet) -> Option<NodeId> {
        let nodes = &self.setup.tasks[task.index()].nodes;
        let there = |node: &&NodeId| self.refuses(view, task, **node).is_none();
        let allowed = |node: &&NodeId| !not.contains(**node);
        let fit = |node: &&NodeId| self.says_fit(**node, task);
        let first_fit = nodes.iter().filter(allowed).filter(there).find(fit);
        first_fit
            .or_else(|| nodes.iter().filter(allowed).find(there))
            .copied()
    }

    /// Why the task cannot go to this node, if it cannot.
    pub(super) fn refuses(&self, view: &View, task: TaskIndex, node: NodeId) -> Option<String> {
        let name = self.name(node);
        if !self.setup.tasks[task.index()].nodes.contains(&node) {
            return Some(format!("{name} is not among the task's nodes"));
        }
        if !view.full_members().contains(node) {
            return Some(format!("{name} is not a member of the cluster now"));
        }
        if view.standby.contains(node) {
            return Some(format!("{name} is in standby"));
        }
        if view.task(task).failed_on.contains(node) {
            return Some(format!("it failed on {name} lately"));
        }
        if node == self.me() {
            return (self.leaving || !self.runner_there)
                .then(|| format!("{name} is not ready to run tasks"));
        }
        let peer = self.peers.of(node);
        if !self.heard_lately(node) {
            return Some(format!("{name} is not heard"));
        }
        if peer.flags.contains(Flags::LEAVING) {
            return Some(format!("{name} is leaving"));
        }
        peer.incompatible
            .then(|| format!("{name} runs another configuration"))
    }

    pub(super) fn says_fit(&self, node: NodeId, task: TaskIndex) -> bool {
        if node == self.me() {
            return self.is_fit(task);
        }
        self.peers
            .of(node)
            .flags
            .contains(Flags::SERVICE_NETWORK_OK)
    }

    pub(super) fn is_fit(&self, task: TaskIndex) -> bool {
        self.fit & (1 << task.index()) != 0
    }

    /// All nodes of the task with the reason why each was not taken; for the record.
    pub(super) fn rejected(
        &self,
        view: &View,
        task: TaskIndex,
        taken: Option<NodeId>,
    ) -> Vec<String> {
        let nodes = &self.setup.tasks[task.index()].nodes;
        let others = nodes.iter().filter(|node| Some(**node) != taken);
        others
            .map(|node| {
                self.refuses(view, task, *node).unwrap_or_else(|| {
                    format!("{}: later in the order or less fit", self.name(*node))
                })
            })
            .collect()
    }
}
