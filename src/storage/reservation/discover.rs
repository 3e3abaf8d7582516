//! Finds the disks below a block device, and every path to each of them, in sysfs.
//!
//! ```text
//! partition          its whole disk: a reservation is the disk's
//! sdX                this path, and every other sdY with the same name in page 83h
//! dm, md             what it lies on (slaves), down to the disks; a volume on two disks has two
//! nvme               the name space itself: the kernel reaches it by all its paths
//! ```
//! The names come from what the kernel has read when it found the path; the agent asks each path
//! itself before it trusts them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use standfast_sys::scsi::{Identity, decode_identities, preferred_identity};

/// Deepest stack of devices: partition on crypt on logical volume on multipath on a path is five.
const DEPTH_MAX: usize = 12;

/// Where to look. Another root for tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// `/sys`.
    pub sys: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
}

impl Default for Roots {
    fn default() -> Roots {
        Roots {
            sys: PathBuf::from("/sys"),
            dev: PathBuf::from("/dev"),
        }
    }
}

/// How a disk is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// SCSI, by each path.
    Scsi,
    /// NVMe, by the kernel's calls.
    Nvme {
        /// The file with the name space's name.
        wwid: PathBuf,
    },
}

/// One disk with every path to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its name in the world, if it has one.
    pub identity: Option<Identity>,
    /// Device nodes, in the order of their names; never empty.
    pub paths: Vec<PathBuf>,
    /// How to speak to it.
    pub transport: Transport,
}

/// Why the disks below a device are not known.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// It is not there, or the kernel says nothing of it.
    #[error("cannot look at {}", path.display())]
    Io {
        /// What was read.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// Not a block device, or one that knows no reservations.
    #[error("{0} is neither a SCSI nor an NVMe disk")]
    NoDisk(String),
    /// Devices upon devices without end.
    #[error("{0} lies on too many layers of devices")]
    TooDeep(String),
}

/// The disks below a device node or a link to one.
///
/// # Errors
///
/// It is none, or sysfs does not know it.
pub fn disks_below(device: &Path, roots: &Roots) -> Result<Vec<Disk>, DiscoverError> {
    let mut leaves = BTreeSet::new();
    add_leaves(device, roots, &mut leaves)?;
    Ok(Tree { roots }.group(leaves))
}

/// The disks below several devices, each once.
///
/// # Errors
///
/// As of [`disks_below`], of the first that has one.
pub(super) fn disks_below_all(
    devices: &[PathBuf],
    roots: &Roots,
) -> Result<Vec<Disk>, DiscoverError> {
    let mut leaves = BTreeSet::new();
    for device in devices {
        add_leaves(device, roots, &mut leaves)?;
    }
    Ok(Tree { roots }.group(leaves))
}

fn add_leaves(
    device: &Path,
    roots: &Roots,
    leaves: &mut BTreeSet<String>,
) -> Result<(), DiscoverError> {
    let failed = |source| DiscoverError::Io {
        path: device.to_owned(),
        source,
    };
    let node = fs::canonicalize(device).map_err(failed)?;
    let name = kernel_name(&node, roots).map_err(failed)?;
    Tree { roots }.leaves(&name, 0, leaves)
}

/// The place in sysfs of the SCSI path that a device is, or is a partition of; none for anything
/// that lies on others.
pub(super) fn path_itself(device: &Path, roots: &Roots) -> Result<Option<PathBuf>, DiscoverError> {
    let failed = |source| DiscoverError::Io {
        path: device.to_owned(),
        source,
    };
    let node = fs::canonicalize(device).map_err(failed)?;
    let name = kernel_name(&node, roots).map_err(failed)?;
    let mut place = fs::canonicalize(Tree { roots }.class(&name)).map_err(failed)?;
    if place.join("partition").exists() {
        place.pop();
    }
    let whole = place.file_name().unwrap_or_default().to_string_lossy();
    Ok(is_scsi(&whole).then_some(place))
}

/// The kernel's name of a device node: by its number, for the node may be called anything.
fn kernel_name(node: &Path, roots: &Roots) -> io::Result<String> {
    let metadata = fs::metadata(node)?;
    let named = if metadata.file_type().is_block_device() {
        let number = metadata.rdev();
        let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
        fs::canonicalize(roots.sys.join(format!("dev/block/{major}:{minor}")))?
    } else {
        node.to_owned()
    };
    let name = named.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(name.to_string_lossy().into_owned())
}

struct Tree<'a> {
    roots: &'a Roots,
}

impl Tree<'_> {
    /// The whole disks that a device lies on.
    fn leaves(
        &self,
        name: &str,
        depth: usize,
        leaves: &mut BTreeSet<String>,
    ) -> Result<(), DiscoverError> {
        if depth > DEPTH_MAX {
            return Err(DiscoverError::TooDeep(name.to_owned()));
        }
        let link = self.class(name);
        let place = fs::canonicalize(&link).map_err(|source| DiscoverError::Io {
            path: link.clone(),
            source,
        })?;
        if place.join("partition").exists() {
            let whole = place.parent().and_then(Path::file_name);
            let whole = whole.ok_or_else(|| DiscoverError::NoDisk(name.to_owned()))?;
            return self.leaves(&whole.to_string_lossy(), depth + 1, leaves);
        }
        let mut below: Vec<String> = names_in(&place.join("slaves"));
        below.sort();
        let there = |slave: &String| self.class(slave).exists();
        if is_multipath(&place) && below.iter().any(there) {
            // The kernel has taken a path away, and nobody has told the map. Of another stack it
            // would be a disk.
            below.retain(there);
        }
        if !below.is_empty() {
            for slave in below {
                self.leaves(&slave, depth + 1, leaves)?;
            }
            return Ok(());
        }
        if !is_scsi(name) && !is_nvme(name) {
            return Err(DiscoverError::NoDisk(name.to_owned()));
        }
        leaves.insert(name.to_owned());
        Ok(())
    }

    /// Joins the paths of each disk, those that nobody named included.
    fn group(&self, leaves: BTreeSet<String>) -> Vec<Disk> {
        let mut every: Vec<String> = names_in(&self.roots.sys.join("class/block"));
        every.retain(|name| is_scsi(name) && !self.class(name).join("partition").exists());
        every.sort();
        let mut disks: Vec<Disk> = Vec::new();
        let mut done: BTreeSet<String> = BTreeSet::new();
        for leaf in leaves {
            if done.contains(&leaf) {
                continue;
            }
            let identity = self.identity(&leaf);
            let mut paths = vec![leaf.clone()];
            if is_scsi(&leaf) && identity.is_some() {
                let same = |name: &&String| **name != leaf && self.identity(name) == identity;
                paths.extend(every.iter().filter(same).cloned());
            }
            paths.sort();
            done.extend(paths.iter().cloned());
            let transport = if is_nvme(&leaf) {
                Transport::Nvme {
                    wwid: self.class(&leaf).join("wwid"),
                }
            } else {
                Transport::Scsi
            };
            disks.push(Disk {
                identity,
                paths: paths.iter().map(|name| self.roots.dev.join(name)).collect(),
                transport,
            });
        }
        disks
    }

    /// What the kernel has read of a path's names.
    fn identity(&self, name: &str) -> Option<Identity> {
        let place = self.class(name);
        if is_nvme(name) {
            let text = fs::read_to_string(place.join("wwid")).ok()?;
            return text.trim().parse().ok();
        }
        let page = fs::read(place.join("device/vpd_pg83")).ok()?;
        preferred_identity(&decode_identities(&page)?).cloned()
    }

    fn class(&self, name: &str) -> PathBuf {
        self.roots.sys.join("class/block").join(name)
    }
}

/// A map of the paths to one disk, by the name that multipath-tools gives it.
fn is_multipath(place: &Path) -> bool {
    fs::read_to_string(place.join("dm/uuid")).is_ok_and(|uuid| uuid.starts_with("mpath-"))
}

fn is_scsi(name: &str) -> bool {
    name.strip_prefix("sd")
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_lowercase()))
}

fn is_nvme(name: &str) -> bool {
    name.starts_with("nvme")
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    entries.map(name).collect()
}
