//! The runner: starts and stops what the core orders, slowly, with failures, and adopts what runs.

use standfast::engine::{Event, Failure, Found, Order, Report};
use standfast::model::TaskIndex;

use crate::node::Work;
use crate::world::{Ev, World};

fn index(task: usize) -> TaskIndex {
    TaskIndex::new(task).expect("few tasks")
}

/// A slow start or stop takes up to this many detect times.
pub(crate) const SLOW_DETECTS: u64 = 20;

fn failure(stopped: bool) -> Failure {
    Failure {
        object: "object".into(),
        reason: "simulated".into(),
        stopped,
    }
}

impl World {
    pub(crate) fn report(&mut self, i: usize, report: Report) {
        let soon = self.now + self.rng.below(self.plan.jitter) + 1;
        let node = &mut self.nodes[i];
        node.report_at = node.report_at.max(soon);
        let (core, delay) = (node.core_life, node.report_at - self.now);
        let event = Box::new(Event::Report(report));
        self.after(delay, i, Ev::Tell { core, event });
    }

    pub(crate) fn runner_starts(&mut self, i: usize, power: u64, runner: u64) {
        if self.runner_waits(i, Ev::RunnerStart { power, runner }) {
            return;
        }
        let node = &mut self.nodes[i];
        if node.power_life == power && node.runner_life == runner && node.on {
            node.runner_up = true;
            let core = node.core_life;
            self.hello(i, runner, core);
        }
    }

    /// The runner is connected to a core and says what it finds, after all that an earlier core has
    /// ordered; earlier work is lost.
    pub(crate) fn hello(&mut self, i: usize, runner: u64, core: u64) {
        if self.runner_waits(i, Ev::Hello { runner, core }) {
            return;
        }
        let node = &mut self.nodes[i];
        if node.runner_life != runner || node.core_life != core || !node.runner_up {
            return;
        }
        let mut found = Vec::new();
        for held in &mut node.held {
            if held.work.take().is_some() {
                (held.whole, held.trouble) = (false, true);
            }
            found.push(match (held.running, held.whole) {
                (false, _) => Found::Stopped,
                (true, true) => Found::Running,
                (true, false) => Found::Partly,
            });
        }
        if found.contains(&Found::Running) {
            self.checks.count("adopted");
        }
        self.say(i, || format!("the runner finds {found:?}"));
        self.report(i, Report::Hello { found });
        let tasks = self.nodes[i].fit;
        self.report(i, Report::Fit { tasks });
    }

    pub(crate) fn runner_gone(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        node.runner_up = false;
        node.runner_life += 1;
        node.runner_mail.clear();
        for held in &mut node.held {
            if held.work.take().is_some() {
                (held.whole, held.trouble) = (false, true);
            }
        }
    }

    /// Does the runner stand still? Then this comes to it when it goes on, behind what came before.
    fn runner_waits(&mut self, i: usize, ev: Ev) -> bool {
        let node = &mut self.nodes[i];
        let until = node.runner_paused_until;
        if self.now >= until && node.runner_mail.is_empty() {
            return false;
        }
        node.runner_mail.push_back(ev);
        if node.runner_mail.len() == 1 {
            self.after(until.saturating_sub(self.now), i, Ev::RunnerResumes);
        }
        true
    }

    /// It may have been made to stand still for longer, or once more.
    pub(crate) fn runner_resumes(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        let until = node.runner_paused_until;
        if self.now >= until {
            for ev in std::mem::take(&mut node.runner_mail) {
                self.happen(i, ev);
            }
        } else if !node.runner_mail.is_empty() {
            self.after(until - self.now, i, Ev::RunnerResumes);
        }
    }

    pub(crate) fn runner_dies(&mut self, i: usize, delay: u64) {
        if !self.nodes[i].runner_up {
            return;
        }
        self.say(i, || "the runner dies".into());
        self.runner_gone(i);
        self.report(i, Report::Gone);
        self.nodes[i].runner_paused_until = 0;
        let (power, runner) = (self.nodes[i].power_life, self.nodes[i].runner_life);
        self.after(delay, i, Ev::RunnerStart { power, runner });
    }

    pub(crate) fn take_order(&mut self, i: usize, runner: u64, order: Order) {
        if self.nodes[i].runner_life != runner || !self.nodes[i].runner_up {
            return;
        }
        if self.runner_waits(
            i,
            Ev::Order {
                runner,
                order: order.clone(),
            },
        ) {
            return;
        }
        self.say(i, || format!("order {order:?}"));
        let (op, task, start, epoch) = match order {
            Order::Start { op, task, epoch } => (op, task.index(), true, epoch),
            Order::Stop {
                op, task, epoch, ..
            } => (op, task.index(), false, epoch),
        };
        if start && !self.nodes[i].page_allows(self.now, task) {
            self.nodes[i].held[task].trouble = true;
            let failure = Some(failure(!self.nodes[i].held[task].running));
            let task = index(task);
            self.report(i, Report::Done { op, task, failure });
            return;
        }
        let bad = !self.calm;
        let held = &self.nodes[i].held[task];
        let flawed = if start {
            held.starts_fail
        } else {
            held.stops_fail
        };
        let slow = held.slow;
        let (rate, stopped) = if start {
            (self.plan.start_fails, self.rng.chance(800))
        } else {
            (self.plan.stop_fails, false)
        };
        let fails = (flawed || bad && self.rng.chance(rate)).then_some(stopped);
        let slow = slow || bad && self.rng.chance(self.plan.slow_runner);
        let d = self.plan.timing.detect.0;
        let longest = if slow { d * SLOW_DETECTS } else { d / 4 };
        let takes = self.rng.skewed(longest);
        self.nodes[i].held[task].work = Some(Work {
            op,
            until: self.now + takes,
            start,
            fails,
        });
        if start {
            self.started(i, task);
            self.nodes[i].held[task].running = true;
            self.writes_begin(i, task, epoch);
        }
        self.after(takes, i, Ev::WorkEnds { runner, task, op });
    }

    pub(crate) fn work_ends(&mut self, i: usize, runner: u64, task: usize, op: u64) {
        if self.nodes[i].runner_life != runner {
            return;
        }
        if self.runner_waits(i, Ev::WorkEnds { runner, task, op }) {
            return;
        }
        let held = &mut self.nodes[i].held[task];
        let Some(work) = held.work.filter(|work| work.op == op) else {
            return;
        };
        held.work = None;
        let failure = match (work.start, work.fails) {
            (true, None) if held.running => {
                held.whole = true;
                None
            }
            (true, None | Some(true)) => {
                (held.running, held.whole) = (false, false);
                Some(failure(true))
            }
            (true, Some(false)) => {
                held.whole = false;
                Some(failure(!held.running))
            }
            (false, Some(_)) if held.running => {
                held.whole = false;
                Some(failure(false))
            }
            (false, _) => {
                (held.running, held.whole) = (false, false);
                None
            }
        };
        held.trouble |= failure.is_some();
        let kind = if work.start { "start" } else { "stop" };
        self.say(i, || format!("{kind} of t{task} ended, {failure:?}"));
        let task = index(task);
        self.report(i, Report::Done { op, task, failure });
    }

    /// Everything of the task ends, by the guard or by itself; the runner sees it.
    pub(crate) fn task_dies(&mut self, i: usize, task: usize) {
        let held = &mut self.nodes[i].held[task];
        let whole = held.whole;
        (held.running, held.whole, held.trouble) = (false, false, true);
        if whole && held.work.is_none() && self.nodes[i].runner_up {
            let failure = failure(true);
            let task = index(task);
            self.report(i, Report::Lost { task, failure });
        }
    }
}
