//! Who is to have a task: the changes of the view that this node asks for on its behalf.
//!
//! ```text
//! owner None --place--> owner A --give away, move--> owner A, heir B --A has released, B
//! starts--> owner B                                                         '--called off-->
//! owner A, after B
//! ```
//! A running task never changes hands in one step, not even when its owner believes that it does
//! not run: what this node believes now it may have changed when the change comes into force.
//! Whoever is taken out of a record is named in `after` until it says that nothing runs there.

use super::changes::Change;
use super::tasks::{Local, Then};
use super::{After, Cause, Class, Engine, TaskRecord};
use crate::config::RETRY_MAX;
use crate::model::{NodeSet, TaskIndex};
use crate::time::Span;

/// Time a task must have run before its earlier failures are forgotten.
const FORGET_FAILURES: Span = Span::from_ms(600_000);

impl Engine {
    /// The first change of the view that some task needs from this node.
    pub(super) fn task_change(&mut self) -> Option<Change> {
        self.tasks().find_map(|task| self.change_for(task))
    }

    /// The first change that this node needs as the heir of something.
    pub(super) fn inheritance(&mut self) -> Option<Change> {
        self.tasks().find_map(|task| {
            let record = self.view.task(task);
            let inherits = record.heir == Some(self.me()) && record.owner != Some(self.me());
            inherits
                .then(|| self.change_as_heir(task, record))
                .flatten()
        })
    }

    fn change_for(&mut self, task: TaskIndex) -> Option<Change> {
        let record = self.view.task(task);
        let me = Some(self.me());
        if record.heir == me && record.owner != me {
            return self.change_as_heir(task, record);
        }
        if record.owner == me {
            return self.change_as_owner(task, record);
        }
        self.place(task, record)
    }

    fn change_as_heir(&mut self, task: TaskIndex, record: TaskRecord) -> Option<Change> {
        match self.local[task.index()] {
            Local::Starting { .. } | Local::Started { .. } => {
                let next = TaskRecord {
                    owner: Some(self.me()),
                    heir: None,
                    ..record
                };
                Some(self.task_step(task, next, Cause::HandedOver, "the owner has released it"))
            }
            Local::Failed { epoch, .. } if epoch == record.epoch => {
                let failed_on = record.failed_on.with(self.me());
                let next = TaskRecord {
                    failed_on,
                    ..record.without_heir()
                };
                Some(self.task_step(task, next, Cause::Failed, "the heir could not start it"))
            }
            Local::Stopped | Local::Failed { .. } | Local::Released { .. }
                if self.leaving || self.view.standby.contains(self.me()) || !record.wanted =>
            {
                let next = record.without_heir();
                Some(self.task_step(task, next, Cause::CalledOff, "the heir declines"))
            }
            _ => None,
        }
    }

    fn change_as_owner(&mut self, task: TaskIndex, record: TaskRecord) -> Option<Change> {
        let local = self.local[task.index()];
        let idle = matches!(
            local,
            Local::Stopped | Local::Failed { .. } | Local::Released { .. }
        );
        if idle && !record.wanted {
            let next = TaskRecord {
                owner: None,
                ..self.cleared(task, record).without_heir()
            };
            return Some(self.task_step(
                task,
                next,
                Cause::Stopped,
                "it is stopped and not wanted",
            ));
        }
        if let Local::Failed { epoch, .. } = local
            && epoch == record.epoch
            && record.heir.is_none()
        {
            let failed_on = record.failed_on.with(self.me());
            let to = self.candidate(&self.view, task, NodeSet::only(self.me()))?;
            let next = TaskRecord {
                heir: Some(to),
                failed_on,
                ..self.cleared(task, record)
            };
            return Some(self.task_step(
                task,
                next,
                Cause::Failed,
                "it could not be kept running here",
            ));
        }
        if let Some(heir) = record.heir {
            let waited = self.now.since(self.task_known_at[task.index()]);
            let hopeless = !record.wanted || waited > self.timing().detect.times(4);
            let runs = matches!(local, Local::Started { .. });
            if runs && hopeless && !self.heir_is_ready(&record) {
                let next = record.without_heir();
                let why = format!("{} did not get ready", self.name(heir));
                return Some(self.task_step(task, next, Cause::CalledOff, &why));
            }
            return None;
        }
        self.give_away(task, record, idle)
            .or_else(|| self.tidy(task, record))
    }

    /// The owner wants to be rid of a task that somebody else can run.
    fn give_away(&mut self, task: TaskIndex, record: TaskRecord, idle: bool) -> Option<Change> {
        let standby = self.view.standby.contains(self.me()) || self.leaving;
        let unfit = self.unfit_for_long(task);
        if !record.wanted || !(standby || unfit) {
            return None;
        }
        let to = self.candidate(&self.view, task, NodeSet::only(self.me()));
        let cause = if standby {
            Cause::Standby
        } else {
            Cause::Unfit
        };
        match to.filter(|to| standby || self.says_fit(*to, task)) {
            Some(to) => {
                let next = TaskRecord {
                    heir: Some(to),
                    ..self.cleared(task, record)
                };
                Some(self.task_step(task, next, cause, "the owner gives it away"))
            }
            None if self.leaving && idle => {
                let next = TaskRecord {
                    owner: None,
                    ..self.cleared(task, record)
                };
                Some(self.task_step(task, next, cause, "the owner leaves and nobody can take it"))
            }
            None if self.leaving => {
                if matches!(self.local[task.index()], Local::Started { .. }) {
                    self.stop(task, Then::Stopped, false);
                }
                None
            }
            None => None,
        }
    }

    fn unfit_for_long(&mut self, task: TaskIndex) -> bool {
        let fit = self.is_fit(task);
        let since = &mut self.unfit_since[task.index()];
        if fit {
            *since = None;
            return false;
        }
        let since = *since.get_or_insert(self.now);
        self.now.since(since) >= self.timing().heartbeat
    }

    /// Small things that make later takeovers faster: forget whom to wait for, forget failures.
    fn tidy(&mut self, task: TaskIndex, record: TaskRecord) -> Option<Change> {
        let Local::Started { since, .. } = self.local[task.index()] else {
            return None;
        };
        let waits = record.after != After::Nobody;
        let failures = !record.failed_on.is_empty();
        let (next, what) = if waits && self.earlier_owner_is_out(task, &record) {
            let after = After::Nobody;
            (TaskRecord { after, ..record }, "the earlier owner is out")
        } else if failures && self.now.since(since) >= FORGET_FAILURES {
            let failed_on = NodeSet::EMPTY;
            (
                TaskRecord {
                    failed_on,
                    ..record
                },
                "earlier failures are forgotten",
            )
        } else {
            return None;
        };
        let mut view = self.next_view();
        view.tasks[task.index()] = next;
        let mut change = self.change(
            view,
            Class::Info,
            what,
            "a task that runs needs no memory of it",
        );
        change.record.task = Some(task);
        Some(change)
    }

    /// The record with nobody to wait for, if that wait is over.
    fn cleared(&self, task: TaskIndex, record: TaskRecord) -> TaskRecord {
        if self.earlier_owner_is_out(task, &record) {
            TaskRecord {
                after: After::Nobody,
                ..record
            }
        } else {
            record
        }
    }

    /// A task without an owner is placed by the lowest member that is there.
    fn place(&mut self, task: TaskIndex, record: TaskRecord) -> Option<Change> {
        let lowest = self
            .view
            .full_members()
            .iter()
            .find(|node| *node == self.me() || self.heard_lately(*node));
        if record.owner.is_some() || !record.wanted || lowest != Some(self.me()) {
            return None;
        }
        let Some(to) = self.candidate(&self.view, task, NodeSet::EMPTY) else {
            return self.second_chance(task, record);
        };
        let preferred = self.setup.tasks[task.index()].nodes.first() == Some(&to);
        let since = self.task_known_at[task.index()].max(self.member_since);
        let patience = self.timing().stable + self.timing().detect.times(2);
        if !preferred && self.now.since(since) < patience {
            return None;
        }
        let next = TaskRecord {
            owner: Some(to),
            heir: None,
            ..record
        };
        let mut change =
            self.task_step(task, next, Cause::Placed, "it is wanted and nobody owns it");
        change.record.rejected = self.rejected(&self.view, task, Some(to));
        Some(change)
    }

    /// It has failed wherever it could run and has no owner that would try again: once more, later.
    fn second_chance(&self, task: TaskIndex, record: TaskRecord) -> Option<Change> {
        let waited = self.now.since(self.task_known_at[task.index()]);
        if record.failed_on.is_empty() || waited < RETRY_MAX {
            return None;
        }
        let failed_on = NodeSet::EMPTY;
        let next = TaskRecord {
            failed_on,
            ..record
        };
        let why = "it failed everywhere a while ago and is tried again";
        Some(self.task_step(task, next, Cause::Placed, why))
    }

    pub(super) fn task_step(
        &self,
        task: TaskIndex,
        next: TaskRecord,
        cause: Cause,
        why: &str,
    ) -> Change {
        let mut view = self.next_view();
        let mut next = next;
        self.stamp(&mut next, cause);
        view.tasks[task.index()] = next;
        let what = format!("{}: {why}", self.task_name(task));
        let mut change = self.change(view, cause.class(), &what, cause.words());
        change.record.task = Some(task);
        change
    }
}
