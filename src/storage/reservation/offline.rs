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

/// Takes the disk of a device away and writes down at `kept` how it is given back: first, so that
/// it is not forgotten. Nothing happens to a device that is not a path itself.
///
/// # Errors
///
/// The device is not known, or the kernel refuses.
pub(super) fn take_offline(device: &Path, roots: &Roots, kept: &Path) -> io::Result<()> {
    let Some(path) = path_itself(device, roots).map_err(io::Error::other)? else {
        return Ok(());
    };
    let state = path.join("device/state");
    fs::write(kept, state.as_os_str().as_encoded_bytes())?;
    fs::write(state, OFFLINE)
}

/// Was a disk taken away and not given back? So says the file at `kept`.
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
    let state = match fs::read_to_string(kept) {
        Ok(state) => PathBuf::from(state),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // A path that has gone has nothing to give back.
    if fs::read_to_string(&state).is_ok_and(|state| state == OFFLINE) {
        fs::write(&state, RUNNING)?;
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
            take_offline(&roots.dev.join(device), &roots, &kept).unwrap();
            assert_eq!((&*says(), is_offline(&kept)), (OFFLINE, true));
            bring_online(&kept).unwrap();
            assert_eq!((&*says(), is_offline(&kept)), (RUNNING, false));
        }
    }

    #[test]
    fn what_lies_on_others_is_left_alone() {
        let (directory, roots, state) = tree();
        let kept = directory.path().join("kept");
        take_offline(&roots.dev.join("dm-0"), &roots, &kept).unwrap();
        assert!(!is_offline(&kept));
        assert_eq!(fs::read_to_string(&state).unwrap(), RUNNING);
    }

    #[test]
    fn a_path_that_was_changed_meanwhile_is_left_as_it_is() {
        let (directory, roots, state) = tree();
        let kept = directory.path().join("kept");
        take_offline(&roots.dev.join("sdb"), &roots, &kept).unwrap();
        fs::write(&state, "blocked\n").unwrap();
        bring_online(&kept).unwrap();
        assert_eq!(fs::read_to_string(&state).unwrap(), "blocked\n");
        take_offline(&roots.dev.join("sdb"), &roots, &kept).unwrap();
        fs::remove_file(&state).unwrap();
        bring_online(&kept).unwrap();
        assert!(!is_offline(&kept));
    }
}
