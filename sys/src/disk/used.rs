//! Whether a disk that is about to be formatted belongs to somebody.
//!
//! Every check errs towards "used": a false alarm costs the operator a look, a miss costs his data.
//! Read past the page cache, since another host may have written last. May block on a hung disk.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::{DirectDisk, Error, Sectors};
use crate::error::{Failed, Naming};
use crate::mount::mounts;

/// How much of the start is looked at.
const HEAD_BYTES: u64 = 1 << 20;

/// How much of the end is looked at: old RAID superblocks and the second partition table live
/// there.
const TAIL_BYTES: u64 = 128 * 1024;

/// One sign that a disk is in use or holds data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It or one of its partitions is mounted here.
    Mounted {
        /// Where.
        target: PathBuf,
    },
    /// Somebody on this host has it open exclusively: swap, a volume manager, RAID, multipath.
    Claimed,
    /// Another block device of this host is built on it.
    Held {
        /// Kernel name of that device, such as `dm-3`.
        by: String,
    },
    /// The mark of a known format.
    Signature {
        /// The format, in plain words.
        name: &'static str,
        /// Byte offset of the mark.
        offset: u64,
    },
    /// No known mark, but not empty.
    Data {
        /// Offset of the first byte that is not zero.
        offset: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Mounted { target } => write!(formatter, "mounted at {}", target.display()),
            Finding::Claimed => write!(formatter, "in exclusive use on this host"),
            Finding::Held { by } => write!(formatter, "part of the device {by}"),
            Finding::Signature { name, offset } => write!(formatter, "{name} at byte {offset}"),
            Finding::Data { offset } => write!(formatter, "unknown data at byte {offset}"),
        }
    }
}

/// Everything that speaks against overwriting the disk; empty if nothing does. A regular file is
/// only searched for content.
///
/// # Errors
///
/// The disk or the kernel's tables cannot be read: treat it as used.
pub fn looks_used(path: &Path) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    let disk = DirectDisk::open(path, false)?;
    if let Some(device) = disk.device() {
        let family = with_partitions(device)?;
        mounted(&family, &mut findings)?;
        held(&family, &mut findings)?;
        if is_claimed(path)? {
            findings.push(Finding::Claimed);
        }
    }
    let before = findings.len();
    let head = read(&disk, 0, HEAD_BYTES.min(disk.bytes()))?;
    search_head(&head, &mut findings);
    let tail_at = disk.bytes().saturating_sub(TAIL_BYTES);
    let tail = read(&disk, tail_at, disk.bytes() - tail_at)?;
    search_tail(&tail, tail_at, &mut findings);
    if findings.len() == before {
        let nonzero = head
            .iter()
            .position(|byte| *byte != 0)
            .map(|offset| offset as u64);
        // What follows the last whole block of a regular file cannot be read directly.
        let block = u64::from(disk.block_bytes());
        let ragged = disk.bytes() % block;
        let unread = (ragged > 0).then_some(disk.bytes() - ragged);
        findings.extend(nonzero.or(unread).map(|offset| Finding::Data { offset }));
    }
    Ok(findings)
}

fn read(disk: &DirectDisk, offset: u64, bytes: u64) -> Result<Vec<u8>, Error> {
    let block = u64::from(disk.block_bytes());
    // The end of a regular file need not be a block's; of a disk it is.
    let first = offset - offset % block;
    let end = (offset + bytes) / block * block;
    let length = end.saturating_sub(first) as usize;
    let mut sectors = Sectors::new(length);
    disk.read_at(first, &mut sectors[..length])?;
    Ok(sectors[(offset - first) as usize..length].to_vec())
}

/// The device numbers of a disk and of its partitions.
fn with_partitions(device: (u32, u32)) -> Result<Vec<(u32, u32)>, Failed> {
    let mut family = vec![device];
    let directory = sysfs(device);
    for entry in fs::read_dir(&directory).naming("list", directory.display())? {
        let entry = entry.naming("list", directory.display())?.path();
        if entry.join("partition").exists() {
            let number = entry.join("dev");
            let text = fs::read_to_string(&number).naming("read", number.display())?;
            let parts = text.trim().split_once(':');
            let parsed = parts.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
            let problem = || std::io::Error::from(std::io::ErrorKind::InvalidData);
            family.push(
                parsed
                    .ok_or_else(problem)
                    .naming("understand", number.display())?,
            );
        }
    }
    Ok(family)
}

fn mounted(family: &[(u32, u32)], findings: &mut Vec<Finding>) -> Result<(), Failed> {
    for mount in mounts()? {
        // Some file systems invent a device number; their source is still the path of the device.
        let source = mount
            .source
            .metadata()
            .map(|metadata| metadata.rdev())
            .unwrap_or(0);
        let source = (libc::major(source), libc::minor(source));
        if family.contains(&(mount.major, mount.minor)) || family.contains(&source) {
            findings.push(Finding::Mounted {
                target: mount.target,
            });
        }
    }
    Ok(())
}

fn held(family: &[(u32, u32)], findings: &mut Vec<Finding>) -> Result<(), Failed> {
    for device in family {
        let directory = sysfs(*device).join("holders");
        for holder in fs::read_dir(&directory).naming("list", directory.display())? {
            let name = holder.naming("list", directory.display())?.file_name();
            findings.push(Finding::Held {
                by: name.to_string_lossy().into_owned(),
            });
        }
    }
    Ok(())
}

fn sysfs((major, minor): (u32, u32)) -> PathBuf {
    PathBuf::from(format!("/sys/dev/block/{major}:{minor}"))
}

/// The kernel gives a block device to one exclusive opener, a mount or volume manager included
/// (open(2), `O_EXCL` without `O_CREAT`).
fn is_claimed(path: &Path) -> Result<bool, Failed> {
    match OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_EXCL)
        .open(path)
    {
        Ok(_) => Ok(false),
        Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => Ok(true),
        Err(error) => Err(Failed::new("claim disk", path.display(), error)),
    }
}

/// Format, byte offset, mark. From the file-system headers of Linux and libblkid's list.
const MARKS: &[(&str, usize, &[u8])] = &[
    ("ext2/3/4 file system", 1080, &[0x53, 0xEF]),
    ("XFS file system", 0, b"XFSB"),
    ("btrfs file system", 65_600, b"_BHRfS_M"),
    ("GFS2 file system", 65_536, &[0x01, 0x16, 0x19, 0x70]),
    ("OCFS2 file system", 8192, b"OCFSV2"),
    ("NTFS file system", 3, b"NTFS    "),
    ("MBR partition table or boot sector", 510, &[0x55, 0xAA]),
    ("GPT partition table", 512, b"EFI PART"),
    ("GPT partition table", 4096, b"EFI PART"),
    ("LVM2 physical volume", 0, b"LABELONE"),
    ("LVM2 physical volume", 512, b"LABELONE"),
    ("LVM2 physical volume", 1024, b"LABELONE"),
    ("LVM2 physical volume", 1536, b"LABELONE"),
    ("swap space", 4086, b"SWAPSPACE2"),
    ("swap space", 4086, b"SWAP-SPACE"),
    ("LUKS encrypted volume", 0, b"LUKS\xBA\xBE"),
    (
        "LUKS encrypted volume (second header)",
        16_384,
        b"SKUL\xBA\xBE",
    ),
    ("Linux RAID member", 0, &RAID),
    ("Linux RAID member", 4096, &RAID),
    ("SBD device of another cluster", 0, b"SBD_SBD_"),
];

/// Magic of Linux software RAID, little-endian 0xA92B4EFC (linux/raid/md_p.h).
const RAID: [u8; 4] = [0xFC, 0x4E, 0x2B, 0xA9];

/// Magics at the start of sanlock's leases, little-endian, at any sector (sanlock, leader.h).
const SANLOCK: [u32; 3] = [0x0615_2010, 0x1221_2010, 0x1128_2016];

fn search_head(head: &[u8], findings: &mut Vec<Finding>) {
    for (name, offset, mark) in MARKS {
        if head
            .get(*offset..)
            .is_some_and(|rest| rest.starts_with(mark))
        {
            findings.push(Finding::Signature {
                name,
                offset: *offset as u64,
            });
        }
    }
    let sanlock = head.chunks_exact(512).position(|sector| {
        SANLOCK
            .iter()
            .any(|magic| sector.starts_with(&magic.to_le_bytes()))
    });
    if let Some(sector) = sanlock {
        let name = "sanlock leases of another cluster";
        findings.push(Finding::Signature {
            name,
            offset: sector as u64 * 512,
        });
    }
}

fn search_tail(tail: &[u8], tail_at: u64, findings: &mut Vec<Finding>) {
    let marks = [
        ("GPT partition table (second copy)", &b"EFI PART"[..]),
        ("Linux RAID member", &RAID),
    ];
    for (at, sector) in tail.chunks_exact(512).enumerate() {
        for (name, mark) in marks {
            let offset = tail_at + at as u64 * 512;
            // What is within the head was found there already.
            if offset >= HEAD_BYTES && sector.starts_with(mark) {
                findings.push(Finding::Signature { name, offset });
            }
        }
    }
}
