//! What each strike does to the world, and how it ends.

use standfast::engine::{Command, Event, Report};
use standfast::model::TaskIndex;

use crate::checks::s6::Place;
use crate::node::In;
use crate::strike::{Cable, Device, Flaw, Ill, Part, Strike, disk_word};
use crate::world::{Ev, Heal, World};

impl World {
    /// The next planned strike is due.
    pub(crate) fn planned(&mut self, index: usize) {
        if let Some((_, strike)) = self.plan.strikes.get(index).cloned() {
            self.checks.count(strike.name());
            self.strike(strike);
            self.judge_status();
        }
    }

    /// A write that a strike has waited for is under way.
    pub(crate) fn strikes_in_a_write(&mut self, strike: Strike) {
        if !self.calm {
            self.checks.count("struck in a write");
            self.strike(strike);
        }
    }

    pub(crate) fn strike(&mut self, strike: Strike) {
        self.tell(None, |names| format!("- {}", strike.words(names)));
        match strike {
            Strike::PowerOn { node } => self.power_on(node),
            Strike::PowerOff { node, span } => {
                if self.nodes[node].on {
                    self.power_cut(node);
                    if let Some(span) = span {
                        self.after(span, node, Ev::PowerOn);
                    }
                }
            }
            Strike::Kill { part, node, span } => self.kill(part, node, span),
            Strike::Stop { part, node, span } => self.stop(part, node, span),
            Strike::Freeze { node, span } => self.freeze(node, span),
            Strike::TaskDies { task } => {
                for node in 0..self.nodes.len() {
                    if self.nodes[node].held[task].running {
                        self.task_dies(node, task);
                    }
                }
            }
            Strike::Flaw {
                task,
                node,
                flaw,
                span,
            } => {
                self.set_flaw(node, task, flaw, true);
                self.ends(span, node, Heal::Flaw { task, flaw });
            }
            Strike::Unfit { node, tasks, span } => {
                self.set_fit(node, tasks);
                self.ends(span, node, Heal::Fit);
            }
            Strike::Ask { node, command } => self.command(node, command),
            Strike::Leave { node } => {
                let state = &mut self.nodes[node];
                if !std::mem::replace(&mut state.was_told_to_leave, true) {
                    state.leaving = (self.now, self.now);
                }
                self.deliver(node, In::Other(Event::Leave));
            }
            Strike::Drift { node, span } => self.drift(node, span),
            Strike::Rate { node, ppm } => self.set_rate(node, ppm),
            // Nothing in the world reads a wall clock: see `checks::s8`.
            Strike::WallStep { .. } => {}
            Strike::Twin { node } => self.twin(node),
            Strike::SaveDisk => self.saved_disks = Some(self.disks.clone()),
            Strike::RestoreDisk { only } => {
                let saved = self.saved_disks.iter().flatten().enumerate();
                for (d, disk) in saved.filter(|(d, _)| only.is_none_or(|only| only == *d)) {
                    self.disks[d] = disk.clone();
                }
            }
            Strike::WhenWriting { node, strike } => self.nodes[node].when_writing = Some(strike),
            medium => self.strike_medium(medium),
        }
    }

    fn strike_medium(&mut self, strike: Strike) {
        match strike {
            Strike::Cut { cable, span } => {
                let paths = cable.paths(self.plan.networks, self.nodes.len());
                self.cut(&paths);
                self.ends(span, 0, Heal::Cut(paths));
            }
            Strike::Mend { cable } => self.mend(cable),
            Strike::LinkDown { node, link, span } => {
                self.set_link(node, link, false);
                self.ends(span, node, Heal::Link(link));
            }
            Strike::Flap {
                node,
                link,
                times,
                every,
            } => {
                self.set_link(node, link, false);
                let left = times.saturating_sub(1);
                self.after(every, node, Ev::Flap { link, left, every });
            }
            Strike::Clog { link, span } => {
                let until = &mut self.clogged_until[link];
                *until = (*until).max(self.now + span);
                self.troubles.note(Place::Link { link }, self.now, *until);
            }
            Strike::Cross { node, span } => {
                self.nodes[node].crossed = true;
                self.ends(span, node, Heal::Crossed);
            }
            Strike::Disk {
                node,
                disk,
                ill,
                span,
            } => {
                self.set_disk((node, disk), ill, true, span);
                self.ends(span, node, Heal::Disk(disk, ill));
            }
            Strike::Array { disk, ill, span } => {
                for node in 0..self.nodes.len() {
                    self.set_disk((node, disk), ill, true, span);
                    self.ends(span, node, Heal::Disk(disk, ill));
                }
            }
            Strike::DiskWell { node } => self.mend_disks(node),
            Strike::Fence { node, device, span } => {
                self.set_fence(node, device, true);
                self.ends(span, node, Heal::Fence(device));
            }
            Strike::Attack { attack, count } => self.attack(attack, count),
            other => unreachable!("{other:?} is no strike on a medium"),
        }
    }

    fn ends(&mut self, span: Option<u64>, node: usize, what: Heal) {
        if let Some(span) = span {
            self.after(span, node, Ev::Heals { what });
        }
    }

    fn stop(&mut self, part: Part, node: usize, span: u64) {
        match part {
            Part::Core => self.pause_core(node, span),
            Part::Guard => self.pause_guard(node, span),
            Part::Runner => self.pause_runner(node, span),
            Part::Node => self.pause_node(node, span),
        }
    }

    fn kill(&mut self, part: Part, node: usize, span: u64) {
        match part {
            Part::Core => self.core_dies(node, span),
            Part::Runner => self.runner_dies(node, span),
            Part::Guard | Part::Node => {
                if self.nodes[node].on && self.nodes[node].guard.is_some() {
                    self.daemon_dies(node);
                    let (power, core) = (self.nodes[node].power_life, self.nodes[node].core_life);
                    self.after(span, node, Ev::DaemonStarts { power, core });
                }
            }
        }
    }

    fn drift(&mut self, node: usize, span: Option<u64>) {
        self.nodes[node].drifted = true;
        self.kill(Part::Guard, node, self.plan.timing.heartbeat.0);
        self.ends(span, node, Heal::Drift);
    }

    pub(crate) fn flap(&mut self, i: usize, link: usize, left: u64, every: u64) {
        let up = self.nodes[i].link_up[link];
        if self.calm && up {
            return;
        }
        self.set_link(i, link, !up);
        if left > 0 || !up {
            let left = if up { left - 1 } else { left };
            let again = up || left > 0;
            if again {
                self.after(every, i, Ev::Flap { link, left, every });
            }
        }
    }

    /// A disk path falls ill, or is well again.
    pub(crate) fn set_disk(
        &mut self,
        (i, d): (usize, usize),
        ill: Ill,
        on: bool,
        span: Option<u64>,
    ) {
        let now = self.now;
        let place = Place::Disk { node: i, disk: d };
        let disk = &mut self.nodes[i].disks[d];
        match ill {
            Ill::Hangs => {
                let until = now.saturating_add(span.unwrap_or(u64::MAX / 4));
                if !on {
                    // What is held already comes back when it would have.
                    let held = disk.hung_until.max(now);
                    self.troubles.note(place, now, held);
                }
                disk.hung_until = if on { disk.hung_until.max(until) } else { now };
            }
            Ill::Lost => disk.lost = on,
            Ill::Slow => {
                if disk.slow && !on {
                    // What was begun until now is slow still.
                    let end = now + self.plan.timing.detect.0 / 2;
                    self.troubles.note(place, now, end);
                }
                disk.slow = on;
            }
            Ill::Garbled => disk.garbled = on,
        }
        let bad = disk.lost || disk.slow || disk.garbled || disk.hung_until > now;
        self.troubles.set(place, bad, now);
    }

    pub(crate) fn lose_disk(&mut self, i: usize) {
        for d in 0..self.disks.len() {
            self.set_disk((i, d), Ill::Lost, true, None);
        }
    }

    fn mend_disks(&mut self, i: usize) {
        for d in 0..self.disks.len() {
            for ill in [Ill::Hangs, Ill::Lost, Ill::Slow, Ill::Garbled] {
                self.set_disk((i, d), ill, false, None);
            }
        }
    }

    pub(crate) fn set_link(&mut self, i: usize, link: usize, up: bool) {
        self.nodes[i].link_up[link] = up;
        let place = Place::Port { node: i, link };
        self.troubles.set(place, !up, self.now);
        let (link, reason) = (link as u8, "carrier".to_owned());
        self.deliver(i, In::Other(Event::LinkState { link, up, reason }));
    }

    fn set_rate(&mut self, i: usize, ppm: i64) {
        // A clock that stands still has no rate.
        if self.nodes[i].frozen_since.is_none() {
            self.nodes[i].clock.run(self.now, ppm);
        }
    }

    fn set_flaw(&mut self, i: usize, task: usize, flaw: Flaw, on: bool) {
        let held = &mut self.nodes[i].held[task];
        match flaw {
            Flaw::StartsFail => held.starts_fail = on,
            Flaw::StopsFail => held.stops_fail = on,
            Flaw::Slow => held.slow = on,
        }
    }

    fn set_fence(&mut self, i: usize, device: Device, on: bool) {
        match device {
            Device::Fails => self.nodes[i].fence_fails = on,
            Device::Slow => self.nodes[i].fence_slow = on,
        }
    }

    fn set_fit(&mut self, i: usize, fit: u64) {
        self.nodes[i].fit = fit;
        self.nodes[i].unfit_lately |= !fit;
        if self.nodes[i].runner_up {
            self.report(i, Report::Fit { tasks: fit });
        }
    }

    pub(crate) fn cut(&mut self, paths: &[(usize, usize, usize)]) {
        for path in paths {
            *self.cuts.entry(*path).or_insert(0) += 1;
            self.troubles.set(Place::path(*path), true, self.now);
        }
    }

    /// Every path to and from the node on every network.
    pub(crate) fn all_paths_of(&self, i: usize) -> Vec<(usize, usize, usize)> {
        let whole_node = Cable {
            link: None,
            from: Some(i),
            to: None,
            both: true,
        };
        whole_node.paths(self.plan.networks, self.nodes.len())
    }

    fn mend(&mut self, cable: Cable) {
        for path in cable.paths(self.plan.networks, self.nodes.len()) {
            if self.cuts.remove(&path).is_some() {
                self.troubles.set(Place::path(path), false, self.now);
            }
        }
    }

    pub(crate) fn heals(&mut self, i: usize, what: Heal) {
        if self.calm {
            return; // everything has healed already
        }
        self.tell(Some(i), |_| format!("- over: {}", what.words()));
        match what {
            Heal::Cut(paths) => {
                for path in paths {
                    let Some(count) = self.cuts.get_mut(&path) else {
                        continue;
                    };
                    *count -= 1;
                    if *count == 0 {
                        self.cuts.remove(&path);
                        self.troubles.set(Place::path(path), false, self.now);
                    }
                }
            }
            Heal::Link(link) => self.set_link(i, link, true),
            Heal::Disk(d, Ill::Hangs) => self.set_disk_again(i, d),
            Heal::Disk(d, ill) => self.set_disk((i, d), ill, false, None),
            Heal::Fit => self.set_fit(i, u64::MAX),
            Heal::Flaw { task, flaw } => self.set_flaw(i, task, flaw, false),
            Heal::Crossed => self.nodes[i].crossed = false,
            Heal::Fence(device) => self.set_fence(i, device, false),
            Heal::Drift => self.drift_ends(i),
        }
    }

    /// A hang is over unless a longer one is on.
    fn set_disk_again(&mut self, i: usize, d: usize) {
        if self.nodes[i].disks[d].hung_until <= self.now {
            self.set_disk((i, d), Ill::Hangs, false, None);
        }
    }

    fn drift_ends(&mut self, i: usize) {
        if std::mem::take(&mut self.nodes[i].drifted) {
            self.kill(Part::Guard, i, self.plan.timing.heartbeat.0);
        }
    }

    pub(crate) fn command(&mut self, i: usize, command: Command) {
        if let Command::Move { task, to } = command
            && let Some(asked) = self.checks.asked.get_mut(task.index())
        {
            asked.insert(to);
        }
        self.number += 1;
        let request = self.number;
        self.say(i, || format!("command {request}: {command:?}"));
        self.deliver(i, In::Other(Event::Command { request, command }));
    }

    /// Everything is put in order: power on, cables plugged, nobody in standby.
    pub(crate) fn heal_all(&mut self) {
        self.tell(None, |_| "EVERYTHING HEALS".into());
        self.calm = true;
        self.cuts.clear();
        self.clogged_until.fill(0);
        self.troubles.all_over(self.now);
        for i in 0..self.nodes.len() {
            self.nodes[i].when_writing = None;
            self.mend_disks(i);
            for link in 0..self.plan.networks {
                if !self.nodes[i].link_up[link] {
                    self.set_link(i, link, true);
                }
            }
            self.nodes[i].crossed = false;
            for held in &mut self.nodes[i].held {
                (held.starts_fail, held.stops_fail, held.slow) = (false, false, false);
            }
            self.set_fit(i, u64::MAX);
            self.drift_ends(i);
            if !self.nodes[i].on {
                self.power_on(i);
            } else if self.nodes[i].was_told_to_leave && self.nodes[i].engine.is_some() {
                self.daemon_dies(i);
                let (power, core) = (self.nodes[i].power_life, self.nodes[i].core_life);
                self.after(1, i, Ev::DaemonStarts { power, core });
            }
        }
        self.after(1, 0, Ev::Operator);
    }

    /// The operator undoes what was done by hand, and vouches for nobody.
    pub(crate) fn operator(&mut self) {
        let (mut standby, mut unwanted) = (Vec::new(), Vec::new());
        if let Some(view) = self.checks.newest() {
            standby.extend(view.standby.iter());
            let tasks = view.tasks.iter().enumerate();
            let off = tasks.filter(|(_, task)| !task.wanted).map(|(task, _)| task);
            unwanted.extend(off);
        }
        for node in standby {
            for i in 0..self.nodes.len() {
                self.command(i, Command::Online { node });
            }
        }
        for task in unwanted {
            let task = TaskIndex::new(task).expect("few tasks");
            for i in 0..self.nodes.len() {
                self.command(i, Command::Start { task });
            }
        }
        self.after(self.plan.timing.detect.0 * 4, 0, Ev::Operator);
    }
}

impl Heal {
    fn words(&self) -> String {
        match self {
            Heal::Cut(paths) => format!("{} cut paths", paths.len()),
            Heal::Link(link) => format!("link {link} down"),
            Heal::Disk(disk, ill) => format!("{} {}", disk_word(*disk), ill.word()),
            Heal::Fit => "unfit".into(),
            Heal::Flaw { flaw, .. } => format!("a task {}", flaw.words()),
            Heal::Crossed => "crossed links".into(),
            Heal::Fence(device) => format!("a fence {}", device.word()),
            Heal::Drift => "drift".into(),
        }
    }
}
