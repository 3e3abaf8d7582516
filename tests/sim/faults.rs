//! What goes wrong, and how it ends.

use standfast::engine::{Command, Event, Report};
use standfast::model::TaskIndex;

use crate::node::In;
use crate::plan::Kind;
use crate::world::{Ev, Heal, World};

impl World {
    /// Something goes wrong now; the next thing later.
    pub(crate) fn fault(&mut self) {
        if self.now >= self.plan.faults_end || self.plan.kinds.is_empty() {
            return;
        }
        let kinds = std::mem::take(&mut self.plan.kinds);
        let kind = self.rng.pick(&kinds);
        self.plan.kinds = kinds;
        let i = self.rng.below(self.nodes.len() as u64) as usize;
        self.strike(kind, i);
        // Sometimes the next comes while this one is being handled.
        let pace = if self.rng.chance(200) {
            self.plan.timing.heartbeat.0
        } else {
            self.plan.pace * 2
        };
        let next = self.rng.below(pace) + 1;
        self.after(next, i, Ev::Fault);
    }

    fn strike(&mut self, kind: Kind, i: usize) {
        let d = self.plan.timing.detect.0;
        self.checks.count(kind.name());
        match kind {
            Kind::PowerCut => {
                if self.nodes[i].on {
                    self.power_cut(i);
                    let delay = self.rng.skewed(d * 20);
                    self.after(delay, i, Ev::PowerOn);
                }
            }
            Kind::CoreCrash => self.core_dies(i),
            Kind::CorePause => {
                let span = self.rng.skewed(d * 4);
                self.pause_core(i, span);
            }
            Kind::NodePause => {
                let span = self.rng.skewed(d * 4);
                self.pause_node(i, span);
            }
            Kind::DaemonRestart => {
                if self.nodes[i].on && self.nodes[i].engine.is_some() {
                    self.daemon_dies(i);
                    let delay = self.rng.skewed(d * 2);
                    let (power, core) = (self.nodes[i].power_life, self.nodes[i].core_life);
                    self.after(delay, i, Ev::DaemonStarts { power, core });
                }
            }
            Kind::RunnerCrash => self.runner_dies(i),
            Kind::CutOneWay
            | Kind::CutLink
            | Kind::CutNode
            | Kind::LinkDown
            | Kind::Replay
            | Kind::DiskHang
            | Kind::DiskPathLoss => self.strike_medium(kind, i),
            Kind::TaskDeath => {
                let task = self.rng.below(self.plan.tasks as u64) as usize;
                if self.nodes[i].held[task].running {
                    self.say(i, || format!("t{task} dies"));
                    self.task_dies(i, task);
                }
            }
            Kind::Unfit => {
                let bits = self.rng.next();
                self.set_fit(i, bits);
                let span = self.rng.skewed(d * 5);
                self.after(span, i, Ev::Heals { what: Heal::Fit });
            }
            Kind::Operator => self.random_command(i),
            Kind::Leave => {
                self.say(i, || "is told to leave".into());
                self.nodes[i].was_told_to_leave = true;
                self.deliver(i, In::Other(Event::Leave));
            }
        }
    }

    fn strike_medium(&mut self, kind: Kind, i: usize) {
        let (h, d) = (self.plan.timing.heartbeat.0, self.plan.timing.detect.0);
        match kind {
            Kind::CutOneWay | Kind::CutLink | Kind::CutNode => self.cut_some(kind, i),
            Kind::LinkDown if self.plan.networks == 0 => {}
            Kind::LinkDown => {
                let link = self.rng.below(self.plan.networks as u64) as usize;
                self.set_link(i, link, false);
                let span = self.rng.skewed(d * 5);
                let what = Heal::Link(link);
                self.after(span, i, Ev::Heals { what });
            }
            Kind::Replay => {
                for _ in 0..self.rng.below(20) {
                    if self.old_frames.is_empty() {
                        return;
                    }
                    let place = self.rng.below(self.old_frames.len() as u64) as usize;
                    let (link, to, frame) = self.old_frames[place].clone();
                    let delay = self.rng.below(h);
                    self.arrive(delay, link, to, frame);
                }
            }
            Kind::DiskHang => {
                let span = self.rng.skewed(d * 5);
                self.say(i, || format!("its disk hangs for {} ms", span / 1_000_000));
                self.nodes[i].disk.hung_until = self.now + span;
            }
            Kind::DiskPathLoss => {
                let span = self.rng.skewed(d * 5);
                self.lose_disk(i);
                self.after(
                    span,
                    i,
                    Ev::Heals {
                        what: Heal::DiskPath,
                    },
                );
            }
            _ => {}
        }
    }

    pub(crate) fn lose_disk(&mut self, i: usize) {
        self.say(i, || "loses its disk path".into());
        self.nodes[i].disk.lost = true;
    }

    pub(crate) fn set_link(&mut self, i: usize, link: usize, up: bool) {
        self.say(i, || format!("link {link} up: {up}"));
        self.nodes[i].link_up[link] = up;
        let (link, reason) = (link as u8, "carrier".to_owned());
        self.deliver(i, In::Other(Event::LinkState { link, up, reason }));
    }

    fn set_fit(&mut self, i: usize, fit: u64) {
        self.nodes[i].fit = fit;
        if self.nodes[i].runner_up {
            let core = self.nodes[i].core_life;
            let event = Box::new(Event::Report(Report::Fit { tasks: fit }));
            self.after(1, i, Ev::Tell { core, event });
        }
    }

    fn cut_some(&mut self, kind: Kind, i: usize) {
        let mut cut = Vec::new();
        let others: Vec<usize> = (0..self.nodes.len()).filter(|other| *other != i).collect();
        let other = self.rng.pick(&others);
        let one_link = self.rng.below(self.plan.networks.max(1) as u64) as usize;
        let every_link = self.rng.chance(400);
        for link in (0..self.plan.networks).filter(|link| every_link || *link == one_link) {
            match kind {
                Kind::CutOneWay => cut.push((link, i, other)),
                Kind::CutLink => cut.extend([(link, i, other), (link, other, i)]),
                _ => {}
            }
        }
        if kind == Kind::CutNode {
            for link in 0..self.plan.networks {
                cut.extend(others.iter().flat_map(|o| [(link, i, *o), (link, *o, i)]));
            }
            if self.rng.chance(500) {
                self.lose_disk(i);
                let span = self.rng.skewed(self.plan.timing.detect.0 * 5);
                self.after(
                    span,
                    i,
                    Ev::Heals {
                        what: Heal::DiskPath,
                    },
                );
            }
        }
        self.say(i, || format!("{kind:?} {cut:?}"));
        self.cut(&cut);
        let span = self.rng.skewed(self.plan.timing.detect.0 * 5);
        let what = Heal::Cut(cut);
        self.after(span, i, Ev::Heals { what });
    }

    pub(crate) fn cut(&mut self, paths: &[(usize, usize, usize)]) {
        for path in paths {
            *self.cuts.entry(*path).or_insert(0) += 1;
        }
    }

    /// Every path to and from the node on every network.
    pub(crate) fn all_paths_of(&self, i: usize) -> Vec<(usize, usize, usize)> {
        let others = (0..self.nodes.len()).filter(|other| *other != i);
        others
            .flat_map(|other| (0..self.plan.networks).map(move |link| (link, other)))
            .flat_map(|(link, other)| [(link, i, other), (link, other, i)])
            .collect()
    }

    pub(crate) fn heals(&mut self, i: usize, what: Heal) {
        self.say(i, || format!("heals: {what:?}"));
        match what {
            Heal::Cut(paths) => {
                for path in paths {
                    if let Some(count) = self.cuts.get_mut(&path) {
                        *count -= 1;
                        if *count == 0 {
                            self.cuts.remove(&path);
                        }
                    }
                }
            }
            Heal::Link(link) => self.set_link(i, link, true),
            Heal::DiskPath => self.nodes[i].disk.lost = false,
            Heal::Fit => self.set_fit(i, u64::MAX),
        }
    }

    pub(crate) fn command(&mut self, i: usize, command: Command) {
        self.number += 1;
        let request = self.number;
        self.say(i, || format!("command {request}: {command:?}"));
        self.deliver(i, In::Other(Event::Command { request, command }));
    }

    fn random_command(&mut self, i: usize) {
        let task = self.rng.below(self.plan.tasks as u64) as usize;
        let task = TaskIndex::new(task).expect("few tasks");
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        let node = self.nodes[node].id;
        let command = match self.rng.below(10) {
            0..=4 => Command::Move { task, to: node },
            5 => Command::Stop { task },
            6 => Command::Start { task },
            7 => Command::Standby { node },
            _ => Command::Online { node },
        };
        self.command(i, command);
    }

    /// Everything is put in order: power on, cables plugged, nobody in standby.
    pub(crate) fn heal_all(&mut self) {
        self.say(0, || "EVERYTHING HEALS".into());
        self.calm = true;
        self.cuts.clear();
        for i in 0..self.nodes.len() {
            self.nodes[i].disk.lost = false;
            self.nodes[i].disk.hung_until = self.nodes[i].disk.hung_until.min(self.now);
            for link in 0..self.plan.networks {
                if !self.nodes[i].link_up[link] {
                    self.set_link(i, link, true);
                }
            }
            self.set_fit(i, u64::MAX);
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
