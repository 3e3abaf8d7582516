//! The world: one queue of events ordered by moment and number, and what each of them does.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::rc::Rc;

use standfast::engine::{Action, Event, Order, Report};
use standfast::frame::Frame;
use standfast::mldc::Packet;
use standfast::model::NodeId;
use standfast::node::guard::rule::Rule;
use standfast::register::{Ballot, Change, Order as DiskOrder};

use crate::bytes::Keys;
use crate::checks::Checks;
use crate::checks::s3::Stamp;
use crate::checks::s6::Troubles;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::fencing::Agent;
use crate::log::{Log, record_words, reply_words};
use crate::node::{In, Node, SOCKET_MAX, reread};
use crate::plan::Plan;
use crate::reservation::Unit;
use crate::rng::Rng;
use crate::strike::{Device, Flaw, Ill, Strike};

/// What happens at a moment, on a node.
#[derive(Clone, Debug)]
pub(crate) enum Ev {
    Wake {
        core: u64,
    },
    Arrive {
        power: u64,
        link: u8,
        frame: Rc<Frame>,
    },
    Packet {
        power: u64,
        link: u8,
        packet: Rc<Packet>,
    },
    RecordEnds {
        record: u64,
    },
    FileSpeaks {
        core: u64,
    },
    Drain {
        core: u64,
        link: u8,
    },
    Sample {
        d: usize,
        read: u64,
        late: bool,
    },
    ReadEnds {
        d: usize,
        read: u64,
    },
    WriteLands {
        d: usize,
        write: u64,
    },
    WriteEnds {
        d: usize,
        write: u64,
    },
    ChangeLands {
        id: u64,
        change: Box<Change>,
    },
    ChangeEnds {
        id: u64,
    },
    SlotLands {
        d: usize,
        write: u64,
    },
    SlotEnds {
        d: usize,
        write: u64,
    },
    Order {
        runner: u64,
        order: Order,
    },
    PowerOrder {
        runner: u64,
        node: NodeId,
        epoch: Option<u64>,
    },
    AgentActs {
        node: NodeId,
        number: u64,
    },
    WorkEnds {
        runner: u64,
        task: usize,
        op: u64,
    },
    Hello {
        runner: u64,
        core: u64,
    },
    Tell {
        core: u64,
        event: Box<Event>,
    },
    RunnerStart {
        power: u64,
        runner: u64,
    },
    RunnerResumes,
    GuardTurn {
        guard: u64,
    },
    GuardHasReleased {
        power: u64,
        tasks: u64,
    },
    Watchdog {
        power: u64,
        guard: u64,
    },
    CoreResumes,
    CoreStarts {
        power: u64,
        core: u64,
    },
    DaemonStarts {
        power: u64,
        core: u64,
    },
    GuardResumes,
    Thaws {
        power: u64,
    },
    PowerOn,
    Planned {
        index: usize,
    },
    Strikes {
        strike: Box<Strike>,
    },
    Flap {
        link: usize,
        left: u64,
        every: u64,
    },
    Heals {
        what: Heal,
    },
    Operator,
    VolumeWrite {
        task: usize,
        start: u64,
    },
    VolumeLands {
        task: usize,
        start: u64,
        stamp: Stamp,
        still: bool,
    },
}

/// A fault that ends.
#[derive(Clone, Debug)]
pub(crate) enum Heal {
    Cut(Vec<(usize, usize, usize)>),
    Link(usize),
    Disk(usize, Ill),
    Fit,
    Flaw { task: usize, flaw: Flaw },
    Crossed,
    Drift,
    Fence(Device),
}

/// One run of one cluster.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    pub(crate) number: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) disks: Vec<Disk>,
    /// In whose files each ballot was accepted, by node index.
    pub(crate) accepted: BTreeMap<Ballot, u64>,
    /// Counts of cuts by link, sender, hearer.
    pub(crate) cuts: BTreeMap<(usize, usize, usize), u32>,
    /// Frames that were on a network some time ago.
    pub(crate) old_frames: Vec<(usize, usize, Rc<Frame>)>,
    /// Packets likewise.
    pub(crate) old_packets: VecDeque<(usize, usize, Rc<Packet>)>,
    /// When each life that is over was followed by another, by boot and start.
    pub(crate) lives_over: BTreeMap<([u8; 16], u32), u64>,
    /// Until when each network holds its frames back.
    pub(crate) clogged_until: Vec<u64>,
    /// Agents on their way, by runner and node to be switched off.
    pub(crate) agents: BTreeMap<(usize, usize), Agent>,
    /// The volume of each task.
    pub(crate) volumes: Vec<Unit>,
    pub(crate) saved_disks: Option<Vec<Disk>>,
    pub(crate) troubles: Troubles,
    pub(crate) keys: Keys,
    pub(crate) calm: bool,
    pub(crate) checks: Checks,
    pub(crate) task_nodes: Vec<Vec<NodeId>>,
    pub(crate) turns: u64,
    /// Every so many turns an engine is written down and read back; 0: never.
    pub(crate) reread_every: u64,
    pub(crate) logging: bool,
    pub(crate) log: Log,
}

#[derive(Debug)]
struct Entry {
    at: u64,
    number: u64,
    node: usize,
    ev: Ev,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl World {
    pub(crate) fn new(plan: Plan, mut rng: Rng, logging: bool) -> World {
        let links = plan.networks + 1;
        let nodes: Vec<Node> = (0..plan.nodes)
            .map(|index| Node::new(index, plan.tasks, links, Clock::new(&mut rng, 0)))
            .collect();
        let mut task_nodes = Vec::new();
        for task in 0..plan.tasks {
            let mut list: Vec<_> = nodes.iter().map(|node| node.id).collect();
            let turn = task % list.len();
            list.rotate_left(turn);
            task_nodes.push(list);
        }
        World {
            disks: vec![Disk::new(plan.nodes, plan.compare_and_write); plan.disks],
            checks: Checks::new(&plan),
            clogged_until: vec![0; plan.networks],
            agents: BTreeMap::new(),
            volumes: vec![Unit::default(); plan.tasks],
            saved_disks: None,
            troubles: Troubles::new(&plan),
            keys: Keys::new(),
            plan,
            rng,
            now: 0,
            queue: BinaryHeap::new(),
            number: 0,
            nodes,
            accepted: BTreeMap::new(),
            cuts: BTreeMap::new(),
            old_frames: Vec::new(),
            old_packets: VecDeque::new(),
            lives_over: BTreeMap::new(),
            calm: false,
            task_nodes,
            turns: 0,
            reread_every: 0,
            logging,
            log: Log::default(),
        }
    }

    /// Powers every node up, each at its own moment.
    pub(crate) fn power_up_all(&mut self) {
        for node in 0..self.nodes.len() {
            let delay = self.rng.below(self.plan.boot);
            self.after(delay, node, Ev::PowerOn);
        }
    }

    pub(crate) fn after(&mut self, delay: u64, node: usize, ev: Ev) {
        self.number += 1;
        self.queue.push(Reverse(Entry {
            at: self.now.saturating_add(delay),
            number: self.number,
            node,
            ev,
        }));
    }

    /// Lets everything happen up to this moment.
    pub(crate) fn run_until(&mut self, end: u64) {
        while self
            .queue
            .peek()
            .is_some_and(|Reverse(next)| next.at <= end)
        {
            let Some(Reverse(entry)) = self.queue.pop() else {
                break;
            };
            self.now = entry.at;
            self.happen(entry.node, entry.ev);
            self.judge(entry.node);
        }
        self.now = self.now.max(end);
    }

    /// Runs until the condition holds; false if it does not within the time.
    pub(crate) fn run_while(&mut self, longest: u64, mut on: impl FnMut(&World) -> bool) -> bool {
        let end = self.now + longest;
        while on(self) {
            match self.queue.peek() {
                Some(Reverse(next)) if next.at <= end => {
                    let at = next.at;
                    self.run_until(at);
                }
                _ => return false,
            }
        }
        true
    }

    pub(crate) fn happen(&mut self, i: usize, ev: Ev) {
        match ev {
            Ev::Wake { core } => self.wake(i, core),
            Ev::Arrive { power, link, frame } => {
                if self.nodes[i].power_life == power && self.nodes[i].link_up[usize::from(link)] {
                    self.deliver(i, In::Frame { link, frame });
                }
            }
            Ev::Packet {
                power,
                link,
                packet,
            } => self.packet(i, power, link, &packet),
            Ev::RecordEnds { record } => self.record_ends(i, record),
            Ev::FileSpeaks { core } => self.file_speaks(i, core),
            Ev::Drain { core, link } => self.drain(i, core, link),
            Ev::Sample { d, read, late } => self.sample(i, d, read, late),
            Ev::Order { runner, order } => self.take_order(i, runner, order),
            Ev::PowerOrder {
                runner,
                node,
                epoch,
            } => self.take_power_order(i, runner, node, epoch),
            Ev::AgentActs { node, number } => self.agent_acts(i, node, number),
            Ev::WorkEnds { runner, task, op } => self.work_ends(i, runner, task, op),
            Ev::Hello { runner, core } => self.hello(i, runner, core),
            Ev::Tell { core, event } => {
                if self.nodes[i].core_life == core {
                    self.deliver(i, In::Other(*event));
                }
            }
            Ev::RunnerStart { power, runner } => self.runner_starts(i, power, runner),
            Ev::RunnerResumes => self.runner_resumes(i),
            Ev::GuardTurn { guard } => self.guard_turn(i, guard),
            Ev::GuardHasReleased { power, tasks } => self.guard_has_released(i, power, tasks),
            Ev::Watchdog { power, guard } => self.watchdog(i, power, guard),
            Ev::CoreResumes => self.core_resumes(i),
            Ev::CoreStarts { power, core } => self.core_starts(i, power, core),
            Ev::DaemonStarts { power, core } => self.daemon_starts(i, power, core),
            Ev::GuardResumes => self.guard_resumes(i),
            Ev::PowerOn => self.power_on(i),
            Ev::Thaws { power } => self.thaws(i, power),
            Ev::Planned { index } => self.planned(index),
            Ev::Strikes { strike } => self.strikes_in_a_write(*strike),
            Ev::Flap { link, left, every } => self.flap(i, link, left, every),
            Ev::Heals { what } => self.heals(i, what),
            Ev::Operator => self.operator(),
            Ev::VolumeWrite { task, start } => self.volume_write(i, task, start),
            Ev::VolumeLands {
                task,
                start,
                stamp,
                still,
            } => self.volume_lands(i, task, start, stamp, still),
            on_the_disk => self.disk_event(i, on_the_disk),
        }
    }

    fn disk_event(&mut self, i: usize, ev: Ev) {
        match ev {
            Ev::ReadEnds { d, read } => self.read_ends(i, d, read),
            Ev::WriteLands { d, write } => self.write_lands(i, d, write),
            Ev::WriteEnds { d, write } => self.write_ends(i, d, write),
            Ev::ChangeLands { id, change } => self.change_lands(i, id, *change),
            Ev::ChangeEnds { id } => self.change_ends(i, id),
            Ev::SlotLands { d, write } => self.slot_lands(i, d, write),
            Ev::SlotEnds { d, write } => self.slot_ends(i, d, write),
            other => unreachable!("{other:?} is not of the disk"),
        }
    }

    // ---- the core ----

    /// Something reaches the core, or waits until it runs again.
    pub(crate) fn deliver(&mut self, i: usize, item: In) {
        let now = self.now;
        let node = &mut self.nodes[i];
        if node.engine.is_none() {
            return;
        }
        if node.core_paused(now) {
            let full = matches!(item, In::Frame { .. }) && node.inbox.len() >= SOCKET_MAX;
            if !full {
                node.inbox.push_back(item);
            }
            return;
        }
        self.take_in(i, item);
    }

    pub(crate) fn take_in(&mut self, i: usize, item: In) {
        let now = self.nodes[i].clock.at(self.now);
        match item {
            In::Tick => self.turn(i, Event::Tick),
            In::Frame { link, frame } => {
                let frame = (*frame).clone();
                self.tell_frame(i, link, &frame);
                self.turn(i, Event::Frame { link, frame });
            }
            In::Drained { link } => self.turn(i, Event::LinkDrained { link, begun: now }),
            In::Read {
                disk,
                begun,
                seen,
                frames,
                link,
            } => {
                for frame in frames {
                    let frame = (*frame).clone();
                    self.tell_frame(i, link, &frame);
                    self.turn(i, Event::Frame { link, frame });
                }
                self.turn(i, Event::LinkDrained { link, begun });
                let ended = now;
                let event = Event::DiskRead {
                    disk,
                    begun,
                    ended,
                    seen,
                };
                self.turn(i, event);
            }
            In::ReadFailed { disk, begun } => self.turn(i, Event::DiskReadFailed { disk, begun }),
            In::WriteEnded { disk, fails: true } => {
                self.turn(i, Event::DiskWriteFailed { disk, at: now });
            }
            In::WriteEnded { disk, fails: false } => {
                self.turn(i, Event::DiskWritten { disk, at: now });
            }
            In::Other(Event::Packet { link, packet }) => self.hears_packet(i, link, packet),
            In::Other(event) => {
                if let Event::Report(Report::Fit { tasks }) = &event {
                    self.nodes[i].fit_told = *tasks;
                }
                self.turn(i, event);
            }
        }
    }

    /// One turn of the engine, the page, then what it wants done.
    pub(crate) fn turn(&mut self, i: usize, event: Event) {
        self.turns += 1;
        let node = &mut self.nodes[i];
        let now = node.clock.at(self.now);
        let Some(engine) = &mut node.engine else {
            return;
        };
        engine.handle(now, event);
        let deadline = engine.lease_deadline();
        let shortened = Rule::must_hear(node.page.lease_deadline, deadline);
        node.page.lease_deadline = deadline;
        node.page.granted = engine.granted();
        node.page.turns += 1;
        node.page.sequence = engine.sequence();
        let epoch = engine.view().epoch;
        let wake = node.clock.when(engine.poll_timeout()).max(self.now);
        let before = std::mem::replace(&mut node.epoch, epoch);
        if before != epoch {
            node.epoch_at = self.now;
        }
        node.knew = node.knew.max(epoch);
        let mut actions = Vec::new();
        while let Some(action) = engine.poll_action() {
            actions.push(action);
        }
        if self.turns.is_multiple_of(self.reread_every) {
            *engine = reread(engine);
        }
        if shortened {
            self.ring_guard(i);
        }
        if before != epoch {
            self.has_learned(i);
            self.knows(i, before);
        }
        for action in actions {
            self.perform(i, action);
        }
        self.schedule_wake(i, wake);
    }

    fn schedule_wake(&mut self, i: usize, at: u64) {
        let late = self.rng.below(self.plan.jitter) + 1;
        let node = &mut self.nodes[i];
        if node.engine.is_some() && at < node.wake_at {
            node.wake_at = at;
            let core = node.core_life;
            self.after(at - self.now + late, i, Ev::Wake { core });
        }
    }

    fn wake(&mut self, i: usize, core: u64) {
        if self.nodes[i].core_life == core {
            self.nodes[i].wake_at = u64::MAX;
            self.deliver(i, In::Tick);
        }
    }

    fn perform(&mut self, i: usize, action: Action) {
        match action {
            Action::Send(frame) => self.send(i, frame),
            Action::Disk { disk, order } => match order {
                DiskOrder::Read => self.issue_read(i, usize::from(disk)),
                DiskOrder::Write(block) => self.issue_write(i, usize::from(disk), block),
                DiskOrder::CompareAndWrite(change) => self.issue_change(i, change),
            },
            Action::Order(order) => {
                if let Order::Stop {
                    task, forced: true, ..
                } = &order
                {
                    self.lost_right(i, 1 << task.index());
                }
                let soon = self.now + self.rng.below(self.plan.jitter) + 1;
                let node = &mut self.nodes[i];
                node.order_at = node.order_at.max(soon);
                let (runner, delay) = (node.runner_life, node.order_at - self.now);
                self.after(delay, i, Ev::Order { runner, order });
            }
            Action::PowerFence { node, epoch } => self.power_ordered(i, node, epoch),
            Action::Record(record) => self.tell(Some(i), |_| record_words(&record)),
            Action::Reply { outcome, .. } => self.tell(Some(i), |_| reply_words(&outcome)),
            Action::Mail(packet) => self.post(i, packet),
            Action::Keep(record) => self.keep_votes(i, record),
            Action::Left => self.left(i),
        }
    }

    /// Frames fill the log, so they stand there only on request.
    fn tell_frame(&mut self, i: usize, link: u8, frame: &Frame) {
        if self.logging && std::env::var_os("SIM_FRAMES").is_some() {
            let heard = frame.heard[i];
            let (from, life, number) = (frame.sender, frame.incarnation, frame.sequence);
            let what = format!("link {link}: n{from} {life:?} #{number} e{}", frame.epoch);
            let flags = frame.flags;
            self.say(i, || format!("hears {what} echoing {heard}, {flags}"));
        }
    }
}
