//! Registers of 2 to 4 nodes on one or three simulated disks, one seed per run, no threads.
//!
//! A run has a phase of faults (crashes with the write landing or not, errors of unknown outcome,
//! torn copies, unreadable blocks, hung I/O, duels, disks that are gone for some or for all, lost
//! and late messages, files that fail) and a phase without, in which everybody must
//! win once. One disk of three may be gone for
//! good. The checks stand in `chain.rs`, the disks in `disk.rs`; both know nothing of the
//! implementation but what stands on the disk and what it reports.
//!
//! ```text
//! REGISTER_SEEDS=200000 cargo test --release --test register_model    more seeds
//! REGISTER_SEED=4711 cargo test --test register_model                 one seed
//! ```

#[path = "register_model/chain.rs"]
mod chain;
#[path = "register_model/counts.rs"]
mod counts;
#[path = "register_model/disk.rs"]
mod disk;
#[path = "register_model/io.rs"]
mod io;
#[path = "register_model/network.rs"]
mod network;
#[path = "register_model/world.rs"]
mod world;

use world::World;

#[test]
fn decided_values_form_one_chain_whatever_happens() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let seeds =
        number("REGISTER_SEEDS").unwrap_or(if cfg!(debug_assertions) { 500 } else { 20_000 });
    let seeds = number("REGISTER_SEED").map_or(0..seeds, |seed| seed..seed + 1);
    let mut total = counts::Counts::default();
    for seed in seeds.clone() {
        let run = std::panic::catch_unwind(|| World::new(seed).run());
        match run {
            Ok(counts) => total += counts,
            Err(cause) => {
                eprintln!("repeat: REGISTER_SEED={seed} cargo test --test register_model");
                std::panic::resume_unwind(cause);
            }
        }
    }
    println!("{total:?}");
    if seeds.end - seeds.start >= 500 {
        total.assert_everything_happened();
    }
}
