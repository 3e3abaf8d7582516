//! What several tests need: waiting for the real event, private namespaces, loop disks.
//!
//! The tests use the real kernel and run as root. Everything they make is private to the test and
//! goes away with its guard, also when the test panics.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::MsFlags;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};

/// How long a test waits for something that must happen; only a failing test waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until the descriptor is readable; false when [`PATIENCE`] is over.
pub(crate) fn becomes_readable(descriptor: &impl AsFd) -> bool {
    polls(descriptor, PollFlags::POLLIN, PATIENCE)
}

/// Whether the descriptor is readable now.
pub(crate) fn is_readable(descriptor: &impl AsFd) -> bool {
    polls(descriptor, PollFlags::POLLIN, Duration::ZERO)
}

/// Waits until the descriptor reports one of `flags`.
pub(crate) fn polls(descriptor: &impl AsFd, flags: PollFlags, timeout: Duration) -> bool {
    let mut descriptors = [PollFd::new(descriptor.as_fd(), flags)];
    let timeout = PollTimeout::try_from(timeout).expect("a short timeout");
    let ready = poll(&mut descriptors, timeout).expect("poll");
    ready == 1
        && descriptors[0]
            .revents()
            .is_some_and(|events| events.intersects(flags))
}

/// Asks again and again until `question` has an answer; panics with `what` when it never has.
pub(crate) fn eventually<T>(what: &str, mut question: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        thread::yield_now();
    }
}

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

/// Runs the test on a thread of its own in fresh namespaces, so that it cannot touch the host's.
pub(crate) fn in_namespaces(flags: CloneFlags, test: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(move || {
        unshare(flags).expect("unshare, as root");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A fresh network namespace with the loopback interface up.
pub(crate) fn in_network(test: impl FnOnce() + Send + 'static) {
    in_namespaces(CloneFlags::CLONE_NEWNET, || {
        run("ip link set lo up");
        test();
    });
}

/// A mount namespace from which no mount reaches the host.
pub(crate) fn in_mounts(test: impl FnOnce() + Send + 'static) {
    in_namespaces(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS, || {
        let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        nix::mount::mount(none, "/", none, private, none).expect("private mounts");
        test();
    });
}

/// Makes a pair of connected Ethernet interfaces, both up, and waits for their carrier.
pub(crate) fn make_cable(left: &str, right: &str) {
    run(&format!("ip link add {left} type veth peer name {right}"));
    run(&format!("ip link set {left} up"));
    run(&format!("ip link set {right} up"));
    for name in [left, right] {
        eventually("carrier of a cable", || {
            run("ip -o link")
                .lines()
                .find(|line| line.contains(&format!(" {name}@")) && line.contains("LOWER_UP"))
                .map(drop)
        });
    }
}

/// The kernel's index of an interface in this thread's namespace.
pub(crate) fn index_of(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).expect("the interface exists")
}

/// The hardware address of an interface in this thread's namespace.
pub(crate) fn mac_of(name: &str) -> [u8; 6] {
    let line = run(&format!("ip -o link show {name}"));
    let text = line
        .split("link/ether ")
        .nth(1)
        .expect("an Ethernet interface");
    let mut mac = [0; 6];
    for (byte, digits) in mac.iter_mut().zip(text[..17].split(':')) {
        *byte = u8::from_str_radix(digits, 16).expect("a hardware address");
    }
    mac
}

/// A loop device over a sparse file, with direct I/O; detached when dropped.
pub(crate) struct LoopDisk {
    device: PathBuf,
    _directory: tempfile::TempDir,
}

impl LoopDisk {
    /// A device of `bytes` zeros with logical sectors of `sector` bytes.
    pub(crate) fn new(bytes: u64, sector: u32) -> LoopDisk {
        let directory = tempfile::tempdir().expect("a directory");
        let image = directory.path().join("image");
        File::create(&image)
            .and_then(|file| file.set_len(bytes))
            .expect("an image");
        let device = run(&format!(
            "losetup --find --show --direct-io=on --sector-size {sector} {}",
            image.display()
        ));
        LoopDisk {
            device: device.into(),
            _directory: directory,
        }
    }

    /// The device file.
    pub(crate) fn path(&self) -> &Path {
        &self.device
    }

    /// Major and minor number.
    pub(crate) fn number(&self) -> (u32, u32) {
        let number = self.device.metadata().expect("the device").rdev();
        (libc::major(number), libc::minor(number))
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let detached = Command::new("losetup")
            .arg("--detach")
            .arg(&self.device)
            .status();
        if !thread::panicking() {
            assert!(
                detached.is_ok_and(|status| status.success()),
                "losetup --detach"
            );
        }
    }
}

/// Whether this is a child process made to run the body of the test `name` (its path below the
/// crate). In the test process: runs such a child, as `user` if given, requires its success and
/// says false.
///
/// For what would change the whole test process: locked memory, limits, its parent.
pub(crate) fn in_child(name: &str, user: Option<u32>) -> bool {
    const MARK: &str = "STANDFAST_SYS_TEST_CHILD";
    if std::env::var(MARK).is_ok_and(|child| child == name) {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().expect("the test's own path"));
    command
        .args(["--exact", name, "--nocapture"])
        .env(MARK, name);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let output = command.output().expect("a child");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{name}: {text}{errors}"
    );
    false
}
