//! What a volume is told, and what it needs for itself alone.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use standfast_sys::scsi::Identity;
use toml::Table;

use crate::config::kind::{Claims, ParameterError, Remark};
use crate::object::parameter::{duration, missing, path, text, wrong};

/// Longest time for a mount, which replays a journal.
const MOUNT_MS_MAX: u64 = 30_000;
/// Longest time for a check by the file system's own program.
const CHECK_MS_MAX: u64 = 120_000;
/// Longest time for a stop, an unmount that writes back included.
const STOP_MS_MAX: u64 = 30_000;
/// Longest time to reserve the disk, with a former owner's commands to be aborted.
const RESERVE_MS_MAX: u64 = 20_000;

/// How long the disk may stay silent, unless told: longer than the failover of an array's
/// controllers usually takes, 30 s to 40 s.
const IO_TIMEOUT: Duration = Duration::from_secs(45);
/// Smallest and largest value of `io_timeout`.
const IO_TIMEOUTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

/// A volume's parameters.
pub(super) struct Spec {
    pub(super) device: PathBuf,
    pub(super) mount: PathBuf,
    pub(super) filesystem: String,
    pub(super) options: String,
    pub(super) check: bool,
    /// How long the disk may stay silent.
    pub(super) io_timeout: Duration,
    /// The array refuses every other node; none if nothing was said of it.
    pub(super) reservation: Option<bool>,
    /// Name that the disk must have.
    pub(super) identity: Option<Identity>,
}

impl Spec {
    pub(super) fn is_reserved(&self) -> bool {
        self.reservation == Some(true)
    }
}

/// Reads the parameters of an object.
pub(super) fn parse(parameters: &Table) -> Result<Spec, ParameterError> {
    let device = path(parameters, "device", "\"/dev/disk/by-id/...\"")?;
    let device = device.ok_or_else(|| missing("device", "\"/dev/disk/by-id/...\""))?;
    let mount = path(parameters, "mount", "\"/srv/data\"")?;
    let mount = mount.ok_or_else(|| missing("mount", "\"/srv/data\""))?;
    if mount.parent().is_none() {
        return Err(wrong(
            "mount",
            "the root is mounted already",
            "such as mount = \"/srv/data\"",
        ));
    }
    let filesystem = text(parameters, "filesystem", "\"ext4\"")?;
    let filesystem = filesystem
        .ok_or_else(|| missing("filesystem", "\"ext4\""))?
        .to_owned();
    let options = text(parameters, "options", "\"noatime\"")?
        .unwrap_or("noatime")
        .to_owned();
    let check = match text(parameters, "check", "\"auto\"")? {
        None | Some("none") => false,
        Some("auto") => true,
        Some(other) => {
            let problem = format!("there is no check `{other}`");
            return Err(wrong("check", problem, "write \"none\" or \"auto\""));
        }
    };
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
    Ok(Spec {
        device,
        mount,
        filesystem,
        options,
        check,
        io_timeout,
        reservation,
        identity,
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

/// What it needs for itself alone.
pub(super) fn claims(spec: &Spec) -> Claims {
    Claims {
        addresses: Vec::new(),
        exclusive: vec![
            format!("mount {}", spec.mount.display()),
            format!("device {}", spec.device.display()),
        ],
        start_ms_max: MOUNT_MS_MAX
            + if spec.check { CHECK_MS_MAX } else { 0 }
            + if spec.is_reserved() {
                RESERVE_MS_MAX
            } else {
                0
            },
        stop_ms_max: STOP_MS_MAX,
        fenced: Some(spec.is_reserved()),
        remarks: unprotected(spec).into_iter().collect(),
    }
}

/// A person who leaves the array out of it should have decided so.
fn unprotected(spec: &Spec) -> Option<Remark> {
    if spec.reservation.is_some() {
        return None;
    }
    Some(Remark {
        key: "device".to_owned(),
        problem: "only lease and watchdog keep a former owner from writing to this volume"
            .to_owned(),
        remedy: "add `reservation = \"scsi\"` if the disk has persistent reservations, which \
                 `standfast disk reservations DEVICE` tells, or `reservation = \"none\"` if not"
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &str) -> Result<Spec, ParameterError> {
        let text = format!("device = '/dev/sdx'\nmount = '/srv'\nfilesystem = 'ext4'\n{more}");
        parse(&text.parse().expect("a table"))
    }

    #[test]
    fn what_protects_a_volume_is_said_or_remarked() {
        let said = |more: &str| {
            let spec = read(more).unwrap();
            (spec.is_reserved(), claims(&spec).remarks.len())
        };
        assert_eq!(said("reservation = 'scsi'"), (true, 0));
        assert_eq!(said("reservation = 'none'"), (false, 0));
        assert_eq!(said(""), (false, 1));
        let remark = unprotected(&read("").unwrap()).unwrap();
        assert!(remark.problem.starts_with("only lease and watchdog"));
        let longer = |more| claims(&read(more).unwrap()).start_ms_max;
        assert_eq!(longer("reservation = 'scsi'"), longer("") + RESERVE_MS_MAX);
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
