//! A place of its own for each test: a configuration, a disk image, and a daemon that answers what
//! the test wants.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use standfast::engine::{LinkStatus, NodeStatus, RegisterStatus, Snapshot, TaskStatus};
use standfast::model::{NodeId, TaskIndex, TaskState};
use standfast::node::control::{self, Names, PageStatus, Request, Response, Status};
use standfast::time::Instant;
use tempfile::TempDir;

/// What a run came to.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Ran {
        Ran {
            code: output.status.code().expect("not killed by a signal"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Holds the exit code, and shows everything if it is another.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Ran {
        assert_eq!(
            self.code, code,
            "--- out\n{}\n--- err\n{}",
            self.out, self.err
        );
        self
    }

    /// Holds that standard output has these words.
    #[track_caller]
    pub(crate) fn says(self, words: &str) -> Ran {
        assert!(
            self.out.contains(words),
            "no `{words}` in\n{}\n--- err\n{}",
            self.out,
            self.err
        );
        self
    }

    /// Holds that standard error has these words.
    #[track_caller]
    pub(crate) fn warns(self, words: &str) -> Ran {
        assert!(
            self.err.contains(words),
            "no `{words}` in\n{}\n--- out\n{}",
            self.err,
            self.out
        );
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in\n{}", self.out))
    }
}

/// A directory with everything a command may want.
pub(crate) struct Place {
    pub(crate) directory: TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// With a configuration and a secret as `init` writes them.
    pub(crate) fn with_cluster() -> Place {
        let place = Place::new();
        place.init("pair", &[]).exits(0);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn init(&self, name: &str, more: &[&str]) -> Ran {
        let (etc, disk) = (self.path("etc"), self.path("disk"));
        let (etc, disk) = (etc.to_str().unwrap(), disk.to_str().unwrap());
        let mut line = vec!["init", "--name", name, "--node", "a", "--node", "b"];
        line.extend(["--directory", etc, "--disk", disk]);
        line.extend(more);
        self.run(&line)
    }

    /// Runs the program with this place's configuration and run directory, as node a.
    pub(crate) fn run(&self, line: &[&str]) -> Ran {
        Ran::of(self.command(line).output().unwrap())
    }

    pub(crate) fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_standfast"));
        command.arg("--config").arg(self.path("etc/cluster.toml"));
        command.arg("--run-dir").arg(self.path("run"));
        command.arg("--state-dir").arg(self.path("state"));
        if line.first() != Some(&"init") {
            command.args(["--node", "a"]);
        }
        command.args(line).stdin(Stdio::null());
        command
    }

    /// Runs the program with a standard output that nobody reads.
    pub(crate) fn run_unread(&self, line: &[&str]) -> Ran {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Ran::of(self.command(line).stdout(writer).output().unwrap())
    }

    /// Runs the program on a terminal of its own (script(1)) with somebody who types this; both
    /// outputs are one there.
    pub(crate) fn run_on_terminal(&self, line: &[&str], typed: &str) -> Ran {
        let command = self.command(line);
        let words = [command.get_program()]
            .into_iter()
            .chain(command.get_args());
        let quoted = words.map(|word| format!("'{}'", word.to_str().unwrap()));
        let quoted = quoted.collect::<Vec<_>>().join(" ");
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &quoted, "/dev/null"]);
        script.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().unwrap();
        let mut person = child.stdin.take().unwrap();
        person.write_all(typed.as_bytes()).unwrap();
        let output = child.wait_with_output();
        drop(person);
        Ran::of(output.unwrap())
    }

    /// A disk image of zeros.
    pub(crate) fn image(&self, bytes: u64) -> PathBuf {
        let path = self.path("disk");
        File::create(&path).unwrap().set_len(bytes).unwrap();
        path
    }

    /// Adds lines to the configuration.
    pub(crate) fn configure(&self, lines: &str) {
        let path = self.path("etc/cluster.toml");
        let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(lines.as_bytes()).unwrap();
    }

    /// A daemon that gives these answers. Ends with the test's process.
    pub(crate) fn serve(&self, mut answer: impl FnMut(Request) -> Response + Send + 'static) {
        self.serve_raw(move |stream, request| control::send(stream, &answer(request)).unwrap());
    }

    /// A daemon that writes what it likes.
    pub(crate) fn serve_raw(
        &self,
        mut answer: impl FnMut(&mut UnixStream, Request) + Send + 'static,
    ) {
        let run = self.path("run");
        fs::create_dir_all(&run).unwrap();
        let listener = UnixListener::bind(standfast::node::paths::control_socket(&run)).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Ok((_, body)) = control::receive(&mut stream) else {
                    continue;
                };
                answer(&mut stream, control::decode(&body).unwrap());
            }
        });
    }
}

pub(crate) fn node(id: u8) -> NodeId {
    NodeId::new(id).unwrap()
}

pub(crate) fn task() -> TaskIndex {
    TaskIndex::new(0).unwrap()
}

pub(crate) fn names() -> Names {
    Names {
        cluster: "pair".into(),
        node: "a".into(),
        nodes: vec![(node(1), "a".into()), (node(2), "b".into())],
        links: vec!["cable-1".into(), "disk-1".into()],
        tasks: vec!["web".into()],
    }
}

/// A cluster in which all is well: a and b are members, web runs on a.
pub(crate) fn well() -> Status {
    let member = |id: u8, heard_ms| NodeStatus {
        node: node(id),
        state: "member".into(),
        standby: false,
        heard_ms,
        epoch: 17,
        evicted: None,
    };
    let link = |link| LinkStatus {
        link,
        up: true,
        reason: String::new(),
        frames: 4711,
        peers: vec![(node(2), 12.25)],
        crossed: 0,
        downs: 0,
    };
    let snapshot = Snapshot {
        at: Instant(1),
        node: node(1),
        epoch: 17,
        standing: "member".into(),
        waiting_for: None,
        lease_ms: 187.5,
        proof: "both".into(),
        nodes: vec![member(1, None), member(2, Some(12.25))],
        links: vec![link(0), link(1)],
        register: RegisterStatus {
            missing_voters: Vec::new(),
            refused_messages: 0,
            reachable: true,
            read_ms: Some(31.0),
            trouble: None,
        },
        tasks: vec![web(1)],
        alarms: Vec::new(),
    };
    Status {
        snapshot: Some(snapshot),
        page: PageStatus {
            tasks: vec![3 << 8 | TaskState::Started as u64],
            pids: [10, 11, 12],
            granted: 1,
            ..PageStatus::default()
        },
        names: names(),
        fences: Vec::new(),
    }
}

/// The task, running on this node.
pub(crate) fn web(owner: u8) -> TaskStatus {
    TaskStatus {
        task: task(),
        owner: Some(node(owner)),
        heir: None,
        epoch: 3,
        wanted: true,
        states: vec![
            (node(owner), TaskState::Started),
            (node(3 - owner), TaskState::Stopped),
        ],
        blocked: None,
        failed_on: Vec::new(),
        cause: "placed while nobody owned it".into(),
    }
}

/// The same cluster with the task in another state.
pub(crate) fn with_task(task: TaskStatus) -> Status {
    let mut status = well();
    if let Some(snapshot) = &mut status.snapshot {
        snapshot.tasks = vec![task];
    }
    status
}

pub(crate) fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
    file.sync_all().unwrap();
}
