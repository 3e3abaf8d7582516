//! Cleaning up: after a rig that ends, is interrupted, or was killed some time ago.
//!
//! Each rig has one directory, and in it a journal of the machines it started. Whatever else it
//! makes can be found from there: loop devices by the image they show, cgroups by the cluster's
//! name, which is the directory's. So one function cleans up in all three cases.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use super::trouble::{Doing, Trouble};
use super::wait::eventually;

/// Where rigs keep their directories: in memory if the kernel does direct I/O there, else on disk.
const PLACES: [&str; 2] = ["/dev/shm", "/var/tmp"];

/// How the name of each rig's directory and cluster begins.
const PREFIX: &str = "standfast-lab-";

/// First word of the journal's line about the rig itself.
const RIG: &str = "rig";

/// First word of the line that says that the rig was to be left behind.
const KEPT: &str = "kept";

/// How long the kernel may take to bury a killed machine.
const BURIAL: Duration = Duration::from_secs(10);

/// Directories that an interrupt has to clean up.
static OURS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A process that the journal names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Noted {
    /// Name of the machine, or `rig`.
    pub(crate) name: String,
    /// Process id on the host.
    pub(crate) pid: u32,
    /// When it was started, in the kernel's ticks: tells it from a later process with that id.
    started: u64,
}

impl Noted {
    /// Is it still that process?
    pub(crate) fn lives(&self) -> bool {
        start_of(self.pid) == Some(self.started)
    }
}

/// The directory of a rig; what is in it goes away with this value, and so does all it points to.
#[derive(Debug)]
pub(crate) struct Journal {
    directory: PathBuf,
    file: File,
    lasting: Cell<bool>,
}

impl Journal {
    /// Makes a directory that no other rig has.
    pub(crate) fn open() -> Result<Journal, Trouble> {
        sweep_forgotten();
        let mut number = 0;
        let directory = loop {
            let name = format!("{PREFIX}{}-{number}", std::process::id());
            let directory = Path::new(place()?).join(name);
            match fs::create_dir(&directory) {
                Ok(()) => break directory,
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error).doing(directory.display()),
            }
        };
        if let Ok(mut ours) = OURS.lock() {
            ours.push(directory.clone());
        }
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .append(true)
            .open(directory.join("journal"));
        let file = file.doing("open the journal")?;
        let journal = Journal {
            directory,
            file,
            lasting: Cell::new(false),
        };
        journal.note(RIG, std::process::id())?;
        Ok(journal)
    }

    /// The directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Name of the directory, and of the cluster.
    pub(crate) fn name(&self) -> &str {
        name_of(&self.directory)
    }

    /// Makes a control group for a machine, if there are any.
    pub(crate) fn cgroup(&self, machine: &str) -> Result<Option<PathBuf>, Trouble> {
        let Some(mount) = cgroup_mount() else {
            return Ok(None);
        };
        let path = mount.join(self.name()).join(machine);
        fs::create_dir_all(&path).doing(path.display())?;
        Ok(Some(path))
    }

    /// Notes a process that has to be ended, unless it ends by itself.
    pub(crate) fn note(&self, name: &str, pid: u32) -> Result<(), Trouble> {
        let started = start_of(pid).unwrap_or(0);
        writeln!(&self.file, "{name} {pid} {started}").doing("write the journal")
    }

    /// Leaves everything as it is when this value goes away.
    pub(crate) fn keep(&self) -> Result<(), Trouble> {
        self.note(KEPT, 0)?;
        self.lasting.set(true);
        if let Ok(mut ours) = OURS.lock() {
            ours.retain(|directory| directory != &self.directory);
        }
        Ok(())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if self.lasting.get() {
            return;
        }
        if let Err(trouble) = sweep(&self.directory) {
            eprintln!("left behind: {trouble}");
        }
        if let Ok(mut ours) = OURS.lock() {
            ours.retain(|directory| directory != &self.directory);
        }
    }
}

/// Cleans up after this program when it is interrupted, and ends it with the shell's exit code.
///
/// To be called before any other thread is started: the signals stay blocked in all of them.
pub(crate) fn clean_up_on_signals() -> Result<(), Trouble> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().doing("block signals")?;
    thread::spawn(move || {
        let Ok(signal) = signals.wait() else { return };
        eprintln!("interrupted: cleaning up");
        // Held to the end: whoever would start a new rig now waits for the exit.
        if let Ok(ours) = OURS.lock() {
            for directory in ours.iter() {
                drop(sweep(directory));
            }
            std::process::exit(128 + signal as i32);
        }
    });
    Ok(())
}

/// Cleans up after rigs that were killed, so that nobody has to remember to.
fn sweep_forgotten() {
    for directory in all() {
        let (noted, alive) = read(&directory);
        if !alive && noted.iter().all(|noted| noted.name != KEPT) {
            // Another rig may be doing the same.
            drop(sweep(&directory));
        }
    }
}

/// The directories of all rigs of this machine.
pub(crate) fn all() -> Vec<PathBuf> {
    let entries = PLACES
        .iter()
        .filter_map(|place| fs::read_dir(place).ok())
        .flatten()
        .flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| name_of(path).starts_with(PREFIX) && path.is_dir())
        .collect()
}

/// What the journal of a rig says, without the rig itself, and whether the rig still runs.
pub(crate) fn read(directory: &Path) -> (Vec<Noted>, bool) {
    let text = fs::read_to_string(directory.join("journal")).unwrap_or_default();
    let (rig, machines): (Vec<_>, Vec<_>) = text
        .lines()
        .filter_map(parse)
        .partition(|noted| noted.name == RIG);
    (machines, rig.iter().any(Noted::lives))
}

/// Ends every machine of a rig, and removes its loop devices, its cgroups and its directory.
pub(crate) fn sweep(directory: &Path) -> Result<(), Trouble> {
    let (machines, _) = read(directory);
    for machine in machines.iter().filter(|machine| machine.lives()) {
        // It may have ended in between.
        let _ = kill(Pid::from_raw(machine.pid.cast_signed()), Signal::SIGKILL);
    }
    for machine in &machines {
        let gone = || (!machine.lives()).then_some(());
        eventually(
            &format!("the end of machine {}", machine.name),
            BURIAL,
            gone,
        )?;
    }
    let gone = || remove_cgroups(name_of(directory)).then_some(());
    eventually("the cgroups to become empty", BURIAL, gone)?;
    for device in loop_devices_of(directory) {
        // One that detaches itself may be faster.
        drop(Command::new("losetup").arg("--detach").arg(device).output());
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).doing(format!("remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Removes the control groups of a rig; false while something is in them.
fn remove_cgroups(rig: &str) -> bool {
    cgroup_mount().is_none_or(|mount| rmdir(&mount.join(rig)))
}

/// Where cgroup v2 is mounted.
pub(crate) fn cgroup_mount() -> Option<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = table.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

fn rmdir(cgroup: &Path) -> bool {
    if let Ok(entries) = fs::read_dir(cgroup) {
        let below = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.is_dir());
        if !below.collect::<Vec<_>>().iter().all(|path| rmdir(path)) {
            return false;
        }
    }
    fs::remove_dir(cgroup).is_ok() || !cgroup.exists()
}

fn loop_devices_of(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    let backed = |path: &Path| {
        let image = fs::read_to_string(path.join("loop/backing_file")).unwrap_or_default();
        Path::new(image.trim()).starts_with(directory)
    };
    let found = entries.flatten().filter(|entry| backed(&entry.path()));
    found
        .map(|entry| Path::new("/dev").join(entry.file_name()))
        .collect()
}

fn parse(line: &str) -> Option<Noted> {
    let mut words = line.split(' ');
    let (name, pid, started) = (words.next()?, words.next()?, words.next()?);
    Some(Noted {
        name: name.to_owned(),
        pid: pid.parse().ok()?,
        started: started.parse().ok()?,
    })
}

/// Field 22 of proc_pid_stat(5); none when there is no such process or only its remains.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses that may hold anything.
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

fn place() -> Result<&'static str, Trouble> {
    use std::os::unix::fs::OpenOptionsExt;
    let direct = |place: &&&str| {
        let path = Path::new(place).join(format!("{PREFIX}try-{}", std::process::id()));
        let mut options = OpenOptions::new();
        options
            .write(true)
            .create(true)
            .custom_flags(nix::fcntl::OFlag::O_DIRECT.bits());
        let works = options.open(&path).is_ok();
        drop(fs::remove_file(&path));
        works
    };
    let found = PLACES.iter().find(direct).copied();
    found.ok_or_else(|| Trouble::new("no place for disk images: neither /dev/shm nor /var/tmp"))
}

fn name_of(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}
