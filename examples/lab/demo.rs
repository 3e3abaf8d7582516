//! The demonstration: what goes wrong in a server room, in under a minute, with the gaps measured.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::rig::lab::{Lab, Wish};
use crate::rig::node::HEARTBEATS;
use crate::rig::software::{ADDRESS, DATA, Service, TASK};
use crate::rig::trouble::{Doing, Trouble};
use crate::rig::verdict::Verdict;
use crate::show;

/// How long a pulled cable stays pulled, at least.
const PULLED: Duration = Duration::from_secs(3);

/// How the demonstration runs.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Leave the cluster running and say how to play with it
    #[arg(long)]
    keep: bool,
    /// Print one JSON object, and the story elsewhere
    #[arg(long)]
    json: bool,
    /// Silence after which a node's tasks may run elsewhere, in milliseconds
    #[arg(long, default_value_t = 500)]
    detect: u32,
}

/// One step as it was measured.
#[derive(Serialize)]
struct Step {
    name: &'static str,
    owner_before: String,
    owner_after: String,
    gap_ms: f64,
    two_owner_ms: u32,
    moves: u32,
}

#[derive(Serialize)]
struct Report {
    detect_ms: u32,
    steps: Vec<Step>,
}

struct Show {
    lab: Lab,
    begun: Instant,
    json: bool,
    steps: Vec<Step>,
    wrong: Vec<String>,
}

/// Runs it.
pub(crate) fn run(options: &Options) -> Result<(), Trouble> {
    let begun = Instant::now();
    let tell = |line: &str| tell(options.json, begun, line);
    tell(
        "Two servers, a and b: each has two cables to the other, one to the clients, and a path to",
    );
    tell("one shared disk. All of it in namespaces: real frames, real sectors, real addresses.");
    let wish = Wish {
        lasting: options.keep,
        ..Wish::detect(options.detect)
    };
    let lab = Lab::start(wish.with(Service::Volume))?;
    let (json, steps, wrong) = (options.json, Vec::new(), Vec::new());
    let mut show = Show {
        lab,
        begun,
        json,
        steps,
        wrong,
    };
    show.cables_and_commands()?;
    show.faults()?;
    show.finish(options.keep)
}

impl Show {
    fn tell(&self, line: &str) {
        tell(self.json, self.begun, line);
    }

    /// Notes a step and whether it went as it must.
    fn step(&mut self, name: &'static str, verdict: &Verdict, moves: u32) {
        let owner = |node| self.lab.probe.name(node).to_owned();
        let (before, after) = (owner(verdict.owner_before), owner(verdict.owner_after));
        let gap_ms = (verdict.gap_ms * 10.0).round() / 10.0;
        self.tell(&format!(
            "  -> {before} before, {after} after; longest silence {gap_ms} ms; two owners: {} ms",
            verdict.two_owner_ms
        ));
        if verdict.moves != moves || verdict.two_owner_ms > 0 || verdict.owner_after.is_none() {
            self.wrong.push(format!(
                "{name}: {} moves instead of {moves}, {} ms with two owners",
                verdict.moves, verdict.two_owner_ms
            ));
        }
        let two_owner_ms = verdict.two_owner_ms;
        let (owner_before, owner_after) = (before, after);
        let moves = verdict.moves;
        self.steps.push(Step {
            name,
            owner_before,
            owner_after,
            gap_ms,
            two_owner_ms,
            moves,
        });
    }

    fn cables_and_commands(&mut self) -> Result<(), Trouble> {
        let owner = self.lab.owner()?;
        let (us, them) = (
            self.lab.name(owner).to_owned(),
            self.lab.name(1 - owner).to_owned(),
        );
        self.tell(&format!(
            "The cluster has formed. Task `{TASK}` runs on {us}: {DATA} is mounted, the address is \
             {ADDRESS}, an echo server answers."
        ));
        self.tell("A client asks it every millisecond from here on.");
        self.tell(&format!("An operator says: standfast move {TASK} {them}"));
        let verdict = self.lab.switch_over(1 - owner)?;
        self.step("switchover", &verdict, 1);

        self.tell("Somebody pulls one cable between the servers.");
        let from = self.lab.probe.now();
        self.lab.nodes[0].wire(&HEARTBEATS[..1], false)?;
        let verdict = self.lab.watch(from, PULLED);
        self.step("one-cable", &verdict, 0);

        self.tell("And the other one: no network is left between them, only the disk.");
        let from = self.lab.probe.now();
        for node in &self.lab.nodes {
            node.wire(&HEARTBEATS, false)?;
        }
        std::thread::sleep(PULLED);
        self.tell(&format!(
            "Commands go through the disk as well: standby {us}, online {us}"
        ));
        for command in ["standby", "online"] {
            self.lab.nodes[1 - owner].cli(&[command, &us])?;
        }
        let verdict = self.lab.watch(from, Duration::from_millis(500));
        self.step("all-cables", &verdict, 0);
        for node in &self.lab.nodes {
            node.wire(&HEARTBEATS, true)?;
        }
        self.tell("All cables are back.");
        Ok(())
    }

    fn faults(&mut self) -> Result<(), Trouble> {
        self.tell("The echo server crashes.");
        let verdict = self.lab.kill_program()?;
        self.step("program-kill", &verdict, 0);

        let owner = self.lab.owner()?;
        let name = self.lab.name(owner).to_owned();
        self.tell(&format!(
            "Server {name} dies: all its processes and all its cables, at once."
        ));
        let verdict = self.lab.murder_owner()?;
        self.step("murder", &verdict, 1);

        self.tell(&format!(
            "Server {name} boots again and comes back as the standby."
        ));
        let from = self.lab.probe.now();
        self.lab.nodes[owner].boot()?;
        self.lab.nodes[owner].wait_until_ready()?;
        let verdict = self.lab.watch(from, Duration::from_secs(1));
        self.step("rejoin", &verdict, 0);
        Ok(())
    }

    fn finish(self, keep: bool) -> Result<(), Trouble> {
        let Show {
            lab,
            begun,
            json,
            steps,
            wrong,
        } = self;
        if json {
            let report = Report {
                detect_ms: lab.wish.detect_ms,
                steps,
            };
            println!(
                "{}",
                serde_json::to_string(&report).doing("write the report")?
            );
        } else {
            println!("\n{}", figures(&steps));
        }
        if keep {
            let directory = lab.directory().to_owned();
            lab.keep()?;
            hints(json, begun, &directory);
        } else {
            drop(lab);
            tell(json, begun, "All of it is gone again.");
        }
        if wrong.is_empty() {
            return Ok(());
        }
        Err(Trouble::new(format!(
            "this is not what was promised: {}",
            wrong.join("; ")
        )))
    }
}

fn tell(json: bool, begun: Instant, line: &str) {
    let line = format!("[{:5.1} s] {line}", begun.elapsed().as_secs_f64());
    if json {
        eprintln!("{line}");
    } else {
        println!("{line}");
    }
}

fn figures(steps: &[Step]) -> String {
    let row = |step: &Step| {
        vec![
            step.name.to_owned(),
            format!("{} -> {}", step.owner_before, step.owner_after),
            step.moves.to_string(),
            format!("{:.1}", step.gap_ms),
            step.two_owner_ms.to_string(),
        ]
    };
    let rows: Vec<_> = steps.iter().map(row).collect();
    show::table(
        &["step", "owner", "moves", "silence ms", "two owners ms"],
        &rows,
    )
}

fn hints(json: bool, begun: Instant, directory: &Path) {
    let lab = std::env::current_exe().unwrap_or_default();
    let lab = lab.display();
    let directory = directory.display();
    for line in [
        "The cluster goes on. To play with it:".to_owned(),
        format!("  lab={lab}"),
        "  $lab on a status                             ask node a, or b".to_owned(),
        format!("  $lab on a move {TASK} b                         move the task"),
        format!("  $lab on b why {TASK}                            why it is where it is"),
        "  $lab enter switch ip link                    the cables' ends".to_owned(),
        "  $lab enter switch ip link set a1-hb0 down    pull one".to_owned(),
        "  $lab enter a                                 a shell on a node, or `client`".to_owned(),
        format!("  tail -f {directory}/a/log"),
        "  scripts/demo --clean                         get rid of it".to_owned(),
    ] {
        tell(json, begun, &line);
    }
}
