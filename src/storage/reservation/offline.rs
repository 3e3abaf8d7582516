//! Takes a disk from everybody on this node: the kernel refuses whatever is asked of a path whose
//! state in sysfs is `offline`, what waits already included.
//!
//! For when the array does not: a unit on which nobody is registered takes anybody's writes, and
//! it may be another volume that answers where the right one was. What is dirty in memory must not
//! get there, nor what an unmount writes last.
//!
//! Only for a disk, or a partition of it, that is used directly. Users of a map that waits for its
//! paths would hang.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::discover::{DiscoverError, Roots, path_itself};

/// What the file says of a path that was taken away. The kernel reads whole lines only.
const OFFLINE: &str = "offline\n";
/// And of one that works.
const RUNNING: &str = "running\n";

/// By which files of sysfs the disks of these devices are taken away. To be asked while the devices
/// are known to be the right ones: what their names lead to later may be something else. A device
/// that is not a path itself has none.
///
/// # Errors
///
/// A device is not known.
pub(super) fn switches(devices: &[PathBuf], roots: &Roots) -> Result<Vec<PathBuf>, DiscoverError> {
    let mut switches = Vec::new();
    for device in devices {
        let path = path_itself(device, roots)?;
        switches.extend(path.map(|path| path.join("device/state")));
    }
    Ok(switches)
}

/// Takes the disks with these switches away. Writes down at `kept` how they are given back: first,
/// so that it is not forgotten.
///
/// # Errors
///
/// The kernel refuses, or it could not be written down; all the others are taken all the same.
pub(super) fn take_offline(switches: &[PathBuf], kept: &Path) -> io::Result<()> {
    if switches.is_empty() {
        return Ok(());
    }
    let lines = switches
        .iter()
        .map(|switch| format!("{}\n", switch.display()));
    let mut result = fs::write(kept, lines.collect::<String>());
    for switch in switches {
        result = fs::write(switch, OFFLINE).and(result);
    }
    result
}

/// Was a disk taken away and not given back? So says the file at `kept`, a line for each.
#[must_use]
pub fn is_offline(kept: &Path) -> bool {
    kept.exists()
}

/// Gives it back. The kernel then reads its size and its names anew, and may take long over it.
///
/// # Errors
///
/// The kernel refuses; it is still to be given back.
pub fn bring_online(kept: &Path) -> io::Result<()> {
    let states = match fs::read_to_string(kept) {
        Ok(states) => states,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for state in states.lines() {
        // A path that has gone has nothing to give back.
        if fs::read_to_string(state).is_ok_and(|state| state == OFFLINE) {
            fs::write(state, RUNNING)?;
        }
    }
    fs::remove_file(kept)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A disk with a partition, and a map upon it, as sysfs shows them.
    fn tree() -> (tempfile::TempDir, Roots, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        for made in [
            "dev",
            "sys/class/block",
            "d/sdb/device",
            "d/sdb/sdb1",
            "d/dm-0",
        ] {
            fs::create_dir_all(at(made)).unwrap();
        }
        fs::write(at("d/sdb/sdb1/partition"), "1\n").unwrap();
        fs::write(at("d/sdb/device/state"), RUNNING).unwrap();
        for (name, place) in [("sdb", "d/sdb"), ("sdb1", "d/sdb/sdb1"), ("dm-0", "d/dm-0")] {
            symlink(at(place), at("sys/class/block").join(name)).unwrap();
            fs::write(at("dev").join(name), "").unwrap();
        }
        let (sys, dev) = (at("sys"), at("dev"));
        let state = at("d/sdb/device/state");
        (directory, Roots { sys, dev }, state)
    }

    #[test]
    fn a_disk_is_taken_and_given_back() {
        let (directory, roots, state) = tree();
        let kept = directory.path().join("kept");
        let says = || fs::read_to_string(&state).unwrap();
        for device in ["sdb", "sdb1"] {
            let switches = switches(&[roots.dev.join(device)], &roots).unwrap();
            take_offline(&switches, &kept).unwrap();
            assert_eq!((&*says(), is_offline(&kept)), (OFFLINE, true));
            bring_online(&kept).unwrap();
            assert_eq!((&*says(), is_offline(&kept)), (RUNNING, false));
        }
    }

    #[test]
    fn several_are_taken_though_one_of_them_is_gone() {
        let (directory, roots, state) = tree();
        let kept = directory.path().join("kept");
        let devices = ["sdb1", "dm-0"].map(|name| roots.dev.join(name));
        let mut switches = switches(&devices, &roots).unwrap();
        assert_eq!(switches, std::slice::from_ref(&state), "a map has none");
        switches.insert(0, directory.path().join("gone/device/state"));
        take_offline(&switches, &kept).unwrap_err();
        assert_eq!(fs::read_to_string(&state).unwrap(), OFFLINE);
        bring_online(&kept).unwrap();
        assert_eq!(fs::read_to_string(&state).unwrap(), RUNNING);
    }

    #[test]
    fn a_disk_is_taken_though_that_cannot_be_written_down() {
        let (directory, roots, state) = tree();
        let switches = switches(&[roots.dev.join("sdb")], &roots).unwrap();
        take_offline(&switches, &directory.path().join("none/kept")).unwrap_err();
        assert_eq!(fs::read_to_string(&state).unwrap(), OFFLINE);
    }

    #[test]
    fn what_its_name_leads_to_by_then_is_left_alone() {
        let (directory, roots, state) = tree();
        let (kept, name) = (directory.path().join("kept"), roots.dev.join("by-id"));
        symlink(roots.dev.join("sdb"), &name).unwrap();
        let switches = switches(std::slice::from_ref(&name), &roots).unwrap();
        fs::remove_file(&name).unwrap();
        symlink(roots.dev.join("dm-0"), &name).unwrap();
        take_offline(&switches, &kept).unwrap();
        assert_eq!(fs::read_to_string(&state).unwrap(), OFFLINE);
    }

    #[test]
    fn what_lies_on_others_is_left_alone() {
        let (directory, _, state) = tree();
        let kept = directory.path().join("kept");
        take_offline(&[], &kept).unwrap();
        assert!(!is_offline(&kept));
        assert_eq!(fs::read_to_string(&state).unwrap(), RUNNING);
    }

    #[test]
    fn a_path_that_was_changed_meanwhile_is_left_as_it_is() {
        let (directory, roots, state) = tree();
        let kept = directory.path().join("kept");
        let switches = switches(&[roots.dev.join("sdb")], &roots).unwrap();
        take_offline(&switches, &kept).unwrap();
        fs::write(&state, "blocked\n").unwrap();
        bring_online(&kept).unwrap();
        assert_eq!(fs::read_to_string(&state).unwrap(), "blocked\n");
        take_offline(&switches, &kept).unwrap();
        fs::remove_file(&state).unwrap();
        bring_online(&kept).unwrap();
        assert!(!is_offline(&kept));
    }
}
