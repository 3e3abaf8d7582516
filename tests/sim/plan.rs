//! What a seed stands for: the cluster, how bad its media are, what goes wrong in it and how often.
//!
//! Only what the design promises to survive goes wrong: clock rates stay within 0.1 %, of the two
//! copies of a block at most the one that is being written tears, an earlier daemon's write is over
//! before the next one reads, and nobody lies about a stop: an object that says it is stopped and
//! runs on is outside of every promise.

use standfast::config::Timing;
use standfast::model::NODES_MAX;
use standfast::register::DISKS_MAX;
use standfast::time::Span;

use crate::draw;
use crate::fencing::Fences;
use crate::rng::Rng;
use crate::strike::{Names, Strike};

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    PowerCut,
    CoreCrash,
    DaemonRestart,
    RunnerCrash,
    CorePause,
    GuardPause,
    RunnerPause,
    NodePause,
    Freeze,
    Leave,
    Drift,
    ClockRate,
    WallStep,
    CutOneWay,
    CutLink,
    CutNode,
    LinkDown,
    Flap,
    Clog,
    Cross,
    DiskHang,
    DiskPathLoss,
    DiskSlow,
    DiskGarbled,
    Attack,
    TaskDeath,
    Flaw,
    Unfit,
    Operator,
}

/// What a kind touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Node,
    Clock,
    Network,
    Disk,
    Outsider,
    Task,
}

impl Kind {
    /// Every kind, with its name for the count of what happened and what it touches.
    pub(crate) const ALL: [(Kind, &'static str, Field); 29] = [
        (Kind::PowerCut, "power cut", Field::Node),
        (Kind::CoreCrash, "core crash", Field::Node),
        (Kind::DaemonRestart, "daemon restart", Field::Node),
        (Kind::RunnerCrash, "runner crash", Field::Task),
        (Kind::CorePause, "core pause", Field::Node),
        (Kind::GuardPause, "guard pause", Field::Node),
        (Kind::RunnerPause, "runner pause", Field::Task),
        (Kind::NodePause, "node pause", Field::Node),
        (Kind::Freeze, "frozen machine", Field::Node),
        (Kind::Leave, "leave", Field::Node),
        (Kind::Drift, "configuration drift", Field::Node),
        (Kind::ClockRate, "clock rate", Field::Clock),
        (Kind::WallStep, "wall clock step", Field::Clock),
        (Kind::CutOneWay, "cut one way", Field::Network),
        (Kind::CutLink, "cut link", Field::Network),
        (Kind::CutNode, "cut node", Field::Network),
        (Kind::LinkDown, "link down", Field::Network),
        (Kind::Flap, "flapping link", Field::Network),
        (Kind::Clog, "clogged link", Field::Network),
        (Kind::Cross, "crossed cables", Field::Network),
        (Kind::DiskHang, "disk hang", Field::Disk),
        (Kind::DiskPathLoss, "disk path loss", Field::Disk),
        (Kind::DiskSlow, "slow disk", Field::Disk),
        (Kind::DiskGarbled, "garbled disk", Field::Disk),
        (Kind::Attack, "attack", Field::Outsider),
        (Kind::TaskDeath, "task death", Field::Task),
        (Kind::Flaw, "flawed task", Field::Task),
        (Kind::Unfit, "unfit", Field::Task),
        (Kind::Operator, "operator", Field::Task),
    ];
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) tasks: usize,
    pub(crate) networks: usize,
    /// Disks that the register is on.
    pub(crate) disks: usize,
    pub(crate) timing: Timing,
    pub(crate) kinds: Vec<Kind>,
    /// Everything that goes wrong, in order, with its moment.
    pub(crate) strikes: Vec<(u64, Strike)>,
    pub(crate) names: Names,
    /// Added to every clock's zero.
    pub(crate) clock_shift: u64,
    /// The volumes of tasks are guarded by reservations.
    pub(crate) reservations: bool,
    /// Nodes can be switched off by the others.
    pub(crate) fences: Option<Fences>,
    /// The register is changed by compare-and-write, not by Disk Paxos.
    pub(crate) compare_and_write: bool,
    /// What is wrong with the files in which nodes keep their votes.
    pub(crate) files: Files,
    /// Mean time between two faults.
    pub(crate) pace: u64,
    /// Length of the phase in which things go wrong.
    pub(crate) faults_end: u64,
    /// Per mille of frames that a network loses, doubles, delays.
    pub(crate) loss: u64,
    pub(crate) doubles: u64,
    pub(crate) late: u64,
    /// Longest usual delay of a frame.
    pub(crate) delay: u64,
    /// Longest usual time of one disk operation, and per mille of much slower ones.
    pub(crate) io: u64,
    pub(crate) slow_io: u64,
    /// Per mille of starts and stops that fail, and of those that take very long.
    pub(crate) start_fails: u64,
    pub(crate) stop_fails: u64,
    pub(crate) slow_runner: u64,
    /// Longest a node takes to power up for the first time.
    pub(crate) boot: u64,
    /// Latest a thread runs after it should.
    pub(crate) jitter: u64,
}

/// How the nodes' own files behave.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Files {
    /// A core is told what stands there only some time after it has started.
    pub(crate) late: bool,
    /// Per mille of writes that fail, done or not.
    pub(crate) fails: u64,
}

impl Plan {
    /// A quiet cluster for a directed test.
    pub(crate) fn calm(nodes: usize, tasks: usize, detect_ms: u64) -> Plan {
        let timing = Timing::from_detect(Span::from_ms(detect_ms));
        let h = timing.heartbeat.0;
        Plan {
            nodes,
            tasks,
            networks: 2,
            disks: 1,
            timing,
            kinds: Vec::new(),
            strikes: Vec::new(),
            names: Names::numbered(nodes, tasks),
            clock_shift: 0,
            reservations: false,
            fences: None,
            compare_and_write: false,
            files: Files::default(),
            pace: u64::MAX / 4,
            faults_end: u64::MAX / 2,
            loss: 0,
            doubles: 0,
            late: 0,
            delay: h / 200 + 1,
            io: h / 50 + 1,
            slow_io: 0,
            start_fails: 0,
            stop_fails: 0,
            slow_runner: 0,
            boot: h,
            jitter: h / 100 + 1,
        }
    }

    /// The run of a seed.
    pub(crate) fn of_seed(rng: &mut Rng) -> Plan {
        let nodes = match rng.below(1_000) {
            0..400 => 2,
            400..750 => 3,
            750..985 => rng.between(4, 8) as usize,
            985..998 => rng.between(9, 16) as usize,
            _ => rng.between(17, NODES_MAX as u64) as usize,
        };
        let detect = rng.pick(&[100, 300, 500, 500, 1_000, 3_000]);
        let calm = Plan::calm(nodes, rng.between(1, 4) as usize, detect);
        let timing = calm.timing;
        let (h, d) = (timing.heartbeat.0, timing.detect.0);
        let often = |rng: &mut Rng, most: u64| rng.pick(&[0, 0, most / 10, most]);
        // Large clusters cost the square of their size.
        let longest = if nodes > 8 { 12 } else { 60 };
        // And when all of them join at once, at the speed of a disk that `check` just allows, views
        // change faster than an owner can read them.
        let io = if nodes > 3 {
            &[200, 100, 50, 50]
        } else {
            &[200, 50, 10, 4]
        };
        let mut plan = Plan {
            networks: rng.pick(&[0, 1, 1, 2, 2, 2]),
            kinds: kinds(rng),
            pace: d * rng.pick(&[1, 2, 4, 10, 20]) / 2,
            faults_end: d * rng.between(longest / 3, longest),
            loss: often(rng, 200),
            doubles: often(rng, 200),
            late: often(rng, 50),
            delay: h / rng.pick(&[1_000, 100, 10]) + 1,
            io: h / rng.pick(io) + 1,
            slow_io: often(rng, 50),
            start_fails: often(rng, 300),
            stop_fails: often(rng, 300),
            slow_runner: often(rng, 300),
            boot: d * rng.pick(&[0, 1, 5, 20]) + 1,
            jitter: h / rng.pick(&[1_000, 100, 20]) + 1,
            ..calm
        };
        plan.reservations = rng.chance(500);
        plan.strikes = draw::strikes(&plan, rng);
        // With chance of its own: a run without devices is what it would be if there were none.
        let mut own = Rng::new(rng.clone().next());
        plan.fences = own.chance(300).then(|| fences(&plan, &mut own));
        let mut own = Rng::new(!rng.clone().next());
        plan.files = Files {
            late: own.chance(300),
            fails: own.pick(&[0, 0, 50, 300]),
        };
        // By a coin of its own: all else is the same with either medium.
        let mut coin = rng.clone();
        plan.compare_and_write = coin.chance(300);
        if !plan.compare_and_write && coin.chance(450) {
            plan.disks = DISKS_MAX;
            draw::spread(&mut plan.strikes, &mut coin);
        }
        plan
    }

    /// Do networks lose or delay so much that they cannot be relied on at any time?
    pub(crate) fn networks_unreliable(&self) -> bool {
        self.loss >= 20 || self.late > 0
    }

    /// Is the disk slower than `check` asks for, at any time? A write and a read take twice `io`.
    pub(crate) fn disks_unreliable(&self) -> bool {
        self.slow_io > 0 || self.io * 2 > self.timing.disk_budget().0 + 2
    }
}

fn fences(plan: &Plan, rng: &mut Rng) -> Fences {
    let d = plan.timing.detect.0;
    Fences {
        required: rng.pick(&[0, 0, 1, u64::MAX]),
        fails: rng.pick(&[0, 100, 500, 1_000]),
        slow: rng.pick(&[0, 100, 500]),
        takes: d * rng.pick(&[1, 4, 20]) / 4,
        on_again: Some(d * rng.pick(&[1, 20])),
    }
}

fn kinds(rng: &mut Rng) -> Vec<Kind> {
    let mix = rng.below(10);
    let keep = rng.pick(&[150, 300, 600, 1_000]);
    let mut kinds = Vec::new();
    for (kind, _, field) in Kind::ALL {
        let allowed = match mix {
            0 => matches!(field, Field::Network | Field::Outsider),
            1 => matches!(field, Field::Disk | Field::Outsider),
            2 => matches!(field, Field::Task | Field::Clock),
            3 => !matches!(field, Field::Network | Field::Disk),
            _ => true,
        };
        if allowed && rng.chance(keep) {
            kinds.push(kind);
        }
    }
    kinds
}
