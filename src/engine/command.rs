//! Commands of the operator: checked against the newest view, carried out as changes of it.

use serde::{Deserialize, Serialize};

use super::changes::Change;
use super::{Action, Cause, Class, Command, Engine, Refusal, TaskRecord};
use crate::model::{NodeId, NodeSet, TaskIndex};
use crate::time::Instant;

/// Commands that may wait; more are refused.
const COMMANDS_MAX: usize = 32;

/// A command that has not been answered yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Waiting {
    request: u64,
    command: Command,
    deadline: Instant,
}

impl Engine {
    pub(super) fn on_command(&mut self, request: u64, command: Command) {
        if let Command::ConfirmOff { node } = command {
            self.confirmed_off.insert(node);
            self.vouched_off(node);
            let name = self.name(node).to_owned();
            self.note(
                Class::Notice,
                Some(node),
                format!("an operator vouches that {name} is off"),
            );
            self.answer(request, Ok(format!("{name} is taken to be off")));
            return;
        }
        if !self.is_member() {
            let why = self
                .waiting_for
                .clone()
                .unwrap_or_else(|| "it has just started".into());
            self.refuse(
                request,
                &format!("this node is not a member of the cluster; it waits for {why}"),
                "give the command on a node that is a member",
            );
            return;
        }
        if self.commands.len() >= COMMANDS_MAX {
            self.refuse(
                request,
                "too many commands are waiting",
                "wait for them to be answered",
            );
            return;
        }
        let deadline = self.now + self.timing().detect.times(20);
        self.commands.push_back(Waiting {
            request,
            command,
            deadline,
        });
    }

    pub(super) fn expire_commands(&mut self) {
        while let Some(first) = self
            .commands
            .front()
            .filter(|first| self.now >= first.deadline || self.register.halted().is_some())
        {
            let request = first.request;
            self.commands.pop_front();
            let reason = match self.owner_without_register() {
                Some(node) => format!(
                    "{} cannot read the register now; a change would cost it its tasks",
                    self.name(node)
                ),
                None => self
                    .why_no_change()
                    .unwrap_or_else(|| "the register could not be changed in time".to_owned()),
            };
            let remedy = "see `standfast status` for the disk link; then try again";
            self.refuse(request, &reason, remedy);
        }
    }

    pub(super) fn answer(&mut self, request: u64, outcome: Result<String, Refusal>) {
        self.commands.retain(|waiting| waiting.request != request);
        self.act(Action::Reply { request, outcome });
    }

    fn refuse(&mut self, request: u64, reason: &str, remedy: &str) {
        let refusal = Refusal {
            reason: reason.into(),
            remedy: remedy.into(),
        };
        self.answer(request, Err(refusal));
    }

    /// The change that the first waiting command asks for. Commands that ask for nothing new, or
    /// for what cannot be, are answered on the way.
    pub(super) fn commanded(&mut self) -> Option<Change> {
        while let Some(waiting) = self.commands.front().cloned() {
            match self.carry_out(&waiting.command) {
                Ok(Some(mut change)) => {
                    change.request = Some(waiting.request);
                    return Some(change);
                }
                Ok(None) => self.answer(waiting.request, Ok("nothing to change".into())),
                Err((reason, remedy)) => self.refuse(waiting.request, &reason, &remedy),
            }
        }
        None
    }

    fn carry_out(&self, command: &Command) -> Result<Option<Change>, (String, String)> {
        match *command {
            Command::Move { task, to } => self.move_task(self.known(task)?, to),
            Command::Start { task } => {
                let task = self.known(task)?;
                let record = self.view.task(task);
                let next = TaskRecord {
                    wanted: true,
                    failed_on: NodeSet::EMPTY,
                    ..record
                };
                Ok((next != record)
                    .then(|| self.task_step(task, next, Cause::Operator, "start was asked for")))
            }
            Command::Stop { task } => {
                let task = self.known(task)?;
                let record = self.view.task(task);
                let next = TaskRecord {
                    wanted: false,
                    ..record
                };
                Ok((next != record)
                    .then(|| self.task_step(task, next, Cause::Operator, "stop was asked for")))
            }
            Command::Standby { node } => self.set_standby(node, true),
            Command::Online { node } => self.set_standby(node, false),
            Command::ConfirmOff { .. } => Ok(None),
        }
    }

    fn known(&self, task: TaskIndex) -> Result<TaskIndex, (String, String)> {
        if task.index() < self.setup.tasks.len() {
            return Ok(task);
        }
        let reason = format!("there is no task number {}", task.index());
        Err((reason, "`standfast status` lists the tasks".into()))
    }

    fn move_task(&self, task: TaskIndex, to: NodeId) -> Result<Option<Change>, (String, String)> {
        let record = self.view.task(task);
        let name = self.task_name(task);
        if !record.wanted {
            let remedy = format!("`standfast start {name}` first");
            return Err((format!("{name} is stopped on purpose"), remedy));
        }
        let there = record.owner == Some(to) && record.heir.is_none();
        if there || record.heir == Some(to) {
            return Ok(None);
        }
        // A person who moves a task to where it failed lately knows why.
        let mut view = self.view.clone();
        if let Some(known) = view.tasks.get_mut(task.index()) {
            known.failed_on.remove(to);
        }
        if let Some(reason) = self.refuses(&view, task, to) {
            return Err((
                reason,
                "`standfast status` shows the nodes and their state".into(),
            ));
        }
        let failed_on = record.failed_on.without(to);
        let next = match record.owner {
            None => TaskRecord {
                owner: Some(to),
                heir: None,
                failed_on,
                ..record
            },
            Some(owner) if owner == to => TaskRecord {
                failed_on,
                ..record.without_heir()
            },
            Some(_) => TaskRecord {
                heir: Some(to),
                failed_on,
                ..record.without_heir()
            },
        };
        Ok(Some(self.task_step(
            task,
            next,
            Cause::Operator,
            "move was asked for",
        )))
    }

    fn set_standby(&self, node: NodeId, on: bool) -> Result<Option<Change>, (String, String)> {
        if !self.configured(node) {
            let reason = format!("there is no node {node}");
            return Err((reason, "`standfast status` lists the nodes".into()));
        }
        if self.view.standby.contains(node) == on {
            return Ok(None);
        }
        let mut view = self.next_view();
        if on {
            view.standby.insert(node);
        } else {
            view.standby.remove(node);
            for record in &mut view.tasks {
                record.failed_on.remove(node);
            }
        }
        let state = if on { "in standby" } else { "online" };
        let what = format!("{} is set {state}", self.name(node));
        let mut change = self.change(view, Class::Notice, &what, Cause::Operator.words());
        change.record.node = Some(node);
        change.record.outcome = what;
        Ok(Some(change))
    }
}
