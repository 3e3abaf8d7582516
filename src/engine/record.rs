//! What a person can read later: one record for each decision and each change of state.

use super::{Action, Cause, Class, Engine, Record, View};
use crate::model::{NodeId, TaskIndex};

/// Alarms kept for `status`; the oldest goes when another comes.
const ALARMS_MAX: usize = 16;

impl Engine {
    /// A record without more to say than its sentence.
    pub(super) fn note(&mut self, class: Class, node: Option<NodeId>, outcome: String) {
        self.record(Record {
            at: self.now,
            epoch: self.view.epoch,
            class,
            task: None,
            node,
            trigger: String::new(),
            evidence: Vec::new(),
            rule: String::new(),
            rejected: Vec::new(),
            outcome,
        });
    }

    /// A record about a task.
    pub(super) fn task_note(
        &mut self,
        class: Class,
        task: TaskIndex,
        trigger: &str,
        outcome: String,
    ) {
        self.record(Record {
            at: self.now,
            epoch: self.view.epoch,
            class,
            task: Some(task),
            node: None,
            trigger: trigger.to_owned(),
            evidence: Vec::new(),
            rule: String::new(),
            rejected: Vec::new(),
            outcome,
        });
    }

    pub(super) fn record(&mut self, record: Record) {
        self.act(Action::Record(record));
    }

    /// Something a person must look at: kept for `status`, told once.
    pub(super) fn alarm(&mut self, text: String) {
        if self.alarms.contains(&text) {
            return;
        }
        if self.alarms.len() == ALARMS_MAX {
            self.alarms.remove(0);
        }
        self.note(Class::Critical, None, text.clone());
        self.alarms.push(text);
    }

    /// Tells what another node has changed, so that `why` knows on every node. The evidence is in
    /// the record of the node that decided.
    pub(super) fn tell_changes(&mut self, old: &View) {
        for task in self.tasks() {
            let (before, after) = (old.task(task), self.view.task(task));
            if before.epoch == after.epoch || after.by == Some(self.me()) {
                continue;
            }
            let by = after
                .by
                .map_or("nobody".into(), |node| self.name(node).to_owned());
            let outcome = self.placement_words(task);
            self.task_note(
                after.cause.class(),
                task,
                &format!("node {by} changed the view: {}", after.cause.words()),
                outcome,
            );
        }
    }

    /// `web: owner a, heir b`.
    pub(super) fn placement_words(&self, task: TaskIndex) -> String {
        let record = self.view.task(task);
        let name = |node: Option<NodeId>| node.map_or("nobody", |node| self.name(node)).to_owned();
        let heir = record
            .heir
            .map(|node| format!(", heir {}", self.name(node)));
        format!(
            "{}: owner {}{}",
            self.task_name(task),
            name(record.owner),
            heir.unwrap_or_default()
        )
    }
}

impl Cause {
    /// For people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Cause::Initial => "as configured",
            Cause::Placed => "placed while nobody owned it",
            Cause::Operator => "an operator asked for it",
            Cause::Standby => "its owner is in standby or leaves",
            Cause::Evicted => "a node it depended on was evicted",
            Cause::Failed => "it could not be kept running where it was",
            Cause::Unfit => "its owner cannot serve it (network or storage)",
            Cause::HandedOver => "handed over as agreed",
            Cause::CalledOff => "the hand-over was called off",
            Cause::Stopped => "stopped as asked",
            Cause::Settled => "the earlier owner is out for certain",
        }
    }

    pub(super) fn class(self) -> Class {
        match self {
            Cause::Initial | Cause::Settled => Class::Info,
            Cause::Placed | Cause::Operator | Cause::Standby | Cause::HandedOver => Class::Notice,
            Cause::CalledOff | Cause::Stopped => Class::Notice,
            Cause::Evicted | Cause::Failed | Cause::Unfit => Class::Major,
        }
    }
}
