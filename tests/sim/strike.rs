//! What goes wrong, or is asked for: each with all that it needs, so that a plan is a list of
//! these, a shrunk plan a shorter list, and a script's line one of them.

use standfast::engine::Command;
use standfast::model::{NodeId, TaskIndex};

/// Names of what the strikes are about, for people.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) nodes: Vec<String>,
    pub(crate) tasks: Vec<String>,
}

impl Names {
    pub(crate) fn numbered(nodes: usize, tasks: usize) -> Names {
        Names {
            nodes: (1..=nodes).map(|id| format!("n{id}")).collect(),
            tasks: (0..tasks).map(|task| format!("t{task}")).collect(),
        }
    }

    pub(crate) fn id(&self, node: NodeId) -> &str {
        self.nodes.get(node.index()).map_or("?", String::as_str)
    }

    fn task(&self, task: TaskIndex) -> &str {
        self.tasks.get(task.index()).map_or("?", String::as_str)
    }
}

/// Network paths: of one link or all, from one node or all, to one or all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cable {
    pub(crate) link: Option<usize>,
    pub(crate) from: Option<usize>,
    pub(crate) to: Option<usize>,
    /// The way back too.
    pub(crate) both: bool,
}

impl Cable {
    /// Every path it means, as link, sender, hearer.
    pub(crate) fn paths(self, links: usize, nodes: usize) -> Vec<(usize, usize, usize)> {
        let is = |wanted: Option<usize>, index: usize| wanted.is_none_or(|wanted| wanted == index);
        let mut paths = Vec::new();
        for link in (0..links).filter(|link| is(self.link, *link)) {
            for from in 0..nodes {
                for to in (0..nodes).filter(|to| *to != from) {
                    let there = is(self.from, from) && is(self.to, to);
                    let back = self.both && is(self.from, to) && is(self.to, from);
                    if there || back {
                        paths.push((link, from, to));
                    }
                }
            }
        }
        paths
    }

    fn words(self, names: &Names) -> String {
        let link = self
            .link
            .map_or("all links".to_owned(), |link| format!("link {link}"));
        match (self.from, self.to, self.both) {
            (None, None, _) => link,
            (Some(node), None, true) => format!("{link} of {}", names.nodes[node]),
            (Some(one), Some(two), true) => {
                format!(
                    "{link} between {} and {}",
                    names.nodes[one], names.nodes[two]
                )
            }
            (from, to, _) => {
                let from = from.map(|node| format!(" from {}", names.nodes[node]));
                let to = to.map(|node| format!(" to {}", names.nodes[node]));
                format!(
                    "{link}{}{}",
                    from.unwrap_or_default(),
                    to.unwrap_or_default()
                )
            }
        }
    }
}

/// A part of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Engine and links.
    Core,
    /// The guard; when it is killed, everything goes with it.
    Guard,
    Runner,
    /// All three, and what the tasks run: the machine is there but does nothing.
    Node,
}

impl Part {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Part::Core => "core",
            Part::Guard => "guard",
            Part::Runner => "runner",
            Part::Node => "node",
        }
    }
}

/// What a disk path does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ill {
    /// Answers nothing, and later everything.
    Hangs,
    /// Every operation fails; it may have been done.
    Lost,
    /// Every operation takes half the detect time at most.
    Slow,
    /// Reads return flipped bits, which the tags tell.
    Garbled,
}

impl Ill {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Ill::Hangs => "hangs",
            Ill::Lost => "is lost",
            Ill::Slow => "is slow",
            Ill::Garbled => "is garbled",
        }
    }
}

/// What a device does that switches a node off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// Every call fails.
    Fails,
    /// Every call takes twenty times as long.
    Slow,
}

impl Device {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Device::Fails => "fails",
            Device::Slow => "is slow",
        }
    }
}

/// What an outsider does with the frames on a network, or on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    /// Frames seen earlier come once more.
    Replay,
    /// Frames seen earlier come once more with one bit changed.
    Flip,
    /// Frames made up, with a wrong secret.
    Forge,
    /// Made-up and changed bytes are written over heartbeats on the disk.
    Slots,
}

impl Attack {
    pub(crate) const ALL: [Attack; 4] =
        [Attack::Replay, Attack::Flip, Attack::Forge, Attack::Slots];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Attack::Replay => "replay",
            Attack::Flip => "flip",
            Attack::Forge => "forge",
            Attack::Slots => "overwrite",
        }
    }
}

/// What the objects of a task do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    StartsFail,
    StopsFail,
    Slow,
}

impl Flaw {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Flaw::StartsFail => "cannot start",
            Flaw::StopsFail => "cannot stop",
            Flaw::Slow => "is slow",
        }
    }
}

/// One thing that happens to the world. Times are nanoseconds; one without an end lasts until
/// everything heals.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Strike {
    PowerOn {
        node: usize,
    },
    PowerOff {
        node: usize,
        span: Option<u64>,
    },
    /// Killed, and started again after the span.
    Kill {
        part: Part,
        node: usize,
        span: u64,
    },
    /// Stands still while its clock goes on.
    Stop {
        part: Part,
        node: usize,
        span: u64,
    },
    /// The virtual machine is paused, its clock with it.
    Freeze {
        node: usize,
        span: u64,
    },
    Cut {
        cable: Cable,
        span: Option<u64>,
    },
    Mend {
        cable: Cable,
    },
    /// The interface has no carrier.
    LinkDown {
        node: usize,
        link: usize,
        span: Option<u64>,
    },
    Flap {
        node: usize,
        link: usize,
        times: u64,
        every: u64,
    },
    /// Holds all frames back and delivers them together, in order.
    Clog {
        link: usize,
        span: u64,
    },
    /// The cables of the first two links are swapped at this node.
    Cross {
        node: usize,
        span: Option<u64>,
    },
    Disk {
        node: usize,
        disk: usize,
        ill: Ill,
        span: Option<u64>,
    },
    /// One disk, for all nodes.
    Array {
        disk: usize,
        ill: Ill,
        span: Option<u64>,
    },
    DiskWell {
        node: usize,
    },
    /// The device that switches this node off.
    Fence {
        node: usize,
        device: Device,
        span: Option<u64>,
    },
    Attack {
        attack: Attack,
        count: u64,
    },
    /// Everything of the task ends wherever it runs.
    TaskDies {
        task: usize,
    },
    Flaw {
        task: usize,
        node: usize,
        flaw: Flaw,
        span: Option<u64>,
    },
    Unfit {
        node: usize,
        tasks: u64,
        span: Option<u64>,
    },
    Ask {
        node: usize,
        command: Command,
    },
    Leave {
        node: usize,
    },
    /// The daemon is started anew with another configuration, and after the span with the right
    /// one.
    Drift {
        node: usize,
        span: Option<u64>,
    },
    /// The clock runs this much fast from now on.
    Rate {
        node: usize,
        ppm: i64,
    },
    /// The wall clock is set.
    WallStep {
        node: usize,
        seconds: i64,
    },
    /// A second machine with this node's id and secret is switched on.
    Twin {
        node: usize,
    },
    /// The content of all disks is kept, to be restored.
    SaveDisk,
    /// All of them, or one.
    RestoreDisk {
        only: Option<usize>,
    },
    /// Comes while the node's next write of its register block is under way.
    WhenWriting {
        node: usize,
        strike: Box<Strike>,
    },
}

/// Milliseconds or seconds, as a script has them.
pub(crate) fn time(span: u64) -> String {
    match span {
        span if span % 1_000_000_000 == 0 && span > 0 => format!("{}s", span / 1_000_000_000),
        span if span % 1_000_000 == 0 => format!("{}ms", span / 1_000_000),
        span => format!("{}us", span / 1_000),
    }
}

/// The first disk is the only one in most worlds.
pub(crate) fn disk_word(disk: usize) -> String {
    match disk {
        0 => "disk".to_owned(),
        other => format!("disk-{}", other + 1),
    }
}

fn lasts(span: Option<u64>) -> String {
    span.map_or(String::new(), |span| format!(" for {}", time(span)))
}

impl Strike {
    /// As a line of a script.
    pub(crate) fn words(&self, names: &Names) -> String {
        let node = |node: usize| names.nodes.get(node).map_or("?", String::as_str);
        match self {
            Strike::PowerOn { node: n } => format!("power-on {}", node(*n)),
            Strike::PowerOff { node: n, span } => format!("power-off {}{}", node(*n), lasts(*span)),
            Strike::Kill {
                part,
                node: n,
                span,
            } => {
                format!("kill {} on {}{}", part.word(), node(*n), lasts(Some(*span)))
            }
            Strike::Stop {
                part,
                node: n,
                span,
            } => {
                format!("stop {} on {}{}", part.word(), node(*n), lasts(Some(*span)))
            }
            Strike::Freeze { node: n, span } => {
                format!("freeze {}{}", node(*n), lasts(Some(*span)))
            }
            Strike::TaskDies { task } => format!("{} dies", names.tasks[*task]),
            Strike::Flaw {
                task,
                node: n,
                flaw,
                span,
            } => {
                let task = &names.tasks[*task];
                format!("{task} {} on {}{}", flaw.words(), node(*n), lasts(*span))
            }
            Strike::Unfit { node: n, span, .. } => format!("unfit {}{}", node(*n), lasts(*span)),
            Strike::Ask { node: n, command } => {
                format!("ask {}: {}", node(*n), command_words(command, names))
            }
            Strike::Leave { node: n } => format!("leave {}", node(*n)),
            Strike::Drift { node: n, span } => format!("drift {}{}", node(*n), lasts(*span)),
            Strike::Rate { node: n, ppm } => format!("clock of {} runs {ppm} ppm fast", node(*n)),
            Strike::WallStep { node: n, seconds } => {
                format!("wall clock of {} steps {seconds} s", node(*n))
            }
            Strike::Twin { node: n } => format!("twin of {}", node(*n)),
            Strike::WhenWriting { node: n, strike } => {
                format!("when {} writes {}", node(*n), strike.words(names))
            }
            _ => self.words_of_media(names),
        }
    }

    fn words_of_media(&self, names: &Names) -> String {
        let node = |node: usize| names.nodes.get(node).map_or("?", String::as_str);
        match self {
            Strike::Cut { cable, span } => format!("cut {}{}", cable.words(names), lasts(*span)),
            Strike::Mend { cable } => format!("mend {}", cable.words(names)),
            Strike::LinkDown {
                node: n,
                link,
                span,
            } => {
                format!("down link {link} of {}{}", node(*n), lasts(*span))
            }
            Strike::Flap {
                node: n,
                link,
                times,
                every,
            } => {
                format!(
                    "flap link {link} of {} {times} times every {}",
                    node(*n),
                    time(*every)
                )
            }
            Strike::Clog { link, span } => format!("clog link {link}{}", lasts(Some(*span))),
            Strike::Cross { node: n, span } => {
                format!("cross links of {}{}", node(*n), lasts(*span))
            }
            Strike::Disk {
                node: n,
                disk,
                ill,
                span,
            } => {
                let disk = disk_word(*disk);
                format!("{disk} of {} {}{}", node(*n), ill.word(), lasts(*span))
            }
            Strike::Array { disk, ill, span } => {
                let disk = disk_word(*disk);
                format!("{disk} of all {}{}", ill.word(), lasts(*span))
            }
            Strike::DiskWell { node: n } => format!("disk of {} is well", node(*n)),
            Strike::Fence {
                node: n,
                device,
                span,
            } => {
                format!("fence of {} {}{}", node(*n), device.word(), lasts(*span))
            }
            Strike::Attack { attack, count } => format!("{} {count} frames", attack.word()),
            Strike::SaveDisk => "save-disk".into(),
            Strike::RestoreDisk { only } => {
                format!("restore-{}", only.map_or("disk".into(), disk_word))
            }
            other => format!("{other:?}"),
        }
    }
}

fn command_words(command: &Command, names: &Names) -> String {
    match *command {
        Command::Move { task, to } => format!("move {} to {}", names.task(task), names.id(to)),
        Command::Start { task } => format!("start {}", names.task(task)),
        Command::Stop { task } => format!("stop {}", names.task(task)),
        Command::Standby { node } => format!("standby {}", names.id(node)),
        Command::Online { node } => format!("online {}", names.id(node)),
        Command::ConfirmOff { node } => format!("confirm-off {}", names.id(node)),
    }
}

impl Strike {
    /// For the count of what happened.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Strike::PowerOn { .. } => "power on",
            Strike::PowerOff { .. } => "power cut",
            Strike::Kill { part, .. } => match part {
                Part::Core => "core crash",
                Part::Runner => "runner crash",
                Part::Guard | Part::Node => "daemon restart",
            },
            Strike::Stop { part, .. } => match part {
                Part::Core => "core pause",
                Part::Guard => "guard pause",
                Part::Runner => "runner pause",
                Part::Node => "node pause",
            },
            Strike::Freeze { .. } => "frozen machine",
            Strike::Cut { cable, .. } if cable.to.is_none() => "cut node",
            Strike::Cut { cable, .. } if cable.both => "cut link",
            Strike::Cut { .. } => "cut one way",
            Strike::Mend { .. } => "mended",
            Strike::LinkDown { .. } => "link down",
            Strike::Flap { .. } => "flapping link",
            Strike::Clog { .. } => "clogged link",
            Strike::Cross { .. } => "crossed cables",
            Strike::Disk { ill, .. } | Strike::Array { ill, .. } => match ill {
                Ill::Hangs => "disk hang",
                Ill::Lost => "disk path loss",
                Ill::Slow => "slow disk",
                Ill::Garbled => "garbled disk",
            },
            Strike::DiskWell { .. } => "disk well",
            Strike::Fence { .. } => "bad fence",
            Strike::Attack { .. } => "attack",
            Strike::TaskDies { .. } => "task death",
            Strike::Flaw { .. } => "flawed task",
            Strike::Unfit { .. } => "unfit",
            Strike::Ask { .. } => "operator",
            Strike::Leave { .. } => "leave",
            Strike::Drift { .. } => "configuration drift",
            Strike::Rate { .. } => "clock rate",
            Strike::WallStep { .. } => "wall clock step",
            Strike::Twin { .. } => "twin",
            Strike::SaveDisk => "disk saved",
            Strike::RestoreDisk { .. } => "disk restored",
            Strike::WhenWriting { strike, .. } => strike.name(),
        }
    }
}
