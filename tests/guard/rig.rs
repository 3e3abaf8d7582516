//! A guard's loop on the real kernel, in network namespaces and cgroups of the test's own, with the
//! test in the place of core and runner.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use standfast::config::Timing;
use standfast::model::TaskIndex;
use standfast::node::guard::{
    AddressPlan, Control, Guard, LastRung, Parts, Plan, TaskPlan, queue, start,
};
use standfast::node::messages::{FromGuard, ToGuard};
use standfast::node::page::word;
use standfast::node::paths;
use standfast::time::Span;
use standfast_sys::cgroup::Cgroup;
use standfast_sys::clock::boottime_ns;
use standfast_sys::netlink::{Address, Route};
use standfast_sys::sharedpage::SharedPage;
use standfast_sys::socket::{Received, SeqListener, SeqSocket};

/// How long something that must happen is waited for; only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// The boot that all guards of the tests live in.
const BOOT: u128 = 0x1234;

/// The address of the only object of task 0 and of task 1.
pub(crate) const ADDRESS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 9, 8, 1), Ipv4Addr::new(10, 9, 8, 2)];

/// D = 1 s: a lease of 400 ms, an address lifetime of 1 s.
pub(crate) fn timing() -> Timing {
    Timing::from_detect(Span::from_ms(1_000))
}

/// Asks again and again until there is an answer.
pub(crate) fn eventually<T>(what: &str, mut question: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until a descriptor is readable.
pub(crate) fn readable(descriptor: &impl std::os::fd::AsFd) {
    let mut descriptors = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
    let patience = PollTimeout::try_from(PATIENCE).unwrap();
    assert_eq!(poll(&mut descriptors, patience), Ok(1), "nothing comes");
}

/// Runs a command that must succeed.
pub(crate) fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Runs the test in a network of its own: `svc`, where the addresses are to live, with a cable to
/// `peer`.
pub(crate) fn in_network(test: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare, as root");
        run("ip link set lo up");
        make_cable();
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Makes the cable and waits for its carrier.
pub(crate) fn make_cable() {
    run("ip link add svc type veth peer name peer");
    run("ip link set peer up");
    run("ip link set svc up");
    for name in ["svc", "peer"] {
        eventually("carrier", || link(name).running.then_some(()));
    }
}

/// An interface of this network.
pub(crate) fn link(name: &str) -> standfast_sys::netlink::Link {
    Route::open()
        .unwrap()
        .link_by_name(name)
        .unwrap()
        .expect("the interface exists")
}

/// The address of a task as the kernel has it.
pub(crate) fn address(task: usize) -> Option<Address> {
    let addresses = Route::open().unwrap().addresses().unwrap();
    addresses
        .into_iter()
        .find(|address| address.ip == ADDRESS[task])
}

/// Two tasks, each with one address on `svc`.
fn plan(name: &str, timing: Timing) -> Plan {
    let task = |index: usize| TaskPlan {
        name: format!("task{index}"),
        cgroup: Path::new(name).join(format!("task{index}")),
    };
    let address = |index: usize| AddressPlan {
        task: TaskIndex::new(index).unwrap(),
        object: 0,
        position: 0,
        address: ADDRESS[index],
        prefix: 24,
        interface: "svc".to_owned(),
    };
    Plan {
        timing,
        tasks: (0..2).map(task).collect(),
        addresses: (0..2).map(address).collect(),
    }
}

/// A guard's loop in this process.
pub(crate) struct Running {
    pub(crate) control: Arc<Control>,
    pub(crate) thread: JoinHandle<bool>,
}

/// Starts a guard's loop as `standfastd` does, in a thread of this process.
pub(crate) fn start_guard(run_dir: &Path, name: &str, timing: Timing) -> Running {
    start_guard_with(run_dir, name, timing, None)
}

/// The same with the means to reset the machine, or what the test takes for it.
fn start_guard_with(
    run_dir: &Path,
    name: &str,
    timing: Timing,
    last_rung: Option<LastRung>,
) -> Running {
    let page = Arc::new(start::page(run_dir, BOOT).unwrap());
    let control = Arc::new(Control::default());
    let listener = SeqListener::bind(&paths::guard_socket(run_dir), 0o600).unwrap();
    let (voice, ear) = queue();
    thread::spawn(move || ear.write_log());
    let parts = Parts {
        plan: plan(name, timing),
        page,
        listener,
        control: control.clone(),
        voice,
    };
    let mut guard = Guard::new(parts).unwrap();
    if let Some(last_rung) = last_rung {
        guard.arm(last_rung);
    }
    Running {
        control,
        thread: thread::spawn(move || guard.run()),
    }
}

/// Everything a test needs; what it made goes away with it.
pub(crate) struct Rig {
    directory: tempfile::TempDir,
    name: String,
    pub(crate) page: Arc<SharedPage>,
    core: Option<Core>,
    sleepers: Vec<Child>,
}

/// Renews the lease as a core would.
struct Core {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Rig {
    /// A run directory with a page and no guard yet.
    pub(crate) fn new() -> Rig {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = tempfile::tempdir().unwrap();
        let page = Arc::new(start::page(directory.path(), BOOT).unwrap());
        let name = format!("standfast-guard-{}-{number}", std::process::id());
        Rig {
            directory,
            name,
            page,
            core: None,
            sleepers: Vec::new(),
        }
    }

    /// Starts a guard in this process.
    pub(crate) fn guard(&self) -> Running {
        self.guard_with(timing())
    }

    /// The same with other times.
    pub(crate) fn guard_with(&self, timing: Timing) -> Running {
        start_guard(self.directory.path(), &self.name, timing)
    }

    /// Starts a guard in this process that falls as this says when it cannot let go.
    pub(crate) fn guard_that_falls(&self, last_rung: LastRung) -> Running {
        start_guard_with(self.directory.path(), &self.name, timing(), Some(last_rung))
    }

    /// Starts a guard in a process of its own, to be stopped and killed.
    pub(crate) fn guard_process(&self) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["child_guard", "--exact", "--nocapture"]);
        command
            .env("GUARD_DIRECTORY", self.directory.path())
            .env("GUARD_NAME", &self.name);
        let turns = self.load(word::GUARD_TURN_AT);
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        eventually("the guard turns", || {
            (self.load(word::GUARD_TURN_AT) != turns).then_some(())
        });
        child
    }

    /// The directory of sockets and page.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// One word of the page.
    pub(crate) fn load(&self, word: usize) -> u64 {
        self.page.words()[word].load(Ordering::Acquire)
    }

    /// Sets a word that is the core's.
    pub(crate) fn store(&self, word: usize, value: u64) {
        self.page.words()[word].store(value, Ordering::Release);
    }

    /// Grants tasks and keeps the lease valid from now on.
    pub(crate) fn grant(&mut self, tasks: u64) {
        // Never granted without a lease, or the guard would take it back.
        self.lease(true);
        self.store(word::GRANTED, tasks);
    }

    /// Waits until the guard knows that these tasks were granted.
    pub(crate) fn seen_granted(&self, tasks: u64) {
        eventually("the guard knows what was granted", || {
            (self.load(word::GRANTED_IN_BOOT) & tasks == tasks).then_some(())
        });
    }

    /// Keeps the lease valid, or lets it run out by itself.
    pub(crate) fn lease(&mut self, renewed: bool) {
        if let Some(core) = self.core.take() {
            core.stop.store(true, Ordering::Release);
            core.thread.join().unwrap();
        }
        if !renewed {
            return;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (page, stopped) = (self.page.clone(), stop.clone());
        let renew = move || {
            let deadline = boottime_ns() + timing().lease.0;
            page.words()[word::LEASE_DEADLINE].store(deadline, Ordering::Release);
            page.words()[word::CORE_TURNS].fetch_add(1, Ordering::AcqRel);
        };
        let (began, begin) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            // A busy host must not cost the test its lease.
            let _ = standfast_sys::realtime::become_realtime(30);
            renew();
            began.send(()).unwrap();
            while !stopped.load(Ordering::Acquire) {
                renew();
                thread::sleep(Duration::from_millis(20));
            }
        });
        begin.recv().unwrap();
        self.core = Some(Core { stop, thread });
    }

    /// The cgroup of a task.
    pub(crate) fn cgroup(&self, task: usize) -> Cgroup {
        Cgroup::create(&Path::new(&self.name).join(format!("task{task}"))).unwrap()
    }

    /// Starts a process in the cgroup of a task and returns its position.
    pub(crate) fn sleeper(&mut self, task: usize) -> usize {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        self.cgroup(task).add(child.id().cast_signed()).unwrap();
        self.sleepers.push(child);
        self.sleepers.len() - 1
    }

    /// Has the process been killed?
    pub(crate) fn is_dead(&mut self, sleeper: usize) -> bool {
        self.sleepers[sleeper].try_wait().unwrap().is_some()
    }

    /// Connects as the runner does.
    pub(crate) fn client(&self) -> Client {
        let path = paths::guard_socket(self.directory.path());
        let connected = || SeqSocket::connect(&path).ok();
        Client {
            socket: eventually("the guard listens", connected),
            notices: Vec::new(),
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if thread::panicking() {
            let words = [
                word::REVOCATIONS,
                word::REVOKED,
                word::GRANTED,
                word::ADDRESSES,
            ];
            eprintln!(
                "revocations, revoked, granted, held: {:?}",
                words.map(|at| self.load(at))
            );
            eprintln!("{}", run("ip -d address"));
        }
        self.lease(false);
        for child in &mut self.sleepers {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Ok(Some(group)) = Cgroup::open_existing(Path::new(&self.name)) {
            let _ = group.kill();
            let deadline = Instant::now() + PATIENCE;
            while group.remove().is_err() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// The runner's end of guard.sock.
pub(crate) struct Client {
    socket: SeqSocket,
    notices: Vec<(bool, String)>,
}

impl Client {
    /// Asks for the address of a task.
    pub(crate) fn hold(&mut self, task: usize) -> FromGuard {
        let task = TaskIndex::new(task).unwrap();
        self.ask(&ToGuard::Hold {
            task,
            object: 0,
            address: 0,
        })
    }

    /// Lets it go.
    pub(crate) fn release(&mut self, task: usize) -> FromGuard {
        let task = TaskIndex::new(task).unwrap();
        self.ask(&ToGuard::Release {
            task,
            object: 0,
            address: 0,
        })
    }

    /// Is it held?
    pub(crate) fn held(&mut self, task: usize) -> FromGuard {
        let task = TaskIndex::new(task).unwrap();
        self.ask(&ToGuard::Held {
            task,
            object: 0,
            address: 0,
        })
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn ask(&mut self, request: &ToGuard) -> FromGuard {
        let mut buffer = [0; 64];
        let message = postcard::to_slice(request, &mut buffer).unwrap();
        assert!(self.socket.send(message).unwrap());
        loop {
            readable(&self.socket);
            if let Some(answer) = self.receive() {
                return answer;
            }
        }
    }

    /// Waits for a notice that contains `text`; says whether it calls the address useless.
    pub(crate) fn notice(&mut self, text: &str) -> bool {
        loop {
            if let Some(at) = self
                .notices
                .iter()
                .position(|(_, said)| said.contains(text))
            {
                return self.notices.remove(at).0;
            }
            readable(&self.socket);
            assert!(self.receive().is_none(), "an answer to no request");
        }
    }

    /// One message: an answer, or a notice, which is kept.
    fn receive(&mut self) -> Option<FromGuard> {
        let mut buffer = [0; 4096];
        let Received::Message(length) = self.socket.recv(&mut buffer).unwrap() else {
            panic!("the guard has closed the connection");
        };
        match postcard::from_bytes(&buffer[..length]).unwrap() {
            FromGuard::Notice { useless, text, .. } => {
                self.notices.push((useless, text));
                None
            }
            answer => Some(answer),
        }
    }
}
