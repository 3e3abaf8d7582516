//! What the tests of links share: commands, namespaces, and an ear for events.

use std::fs::File;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use nix::sched::{CloneFlags, setns, unshare};
use standfast::engine::Event;
use standfast::frame::{Frame, Keyring};
use standfast::link::{LinkHandle, Medium, Parameters, spawn};
use standfast::model::{ClusterId, Incarnation, NodeId};

/// How long a test waits for what must happen; only a failing test waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const CLUSTER: ClusterId = *b"cluster-of-links";

/// Runs a command that must succeed and returns what it printed.
pub(crate) fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().expect("a program"))
        .args(words)
        .output();
    let output = output.unwrap_or_else(|error| panic!("{command}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A network namespace that lives as long as somebody holds it.
pub(crate) struct Namespace {
    file: File,
}

impl Namespace {
    pub(crate) fn new() -> Namespace {
        let file = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare, as root");
            File::open("/proc/thread-self/ns/net").expect("own namespace")
        });
        Namespace {
            file: file.join().expect("a namespace"),
        }
    }

    /// A closure that moves the thread that calls it here.
    pub(crate) fn entrance(&self) -> impl FnOnce() + Send + 'static {
        let file = self.file.try_clone().expect("a descriptor");
        move || setns(file, CloneFlags::CLONE_NEWNET).expect("setns, as root")
    }

    /// Does something here, on a thread of its own.
    pub(crate) fn within<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        let enter = self.entrance();
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter();
                what()
            });
            thread.join().expect("no panic")
        })
    }

    pub(crate) fn run(&self, command: &str) -> String {
        self.within(|| run(command))
    }

    /// How `ip` is told of this namespace.
    pub(crate) fn path(&self) -> String {
        use std::os::fd::AsRawFd;
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }
}

pub(crate) fn node(id: u8) -> NodeId {
    NodeId::new(id).expect("a node id")
}

pub(crate) fn keyring() -> Keyring {
    Keyring::new(&[7; 32], &CLUSTER)
}

pub(crate) fn life(id: u8) -> Incarnation {
    Incarnation {
        boot: [id; 16],
        start: 1,
    }
}

pub(crate) fn frame(id: u8, sequence: u64) -> Frame {
    let mut frame = Frame::blank(CLUSTER, node(id), life(id));
    frame.sequence = sequence;
    frame
}

/// One running link with all that it has told.
pub(crate) struct Station {
    pub(crate) id: u8,
    pub(crate) handle: LinkHandle,
    pub(crate) events: Receiver<Event>,
    sequence: u64,
}

impl Station {
    /// Starts link `index` of node `id`.
    pub(crate) fn start(
        (id, index): (u8, u8),
        medium: Medium,
        setup: impl FnOnce() + Send + 'static,
    ) -> Station {
        Station::start_with_room(1024, (id, index), medium, setup)
    }

    pub(crate) fn start_with_room(
        room: usize,
        (id, index): (u8, u8),
        medium: Medium,
        setup: impl FnOnce() + Send + 'static,
    ) -> Station {
        let (sender, events) = crossbeam_channel::bounded(room);
        let parameters = Parameters {
            index,
            medium,
            cluster: CLUSTER,
            node: node(id),
            incarnation: life(id),
            keyring: keyring(),
        };
        let handle = spawn(parameters, sender, setup).expect("a thread");
        Station {
            id,
            handle,
            events,
            sequence: 0,
        }
    }

    /// Sends the next frame.
    pub(crate) fn beat(&mut self) -> u64 {
        self.sequence += 1;
        self.handle.send(&frame(self.id, self.sequence), true);
        self.sequence
    }

    /// The first event from now on that gives an answer; others are thrown away.
    pub(crate) fn wait<T>(&self, what: &str, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let event = self.events.recv_deadline(deadline);
            let event = event.unwrap_or_else(|_| panic!("node {}: never {what}", self.id));
            if let Some(answer) = wanted(event) {
                return answer;
            }
        }
    }

    /// The reason of the next change to this state.
    pub(crate) fn wait_state(&self, wanted: bool) -> String {
        let what = if wanted { "up" } else { "down" };
        self.wait(what, |event| match event {
            Event::LinkState { up, reason, .. } if up == wanted => Some(reason),
            _ => None,
        })
    }

    /// The next change of state whose reason has these words.
    pub(crate) fn wait_reason(&self, words: &str) -> bool {
        self.wait(words, |event| match event {
            Event::LinkState { up, reason, .. } if reason.contains(words) => Some(up),
            _ => None,
        })
    }

    /// Stops the link; its thread must end.
    pub(crate) fn stop(self) {
        assert!(
            self.handle.join(PATIENCE),
            "the thread of node {} ends",
            self.id
        );
    }
}

/// Has `from` send until `to` hears the very frame; both must be up.
pub(crate) fn passes(from: &mut Station, to: &Station) {
    let sent = from.beat();
    let heard = to.wait("a frame", |event| match event {
        Event::Frame { frame, .. } if frame.sender == node(from.id) => {
            (frame.sequence >= sent).then_some(frame)
        }
        _ => None,
    });
    assert_eq!((heard.incarnation, heard.sequence), (life(from.id), sent));
}
