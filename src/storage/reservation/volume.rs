//! All disks below one or several devices: a logical volume may lie on several disks, and is owned
//! when all of them are.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use standfast_sys::scsi::Identity;

use super::discover::{DiscoverError, Disk, Roots, disks_below, disks_below_all};
use super::error::TakeError;
use super::keeper::{Found, Keeper};
use super::key::{ClusterTag, Key, KeyEpoch, Whose};
use super::paths::PathUnit;
use super::take::{Bounds, check_name, take};
use super::unit::{Answer, Ask, Unit};

/// Polls from one search for new paths to the next.
const SEARCH_EVERY: u32 = 10;

/// Why a device was not taken or adopted.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Its disks are not known.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// One disk was not taken, or is not the right one.
    #[error("cannot use {disk}")]
    Take {
        /// Its name.
        disk: String,
        /// Why.
        source: TakeError,
    },
    /// One name was given for several disks.
    #[error("`{device}` lies on {disks} disks, which have no common name; leave `identity` away")]
    SeveralDisks {
        /// The device.
        device: String,
        /// How many.
        disks: usize,
    },
}

/// What is to be owned by whom.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The device: a disk, partition, map or logical volume. Several where a thing that is used as
    /// a whole lies on several, such as a volume group.
    pub devices: &'a [PathBuf],
    /// The name its disk must have.
    pub identity: Option<&'a Identity>,
    /// This node's key for the task's epoch.
    pub own: Key,
}

/// Devices whose disks this node owns.
pub struct ReservedVolume {
    devices: Vec<PathBuf>,
    /// By what the disks are taken from everybody here.
    switches: Vec<PathBuf>,
    roots: Roots,
    patience: Duration,
    polls: u32,
    disks: Vec<OneDisk>,
}

struct OneDisk {
    identity: Option<Identity>,
    unit: PathUnit,
    keeper: Keeper,
}

impl OneDisk {
    fn new(disk: &Disk, own: Key, patience: Duration) -> OneDisk {
        let unit = PathUnit::open(disk, patience);
        let keeper = Keeper::new(own, unit.paths(), patience);
        let identity = disk.identity.clone();
        OneDisk {
            identity,
            unit,
            keeper,
        }
    }

    fn name(&self) -> String {
        let path = || self.unit.path_name(0);
        self.identity
            .as_ref()
            .map_or_else(path, ToString::to_string)
    }
}

impl ReservedVolume {
    /// Takes every disk below the devices, one after the other in the order of their names, which
    /// is the same on all nodes.
    ///
    /// # Errors
    ///
    /// One disk was not taken. Those before it are this node's already and stay so: with another
    /// owner for a part of it, nobody can use the rest.
    pub fn take(claim: Claim<'_>, bounds: Bounds<'_>) -> Result<ReservedVolume, VolumeError> {
        let roots = Roots::default();
        let mut volume = ReservedVolume::of(claim, &roots, bounds.patience)?;
        for disk in &mut volume.disks {
            let name = disk.name();
            let wanted = claim.identity.or(disk.identity.as_ref());
            take(&mut disk.unit, claim.own, wanted, bounds)
                .map_err(|source| VolumeError::Take { disk: name, source })?;
        }
        Ok(volume)
    }

    /// Goes on watching what was taken with this key, such as by an earlier life of this process.
    ///
    /// # Errors
    ///
    /// The disks are not known. Whether they are still this node's tells the first poll.
    pub fn adopt(claim: Claim<'_>, patience: Duration) -> Result<ReservedVolume, VolumeError> {
        ReservedVolume::of(claim, &Roots::default(), patience)
    }

    fn of(claim: Claim<'_>, roots: &Roots, patience: Duration) -> Result<Self, VolumeError> {
        let mut found = disks_below_all(claim.devices, roots)?;
        found.sort_by(|one, other| one.identity.cmp(&other.identity));
        if claim.identity.is_some() && found.len() > 1 {
            return Err(VolumeError::SeveralDisks {
                device: shown(claim.devices),
                disks: found.len(),
            });
        }
        let open = |disk: &Disk| OneDisk::new(disk, claim.own, patience);
        Ok(ReservedVolume {
            devices: claim.devices.to_vec(),
            switches: super::offline::switches(claim.devices, roots)?,
            roots: roots.clone(),
            patience,
            polls: 0,
            disks: found.iter().map(open).collect(),
        })
    }

    /// Looks at every disk once; what was found, with the disk's name.
    pub fn poll(&mut self) -> Vec<(String, Found)> {
        self.polls = self.polls.wrapping_add(1);
        if self.polls.is_multiple_of(SEARCH_EVERY) {
            self.search();
        }
        let mut all = Vec::new();
        for disk in &mut self.disks {
            let name = disk.name();
            let found = disk.keeper.poll(&mut disk.unit);
            all.extend(found.into_iter().map(|found| (name.clone(), found)));
        }
        all
    }

    /// Did each disk tell who is registered when it was polled last?
    #[must_use]
    pub fn answers(&self) -> bool {
        self.disks.iter().all(|disk| disk.keeper.answers())
    }

    /// Takes the disks from everybody on this node, for the array does not keep them from writing;
    /// `kept` is where it is written down until it is given back. Nothing happens to a device that
    /// lies on others.
    ///
    /// # Errors
    ///
    /// The kernel refuses, or it could not be written down.
    pub fn take_offline(&self, kept: &Path) -> io::Result<()> {
        super::offline::take_offline(&self.switches, kept)
    }

    /// Paths that have come since are to be registered before anybody writes by them.
    fn search(&mut self) {
        let Ok(found) = disks_below_all(&self.devices, &self.roots) else {
            return;
        };
        for disk in &mut self.disks {
            let Some(identity) = &disk.identity else {
                continue;
            };
            let same = |found: &&Disk| found.identity.as_ref() == Some(identity);
            if let Some(found) = found.iter().find(same) {
                disk.unit.refresh(found, identity, self.patience);
                disk.keeper.grow(disk.unit.paths());
            }
        }
    }

    /// The key with which a node of this cluster holds the first of the devices' disks, if one
    /// does: for who has lost his own word of it.
    ///
    /// # Errors
    ///
    /// The disks are not known.
    pub fn held_by(
        devices: &[PathBuf],
        cluster: ClusterTag,
        patience: Duration,
    ) -> Result<Option<Key>, VolumeError> {
        let disks = disks_below_all(devices, &Roots::default())?;
        let Some(first) = disks.first() else {
            return Ok(None);
        };
        let mut unit = PathUnit::open(first, patience);
        let asks: Vec<_> = (0..unit.paths()).map(|path| (path, Ask::Holder)).collect();
        let told = unit.round(&asks, patience).into_iter().find_map(|answer| {
            let Ok(Answer::Holder(Some(held))) = answer else {
                return None;
            };
            match Whose::read(held.key, cluster) {
                Whose::Ours(key) => Some(key),
                Whose::OtherCluster(_) | Whose::Foreign(_) => None,
            }
        });
        Ok(told)
    }

    /// The latest epoch of this cluster among the keys of the device's disks; none if it has no key
    /// there.
    ///
    /// # Errors
    ///
    /// The disks are not known, or one of them does not tell.
    pub fn latest_epoch(
        device: &Path,
        cluster: ClusterTag,
        patience: Duration,
    ) -> Result<Option<KeyEpoch>, VolumeError> {
        let mut latest: Option<KeyEpoch> = None;
        for disk in disks_below(device, &Roots::default())? {
            let mut unit = PathUnit::open(&disk, patience);
            let asks: Vec<_> = (0..unit.paths()).map(|path| (path, Ask::Keys)).collect();
            let mut trouble = None;
            let mut told = false;
            for answer in unit.round(&asks, patience) {
                let keys = match answer {
                    Ok(Answer::Keys { keys, .. }) => keys,
                    Ok(_) => continue,
                    Err(fault) => {
                        trouble = Some(fault.to_string());
                        continue;
                    }
                };
                told = true;
                for number in keys {
                    if let Whose::Ours(key) = Whose::read(number, cluster)
                        && latest.is_none_or(|latest| key.epoch.is_later_than(latest))
                    {
                        latest = Some(key.epoch);
                    }
                }
            }
            if !told {
                let what = trouble.unwrap_or_default();
                let disk = unit.path_name(0);
                let source = TakeError::Late { what };
                return Err(VolumeError::Take { disk, source });
            }
        }
        Ok(latest)
    }

    /// Are the disks those that the claim names? Reads only.
    ///
    /// # Errors
    ///
    /// One is not, or no path tells.
    pub fn check_name(claim: Claim<'_>, patience: Duration) -> Result<(), VolumeError> {
        let mut volume = ReservedVolume::of(claim, &Roots::default(), patience)?;
        for disk in &mut volume.disks {
            let name = disk.name();
            let wanted = claim.identity.or(disk.identity.as_ref());
            check_name(&mut disk.unit, wanted, patience)
                .map_err(|source| VolumeError::Take { disk: name, source })?;
        }
        Ok(())
    }

    /// Names and paths of the disks, for people.
    #[must_use]
    pub fn words(&self) -> String {
        let one = |disk: &OneDisk| {
            let paths: Vec<String> = (0..disk.unit.paths())
                .map(|path| disk.unit.path_name(path))
                .collect();
            format!("{} by {}", disk.name(), paths.join(", "))
        };
        let all: Vec<String> = self.disks.iter().map(one).collect();
        all.join("; ")
    }

    /// Ends every reservation of this key.
    ///
    /// # Errors
    ///
    /// One disk still has it; the others may be free.
    pub fn release(mut self, own: Key) -> Result<(), VolumeError> {
        for disk in &mut self.disks {
            let name = disk.name();
            super::release(&mut disk.unit, own, self.patience)
                .map_err(|source| VolumeError::Take { disk: name, source })?;
        }
        Ok(())
    }
}

fn shown(devices: &[PathBuf]) -> String {
    let all: Vec<String> = devices
        .iter()
        .map(|device| device.display().to_string())
        .collect();
    all.join(", ")
}
