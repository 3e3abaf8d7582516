//! The whole `standfastd`, as far as its guard is concerned: children, signals, the end. A cluster
//! of one node without tasks; whatever the core does, the guard must keep its own promises.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use standfast::model::NodeId;
use standfast::node::page::{PAGE_WORDS, word};
use standfast::node::paths;
use standfast::storage::kept::FILE_LEN;
use standfast_sys::sharedpage::SharedPage;

use super::rig::{eventually, in_network};

struct Daemon {
    directory: tempfile::TempDir,
    process: Child,
    page: SharedPage,
}

impl Daemon {
    fn start() -> Daemon {
        Daemon::start_in(tempfile::tempdir().unwrap(), "")
    }

    /// With more in its configuration.
    fn start_in(directory: tempfile::TempDir, more: &str) -> Daemon {
        let watchdog = directory.path().join("watchdog");
        let secret = directory.path().join("secret");
        fs::write(&secret, format!("{:064x}\n", 7)).unwrap();
        fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
        let name = format!("guard-{}", std::process::id());
        let text = format!(
            "[cluster]\nname = \"{name}\"\nid = \"0123456789abcdef0123456789abcdef\"\n\
             detect = \"500ms\"\nsecret = \"{}\"\n\n[[node]]\nname = \"a\"\nid = 1\n\n\
             [watchdog]\nstand-in = \"{}\"\ntimeout = \"1s\"\n{more}",
            secret.display(),
            watchdog.display()
        );
        fs::write(directory.path().join("cluster.toml"), text).unwrap();
        let process = command(&directory.path().to_owned()).spawn().unwrap();
        let path = paths::page(directory.path());
        let page = eventually("a page", || SharedPage::open(&path, PAGE_WORDS).ok());
        let daemon = Daemon {
            directory,
            process,
            page,
        };
        eventually("the guard turns", || {
            (daemon.load(word::GUARD_TURN_AT) > 0).then_some(())
        });
        daemon
    }

    fn load(&self, at: usize) -> u64 {
        self.page.words()[at].load(Ordering::Acquire)
    }

    /// Children that have begun their role. One that has not is still tied to the daemon, which
    /// waits for it.
    fn children(&self, role: &str) -> Vec<i32> {
        let pid = self.process.id();
        let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let has_role = |pid: &i32| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = command.split(|byte| *byte == 0);
            words.any(|word| word == b"--role") && words.next() == Some(role.as_bytes())
        };
        let pids = text.split_whitespace().map(|pid| pid.parse().unwrap());
        pids.filter(has_role).collect()
    }

    /// The runner, which lives whatever the core finds wrong with so small a cluster.
    fn runner(&self) -> i32 {
        eventually("a runner", || self.children("runner").first().copied())
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().cast_signed()), signal).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        eventually("the daemon ends", || self.process.try_wait().unwrap())
    }

    fn watchdog(&self) -> Vec<u8> {
        fs::read(self.directory.path().join("watchdog")).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Its children are bound to it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command(directory: &PathBuf) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_standfastd"));
    command
        .arg("--config")
        .arg(directory.join("cluster.toml"))
        .args(["--node", "a"]);
    command
        .arg("--run-dir")
        .arg(directory)
        .arg("--state-dir")
        .arg(directory.join("state"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn a_child_that_dies_is_started_again_and_the_node_leaves_when_told() {
    in_network(|| {
        let mut daemon = Daemon::start();
        let first = daemon.runner();
        kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
        eventually("another runner", || {
            let runner = daemon.children("runner").first().copied()?;
            (runner != first).then_some(())
        });
        eventually("a core", || daemon.children("core").first().copied());
        daemon.signal(Signal::SIGTERM);
        eventually("it is to leave", || {
            (daemon.load(word::LEAVE) == 1).then_some(())
        });
        // The core's word; the test is faster, or there is nothing to hand over.
        daemon.page.words()[word::LEFT].store(1, Ordering::Release);
        assert_eq!(daemon.ended().code(), Some(0));
        assert_eq!(daemon.watchdog(), b"V", "disarmed");
    });
}

#[test]
fn a_second_sigterm_ends_everything_at_once() {
    in_network(|| {
        let mut daemon = Daemon::start();
        let runner = daemon.runner();
        daemon.signal(Signal::SIGTERM);
        eventually("it is to leave", || {
            (daemon.load(word::LEAVE) == 1).then_some(())
        });
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.ended().code(), Some(0));
        assert_eq!(daemon.watchdog(), b"V", "disarmed");
        assert!(
            fs::metadata(format!("/proc/{runner}")).is_err(),
            "no child is left"
        );
    });
}

#[test]
fn a_guard_that_is_killed_leaves_the_watchdog_armed_and_the_next_counts_on() {
    in_network(|| {
        let mut daemon = Daemon::start();
        let second = command(&daemon.directory.path().to_owned())
            .status()
            .unwrap();
        assert_eq!(second.code(), Some(2), "there is one already");
        eventually("a pet", || (daemon.load(word::PET_AT) > 0).then_some(()));
        let runner = daemon.runner();
        daemon.signal(Signal::SIGKILL);
        assert_eq!(daemon.ended().signal(), Some(Signal::SIGKILL as i32));
        eventually("the runner dies with it", || {
            fs::metadata(format!("/proc/{runner}"))
                .is_err()
                .then_some(())
        });
        assert_eq!(daemon.watchdog(), b"\0");
        assert_eq!(daemon.load(word::START), 1);
        daemon.process = command(&daemon.directory.path().to_owned())
            .spawn()
            .unwrap();
        eventually("the next", || (daemon.load(word::START) == 2).then_some(()));
    });
}

/// A link without which the core does not start; with this device it never comes up.
const DISK: &str = "\n[[link]]\nname = \"disk\"\nkind = \"disk\"\ndevice = \"/nowhere\"\n";

/// Where the daemon keeps its record.
fn record_path(directory: &Path) -> PathBuf {
    let cluster = *b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef";
    let node = NodeId::new(1).unwrap();
    paths::register(&directory.join("state"), &cluster, node)
}

#[test]
fn the_core_keeps_a_record_and_says_loudly_that_it_cannot_read_it() {
    in_network(|| {
        let daemon = Daemon::start_in(tempfile::tempdir().unwrap(), DISK);
        eventually("the core turns", || {
            (daemon.load(word::CORE_TURNS) > 0).then_some(())
        });
        let record = record_path(daemon.directory.path());
        let found = eventually("a record", || fs::metadata(&record).ok());
        assert_eq!(found.len(), FILE_LEN as u64);
        drop(daemon);

        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(record_path(directory.path())).unwrap();
        let daemon = Daemon::start_in(directory, DISK);
        eventually("the core turns", || {
            (daemon.load(word::CORE_TURNS) > 0).then_some(())
        });
        let history = daemon.directory.path().join("state/history.jsonl");
        let warning = eventually("an alarm", || {
            let text = fs::read_to_string(&history).unwrap_or_default();
            let mut lines = text.lines();
            let line = lines.find(|line| line.contains("neither join nor change"))?;
            Some(line.to_owned())
        });
        assert!(warning.contains("\"class\":\"critical\""), "{warning}");
        assert!(warning.contains("Is a directory"), "{warning}");
        assert!(warning.contains("restart Standfast"), "{warning}");
    });
}

#[test]
fn a_core_that_is_started_again_goes_on_with_the_configuration_its_daemon_has_read() {
    in_network(|| {
        let daemon = Daemon::start_in(tempfile::tempdir().unwrap(), DISK);
        let turning = |starts: u64| {
            eventually("a core turns", || {
                let started = daemon.load(word::CORE_STARTS) > starts;
                (started && daemon.load(word::CORE_TURNS) > 0).then_some(())
            });
        };
        turning(0);
        let starts = daemon.load(word::CORE_STARTS);
        fs::write(daemon.directory.path().join("cluster.toml"), "half a li").unwrap();
        let core = daemon.load(word::CORE_PID).cast_signed() as i32;
        kill(Pid::from_raw(core), Signal::SIGKILL).unwrap();
        turning(starts);
        let turns = daemon.load(word::CORE_TURNS);
        eventually("it goes on turning", || {
            (daemon.load(word::CORE_TURNS) > turns).then_some(())
        });
    });
}
