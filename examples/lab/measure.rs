//! Measurements: one thing many times, with the spread and not only the best.
//!
//! `gap` is from the last answer of the old owner to the first of the new one, `late` the client's
//! own worst lateness in that window: what it cannot have seen better. `mount` is how long the new
//! owner took to start the volume, by its own history, and `rest` what of each gap is left without
//! it: the cluster's share.

use std::fs;
use std::time::Duration;

use clap::ValueEnum;
use nix::unistd::Pid;
use serde::Serialize;
use standfast::node::page::word;

use crate::rig::lab::{Lab, Wish};
use crate::rig::node::{Node, Role};
use crate::rig::software::{Service, Software, VOLUME};
use crate::rig::trouble::{Doing, Trouble};
use crate::rig::verdict::Verdict;
use crate::show::{self, Spread};

/// Between two runs, so that one does not start in the middle of the other's aftermath.
const REST: Duration = Duration::from_secs(1);

/// What is measured, and how.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to measure
    what: What,
    /// How often
    #[arg(long, default_value_t = 20)]
    runs: u32,
    /// How long, where it is a matter of time
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Silence after which a node's tasks may run elsewhere, in milliseconds; several for `floor`
    #[arg(long, value_delimiter = ',', default_value = "500")]
    detect: Vec<u32>,
    /// What the task consists of
    #[arg(long, value_enum, default_value_t = Task::Echo)]
    task: Task,
    /// Measure keepalived with adverts of so many milliseconds instead
    #[arg(long)]
    keepalived: Option<u32>,
    /// Busy loops for each core and node, for `starve`
    #[arg(long, default_value_t = 8)]
    loops: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// The owner dies with all its processes and cables
    Murder,
    /// The task moves because somebody says so
    Switchover,
    /// The task's program is killed
    ProgramKill,
    /// Nothing happens but work of others: 8 busy loops a core
    Starve,
    /// Nothing happens: does a healthy node lose its lease at this `detect`?
    Floor,
    /// What the daemon costs at rest
    Cost,
    /// Murder and switchover, Standfast and keepalived in one run
    Peers,
}

#[derive(Clone, Copy, ValueEnum)]
enum Task {
    /// Only the address
    Address,
    /// The address and an echo server
    Echo,
    /// The same after a mounted ext4 volume
    Volume,
}

/// One line of the result.
#[derive(Serialize)]
struct Row {
    name: String,
    gap_ms: Spread,
    late_ms: Spread,
    /// None for a task without a volume, and where nothing is started elsewhere.
    mount_ms: Option<Spread>,
    /// Each gap without its own mount.
    rest_ms: Option<Spread>,
    moves: u32,
    two_owner_ms: u32,
    note: String,
}

impl Row {
    fn of(name: String, verdicts: &[Verdict]) -> Row {
        let all = |of: fn(&Verdict) -> f64| verdicts.iter().map(of).collect::<Vec<_>>();
        Row {
            name,
            gap_ms: Spread::of(&all(|verdict| verdict.gap_ms)),
            late_ms: Spread::of(&all(|verdict| verdict.late_ms_max)),
            mount_ms: None,
            rest_ms: None,
            moves: verdicts.iter().map(|verdict| verdict.moves).sum(),
            two_owner_ms: verdicts.iter().map(|verdict| verdict.two_owner_ms).sum(),
            note: String::new(),
        }
    }

    /// The same with gaps and the mounts that were part of them, in ms.
    fn with_mounts(self, mounts: &[(f64, f64)]) -> Row {
        let of = |one: fn(&(f64, f64)) -> f64| {
            let all: Vec<f64> = mounts.iter().map(one).collect();
            (!all.is_empty()).then(|| Spread::of(&all))
        };
        Row {
            mount_ms: of(|(_, mount)| *mount),
            rest_ms: of(|(gap, mount)| gap - mount),
            ..self
        }
    }

    fn cells(&self) -> Vec<String> {
        let optional = |spread: Option<Spread>| spread.map_or("-".to_owned(), |it| it.to_string());
        vec![
            self.name.clone(),
            self.gap_ms.to_string(),
            optional(self.mount_ms),
            optional(self.rest_ms),
            self.late_ms.to_string(),
            self.moves.to_string(),
            self.two_owner_ms.to_string(),
            self.note.clone(),
        ]
    }
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> Result<(), Trouble> {
    let mut rows = Vec::new();
    for &detect in &options.detect {
        let wish = options.wish(detect);
        match options.what {
            What::Peers => rows.extend(peers(options, wish)?),
            What::Murder => rows.push(many("murder", options, wish, Lab::murder_owner)?),
            What::Switchover => rows.push(many("switchover", options, wish, switch_over)?),
            What::ProgramKill => rows.push(many("program-kill", options, wish, Lab::kill_program)?),
            What::Starve => rows.push(quiet("starve", options, wish, options.loops)?),
            What::Floor => rows.push(quiet("floor", options, wish, 0)?),
            What::Cost => rows.push(cost(options, wish)?),
        }
    }
    if options.json {
        println!(
            "{}",
            serde_json::to_string(&rows).doing("write the result")?
        );
        return Ok(());
    }
    let head = [
        "what",
        "gap ms",
        "mount ms",
        "rest ms",
        "client late ms",
        "moves",
        "two owners ms",
        "note",
    ];
    println!(
        "{}",
        show::table(&head, &rows.iter().map(Row::cells).collect::<Vec<_>>())
    );
    Ok(())
}

impl Options {
    fn wish(&self, detect_ms: u32) -> Wish {
        let service = match self.task {
            Task::Address => Service::Address,
            Task::Echo => Service::Echo,
            Task::Volume => Service::Volume,
        };
        // A killed program is to be restarted, however often it is killed here.
        let wish = Wish {
            restarts: 1000,
            ..Wish::detect(detect_ms).with(service)
        };
        match self.keepalived {
            Some(advert_ms) => keepalived(wish, advert_ms),
            None => wish,
        }
    }
}

fn keepalived(wish: Wish, advert_ms: u32) -> Wish {
    Wish {
        software: Software::Keepalived { advert_ms },
        ..wish.with(Service::Address)
    }
}

fn title(what: &str, wish: &Wish) -> String {
    match wish.software {
        Software::Standfast => format!("{what}, detect {} ms, {:?}", wish.detect_ms, wish.service),
        Software::Keepalived { advert_ms } => format!("{what}, keepalived {advert_ms} ms"),
    }
}

fn many(
    what: &str,
    options: &Options,
    wish: Wish,
    once: impl Fn(&mut Lab) -> Result<Verdict, Trouble>,
) -> Result<Row, Trouble> {
    let mut lab = Lab::start(wish)?;
    let (mut verdicts, mut mounts) = (Vec::new(), Vec::new());
    for run in 1..=options.runs {
        let from = lab.probe.now();
        lab.probe.forget(from);
        lab.owner()?;
        let verdict = once(&mut lab)?;
        eprintln!(
            "{what} {run}: {} -> {}, gap {:.1} ms, two owners {} ms, client late {:.1} ms",
            lab.probe.name(verdict.owner_before),
            lab.probe.name(verdict.owner_after),
            verdict.gap_ms,
            verdict.two_owner_ms,
            verdict.late_ms_max
        );
        if let Some(mount_ms) = mount_ms(&lab, &verdict, from)? {
            eprintln!("    of it the mount {mount_ms:.1} ms");
            mounts.push((verdict.gap_ms, mount_ms));
        }
        verdicts.push(verdict);
        if run == options.runs {
            break;
        }
        if lab.nodes.iter().any(|node| node.machine().is_err()) {
            // A node that dies again and again is let in later and later: each death has its own
            // cluster.
            drop(lab);
            lab = Lab::start(wish)?;
        }
        lab.settle()?;
        std::thread::sleep(REST);
    }
    Ok(Row::of(title(what, &wish), &verdicts).with_mounts(&mounts))
}

/// How long the mount took that was part of this move; none if there was none to be made.
fn mount_ms(lab: &Lab, verdict: &Verdict, from: u64) -> Result<Option<f64>, Trouble> {
    let moved = verdict.owner_before != verdict.owner_after;
    let (true, Service::Volume, Some(owner)) = (moved, lab.wish.service, verdict.owner_after)
    else {
        return Ok(None);
    };
    let started = lab.nodes[owner].started_since(from)?;
    let missing = || Trouble::new(format!("{started:?} does not speak of {VOLUME}"));
    started.ms(VOLUME).map(Some).ok_or_else(missing)
}

fn switch_over(lab: &mut Lab) -> Result<Verdict, Trouble> {
    let owner = lab.owner()?;
    let verdict = lab.switch_over(1 - owner)?;
    if lab.wish.software != Software::Standfast {
        lab.nodes[owner].start_daemon()?;
    }
    Ok(verdict)
}

fn peers(options: &Options, wish: Wish) -> Result<Vec<Row>, Trouble> {
    let ours = wish.with(Service::Address);
    let mut rows = Vec::new();
    for wish in [ours, keepalived(wish, 1000), keepalived(wish, 10)] {
        rows.push(many("murder", options, wish, Lab::murder_owner)?);
        rows.push(many("switchover", options, wish, switch_over)?);
    }
    Ok(rows)
}

/// Nothing is done to the cluster for a while but, perhaps, the work of others.
fn quiet(what: &str, options: &Options, wish: Wish, loops: usize) -> Result<Row, Trouble> {
    let mut lab = Lab::start(wish)?;
    let cores = std::thread::available_parallelism()
        .doing("count the cores")?
        .get();
    let before = revocations(&lab);
    let mut burners = Vec::new();
    for node in &lab.nodes {
        burners.extend(node.burn(loops * cores)?);
    }
    let from = lab.probe.now();
    let verdict = lab.watch(from, Duration::from_secs(options.seconds));
    drop(burners);
    let mut row = Row::of(title(what, &wish), &[verdict]);
    let epochs: Vec<_> = lab
        .nodes
        .iter()
        .map(|node| node.page(word::EPOCH))
        .collect();
    let lost = revocations(&lab) - before;
    row.note = format!(
        "{} s, {lost} leases lost, epochs {epochs:?}",
        options.seconds
    );
    Ok(row)
}

fn revocations(lab: &Lab) -> u64 {
    lab.nodes
        .iter()
        .filter_map(|node| node.page(word::REVOCATIONS))
        .sum()
}

/// Memory and time of all processes of each daemon, with the cluster at rest.
fn cost(options: &Options, wish: Wish) -> Result<Row, Trouble> {
    let mut lab = Lab::start(wish)?;
    let spent =
        |node: &Node| processes(node).map(|pids| pids.iter().map(processor_ns).sum::<u64>());
    let before: Vec<u64> = lab.nodes.iter().map(spent).collect::<Result<_, _>>()?;
    let from = lab.probe.now();
    let verdict = lab.watch(from, Duration::from_secs(options.seconds));
    let mut notes = Vec::new();
    for (node, before) in lab.nodes.iter().zip(before) {
        let used = (spent(node)? - before) as f64 / 1e6 / options.seconds as f64;
        let memory: u64 = processes(node)?.iter().map(pss_kb).sum();
        notes.push(format!(
            "{}: PSS {:.1} MB, {used:.1} ms/s",
            node.name,
            memory as f64 / 1024.0
        ));
    }
    let mut row = Row::of(title("cost", &wish), &[verdict]);
    row.note = notes.join("; ");
    Ok(row)
}

fn processes(node: &Node) -> Result<Vec<Pid>, Trouble> {
    [Role::Guard, Role::Core, Role::Runner]
        .into_iter()
        .map(|role| node.pid(role))
        .collect()
}

/// Time on a processor in nanoseconds, of all threads (proc(5), schedstat). The times in `stat` are
/// sampled at timer ticks, at which a program that runs by timers is caught more often than not.
fn processor_ns(pid: &Pid) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    threads
        .filter_map(|thread| {
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum()
}

fn pss_kb(pid: &Pid) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .unwrap_or_default();
    line.split_whitespace()
        .next()
        .and_then(|kb| kb.parse().ok())
        .unwrap_or(0)
}
