//! What keeps a thread running when the host is out of CPU or memory: scheduling class, locked
//! memory, protection from the OOM killer, and death with the parent.
//!
//! Called once, early, by the threads that need it. Each refusal is reported in words for a loud
//! warning: a node without these rights works, but keeps its promises only on an idle host.
//! A process with locked memory must not fork: the copy-on-write faults stall it (mlock(2)).

use std::fs;
use std::hint::black_box;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{getppid, gettid};

use crate::error::{Failed, Naming, answer};
use crate::mount::{MountPoint, mounts};

/// Stack that [`prefault_stack`] touches; threads of the core use less.
pub const PREFAULT_BYTES: usize = 64 * 1024;

const PAGE_BYTES: usize = 4096;

/// CAP_IPC_LOCK of linux/capability.h: locked memory has no limit.
const CAP_IPC_LOCK: u32 = 14;

/// How a thread is scheduled after [`become_realtime`].
#[derive(Debug)]
pub enum Outcome {
    /// Real-time, in the control group it was in.
    Realtime,
    /// Real-time, but only after leaving its control group for the root: the service manager no
    /// longer counts this thread as part of the unit.
    RealtimeInRootGroup,
    /// Not real-time. Warn loudly.
    Normal {
        /// Why real-time scheduling was refused.
        why: Failed,
        /// Whether it got nice -20 instead.
        niced: bool,
    },
}

/// Schedules the calling *thread* before all normal ones: `SCHED_FIFO` with `priority` from 1 to 99
/// (above 50 it competes with interrupt threads of a PREEMPT_RT kernel). New threads and processes
/// start normal again (`SCHED_RESET_ON_FORK`), so each real-time thread calls this itself.
///
/// Some kernels with `CONFIG_RT_GROUP_SCHED` refuse it outside of the root control group: then the
/// thread (version 1) or the process (version 2) is moved there. If that does not help, nice -20.
///
/// # Errors
///
/// `EINVAL` for a priority out of range. Missing rights are not an error: see [`Outcome::Normal`].
pub fn become_realtime(priority: u8) -> Result<Outcome, Failed> {
    let Err(refused) = schedule_fifo(priority) else {
        return Ok(Outcome::Realtime);
    };
    if refused.raw_os_error() != Some(Errno::EPERM as i32) {
        return Err(refused).naming("schedule as real-time with priority", priority);
    }
    if move_to_root_group().is_ok() && schedule_fifo(priority).is_ok() {
        return Ok(Outcome::RealtimeInRootGroup);
    }
    let why = Failed::new("schedule as real-time with priority", priority, refused);
    Ok(Outcome::Normal {
        why,
        niced: raise_niceness().is_ok(),
    })
}

fn schedule_fifo(priority: u8) -> io::Result<()> {
    let parameter = libc::sched_param {
        sched_priority: i32::from(priority),
    };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: parameter is a live sched_param; 0 names the calling thread.
    answer(unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) }).map(drop)
}

fn raise_niceness() -> io::Result<()> {
    // SAFETY: plain integers; 0 names the calling thread.
    answer(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) }).map(drop)
}

/// Leaves the control group that governs real-time budgets.
fn move_to_root_group() -> Result<(), Failed> {
    let mounts = mounts()?;
    let own = gettid().to_string();
    let file = root_group_file(&mounts)
        .ok_or_else(|| Failed::new("find", "the root control group", Errno::ENOENT))?;
    fs::write(&file, own).naming("move this thread to", file.display())
}

/// Version 1 with the cpu controller if there is one, else version 2.
fn root_group_file(mounts: &[MountPoint]) -> Option<PathBuf> {
    let governs = |mount: &&MountPoint| {
        mount.fstype == "cgroup" && mount.options.split(',').any(|option| option == "cpu")
    };
    let first = mounts
        .iter()
        .find(governs)
        .map(|mount| mount.target.join("tasks"));
    let second = || mounts.iter().find(|mount| mount.fstype == "cgroup2");
    first.or_else(|| second().map(|mount| mount.target.join("cgroup.procs")))
}

/// Has malloc use one arena for all threads instead of one or more per thread, which saves
/// megabytes of locked memory. Call it before the first thread is made. False if the C library has
/// no such setting.
#[must_use]
pub fn limit_arenas() -> bool {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers and has no other precondition.
    let set = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) } == 1;
    #[cfg(not(target_env = "gnu"))]
    let set = false;
    set
}

/// Locks all memory of this process, present and future, so that nothing here ever waits for a disk
/// to bring a page. Make threads with small stacks: each is locked whole.
///
/// Returns the refusal to raise `RLIMIT_MEMLOCK`, if any; with CAP_IPC_LOCK it has no effect.
///
/// # Errors
///
/// The limit cannot be raised and there is no CAP_IPC_LOCK: then nothing is locked, because later
/// allocations would fail at the limit. Or the kernel has not enough memory (`ENOMEM`, `EAGAIN`).
pub fn lock_memory() -> Result<Option<Failed>, Failed> {
    let limit_refused = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)
        .naming("raise", "the limit of locked memory (RLIMIT_MEMLOCK)")
        .err();
    let limits = getrlimit(Resource::RLIMIT_MEMLOCK);
    let limited = limits.is_ok_and(|(soft, _)| soft != RLIM_INFINITY);
    if limited && !has_capability(CAP_IPC_LOCK) {
        let subject = "memory: RLIMIT_MEMLOCK is too low and CAP_IPC_LOCK is missing";
        return Err(Failed::new("lock", subject, Errno::EPERM));
    }
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)
        .naming("lock", "memory (mlockall)")?;
    Ok(limit_refused)
}

/// Whether the calling thread has an effective capability; false if `/proc` does not tell.
fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    set.is_some_and(|set| set & (1 << number) != 0)
}

/// Touches [`PREFAULT_BYTES`] of stack, so that no page of it has to be found later. Call it at the
/// start of a real-time thread.
#[inline(never)]
pub fn prefault_stack() {
    let mut stack = [0_u8; PREFAULT_BYTES];
    for byte in stack.iter_mut().step_by(PAGE_BYTES) {
        *black_box(byte) = 1;
    }
    black_box(&stack);
}

/// Takes this process off the OOM killer's list (`oom_score_adj` -1000). Children inherit it: they
/// call [`expose_to_oom`] first of all.
///
/// # Errors
///
/// `EACCES` without CAP_SYS_RESOURCE: report it and go on.
pub fn protect_from_oom() -> Result<(), Failed> {
    write_oom_adjustment("-1000")
}

/// Lets the OOM killer judge this process like any other (`oom_score_adj` 0).
///
/// # Errors
///
/// `/proc` cannot be written.
pub fn expose_to_oom() -> Result<(), Failed> {
    write_oom_adjustment("0")
}

fn write_oom_adjustment(adjustment: &str) -> Result<(), Failed> {
    fs::write("/proc/self/oom_score_adj", adjustment).naming("set oom_score_adj to", adjustment)
}

/// Has the kernel kill this process when its parent `expected_parent` ends. Call it first of all:
/// it looks once whether the parent has already gone, which closes the race.
///
/// "Parent" is the *thread* that made this process (PR_SET_PDEATHSIG(2const)): spawn from one that
/// lives as long as the parent. Lost on exec of a set-user-id program.
///
/// # Errors
///
/// `ESRCH` if the parent is no longer `expected_parent`: exit now.
pub fn die_with_parent(expected_parent: u32) -> Result<(), Failed> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).naming("die with", "the parent process")?;
    if getppid().as_raw().cast_unsigned() == expected_parent {
        return Ok(());
    }
    Err(Failed::new(
        "die with",
        format_args!("parent {expected_parent}"),
        Errno::ESRCH,
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::process::PidFd;
    use crate::testing::{becomes_readable, eventually, in_child};

    const NOBODY: u32 = 65_534;

    fn field(file: &str, name: &str) -> String {
        let text = fs::read_to_string(file).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..]
            .trim_start_matches([':', ' ', '\t'])
            .to_owned()
    }

    /// Fields of proc_pid_stat(5): nice value, real-time priority, policy.
    fn scheduling() -> (i64, i64, i64) {
        let text = fs::read_to_string("/proc/thread-self/stat").unwrap();
        let rest = text.rsplit_once(") ").unwrap().1;
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |field: usize| fields[field - 3].parse().unwrap();
        (number(19), number(40), number(41))
    }

    #[test]
    fn a_thread_becomes_realtime_and_its_children_do_not() {
        let thread = std::thread::spawn(|| {
            let outcome = become_realtime(7).unwrap();
            assert!(!matches!(outcome, Outcome::Normal { .. }), "{outcome:?}");
            assert_eq!(scheduling().1, 7);
            assert_eq!(scheduling().2 & 0xFF, i64::from(libc::SCHED_FIFO));
            let child = std::thread::spawn(scheduling).join().unwrap();
            assert_eq!((child.1, child.2), (0, i64::from(libc::SCHED_OTHER)));
        });
        thread.join().unwrap();
        assert_eq!(
            become_realtime(100).unwrap_err().errno(),
            Some(libc::EINVAL)
        );
    }

    #[test]
    fn without_the_right_it_stays_normal_and_says_why() {
        if in_child(
            "realtime::tests::without_the_right_it_stays_normal_and_says_why",
            Some(NOBODY),
        ) {
            let outcome = become_realtime(7).unwrap();
            let Outcome::Normal { why, niced } = outcome else {
                panic!("{outcome:?}")
            };
            assert_eq!((why.errno(), niced), (Some(libc::EPERM), false));
            assert_eq!(
                why.to_string(),
                "cannot schedule as real-time with priority 7"
            );
            let unlocked = lock_memory().unwrap_err();
            assert_eq!(unlocked.errno(), Some(libc::EPERM));
            assert_eq!(field("/proc/self/status", "VmLck"), "0 kB");
            assert!(protect_from_oom().is_err());
        }
    }

    #[test]
    fn memory_is_locked_now_and_later() {
        if in_child("realtime::tests::memory_is_locked_now_and_later", None) {
            assert_eq!(limit_arenas(), cfg!(target_env = "gnu"));
            lock_memory().unwrap();
            prefault_stack();
            let locked = || {
                let text = field("/proc/self/status", "VmLck");
                text.trim_end_matches(" kB").parse::<u64>().unwrap()
            };
            let before = locked();
            assert!(before > 0);
            let later = black_box(vec![1_u8; 32 << 20]);
            assert!(locked() >= before + (30 << 10), "32 MiB more, in kB");
            drop(later);
        }
    }

    #[test]
    fn oom_protection_is_set_or_its_refusal_told() {
        if in_child(
            "realtime::tests::oom_protection_is_set_or_its_refusal_told",
            None,
        ) {
            let adjustment = || fs::read_to_string("/proc/self/oom_score_adj").unwrap();
            match protect_from_oom() {
                Ok(()) => assert_eq!(adjustment().trim(), "-1000"),
                Err(refused) => assert_eq!(refused.errno(), Some(libc::EACCES)),
            }
            expose_to_oom().unwrap();
            assert_eq!(adjustment().trim(), "0");
        }
    }

    #[test]
    fn the_root_group_is_found_wherever_it_is_mounted() {
        let mount = |fstype: &str, target: &str, options: &str| MountPoint {
            major: 0,
            minor: 0,
            target: target.into(),
            fstype: fstype.into(),
            source: "cgroup".into(),
            options: options.into(),
        };
        let second = mount("cgroup2", "/sys/fs/cgroup/unified", "rw");
        let cpuset = mount("cgroup", "/a/cpuset", "rw,rw,cpuset");
        let cpu = mount("cgroup", "/a/cpu", "rw,rw,cpu,cpuacct");
        let found =
            |mounts: &[MountPoint]| root_group_file(mounts).map(|path| path.display().to_string());
        assert_eq!(found(&[]), None);
        let only_second = [cpuset.clone(), second.clone()];
        assert_eq!(
            found(&only_second).unwrap(),
            "/sys/fs/cgroup/unified/cgroup.procs"
        );
        assert_eq!(found(&[second, cpuset, cpu]).unwrap(), "/a/cpu/tasks");
    }

    const PARENT_TEST: &str = "realtime::tests::a_child_dies_with_its_parent";
    const ROLE: &str = "STANDFAST_SYS_TEST_ROLE";

    /// This test again, as the parent (role: a file) or its child (role: parent number, `@`, file).
    fn again(role: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", PARENT_TEST, "--nocapture"])
            .env(ROLE, role);
        command
    }

    #[test]
    fn a_child_dies_with_its_parent() {
        if let Ok(role) = std::env::var(ROLE) {
            return match role.split_once('@') {
                None => {
                    let status = again(&format!("{}@{role}", std::process::id())).status();
                    panic!("should have been killed before its child: {status:?}");
                }
                Some((parent, file)) => be_the_child(parent.parse().unwrap(), file),
            };
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("child");
        let mut parent = again(file.to_str().unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let child: i32 = eventually("a protected child", || {
            fs::read_to_string(&file)
                .ok()?
                .strip_suffix('.')?
                .parse()
                .ok()
        });
        let watched = PidFd::open(child).unwrap();
        assert!(!watched.has_ended().unwrap());
        parent.kill().unwrap();
        assert_eq!(parent.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert!(becomes_readable(&watched));
    }

    fn be_the_child(parent: u32, file: &str) {
        assert_eq!(
            die_with_parent(parent + 1).unwrap_err().errno(),
            Some(libc::ESRCH)
        );
        die_with_parent(parent).unwrap();
        fs::write(file, format!("{}.", std::process::id())).unwrap();
        loop {
            std::thread::park();
        }
    }
}
