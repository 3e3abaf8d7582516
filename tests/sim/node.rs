//! One simulated machine: its power, clock, guard, core, runner and what runs on it.

use std::collections::VecDeque;
use std::rc::Rc;

use standfast::engine::{Engine, Event, Resumed};
use standfast::frame::Frame;
use standfast::model::{Incarnation, NodeId};
use standfast::node::guard::rule::Rule;
use standfast::register::{Block, DISKS_MAX, Memory, Seen};
use standfast::time::Instant;

use crate::clock::Clock;
use crate::disk::DiskThread;
use crate::strike::Strike;
use crate::world::Ev;

/// Frames a socket keeps for a core that does not read; more are dropped.
pub(crate) const SOCKET_MAX: usize = 400;

/// Something on its way into the core; times are taken when its threads run.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)]
pub(crate) enum In {
    Tick,
    Frame {
        link: u8,
        frame: Rc<Frame>,
    },
    Drained {
        link: u8,
    },
    Read {
        disk: u8,
        begun: Instant,
        seen: Option<Seen>,
        frames: Vec<Rc<Frame>>,
        link: u8,
    },
    ReadFailed {
        disk: u8,
        begun: Instant,
    },
    WriteEnded {
        disk: u8,
        fails: bool,
    },
    Other(Event),
}

impl In {
    /// The thread it comes from: 0 the disk's, 1 the runner's connection, others a network each.
    pub(crate) fn source(&self) -> u64 {
        match self {
            In::Read { .. } | In::ReadFailed { .. } | In::WriteEnded { .. } => 0,
            In::Tick | In::Other(_) => 1,
            In::Frame { link, .. } | In::Drained { link } => 2 + u64::from(*link),
        }
    }
}

/// What the core publishes for the guard.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Page {
    pub(crate) lease_deadline: Instant,
    pub(crate) granted: u64,
    pub(crate) turns: u64,
    pub(crate) sequence: u64,
}

/// A task on this machine, as the kernel sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// Anything of it runs.
    pub(crate) running: bool,
    /// All of it runs.
    pub(crate) whole: bool,
    /// What the runner does with it.
    pub(crate) work: Option<Work>,
    pub(crate) starts_fail: bool,
    pub(crate) stops_fail: bool,
    pub(crate) slow: bool,
    /// Something has gone wrong with it since it was started here last.
    pub(crate) trouble: bool,
    /// Its starts here, and the epoch of the last.
    pub(crate) start: u64,
    pub(crate) epoch: u32,
}

impl Held {
    /// Nothing of it runs any more, and nobody works on it.
    pub(crate) fn ends(&mut self) {
        (self.running, self.whole, self.work) = (false, false, None);
    }
}

/// The runner's work on a task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) op: u64,
    /// When it ends, if nothing comes between.
    pub(crate) until: u64,
    pub(crate) start: bool,
    /// How it ends: none is success, else whether all is stopped then.
    pub(crate) fails: Option<bool>,
}

/// One machine.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    /// Its place on the disk and in the lists: that of its id.
    pub(crate) slot: usize,
    pub(crate) on: bool,
    /// Counts power lives, core lives, guard lives, runner lives: what was meant for an earlier
    /// one is dropped.
    pub(crate) power_life: u64,
    pub(crate) core_life: u64,
    pub(crate) guard_life: u64,
    pub(crate) runner_life: u64,
    pub(crate) clock: Clock,
    pub(crate) incarnation: Incarnation,
    pub(crate) engine: Option<Engine>,
    pub(crate) inbox: VecDeque<In>,
    /// When its core began.
    pub(crate) core_began: u64,
    pub(crate) core_paused_until: u64,
    /// A virtual machine that is paused, clock and all.
    pub(crate) frozen_since: Option<u64>,
    pub(crate) guard: Option<Rule>,
    pub(crate) guard_paused_until: u64,
    /// What it still has in its kernel is the business of the layers below the guard until then.
    pub(crate) below_guard_until: u64,
    pub(crate) runner_paused_until: u64,
    /// When that pause began.
    pub(crate) runner_paused_from: u64,
    /// What has come to it meanwhile, in this order.
    pub(crate) runner_mail: VecDeque<Ev>,
    /// What tasks run stands still with the runner.
    pub(crate) machine_still: bool,
    pub(crate) page: Page,
    /// Taken back by the guard since the core was last told so.
    pub(crate) revoked: u64,
    pub(crate) runner_up: bool,
    pub(crate) held: Vec<Held>,
    pub(crate) fit: u64,
    /// What its core knows of that.
    pub(crate) fit_told: u64,
    /// Tasks that it was unfit for at any time in this life.
    pub(crate) unfit_lately: u64,
    pub(crate) disks: [DiskThread; DISKS_MAX],
    /// The file of its own votes, and the record on its way there.
    pub(crate) votes: Option<Block>,
    /// What it could not write into it; in this life it stands by that too.
    pub(crate) unkept: Option<Block>,
    pub(crate) record: Option<(u64, Block)>,
    /// What strikes while its next register write is under way.
    pub(crate) when_writing: Option<Box<Strike>>,
    pub(crate) link_up: Vec<bool>,
    pub(crate) wake_at: u64,
    /// Epoch of the newest view its engine has known in this core life.
    pub(crate) epoch: u64,
    /// Since when it is that one.
    pub(crate) epoch_at: u64,
    /// The newest epoch that a core of this daemon has known.
    pub(crate) knew: u64,
    pub(crate) was_told_to_leave: bool,
    /// What the device that switches it off does.
    pub(crate) fence_fails: bool,
    pub(crate) fence_slow: bool,
    /// When it was told so last, and when its daemon started after that.
    pub(crate) leaving: (u64, u64),
    /// Its daemon starts with another configuration.
    pub(crate) drifted: bool,
    /// The daemon that runs was started so.
    pub(crate) runs_drifted: bool,
    /// The cables of its first two links are swapped.
    pub(crate) crossed: bool,
    /// When the last order, and the last report, is there: they never overtake each other.
    pub(crate) order_at: u64,
    pub(crate) report_at: u64,
}

impl Node {
    pub(crate) fn new(index: usize, tasks: usize, links: usize, clock: Clock) -> Node {
        Node {
            id: NodeId::new(index as u8 + 1).expect("few nodes"),
            slot: index,
            on: false,
            power_life: 0,
            core_life: 0,
            guard_life: 0,
            runner_life: 0,
            clock,
            incarnation: Incarnation::default(),
            engine: None,
            inbox: VecDeque::new(),
            core_began: 0,
            core_paused_until: 0,
            frozen_since: None,
            guard: None,
            guard_paused_until: 0,
            below_guard_until: 0,
            runner_paused_until: 0,
            runner_paused_from: 0,
            runner_mail: VecDeque::new(),
            machine_still: false,
            page: Page::default(),
            revoked: 0,
            runner_up: false,
            held: vec![Held::default(); tasks],
            fit: u64::MAX,
            fit_told: u64::MAX,
            unfit_lately: 0,
            disks: Default::default(),
            votes: None,
            unkept: None,
            record: None,
            when_writing: None,
            link_up: vec![true; links],
            wake_at: u64::MAX,
            knew: 0,
            epoch: 0,
            epoch_at: 0,
            was_told_to_leave: false,
            fence_fails: false,
            fence_slow: false,
            leaving: (0, 0),
            drifted: false,
            runs_drifted: false,
            crossed: false,
            order_at: 0,
            report_at: 0,
        }
    }

    /// Does the process wait for a register write? Then it cannot end.
    pub(crate) fn writes(&self) -> bool {
        self.disks.iter().any(DiskThread::writes)
    }

    /// Tasks of which anything runs, bit by index.
    pub(crate) fn holding(&self) -> u64 {
        let bits = self.held.iter().enumerate();
        bits.fold(0, |set, (task, held)| set | u64::from(held.running) << task)
    }

    /// Would the guard let this task run at this true moment?
    pub(crate) fn page_allows(&self, now: u64, task: usize) -> bool {
        self.page.granted & (1 << task) != 0 && self.clock.at(now) < self.page.lease_deadline
    }

    /// What its file says of its own votes.
    pub(crate) fn memory(&self) -> Memory {
        self.votes.clone().map_or(Memory::Nothing, Memory::Kept)
    }

    pub(crate) fn resumed(&self) -> Resumed {
        Resumed {
            lease_deadline: self.page.lease_deadline,
            granted: self.page.granted & !self.revoked,
        }
    }

    pub(crate) fn core_paused(&self, now: u64) -> bool {
        now < self.core_paused_until
    }

    /// Its guard stood still until a moment ago: what it holds is the business of the layers below
    /// (the lifetime of addresses, the reservation) until the guard has had its release time.
    pub(crate) fn below_the_guard(&self, now: u64) -> bool {
        now < self.below_guard_until
    }

    pub(crate) fn guard_paused(&self, now: u64) -> bool {
        now < self.guard_paused_until
    }
}

/// The engine as it is when it was written down and read back: the same in everything.
pub(crate) fn reread(engine: &Engine) -> Engine {
    let written = postcard::to_allocvec(engine).expect("everything can be written");
    let read: Engine = postcard::from_bytes(&written).expect("what was written can be read");
    assert!(read == *engine && read.makes_sense(), "something is lost");
    read
}
