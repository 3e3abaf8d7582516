//! The deterministic simulator: real engines, registers and guard rules on simulated machines.
//!
//! A seed gives a cluster and a mix of faults; a phase in which they strike, with the checkers of
//! `checks.rs` after every event; then everything heals and the cluster must be whole again in
//! time. A failure prints the command that repeats it, with the last events before it.
//!
//! ```text
//! cargo test --release --test sim                                          everyday
//! SIM_SEEDS=1000000 cargo test --release --test sim swarm                  more seeds
//! SIM_SEED=4711 cargo test --release --test sim -- one_seed --nocapture    one seed
//! SIM_TRACE=1                                                              all events of it
//! ```

mod checks;
mod clock;
mod disk;
mod faults;
mod machine;
mod mail;
mod media;
mod node;
mod plan;
mod rng;
mod runner;
mod scenarios;
mod world;

use std::collections::BTreeMap;

use plan::Plan;
use rng::Rng;
use world::{Ev, World};

/// What a run tells about itself.
#[derive(Debug, Default)]
struct Tally {
    simulated: u64,
    turns: u64,
    healed_in: u64,
    /// How often what happened, by name.
    counts: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.simulated += other.simulated;
        self.turns += other.turns;
        self.healed_in = self.healed_in.max(other.healed_in);
        for (name, count) in other.counts {
            *self.counts.entry(name).or_insert(0) += count;
        }
    }

    /// A test in which nothing happens finds nothing.
    fn assert_everything_happened(&self) {
        let missing: Vec<_> = plan::Kind::ALL
            .iter()
            .map(|kind| kind.name())
            .chain(checks::COUNTED)
            .filter(|name| !self.counts.contains_key(name))
            .collect();
        assert!(missing.is_empty(), "never happened: {missing:?}");
    }
}

fn run(seed: u64, logging: bool) -> Tally {
    let mut rng = Rng::new(seed);
    let plan = Plan::of_seed(&mut rng);
    if logging {
        println!("{plan:#?}");
    }
    let mut world = World::new(plan, rng, logging);
    world.power_up_all();
    world.after(world.plan.timing.detect.0 * 4, 0, Ev::Fault);
    world.run_until(world.plan.faults_end);
    world.heal_all();
    let healed_in = heal(&mut world);
    Tally {
        simulated: world.now,
        turns: world.turns,
        healed_in,
        counts: world.checks.counts,
    }
}

/// Liveness: once everything works again, everybody is in and every task runs once, and it stays
/// so.
fn heal(world: &mut World) -> u64 {
    let timing = world.plan.timing;
    let (begun, d) = (world.now, timing.detect.0);
    // Flapping keeps a node out for long, a failed task is retried after a pause.
    let bound = timing.stable_max.0 * 3 + 70_000_000_000 + d * 50;
    let mut well_since = None;
    while world.now < begun + bound {
        world.run_until(world.now + d / 2);
        if world.is_well().is_ok() {
            let since = *well_since.get_or_insert(world.now);
            if world.now - since > d * 3 {
                return since - begun;
            }
        } else {
            well_since = None;
        }
    }
    let missing = world.is_well();
    world.fail(&format!(
        "S7: not well {} ms after everything healed: {missing:?}",
        bound / 1_000_000
    ));
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a seed; when it fails, once more with the log.
fn check(seed: u64) -> Tally {
    let quiet = std::panic::catch_unwind(|| run(seed, false));
    quiet.unwrap_or_else(|cause| {
        let _ = std::panic::catch_unwind(|| run(seed, true));
        eprintln!("SIM_SEED={seed} cargo test --release --test sim -- one_seed --nocapture");
        std::panic::resume_unwind(cause)
    })
}

#[test]
fn one_seed() {
    if let Some(seed) = number("SIM_SEED") {
        println!("{:?}", run(seed, true));
    }
}

#[test]
fn swarm() {
    let (first, count) = (number("SIM_FIRST").unwrap_or(0), number("SIM_SEEDS"));
    let everyday = if cfg!(debug_assertions) { 50 } else { 2_000 };
    let begun = std::time::Instant::now();
    let mut total = Tally::default();
    let mut failed = Vec::new();
    let survey = std::env::var_os("SIM_SURVEY").is_some();
    for seed in first..first + count.unwrap_or(everyday) {
        if survey {
            if let Err(cause) = std::panic::catch_unwind(|| run(seed, false)) {
                let text = cause.downcast_ref::<String>().cloned();
                let text = text.or_else(|| cause.downcast_ref::<&str>().map(|t| (*t).to_string()));
                failed.push((seed, text.unwrap_or_default()));
            }
            continue;
        }
        total.add(check(seed));
    }
    for (seed, text) in &failed {
        println!("{seed}: {text}");
    }
    println!("{} failed; {total:#?}", failed.len());
    println!(
        "{:.0} simulated s/s",
        total.simulated as f64 / 1e9 / begun.elapsed().as_secs_f64()
    );
    assert!(failed.is_empty());
    if total.turns > 10_000_000 {
        total.assert_everything_happened();
    }
}
