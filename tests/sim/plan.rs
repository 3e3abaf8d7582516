//! What a seed stands for: the cluster, how bad its media are, what goes wrong in it and how often.
//!
//! Only what the design promises to survive goes wrong: clock rates stay within 0.1 %, blocks land
//! whole, an earlier daemon's write is over before the next one reads, nobody lies about a stop.

use standfast::config::Timing;
use standfast::time::Span;

use crate::rng::Rng;

/// What can go wrong. One row of [`Kind::ALL`] each, with the share it has in a mix that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    PowerCut,
    CoreCrash,
    CorePause,
    NodePause,
    DaemonRestart,
    RunnerCrash,
    CutOneWay,
    CutLink,
    CutNode,
    LinkDown,
    Replay,
    DiskHang,
    DiskPathLoss,
    TaskDeath,
    Unfit,
    Operator,
    Leave,
}

impl Kind {
    pub(crate) const ALL: [Kind; 17] = [
        Kind::PowerCut,
        Kind::CoreCrash,
        Kind::CorePause,
        Kind::NodePause,
        Kind::DaemonRestart,
        Kind::RunnerCrash,
        Kind::CutOneWay,
        Kind::CutLink,
        Kind::CutNode,
        Kind::LinkDown,
        Kind::Replay,
        Kind::DiskHang,
        Kind::DiskPathLoss,
        Kind::TaskDeath,
        Kind::Unfit,
        Kind::Operator,
        Kind::Leave,
    ];

    /// For the count of what happened.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::PowerCut => "power cut",
            Kind::CoreCrash => "core crash",
            Kind::CorePause => "core pause",
            Kind::NodePause => "node pause",
            Kind::DaemonRestart => "daemon restart",
            Kind::RunnerCrash => "runner crash",
            Kind::CutOneWay => "cut one way",
            Kind::CutLink => "cut link",
            Kind::CutNode => "cut node",
            Kind::LinkDown => "link down",
            Kind::Replay => "replay",
            Kind::DiskHang => "disk hang",
            Kind::DiskPathLoss => "disk path loss",
            Kind::TaskDeath => "task death",
            Kind::Unfit => "unfit",
            Kind::Operator => "operator",
            Kind::Leave => "leave",
        }
    }

    /// Does it touch the network, so that a healthy disk has to carry all?
    pub(crate) fn of_network(self) -> bool {
        use Kind::*;
        matches!(self, CutOneWay | CutLink | LinkDown | Replay)
    }

    /// Does it touch the disk only?
    pub(crate) fn of_disk(self) -> bool {
        matches!(self, Kind::DiskHang | Kind::DiskPathLoss)
    }

    /// Can it make a node silent or unable to write, all media being well?
    pub(crate) fn of_node(self) -> bool {
        !self.of_network()
            && !self.of_disk()
            && !matches!(
                self,
                Kind::RunnerCrash | Kind::TaskDeath | Kind::Unfit | Kind::Operator
            )
    }
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) tasks: usize,
    pub(crate) networks: usize,
    pub(crate) timing: Timing,
    pub(crate) kinds: Vec<Kind>,
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

impl Plan {
    /// A quiet cluster for a directed test.
    pub(crate) fn calm(nodes: usize, tasks: usize, detect_ms: u64) -> Plan {
        let timing = Timing::from_detect(Span::from_ms(detect_ms));
        let h = timing.heartbeat.0;
        Plan {
            nodes,
            tasks,
            networks: 2,
            timing,
            kinds: Vec::new(),
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
        let nodes = rng.pick(&[2, 2, 2, 2, 3, 3, 3, 3, 4, 5, 8]);
        let detect = rng.pick(&[100, 300, 500, 500, 1_000, 3_000]);
        let calm = Plan::calm(nodes, rng.between(1, 4) as usize, detect);
        let timing = calm.timing;
        let (h, d) = (timing.heartbeat.0, timing.detect.0);
        let often = |rng: &mut Rng, most: u64| rng.pick(&[0, 0, most / 10, most]);
        Plan {
            networks: rng.pick(&[0, 1, 1, 2, 2, 2]),
            kinds: kinds(rng),
            pace: d * rng.pick(&[1, 2, 4, 10, 20]) / 2,
            faults_end: d * rng.between(20, 60),
            loss: often(rng, 200),
            doubles: often(rng, 200),
            late: often(rng, 50),
            delay: h / rng.pick(&[1_000, 100, 10]) + 1,
            io: h / rng.pick(&[200, 50, 10, 4]) + 1,
            slow_io: often(rng, 50),
            start_fails: often(rng, 300),
            stop_fails: often(rng, 300),
            slow_runner: often(rng, 300),
            boot: d * rng.pick(&[0, 1, 5, 20]) + 1,
            jitter: h / rng.pick(&[1_000, 100, 20]) + 1,
            ..calm
        }
    }

    /// Does nothing in this run justify that a node which is up is put out? Both media are never
    /// bad together, every node runs, and neither medium is slower than the design asks for.
    pub(crate) fn forbids_eviction(&self) -> bool {
        let network = self.kinds.iter().any(|kind| kind.of_network()) || self.networks == 0;
        let disk = self.kinds.iter().any(|kind| kind.of_disk());
        let disk_slow = self.slow_io > 0 || self.io > self.timing.heartbeat.0 / 10;
        let lossy = self.loss > 20 || self.late > 0;
        let node = self.kinds.iter().any(|kind| kind.of_node());
        !node && !((network || lossy) && (disk || disk_slow)) && !(self.networks == 0 && disk)
    }
}

fn kinds(rng: &mut Rng) -> Vec<Kind> {
    let mix = rng.below(10);
    let keep = rng.pick(&[150, 300, 600, 1_000]);
    let mut kinds = Vec::new();
    for kind in Kind::ALL {
        let allowed = match mix {
            0 => kind.of_network(),
            1 => kind.of_disk(),
            2 => matches!(kind, Kind::Operator | Kind::Unfit | Kind::TaskDeath),
            3 => !kind.of_network() && !kind.of_disk(),
            _ => true,
        };
        if allowed && rng.chance(keep) {
            kinds.push(kind);
        }
    }
    kinds
}
