//! Changes of the view: each turn works out the first step from what is known to what should be,
//! and proposes it. One proposal at a time; what is lost or gives up is worked out again.

use serde::{Deserialize, Serialize};

use super::{After, Class, Engine, EvictReason, Member, Record, Standing, TaskRecord, View};
use crate::frame::Flags;
use crate::model::{NodeId, NodeSet, TaskIndex};
use crate::register::Value;
use crate::time::Instant;

/// A step towards what should be.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) view: View,
    /// What it is, for the log: "eviction of b".
    pub(super) what: String,
    pub(super) record: Record,
    /// The command that asked for it.
    pub(super) request: Option<u64>,
    /// Nodes it puts out against their will.
    pub(super) targets: NodeSet,
}

/// A change on its way.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Proposal {
    pub(super) what: String,
    record: Record,
    request: Option<u64>,
    pub(super) targets: NodeSet,
    asked_at: Instant,
}

impl Engine {
    /// Nodes that the proposal on its way would put out.
    pub(super) fn proposal_targets(&self) -> NodeSet {
        self.proposal
            .as_ref()
            .map_or(NodeSet::EMPTY, |proposal| proposal.targets)
    }

    pub(super) fn propose_change(&mut self) {
        let ready = self.proposal.is_none()
            && self.now >= self.propose_after
            && self.distrust.is_none()
            && self.register.is_recovered()
            && self.can_change()
            && !self.left;
        if !ready {
            return;
        }
        let change = if self.is_member() {
            self.next_as_member()
        } else {
            self.next_as_outsider()
        };
        let Some(change) = change else { return };
        let expected = (self.view.epoch, self.register.known().nonce);
        let mut nonce = self.draw();
        if nonce == expected.1 {
            nonce = self.draw();
        }
        let value = Value {
            epoch: change.view.epoch,
            nonce,
            bytes: change.view.encode(),
        };
        let deadline = self.now + self.timing().detect;
        // Whoever is to be put out is not confirmed from here on: no proof of it is dated later.
        self.proposal = Some(Proposal {
            what: change.what,
            record: change.record,
            request: change.request,
            targets: change.targets,
            asked_at: self.now,
        });
        if let Err(refused) = self.register.propose(self.now, expected, value, deadline) {
            self.proposal = None;
            self.propose_after = self.now + self.timing().heartbeat;
            self.alarm(format!("the register refuses a change: {refused}"));
        }
    }

    pub(super) fn on_won(&mut self, proposal: Proposal, at: Instant) {
        self.tell_all();
        let mut record = proposal.record;
        record.at = at;
        record.epoch = self.view.epoch;
        let took = at.since(proposal.asked_at).as_ms_f64();
        record
            .evidence
            .push(format!("register written in {took:.1} ms"));
        if let Some(task) = record.task {
            record.outcome = self.placement_words(task);
        }
        let outcome = record.outcome.clone();
        self.record(record);
        if let Some(request) = proposal.request {
            self.answer(request, Ok(outcome));
        }
    }

    fn next_as_member(&mut self) -> Option<Change> {
        let urgent = self
            .eviction()
            .or_else(|| self.settlement())
            .or_else(|| self.tell_off());
        if self.owner_without_register().is_some() {
            return urgent.or_else(|| self.inheritance());
        }
        urgent
            .or_else(|| self.commanded())
            .or_else(|| self.task_change())
            .or_else(|| self.departure())
            .or_else(|| self.forgiveness())
    }

    /// A member that owns tasks, cannot read the register and is not heard over any network either.
    /// It could not learn of a new view: nobody would confirm it any more, and it would lose its
    /// lease and its tasks. So what can wait does.
    pub(super) fn owner_without_register(&self) -> Option<NodeId> {
        let others = self.view.full_members().without(self.me());
        let mut others = others.iter();
        others.find(|node| {
            let reads = self.peers.of(*node).flags.contains(Flags::STORAGE_OK);
            let owns = |record: &TaskRecord| record.owner == Some(*node);
            let deaf = !reads && !self.heard_on_network(*node);
            deaf && self.heard_lately(*node) && self.view.tasks.iter().any(owns)
        })
    }

    /// The view after this one, still the same but for its number.
    pub(super) fn next_view(&self) -> View {
        let mut view = self.view.clone();
        view.epoch += 1;
        while view.tasks.len() < self.setup.tasks.len() {
            let wanted = self.setup.tasks[view.tasks.len()].enabled;
            view.tasks.push(TaskRecord {
                wanted,
                ..TaskRecord::default()
            });
        }
        view
    }

    pub(super) fn change(&self, view: View, class: Class, what: &str, rule: &str) -> Change {
        let record = Record {
            at: self.now,
            epoch: view.epoch,
            class,
            task: None,
            node: None,
            trigger: what.to_owned(),
            evidence: Vec::new(),
            rule: rule.to_owned(),
            rejected: Vec::new(),
            outcome: format!("view {} without further change", view.epoch),
        };
        let targets = NodeSet::EMPTY;
        Change {
            view,
            what: what.to_owned(),
            record,
            request: None,
            targets,
        }
    }

    fn eviction(&mut self) -> Option<Change> {
        let due = self.due_for_eviction();
        if due.is_empty() {
            return None;
        }
        let mut view = self.next_view();
        for (node, reason) in &due {
            view.evict(*node, self.me(), *reason);
        }
        let gone: NodeSet = due.iter().map(|(node, _)| *node).collect();
        let first_moved = self.reassign(&mut view, &due, gone);
        let names: Vec<&str> = due.iter().map(|(node, _)| self.name(*node)).collect();
        let what = format!("eviction of {}", names.join(", "));
        let mut change = self.change(
            view,
            Class::Major,
            &what,
            "a listed node that is silent for 4 heartbeats, or has rebooted, is put out; its tasks \
             start elsewhere when its lease and release time are over, or at once if it rebooted",
        );
        change.record.node = due.first().map(|(node, _)| *node);
        change.record.task = first_moved;
        change.record.evidence = due
            .iter()
            .map(|(node, why)| self.evidence(*node, *why))
            .collect();
        if let Some(task) = first_moved {
            let taken = change.view.task(task).owner;
            change.record.rejected = self.rejected(&change.view, task, taken);
        } else {
            change.record.outcome = format!("{} put out; no task had to move", names.join(", "));
        }
        change.targets = gone;
        Some(change)
    }

    /// Gives the tasks of nodes that were put out to others. Returns the first such task.
    fn reassign(
        &self,
        view: &mut View,
        due: &[(NodeId, EvictReason)],
        gone: NodeSet,
    ) -> Option<TaskIndex> {
        let mut first = None;
        for task in self.tasks() {
            let mut record = view.task(task);
            let (owner, heir) = (record.owner, record.heir);
            let lost = |node: Option<NodeId>| node.filter(|node| gone.contains(*node));
            let awaited = gone.iter().any(|node| record.after.may_mean(node));
            if lost(owner).is_none() && lost(heir).is_none() && !awaited {
                continue;
            }
            for (node, reason) in due {
                if *reason == EvictReason::Rebooted {
                    record.after = record.after.without(*node);
                } else if owner == Some(*node) || heir == Some(*node) {
                    record.after = record.after.with(*node);
                }
            }
            if lost(owner).is_some() {
                let named = heir.filter(|node| self.refuses(view, task, *node).is_none());
                record.owner = named.or_else(|| self.candidate(view, task, gone));
            }
            // An heir that is passed over may have started it already.
            if let Some(heir) = heir.filter(|heir| !gone.contains(*heir))
                && record.owner != Some(heir)
            {
                record.after = record.after.with(heir);
            }
            record.heir = None;
            self.stamp(&mut record, super::Cause::Evicted);
            view.tasks[task.index()] = record;
            first = first.or(Some(task));
        }
        first
    }

    pub(super) fn stamp(&self, record: &mut TaskRecord, cause: super::Cause) {
        record.epoch += 1;
        record.cause = cause;
        record.by = Some(self.me());
    }

    fn evidence(&self, node: NodeId, reason: EvictReason) -> String {
        let peer = self.peers.of(node);
        let name = self.name(node);
        let heard: Vec<String> = (0..self.links.len())
            .map(|link| match peer.on_link[link] {
                Some(at) => format!("link {link} {} ms ago", self.now.since(at).as_ms()),
                None => format!("link {link} never"),
            })
            .collect();
        format!(
            "{name} {}; last heard: {}",
            reason.words(),
            heard.join(", ")
        )
    }

    /// An eviction of unknown outcome, of somebody who is back: an empty change makes sure that it
    /// can never come into force, and the node can be confirmed again.
    fn settlement(&mut self) -> Option<Change> {
        let back = self.asked_out.iter().any(|node| self.heard_lately(node));
        if !back {
            return None;
        }
        let view = self.next_view();
        Some(self.change(
            view,
            Class::Info,
            "settling an unclear eviction",
            "unclear outcomes are settled",
        ))
    }

    fn departure(&mut self) -> Option<Change> {
        let holds = self.tasks().any(|task| {
            let record = self.view.task(task);
            self.local[task.index()].state().may_run()
                || record.owner == Some(self.me())
                || record.heir == Some(self.me())
        });
        if !self.leaving || holds {
            return None;
        }
        let mut view = self.next_view();
        view.dismiss(self.me());
        let mut change = self.change(
            view,
            Class::Notice,
            "leaving the cluster",
            "a node that is told to end leaves the view once it holds nothing",
        );
        change.record.outcome = format!("{} has left", self.name(self.me()));
        Some(change)
    }

    fn forgiveness(&mut self) -> Option<Change> {
        let times = self.view.times_evicted(self.me());
        let calm = self.now.since(self.member_since) >= self.timing().forgive;
        if times == 0 || !calm {
            return None;
        }
        let mut view = self.next_view();
        let me = self.me();
        view.evictions.retain(|eviction| eviction.node != me);
        Some(self.change(
            view,
            Class::Info,
            "forgetting earlier evictions of this node",
            "a membership without an event for ten minutes forgives earlier flaps",
        ))
    }

    /// A task that may still run here though it is another node's. Without a lease the guard takes
    /// it back, whatever the runner comes to; a guard that stood still has yet to do that, and a
    /// lease would make it believe that all is well.
    fn holds_what_is_anothers(&self) -> Option<TaskIndex> {
        self.tasks().find(|task| {
            let owner = self.view.task(*task).owner;
            owner.is_some_and(|owner| owner != self.me()) && self.task_state(*task).may_run()
        })
    }

    fn next_as_outsider(&mut self) -> Option<Change> {
        if self.leaving || !self.runner_there {
            self.waiting_for =
                (!self.runner_there).then(|| "the runner's look at the tasks".into());
            return None;
        }
        if self.id_in_use() {
            self.waiting_for = Some(format!("another machine uses node id {}", self.me()));
            return None;
        }
        if let Some(task) = self.holds_what_is_anothers() {
            let name = &self.setup.tasks[task.index()].name;
            self.waiting_for = Some(format!("{name} to be stopped here, it is another node's"));
            return None;
        }
        let listed = self.view.member(self.me()).copied();
        if let Some(old) = listed.filter(|old| old.incarnation != self.setup.incarnation)
            && old.incarnation.boot == self.setup.incarnation.boot
            && self.view.config_hash == self.setup.config_hash
        {
            return Some(self.take_up_again(old));
        }
        if self.is_listed() && self.confirmed_by_all() && !self.view.listed().is_empty() {
            let others = self.view.listed().without(self.me());
            if !others.is_empty() {
                return Some(self.promotion());
            }
        }
        if self.all_others_silent() || self.no_member_is_left() || self.all_have_another_plan() {
            return self.start_alone();
        }
        if listed.is_some() {
            let what = if self.is_listed() {
                "all members to confirm"
            } else {
                "the members to see that it rebooted"
            };
            self.waiting_for = Some(what.into());
            return None;
        }
        self.join()
    }

    /// The daemon was restarted within the same boot: the record of the earlier life becomes this
    /// one's. Nobody confirms in the name of the earlier life, so nothing is assumed by it. Not
    /// under another configuration: its tasks may be others than the members'.
    fn take_up_again(&mut self, old: Member) -> Change {
        let mut view = self.next_view();
        view.admit(Member {
            incarnation: self.setup.incarnation,
            ..old
        });
        let rule =
            "a restarted daemon takes up the membership of its earlier life in the same boot";
        self.change(view, Class::Notice, "daemon restarted", rule)
    }

    fn promotion(&mut self) -> Change {
        let mut view = self.next_view();
        let incarnation = self.setup.incarnation;
        view.admit(Member {
            node: self.me(),
            incarnation,
            standing: Standing::Member,
        });
        let rule =
            "a joining node becomes a member when every member has confirmed a view that lists it";
        self.change(view, Class::Notice, "membership", rule)
    }

    fn join(&mut self) -> Option<Change> {
        if self.view.config_hash != self.setup.config_hash {
            self.waiting_for = Some(format!(
                "the same configuration as the members (revision {}, this node has {})",
                self.view.config_revision, self.setup.config_revision
            ));
            return None;
        }
        if let Err(missing) = self.in_contact_with_all() {
            self.waiting_for = Some(missing);
            return None;
        }
        if let Some(owner) = self.owner_without_register() {
            let name = self.name(owner);
            self.waiting_for = Some(format!("node {name}, which cannot read the register"));
            return None;
        }
        let mut view = self.next_view();
        let incarnation = self.setup.incarnation;
        view.admit(Member {
            node: self.me(),
            incarnation,
            standing: Standing::Joining,
        });
        let rule = "a node is let in after stable two-way contact with every member";
        Some(self.change(view, Class::Notice, "joining", rule))
    }

    /// Nobody else is there: forms a view of this node alone.
    fn start_alone(&mut self) -> Option<Change> {
        if let Err(open) = self.may_start_alone() {
            self.alarm(format!("cannot start alone: {open}"));
            self.waiting_for = Some(open);
            return None;
        }
        let mut view = self.next_view();
        let fresh = view.config_hash != self.setup.config_hash;
        let others: NodeSet = self.absent().collect();
        for node in others.iter() {
            view.evict(node, self.me(), EvictReason::ColdStart);
        }
        let incarnation = self.setup.incarnation;
        view.admit(Member {
            node: self.me(),
            incarnation,
            standing: Standing::Member,
        });
        view.config_hash = self.setup.config_hash;
        view.config_revision = self.setup.config_revision;
        if fresh {
            // Records of another configuration may be of other tasks: only what they imply stays.
            view.standby = NodeSet::EMPTY;
            let epoch = view.tasks.iter().map(|task| task.epoch).max();
            let after = if self.view.epoch == 0 {
                After::Nobody
            } else {
                After::Anybody
            };
            view.tasks.clear();
            for setup in &self.setup.tasks {
                view.tasks.push(TaskRecord {
                    wanted: setup.enabled,
                    epoch: epoch.unwrap_or(0),
                    after,
                    ..TaskRecord::default()
                });
            }
        }
        for task in self.tasks() {
            self.place_at_cold_start(&mut view, task, fresh);
        }
        let rule = "a node that hears nobody for the detect time forms the cluster alone; tasks of \
                    others start when their leases are over for certain";
        let mut change = self.change(view, Class::Notice, "starting alone", rule);
        change.record.evidence = others
            .iter()
            .map(|node| self.evidence(node, EvictReason::ColdStart))
            .collect();
        change.record.outcome = format!("{} is the only member", self.name(self.me()));
        Some(change)
    }

    fn place_at_cold_start(&self, view: &mut View, task: TaskIndex, fresh: bool) {
        let mut record = view.task(task);
        if !fresh {
            for node in [record.owner, record.heir].into_iter().flatten() {
                if node != self.me() && !self.proved_rebooted(node) {
                    record.after = record.after.with(node);
                }
            }
        }
        let had_owner = record.owner.is_some();
        record.heir = None;
        record.failed_on = NodeSet::EMPTY;
        record.owner = if record.wanted && had_owner {
            self.candidate(view, task, NodeSet::EMPTY)
        } else {
            None
        };
        self.stamp(&mut record, super::Cause::Placed);
        view.tasks[task.index()] = record;
    }
}
