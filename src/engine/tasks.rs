//! Each task on this node: what runs here, what should, and the next order to the runner.
//!
//! ```text
//! Unknown --Hello--> Stopped --start--> Starting --done--> Started --stop--> Stopping --> Stopped
//!                       ^                  |failed            |lost                  '--> Released
//!                       '---- later -------+------ Failed <---+
//! ```
//! `Released` is `Stopped` with a promise: not to be started again in that epoch. The heir acts on
//! it.

use serde::{Deserialize, Serialize};

use super::{Action, After, Class, Engine, Failure, Found, Order, Report, TaskRecord};
use crate::config::RETRY_MAX;
use crate::model::{NodeId, TaskIndex, TaskState};
use crate::time::{Instant, Span};

/// First such pause.
const RETRY_MIN: Span = Span::from_ms(2_000);

/// What a stop is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Then {
    Stopped,
    Released(u32),
    Failed(u32),
}

/// A task on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) enum Local {
    /// The runner has not looked yet.
    Unknown,
    #[default]
    Stopped,
    Starting {
        op: u64,
        epoch: u32,
    },
    Started {
        epoch: u32,
        since: Instant,
    },
    Stopping {
        op: u64,
        then: Then,
        forced: bool,
    },
    /// Some of it may run and should not.
    Dirty,
    /// It could not be kept running; nothing of it runs. Tried again after `retry`.
    Failed {
        epoch: u32,
        retry: Instant,
    },
    /// Stopping failed; tried again after `retry`.
    Stuck {
        then: Then,
        retry: Instant,
    },
    Released {
        epoch: u32,
    },
}

impl Local {
    pub(super) fn state(self) -> TaskState {
        match self {
            Local::Unknown => TaskState::Unknown,
            Local::Stopped => TaskState::Stopped,
            Local::Starting { .. } => TaskState::Starting,
            Local::Started { .. } => TaskState::Started,
            Local::Stopping { .. } => TaskState::Stopping,
            Local::Dirty | Local::Stuck { .. } => TaskState::StopFailed,
            Local::Failed { .. } => TaskState::Failed,
            Local::Released { .. } => TaskState::Released,
        }
    }
}

impl Engine {
    pub(super) fn on_report(&mut self, report: Report) {
        match report {
            Report::Hello { found } => self.on_hello(&found),
            Report::Gone => {
                self.runner_there = false;
                for task in self.tasks() {
                    let local = &mut self.local[task.index()];
                    if matches!(local, Local::Starting { .. } | Local::Stopping { .. }) {
                        *local = Local::Unknown;
                    }
                }
            }
            Report::Done { op, task, failure } => self.on_done(op, task, failure),
            Report::Lost { task, failure } => self.on_lost(task, &failure),
            Report::Note { task, class, text } => match task {
                Some(task) if task.index() < self.setup.tasks.len() => {
                    self.task_note(class, task, "", text);
                }
                Some(_) | None => self.note(class, None, text),
            },
            Report::Fit { tasks } => {
                self.fit = tasks;
                self.urgent = true;
            }
        }
    }

    fn on_hello(&mut self, found: &[Found]) {
        self.runner_there = true;
        self.forget_power_orders();
        for task in self.tasks() {
            let seen = found.get(task.index()).copied().unwrap_or(Found::Partly);
            let before = self.local[task.index()];
            let now = match (seen, before) {
                (Found::Running, Local::Started { .. }) => before,
                (Found::Running, _) => Local::Started {
                    epoch: self.view.task(task).epoch,
                    since: self.now,
                },
                (Found::Partly, _) => Local::Dirty,
                (Found::Stopped, Local::Failed { .. } | Local::Released { .. }) => before,
                (Found::Stopped, _) => Local::Stopped,
            };
            self.local[task.index()] = now;
            if now.state().may_run() {
                let held = self.granted & bit(task) != 0;
                if !held && self.lease.valid(self.now) {
                    self.granted |= bit(task);
                }
            } else {
                self.granted &= !bit(task);
            }
            if before != Local::Unknown && now != before {
                let name = self.task_name(task).to_owned();
                self.task_note(
                    Class::Warning,
                    task,
                    "the runner was restarted",
                    format!("{name}: {seen:?}"),
                );
            }
        }
        self.urgent = true;
    }

    fn on_done(&mut self, op: u64, task: TaskIndex, failure: Option<Failure>) {
        if task.index() >= self.setup.tasks.len() {
            return;
        }
        let name = self.task_name(task).to_owned();
        let (local, class, text) = match (self.local[task.index()], failure) {
            (Local::Starting { op: mine, epoch }, None) if mine == op => (
                Local::Started {
                    epoch,
                    since: self.now,
                },
                Class::Notice,
                format!("{name} started"),
            ),
            (Local::Starting { op: mine, epoch }, Some(failure)) if mine == op => {
                let text = format!("{name} could not be started: {}", failure.words());
                if failure.stopped {
                    (self.failed(task, epoch), Class::Major, text)
                } else {
                    (self.stuck(task, Then::Failed(epoch)), Class::Critical, text)
                }
            }
            // What was stuck has had its pause before it was stopped; now others come first.
            (
                Local::Stopping {
                    op: mine,
                    then: Then::Failed(epoch),
                    forced: true,
                },
                None,
            ) if mine == op => (
                Local::Failed {
                    epoch,
                    retry: self.now + self.timing().detect,
                },
                Class::Notice,
                format!("{name} stopped"),
            ),
            (Local::Stopping { op: mine, then, .. }, None) if mine == op => (
                self.after_stop(task, then),
                Class::Notice,
                format!("{name} stopped"),
            ),
            (Local::Stopping { op: mine, then, .. }, Some(failure)) if mine == op => {
                let text = format!("{name} could not be stopped: {}", failure.words());
                (self.stuck(task, then), Class::Critical, text)
            }
            (_, _) => return,
        };
        if !local.state().may_run() {
            self.granted &= !bit(task);
        }
        self.local[task.index()] = local;
        self.urgent = true;
        self.task_note(class, task, "", text);
    }

    fn on_lost(&mut self, task: TaskIndex, failure: &Failure) {
        if task.index() >= self.setup.tasks.len() {
            return;
        }
        if let Local::Started { epoch, .. } = self.local[task.index()] {
            let text = format!("{}: {}", self.task_name(task), failure.words());
            self.task_note(Class::Major, task, "the task does not run any more", text);
            self.stop(task, Then::Failed(epoch), false);
        }
    }

    /// The guard has let go because the lease was over, or the core stood still.
    pub(super) fn on_revoked(&mut self, tasks: u64) {
        for task in self.tasks().filter(|task| tasks & bit(*task) != 0) {
            self.granted &= !bit(task);
            if matches!(
                self.local[task.index()],
                Local::Starting { .. } | Local::Started { .. }
            ) {
                let text = format!("{} released by the guard", self.task_name(task));
                self.task_note(Class::Major, task, "the lease was over", text);
                self.stop(task, Then::Stopped, true);
            }
        }
    }

    fn after_stop(&mut self, task: TaskIndex, then: Then) -> Local {
        match then {
            Then::Stopped => Local::Stopped,
            Then::Released(epoch) => Local::Released { epoch },
            Then::Failed(epoch) => self.failed(task, epoch),
        }
    }

    fn failed(&mut self, task: TaskIndex, epoch: u32) -> Local {
        let retry = self.retry(task);
        Local::Failed { epoch, retry }
    }

    fn stuck(&mut self, task: TaskIndex, then: Then) -> Local {
        let retry = self.retry(task);
        Local::Stuck { then, retry }
    }

    /// When to try again what has just failed: after a pause that doubles each time.
    fn retry(&mut self, task: TaskIndex) -> Instant {
        let pause = &mut self.retry_pause[task.index()];
        *pause = pause.times(2).clamp(RETRY_MIN, RETRY_MAX);
        self.now + *pause
    }

    fn op(&mut self) -> u64 {
        self.next_op = self.next_op.wrapping_add(2);
        self.next_op
    }

    pub(super) fn stop(&mut self, task: TaskIndex, then: Then, forced: bool) {
        let (op, epoch) = (self.op(), self.view.task(task).epoch);
        self.local[task.index()] = Local::Stopping { op, then, forced };
        self.urgent = true;
        self.act(Action::Order(Order::Stop {
            op,
            task,
            epoch,
            forced,
        }));
    }

    fn start(&mut self, task: TaskIndex) {
        let (op, epoch) = (self.op(), self.view.task(task).epoch);
        self.local[task.index()] = Local::Starting { op, epoch };
        self.granted |= bit(task);
        self.urgent = true;
        self.act(Action::Order(Order::Start { op, task, epoch }));
    }

    /// Takes the next step of every task.
    pub(super) fn step_tasks(&mut self) {
        if !self.runner_there {
            return;
        }
        for task in self.tasks() {
            self.step(task);
        }
    }

    fn step(&mut self, task: TaskIndex) {
        let record = self.view.task(task);
        match self.local[task.index()] {
            Local::Unknown => {}
            Local::Stopped | Local::Failed { .. } if self.gives_up(&record) => {
                // It does not run here; with an heir named it is not started here either.
                self.local[task.index()] = Local::Released {
                    epoch: record.epoch,
                };
                self.urgent = true;
            }
            Local::Stopped => {
                if self.may_start(task, &record) {
                    self.start(task);
                }
            }
            Local::Released { epoch } => {
                let again = record.owner == Some(self.me()) && record.epoch > epoch;
                if record.owner != Some(self.me()) || again {
                    self.local[task.index()] = Local::Stopped;
                    self.step(task);
                }
            }
            Local::Failed { epoch, retry } => {
                let given_anew = record.epoch != epoch;
                if (given_anew || self.now >= retry) && self.may_start(task, &record) {
                    self.start(task);
                }
            }
            Local::Starting { epoch, .. } => self.check_right(task, &record, epoch),
            Local::Started { epoch, since } => {
                if self.now.since(since) >= RETRY_MAX {
                    self.retry_pause[task.index()] = Span::ZERO;
                }
                self.check_right(task, &record, epoch);
                if let Local::Started { .. } = self.local[task.index()] {
                    self.local[task.index()] = Local::Started {
                        epoch: record.epoch,
                        since,
                    };
                }
            }
            Local::Stopping { forced, then, .. } => {
                if !forced && !self.lease.valid(self.now) {
                    self.stop(task, then, true);
                }
            }
            Local::Dirty => self.stop(task, Then::Stopped, true),
            Local::Stuck { then, retry } => {
                if self.now >= retry {
                    self.stop(task, then, true);
                }
            }
        }
    }

    /// Something of the task runs here: may it go on?
    fn check_right(&mut self, task: TaskIndex, record: &TaskRecord, epoch: u32) {
        let mine = record.owner == Some(self.me())
            || (record.heir == Some(self.me()) && record.epoch == epoch);
        if self.view.epoch == 0 && self.lease.valid(self.now) {
            return; // a resumed core that has not read the register yet
        }
        if !self.lease.valid(self.now) || !mine {
            self.stop(task, Then::Stopped, true);
        } else if record.owner == Some(self.me()) && self.must_end(record) {
            self.stop(task, Then::Stopped, false);
        } else if record.owner == Some(self.me()) && self.heir_is_ready(record) {
            self.stop(task, Then::Released(record.epoch), false);
        }
    }

    /// This node owns the task, and somebody else is to have it next.
    fn gives_up(&self, record: &TaskRecord) -> bool {
        record.owner == Some(self.me()) && record.heir.is_some_and(|heir| heir != self.me())
    }

    /// The owner is to stop the task without an heir.
    fn must_end(&self, record: &TaskRecord) -> bool {
        !record.wanted
    }

    /// The heir has said that it knows the view which names it.
    pub(super) fn heir_is_ready(&self, record: &TaskRecord) -> bool {
        let Some(heir) = record.heir.filter(|heir| *heir != self.me()) else {
            return false;
        };
        let peer = self.peers.of(heir);
        let listed = self.view.member(heir).map(|member| member.incarnation);
        self.heard_lately(heir) && peer.incarnation == listed && peer.epoch >= self.view.epoch
    }

    /// S2: owner (or heir of what was released) in the newest view, lease held, every earlier
    /// owner out.
    fn may_start(&self, task: TaskIndex, record: &TaskRecord) -> bool {
        let owns = record.owner == Some(self.me()) && record.heir.is_none_or(|h| h == self.me());
        let stays = !self.view.standby.contains(self.me());
        record.wanted
            && self.is_member()
            && self.lease.valid(self.now)
            && self.distrust.is_none()
            && !self.leaving
            && (stays || owns)
            && (owns || self.released_to_me(task, record))
            && self.earlier_owner_is_out(task, record)
    }

    fn released_to_me(&self, task: TaskIndex, record: &TaskRecord) -> bool {
        let Some(owner) = record.owner.filter(|_| record.heir == Some(self.me())) else {
            return false;
        };
        let peer = self.peers.of(owner);
        let listed = self.view.member(owner).map(|member| member.incarnation);
        self.heard_lately(owner)
            && peer.incarnation == listed
            && peer.epoch == self.view.epoch
            && peer.says(task, TaskState::Released, record.epoch)
    }

    /// Would this node start the task if the earlier owners were out?
    pub(super) fn waits_to_start(&self, task: TaskIndex) -> bool {
        let record = self.view.task(task);
        record.owner == Some(self.me())
            && record.after != After::Nobody
            && self.local[task.index()] == Local::Stopped
    }

    /// Nothing of the task runs any more on those who had it before.
    pub(super) fn earlier_owner_is_out(&self, task: TaskIndex, record: &TaskRecord) -> bool {
        match record.after {
            After::Nobody => true,
            After::Node(node) => self.is_out(task, node),
            After::Anybody => {
                let mut nodes = self.setup.nodes.iter();
                nodes.all(|(node, _)| self.is_out(task, *node))
            }
        }
    }

    /// A listed node may hold a lease, so only its own word counts. One that is not listed was put
    /// out by the view that gave the task its epoch or by an earlier one, so time counts too.
    pub(super) fn is_out(&self, task: TaskIndex, node: NodeId) -> bool {
        if node == self.me() {
            return !self.local[task.index()].state().may_run();
        }
        let peer = self.peers.of(node);
        let says_so = self.heard_lately(node) && !peer.tasks[task.index()].state.may_run();
        match self.view.member(node) {
            Some(listed) => {
                says_so
                    && peer.incarnation == Some(listed.incarnation)
                    && peer.epoch == self.view.epoch
            }
            None => {
                let known = self.task_known_at[task.index()];
                let over = self.now.since(known) >= self.timing().out_after();
                (over && !self.must_be_off(task, node))
                    || (says_so && peer.epoch >= self.view.epoch)
                    || self.proved_off(node)
            }
        }
    }

    pub(super) fn report_of(&self, task: TaskIndex) -> (TaskState, u32) {
        let local = self.local[task.index()];
        match local {
            Local::Released { epoch } => (TaskState::Released, epoch),
            _ => (local.state(), self.view.task(task).epoch),
        }
    }
}

fn bit(task: TaskIndex) -> u64 {
    1 << task.index()
}

impl Failure {
    /// For people.
    #[must_use]
    pub fn words(&self) -> String {
        if self.object.is_empty() {
            return self.reason.clone();
        }
        format!("{}: {}", self.object, self.reason)
    }
}
