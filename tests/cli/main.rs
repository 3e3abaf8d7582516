//! The command line as a person or a script meets it: the real program, its output and exit code.

mod daemon;
mod disk;
mod disks;
#[allow(dead_code, reason = "the pair serves several programs")]
#[path = "../engine_pair/mod.rs"]
mod engine_pair;
mod fence;
mod files;
mod replay;
mod rig;
