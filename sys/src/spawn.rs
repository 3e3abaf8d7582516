//! Starting a program inside a control group, so that not even its first instruction runs outside.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::sys::signal::SigSet;

use crate::cgroup::Cgroup;

/// Starts the command in the group, with no signal blocked: a daemon that collects its signals has
/// them blocked, and std lets children inherit that. Not for a locked real-time process: it forks.
///
/// # Errors
///
/// What fork, the move or the exec says; the program has not run then.
pub fn spawn_in(command: &mut Command, group: &Cgroup) -> io::Result<Child> {
    let procs = OpenOptions::new()
        .write(true)
        .open(group.path().join("cgroup.procs"))?;
    // "0" moves the writer, which is the child (cgroups(7)).
    let enter = move || {
        procs.write_all_at(b"0", 0)?;
        Ok(SigSet::empty().thread_set_mask()?)
    };
    // SAFETY: between fork and exec the closure makes one pwrite on a descriptor opened before and
    // one pthread_sigmask, both async-signal-safe, and neither allocates nor locks.
    unsafe { command.pre_exec(enter) };
    command.spawn()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Stdio;

    use super::*;

    #[test]
    fn the_program_starts_inside_the_group() {
        let name = PathBuf::from(format!("standfast-spawn-{}", std::process::id()));
        let group = Cgroup::create(&name).unwrap();
        let mut command = Command::new("cat");
        command.arg("/proc/self/cgroup").stdout(Stdio::piped());
        let output = spawn_in(&mut command, &group)
            .unwrap()
            .wait_with_output()
            .unwrap();
        let seen = String::from_utf8(output.stdout).unwrap();
        assert!(seen.contains(&format!("0::/{}", name.display())), "{seen}");
        assert!(group.remove().unwrap());
    }

    #[test]
    fn the_program_has_no_signal_blocked() {
        let name = PathBuf::from(format!("standfast-mask-{}", std::process::id()));
        let group = Cgroup::create(&name).unwrap();
        SigSet::all().thread_block().unwrap();
        let mut command = Command::new("grep");
        command
            .args(["SigBlk", "/proc/self/status"])
            .stdout(Stdio::piped());
        let output = spawn_in(&mut command, &group)
            .unwrap()
            .wait_with_output()
            .unwrap();
        let seen = String::from_utf8(output.stdout).unwrap();
        assert_eq!(seen.trim(), "SigBlk:\t0000000000000000");
        assert!(group.remove().unwrap());
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_of_the_caller() {
        let name = PathBuf::from(format!("standfast-nothing-{}", std::process::id()));
        let group = Cgroup::create(&name).unwrap();
        let error = spawn_in(&mut Command::new("/no/such/program"), &group).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(group.remove().unwrap());
    }
}
