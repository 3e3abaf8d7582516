//! Many seeds on all processors, and what a failure of one of them prints.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::checks::{self, s8};
use crate::plan::{Kind, Plan};
use crate::rng::Rng;
use crate::shrink;
use crate::world::{Ev, World};

/// One in so many seeds is told twice, with its clocks set differently.
const TOLD_TWICE: u64 = 20;

/// Turns of all engines after which each kind of event must have happened.
const TURNS_FOR_ALL: u64 = 10_000_000;

/// Seeds whose story is compared between two builds.
const SEEDS_COMPARED: u64 = 12;

/// What a run is made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    pub(crate) seed: u64,
    /// Of the planned strikes only these, by position.
    pub(crate) only: Option<Vec<usize>>,
    /// Added to every clock.
    pub(crate) clock_shift: u64,
    pub(crate) logging: bool,
    pub(crate) digests: bool,
    /// Every so many turns an engine is written down and read back; 0: never.
    pub(crate) reread_every: u64,
}

/// What a run tells about itself.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    simulated: u64,
    turns: u64,
    /// Longest time until all tasks ran, and until all nodes were in, in detect times.
    runs_in_detects: u64,
    whole_in_detects: u64,
    pub(crate) digest: u64,
    /// How often what happened, by name.
    counts: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.simulated += other.simulated;
        self.turns += other.turns;
        self.runs_in_detects = self.runs_in_detects.max(other.runs_in_detects);
        self.whole_in_detects = self.whole_in_detects.max(other.whole_in_detects);
        for (name, count) in other.counts {
            *self.counts.entry(name).or_insert(0) += count;
        }
    }

    /// A test in which nothing happens finds nothing.
    fn assert_everything_happened(&self) {
        let kinds = Kind::ALL.iter().map(|(_, name, _)| *name);
        let expected = kinds.chain(checks::COUNTED);
        let missing: Vec<_> = expected
            .filter(|name| !self.counts.contains_key(name))
            .collect();
        assert!(missing.is_empty(), "never happened: {missing:?}");
    }
}

impl Run {
    pub(crate) fn of(seed: u64) -> Run {
        Run {
            seed,
            ..Run::default()
        }
    }

    /// The plan of the seed, and the chance that is left for the world.
    pub(crate) fn plan(&self) -> (Plan, Rng) {
        let mut rng = Rng::new(self.seed);
        let mut plan = Plan::of_seed(&mut rng);
        plan.clock_shift = self.clock_shift;
        if let Some(only) = &self.only {
            let kept = only.iter().filter_map(|index| plan.strikes.get(*index));
            plan.strikes = kept.cloned().collect();
        }
        (plan, rng)
    }

    /// Everything goes wrong as planned, then everything heals.
    pub(crate) fn go(&self) -> Tally {
        let (plan, rng) = self.plan();
        if self.logging {
            println!("{plan:#?}");
        }
        let mut world = World::new(plan, rng, self.logging);
        if self.digests {
            world.digests();
        }
        world.reread_every = self.reread_every;
        world.power_up_all();
        world.plan_strikes();
        world.run_until(world.plan.faults_end);
        world.heal_all();
        let (runs, whole) = world.recovers();
        let d = world.plan.timing.detect.0;
        Tally {
            simulated: world.now,
            turns: world.turns,
            runs_in_detects: runs / d,
            whole_in_detects: whole / d,
            digest: world.log.digest(),
            counts: world.checks.counts,
        }
    }

    /// The same, with the words of whatever stopped it.
    pub(crate) fn attempt(&self) -> Result<Tally, String> {
        let loud = QUIET.replace(!self.logging);
        let result = panic::catch_unwind(AssertUnwindSafe(|| self.go()));
        QUIET.set(loud);
        result.map_err(|cause| {
            let text = cause.downcast_ref::<String>().cloned();
            let text = text.or_else(|| cause.downcast_ref::<&str>().map(|t| (*t).to_string()));
            text.unwrap_or_default()
        })
    }
}

impl World {
    /// Every strike of the plan will come at its moment.
    pub(crate) fn plan_strikes(&mut self) {
        for index in 0..self.plan.strikes.len() {
            let at = self.plan.strikes[index].0;
            self.after(at - self.now, 0, Ev::Planned { index });
        }
    }
}

thread_local! {
    /// Panics of this thread are expected and not printed.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Reruns on the way to the shortest failure would print each panic.
pub(crate) fn silence_expected_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                print(info);
            }
        }));
    });
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A seed, and one in some once more with other clocks.
fn seed(seed: u64) -> Result<Tally, String> {
    let twice = seed.is_multiple_of(TOLD_TWICE);
    let mut run = Run::of(seed);
    run.digests = twice;
    let tally = run.attempt()?;
    if twice {
        run.clock_shift = 123_456_789_012_345;
        let other = run.attempt()?;
        s8::check(tally.digest, other.digest).map_err(|what| format!("S8: {what}"))?;
    }
    Ok(tally)
}

/// A failure, told: the log, the command, and the shortest list of strikes that does it too.
fn tell(seed: u64, text: &str) {
    let mut run = Run::of(seed);
    run.logging = true;
    let _ = run.attempt();
    println!("{text}");
    println!("SIM_SEED={seed} cargo test --release --test sim -- one_seed --nocapture");
    shrink::tell(seed, text);
}

#[test]
fn one_seed() {
    let Some(seed) = number("SIM_SEED") else {
        return;
    };
    silence_expected_panics();
    let only = std::env::var("SIM_ONLY").ok();
    let only = only.map(|text| {
        text.split(',')
            .filter_map(|n| n.trim().parse().ok())
            .collect()
    });
    let run = Run {
        seed,
        only,
        logging: true,
        ..Run::default()
    };
    match run.attempt() {
        Ok(tally) => println!("{tally:?}"),
        Err(text) => panic!("{text}"),
    }
}

/// The same seed tells the same story: twice here, and with `SIM_DIGESTS=FILE` in another build,
/// whose file must be the same.
#[test]
fn the_same_seed_tells_the_same_story() {
    let mut lines = String::new();
    for seed in 0..SEEDS_COMPARED {
        let mut run = Run::of(seed);
        run.digests = true;
        let told = run.go();
        assert_eq!(told.digest, run.go().digest, "seed {seed}");
        lines += &format!("{seed} {:016x} {} turns\n", told.digest, told.turns);
    }
    if let Some(path) = std::env::var_os("SIM_DIGESTS") {
        std::fs::write(path, lines).expect("the file for the digests can be written");
    }
}

/// An engine that was written down and read back in the middle goes on as if nothing had been.
#[test]
fn engines_that_are_read_back_tell_the_same_story() {
    for seed in 0..SEEDS_COMPARED / 2 {
        let mut run = Run::of(seed);
        run.digests = true;
        let told = run.go();
        run.reread_every = 5;
        assert_eq!(told.digest, run.go().digest, "seed {seed}");
    }
}

#[test]
fn swarm() {
    silence_expected_panics();
    let everyday = if cfg!(debug_assertions) { 50 } else { 10_000 };
    let count = number("SIM_SEEDS").unwrap_or(everyday);
    let first = number("SIM_FIRST").unwrap_or(0);
    let survey = std::env::var_os("SIM_SURVEY").is_some();
    let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
    let begun = Instant::now();
    let work = || {
        let (mut total, mut failed) = (Tally::default(), Vec::new());
        while survey || !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= first + count {
                break;
            }
            match seed(number) {
                Ok(tally) => total.add(tally),
                Err(text) => {
                    failed.push((number, text));
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
        (total, failed)
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = number("SIM_THREADS").map_or(threads, |wanted| wanted as usize);
    let (mut total, mut failed) = (Tally::default(), Vec::new());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            let (tally, more) = worker.join().expect("a worker catches its panics");
            total.add(tally);
            failed.extend(more);
        }
    });
    println!("{total:#?}");
    let passed = begun.elapsed().as_secs_f64();
    let speed = total.simulated as f64 / 1e9 / passed;
    println!(
        "{passed:.1} s; {speed:.0} simulated s/s; {} failed",
        failed.len()
    );
    failed.sort();
    if survey {
        for (seed, text) in &failed {
            println!("{seed}: {text}");
        }
    } else if let Some((seed, text)) = failed.first() {
        tell(*seed, text);
    }
    assert!(failed.is_empty(), "{:?}", failed.first());
    if total.turns > TURNS_FOR_ALL {
        total.assert_everything_happened();
    }
}

/// Simulated seconds in a real one, of quiet clusters; `SIM_SPEED=1` simulates longer.
#[test]
fn a_quiet_cluster_stays_as_it_is_and_how_fast() {
    let long = std::env::var_os("SIM_SPEED").is_some();
    for (nodes, seconds) in [(2, 2), (8, 2), (64, 1)] {
        let mut world = World::new(Plan::calm(nodes, 2, 1_000), Rng::new(1), false);
        world.power_up_all();
        let limit = 120_000_000_000;
        assert!(
            world.run_while(limit, |world| world.is_well().is_err()),
            "never well"
        );
        let epoch = world.checks.newest().map(|view| view.epoch);
        let (from, begun) = (world.now, Instant::now());
        let span = seconds * if long { 20 } else { 1 } * 1_000_000_000;
        world.run_until(from + span);
        let speed = span as f64 / 1e9 / begun.elapsed().as_secs_f64();
        println!("{nodes} nodes: {speed:.0} simulated s/s");
        assert!(world.is_well().is_ok());
        let later = world.checks.newest().map(|view| view.epoch);
        let settled = later.unwrap_or(0) - epoch.unwrap_or(0);
        assert!(settled <= 2, "the view changes without need");
    }
}
