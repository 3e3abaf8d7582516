//! The command line as a person or a script meets it: the real program, its output and exit code.

mod daemon;
mod disk;
mod files;
mod rig;
