//! Clusters that were kept: going in, and getting rid of them.

use std::os::unix::process::CommandExt;

use crate::rig::leftovers::{self, Noted};
use crate::rig::machine;
use crate::rig::software::{PLACES, program};
use crate::rig::trouble::{Doing, Trouble};

/// Removes what is left of labs that do not run any more, or of all of them.
pub(crate) fn clean(all: bool) -> Result<(), Trouble> {
    let mut removed = 0;
    for directory in leftovers::all() {
        let (_, alive) = leftovers::read(&directory);
        if alive && !all {
            eprintln!("{} is in use; --all removes it too", directory.display());
            continue;
        }
        leftovers::bury(&directory)?;
        removed += 1;
    }
    println!("{removed} removed");
    Ok(())
}

/// Runs a command on a machine, or a shell.
pub(crate) fn enter(name: &str, command: &[String]) -> Result<(), Trouble> {
    let mut inside = machine::enter(find(name)?.pid);
    let shell = ["bash".to_owned()];
    inside.args(if command.is_empty() { &shell } else { command });
    Err(inside.exec()).doing("run nsenter")
}

/// Runs `standfast` on a node.
pub(crate) fn on(name: &str, arguments: &[String]) -> Result<(), Trouble> {
    let mut inside = machine::enter(find(name)?.pid);
    inside
        .arg(program("standfast")?)
        .args(PLACES)
        .args(arguments);
    Err(inside.exec()).doing("run nsenter")
}

/// The newest living machine of this name.
fn find(name: &str) -> Result<Noted, Trouble> {
    let mut machines = leftovers::all()
        .into_iter()
        .flat_map(|directory| leftovers::read(&directory).0);
    let found = machines.rfind(|machine| machine.name == name && machine.lives());
    found.ok_or_else(|| Trouble::new(format!("no machine {name} runs; try `scripts/demo --keep`")))
}
