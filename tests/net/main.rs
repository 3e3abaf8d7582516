//! The real daemon under real faults, with a client that asks every millisecond.
//!
//! Runs as root on any Linux machine; needs network namespaces and loop devices. One scenario at a
//! time, because all of them share the machine's cores: this is a program of its own instead of
//! libtest, with the same output. A scenario says who must own the task, how often it may move and
//! what state everything must reach; that no two nodes ever served at once is checked after each of
//! them. How long a gap was is printed and never asserted: `lab measure` is for that.
//!
//! ```text
//! cargo test --test net                    all
//! cargo test --test net -- murder          those with `murder` in the name
//! cargo test --test net -- --quick         one of each family
//! STANDFAST_LONG=1 cargo test --test net   faults last a minute or more
//! ```
#![forbid(unsafe_code)]

#[allow(
    dead_code,
    reason = "the rig serves several programs, each of which uses its part"
)]
#[path = "../rig/mod.rs"]
mod rig;

mod cuts;
mod deaths;
mod disks;
mod fences;
mod interrupts;
mod moves;
mod processes;
mod replays;
mod starts;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rig::keeper;
use rig::lab::{Lab, Wish};
use rig::trouble::Trouble;
use rig::verdict::Verdict;

/// Lines of each node's log that a failure shows.
const LAST_WORDS: usize = 40;

/// One scenario.
struct Scenario {
    name: &'static str,
    /// Part of `--quick`.
    quick: bool,
    wish: Wish,
    /// Is the cluster up when the scenario begins? Otherwise nothing but the rig is.
    up: bool,
    /// May two nodes serve for a moment? Then the scenario judges by itself.
    overlap: bool,
    run: fn(&mut Lab) -> Result<(), Trouble>,
}

impl Scenario {
    const fn new(
        name: &'static str,
        wish: Wish,
        run: fn(&mut Lab) -> Result<(), Trouble>,
    ) -> Scenario {
        Scenario {
            name,
            quick: false,
            wish,
            up: true,
            overlap: false,
            run,
        }
    }

    const fn quick(self) -> Scenario {
        Scenario {
            quick: true,
            ..self
        }
    }

    const fn switched_off(self) -> Scenario {
        Scenario { up: false, ..self }
    }

    const fn with_overlap(self) -> Scenario {
        Scenario {
            overlap: true,
            ..self
        }
    }

    fn attempt(&self) -> Result<(), Trouble> {
        let mut lab = if self.up {
            Lab::start(self.wish)?
        } else {
            Lab::build(self.wish)?
        };
        let result = catch_unwind(AssertUnwindSafe(|| (self.run)(&mut lab)));
        let result = result.unwrap_or_else(|_| Err(Trouble::new("it panicked, see above")));
        let whole = lab.probe.since(0);
        let result = result.and_then(|()| {
            let fine = self.overlap || whole.two_owner_ms == 0;
            must(
                fine,
                format!("two nodes served at once for {} ms", whole.two_owner_ms),
            )
        });
        if result.is_err() {
            for node in &lab.nodes {
                let words = node.last_words(LAST_WORDS);
                let status = node
                    .cli(&["status"])
                    .unwrap_or_else(|trouble| trouble.to_string());
                println!("--- the last of node {}:\n{words}\n{status}", node.name);
            }
        }
        result
    }
}

/// Says what must be so.
fn must(so: bool, otherwise: impl std::fmt::Display) -> Result<(), Trouble> {
    if so {
        Ok(())
    } else {
        Err(Trouble::new(otherwise))
    }
}

/// Says how often the task must have moved, and prints the gap.
fn must_move(lab: &Lab, verdict: &Verdict, moves: u32) -> Result<(), Trouble> {
    println!(
        "    {} -> {}, gap {:.1} ms, longest silence {:.1} ms, client late {:.1} ms",
        lab.probe.name(verdict.owner_before),
        lab.probe.name(verdict.owner_after),
        verdict.gap_ms,
        verdict.silent_ms_max,
        verdict.late_ms_max
    );
    let found = verdict.moves;
    must(
        found == moves,
        format!("the task moved {found} times instead of {moves}"),
    )
}

/// `short`, or with `STANDFAST_LONG` the time that the promise speaks of.
fn lasting(short: u64, long: u64) -> Duration {
    let long_run = std::env::var_os("STANDFAST_LONG").is_some();
    Duration::from_secs(if long_run { long } else { short })
}

/// What the command line asks for; libtest's options without a meaning here are ignored.
struct Choice {
    words: Vec<String>,
    skipped: Vec<String>,
    exact: bool,
    quick: bool,
    list: bool,
}

impl Choice {
    fn read() -> Choice {
        let (mut words, mut skipped) = (Vec::new(), Vec::new());
        let (mut exact, mut quick, mut list) = (false, false, false);
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => quick = true,
                "--exact" => exact = true,
                "--list" => list = true,
                "--skip" => skipped.extend(arguments.next()),
                "--test-threads" | "--format" | "--color" => drop(arguments.next()),
                option if option.starts_with('-') => {}
                _ => words.push(argument),
            }
        }
        Choice {
            words,
            skipped,
            exact,
            quick,
            list,
        }
    }

    fn takes(&self, scenario: &Scenario) -> bool {
        let fits = |word: &String| {
            if self.exact {
                word == scenario.name
            } else {
                scenario.name.contains(word.as_str())
            }
        };
        let asked = self.words.is_empty() || self.words.iter().any(fits);
        asked && !self.skipped.iter().any(fits) && (scenario.quick || !self.quick)
    }
}

fn main() -> ExitCode {
    if let Some(code) = rig::helper::run_if_asked() {
        return code;
    }
    let choice = Choice::read();
    let groups = [
        deaths::scenarios(),
        fences::scenarios(),
        moves::scenarios(),
        cuts::scenarios(),
        disks::scenarios(),
        processes::scenarios(),
        starts::scenarios(),
        interrupts::scenarios(),
        replays::scenarios(),
    ];
    let all: Vec<Scenario> = groups.into_iter().flatten().collect();
    let (chosen, others): (Vec<_>, Vec<_>) = all.iter().partition(|one| choice.takes(one));
    if choice.list {
        chosen
            .iter()
            .for_each(|scenario| println!("{}: test", scenario.name));
        return ExitCode::SUCCESS;
    }
    keeper::run(|| attempt_all(&chosen, others.len()))
}

fn attempt_all(chosen: &[&Scenario], filtered_out: usize) -> ExitCode {
    println!("\nrunning {} tests", chosen.len());
    let begun = Instant::now();
    let mut failures = Vec::new();
    for scenario in chosen {
        let begun = Instant::now();
        let result = scenario.attempt();
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!(
            "test {} ... {word} ({:.1} s)",
            scenario.name,
            begun.elapsed().as_secs_f64()
        );
        if let Err(trouble) = result {
            println!("    {trouble}");
            failures.push(scenario.name);
        }
    }
    let (failed, passed) = (failures.len(), chosen.len() - failures.len());
    for name in &failures {
        println!("failed: {name}");
    }
    println!(
        "\ntest result: {}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {} filtered \
         out; finished in {:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        filtered_out,
        begun.elapsed().as_secs_f64()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
