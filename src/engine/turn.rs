//! One turn: what comes in is sorted in, then everything that follows is worked out.

use super::snapshot::trouble_words;
use super::{ACTIONS_MAX, Action, Class, Engine, Event};
use crate::frame::{Flags, Frame, TaskReport};
use crate::model::{NodeId, NodeSet};
use crate::register;
use crate::time::Instant;

impl Engine {
    pub(super) fn begin_turn(&mut self, now: Instant) {
        // Threads read the clock before they queue an event, so time may seem to step back a
        // little.
        let now = now.max(self.now);
        let gap = now.since(self.now);
        if gap > self.timing().stall && self.now > self.started_at {
            self.distrust = Some(now);
            self.next_beat = now;
            // What is left of the lease may be less than a heartbeat.
            self.read_all();
            self.note(
                Class::Warning,
                None,
                format!("this node stood still for {} ms", gap.as_ms()),
            );
        }
        self.now = now;
    }

    pub(super) fn take_in(&mut self, event: Event) {
        match event {
            Event::Tick => {}
            Event::Frame { link, frame } => self.on_frame(link, &frame),
            Event::Packet { packet, .. } => self.on_packet(&packet),
            Event::LinkDrained { link, begun } => {
                if let Some(view) = self.links.get_mut(usize::from(link)) {
                    view.drained = view.drained.max(Some(begun));
                }
            }
            Event::LinkState { link, up, reason } => self.on_link_state(link, up, reason),
            Event::DiskRead { .. }
            | Event::DiskReadFailed { .. }
            | Event::DiskWritten { .. }
            | Event::DiskWriteFailed { .. }
            | Event::DiskCompared { .. }
            | Event::Remembered { .. }
            | Event::Kept { .. }
            | Event::KeepFailed { .. } => self.take_in_storage(event),
            Event::Revoked { tasks } => self.on_revoked(tasks),
            Event::PowerFenced {
                node,
                epoch,
                outcome,
            } => self.on_power_fenced(node, epoch, outcome),
            Event::Report(report) => self.on_report(report),
            Event::Command { request, command } => self.on_command(request, command),
            Event::Leave => {
                if !self.leaving {
                    self.leaving = true;
                    self.urgent = true;
                    self.note(Class::Notice, None, "this node was told to leave".into());
                }
            }
        }
    }

    /// What became of the disk's reads and writes, and of the node's own file.
    fn take_in_storage(&mut self, event: Event) {
        match event {
            Event::DiskRead {
                disk,
                begun,
                ended,
                seen,
            } => self.on_disk_read(disk, (begun, ended), seen),
            Event::DiskReadFailed { disk, begun } => self.on_disk_read_failed(disk, begun),
            Event::DiskWritten { disk, at } => {
                let event = register::Event::Written { at };
                self.register.handle_on(usize::from(disk), self.now, event);
            }
            Event::DiskWriteFailed { disk, at } => {
                let event = register::Event::WriteFailed { at };
                self.register.handle_on(usize::from(disk), self.now, event);
            }
            Event::DiskCompared { at, outcome } => {
                self.register
                    .handle(self.now, register::Event::Compared { at, outcome });
            }
            Event::Remembered { memory, trouble } => self.on_remembered(&memory, trouble),
            Event::Kept { .. } => self.register.handle(self.now, register::Event::Kept),
            Event::KeepFailed { reason, .. } => {
                self.register.handle(self.now, register::Event::KeepFailed);
                self.alarm(format!("this node cannot write down its votes: {reason}"));
            }
            Event::Tick
            | Event::Frame { .. }
            | Event::Packet { .. }
            | Event::LinkDrained { .. }
            | Event::LinkState { .. }
            | Event::Revoked { .. }
            | Event::PowerFenced { .. }
            | Event::Report(_)
            | Event::Command { .. }
            | Event::Leave => {}
        }
    }

    pub(super) fn advance(&mut self) {
        self.pump_register();
        self.settle_trust();
        self.tell_silent_disks();
        self.renew_lease();
        self.judge_peers();
        self.step_tasks();
        self.expire_commands();
        self.propose_change();
        self.order_power();
        if self.urgent || self.now >= self.next_beat {
            self.tell_lagging();
        }
        self.pump_register();
        self.check_left();
        if self.urgent || self.now >= self.next_beat {
            self.send_frame();
        }
        assert!(
            self.actions.len() <= ACTIONS_MAX,
            "one turn has a bounded number of actions"
        );
    }

    /// When to come back at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let mut next = self.next_beat.min(self.register.poll_timeout());
        if self.lease.valid(self.now) {
            next = next.min(self.lease.until());
        }
        for node in self.view.listed().without(self.me()).iter() {
            next = next.min(self.next_look(node));
        }
        if self.proposal.is_none() && self.propose_after > self.now {
            next = next.min(self.propose_after);
        }
        // When the time of earlier owners is over.
        for task in self.tasks().filter(|task| self.waits_to_start(*task)) {
            let out = self.task_known_at[task.index()] + self.timing().out_after();
            if out > self.now {
                next = next.min(out);
            }
        }
        next.max(self.now)
    }

    fn pump_register(&mut self) {
        self.tell_media();
        self.register.handle(self.now, register::Event::Tick);
        while let Some(news) = self.register.poll_news() {
            self.on_news(news);
        }
        for disk in 0..self.setup.disks {
            self.pump_disk(disk);
        }
        self.post();
        if let Some(trouble) = self.register.halted() {
            self.alarm(trouble_words(trouble));
        }
    }

    fn pump_disk(&mut self, disk: u8) {
        while let Some(order) = self.register.poll_order_on(usize::from(disk)) {
            let refusal = match order {
                register::Order::Read => None,
                register::Order::Write(_) => Some(register::Event::WriteFailed { at: self.now }),
                register::Order::CompareAndWrite(_) => Some(register::Event::Compared {
                    at: self.now,
                    outcome: register::Compared::Unclear,
                }),
            };
            if let Some(event) = refusal.filter(|_| self.id_in_use()) {
                // The block is somebody else's too: only its one owner may write it.
                self.register.handle_on(usize::from(disk), self.now, event);
                continue;
            }
            self.act(Action::Disk { disk, order });
        }
    }

    fn on_link_state(&mut self, link: u8, up: bool, reason: String) {
        let Some(view) = self.links.get_mut(usize::from(link)) else {
            return;
        };
        if view.up && !up {
            view.downs += 1;
        }
        let changed = view.up != up || (!up && view.reason != reason);
        view.up = up;
        view.reason.clone_from(&reason);
        if changed {
            let class = if up { Class::Info } else { Class::Warning };
            let state = if up { "up" } else { "down" };
            self.note(class, None, format!("link {link} is {state}: {reason}"));
        }
    }

    fn on_frame(&mut self, link: u8, frame: &Frame) {
        let now = self.now;
        if frame.sender == self.me() {
            self.on_own_id(link, frame);
            return;
        }
        if !self.configured(frame.sender) {
            return;
        }
        if let Some(view) = self.links.get_mut(usize::from(link)) {
            view.frames += 1;
            view.crossed += u64::from(frame.link != link);
        }
        let echoed = self.sent.at(frame.heard[self.me().index()]);
        let fresh = echoed.filter(|at| now.since(*at) <= self.timing().lease);
        let quiet = self.timing().stall;
        let incompatible = frame.config_hash != self.setup.config_hash;
        let silence = self.timing().suspect;
        let (epoch, listed) = (self.view.epoch, self.view.member(frame.sender).copied());
        let peer = self.peers.of_mut(frame.sender);
        peer.on_link[usize::from(link) % peer.on_link.len()] = Some(now);
        let drifted = incompatible && !peer.incompatible;
        peer.incompatible = incompatible;
        let Some(echoed) = fresh.filter(|_| peer.may_be(frame.incarnation, now, quiet)) else {
            peer.glimpse(frame);
            return;
        };
        let of_listed_life = listed.is_some_and(|member| member.incarnation == frame.incarnation);
        if peer.absorb(now, frame, silence) && of_listed_life {
            peer.listed_alive = now;
            if frame.epoch == epoch {
                peer.confirmed = peer.confirmed.max(Some(echoed));
            }
        }
        if drifted {
            let name = self.name(frame.sender).to_owned();
            let revision = frame.config_revision;
            self.note(
                Class::Major,
                Some(frame.sender),
                format!("node {name} runs another configuration (revision {revision})"),
            );
        }
        // Whose register has stopped may know another one.
        if frame.epoch > self.view.epoch && frame.flags.contains(Flags::VOTES) {
            let epoch = frame.epoch;
            let event = register::Event::DecidedElsewhere { epoch };
            self.register.handle(self.now, event);
        }
        if frame.epoch > self.view.epoch && frame.epoch > self.read_wanted_for {
            self.read_wanted_for = frame.epoch;
            self.read_all();
        }
    }

    /// A frame that bears this node's own number but was not sent by this life of it. One is an
    /// echo of an earlier life (the slot on the disk, of several disks on each another one); two
    /// different ones are somebody alive.
    fn on_own_id(&mut self, link: u8, frame: &Frame) {
        if frame.incarnation == self.setup.incarnation {
            return;
        }
        let seen = (frame.incarnation, frame.sequence);
        let disk = self.disk_of(usize::from(link)).unwrap_or(0);
        match self.doppelganger[disk].replace(seen) {
            Some((life, sequence)) if life == seen.0 && sequence < seen.1 => {
                if self.doppelganger_at.is_none() {
                    let text = format!("another machine uses this node's id {}", self.me());
                    self.note(Class::Critical, Some(self.setup.me), text);
                }
                self.doppelganger_at = Some(self.now);
            }
            Some(_) | None => {}
        }
    }

    /// Is somebody else using this node's id? Then this one must not write.
    pub(super) fn id_in_use(&self) -> bool {
        let window = self.timing().detect.times(4);
        self.doppelganger_at
            .is_some_and(|at| self.now.since(at) <= window)
    }

    /// Ends the distrust after an own stall: everything heard is in, and the register was read anew
    /// or cannot be.
    fn settle_trust(&mut self) {
        let Some(since) = self.distrust else { return };
        let drained = self.drained_since(since);
        let reread = self.disks.last_read().is_some_and(|begun| begun >= since);
        let waited = self.now.since(since) > self.timing().heartbeat;
        if (drained && reread)
            || (waited && !self.disk_answers())
            || self.now.since(since) > self.timing().detect
        {
            self.distrust = None;
            // Others echo what this node sent before it stood still, and whatever held it up may
            // have held them up too: their silence counts from here.
            self.trusted_at = self.now;
        }
    }

    /// Has every link that is up emptied its socket since then?
    pub(super) fn drained_since(&self, since: Instant) -> bool {
        let links = self.links.iter().enumerate();
        let mut open = links.filter(|(link, view)| view.up && !self.is_silent_disk(*link));
        open.all(|(_, view)| view.drained.is_some_and(|begun| begun >= since))
    }

    fn renew_lease(&mut self) {
        if !self.is_member() {
            return;
        }
        let others = self.view.listed().without(self.me());
        let mut oldest = Some(Instant::NEVER);
        for node in others.iter() {
            oldest = oldest.min(self.peers.of(node).confirmed);
        }
        let length = self.timing().lease;
        if let (Some(date), false) = (oldest, others.is_empty()) {
            self.lease.by_frames = self.lease.by_frames.max(Some(date));
            self.lease.prove(date, length);
        }
        if let Some(date) = self.lease.by_register {
            self.lease.prove(date, length);
        }
    }

    fn send_frame(&mut self) {
        let now = self.now;
        self.sequence += 1;
        if self.sequence as u32 == 0 {
            self.sequence += 1; // reads as "nothing heard" when echoed
        }
        self.sent.note(self.sequence, now);
        let mut frame = Frame::blank(self.setup.cluster, self.me(), self.setup.incarnation);
        frame.sequence = self.sequence;
        frame.epoch = self.view.epoch;
        frame.config_hash = self.setup.config_hash;
        frame.config_revision = self.setup.config_revision;
        frame.flags = self.flags();
        frame.fitness = self.fitness();
        let quiet = self.timing().stall;
        let asked_out = self.proposal_targets().0 | self.asked_out.0;
        for (node, _) in &self.setup.nodes {
            if *node != self.setup.me && !NodeSet(asked_out).contains(*node) {
                frame.heard[node.index()] = self.peers.of(*node).echo(now, quiet);
            }
        }
        for task in self.tasks() {
            let (state, epoch) = self.report_of(task);
            frame.tasks[task.index()] = TaskReport::new(state, u64::from(epoch));
        }
        self.act(Action::Send(frame));
        self.urgent = false;
        // The rhythm stays; what was missed is not made up for.
        self.next_beat = self.next_beat.max(now) + self.timing().heartbeat;
        if self.next_beat > now + self.timing().heartbeat {
            self.next_beat = now + self.timing().heartbeat;
        }
    }

    fn flags(&self) -> Flags {
        let all = self.tasks().all(|task| self.is_fit(task));
        Flags::default()
            .set(Flags::WANTS_IN, !self.is_listed() && !self.leaving)
            .set(Flags::LEAVING, self.leaving)
            .set(Flags::STANDBY, self.view.standby.contains(self.me()))
            .set(Flags::HOLDS_LEASE, self.lease.valid(self.now))
            .set(Flags::ACTIVE, self.is_member())
            .set(Flags::WATCHDOG, self.setup.watchdog)
            .set(Flags::SERVICE_NETWORK_OK, all)
            .set(Flags::STORAGE_OK, self.disk_answers())
            .set(Flags::VOTES, self.register.votes() && !self.id_in_use())
    }

    /// Who goes first in a race: running tasks count most, then what the node could run.
    pub(super) fn fitness(&self) -> u8 {
        let running = self.granted.count_ones().min(63) as u8;
        let fit = self
            .tasks()
            .filter(|task| self.is_fit(*task))
            .count()
            .min(64) as u8;
        running.saturating_mul(3).saturating_add(fit)
    }

    pub(super) fn heard_lately(&self, node: NodeId) -> bool {
        let alive = self.peers.of(node).alive_at;
        alive.is_some_and(|at| self.now.since(at) <= self.timing().suspect)
    }
}
