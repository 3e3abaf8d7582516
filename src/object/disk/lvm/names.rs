//! Names of groups and of the volumes in them, as lvm(8) has them.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::kind::ParameterError;
use crate::object::parameter::wrong;

/// Longest name of a group or volume (lvm(8), "Valid names").
const NAME_MAX: usize = 127;

/// One volume of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::object) struct LogicalVolume {
    /// The group's name.
    pub(super) group: String,
    /// Its own.
    pub(super) volume: String,
}

impl LogicalVolume {
    /// The volume of this group that a device is.
    pub(in crate::object) fn read(
        group: &str,
        device: &Path,
    ) -> Result<LogicalVolume, ParameterError> {
        if !is_name(group) {
            let problem = format!("`{group}` cannot be the name of a volume group");
            return Err(wrong("group", problem, "such as group = \"vg0\""));
        }
        let volume = volume_of(group, device).ok_or_else(|| {
            let shown = device.display();
            let problem = format!("`{shown}` is not a volume of the group `{group}`");
            wrong(
                "device",
                problem,
                format!("such as device = \"/dev/{group}/data\""),
            )
        })?;
        Ok(LogicalVolume {
            group: group.to_owned(),
            volume,
        })
    }

    /// The group's name.
    pub(in crate::object) fn group(&self) -> &str {
        &self.group
    }

    /// What the device mapper calls it: hyphens of the two names are doubled, and one is between.
    pub(super) fn map_name(&self) -> String {
        let doubled = |name: &str| name.replace('-', "--");
        format!("{}-{}", doubled(&self.group), doubled(&self.volume))
    }
}

impl fmt::Display for LogicalVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.volume)
    }
}

fn volume_of(group: &str, device: &Path) -> Option<String> {
    let last = device.file_name()?.to_str()?;
    let volume = if device.parent() == Some(PathBuf::from("/dev").join(group).as_path()) {
        last.to_owned()
    } else if device.parent() == Some(Path::new("/dev/mapper")) {
        let doubled = format!("{}-", group.replace('-', "--"));
        last.strip_prefix(&doubled)?.replace("--", "-")
    } else {
        return None;
    };
    let found = LogicalVolume {
        group: group.to_owned(),
        volume,
    };
    // A single hyphen behind the first would be the end of another group's name.
    let same = device.parent() != Some(Path::new("/dev/mapper")) || found.map_name() == last;
    (same && is_name(&found.volume)).then_some(found.volume)
}

/// May a group, a volume or a system be called so? Nothing that could be taken for an option, or
/// that would need quotes.
pub(super) fn is_name(name: &str) -> bool {
    let letter = |letter: char| letter.is_ascii_alphanumeric() || "+_.-".contains(letter);
    (1..=NAME_MAX).contains(&name.len())
        && name.chars().all(letter)
        && !name.starts_with('-')
        && ![".", ".."].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_read_from_either_of_its_devices() {
        let read = |group: &str, device: &str| {
            let volume = LogicalVolume::read(group, Path::new(device)).ok()?;
            Some((volume.to_string(), volume.map_name()))
        };
        let told = |name: &str, map: &str| Some((name.to_owned(), map.to_owned()));
        assert_eq!(read("vg0", "/dev/vg0/data"), told("vg0/data", "vg0-data"));
        assert_eq!(
            read("vg-0", "/dev/mapper/vg--0-my--data"),
            told("vg-0/my-data", "vg--0-my--data")
        );
        for (group, device) in [
            ("vg0", "/dev/vg1/data"),
            ("vg0", "/dev/mapper/vg0--a-data"),
            ("vg0", "/dev/mapper/vg0-a-data"),
            ("vg0", "/dev/disk/by-id/wwn-0x6001405"),
            ("vg0", "/dev/vg0/-ay"),
            ("-ay", "/dev/-ay/data"),
            ("a b", "/dev/a b/data"),
            ("..", "/dev/../data"),
            ("", "/dev/data"),
        ] {
            assert_eq!(read(group, device), None, "{group} {device}");
        }
    }
}
