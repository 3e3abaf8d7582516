//! A picture of the engine for `status`.

use super::{Engine, LinkStatus, NodeStatus, RegisterStatus, Snapshot, TaskStatus};
use crate::model::{NodeId, TaskIndex, TaskState};
use crate::register::Trouble;
use crate::time::{Instant, Span};

impl Engine {
    /// Everything `status` shows, as known at `now`.
    #[must_use]
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let standing = if self.is_member() {
            "member"
        } else if self.is_listed() {
            "joining"
        } else {
            "outside"
        };
        let age = |date: Option<Instant>| date.map_or(Span(u64::MAX), |at| now.since(at));
        let length = self.timing().lease;
        let frames = age(self.lease.by_frames) < length;
        let register = age(self.lease.by_register) < length;
        let proof = match (frames, register) {
            (true, true) => "both",
            (true, false) => "frames",
            (false, true) => "register",
            (false, false) => "none",
        };
        Snapshot {
            at: now,
            node: self.me(),
            epoch: self.view.epoch,
            standing: standing.into(),
            waiting_for: self.waiting_for.clone().filter(|_| !self.is_member()),
            lease_ms: self.lease.until().since(now).as_ms_f64(),
            proof: proof.into(),
            nodes: self
                .setup
                .nodes
                .iter()
                .map(|(node, _)| self.node_status(*node, now))
                .collect(),
            links: (0..self.links.len())
                .map(|link| self.link_status(link, now))
                .collect(),
            register: self.register_status(now),
            tasks: self.tasks().map(|task| self.task_status(task)).collect(),
            alarms: self.current_alarms(),
        }
    }

    fn node_status(&self, node: NodeId, now: Instant) -> NodeStatus {
        let peer = self.peers.of(node);
        let me = node == self.me();
        let state = match self.view.member(node) {
            _ if !me && peer.incompatible => "incompatible",
            Some(_) if !me && !self.heard_lately(node) => "silent",
            Some(member) => match member.standing {
                super::Standing::Member => "member",
                super::Standing::Joining => "joining",
            },
            None if me || self.heard_lately(node) => "outside",
            None => "silent",
        };
        let eviction = self
            .view
            .evictions
            .iter()
            .find(|eviction| eviction.node == node);
        NodeStatus {
            node,
            state: state.into(),
            standby: self.view.standby.contains(node),
            heard_ms: peer.alive_at.map(|at| now.since(at).as_ms_f64()),
            epoch: if me { self.view.epoch } else { peer.epoch },
            evicted: eviction.map(|eviction| {
                let by = self.name(eviction.by);
                format!(
                    "in epoch {} by {by}: {}",
                    eviction.epoch,
                    eviction.reason.words()
                )
            }),
        }
    }

    fn link_status(&self, index: usize, now: Instant) -> LinkStatus {
        let link = &self.links[index];
        let others = self.setup.nodes.iter().map(|(node, _)| *node);
        let heard = others.filter_map(|node| {
            let at = self.peers.of(node).on_link[index]?;
            Some((node, now.since(at).as_ms_f64()))
        });
        LinkStatus {
            link: index as u8,
            up: link.up,
            reason: link.reason.clone(),
            frames: link.frames,
            peers: heard.collect(),
            crossed: link.crossed,
            downs: link.downs,
        }
    }

    fn register_status(&self, now: Instant) -> RegisterStatus {
        RegisterStatus {
            reachable: self.disk_answers(),
            read_ms: self.disks.last_read().map(|at| now.since(at).as_ms_f64()),
            trouble: self.register.trouble().map(trouble_words),
            missing_voters: self.missing_voters().iter().collect(),
            refused_messages: self.mail.refused,
        }
    }

    fn task_status(&self, task: TaskIndex) -> TaskStatus {
        let record = self.view.task(task);
        let others = self.setup.nodes.iter().map(|(node, _)| *node);
        let states = others.filter_map(|node| {
            if node == self.me() {
                return Some((node, self.local[task.index()].state()));
            }
            self.heard_lately(node)
                .then(|| (node, self.peers.of(node).tasks[task.index()].state))
        });
        let states: Vec<(NodeId, TaskState)> = states.collect();
        let runs = states.iter().any(|(_, state)| *state == TaskState::Started);
        TaskStatus {
            task,
            owner: record.owner,
            heir: record.heir,
            epoch: record.epoch,
            wanted: record.wanted,
            blocked: if runs || !record.wanted {
                None
            } else {
                Some(self.why_not(task))
            },
            states,
            failed_on: record.failed_on.iter().collect(),
            cause: record.cause.words().into(),
        }
    }

    /// Why a wanted task does not run, as far as this node can tell.
    fn why_not(&self, task: TaskIndex) -> String {
        let record = self.view.task(task);
        let Some(owner) = record.owner else {
            let all = self.rejected(&self.view, task, None);
            return format!("nobody owns it: {}", all.join("; "));
        };
        if owner != self.me() {
            return format!("its owner {} does not run it yet", self.name(owner));
        }
        if !self.lease.valid(self.now) {
            return "this node owns it but holds no lease".into();
        }
        if !self.earlier_owner_is_out(task, &record) {
            let earlier = match record.after {
                super::After::Node(node) => self.name(node),
                super::After::Nobody | super::After::Anybody => "everybody else",
            };
            let let_go = match record.after {
                super::After::Node(node) if self.must_be_off(task, node) => "is off",
                super::After::Node(_) | super::After::Nobody | super::After::Anybody => {
                    "has let go"
                }
            };
            return format!("waiting until {earlier} {let_go} for certain");
        }
        match self.local[task.index()].state() {
            TaskState::Failed => "its start failed here; it is tried again".into(),
            TaskState::StopFailed => {
                "a part of it cannot be stopped; see `standfast history`".into()
            }
            TaskState::Starting => "it is starting".into(),
            TaskState::Stopping => "it is stopping".into(),
            TaskState::Unknown => "the runner has not looked at it yet".into(),
            TaskState::Stopped | TaskState::Started | TaskState::Released => {
                "it is about to start".into()
            }
        }
    }

    fn current_alarms(&self) -> Vec<String> {
        let mut alarms = self.alarms.clone();
        for (node, name) in &self.setup.nodes {
            if *node != self.me() && self.peers.of(*node).incompatible {
                alarms.push(format!("node {name} runs another configuration"));
            }
        }
        for (index, link) in self.links.iter().enumerate() {
            if let Some(alarm) = self.disk_alarm(index) {
                alarms.push(alarm);
            } else if !link.up {
                alarms.push(format!("link {index} is down: {}", link.reason));
            } else if link.crossed > 0 {
                alarms.push(format!(
                    "link {index} hears another link's frames: swapped cables?"
                ));
            }
        }
        if let Some(node) = self.owner_without_register() {
            let name = self.name(node);
            alarms.push(format!(
                "node {name} cannot read the register: changes wait for it"
            ));
        }
        if self.id_in_use() {
            alarms.push(format!("another machine uses this node's id {}", self.me()));
        }
        alarms.extend(self.power_alarms());
        let trouble = self.register.trouble().map(trouble_words);
        alarms.extend(trouble.filter(|text| !self.alarms.contains(text)));
        alarms
    }

    /// What is wrong with one of three disks of the register, if this link leads to it.
    fn disk_alarm(&self, link: usize) -> Option<String> {
        let disk = self.disk_of(link).filter(|_| self.setup.disks > 1)?;
        let trouble = match (&self.links[link], self.register.trouble_on(disk)) {
            (view, _) if !view.up => format!("is down: {}", view.reason),
            _ if self.is_silent_disk(link) => "leads to a disk that does not answer".into(),
            (_, Some(trouble)) => {
                format!(
                    "leads to a disk that does not count: {}",
                    trouble_words(trouble)
                )
            }
            (_, None) => return None,
        };
        let rest = if self.disk_answers() {
            "the register goes on with the two others"
        } else {
            "the register stands still until two of its three disks answer"
        };
        Some(format!("link {link} {trouble}; {rest}"))
    }
}

pub(super) fn trouble_words(trouble: Trouble) -> String {
    match trouble {
        Trouble::ReadFailed => "the register's disk cannot be read".into(),
        Trouble::Damaged(nodes) => format!("the register blocks of nodes {nodes:?} are damaged"),
        Trouble::Mixed => {
            "one of the register's disks is formatted for compare-and-write and does not count"
                .into()
        }
        Trouble::RecordDamaged => "the register's record on the disk is damaged".into(),
        Trouble::ValueLost => {
            "what the register's record on the disk names is not there, and this node does not \
             know it"
                .into()
        }
        Trouble::WriteFailed => "the register's disk cannot be written".into(),
        Trouble::Foreign => {
            "somebody else writes this node's register block: a second node with this id, or a \
             restored backup?"
                .into()
        }
        Trouble::WentBack => {
            "the register went back in time: a restored backup or another disk?".into()
        }
        Trouble::MemoryLost => "this node's record of its votes cannot be read; see the daemon's \
                                log for the file"
            .into(),
    }
}
