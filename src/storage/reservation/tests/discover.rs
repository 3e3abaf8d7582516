//! Disks below a device, in trees like those of sysfs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::storage::reservation::discover::disks_below_all;
use crate::storage::reservation::{DiscoverError, Disk, Roots, Transport, disks_below};

/// Page 83h with one NAA 6 name that ends in this byte.
fn page(last: u8) -> Vec<u8> {
    let mut page = vec![0, 0x83, 0, 20, 1, 3, 0, 16, 0x60, 0x01, 0x40, 0x5a];
    page.extend([0; 11]);
    page.push(last);
    page
}

fn name(last: u8) -> String {
    format!("naa.6001405a{}{last:02x}", "0".repeat(22))
}

struct Tree {
    directory: TempDir,
}

impl Tree {
    fn new() -> Tree {
        let directory = tempfile::tempdir().unwrap();
        for sub in ["sys/class/block", "sys/devices", "dev/disk", "dev/mapper"] {
            fs::create_dir_all(directory.path().join(sub)).unwrap();
        }
        Tree { directory }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn roots(&self) -> Roots {
        Roots {
            sys: self.at("sys"),
            dev: self.at("dev"),
        }
    }

    fn device(&self, name: &str, place: &str) -> PathBuf {
        let place = self.at(&format!("sys/devices/{place}"));
        fs::create_dir_all(&place).unwrap();
        symlink(&place, self.at(&format!("sys/class/block/{name}"))).unwrap();
        fs::write(self.at(&format!("dev/{name}")), "").unwrap();
        place
    }

    /// A SCSI path, to the disk of this name if it has one, with one partition.
    fn path(&self, name: &str, last: Option<u8>) {
        let place = self.device(name, name);
        fs::create_dir(place.join("device")).unwrap();
        if let Some(last) = last {
            fs::write(place.join("device/vpd_pg83"), page(last)).unwrap();
        }
        let part = self.device(&format!("{name}1"), &format!("{name}/{name}1"));
        fs::write(part.join("partition"), "1\n").unwrap();
    }

    fn mapped(&self, name: &str, slaves: &[&str]) {
        let place = self.device(name, name);
        fs::create_dir(place.join("slaves")).unwrap();
        for slave in slaves {
            let target = self.at(&format!("sys/class/block/{slave}"));
            symlink(target, place.join("slaves").join(slave)).unwrap();
        }
    }

    fn below(&self, device: &str) -> Result<Vec<Disk>, DiscoverError> {
        disks_below(&self.at(&format!("dev/{device}")), &self.roots())
    }

    /// Names and paths of the disks below a device.
    fn seen(&self, device: &str) -> Vec<(String, Vec<String>)> {
        let named = |disk: Disk| {
            let short = |path: &PathBuf| {
                let path: &Path = path.strip_prefix(self.at("dev")).unwrap();
                path.display().to_string()
            };
            let identity = disk.identity.map(|identity| identity.to_string());
            let paths = disk.paths.iter().map(short).collect();
            (identity.unwrap_or_default(), paths)
        };
        self.below(device).unwrap().into_iter().map(named).collect()
    }
}

fn seen(last: u8, paths: &[&str]) -> (String, Vec<String>) {
    (
        name(last),
        paths.iter().map(|path| (*path).to_owned()).collect(),
    )
}

#[test]
fn a_path_that_is_gone_is_left_out_of_a_multipath_map_only() {
    for (uuid, is_found) in [("mpath-36001405a", true), ("LVM-Zk3", false)] {
        let tree = Tree::new();
        tree.path("sda", Some(1));
        tree.path("sdc", Some(1));
        tree.mapped("dm-0", &["sda", "sdb"]);
        fs::create_dir(tree.at("sys/devices/dm-0/dm")).unwrap();
        fs::write(tree.at("sys/devices/dm-0/dm/uuid"), format!("{uuid}\n")).unwrap();
        if is_found {
            assert_eq!(tree.seen("dm-0"), [seen(1, &["sda", "sdc"])]);
            fs::remove_file(tree.at("sys/class/block/sda")).unwrap();
        }
        let none = tree.below("dm-0");
        assert!(matches!(none, Err(DiscoverError::Io { .. })), "{none:?}");
    }
}

#[test]
fn every_path_of_a_disk_is_found_by_its_name() {
    let tree = Tree::new();
    for (path, last) in [("sda", 1), ("sdb", 2), ("sdc", 1), ("sdaa", 1)] {
        tree.path(path, Some(last));
    }
    symlink("../sda1", tree.at("dev/disk/by-id")).unwrap();
    let one = seen(1, &["sda", "sdaa", "sdc"]);
    let one = [one];
    assert_eq!(tree.seen("sda"), one);
    assert_eq!(tree.seen("sdc1"), one, "the whole disk of a partition");
    assert_eq!(tree.seen("disk/by-id"), one, "by a link");
    assert_eq!(tree.seen("sdb"), [seen(2, &["sdb"])]);
}

#[test]
fn a_map_and_what_lies_on_it_lead_to_all_paths() {
    let tree = Tree::new();
    for (path, last) in [("sda", 1), ("sdb", 1), ("sdc", 2), ("sdd", 2), ("sde", 1)] {
        tree.path(path, Some(last));
    }
    // A path that the map has not taken yet counts too.
    tree.mapped("dm-0", &["sda", "sdb"]);
    tree.mapped("dm-1", &["sdc", "sdd"]);
    tree.mapped("dm-2", &["dm-0"]);
    tree.mapped("dm-3", &["dm-2", "dm-1"]);
    symlink("../dm-3", tree.at("dev/mapper/data")).unwrap();
    assert_eq!(tree.seen("dm-0"), [seen(1, &["sda", "sdb", "sde"])]);
    assert_eq!(
        tree.seen("mapper/data"),
        [seen(1, &["sda", "sdb", "sde"]), seen(2, &["sdc", "sdd"])]
    );
}

#[test]
fn what_lies_on_several_devices_has_each_disk_once() {
    let tree = Tree::new();
    for (path, last) in [("sda", 1), ("sdb", 1), ("sdc", 2)] {
        tree.path(path, Some(last));
    }
    let below = |names: &[&str]| {
        let names = names.iter().map(|name| tree.at(&format!("dev/{name}")));
        disks_below_all(&names.collect::<Vec<_>>(), &tree.roots())
    };
    let disks = below(&["sdc", "sda1", "sdb"]).unwrap();
    let paths: Vec<usize> = disks.iter().map(|disk| disk.paths.len()).collect();
    assert_eq!(paths, [2, 1]);
    assert!(below(&["sdc", "absent"]).is_err());
}

#[test]
fn disks_without_a_name_are_never_taken_for_one() {
    let tree = Tree::new();
    tree.path("sda", None);
    tree.path("sdb", None);
    assert_eq!(tree.seen("sda"), [(String::new(), vec!["sda".to_owned()])]);
}

#[test]
fn a_name_space_is_one_path() {
    let tree = Tree::new();
    let place = tree.device("nvme0n1", "nvme0n1");
    fs::write(place.join("wwid"), "eui.0025385A81B00102\n").unwrap();
    let disks = tree.below("nvme0n1").unwrap();
    let [disk] = &disks[..] else {
        panic!("{disks:?}");
    };
    assert_eq!(
        disk.identity.as_ref().unwrap().as_str(),
        "eui.0025385a81b00102"
    );
    assert!(matches!(disk.transport, Transport::Nvme { .. }));
    assert_eq!(disk.paths, [tree.at("dev/nvme0n1")]);
}

#[test]
fn what_is_no_disk_is_refused() {
    let tree = Tree::new();
    tree.device("loop0", "loop0");
    tree.mapped("dm-0", &["loop0"]);
    for device in ["loop0", "dm-0"] {
        let error = tree.below(device).unwrap_err();
        assert!(matches!(error, DiscoverError::NoDisk(_)), "{error}");
    }
    assert!(matches!(
        tree.below("absent"),
        Err(DiscoverError::Io { .. })
    ));
    fs::write(tree.at("dev/unknown"), "").unwrap();
    assert!(matches!(
        tree.below("unknown"),
        Err(DiscoverError::Io { .. })
    ));
    tree.mapped("dm-1", &["dm-1"]);
    assert!(matches!(tree.below("dm-1"), Err(DiscoverError::TooDeep(_))));
}
