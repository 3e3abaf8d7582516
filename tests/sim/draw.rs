//! From chance to strikes: which faults a run has, when, and how long they last.

use standfast::engine::Command;
use standfast::model::{NodeId, TaskIndex};
use standfast::register::DISKS_MAX;

use crate::plan::{Kind, Plan};
use crate::rng::Rng;
use crate::strike::{Attack, Cable, Flaw, Ill, Part, Strike};

/// Most strikes of one run; a run with more would only be longer.
const STRIKES_MAX: usize = 400;

/// Per mille of strikes at a node that wait for its next register write.
const AIMED: u64 = 200;

/// Every strike of the run, in order. Moments and lengths are whole microseconds.
pub(crate) fn strikes(plan: &Plan, rng: &mut Rng) -> Vec<(u64, Strike)> {
    let mut strikes = Vec::new();
    let d = plan.timing.detect.0;
    let mut at = d * 4;
    while at < plan.faults_end && !plan.kinds.is_empty() && strikes.len() < STRIKES_MAX {
        let kind = rng.pick(&plan.kinds);
        if let Some(strike) = draw(kind, plan, rng) {
            strikes.push((whole(at), aimed(strike, rng)));
        }
        // Sometimes the next comes while this one is being handled.
        let pace = if rng.chance(200) {
            plan.timing.heartbeat.0
        } else {
            plan.pace * 2
        };
        at += rng.below(pace) + 1;
    }
    strikes
}

/// On three disks: which of them each strike is at, and whether it is all nodes' path to it.
pub(crate) fn spread(strikes: &mut [(u64, Strike)], rng: &mut Rng) {
    for (_, strike) in strikes {
        let strike = match strike {
            Strike::WhenWriting { strike, .. } => strike,
            strike => strike,
        };
        if let Strike::Disk {
            disk, ill, span, ..
        } = strike
        {
            *disk = rng.below(DISKS_MAX as u64) as usize;
            if rng.chance(300) {
                let (disk, ill, span) = (*disk, *ill, *span);
                *strike = Strike::Array { disk, ill, span };
            }
        }
    }
}

/// Register writes are short and rare: what should strike during one waits for it.
fn aimed(strike: Strike, rng: &mut Rng) -> Strike {
    let node = match strike {
        Strike::PowerOff { node, .. }
        | Strike::Kill { node, .. }
        | Strike::Stop { node, .. }
        | Strike::Freeze { node, .. }
        | Strike::Disk { node, .. }
            if rng.chance(AIMED) =>
        {
            node
        }
        _ => return strike,
    };
    let strike = Box::new(strike);
    Strike::WhenWriting { node, strike }
}

fn whole(time: u64) -> u64 {
    time.div_ceil(1_000) * 1_000
}

fn draw(kind: Kind, plan: &Plan, rng: &mut Rng) -> Option<Strike> {
    let (h, d) = (plan.timing.heartbeat.0, plan.timing.detect.0);
    let node = rng.below(plan.nodes as u64) as usize;
    let mut lasting = |longest: u64| whole(rng.skewed(longest));
    Some(match kind {
        Kind::PowerCut => Strike::PowerOff {
            node,
            span: Some(lasting(d * 20)),
        },
        Kind::CoreCrash => kill(Part::Core, node, lasting(d)),
        Kind::DaemonRestart => kill(Part::Guard, node, lasting(d * 2)),
        Kind::RunnerCrash => kill(Part::Runner, node, plan.jitter + lasting(d * 4)),
        Kind::CorePause => stop(Part::Core, node, lasting(d * 4)),
        Kind::GuardPause => stop(Part::Guard, node, lasting(d * 4)),
        Kind::RunnerPause => stop(Part::Runner, node, lasting(d * 4)),
        Kind::NodePause => stop(Part::Node, node, lasting(d * 4)),
        Kind::Freeze => Strike::Freeze {
            node,
            span: lasting(d * 8),
        },
        Kind::Leave => Strike::Leave { node },
        Kind::Drift => Strike::Drift {
            node,
            span: Some(lasting(d * 20)),
        },
        Kind::ClockRate => Strike::Rate {
            node,
            ppm: rng.between(0, 2_000) as i64 - 1_000,
        },
        Kind::WallStep => Strike::WallStep {
            node,
            seconds: rng.between(0, 200_000) as i64 - 100_000,
        },
        Kind::DiskHang | Kind::DiskPathLoss | Kind::DiskSlow | Kind::DiskGarbled => Strike::Disk {
            node,
            disk: 0,
            ill: ill(kind),
            span: Some(lasting(d * 5)),
        },
        Kind::Operator => Strike::Ask {
            node,
            command: command(plan, rng),
        },
        Kind::TaskDeath | Kind::Flaw | Kind::Unfit => task_strike(kind, node, plan, rng),
        Kind::Attack => Strike::Attack {
            attack: rng.pick(&Attack::ALL),
            count: rng.below(20) + 1,
        },
        Kind::CutOneWay
        | Kind::CutLink
        | Kind::CutNode
        | Kind::LinkDown
        | Kind::Flap
        | Kind::Clog
        | Kind::Cross => return network_strike(kind, node, h, plan, rng),
    })
}

fn kill(part: Part, node: usize, span: u64) -> Strike {
    Strike::Kill {
        part,
        node,
        span: whole(span),
    }
}

fn stop(part: Part, node: usize, span: u64) -> Strike {
    Strike::Stop { part, node, span }
}

fn ill(kind: Kind) -> Ill {
    match kind {
        Kind::DiskPathLoss => Ill::Lost,
        Kind::DiskSlow => Ill::Slow,
        Kind::DiskGarbled => Ill::Garbled,
        _ => Ill::Hangs,
    }
}

fn task_strike(kind: Kind, node: usize, plan: &Plan, rng: &mut Rng) -> Strike {
    let d = plan.timing.detect.0;
    let task = rng.below(plan.tasks as u64) as usize;
    let span = Some(whole(rng.skewed(d * 5)));
    match kind {
        Kind::TaskDeath => Strike::TaskDies { task },
        Kind::Flaw => Strike::Flaw {
            task,
            node,
            flaw: rng.pick(&[Flaw::StartsFail, Flaw::StopsFail, Flaw::Slow]),
            span,
        },
        _ => Strike::Unfit {
            node,
            tasks: rng.next(),
            span,
        },
    }
}

fn network_strike(kind: Kind, node: usize, h: u64, plan: &Plan, rng: &mut Rng) -> Option<Strike> {
    if plan.networks == 0 {
        return None;
    }
    let d = plan.timing.detect.0;
    let link = rng.below(plan.networks as u64) as usize;
    let others: Vec<usize> = (0..plan.nodes).filter(|other| *other != node).collect();
    let other = rng.pick(&others);
    let span = whole(rng.skewed(d * 5));
    let some_link = if rng.chance(400) { None } else { Some(link) };
    let between = Cable {
        link: some_link,
        from: Some(node),
        to: Some(other),
        both: kind == Kind::CutLink,
    };
    let whole_node = Cable {
        link: None,
        from: Some(node),
        to: None,
        both: true,
    };
    let last = Some(span);
    Some(match kind {
        Kind::CutOneWay | Kind::CutLink => Strike::Cut {
            cable: between,
            span: last,
        },
        Kind::CutNode => Strike::Cut {
            cable: whole_node,
            span: last,
        },
        Kind::LinkDown => Strike::LinkDown {
            node,
            link,
            span: last,
        },
        Kind::Flap => Strike::Flap {
            node,
            link,
            times: rng.below(20) + 1,
            every: whole(rng.skewed(h * 2)),
        },
        Kind::Clog => Strike::Clog {
            link,
            span: whole(rng.skewed(d)),
        },
        _ => Strike::Cross { node, span: last },
    })
}

fn command(plan: &Plan, rng: &mut Rng) -> Command {
    let task = rng.below(plan.tasks as u64) as usize;
    let task = TaskIndex::new(task).expect("few tasks");
    let node = rng.below(plan.nodes as u64) as usize;
    let node = NodeId::new(node as u8 + 1).expect("few nodes");
    match rng.below(10) {
        0..=4 => Command::Move { task, to: node },
        5 => Command::Stop { task },
        6 => Command::Start { task },
        7 => Command::Standby { node },
        _ => Command::Online { node },
    }
}
