//! The life of a node: power, daemon, core, guard; how each of them ends and begins again.

use standfast::engine::{Engine, Event, Setup, TaskSetup};
use standfast::model::NodeSet;
use standfast::node::guard::rule::{PageReading, Rule};
use standfast::register::Memory;

use crate::checks::Violation;
use crate::checks::s6::Place;
use crate::clock::Clock;
use crate::disk::DiskThread;
use crate::node::{In, Node, Page};
use crate::world::{Ev, World};

impl World {
    // ---- power ----

    pub(crate) fn power_cut(&mut self, i: usize) {
        self.say(i, || "has no power".into());
        let now = self.now;
        let node = &mut self.nodes[i];
        node.on = false;
        node.power_life += 1;
        node.guard_life += 1;
        node.runner_life += 1;
        node.runner_up = false;
        node.runner_mail.clear();
        node.guard = None;
        for held in &mut node.held {
            held.ends();
        }
        node.page = Page::default();
        node.revoked = 0;
        node.core_paused_until = now;
        node.guard_paused_until = 0;
        node.below_guard_until = 0;
        node.runner_paused_until = 0;
        node.frozen_since = None;
        for disk in &mut node.disks {
            disk.hung_until = 0;
        }
        self.core_gone(i);
        self.writes_tear(i);
    }

    pub(crate) fn power_on(&mut self, i: usize) {
        if self.nodes[i].on {
            return;
        }
        let clock = Clock::new(&mut self.rng, self.now).shifted(self.plan.clock_shift);
        let boot = (u128::from(self.rng.next()) << 64 | u128::from(self.rng.next())).to_be_bytes();
        self.life_is_over(i);
        let node = &mut self.nodes[i];
        node.on = true;
        node.power_life += 1;
        node.clock = clock;
        node.incarnation.boot = boot;
        node.incarnation.start = 0;
        node.unfit_lately = !node.fit;
        self.say(i, || "has power".into());
        self.start_daemon(i, false);
    }

    /// Another life of the node follows the one that it has led.
    fn life_is_over(&mut self, i: usize) {
        let life = self.nodes[i].incarnation;
        self.lives_over.insert((life.boot, life.start), self.now);
    }

    // ---- the daemon: guard, core and runner together ----

    pub(crate) fn daemon_dies(&mut self, i: usize) {
        self.say(i, || "the daemon dies".into());
        if self.nodes[i].guard_paused(self.now) {
            // Nobody has petted the watchdog for a while already.
            self.power_cut(i);
            let delay = self.rng.skewed(self.plan.timing.detect.0 * 10);
            self.after(delay, i, Ev::PowerOn);
            return;
        }
        let node = &mut self.nodes[i];
        node.guard = None;
        node.guard_life += 1;
        let guard = node.guard_life;
        node.core_paused_until = self.now;
        node.guard_paused_until = 0;
        node.runner_paused_until = 0;
        self.runner_gone(i);
        self.core_gone(i);
        // Nobody pets the watchdog any more. Its timeout is such that it fires before the lease and
        // the release time are over.
        let node = &self.nodes[i];
        let end = node.clock.when(node.page.lease_deadline).max(self.now);
        let power = node.power_life;
        let delay = end - self.now + self.plan.timing.release.0 * 3 / 4;
        self.after(delay, i, Ev::Watchdog { power, guard });
    }

    pub(crate) fn watchdog(&mut self, i: usize, power: u64, guard: u64) {
        let node = &self.nodes[i];
        let due = node.on && node.power_life == power && node.guard_life == guard;
        if due && node.holding() != 0 {
            self.say(i, || "reset by its watchdog".into());
            self.power_cut(i);
            let delay = self.rng.skewed(self.plan.timing.detect.0 * 10);
            self.after(delay, i, Ev::PowerOn);
        }
    }

    pub(crate) fn daemon_starts(&mut self, i: usize, power: u64, core: u64) {
        let node = &self.nodes[i];
        if !node.on || node.power_life != power || node.core_life != core || node.engine.is_some() {
            return;
        }
        if node.writes() {
            let delay = self.plan.timing.heartbeat.0 / 10;
            self.after(delay, i, Ev::DaemonStarts { power, core });
            return;
        }
        let page_kept = self.rng.chance(700);
        self.start_daemon(i, page_kept);
    }

    pub(crate) fn start_daemon(&mut self, i: usize, page_kept: bool) {
        self.life_is_over(i);
        let now = self.now;
        let node = &mut self.nodes[i];
        node.incarnation.start += 1;
        if std::mem::take(&mut node.was_told_to_leave) {
            node.leaving.1 = now;
        }
        node.runs_drifted = node.drifted;
        node.guard_life += 1;
        let local = node.clock.at(now);
        node.guard = Some(Rule::new(self.plan.timing, local));
        if !page_kept {
            node.page = Page::default();
        }
        node.knew = 0;
        node.revoked = 0;
        node.page.sequence = 0;
        self.say(i, || format!("the daemon starts, page kept: {page_kept}"));
        let guard = self.nodes[i].guard_life;
        self.after(0, i, Ev::GuardTurn { guard });
        self.start_core(i);
        let (power, runner) = (self.nodes[i].power_life, self.nodes[i].runner_life);
        let delay = self.rng.below(self.plan.timing.heartbeat.0) + 1;
        self.after(delay, i, Ev::RunnerStart { power, runner });
    }

    // ---- the core ----

    /// The core is gone, with its threads.
    pub(crate) fn core_gone(&mut self, i: usize) {
        // A runner forgets what a core has asked of it when the connection is gone.
        self.agents.retain(|(node, _), _| *node != i);
        self.lose_record(i);
        let now = self.now;
        let node = &mut self.nodes[i];
        node.engine = None;
        node.core_life += 1;
        node.unkept = None;
        node.inbox.clear();
        node.wake_at = u64::MAX;
        node.epoch = 0;
        node.disks.iter_mut().for_each(DiskThread::core_gone);
        self.troubles.set(Place::Node { node: i }, true, now);
    }

    /// The core dies and the guard starts another.
    pub(crate) fn core_dies(&mut self, i: usize, delay: u64) {
        if !self.nodes[i].on || self.nodes[i].engine.is_none() {
            return;
        }
        self.say(i, || "the core dies".into());
        self.core_gone(i);
        self.nodes[i].core_paused_until = self.now;
        let (power, core) = (self.nodes[i].power_life, self.nodes[i].core_life);
        self.after(delay, i, Ev::CoreStarts { power, core });
    }

    pub(crate) fn core_starts(&mut self, i: usize, power: u64, core: u64) {
        let node = &self.nodes[i];
        if node.power_life != power || node.core_life != core || node.engine.is_some() {
            return;
        }
        if node.writes() || node.guard_paused(self.now) {
            let delay = self.plan.timing.heartbeat.0 / 10;
            self.after(delay, i, Ev::CoreStarts { power, core });
            return;
        }
        self.start_core(i);
        let runner = self.nodes[i].runner_life;
        if self.nodes[i].runner_up {
            let delay = self.rng.below(self.plan.timing.heartbeat.0) + 1;
            let core = self.nodes[i].core_life;
            self.after(delay, i, Ev::Hello { runner, core });
        }
    }

    fn start_core(&mut self, i: usize) {
        let now = self.now;
        let setup = self.setup(i);
        let node = &mut self.nodes[i];
        node.core_life += 1;
        node.unkept = None;
        node.core_began = now;
        node.epoch = 0;
        node.wake_at = u64::MAX;
        self.troubles.set(Place::Node { node: i }, false, now);
        let heard = now + self.plan.timing.heartbeat.0;
        self.troubles.note(Place::Node { node: i }, now, heard);
        let node = &mut self.nodes[i];
        let local = node.clock.at(now);
        let granted = setup.resumed.map_or(0, |resumed| resumed.granted);
        node.engine = Some(Engine::new(setup, local));
        if let Some(rule) = &mut node.guard {
            rule.core_restarted(local);
        }
        let core = node.core_life;
        self.say(i, || format!("the core starts, granted {granted:b}"));
        for link in 0..self.plan.networks {
            let up = self.nodes[i].link_up[link];
            let (link, reason) = (link as u8, "start".to_owned());
            self.deliver(i, In::Other(Event::LinkState { link, up, reason }));
            self.after(1, i, Ev::Drain { core, link });
        }
        self.deliver(i, In::Tick);
        if self.plan.files.late {
            let delay = self.rng.skewed(self.plan.timing.heartbeat.0);
            self.after(delay, i, Ev::FileSpeaks { core });
        }
    }

    fn setup(&mut self, i: usize) -> Setup {
        let seed = self.rng.next();
        let tasks = self.task_nodes.iter().enumerate();
        let node = &self.nodes[i];
        let required = self.plan.fences.map_or(0, |fences| fences.required);
        let fences: NodeSet = match self.plan.fences {
            Some(_) => self.nodes[..self.plan.nodes].iter().map(|n| n.id).collect(),
            None => NodeSet::EMPTY,
        };
        Setup {
            me: node.id,
            incarnation: node.incarnation,
            cluster: [7; 16],
            nodes: self.nodes[..self.plan.nodes]
                .iter()
                .map(|node| (node.id, self.plan.names.id(node.id).to_owned()))
                .collect(),
            tasks: tasks
                .map(|(task, nodes)| TaskSetup {
                    name: self.plan.names.tasks[task].clone(),
                    nodes: nodes.clone(),
                    enabled: true,
                    fence_required: required & (1 << task) != 0,
                })
                .collect(),
            timing: self.plan.timing,
            config_hash: [1 + u8::from(node.runs_drifted); 8],
            config_revision: 1 + u32::from(node.runs_drifted),
            links: (self.plan.networks + self.plan.disks) as u8,
            seed,
            first_sequence: node.page.sequence + 1_000 * u64::from(node.page.sequence > 0),
            resumed: Some(node.resumed()),
            watchdog: true,
            memory: if self.plan.files.late {
                Memory::Pending
            } else {
                node.memory()
            },
            networks: (1 << self.plan.networks) - 1,
            fences: fences.without(node.id),
            disks: self.plan.disks as u8,
        }
    }

    /// The core is stopped (SIGSTOP, a locked-up thread); the guard goes on.
    pub(crate) fn pause_core(&mut self, i: usize, span: u64) {
        self.say(i, || {
            format!("the core stands still for {} ms", span / 1_000_000)
        });
        let until = self.now + span;
        let node = &mut self.nodes[i];
        node.core_paused_until = node.core_paused_until.max(until);
        self.troubles.note(Place::Node { node: i }, self.now, until);
        self.after(span, i, Ev::CoreResumes);
    }

    /// The guard alone stands still: nobody looks after the end of the lease meanwhile but the
    /// core, and the layers below.
    pub(crate) fn pause_guard(&mut self, i: usize, span: u64) {
        let until = self.now + span;
        let release = self.plan.timing.release.0;
        let node = &mut self.nodes[i];
        node.guard_paused_until = node.guard_paused_until.max(until);
        node.below_guard_until = node.below_guard_until.max(until + release);
        self.after(span, i, Ev::GuardResumes);
    }

    /// The runner alone stands still, with all it does.
    pub(crate) fn pause_runner(&mut self, i: usize, span: u64) {
        let until = self.now + span;
        let node = &mut self.nodes[i];
        node.machine_still &= self.now < node.runner_paused_until;
        if node.runner_paused_until <= self.now {
            node.runner_paused_from = self.now;
        }
        node.runner_paused_until = node.runner_paused_until.max(until);
    }

    /// Everything on the node stands still, the guard too.
    pub(crate) fn pause_node(&mut self, i: usize, span: u64) {
        self.pause_core(i, span);
        self.pause_guard(i, span);
        self.pause_runner(i, span);
        self.nodes[i].machine_still = true;
    }

    /// The machine is virtual and is paused: its clock stands still with it. Until a frame or a
    /// read tells it the truth, its own lease deceives it, for one lease at most.
    pub(crate) fn freeze(&mut self, i: usize, span: u64) {
        if !self.nodes[i].on || self.nodes[i].frozen_since.is_some() {
            return;
        }
        self.nodes[i].frozen_since = Some(self.now);
        let power = self.nodes[i].power_life;
        self.after(span, i, Ev::Thaws { power });
        self.pause_node(i, span);
        let lease = self.plan.timing.lease.on_worst_clock().0;
        self.nodes[i].below_guard_until += lease;
    }

    pub(crate) fn thaws(&mut self, i: usize, power: u64) {
        let now = self.now;
        let node = &mut self.nodes[i];
        if node.power_life == power
            && let Some(since) = node.frozen_since.take()
        {
            node.clock.stood_still(now - since);
            self.troubles.stood_still(i, since, now);
            // Nor has it moved towards the next frame.
            let beats = now + self.plan.timing.heartbeat.0;
            self.troubles.note(Place::Node { node: i }, now, beats);
        }
    }

    /// Another machine with the same id and the same secret is switched on.
    pub(crate) fn twin(&mut self, of: usize) {
        let links = self.plan.networks + 1;
        let clock = Clock::new(&mut self.rng, self.now);
        let mut twin = Node::new(of, self.plan.tasks, links, clock);
        twin.slot = of;
        self.nodes.push(twin);
        self.power_on(self.nodes.len() - 1);
    }

    pub(crate) fn core_resumes(&mut self, i: usize) {
        if self.nodes[i].core_paused(self.now) || self.nodes[i].engine.is_none() {
            return;
        }
        self.say(i, || "the core runs again".into());
        // Whatever thread gets the processor first.
        let mut waiting: Vec<In> = self.nodes[i].inbox.drain(..).collect();
        match self.rng.below(3) {
            0 => self.take_in(i, In::Tick),
            1 => {
                // Each source keeps its order, but they come one after the other.
                let mix = self.rng.next();
                let turn = |item: &In| (mix >> (item.source() * 8)) & 0xff;
                waiting.sort_by_key(turn);
            }
            _ => {}
        }
        self.disks_wake(i);
        let life = self.nodes[i].core_life;
        for item in waiting {
            if self.nodes[i].core_life == life {
                self.take_in(i, item);
            }
        }
        self.deliver(i, In::Tick);
    }

    pub(crate) fn left(&mut self, i: usize) {
        self.say(i, || "has left".into());
        if self.nodes[i].holding() != 0 {
            self.fail("S2: a node left while something runs on it");
        }
        self.nodes[i].guard = None;
        self.nodes[i].guard_life += 1;
        self.runner_gone(i);
        self.core_gone(i);
        self.nodes[i].page = Page::default();
        let delay = self.rng.skewed(self.plan.timing.detect.0 * 10);
        let (power, core) = (self.nodes[i].power_life, self.nodes[i].core_life);
        self.after(delay, i, Ev::DaemonStarts { power, core });
    }

    // ---- the guard ----

    pub(crate) fn guard_turn(&mut self, i: usize, guard: u64) {
        if self.nodes[i].guard_life != guard || self.nodes[i].guard_paused(self.now) {
            return;
        }
        let node = &mut self.nodes[i];
        let local = node.clock.at(self.now);
        let reading = PageReading {
            lease_deadline: node.page.lease_deadline,
            granted: node.page.granted,
            core_turns: node.page.turns,
            holding: node.holding(),
        };
        let Some(rule) = &mut node.guard else { return };
        let decision = rule.turn(local, &reading);
        let next = node.clock.when(decision.next).max(self.now);
        let power = node.power_life;
        // A guard that stood still could not; that is the business of the layers below it.
        if decision.overdue && !self.nodes[i].below_the_guard(self.now) {
            let what = "the guard itself says that it is overdue".to_owned();
            self.violated(Violation::new("S5", what, vec![i]));
        }
        if let Some(tasks) = decision.release {
            let longest = self.plan.timing.release.0 / 2;
            let delay = self.rng.skewed(longest);
            self.after(delay, i, Ev::GuardHasReleased { power, tasks });
        }
        if let Some(tasks) = decision.revoked {
            self.say(i, || format!("the guard revokes {tasks:b}"));
            self.lost_right(i, tasks);
            self.nodes[i].revoked |= tasks;
            let core = self.nodes[i].core_life;
            let delay = self.rng.below(self.plan.jitter) + 1;
            let event = Box::new(Event::Revoked { tasks });
            self.after(delay, i, Ev::Tell { core, event });
        }
        if decision.lease_until.is_some() && decision.release.is_none() {
            self.nodes[i].revoked = 0;
        }
        if decision.restart_core {
            self.say(i, || "the guard restarts the core".into());
            let delay = self.rng.skewed(self.plan.timing.detect.0);
            self.core_dies(i, delay);
        }
        let late = self.rng.below(self.plan.timing.heartbeat.0 / 16);
        self.after(next - self.now + late, i, Ev::GuardTurn { guard });
    }

    /// The core gives the guard a turn out of its order.
    pub(crate) fn ring_guard(&mut self, i: usize) {
        if self.nodes[i].guard.is_some() {
            self.nodes[i].guard_life += 1;
            let guard = self.nodes[i].guard_life;
            let delay = self.rng.below(self.plan.jitter) + 1;
            self.after(delay, i, Ev::GuardTurn { guard });
        }
    }

    pub(crate) fn guard_has_released(&mut self, i: usize, power: u64, tasks: u64) {
        if self.nodes[i].power_life != power {
            return;
        }
        for task in (0..self.plan.tasks).filter(|task| tasks & (1 << task) != 0) {
            if self.nodes[i].held[task].running {
                self.checks.count("released by the guard");
                self.tell(Some(i), |names| {
                    format!("the guard has released {}", names.tasks[task])
                });
                self.task_dies(i, task);
            }
        }
    }

    pub(crate) fn guard_resumes(&mut self, i: usize) {
        if !self.nodes[i].guard_paused(self.now) && self.nodes[i].guard.is_some() {
            self.nodes[i].guard_life += 1;
            let guard = self.nodes[i].guard_life;
            self.guard_turn(i, guard);
        }
    }
}
