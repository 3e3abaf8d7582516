//! What is mounted, and mounting and unmounting without the tools (proc_pid_mountinfo(5),
//! mount(2)).
//!
//! Only for threads that may block: a mount of a hung disk waits as long as the disk does, and so
//! can reading the table while another mount waits.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};

use crate::error::{Failed, Naming};

/// The mounts that the calling thread sees.
const MOUNTINFO: &str = "/proc/thread-self/mountinfo";

/// One mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    /// Major number of the device (some file systems, such as btrfs, invent one).
    pub major: u32,
    /// Minor number of the device.
    pub minor: u32,
    /// Where it is mounted.
    pub target: PathBuf,
    /// Type, such as `ext4`.
    pub fstype: String,
    /// What was mounted, mostly the path of a device.
    pub source: PathBuf,
    /// Options of this mount and then of the file system, with commas.
    pub options: String,
}

/// How hard to unmount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnmountFlags {
    /// Abort what is under way; only network file systems and few others can (`MNT_FORCE`).
    pub force: bool,
    /// Take it out of the tree at once and clean up when it is no longer used (`MNT_DETACH`). After
    /// this a process can still write to the disk: it never proves that a volume was let go.
    pub lazy: bool,
}

/// All mounts, in the order in which they were made; a later one at the same target hides an
/// earlier.
///
/// # Errors
///
/// `/proc` is not mounted, or a line is not understood (kind `InvalidData`): an incomplete list
/// could say "not mounted" of something that is.
pub fn mounts() -> Result<Vec<MountPoint>, Failed> {
    let table = fs::read(MOUNTINFO).naming("read", MOUNTINFO)?;
    let lines = table
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let problem = || std::io::Error::from(std::io::ErrorKind::InvalidData);
            parse(line)
                .ok_or_else(problem)
                .naming("understand mount", String::from_utf8_lossy(line))
        })
        .collect()
}

/// Mounts `device` at `target`. `options` are those of mount(8), with commas: what the kernel takes
/// as a flag (`ro`, `noatime`, `nosuid`, ...) becomes one, the rest is for the file system.
///
/// # Errors
///
/// What mount(2) says: `EBUSY` if the target is taken by the same device, `EINVAL` for a bad super
/// block or option, `ENOENT`, `ENODEV` for an unknown type, `EACCES` for a read-only device.
pub fn mount(device: &Path, target: &Path, fstype: &str, options: &str) -> Result<(), Failed> {
    let (flags, data) = split_options(options);
    let data = Some(data.as_str()).filter(|data| !data.is_empty());
    nix::mount::mount(Some(device), target, Some(fstype), flags, data).naming(
        "mount",
        format_args!("{} at {}", device.display(), target.display()),
    )
}

/// Unmounts what is on top at `target`; does not follow a symbolic link there. `Ok(false)` if
/// nothing is mounted there or the path does not exist.
///
/// # Errors
///
/// What umount2(2) says: `EBUSY` if a process still uses it.
pub fn unmount(target: &Path, how: UnmountFlags) -> Result<bool, Failed> {
    let mut flags = MntFlags::UMOUNT_NOFOLLOW;
    flags.set(MntFlags::MNT_FORCE, how.force);
    flags.set(MntFlags::MNT_DETACH, how.lazy);
    match umount2(target, flags) {
        Ok(()) => Ok(true),
        Err(Errno::EINVAL | Errno::ENOENT) => Ok(false),
        Err(errno) => Err(Failed::new("unmount", target.display(), errno)),
    }
}

/// One line: `id parent major:minor root target options [tags] - type source options`.
fn parse(line: &[u8]) -> Option<MountPoint> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = text(fields.nth(2)?)?;
    let (major, minor) = device.split_once(':')?;
    let target = unescape(fields.nth(1)?);
    let own_options = text(fields.next()?)?;
    fields.find(|field| *field == b"-")?;
    let fstype = text(fields.next()?)?.to_owned();
    let source = unescape(fields.next()?);
    let options = text(fields.next()?)?;
    Some(MountPoint {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        target: target.into(),
        fstype,
        source: source.into(),
        options: format!("{own_options},{options}"),
    })
}

fn text(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field).ok()
}

/// The kernel writes space, tab, newline, backslash and `#` as a backslash and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [byte, tail @ ..] = rest {
        match rest {
            [
                b'\\',
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                tail @ ..,
            ] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            _ => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

/// Options that are flags of mount(2), and whether the word sets or clears them.
const FLAGS: &[(&str, MsFlags, bool)] = &[
    ("ro", MsFlags::MS_RDONLY, true),
    ("rw", MsFlags::MS_RDONLY, false),
    ("nosuid", MsFlags::MS_NOSUID, true),
    ("suid", MsFlags::MS_NOSUID, false),
    ("nodev", MsFlags::MS_NODEV, true),
    ("dev", MsFlags::MS_NODEV, false),
    ("noexec", MsFlags::MS_NOEXEC, true),
    ("exec", MsFlags::MS_NOEXEC, false),
    ("sync", MsFlags::MS_SYNCHRONOUS, true),
    ("async", MsFlags::MS_SYNCHRONOUS, false),
    ("dirsync", MsFlags::MS_DIRSYNC, true),
    ("noatime", MsFlags::MS_NOATIME, true),
    ("atime", MsFlags::MS_NOATIME, false),
    ("nodiratime", MsFlags::MS_NODIRATIME, true),
    ("diratime", MsFlags::MS_NODIRATIME, false),
    ("relatime", MsFlags::MS_RELATIME, true),
    ("norelatime", MsFlags::MS_RELATIME, false),
    ("strictatime", MsFlags::MS_STRICTATIME, true),
    ("lazytime", MsFlags::MS_LAZYTIME, true),
    ("nolazytime", MsFlags::MS_LAZYTIME, false),
    ("silent", MsFlags::MS_SILENT, true),
    ("defaults", MsFlags::empty(), true),
];

fn split_options(options: &str) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut data = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match FLAGS.iter().find(|(name, ..)| *name == option) {
            Some((_, flag, set)) => flags.set(*flag, *set),
            None => data.push(option),
        }
    }
    (flags, data.join(","))
}

impl MountPoint {
    /// True if this is mounted at exactly `target`, which must be absolute and without links.
    #[must_use]
    pub fn is_at(&self, target: impl AsRef<OsStr>) -> bool {
        self.target.as_os_str().as_bytes() == target.as_ref().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use tempfile::tempdir;

    use super::*;
    use crate::testing::{LoopDisk, in_mounts, run};

    #[test]
    fn a_line_with_escapes_tags_and_options_is_understood() {
        let line = concat!(
            r"98 1 8:17 /sub /mnt/with\040space\134 rw,noatime shared:5 master:1",
            r" - ext4 /dev/a\011b rw,x=1"
        );
        let expected = MountPoint {
            major: 8,
            minor: 17,
            target: "/mnt/with space\\".into(),
            fstype: "ext4".into(),
            source: "/dev/a\tb".into(),
            options: "rw,noatime,rw,x=1".into(),
        };
        assert_eq!(parse(line.as_bytes()), Some(expected));
        assert_eq!(parse(b"98 1 8:17 / /mnt rw"), None);
        assert_eq!(parse(b"98 1 8:x / /mnt rw - ext4 /dev/a rw"), None);
    }

    #[test]
    fn flags_are_told_from_options_of_the_file_system() {
        let (flags, data) = split_options("defaults,ro,noatime,rw,nosuid,errors=panic,,discard");
        assert_eq!(flags, MsFlags::MS_NOATIME | MsFlags::MS_NOSUID);
        assert_eq!(data, "errors=panic,discard");
    }

    /// An ext4 volume and an empty directory with a difficult name.
    fn volume() -> (LoopDisk, tempfile::TempDir, PathBuf) {
        let disk = LoopDisk::new(16 << 20, 512);
        run(&format!("mkfs.ext4 -q {}", disk.path().display()));
        let directory = tempdir().unwrap();
        let target = directory.path().join("a volume");
        fs::create_dir(&target).unwrap();
        let target = target.canonicalize().unwrap();
        (disk, directory, target)
    }

    #[test]
    fn a_volume_is_mounted_listed_used_and_unmounted() {
        in_mounts(|| {
            let (disk, _directory, target) = volume();
            let soft = UnmountFlags::default();
            assert!(!unmount(&target, soft).unwrap(), "not mounted yet");
            mount(
                disk.path(),
                &target,
                "ext4",
                "noatime,nosuid,errors=remount-ro",
            )
            .unwrap();
            let found = mounts()
                .unwrap()
                .into_iter()
                .find(|mount| mount.is_at(&target))
                .unwrap();
            assert_eq!((found.major, found.minor), disk.number());
            assert_eq!(
                (found.fstype.as_str(), found.source.as_path()),
                ("ext4", disk.path())
            );
            assert!(found.options.contains("noatime") && found.options.contains("nosuid"));
            let file = File::create(target.join("file")).unwrap();
            assert_eq!(
                unmount(&target, soft).unwrap_err().errno(),
                Some(libc::EBUSY)
            );
            drop(file);
            assert!(unmount(&target, soft).unwrap());
            assert!(mounts().unwrap().iter().all(|mount| !mount.is_at(&target)));
        });
    }

    #[test]
    fn options_reach_the_kernel_and_bad_ones_are_refused() {
        in_mounts(|| {
            let (disk, _directory, target) = volume();
            mount(disk.path(), &target, "ext4", "ro").unwrap();
            let refused = File::create(target.join("file")).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
            assert!(
                unmount(
                    &target,
                    UnmountFlags {
                        lazy: true,
                        force: false
                    }
                )
                .unwrap()
            );
            assert!(mounts().unwrap().iter().all(|mount| !mount.is_at(&target)));
            let wrong = mount(disk.path(), &target, "ext4", "nonsense=1").unwrap_err();
            assert_eq!(wrong.errno(), Some(libc::EINVAL));
            let absent = mount(Path::new("/dev/absent"), &target, "ext4", "").unwrap_err();
            assert_eq!(absent.errno(), Some(libc::ENOENT));
        });
    }
}
