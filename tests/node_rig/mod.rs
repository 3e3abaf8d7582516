//! What the tests of objects and of the runner share: namespaces, disks, control groups, patience.
//!
//! Everything is real and needs root. Whatever a test makes goes away with its guard, also when the
//! test panics.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use standfast::config::Config;
use standfast::model::TaskIndex;
use standfast::object::{
    AddressKeeper, AddressOf, BuildContext, Cancel, Context, Notices, Object, ObjectError, Permit,
    build, kind_rows,
};
use standfast_sys::cgroup::Cgroup;
use tempfile::TempDir;

/// How long a test waits for what must happen; only a failing test waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Asks until there is an answer; panics with `what` when there never is one.
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

/// Runs a shell command that must succeed, and returns what it printed.
pub(crate) fn sh(command: &str) -> String {
    let output = Command::new("/bin/sh")
        .args(["-c", command])
        .output()
        .expect("a shell");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Runs the test on a thread with its own mounts and network.
pub(crate) fn in_namespaces(test: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(move || {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
            .expect("unshare, as root");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        sh("ip link set lo up");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A loop device with a fresh ext4 on it; detached when dropped.
pub(crate) struct Disk {
    pub(crate) path: String,
    directory: TempDir,
}

impl Disk {
    /// From now on nothing can be read or written.
    pub(crate) fn lose(&self) {
        let image = self.directory.path().join("image");
        sh(&format!("truncate -s 0 {}", image.display()));
        sh(&format!("losetup --set-capacity {}", self.path));
    }

    pub(crate) fn new() -> Disk {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image").display().to_string();
        sh(&format!("truncate -s 16M {image} && mkfs.ext4 -q {image}"));
        let path = sh(&format!("losetup --find --show {image}"));
        Disk { path, directory }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .args(["--detach", &self.path])
            .status();
    }
}

/// A control group below the mount point, killed and removed when dropped.
pub(crate) struct TestGroup(pub(crate) PathBuf);

impl TestGroup {
    pub(crate) fn new() -> TestGroup {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("standfast-objects-{}-{number}", std::process::id());
        TestGroup(PathBuf::from(name))
    }

    pub(crate) fn is_populated(&self) -> bool {
        let group = Cgroup::open_existing(&self.0).unwrap();
        group.is_some_and(|group| group.is_populated().unwrap())
    }
}

impl Drop for TestGroup {
    fn drop(&mut self) {
        if let Ok(Some(group)) = Cgroup::open_existing(&self.0) {
            let _ = group.kill();
            let deadline = Instant::now() + PATIENCE;
            while group.remove().is_err() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// A keeper that adds and deletes addresses of `lo` in the caller's network by hand.
pub(crate) struct HandKeeper {
    /// Says "deleted" and does nothing.
    pub(crate) lies: AtomicBool,
}

impl HandKeeper {
    fn present(ip: Ipv4Addr) -> bool {
        sh("ip -4 -o address show").contains(&format!(" {ip}/"))
    }
}

impl AddressKeeper for HandKeeper {
    fn hold(&self, whose: AddressOf, _deadline: Instant) -> Result<(), ObjectError> {
        if !HandKeeper::present(whose.ip) {
            sh(&format!("ip address add {}/32 dev lo", whose.ip));
        }
        Ok(())
    }

    fn release(&self, whose: AddressOf, _deadline: Instant) -> Result<(), ObjectError> {
        if HandKeeper::present(whose.ip) && !self.lies.load(Ordering::SeqCst) {
            sh(&format!("ip address delete {}/32 dev lo", whose.ip));
        }
        Ok(())
    }

    fn held(&self, whose: AddressOf, _deadline: Instant) -> Result<bool, ObjectError> {
        Ok(HandKeeper::present(whose.ip))
    }
}

/// A permit that is always there.
pub(crate) struct Always;

impl Permit for Always {
    fn may_run(&self, _task: TaskIndex) -> bool {
        true
    }
}

/// One object's surroundings.
pub(crate) struct Place {
    pub(crate) group: TestGroup,
    pub(crate) directory: TempDir,
    pub(crate) keeper: Arc<HandKeeper>,
    pub(crate) notices: Arc<Notices>,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place {
            group: TestGroup::new(),
            directory: tempfile::tempdir().unwrap(),
            keeper: Arc::new(HandKeeper {
                lies: AtomicBool::new(false),
            }),
            notices: Arc::new(Notices::new().unwrap()),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A fresh object from the text of its `[[task.object]]`, as a new runner would make it.
    pub(crate) fn object(&self, text: &str) -> Box<dyn Object> {
        let config = configuration(text, self.directory.path());
        let context = BuildContext {
            task: TaskIndex::new(0).unwrap(),
            task_name: "task".to_owned(),
            node: "a".to_owned(),
            node_id: config.nodes()[0].id,
            cluster: config.cluster().id,
            position: 0,
            cgroup: self.group.0.clone(),
            directory: self.directory.path().to_owned(),
            detect: config.timing().detect,
            fenced: config.tasks()[0].is_fenced(),
            keeper: self.keeper.clone(),
            notices: Arc::clone(&self.notices),
        };
        build(&config.tasks()[0].objects[0], context).expect("a known kind")
    }
}

/// A single node's configuration with one task named `task`.
pub(crate) fn configuration(objects: &str, directory: &Path) -> Config {
    let text = format!(
        "[cluster]\nname = \"t\"\nid = \"0123456789abcdef0123456789abcdef\"\n\
         secret = \"{}/secret\"\ndetect = \"500ms\"\n[watchdog]\nstand-in = \"{}/watchdog\"\n\
         [[node]]\nname = \"a\"\nid = 1\n\n[[task]]\nname = \"task\"\n\
         restart = {{ attempts = 2, window = \"10m\" }}\n{objects}",
        directory.display(),
        directory.display(),
    );
    match Config::parse(&text, &kind_rows()) {
        Ok(config) => config,
        Err(errors) => panic!("{}", errors.render("test.toml", &text)),
    }
}

/// Calls an object with an empty context.
pub(crate) fn with<T>(call: impl FnOnce(&Context<'_>) -> T) -> T {
    let cancel = Cancel::new().unwrap();
    call(&Context {
        epoch: 7,
        permit: &Always,
        cancel: &cancel,
        note: &|_, _| {},
    })
}

pub(crate) fn soon() -> Instant {
    Instant::now() + PATIENCE
}
