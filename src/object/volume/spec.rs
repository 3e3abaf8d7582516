//! What a volume is told, and what it needs for itself alone.

use std::path::PathBuf;

use toml::Table;

use crate::config::kind::{Claims, ParameterError};
use crate::object::disk::{self, DiskSpec};
use crate::object::parameter::{missing, path, text, wrong};

/// Longest time for a mount, which replays a journal.
const MOUNT_MS_MAX: u64 = 30_000;
/// Longest time for a check by the file system's own program.
const CHECK_MS_MAX: u64 = 120_000;
/// Longest time for a stop, an unmount that writes back included.
const STOP_MS_MAX: u64 = 30_000;

/// A volume's parameters.
pub(super) struct Spec {
    pub(super) disk: DiskSpec,
    pub(super) mount: PathBuf,
    pub(super) filesystem: String,
    pub(super) options: String,
    pub(super) check: bool,
}

/// Reads the parameters of an object.
pub(super) fn parse(parameters: &Table) -> Result<Spec, ParameterError> {
    let disk = disk::parse(parameters)?;
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
    Ok(Spec {
        disk,
        mount,
        filesystem,
        options,
        check,
    })
}

/// What it needs for itself alone.
pub(super) fn claims(spec: &Spec) -> Claims {
    Claims {
        addresses: Vec::new(),
        exclusive: vec![
            format!("mount {}", spec.mount.display()),
            spec.disk.exclusive(),
        ],
        of_task: spec.disk.of_task(),
        start_ms_max: MOUNT_MS_MAX
            + if spec.check { CHECK_MS_MAX } else { 0 }
            + spec.disk.start_ms_max(),
        stop_ms_max: STOP_MS_MAX + spec.disk.stop_ms_max(),
        fenced: Some(spec.disk.is_reserved()),
        remarks: spec.disk.unprotected("volume").into_iter().collect(),
    }
}
