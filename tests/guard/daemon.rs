//! The whole `standfastd`, as far as its guard is concerned: children, signals, the end. A cluster
//! of one node without tasks; whatever the core does, the guard must keep its own promises.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use standfast::node::page::{PAGE_WORDS, word};
use standfast::node::paths;
use standfast_sys::sharedpage::SharedPage;

use super::rig::{eventually, in_network};

struct Daemon {
    directory: tempfile::TempDir,
    process: Child,
    page: SharedPage,
}

impl Daemon {
    fn start() -> Daemon {
        let directory = tempfile::tempdir().unwrap();
        let watchdog = directory.path().join("watchdog");
        let name = format!("guard-{}", std::process::id());
        let text = format!(
            "[cluster]\nname = \"{name}\"\nid = \"0123456789abcdef0123456789abcdef\"\n\
             detect = \"500ms\"\n\n[[node]]\nname = \"a\"\nid = 1\n\n\
             [watchdog]\nstand-in = \"{}\"\ntimeout = \"1s\"\n",
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

    /// Living children, by rising number.
    fn children(&self) -> Vec<i32> {
        let pid = self.process.id();
        let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        text.split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect()
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
        let children = if self.process.try_wait().unwrap().is_none() {
            self.children()
        } else {
            Vec::new()
        };
        let _ = self.process.kill();
        let _ = self.process.wait();
        for child in children {
            let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
        }
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
        let first = eventually("two children", || {
            let children = daemon.children();
            (children.len() == 2).then_some(children)
        });
        for child in &first {
            kill(Pid::from_raw(*child), Signal::SIGKILL).unwrap();
        }
        eventually("two new children", || {
            let children = daemon.children();
            let new = children.iter().all(|child| !first.contains(child));
            (children.len() == 2 && new).then_some(())
        });
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
        // Nobody is left who could leave in order.
        let children = eventually("two children", || {
            let children = daemon.children();
            (children.len() == 2).then_some(children)
        });
        for child in &children {
            kill(Pid::from_raw(*child), Signal::SIGSTOP).unwrap();
        }
        daemon.signal(Signal::SIGTERM);
        eventually("it is to leave", || {
            (daemon.load(word::LEAVE) == 1).then_some(())
        });
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.ended().code(), Some(0));
        assert_eq!(daemon.watchdog(), b"V", "disarmed");
        let gone = |pid: &i32| fs::metadata(format!("/proc/{pid}")).is_err();
        assert!(children.iter().all(gone), "no child is left");
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
        let children = daemon.children();
        daemon.signal(Signal::SIGKILL);
        assert_eq!(daemon.ended().signal(), Some(Signal::SIGKILL as i32));
        for child in children {
            let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
        }
        assert_eq!(daemon.watchdog(), b"\0");
        assert_eq!(daemon.load(word::START), 1);
        daemon.process = command(&daemon.directory.path().to_owned())
            .spawn()
            .unwrap();
        eventually("the next", || (daemon.load(word::START) == 2).then_some(()));
    });
}
