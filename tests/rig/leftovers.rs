//! Cleaning up: after a rig that ends, is interrupted, or was killed some time ago.
//!
//! Each rig has one directory, and in it a journal of the machines it started. Whatever else it
//! makes can be found from there: loop devices by the image they show, cgroups by the cluster's
//! name, which is the directory's, and processes that no journal knows yet by the mark of their
//! keeper, with which that name begins. So one function cleans up in all three cases.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::keeper::tell;
use super::trouble::{Doing, Trouble};
use super::wait::eventually;

/// Where rigs keep their directories: in memory if the kernel does direct I/O there, else on disk.
const PLACES: [&str; 2] = ["/dev/shm", "/var/tmp"];

/// How the name of each rig's directory and cluster begins.
const PREFIX: &str = "standfast-lab-";

/// Environment variable by which all processes of a rig are known, whoever started them.
pub(crate) const MARK: &str = "STANDFAST_RIG";

/// First word of the journal's line about the rig itself.
const RIG: &str = "rig";

/// First word of the line that says that the rig was to be left behind.
const KEPT: &str = "kept";

/// How long the kernel may take to bury a killed machine.
const BURIAL: Duration = Duration::from_secs(10);

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
        let own = || mark_of(std::process::id());
        let mark = std::env::var(MARK).ok().or_else(own);
        let mark = mark.ok_or_else(|| Trouble::new("no /proc"))?;
        let directory = new_directory(&mark)?;
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
        Ok(())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if self.lasting.get() {
            return;
        }
        if let Err(trouble) = sweep(&self.directory) {
            tell(&format!("left behind: {trouble}"));
        }
    }
}

/// Cleans up behind the work of a keeper, which is over: ends what it started and removes what it
/// made, but for rigs that it was to leave behind if `spare_kept`.
pub(crate) fn clean_up_behind(mark: &str, spare_kept: bool) -> Result<(), Trouble> {
    let own = all().into_iter().filter(|path| mark_in(path) == mark);
    let (kept, left): (Vec<_>, Vec<_>) = own.partition(|path| spare_kept && is_kept(path));
    if kept.is_empty() {
        end_processes(mark)?;
    }
    let swept = left.iter().map(|directory| sweep(directory));
    swept.fold(Ok(()), Result::and)
}

/// Cleans up after rigs that were killed, so that nobody has to remember to.
fn sweep_forgotten() {
    for directory in all() {
        if !read(&directory).1 && !is_kept(&directory) {
            // Another rig may be doing the same.
            drop(bury(&directory));
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

/// What the journal of a rig says, without the rig itself, and whether the rig or its keeper still
/// runs.
pub(crate) fn read(directory: &Path) -> (Vec<Noted>, bool) {
    let text = fs::read_to_string(directory.join("journal")).unwrap_or_default();
    let (rig, machines): (Vec<_>, Vec<_>) = text
        .lines()
        .filter_map(parse)
        .partition(|noted| noted.name == RIG);
    // The keeper's name is there before the first line is, and after the rig has ended.
    let kept = keeper_in(mark_in(directory)).is_some_and(|keeper| keeper.lives());
    (machines, kept || rig.iter().any(Noted::lives))
}

fn is_kept(directory: &Path) -> bool {
    read(directory).0.iter().any(|noted| noted.name == KEPT)
}

/// The mark of everything that a process keeps: none when there is no such process.
pub(crate) fn mark_of(keeper: u32) -> Option<String> {
    Some(format!("{PREFIX}{keeper}-{:x}", start_of(keeper)?))
}

/// The mark in the name of a rig's directory.
fn mark_in(directory: &Path) -> &str {
    let name = name_of(directory);
    name.rsplit_once('-').map_or(name, |(mark, _)| mark)
}

fn keeper_in(mark: &str) -> Option<Noted> {
    let (pid, started) = mark.strip_prefix(PREFIX)?.split_once('-')?;
    Some(Noted {
        name: RIG.to_owned(),
        pid: pid.parse().ok()?,
        started: u64::from_str_radix(started, 16).ok()?,
    })
}

/// Ends a rig whatever state it is in, and removes all of it.
pub(crate) fn bury(directory: &Path) -> Result<(), Trouble> {
    end_processes(mark_in(directory))?;
    sweep(directory)
}

/// Kills every process with this mark until there is none.
fn end_processes(mark: &str) -> Result<(), Trouble> {
    eventually("the end of all processes", BURIAL, || {
        let marked = processes_with(MARK, mark);
        for pid in &marked {
            // It may have ended in between.
            let _ = kill(*pid, Signal::SIGKILL);
        }
        marked.is_empty().then_some(())
    })
}

/// What is there of the rigs with this mark, in words.
pub(crate) fn of(mark: &str) -> Vec<String> {
    let running = processes_with(MARK, mark);
    let mut found: Vec<String> = running.iter().map(|pid| format!("process {pid}")).collect();
    let directories = all().into_iter().filter(|path| mark_in(path) == mark);
    found.extend(directories.map(|path| path.display().to_string()));
    let images = PLACES.map(|place| Path::new(place).join(format!("{mark}-0")));
    let devices = images.iter().flat_map(|images| loop_devices(images));
    found.extend(devices.map(|path| path.display().to_string()));
    let cgroup = cgroup_mount().map(|mount| mount.join(format!("{mark}-0")));
    let cgroup = cgroup.filter(|path| path.exists());
    found.extend(cgroup.map(|path| path.display().to_string()));
    found
}

/// The living processes that inherited this variable with this value.
pub(crate) fn processes_with(variable: &str, value: &str) -> Vec<Pid> {
    let wanted = format!("{variable}={value}");
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let found = entries.flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let environment = fs::read(entry.path().join("environ")).ok()?;
        let mut variables = environment.split(|byte| *byte == 0);
        variables
            .any(|variable| variable == wanted.as_bytes())
            .then_some(Pid::from_raw(pid))
    });
    found.collect()
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
    for device in loop_devices(directory) {
        // One that detaches itself may be faster.
        drop(Command::new("losetup").arg("--detach").arg(device).output());
    }
    // The kernel unmounts a volume some time after the machine that had it.
    let gone = || loop_devices(directory).is_empty().then_some(());
    let detached = eventually("the loop devices to be detached", BURIAL, gone);
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).doing(format!("remove {}", directory.display()))
        }
        _ => detached,
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

/// The loop devices that show a file below this directory.
pub(crate) fn loop_devices(directory: &Path) -> Vec<PathBuf> {
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

/// A new directory that bears this mark, in the first place where images can be.
fn new_directory(mark: &str) -> Result<PathBuf, Trouble> {
    for place in PLACES {
        let mut number = 0;
        let directory = loop {
            let directory = Path::new(place).join(format!("{mark}-{number}"));
            match fs::create_dir(&directory) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                made => break made.map(|()| directory),
            }
        };
        let Ok(directory) = directory else { continue };
        if takes_direct_io(&directory) {
            return Ok(directory);
        }
        fs::remove_dir_all(&directory).doing(directory.display())?;
    }
    Err(Trouble::new(
        "no place for disk images: neither /dev/shm nor /var/tmp",
    ))
}

fn takes_direct_io(directory: &Path) -> bool {
    use std::os::unix::fs::OpenOptionsExt;
    let path = directory.join("try");
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    options.custom_flags(nix::fcntl::OFlag::O_DIRECT.bits());
    let works = options.open(&path).is_ok();
    drop(fs::remove_file(&path));
    works
}

fn name_of(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}
