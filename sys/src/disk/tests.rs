//! Direct I/O on real loop devices of both sector sizes, and the formatter's eyes on them.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::*;
use crate::loop_device::LoopDevice;
use crate::mount;
use crate::testing::{LoopDisk, in_mounts, run};

const MIB: u64 = 1 << 20;

fn put(path: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
    file.sync_all().unwrap();
}

fn names(path: &Path) -> Vec<String> {
    looks_used(path)
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn sectors_are_aligned_zeroed_and_rounded_up() {
    for (asked, given) in [(0, 0), (1, 4096), (4096, 4096), (4097, 8192)] {
        let mut sectors = Sectors::new(asked);
        assert_eq!(sectors.len(), given);
        assert!(sectors.as_ptr().addr().is_multiple_of(SECTORS_ALIGNMENT));
        assert!(sectors.iter().all(|byte| *byte == 0));
        sectors.fill(7);
        assert!(sectors.iter().all(|byte| *byte == 7));
    }
}

#[test]
fn what_is_written_is_read_on_disks_of_both_sector_sizes() {
    for sector in [512, 4096] {
        let loop_disk = LoopDisk::new(MIB, sector);
        let disk = DirectDisk::open(loop_disk.path(), true).unwrap();
        assert_eq!((disk.block_bytes(), disk.bytes()), (sector, MIB));
        assert_eq!(disk.device(), Some(loop_disk.number()));
        let mut out = Sectors::new(8192);
        for (at, byte) in out.iter_mut().enumerate() {
            *byte = (at % 251) as u8;
        }
        let (block, offset) = (sector as usize, u64::from(sector));
        disk.write_at(offset, &out[..block]).unwrap();
        disk.write_at(MIB - 8192, &out).unwrap();
        let mut back = Sectors::new(8192);
        disk.read_at(offset, &mut back[..block]).unwrap();
        assert_eq!(back[..block], out[..block]);
        disk.read_at(MIB - 8192, &mut back).unwrap();
        assert_eq!(back[..], out[..]);
        disk.read_at(0, &mut back[..block]).unwrap();
        assert!(back[..block].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn misaligned_and_short_transfers_are_refused() {
    for sector in [512_u32, 4096] {
        let loop_disk = LoopDisk::new(MIB, sector);
        let disk = DirectDisk::open(loop_disk.path(), true).unwrap();
        let mut sectors = Sectors::new(12_288);
        let block = sector as usize;
        let misaligned = |result| matches!(result, Err(Error::Misaligned { .. }));
        assert!(misaligned(disk.read_at(1, &mut sectors)));
        assert!(misaligned(
            disk.read_at(u64::from(sector) / 2, &mut sectors)
        ));
        assert!(misaligned(disk.write_at(0, &sectors[..block - 1])));
        assert!(misaligned(disk.write_at(0, &sectors[8..block + 8])));
        let short = disk.read_at(MIB - 4096, &mut sectors);
        assert!(
            matches!(short, Err(Error::Short { done: 4096, .. })),
            "{short:?}"
        );
        assert!(disk.read_at(MIB, &mut sectors).is_err());
        assert!(disk.write_at(MIB, &sectors).is_err());
    }
}

#[test]
fn a_disk_opened_for_reading_cannot_be_written() {
    let loop_disk = LoopDisk::new(MIB, 512);
    let disk = DirectDisk::open(loop_disk.path(), false).unwrap();
    let refused = disk.write_at(0, &Sectors::new(512)).unwrap_err();
    assert!(matches!(&refused, Error::Failed(failed) if failed.errno() == Some(libc::EBADF)));
    let absent = DirectDisk::open(Path::new("/dev/absent"), false).unwrap_err();
    assert_eq!(absent.to_string(), "cannot open disk /dev/absent");
    assert_eq!(absent.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_regular_file_stands_in_for_a_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    fs::write(&path, vec![0; 65_536]).unwrap();
    let disk = DirectDisk::open(&path, true).unwrap();
    assert_eq!(
        (disk.block_bytes(), disk.bytes(), disk.device()),
        (4096, 65_536, None)
    );
    let mut sectors = Sectors::new(4096);
    sectors.fill(9);
    disk.write_at(8192, &sectors).unwrap();
    assert_eq!(fs::read(&path).unwrap()[8191..8194], [0, 9, 9]);
    assert_eq!(looks_used(&path).unwrap(), [Finding::Data { offset: 8192 }]);
    fs::write(&path, b"a text").unwrap();
    assert_eq!(looks_used(&path).unwrap(), [Finding::Data { offset: 0 }]);
}

#[test]
fn an_empty_disk_is_free() {
    for (bytes, sector) in [
        (64 * MIB, 512),
        (64 * MIB, 4096),
        (MIB / 2, 512),
        (65_536, 4096),
    ] {
        let disk = LoopDisk::new(bytes, sector);
        assert_eq!(looks_used(disk.path()).unwrap(), []);
    }
}

#[test]
fn every_known_mark_is_found() {
    let disk = LoopDisk::new(8 * MIB, 512);
    let marks: [(u64, &[u8], &str); 12] = [
        (1080, &[0x53, 0xEF], "ext2/3/4 file system at byte 1080"),
        (0, b"XFSB", "XFS file system at byte 0"),
        (65_600, b"_BHRfS_M", "btrfs file system at byte 65600"),
        (512, b"LABELONE", "LVM2 physical volume at byte 512"),
        (
            510,
            &[0x55, 0xAA],
            "MBR partition table or boot sector at byte 510",
        ),
        (512, b"EFI PART", "GPT partition table at byte 512"),
        (4086, b"SWAPSPACE2", "swap space at byte 4086"),
        (0, b"LUKS\xBA\xBE", "LUKS encrypted volume at byte 0"),
        (
            4096,
            &[0xFC, 0x4E, 0x2B, 0xA9],
            "Linux RAID member at byte 4096",
        ),
        (0, b"SBD_SBD_", "SBD device of another cluster at byte 0"),
        (
            1024,
            &[0x10, 0x20, 0x15, 0x06],
            "sanlock leases of another cluster at byte 1024",
        ),
        (
            8 * MIB - 512,
            b"EFI PART",
            "GPT partition table (second copy) at byte 8388096",
        ),
    ];
    for (offset, mark, expected) in marks {
        put(disk.path(), offset, mark);
        assert_eq!(names(disk.path()), [expected]);
        put(disk.path(), offset, &vec![0; mark.len()]);
    }
    put(disk.path(), MIB - 1, &[1]);
    assert_eq!(names(disk.path()), ["unknown data at byte 1048575"]);
    put(disk.path(), MIB - 1, &[0]);
    assert_eq!(names(disk.path()), Vec::<String>::new());
}

#[test]
fn what_the_real_tools_make_is_recognised() {
    let disk = LoopDisk::new(64 * MIB, 512);
    let tools = [("mkfs.ext4 -q -F", "ext2/3/4"), ("mkswap", "swap space")];
    for (tool, expected) in tools {
        run(&format!("{tool} {}", disk.path().display()));
        let found = names(disk.path());
        assert!(
            found.iter().any(|name| name.contains(expected)),
            "{tool}: {found:?}"
        );
        put(disk.path(), 0, &vec![0; 2 * MIB as usize]);
    }
}

#[test]
fn a_mounted_disk_is_reported_with_its_target() {
    in_mounts(|| {
        let disk = LoopDisk::new(16 * MIB, 512);
        run(&format!("mkfs.ext4 -q {}", disk.path().display()));
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().canonicalize().unwrap();
        mount::mount(disk.path(), &target, "ext4", "").unwrap();
        let findings = looks_used(disk.path()).unwrap();
        mount::unmount(&target, mount::UnmountFlags::default()).unwrap();
        assert!(
            findings.contains(&Finding::Mounted { target }),
            "{findings:?}"
        );
        assert!(findings.contains(&Finding::Claimed), "{findings:?}");
    });
}

#[test]
fn an_exclusive_opener_is_noticed() {
    let disk = LoopDisk::new(MIB, 512);
    let mut options = OpenOptions::new();
    let holder = options
        .read(true)
        .write(true)
        .custom_flags(libc::O_EXCL)
        .open(disk.path());
    assert_eq!(looks_used(disk.path()).unwrap(), [Finding::Claimed]);
    holder.unwrap().flush().unwrap();
    assert_eq!(looks_used(disk.path()).unwrap(), []);
    assert!(looks_used(&PathBuf::from("/dev/null")).is_err());
}

/// A device and the file behind it, as two nodes see one disk: what one has read of it stays as it
/// was, until the kernel forgets it.
#[test]
fn what_was_cached_of_a_shared_disk_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    fs::write(&image, vec![1; MIB as usize]).unwrap();
    let device = LoopDevice::attach(&image).unwrap();
    let first_byte = || {
        let mut byte = [0];
        let file = File::open(device.path()).unwrap();
        file.read_exact_at(&mut byte, 0).unwrap();
        byte[0]
    };
    assert_eq!(first_byte(), 1);
    put(&image, 0, &[2; 4096]);
    assert_eq!(first_byte(), 1, "nothing is kept: this proves nothing");
    forget_cached(device.path()).unwrap();
    assert_eq!(first_byte(), 2);
    let refused = forget_cached(&image).unwrap_err();
    assert_eq!(refused.errno(), Some(libc::ENOTTY));
}

#[test]
fn what_was_written_to_a_device_is_put_on_its_medium() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    fs::write(&image, vec![1; MIB as usize]).unwrap();
    let device = LoopDevice::attach(&image).unwrap();
    let file = File::options().write(true).open(device.path()).unwrap();
    file.write_all_at(&[2; 4096], 0).unwrap();
    write_back(device.path()).unwrap();
    assert_eq!(fs::read(&image).unwrap()[..4096], [2; 4096]);
    let refused = write_back(&directory.path().join("none")).unwrap_err();
    assert_eq!(refused.errno(), Some(libc::ENOENT));
}
