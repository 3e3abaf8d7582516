//! The runner as a process of its own, with this test in the place of the core and the guard.

#[path = "../node_rig/mod.rs"]
mod node_rig;
mod power;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use clap::Parser;
use node_rig::{PATIENCE, TestGroup, configuration, eventually, sh};
use standfast::engine::{Class, Found, Order, Record, Refusal, Report};
use standfast::model::TaskIndex;
use standfast::node::control::{self, Code, ControlError, Request, Response};
use standfast::node::messages::{FromGuard, FromRunner, MESSAGE_MAX, ToGuard, ToRunner};
use standfast::node::options::Options;
use standfast::node::page::{PAGE_WORDS, word};
use standfast::node::{paths, runner};
use standfast::time;
use standfast_sys::sharedpage::SharedPage;
use standfast_sys::socket::{Received, SeqListener, SeqSocket};
use tempfile::TempDir;

/// Where the runner's process finds its directory; unset in a normal run of the tests.
const DIRECTORY: &str = "STANDFAST_TEST_RUNNER";

/// Not a test: what the other tests start as the runner.
#[test]
fn runner_process() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    let directory = PathBuf::from(directory);
    let objects = fs::read_to_string(directory.join("objects")).unwrap();
    let config = configuration(&objects, &directory);
    let (run, state) = (directory.join("run"), directory.join("state"));
    let words = ["standfastd", "--node", "a", "--run-dir"].map(std::ffi::OsString::from);
    let arguments = words
        .into_iter()
        .chain([run.into(), "--state-dir".into(), state.into()]);
    let _ = runner::run(&Options::parse_from(arguments), &config);
}

/// One node with a task of these objects: this test is its core and its guard.
struct Node {
    directory: TempDir,
    page: SharedPage,
    listener: SeqListener,
    core: Option<SeqSocket>,
    runner: Option<Child>,
    notes: Vec<String>,
    _group: NodeGroup,
    _running: std::sync::MutexGuard<'static, ()>,
}

/// All nodes have the same cgroup, so one test at a time.
static RUNNING: std::sync::Mutex<()> = std::sync::Mutex::new(());

struct NodeGroup(TestGroup);

const TASK: usize = 0;

fn task() -> TaskIndex {
    TaskIndex::new(TASK).unwrap()
}

impl Node {
    fn new(objects: &str) -> Node {
        let running = RUNNING
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path().join("run");
        fs::create_dir(&run).unwrap();
        let objects = objects.replace("DIR", &directory.path().display().to_string());
        fs::write(directory.path().join("objects"), objects).unwrap();
        let page = SharedPage::create(&paths::page(&run), PAGE_WORDS).unwrap();
        let guard = SeqListener::bind(&paths::guard_socket(&run), 0o600).unwrap();
        thread::spawn(move || play_guard(&guard));
        let listener = SeqListener::bind(&paths::core_socket(&run), 0o600).unwrap();
        let group = NodeGroup(TestGroup(paths::node_cgroup("t", "a")));
        let mut node = Node {
            directory,
            page,
            listener,
            core: None,
            runner: None,
            notes: Vec::new(),
            _group: group,
            _running: running,
        };
        // The runner ends when its parent is not the guard.
        let guard_pid = u64::from(std::process::id());
        node.page.words()[word::GUARD_PID].store(guard_pid, Ordering::SeqCst);
        node.grant(true);
        node.run();
        node
    }

    fn run_dir(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    fn grant(&self, granted: bool) {
        let words = self.page.words();
        words[word::LEASE_DEADLINE].store(u64::MAX, Ordering::SeqCst);
        words[word::GRANTED].store(u64::from(granted), Ordering::SeqCst);
    }

    /// Starts a runner and takes its connection.
    fn run(&mut self) {
        let runner = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "runner_process", "--nocapture"])
            .env(DIRECTORY, self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.runner = Some(runner);
        self.accept();
    }

    fn accept(&mut self) {
        self.core = None;
        let accepted = eventually("the runner connects", || self.listener.accept().unwrap());
        self.core = Some(accepted);
    }

    fn kill_runner(&mut self) {
        let mut runner = self.runner.take().unwrap();
        runner.kill().unwrap();
        runner.wait().unwrap();
    }

    fn tell(&self, message: &ToRunner) {
        let packet = postcard::to_stdvec(message).unwrap();
        assert!(self.core.as_ref().unwrap().send(&packet).unwrap());
    }

    /// The next message that is not about fitness, which is told at any time.
    fn hear(&self) -> FromRunner {
        let mut buffer = vec![0; MESSAGE_MAX];
        let core = self.core.as_ref().unwrap();
        eventually("the runner speaks", || {
            match core.recv(&mut buffer).unwrap() {
                Received::Message(length) => {
                    let message = postcard::from_bytes(&buffer[..length]).unwrap();
                    let fitness = matches!(message, FromRunner::Report(Report::Fit { .. }));
                    (!fitness).then_some(message)
                }
                Received::Nothing => None,
                Received::Closed => panic!("the runner closed the connection"),
            }
        })
    }

    /// The next report that is not a note; notes are kept.
    fn report(&mut self) -> Report {
        loop {
            match self.hear() {
                FromRunner::Report(Report::Note { text, .. }) => self.notes.push(text),
                FromRunner::Report(report) => return report,
                other => panic!("{other:?}"),
            }
        }
    }

    fn note(&mut self, wanted: &str) {
        while !self.notes.iter().any(|note| note.contains(wanted)) {
            match self.hear() {
                FromRunner::Report(Report::Note { text, .. }) => self.notes.push(text),
                other => panic!("{other:?} while waiting for {wanted:?}; {:?}", self.notes),
            }
        }
    }

    fn expect_hello(&mut self, found: Found) {
        assert_eq!(
            self.report(),
            Report::Hello { found: vec![found] },
            "{:?}",
            self.notes
        );
    }

    fn order_start(&self, op: u64) {
        self.tell(&ToRunner::Order(Order::Start {
            op,
            task: task(),
            epoch: 3,
        }));
    }

    fn order_stop(&self, op: u64, forced: bool) {
        self.tell(&ToRunner::Order(Order::Stop {
            op,
            task: task(),
            epoch: 3,
            forced,
        }));
    }

    fn expect_done(&mut self, op: u64) {
        let done = Report::Done {
            op,
            task: task(),
            failure: None,
        };
        assert_eq!(self.report(), done, "{:?}", self.notes);
    }

    fn pid(&self) -> String {
        let path = self.run_dir().join("tasks/task/server.pid");
        // It is away for a moment while the process is started again.
        let line = eventually("a process id", || fs::read_to_string(&path).ok());
        line.split(' ').next().unwrap().to_owned()
    }

    fn is_populated(&self) -> bool {
        self._group.0.is_populated()
    }

    fn ask(&self, request: &Request) -> Response {
        control::ask(&self.run_dir(), request, PATIENCE).unwrap()
    }

    fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(paths::control_socket(&self.run_dir())).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // Cut off with our bytes unread is a reset; what came before it counts.
        let _ = stream.read_to_end(&mut answer);
        answer
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut runner) = self.runner.take() {
            let _ = runner.kill();
            let _ = runner.wait();
        }
    }
}

/// Holds what it is asked to hold.
fn play_guard(listener: &SeqListener) {
    let mut held = BTreeSet::new();
    let mut socket: Option<SeqSocket> = None;
    let mut buffer = vec![0; MESSAGE_MAX];
    loop {
        if let Ok(Some(next)) = listener.accept() {
            socket = Some(next);
        }
        let message = socket.as_ref().map(|socket| socket.recv(&mut buffer));
        let Some(Ok(Received::Message(length))) = message else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        let yes = match postcard::from_bytes(&buffer[..length]).unwrap() {
            ToGuard::Hold { object, .. } => {
                held.insert(object);
                true
            }
            ToGuard::Release { object, .. } => {
                held.remove(&object);
                true
            }
            ToGuard::Held { object, .. } => held.contains(&object),
        };
        let answer = if yes { FromGuard::Yes } else { FromGuard::No };
        let packet = postcard::to_stdvec(&answer).unwrap();
        let _ = socket.as_ref().unwrap().send(&packet);
    }
}

const SERVER: &str = "[[task.object]]\nname = \"server\"\nkind = \"process\"\nstep = 2\n\
                      command = [\"/bin/sleep\", \"1000\"]\n";

const ADDRESS: &str = "[[task.object]]\nname = \"vip\"\nkind = \"ip\"\nstep = 3\n\
                       address = \"10.9.8.7\"\ninterface = \"lo\"\n";

#[test]
fn a_killed_runner_leaves_its_task_alone_and_the_next_one_adopts_it() {
    let mut node = Node::new(&format!("{SERVER}{ADDRESS}"));
    node.expect_hello(Found::Stopped);
    node.order_start(1);
    node.expect_done(1);
    node.note("started in");
    let pid = node.pid();
    node.kill_runner();
    assert!(PathBuf::from(format!("/proc/{pid}")).exists());
    node.run();
    node.expect_hello(Found::Running);
    assert_eq!(node.pid(), pid);
    // Not its child, and its death is seen all the same.
    sh(&format!("kill -9 {pid}"));
    node.note("restart 1 of 2");
    eventually("a new process", || (node.pid() != pid).then_some(()));
    node.order_stop(2, false);
    node.expect_done(2);
    node.note("stopped in");
    assert!(!node.is_populated());
}

#[test]
fn a_process_that_keeps_dying_is_lost_when_the_budget_is_used_up() {
    let mut node = Node::new(SERVER);
    node.expect_hello(Found::Stopped);
    node.order_start(1);
    node.expect_done(1);
    for round in 1..=2 {
        let pid = node.pid();
        sh(&format!("kill -9 {pid}"));
        node.note(&format!("restart {round} of 2"));
        eventually("a new process", || (node.pid() != pid).then_some(()));
    }
    sh(&format!("kill -9 {}", node.pid()));
    let Report::Lost { failure, .. } = node.report() else {
        panic!("{:?}", node.notes)
    };
    assert!(failure.reason.contains("are used up"), "{failure:?}");
    node.order_stop(2, true);
    node.expect_done(2);
}

#[test]
fn without_a_lease_nothing_is_started_and_nothing_restarted() {
    let mut node = Node::new(SERVER);
    node.expect_hello(Found::Stopped);
    node.grant(false);
    node.order_start(1);
    let Report::Done {
        failure: Some(failure),
        ..
    } = node.report()
    else {
        panic!("started")
    };
    assert!(
        failure.stopped && failure.reason.contains("lease"),
        "{failure:?}"
    );
    node.grant(true);
    node.order_start(2);
    node.expect_done(2);
    node.grant(false);
    sh(&format!("kill -9 {}", node.pid()));
    let Report::Lost { failure, .. } = node.report() else {
        panic!("not lost")
    };
    assert!(failure.reason.contains("lease is gone"), "{failure:?}");
    assert!(!node.is_populated());
}

#[test]
fn a_failed_start_stops_what_had_started() {
    let broken = "[[task.object]]\nname = \"broken\"\nkind = \"script\"\nstep = 3\n\
                  start = [\"/bin/sh\", \"-c\", \"echo no space left; exit 1\"]\n\
                  stop = [\"/bin/true\"]\n";
    let mut node = Node::new(&format!("{SERVER}{broken}"));
    node.expect_hello(Found::Stopped);
    node.order_start(1);
    let Report::Done {
        op: 1,
        failure: Some(failure),
        ..
    } = node.report()
    else {
        panic!("started")
    };
    assert_eq!(
        (failure.object.as_str(), failure.stopped),
        ("broken", true),
        "{failure:?}"
    );
    assert!(failure.reason.contains("no space left"), "{failure:?}");
    assert!(!node.is_populated());
}

#[test]
fn a_stop_ends_the_start_that_is_under_way() {
    let ready = "ready = { program = [\"/bin/false\"], within = \"1h\" }\n";
    let mut node = Node::new(&format!("{SERVER}{ready}"));
    node.expect_hello(Found::Stopped);
    node.order_start(1);
    let pid_file = node.run_dir().join("tasks/task/server.pid");
    eventually("it starts", || pid_file.exists().then_some(()));
    node.order_stop(2, false);
    let Report::Done {
        op: 1,
        failure: Some(failure),
        ..
    } = node.report()
    else {
        panic!("started")
    };
    assert!(
        failure.stopped && failure.reason.contains("given up"),
        "{failure:?}"
    );
    node.expect_done(2);
}

#[test]
fn a_stop_asks_politely_first_whatever_the_daemon_itself_has_blocked() {
    let polite = "[[task.object]]\nname = \"server\"\nkind = \"process\"\nstop_within = \"1h\"\n\
                  command = [\"/bin/sh\", \"-c\", \"trap 'echo polite; exit' TERM; echo up; \
                  while sleep 0.01; do :; done\"]\n";
    let mut node = Node::new(polite);
    node.expect_hello(Found::Stopped);
    node.order_start(1);
    node.expect_done(1);
    let log = node.run_dir().join("tasks/task/server.log");
    let says = |word: &str| fs::read_to_string(&log).is_ok_and(|log| log.contains(word));
    eventually("it is up", || says("up").then_some(()));
    node.order_stop(2, false);
    node.expect_done(2);
    assert!(says("polite"));
}

#[test]
fn a_new_core_is_greeted_with_what_runs() {
    let mut node = Node::new(SERVER);
    node.expect_hello(Found::Stopped);
    node.order_start(1);
    node.expect_done(1);
    node.accept();
    node.expect_hello(Found::Running);
    node.order_stop(1, false);
    node.expect_done(1);
}

fn record(text: &str) -> Record {
    Record {
        at: time::Instant(1),
        epoch: 1,
        class: Class::Notice,
        task: Some(task()),
        node: None,
        trigger: text.to_owned(),
        evidence: vec!["seen".to_owned()],
        rule: "rule".to_owned(),
        rejected: Vec::new(),
        outcome: "done".to_owned(),
    }
}

#[test]
fn the_control_socket_passes_commands_and_keeps_who_asked() {
    let mut node = Node::new(SERVER);
    node.expect_hello(Found::Stopped);
    node.tell(&ToRunner::Record(record("a record of the core")));
    let command = standfast::engine::Command::Stop { task: task() };
    let run_dir = node.run_dir();
    let request = Request::Command(command.clone());
    let asker = thread::spawn(move || control::ask(&run_dir, &request, PATIENCE));
    let FromRunner::Command {
        request,
        command: passed,
    } = node.hear()
    else {
        panic!()
    };
    assert_eq!(passed, command);
    let outcome = Err(Refusal {
        reason: "not now".to_owned(),
        remedy: "wait".to_owned(),
    });
    node.tell(&ToRunner::Reply { request, outcome });
    let Response::Error(refused) = asker.join().unwrap().unwrap() else {
        panic!("not refused")
    };
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (Code::Refused, "not now")
    );
    let entries = eventually("two entries", || {
        let request = Request::History {
            limit: 10,
            task: Some(task()),
        };
        match node.ask(&request) {
            Response::History(entries) => Some(entries).filter(|entries| entries.len() == 2),
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(entries[0].record, record("a record of the core"));
    assert_eq!(entries[1].record.trigger, "a command: stop task");
    assert!(
        entries[1]
            .asked_by
            .as_ref()
            .unwrap()
            .starts_with("user 0, process ")
    );
    assert!(entries[1].time.ends_with('Z'));
}

#[test]
fn status_falls_back_to_the_page_when_the_core_says_nothing() {
    let node = Node::new(SERVER);
    let Response::Status(status) = node.ask(&Request::Status) else {
        panic!("no status")
    };
    assert!(status.snapshot.is_none());
    assert_eq!(
        (status.names.cluster.as_str(), status.names.node.as_str()),
        ("t", "a")
    );
    assert_eq!(status.names.tasks, ["task"]);
    assert_eq!(status.page.granted, 1);
    assert_eq!(status.page.pids[2], node.runner.as_ref().unwrap().id());
    let Response::Version(version) = node.ask(&Request::Version) else {
        panic!("no version")
    };
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
}

#[test]
fn garbage_on_the_control_socket_is_refused_and_counted() {
    let mut node = Node::new(SERVER);
    node.expect_hello(Found::Stopped);
    node.order_start(1);
    node.expect_done(1);
    let pid = node.pid();
    let bad: [&[u8]; 5] = [
        b"GET / HTTP/1.0\r\n\r\n",
        b"SFCT\x02\x00",
        b"SFCT\x02\x00\x05\x00\x00\x00abc",
        b"SFCT\x02\x00\xff\xff\xff\xff",
        b"SFCT\x02\x00\x01\x00\x00\x00\x63",
    ];
    for (at, bytes) in bad.into_iter().enumerate() {
        let answer = node.raw(bytes);
        assert_eq!(answer.is_empty(), at < 4, "{at}: {answer:?}");
    }
    let Response::Counters(counters) = node.ask(&Request::Counters) else {
        panic!()
    };
    assert_eq!(counters.bad_requests, bad.len() as u64);
    // Another version gets a header it can read and a sentence.
    let answer = node.raw(b"SFCT\x63\x00\x01\x00\x00\x00x");
    let (version, body) = control::receive(&mut &answer[..]).unwrap();
    assert_eq!(version, control::VERSION);
    assert!(
        String::from_utf8(body)
            .unwrap()
            .contains("speaks version 99")
    );
    assert_eq!(node.pid(), pid);
    assert!(node.is_populated());
}

#[test]
fn clients_that_hang_hold_up_nobody_for_long() {
    let node = Node::new(SERVER);
    let path = paths::control_socket(&node.run_dir());
    let hanging: Vec<UnixStream> = (0..16)
        .map(|_| UnixStream::connect(&path).unwrap())
        .collect();
    let Response::Error(refused) = node.ask(&Request::Version) else {
        panic!("not refused")
    };
    assert_eq!(refused.code, Code::Busy);
    // They are cut off by their deadline, not by us.
    eventually("a place is free", || match node.ask(&Request::Version) {
        Response::Version(_) => Some(()),
        Response::Error(_) => None,
        other => panic!("{other:?}"),
    });
    drop(hanging);
}

#[test]
fn a_daemon_that_is_not_there_is_said_so() {
    let directory = tempfile::tempdir().unwrap();
    let error = control::ask(directory.path(), &Request::Version, PATIENCE).unwrap_err();
    assert!(matches!(error, ControlError::NotRunning(_)), "{error}");
}
