//! Finds the physical volumes of this machine by the labels on them.
//!
//! LVM's own search reads every disk, one that hangs included, and then hangs itself. Here each
//! device is read by a thread set aside; LVM is then told which devices to look at.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use standfast_sys::disk::{DirectDisk, Sectors};

use crate::object::aside::Aside;

/// The first block, of whatever size the disk has; the label is in one of its first four sectors.
const BLOCK_BYTES: usize = 4_096;
const SECTOR_BYTES: usize = 512;
/// Where the label's type stands in it (lvm2, `struct label_header`).
const TYPE: std::ops::Range<usize> = 24..32;

/// A search that can be repeated: a device that hangs costs one thread.
#[derive(Default)]
pub(super) struct Search {
    reads: BTreeMap<PathBuf, Aside<bool>>,
}

impl Search {
    /// The devices that answer by the deadline and have a label.
    pub(super) fn labelled(&mut self, deadline: Instant) -> Vec<PathBuf> {
        let devices = candidates(Path::new("/sys/class/block"), Path::new("/dev"));
        self.reads.retain(|device, _| devices.contains(device));
        for device in &devices {
            let read = self.reads.entry(device.clone()).or_insert_with(Aside::new);
            let device = device.clone();
            read.begin(move || has_label(&device));
        }
        let answered = |(device, read): (&PathBuf, &mut Aside<bool>)| {
            let labelled = read.await_answer(deadline) == Some(true);
            labelled.then(|| device.clone())
        };
        self.reads.iter_mut().filter_map(answered).collect()
    }
}

/// Block devices that a physical volume may be: neither a logical volume, nor part of something
/// else, such as one path of a multipath map.
fn candidates(class: &Path, dev: &Path) -> Vec<PathBuf> {
    let is_logical = |name: &str| {
        let uuid = fs::read_to_string(class.join(name).join("dm/uuid"));
        uuid.is_ok_and(|uuid| uuid.starts_with("LVM-"))
    };
    let free = |name: &String| {
        let size = fs::read_to_string(class.join(name).join("size"));
        let is_empty = size.map_or(true, |size| size.trim() == "0");
        let users = names_in(&class.join(name).join("holders"));
        !is_empty && !is_logical(name) && users.iter().all(|user| is_logical(user))
    };
    let names = names_in(class).into_iter().filter(free);
    // The kernel writes a slash of a device's name so.
    names.map(|name| dev.join(name.replace('!', "/"))).collect()
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn has_label(device: &Path) -> bool {
    let mut block = Sectors::new(BLOCK_BYTES);
    DirectDisk::open(device, false)
        .is_ok_and(|disk| disk.read_at(0, &mut block).is_ok() && is_labelled(&block))
}

fn is_labelled(block: &[u8]) -> bool {
    block
        .chunks_exact(SECTOR_BYTES)
        .take(4)
        .any(|sector| sector.starts_with(b"LABELONE") && &sector[TYPE] == b"LVM2 001")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_label_is_seen_in_the_first_four_sectors_only() {
        for (sector, seen) in [(0, true), (1, true), (3, true), (4, false)] {
            let mut block = [0; BLOCK_BYTES];
            block[sector * SECTOR_BYTES..][..8].copy_from_slice(b"LABELONE");
            assert!(!is_labelled(&block), "without its type");
            block[sector * SECTOR_BYTES..][TYPE].copy_from_slice(b"LVM2 001");
            assert_eq!(is_labelled(&block), seen, "sector {sector}");
        }
    }

    #[test]
    fn neither_logical_volumes_nor_paths_of_a_map_are_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let class = directory.path();
        for (name, size, uuid, holder) in [
            ("sda", "100", None, Some("dm-0")),
            ("sdb", "100", None, Some("dm-1")),
            ("sdc", "0", None, None),
            ("sdd", "100", None, Some("md0")),
            ("cciss!c0d0", "100", None, None),
            ("dm-0", "100", Some("mpath-36001405"), Some("dm-1")),
            ("dm-1", "50", Some("LVM-abc"), None),
            ("md0", "100", None, None),
        ] {
            let place = class.join(name);
            fs::create_dir_all(place.join("holders")).unwrap();
            fs::write(place.join("size"), format!("{size}\n")).unwrap();
            if let Some(uuid) = uuid {
                fs::create_dir(place.join("dm")).unwrap();
                fs::write(place.join("dm/uuid"), uuid).unwrap();
            }
            if let Some(holder) = holder {
                symlink(class.join(holder), place.join("holders").join(holder)).unwrap();
            }
        }
        let found = candidates(class, Path::new("/dev"));
        let expected = ["/dev/cciss/c0d0", "/dev/dm-0", "/dev/md0", "/dev/sdb"];
        assert_eq!(found, expected.map(PathBuf::from));
    }
}
