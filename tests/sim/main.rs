//! The deterministic simulator: real engines, registers and guard rules on simulated machines.
//!
//! A seed gives a cluster and a list of faults; a phase in which they strike, with the checkers of
//! `checks` after every event; then everything heals and the cluster must be whole again in time. A
//! failure prints the command that repeats it, the last events before it, and the shortest list of
//! faults that was found to do it too, as lines of a script (`script.rs`).
//!
//! ```text
//! cargo test --release --test sim                                          everyday
//! SIM_SEEDS=1000000 cargo test --release --test sim swarm                  more seeds
//! SIM_SEED=4711 cargo test --release --test sim -- one_seed --nocapture    one seed
//! SIM_ONLY=3,17                                                            with these faults only
//! SIM_TRACE=1 SIM_FRAMES=1                                                 all events of it
//! ```

mod bytes;
mod checks;
mod clock;
mod disk;
mod draw;
mod faults;
mod fencing;
mod log;
mod machine;
mod mail;
mod media;
mod node;
mod plan;
mod record;
mod reservation;
mod rng;
mod runner;
mod scenarios;
mod script;
mod shrink;
mod stories;
mod strike;
mod swarm;
mod volume;
mod world;
