//! Control groups, version 2: the processes of a task, so that one write kills them all
//! (cgroups(7)).
//!
//! The runner makes and empties groups; it may block. [`KillSwitch`] is for the guard: opened
//! early, it needs one write to a kernel file, no memory, no path.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

use crate::error::{Failed, Naming};
use crate::mount::mounts;

/// How deep groups inside a group are looked for when it is removed.
const DEPTH_MAX: u32 = 16;

/// A group of processes.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

/// What a group tells about itself and all groups inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// At least one process is left.
    pub populated: bool,
    /// All processes are stopped by [`Cgroup::freeze`].
    pub frozen: bool,
}

/// Where the version 2 hierarchy is mounted; on some hosts beside version 1.
///
/// # Errors
///
/// `ENOENT` if it is not mounted.
pub fn mount_point() -> Result<PathBuf, Failed> {
    let found = mounts()?
        .into_iter()
        .find(|mount| mount.fstype == "cgroup2");
    let missing = || Failed::new("find", "a cgroup2 mount", Errno::ENOENT);
    found.map(|mount| mount.target).ok_or_else(missing)
}

impl Cgroup {
    /// Makes the group at `path` below the mount point, with its parents; one that exists is taken
    /// over with the processes in it.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a path that is not relative or climbs; what mkdir(2) says.
    pub fn create(path: &Path) -> Result<Cgroup, Failed> {
        let group = Cgroup {
            path: resolve(path)?,
        };
        fs::create_dir_all(&group.path).naming("create control group", group.path.display())?;
        Ok(group)
    }

    /// The group at `path` below the mount point; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As for [`create`](Self::create).
    pub fn open_existing(path: &Path) -> Result<Option<Cgroup>, Failed> {
        let group = Cgroup {
            path: resolve(path)?,
        };
        let exists = group
            .path
            .try_exists()
            .naming("find control group", group.path.display())?;
        Ok(exists.then_some(group))
    }

    /// Where the group is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves a process with all its threads into the group; 0 is the caller, for use between fork
    /// and exec. Its children start in the group.
    ///
    /// # Errors
    ///
    /// `ESRCH` if it has ended, `EBUSY` for a group that hands controllers to groups inside it.
    pub fn add(&self, pid: i32) -> Result<(), Failed> {
        self.write(
            "cgroup.procs",
            &pid.to_string(),
            format_args!("move process {pid} to"),
        )
    }

    /// The file that takes processes into the group, open for writing.
    pub(crate) fn entrance(&self) -> Result<File, Failed> {
        let path = self.path.join("cgroup.procs");
        OpenOptions::new()
            .write(true)
            .open(&path)
            .naming("open", path.display())
    }

    /// The processes in the group itself, not in groups inside.
    ///
    /// # Errors
    ///
    /// The group was removed.
    pub fn procs(&self) -> Result<Vec<i32>, Failed> {
        let file = self.path.join("cgroup.procs");
        let text = fs::read_to_string(&file).naming("read", file.display())?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Whether any process is left in the group or inside; false if the group is gone.
    ///
    /// # Errors
    ///
    /// The kernel's file cannot be read.
    pub fn is_populated(&self) -> Result<bool, Failed> {
        match self.events() {
            Ok(events) => Ok(events.read()?.populated),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What to wait for to learn that the group emptied or froze.
    ///
    /// # Errors
    ///
    /// The group was removed.
    pub fn events(&self) -> Result<Events, Failed> {
        let path = self.path.join("cgroup.events");
        let file = File::open(&path).naming("open", path.display())?;
        let events = Events { file, path };
        // The kernel reports only changes after the first read.
        events.read()?;
        Ok(events)
    }

    /// The means to kill all processes of the group later.
    ///
    /// # Errors
    ///
    /// The group was removed, or the kernel is older than 5.14.
    pub fn kill_switch(&self) -> Result<KillSwitch, Failed> {
        let path = self.path.join("cgroup.kill");
        let file = OpenOptions::new()
            .write(true)
            .open(&path)
            .naming("open", path.display())?;
        Ok(KillSwitch { file })
    }

    /// Kills every process in the group and inside, forks under way included. They are gone when
    /// the group is no longer populated: a process in an uninterruptible wait takes as long as
    /// that.
    ///
    /// # Errors
    ///
    /// As for [`kill_switch`](Self::kill_switch).
    pub fn kill(&self) -> Result<(), Failed> {
        self.kill_switch()?
            .kill()
            .naming("kill control group", self.path.display())
            .map(drop)
    }

    /// Stops every process in the group and inside, or lets them go on. Done when [`State::frozen`]
    /// says so; a kill works on frozen processes.
    ///
    /// # Errors
    ///
    /// The group was removed.
    pub fn freeze(&self, frozen: bool) -> Result<(), Failed> {
        self.write(
            "cgroup.freeze",
            if frozen { "1" } else { "0" },
            "freeze or thaw",
        )
    }

    /// Removes the group and the groups inside. `Ok(false)` if it was not there.
    ///
    /// # Errors
    ///
    /// `EBUSY` while a process is left, zombies included.
    pub fn remove(&self) -> Result<bool, Failed> {
        match remove_tree(&self.path, 0) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Failed::new(
                "remove control group",
                self.path.display(),
                error,
            )),
        }
    }

    fn write(&self, file: &str, value: &str, what: impl Display) -> Result<(), Failed> {
        // Without O_CREAT and O_TRUNC: these files exist or the group is gone.
        let opened = OpenOptions::new().write(true).open(self.path.join(file));
        opened
            .and_then(|file| file.write_at(value.as_bytes(), 0))
            .naming(
                "change",
                format_args!("control group ({what} {})", self.path.display()),
            )
            .map(drop)
    }
}

/// Tells when a group empties or freezes: `POLLPRI` (`Interest::PRIORITY` in mio). It also always
/// polls as readable, which means nothing.
#[derive(Debug)]
pub struct Events {
    file: File,
    path: PathBuf,
}

impl Events {
    /// The state now; call it after each report to be told of the next change.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the group was removed.
    pub fn read(&self) -> Result<State, Failed> {
        let mut buffer = [0; 256];
        let length = self
            .file
            .read_at(&mut buffer, 0)
            .naming("read", self.path.display())?;
        let text = String::from_utf8_lossy(&buffer[..length]);
        let is_set = |name: &str| {
            text.lines()
                .any(|line| line.strip_prefix(name) == Some(" 1"))
        };
        Ok(State {
            populated: is_set("populated"),
            frozen: is_set("frozen"),
        })
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// A group's `cgroup.kill`, already open: usable from a locked real-time process.
#[derive(Debug)]
pub struct KillSwitch {
    file: File,
}

impl KillSwitch {
    /// Kills every process in the group and inside, with one write. `Ok(false)` if the group is
    /// gone.
    ///
    /// # Errors
    ///
    /// None known; the kernel's answer is passed on.
    pub fn kill(&self) -> io::Result<bool> {
        match self.file.write_at(b"1", 0) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn resolve(path: &Path) -> Result<PathBuf, Failed> {
    let plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !plain || path.as_os_str().is_empty() {
        return Err(Failed::new(
            "use as a control group",
            path.display(),
            Errno::EINVAL,
        ));
    }
    Ok(mount_point()?.join(path))
}

fn remove_tree(path: &Path, depth: u32) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(Errno::ELOOP.into());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path(), depth + 1)?;
        }
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::sync::atomic::{AtomicU32, Ordering};

    use nix::poll::PollFlags;

    use super::*;
    use crate::testing::{PATIENCE, eventually, polls};

    /// A group that is killed and removed with the test.
    struct Guard(Cgroup);

    impl Guard {
        fn new() -> Guard {
            Guard(Cgroup::create(&Guard::name()).unwrap())
        }

        fn name() -> PathBuf {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            format!("standfast-test-{}/task{number}", std::process::id()).into()
        }

        fn sleeper(&self) -> Child {
            let child = Command::new("sleep").arg("1000").spawn().unwrap();
            self.0.add(child.id() as i32).unwrap();
            child
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = self.0.kill();
            eventually("an empty group", || self.0.remove().ok());
            // The parent goes with the last test.
            let _ = fs::remove_dir(self.0.path().parent().unwrap());
        }
    }

    fn wait_for(events: &Events, wanted: State) {
        eventually("a change of the group", || {
            if events.read().unwrap() == wanted {
                return Some(());
            }
            assert!(polls(events, PollFlags::POLLPRI, PATIENCE), "no event");
            None
        });
    }

    #[test]
    fn one_write_kills_every_process_and_an_event_tells() {
        let group = Guard::new();
        assert!(!group.0.is_populated().unwrap());
        let switch = group.0.kill_switch().unwrap();
        let mut children = [group.sleeper(), group.sleeper(), group.sleeper()];
        let mut expected: Vec<i32> = children.iter().map(|child| child.id() as i32).collect();
        expected.sort_unstable();
        let mut procs = group.0.procs().unwrap();
        procs.sort_unstable();
        assert_eq!(procs, expected);
        let events = group.0.events().unwrap();
        assert_eq!(
            events.read().unwrap(),
            State {
                populated: true,
                frozen: false
            }
        );
        assert!(!polls(
            &events,
            PollFlags::POLLPRI,
            std::time::Duration::ZERO
        ));
        assert_eq!(group.0.remove().unwrap_err().errno(), Some(libc::EBUSY));
        assert!(switch.kill().unwrap());
        for child in &mut children {
            child.wait().unwrap();
        }
        wait_for(
            &events,
            State {
                populated: false,
                frozen: false,
            },
        );
        assert!(!group.0.is_populated().unwrap());
    }

    #[test]
    fn frozen_processes_can_be_thawed_and_killed() {
        let group = Guard::new();
        let mut child = group.sleeper();
        let events = group.0.events().unwrap();
        for frozen in [true, false, true] {
            group.0.freeze(frozen).unwrap();
            wait_for(
                &events,
                State {
                    populated: true,
                    frozen,
                },
            );
        }
        group.0.kill().unwrap();
        child.wait().unwrap();
        eventually("the group is empty", || {
            (!group.0.is_populated().unwrap()).then_some(())
        });
    }

    #[test]
    fn groups_inside_count_and_are_removed_too() {
        let group = Guard::new();
        let name = group
            .0
            .path()
            .strip_prefix(mount_point().unwrap())
            .unwrap()
            .to_owned();
        let inner = Cgroup::create(&name.join("inner/most")).unwrap();
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        inner.add(child.id() as i32).unwrap();
        assert!(group.0.is_populated().unwrap() && group.0.procs().unwrap().is_empty());
        assert!(Cgroup::open_existing(&name).unwrap().is_some());
        group.0.kill().unwrap();
        child.wait().unwrap();
        eventually("removed", || group.0.remove().ok());
        assert!(!group.0.remove().unwrap());
        assert!(!group.0.is_populated().unwrap());
        assert!(Cgroup::open_existing(&name).unwrap().is_none());
    }

    #[test]
    fn a_switch_of_a_removed_group_says_so() {
        let name = Guard::name();
        let group = Cgroup::create(&name).unwrap();
        let switch = group.kill_switch().unwrap();
        assert!(group.remove().unwrap());
        assert!(!switch.kill().unwrap());
        let _ = fs::remove_dir(group.path().parent().unwrap());
    }

    #[test]
    fn paths_that_leave_the_hierarchy_are_refused() {
        for path in ["", "/", "/etc", "..", "a/../..", "./a"] {
            let refused = Cgroup::create(Path::new(path)).unwrap_err();
            assert_eq!(refused.errno(), Some(libc::EINVAL), "{path}");
        }
    }
}
