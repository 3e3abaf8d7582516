//! What an object with a shared disk is told of it, and what it claims for it.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use standfast_sys::scsi::Identity;
use toml::Table;

use super::lvm::LogicalVolume;
use crate::config::kind::{ParameterError, Remark};
use crate::object::parameter::{duration, missing, path, text, wrong};

/// Longest time to reserve the disk, with a former owner's commands to be aborted.
const RESERVE_MS_MAX: u64 = 20_000;

/// Longest time to find a volume group, take it over and activate a volume.
const ACTIVATE_MS_MAX: u64 = 30_000;
/// Longest time to deactivate it.
const DEACTIVATE_MS_MAX: u64 = 20_000;

/// How long the disk may stay silent, unless told: longer than the failover of an array's
/// controllers usually takes, 30 s to 40 s.
const IO_TIMEOUT: Duration = Duration::from_secs(45);
/// Smallest and largest value of `io_timeout`.
const IO_TIMEOUTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

/// The parameters of a disk.
pub(in crate::object) struct DiskSpec {
    /// What is used of it: the disk, a partition, a map or a logical volume.
    pub(in crate::object) device: PathBuf,
    /// How long the disk may stay silent.
    pub(in crate::object) io_timeout: Duration,
    /// The array refuses every other node; none if nothing was said of it.
    pub(in crate::object) reservation: Option<bool>,
    /// Name that the disk must have.
    pub(in crate::object) identity: Option<Identity>,
    /// Which volume of which group it is.
    pub(in crate::object) volume: Option<LogicalVolume>,
}

impl DiskSpec {
    pub(in crate::object) fn is_reserved(&self) -> bool {
        self.reservation == Some(true)
    }

    /// What it needs for itself alone.
    pub(in crate::object) fn exclusive(&self) -> String {
        match &self.volume {
            // Whichever of its two names it was given by.
            Some(volume) => format!("device /dev/{volume}"),
            None => format!("device {}", self.device.display()),
        }
    }

    /// What it needs for its task alone: a group is taken over as a whole.
    pub(in crate::object) fn of_task(&self) -> Vec<String> {
        let volume = self.volume.iter();
        volume
            .map(|volume| format!("group {}", volume.group()))
            .collect()
    }

    /// What making sure of the disk adds to the longest start, in milliseconds.
    pub(in crate::object) fn start_ms_max(&self) -> u64 {
        let reserve = if self.is_reserved() {
            RESERVE_MS_MAX
        } else {
            0
        };
        let group = self.volume.as_ref().map_or(0, |_| ACTIVATE_MS_MAX);
        reserve + group
    }

    /// What giving it up adds to the longest stop, in milliseconds.
    pub(in crate::object) fn stop_ms_max(&self) -> u64 {
        self.volume.as_ref().map_or(0, |_| DEACTIVATE_MS_MAX)
    }

    /// A person who leaves the array out of it should have decided so. `what` is what the object
    /// calls itself.
    pub(in crate::object) fn unprotected(&self, what: &str) -> Option<Remark> {
        if self.reservation.is_some() {
            return None;
        }
        Some(Remark {
            key: "device".to_owned(),
            problem: format!(
                "only lease and watchdog keep a former owner from writing to this {what}"
            ),
            remedy: "add `reservation = \"scsi\"` if the disk has persistent reservations, which \
                     `standfast disk reservations DEVICE` tells, or `reservation = \"none\"` if \
                     not"
            .to_owned(),
        })
    }
}

/// Reads the parameters that are the disk's.
pub(in crate::object) fn parse(parameters: &Table) -> Result<DiskSpec, ParameterError> {
    let device = path(parameters, "device", "\"/dev/disk/by-id/...\"")?;
    let device = device.ok_or_else(|| missing("device", "\"/dev/disk/by-id/...\""))?;
    let io_timeout = io_timeout(parameters)?;
    let reservation = match text(parameters, "reservation", "\"scsi\"")? {
        None => None,
        Some("none") => Some(false),
        Some("scsi") => Some(true),
        Some(other) => {
            let problem = format!("there is no reservation `{other}`");
            return Err(wrong("reservation", problem, "write \"scsi\" or \"none\""));
        }
    };
    let example = "\"naa.600140512345678900000000000000ab\"";
    let identity = match text(parameters, "identity", example)? {
        // The link may go on leading to a path behind which another disk has come.
        None => name_in_link(&device).filter(|_| reservation == Some(true)),
        Some(name) => Some(name.parse().map_err(|error| {
            let remedy = "`standfast disk reservations DEVICE` tells the names of a disk";
            wrong("identity", format!("{error}"), remedy)
        })?),
    };
    let group = text(parameters, "group", "\"vg0\"")?;
    let volume = group.map(|group| LogicalVolume::read(group, &device));
    let volume = volume.transpose()?;
    if volume.is_some() && parameters.contains_key("identity") {
        let problem = "a volume group names its own disks";
        return Err(wrong("identity", problem, "remove it, or `group`"));
    }
    Ok(DiskSpec {
        device,
        io_timeout,
        reservation,
        identity: identity.filter(|_| volume.is_none()),
        volume,
    })
}

/// The disk's own name, where the device is given by a link that udev or multipath makes from it:
/// `wwn-0x...`, `scsi-3...` or `/dev/mapper/3...`, each with `-partN` behind it or without.
fn name_in_link(device: &Path) -> Option<Identity> {
    let link = device.file_name()?.to_str()?;
    let link = link.split_once("-part").map_or(link, |(whole, _)| whole);
    let digits = match link
        .strip_prefix("wwn-0x")
        .or_else(|| link.strip_prefix("scsi-3"))
    {
        Some(digits) => digits,
        None if device.starts_with("/dev/mapper") => link.strip_prefix('3')?,
        None => return None,
    };
    format!("naa.{digits}").parse().ok()
}

fn io_timeout(parameters: &Table) -> Result<Duration, ParameterError> {
    let wanted = duration(parameters, "io_timeout")?.unwrap_or(IO_TIMEOUT);
    if IO_TIMEOUTS.contains(&wanted) {
        return Ok(wanted);
    }
    Err(wrong(
        "io_timeout",
        "`io_timeout` must be 1 s to 10 min",
        "such as io_timeout = \"45s\"",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &str) -> Result<DiskSpec, ParameterError> {
        let text = format!("device = '/dev/sdx'\n{more}");
        parse(&text.parse().expect("a table"))
    }

    #[test]
    fn what_protects_a_disk_is_said_or_remarked() {
        let said = |more: &str| {
            let spec = read(more).unwrap();
            (spec.is_reserved(), spec.unprotected("volume").is_some())
        };
        assert_eq!(said("reservation = 'scsi'"), (true, false));
        assert_eq!(said("reservation = 'none'"), (false, false));
        assert_eq!(said(""), (false, true));
        let remark = read("").unwrap().unprotected("volume").unwrap();
        assert!(remark.problem.starts_with("only lease and watchdog"));
        let longer = |more| read(more).unwrap().start_ms_max();
        assert_eq!(longer("reservation = 'scsi'"), longer("") + RESERVE_MS_MAX);
    }

    #[test]
    fn a_group_has_volumes_and_time_and_no_identity() {
        let read = |more: &str| {
            let text = format!("device = '/dev/vg0/data'\n{more}");
            parse(&text.parse().expect("a table")).map_err(|error| error.key)
        };
        let plain = read("").unwrap();
        let spec = read("group = 'vg0'\nreservation = 'scsi'").unwrap();
        assert_eq!(spec.volume.as_ref().unwrap().to_string(), "vg0/data");
        assert!(spec.start_ms_max() > RESERVE_MS_MAX);
        assert_eq!(spec.of_task(), ["group vg0"]);
        let mapped = "device = '/dev/mapper/vg0-data'\ngroup = 'vg0'";
        let mapped = parse(&mapped.parse().expect("a table")).unwrap();
        assert_eq!(mapped.exclusive(), spec.exclusive());
        assert!(spec.stop_ms_max() > plain.stop_ms_max());
        let key = |more: &str| read(more).err();
        assert_eq!(key("group = 'vg1'").as_deref(), Some("device"));
        assert_eq!(key("group = '-ay'").as_deref(), Some("group"));
        let both = "group = 'vg0'\nidentity = 'naa.600140512345678900000000000000ab'";
        assert_eq!(key(both).as_deref(), Some("identity"));
    }

    #[test]
    fn a_link_that_bears_the_name_of_its_disk_says_which_it_must_be() {
        let digits = "6001405123456789000000000000ab01";
        let name = |device: &str| name_in_link(Path::new(device)).map(|name| name.to_string());
        let full = Some(format!("naa.{digits}"));
        assert_eq!(name(&format!("/dev/disk/by-id/wwn-0x{digits}")), full);
        assert_eq!(name(&format!("/dev/disk/by-id/scsi-3{digits}-part2")), full);
        assert_eq!(name(&format!("/dev/mapper/3{digits}-part1")), full);
        assert_eq!(name(&format!("/dev/mapper/{digits}")), None);
        assert_eq!(name("/dev/disk/by-id/wwn-0x600140"), None);
        assert_eq!(name("/dev/sdb"), None);
        assert_eq!(name("/dev/mapper/3par-volume"), None);
    }

    #[test]
    fn a_wrong_reservation_or_name_is_refused_with_its_key() {
        let key = |more: &str| read(more).err().map(|error| error.key);
        assert_eq!(key("reservation = 'yes'").as_deref(), Some("reservation"));
        assert_eq!(
            key("identity = 'wwn-0x6001405'").as_deref(),
            Some("identity")
        );
        let spec = read("identity = 'naa.600140512345678900000000000000AB'").unwrap();
        let name = spec.identity.unwrap().to_string();
        assert_eq!(name, "naa.600140512345678900000000000000ab");
    }
}
