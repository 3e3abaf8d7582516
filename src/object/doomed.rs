//! Processes that were killed and cannot end yet, because the kernel waits for a disk on their
//! behalf: they will never run an instruction of their own again.
//!
//! A thread in uninterruptible sleep with SIGKILL pending acts on the signal before it returns to
//! user mode (signal(7), proc_pid_status(5)). All that is left of it is what the kernel has under
//! way for it; where that can do no harm, such a process may be counted as gone.

use std::fs;
use std::path::Path;

/// Bit of SIGKILL, number 9, in the masks of pending signals.
const KILL: u64 = 1 << 8;

/// Groups inside groups that are looked into.
const DEPTH_MAX: usize = 8;

/// Is every process of the control group and of those inside it doomed? False if one cannot be
/// looked at.
pub(super) fn all_in(group: &Path) -> bool {
    inside(group, DEPTH_MAX)
}

fn inside(group: &Path, depth: usize) -> bool {
    let Ok(processes) = fs::read_to_string(group.join("cgroup.procs")) else {
        return false;
    };
    if !processes.lines().all(is_doomed) {
        return false;
    }
    let Ok(entries) = fs::read_dir(group) else {
        return false;
    };
    let mut groups = entries.flatten().filter(|entry| entry.path().is_dir());
    groups.all(|entry| depth > 0 && inside(&entry.path(), depth - 1))
}

fn is_doomed(process: &str) -> bool {
    let Ok(mut threads) = fs::read_dir(Path::new("/proc").join(process).join("task")) else {
        // Ended meanwhile.
        return !Path::new("/proc").join(process).exists();
    };
    threads.all(|thread| {
        let status = thread.map(|thread| fs::read_to_string(thread.path().join("status")));
        status.is_ok_and(|status| status.is_ok_and(|status| says_doomed(&status)))
    })
}

/// What `status` tells of one thread.
fn says_doomed(status: &str) -> bool {
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim)
    };
    let state = value("State:").and_then(|state| state.chars().next());
    let pending = |name| value(name).and_then(|mask| u64::from_str_radix(mask, 16).ok());
    let killed = [pending("SigPnd:"), pending("ShdPnd:")];
    match state {
        Some('Z' | 'X') => true,
        Some('D') => killed.into_iter().flatten().any(|mask| mask & KILL != 0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: char, own: &str, shared: &str) -> String {
        format!("Name:\tdd\nState:\t{state} (x)\nSigPnd:\t{own}\nShdPnd:\t{shared}\n")
    }

    #[test]
    fn only_a_killed_thread_in_uninterruptible_sleep_is_doomed() {
        let (none, kill, term) = ("0000000000000000", "0000000000000100", "0000000000004000");
        for (state, own, shared, doomed) in [
            ('D', kill, none, true),
            ('D', none, kill, true),
            ('D', none, none, false),
            ('D', term, term, false),
            ('S', kill, none, false),
            ('R', kill, none, false),
            ('T', kill, none, false),
            ('Z', none, none, true),
        ] {
            let text = status(state, own, shared);
            assert_eq!(says_doomed(&text), doomed, "{text}");
        }
        assert!(!says_doomed("") && !says_doomed("State:\tD (disk sleep)\n"));
    }

    #[test]
    fn a_process_that_runs_is_not_doomed_and_one_that_is_gone_is() {
        assert!(!is_doomed(&std::process::id().to_string()));
        assert!(is_doomed("4194305"), "beyond the largest process id");
    }
}
