//! Who still uses a file system: for the sentence a person gets when a volume cannot be let go.
//!
//! Reads /proc of every process, which can hang on a dead disk: only for a thread set aside.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Most holders that are named; a person needs one to begin with.
const NAMED_MAX: usize = 8;

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
        found.push(format!("{} ({pid}, {how})", name_of(pid)));
    }
    found
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

fn uses(process: &Path, major: u32, minor: u32) -> Option<String> {
    let device = nix::sys::stat::makedev(u64::from(major), u64::from(minor));
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
