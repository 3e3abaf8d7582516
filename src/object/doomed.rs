//! Processes that were killed and cannot end yet, because the kernel waits for a disk on their
//! behalf: they will never run an instruction of their own again.
//!
//! A thread in uninterruptible sleep with SIGKILL pending acts on the signal before it returns to
//! user mode (signal(7), proc_pid_status(5)). All that is left of it is what the kernel has under
//! way for it; where that can do no harm, such a process may be counted as gone.

use std::fs;
use std::path::Path;

use super::holders;

/// Bit of SIGKILL, number 9, in the masks of pending signals.
const KILL: u64 = 1 << 8;

/// Is every process of the control group and of those inside it doomed? False if one cannot be
/// looked at.
pub(super) fn all_in(group: &Path) -> bool {
    let processes = holders::processes_in(group);
    processes.is_ok_and(|processes| processes.into_iter().all(is_doomed))
}

fn is_doomed(process: u32) -> bool {
    let place = Path::new("/proc").join(process.to_string());
    let Ok(mut threads) = fs::read_dir(place.join("task")) else {
        // Ended meanwhile.
        return !place.exists();
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
        assert!(!is_doomed(std::process::id()));
        assert!(is_doomed(4_194_305), "beyond the largest process id");
    }
}
