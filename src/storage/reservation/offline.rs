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

use super::discover::{Roots, path_itself};

/// What the file says of a path that was taken away. The kernel reads whole lines only.
const OFFLINE: &str = "offline\n";
/// And of one that works.
const RUNNING: &str = "running\n";

/// Takes the disks of these devices away and writes down at `kept` how they are given back: first,
/// so that it is not forgotten. Nothing happens to a device that is not a path itself.
///
/// # Errors
///
/// A device is not known, or the kernel refuses; the others are taken all the same.
pub(super) fn take_offline(devices: &[PathBuf], roots: &Roots, kept: &Path) -> io::Result<()> {
    let mut trouble = Ok(());
    let mut states: Vec<PathBuf> = Vec::new();
    for device in devices {
        match path_itself(device, roots) {
            Ok(Some(path)) => states.push(path.join("device/state")),
            Ok(None) => {}
            Err(error) => trouble = Err(io::Error::other(error)),
        }
    }
    if states.is_empty() {
        return trouble;
    }
    let lines = states.iter().map(|state| format!("{}\n", state.display()));
    fs::write(kept, lines.collect::<String>())?;
    for state in states {
        if let Err(error) = fs::write(state, OFFLINE) {
            trouble = Err(error);
        }
    }
    trouble
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
    use std::slice::from_ref;

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
            take_offline(&[roots.dev.join(device)], &roots, &kept).unwrap();
            assert_eq!((&*says(), is_offline(&kept)), (OFFLINE, true));
            bring_online(&kept).unwrap();
            assert_eq!((&*says(), is_offline(&kept)), (RUNNING, false));
        }
    }

    #[test]
    fn several_are_taken_though_one_of_them_is_gone() {
        let (directory, roots, state) = tree();
        let kept = directory.path().join("kept");
        let devices = ["sdx", "sdb1", "dm-0"].map(|name| roots.dev.join(name));
        take_offline(&devices, &roots, &kept).unwrap_err();
        assert_eq!(fs::read_to_string(&state).unwrap(), OFFLINE);
        bring_online(&kept).unwrap();
        assert_eq!(fs::read_to_string(&state).unwrap(), RUNNING);
    }

    #[test]
    fn what_lies_on_others_is_left_alone() {
        let (directory, roots, state) = tree();
        let kept = directory.path().join("kept");
        take_offline(&[roots.dev.join("dm-0")], &roots, &kept).unwrap();
        assert!(!is_offline(&kept));
        assert_eq!(fs::read_to_string(&state).unwrap(), RUNNING);
    }

    #[test]
    fn a_path_that_was_changed_meanwhile_is_left_as_it_is() {
        let (directory, roots, state) = tree();
        let (kept, disk) = (directory.path().join("kept"), roots.dev.join("sdb"));
        take_offline(from_ref(&disk), &roots, &kept).unwrap();
        fs::write(&state, "blocked\n").unwrap();
        bring_online(&kept).unwrap();
        assert_eq!(fs::read_to_string(&state).unwrap(), "blocked\n");
        take_offline(from_ref(&disk), &roots, &kept).unwrap();
        fs::remove_file(&state).unwrap();
        bring_online(&kept).unwrap();
        assert!(!is_offline(&kept));
    }
}
