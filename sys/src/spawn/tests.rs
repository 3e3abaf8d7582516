//! Both ways of starting, on the real kernel. As root, in the version 2 hierarchy.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::SigHandler;
use nix::unistd::Pid;

use super::*;
use crate::process::{Ended, Signal};
use crate::testing::{becomes_readable, eventually, in_child};

const WAYS: [Way; 2] = [Way::Born, Way::Moved];

/// A group with an output file, removed with the test.
struct Place {
    name: PathBuf,
    group: Cgroup,
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = PathBuf::from(format!("standfast-spawn-{}-{number}", std::process::id()));
        let group = Cgroup::create(&name).unwrap();
        let directory = tempfile::tempdir().unwrap();
        Place {
            name,
            group,
            directory,
        }
    }

    fn spawn<'a>(&'a self, command: &'a [String], output: &'a File) -> Spawn<'a> {
        Spawn {
            command,
            group: &self.group,
            environment: &[],
            directory: Path::new("/"),
            user: None,
            output: output.as_fd(),
            errors: output.as_fd(),
        }
    }

    fn start(&self, way: Way, command: &[&str], change: impl Fn(&mut Spawn<'_>)) -> Started {
        let output = File::create(self.directory.path().join("output")).unwrap();
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        let mut spawn = self.spawn(&command, &output);
        change(&mut spawn);
        let started = spawn.start_by(way)?;
        Ok(started.expect("not killed at birth"))
    }

    /// What the program printed, once it has ended well.
    fn run(&self, way: Way, command: &[&str], change: impl Fn(&mut Spawn<'_>)) -> String {
        let child = self.start(way, command, change).unwrap();
        assert!(becomes_readable(&child));
        let printed = fs::read_to_string(self.directory.path().join("output")).unwrap();
        assert_eq!(child.wait().unwrap(), Some(Ended::Exited(0)), "{printed}");
        printed
    }
}

type Started = Result<PidFd, Failed>;

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.group.kill();
        eventually("an empty group", || self.group.remove().ok());
    }
}

fn unchanged(_spawn: &mut Spawn<'_>) {}

#[test]
fn the_program_starts_inside_the_group_with_a_group_of_processes_of_its_own() {
    let place = Place::new();
    for way in WAYS {
        let seen = place.run(way, &["/bin/cat", "/proc/self/cgroup"], unchanged);
        let line = format!("0::/{}", place.name.display());
        assert!(seen.lines().any(|seen| seen == line), "{way:?}: {seen}");
        let stat = place.run(way, &["/bin/cat", "/proc/self/stat"], unchanged);
        let (pid, rest) = stat.split_once(' ').unwrap();
        assert_eq!(rest.split(' ').nth(3), Some(pid), "{way:?}: {stat}");
    }
}

#[test]
fn a_group_that_was_killed_once_takes_programs_again() {
    let place = Place::new();
    for _ in 0..3 {
        place.group.kill().unwrap();
        let output = File::create(place.directory.path().join("output")).unwrap();
        let command = ["/bin/sleep", "1000"].map(str::to_owned);
        let spawn = place.spawn(&command, &output);
        let child = spawn.start().unwrap();
        assert_eq!(child.wait().unwrap(), None);
        assert_eq!(place.group.procs().unwrap(), [child.pid()]);
        child.send_signal(Signal::SIGKILL).unwrap();
        assert!(becomes_readable(&child));
        child.wait().unwrap();
    }
}

#[test]
fn a_group_that_is_gone_starts_nothing() {
    for way in WAYS {
        let place = Place::new();
        assert!(place.group.remove().unwrap());
        let error = place.start(way, &["/bin/true"], unchanged).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENOENT), "{way:?}: {error}");
    }
}

#[test]
fn environment_arguments_and_directory_arrive() {
    let place = Place::new();
    let script = "echo \"$A|$HOME|$1|$(pwd)|${PATH:+inherited}\"";
    let words = ["/bin/sh", "-c", script, "name", "an argument"];
    let variables = [("A", "first"), ("HOME", "/home of"), ("A", "b c")];
    let owned = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let variables: &[(String, String)] = owned.to_vec().leak();
    for way in WAYS {
        let seen = place.run(way, &words, |spawn| {
            spawn.environment = variables;
            spawn.directory = Path::new("/usr");
        });
        assert_eq!(seen, "b c|/home of|an argument|/usr|inherited\n", "{way:?}");
    }
}

#[test]
fn the_user_has_none_of_roots_groups() {
    let place = Place::new();
    for way in WAYS {
        let words = ["/bin/cat", "/proc/self/status"];
        let seen = place.run(way, &words, |spawn| spawn.user = Some((12_345, 12_346)));
        let expected = ["12345\t".repeat(4), "12346\t".repeat(4)].map(|ids| ids.trim().to_owned());
        assert!(seen.contains(&format!("Uid:\t{}\n", expected[0])), "{seen}");
        assert!(seen.contains(&format!("Gid:\t{}\n", expected[1])), "{seen}");
        assert!(seen.lines().any(|line| line.trim() == "Groups:"), "{seen}");
    }
}

#[test]
fn protection_from_the_oom_killer_is_not_passed_on() {
    if !in_child(
        "spawn::tests::protection_from_the_oom_killer_is_not_passed_on",
        None,
    ) {
        return;
    }
    // Raising it is allowed to everybody.
    fs::write("/proc/self/oom_score_adj", "321").unwrap();
    let place = Place::new();
    for way in WAYS {
        let words = ["/bin/cat", "/proc/self/oom_score_adj"];
        assert_eq!(place.run(way, &words, unchanged), "0\n", "{way:?}");
    }
}

#[test]
fn no_signal_is_blocked_ignored_or_handled() {
    if !in_child(
        "spawn::tests::no_signal_is_blocked_ignored_or_handled",
        None,
    ) {
        return;
    }
    // SAFETY: ignoring a signal runs no code.
    unsafe { nix::sys::signal::signal(Signal::SIGUSR1, SigHandler::SigIgn) }.unwrap();
    let set = nix::sys::signal::SigSet::from_iter([Signal::SIGTERM, Signal::SIGUSR2]);
    set.thread_block().unwrap();
    let place = Place::new();
    let words = ["/bin/cat", "/proc/self/status"];
    for way in WAYS {
        let seen = place.run(way, &words, unchanged);
        for name in ["SigBlk", "SigIgn", "SigCgt"] {
            let nothing = format!("\n{name}:\t0000000000000000\n");
            assert!(seen.contains(&nothing), "{way:?}: {seen}");
        }
        // And this thread's own are as they were.
        assert_eq!(nix::sys::signal::SigSet::thread_get_mask().unwrap(), set);
    }
}

#[test]
fn nothing_is_open_but_the_streams() {
    let place = Place::new();
    for way in WAYS {
        let leaky = File::open("/proc/self/status").unwrap();
        // As a library might have opened it: not close-on-exec.
        let leaky = nix::fcntl::fcntl(&leaky, nix::fcntl::FcntlArg::F_DUPFD(100)).unwrap();
        let script = "readlink /proc/$$/fd/0; ls /proc/$$/fd; echo wrong >&2";
        let seen = place.run(way, &["/bin/sh", "-c", script], unchanged);
        nix::unistd::close(leaky).unwrap();
        let words: Vec<&str> = seen.split_whitespace().collect();
        assert_eq!(
            words,
            ["/dev/null", "0", "1", "2", "wrong"],
            "{way:?}: {seen}"
        );
    }
}

#[test]
fn a_failed_start_is_told_with_its_step_and_leaves_no_process() {
    if !in_child(
        "spawn::tests::a_failed_start_is_told_with_its_step_and_leaves_no_process",
        None,
    ) {
        return;
    }
    let place = Place::new();
    let directory = place.directory.path().display().to_string();
    for way in WAYS {
        let missing = place
            .start(way, &["/no/such/program"], unchanged)
            .unwrap_err();
        assert_eq!(missing.errno(), Some(libc::ENOENT), "{missing}");
        assert_eq!(missing.to_string(), "cannot start /no/such/program");
        let lost = place.start(way, &["/bin/true"], |spawn| {
            spawn.directory = Path::new("/no/such/directory");
        });
        let lost = lost.unwrap_err();
        assert_eq!(
            lost.to_string(),
            "cannot enter /no/such/directory for /bin/true"
        );
        let refused = place.start(way, &[&directory], unchanged).unwrap_err();
        assert_eq!(refused.errno(), Some(libc::EACCES), "{refused}");
        let zero = place
            .start(way, &["/bin/true", "a\0b"], unchanged)
            .unwrap_err();
        assert_eq!(zero.kind(), std::io::ErrorKind::InvalidInput, "{zero}");
        // No child at all, no zombie either.
        let left = nix::sys::wait::waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG));
        assert_eq!(left, Err(Errno::ECHILD), "{way:?}");
    }
}

#[test]
fn a_script_without_an_interpreter_line_is_run_by_the_shell() {
    let place = Place::new();
    let script = place.directory.path().join("script");
    fs::write(&script, "echo \"$0 $1\"\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let script = script.display().to_string();
    for way in WAYS {
        let seen = place.run(way, &[&script, "argument"], unchanged);
        assert_eq!(seen, format!("{script} argument\n"), "{way:?}");
    }
}

#[test]
fn the_child_can_be_signalled_and_is_collected_once() {
    let place = Place::new();
    for way in WAYS {
        let child = place
            .start(way, &["/bin/sleep", "1000"], unchanged)
            .unwrap();
        assert_eq!(place.group.procs().unwrap(), [child.pid()]);
        assert_eq!(child.wait().unwrap(), None);
        let flags = nix::fcntl::fcntl(&child, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
        assert!(child.send_signal(Signal::SIGTERM).unwrap());
        assert!(becomes_readable(&child));
        assert_eq!(child.wait().unwrap(), Some(Ended::Killed(Signal::SIGTERM)));
        assert_eq!(child.wait().unwrap_err().errno(), Some(libc::ECHILD));
    }
}

#[test]
fn only_a_refused_clone_is_tried_the_other_way() {
    let of = |operation, errno: Errno| Failed::new(operation, "x", errno);
    for errno in [Errno::ENOSYS, Errno::EINVAL, Errno::E2BIG, Errno::EPERM] {
        assert!(is_refusal(&of(FORK, errno)));
        assert!(!is_refusal(&of("start", errno)));
    }
    for errno in [Errno::EAGAIN, Errno::ENOMEM, Errno::ENODEV] {
        assert!(!is_refusal(&of(FORK, errno)));
    }
}
