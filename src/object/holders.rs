//! Who still uses a file system or a device: for the sentence a person gets when it cannot be let
//! go, and for the certainty that a raw device is.
//!
//! Reads /proc of every process, which can hang on a dead disk: only for a thread set aside.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::libc::{ENODEV, ENOENT, O_ACCMODE, O_RDONLY};

/// Most holders that are named; a person needs one to begin with.
const NAMED_MAX: usize = 8;

/// Groups inside groups that are looked into.
const DEPTH_MAX: usize = 8;

/// Names and process ids of those who use the file system with this device number, and how.
pub(super) fn of_file_system(major: u32, minor: u32) -> Vec<String> {
    let own_namespace = fs::read_link("/proc/thread-self/ns/mnt").ok();
    let mut namespaces = Vec::from_iter(own_namespace);
    let mut found = Vec::new();
    for (pid, directory) in processes() {
        if found.len() == NAMED_MAX {
            break;
        }
        let how = if let Some(how) = uses(&directory, major, minor) {
            how
        } else if mounts_elsewhere(&directory, major, minor, &mut namespaces) {
            "has it mounted in its own namespace".to_owned()
        } else {
            continue;
        };
        found.push(named((pid, how)));
    }
    found
}

/// Those of these processes that have the block device with this number open, and how.
pub(super) fn among(processes: &[u32], major: u32, minor: u32) -> Vec<String> {
    let device = number(major, minor);
    let used = |pid: &u32| Some((*pid, opens(*pid, device, false)?));
    let found = processes.iter().filter_map(used).map(named);
    found.take(NAMED_MAX).collect()
}

/// All processes but this one that can write to the block device with this number.
pub(super) fn writers_of_device(major: u32, minor: u32) -> Vec<String> {
    let device = number(major, minor);
    let others = processes()
        .into_keys()
        .filter(|pid| *pid != std::process::id());
    let used = |pid: u32| Some((pid, opens(pid, device, true)?));
    let found = others.filter_map(used).map(named);
    found.take(NAMED_MAX).collect()
}

/// The processes of a control group and of those inside it. One that has gone meanwhile had none.
///
/// # Errors
///
/// One of them cannot be looked at.
pub(super) fn processes_in(group: &Path) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    collect(group, DEPTH_MAX, &mut found)?;
    Ok(found)
}

fn collect(group: &Path, depth: usize, found: &mut Vec<u32>) -> io::Result<()> {
    let listed = fs::read_to_string(group.join("cgroup.procs"))
        .and_then(|processes| Ok((processes, fs::read_dir(group)?)));
    let (processes, entries) = match listed {
        Ok(listed) => listed,
        Err(error) if matches!(error.raw_os_error(), Some(ENOENT | ENODEV)) => return Ok(()),
        Err(error) => return Err(error),
    };
    let numbers = processes
        .lines()
        .filter_map(|line| line.parse::<u32>().ok());
    found.extend(numbers);
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            let deeper = depth.checked_sub(1).ok_or(io::ErrorKind::InvalidInput)?;
            collect(&path, deeper, found)?;
        }
    }
    Ok(())
}

/// Name of a process, as the kernel keeps it.
pub(super) fn name_of(pid: u32) -> String {
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => name.trim_end().to_owned(),
        Err(_) => "unknown".to_owned(),
    }
}

fn processes() -> BTreeMap<u32, std::path::PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbered = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, entry.path()))
    };
    entries.filter_map(numbered).collect()
}

fn named((pid, how): (u32, String)) -> String {
    format!("{} ({pid}, {how})", name_of(pid))
}

fn number(major: u32, minor: u32) -> u64 {
    nix::sys::stat::makedev(u64::from(major), u64::from(minor))
}

/// How a process has a block device itself open, if it has.
fn opens(pid: u32, device: u64, for_writing: bool) -> Option<String> {
    let is_it = |path: &Path| {
        fs::metadata(path)
            .is_ok_and(|file| file.file_type().is_block_device() && file.rdev() == device)
    };
    let process = Path::new("/proc").join(pid.to_string());
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten();
    for entry in descriptors.flatten() {
        let name = entry.file_name();
        if is_it(&entry.path()) && !(for_writing && is_read_only(&process, &name)) {
            return Some(format!("descriptor {}", name.display()));
        }
    }
    // A mapping outlives its descriptor: `begin-end rwxs offset device inode path`.
    let maps = fs::read_to_string(process.join("maps")).ok()?;
    let mapped = maps.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let path = words.get(5).filter(|path| path.starts_with("/dev/"));
        let changes = words.get(1).is_some_and(|how| *how == "rw-s");
        path.is_some_and(|path| is_it(Path::new(path))) && (changes || !for_writing)
    });
    mapped.then(|| "mapped".to_owned())
}

/// Is it open for reading only? The flags stand in octal (proc_pid_fdinfo(5)); in doubt it is not.
fn is_read_only(process: &Path, descriptor: &std::ffi::OsStr) -> bool {
    let told = fs::read_to_string(process.join("fdinfo").join(descriptor));
    let flags = told.ok().and_then(|told| {
        let line = told.lines().find_map(|line| line.strip_prefix("flags:"))?;
        i32::from_str_radix(line.trim(), 8).ok()
    });
    flags.is_some_and(|flags| flags & O_ACCMODE == O_RDONLY)
}

fn uses(process: &Path, major: u32, minor: u32) -> Option<String> {
    let device = number(major, minor);
    let on_it = |path: &Path| fs::metadata(path).is_ok_and(|file| file.dev() == device);
    for (entry, how) in [
        ("cwd", "working directory"),
        ("root", "root"),
        ("exe", "program"),
    ] {
        if on_it(&process.join(entry)) {
            return Some(how.to_owned());
        }
    }
    let descriptors = fs::read_dir(process.join("fd"))
        .into_iter()
        .flatten()
        .flatten();
    for entry in descriptors {
        if on_it(&entry.path()) {
            return Some(format!("open file {}", entry.file_name().display()));
        }
    }
    let maps = fs::read_to_string(process.join("maps")).ok()?;
    let number = format!("{major:02x}:{minor:02x}");
    let mapped = maps
        .lines()
        .any(|line| line.split_whitespace().nth(3) == Some(&number));
    mapped.then(|| "mapped file".to_owned())
}

/// Looks at each other mount namespace once, through its first process.
fn mounts_elsewhere(
    process: &Path,
    major: u32,
    minor: u32,
    seen: &mut Vec<std::path::PathBuf>,
) -> bool {
    let Ok(namespace) = fs::read_link(process.join("ns/mnt")) else {
        return false;
    };
    if seen.contains(&namespace) {
        return false;
    }
    seen.push(namespace);
    let number = format!("{major}:{minor}");
    fs::read_to_string(process.join("mountinfo")).is_ok_and(|table| {
        table
            .lines()
            .any(|line| line.split(' ').nth(2) == Some(&number))
    })
}
