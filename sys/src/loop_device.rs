//! Files as block devices (loop(4)), with one trick: the path can be made to fail and to heal.
//!
//! For tests and the demo, from threads that may block: every call here may wait for the disk.
//! Several devices over one file are several paths to one disk; failing one of them leaves the
//! others alone.
//!
//! A failed device is one that was shrunk to its first 512 bytes: whoever has it open reads nothing
//! behind them (a short read of 0 bytes) and cannot write there (`ENOSPC`), at once and for as long
//! as it lasts.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use crate::error::{Failed, Naming, answer};

/// What include/uapi/linux/loop.h calls them.
const LOOP_SET_STATUS64: libc::Ioctl = 0x4C04;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// All that is left of a failed device.
const FAILED_BYTES: u64 = 512;

/// Somebody else may take the free device first; so often is another one asked for.
const ATTEMPTS_MAX: u32 = 64;

/// `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    descriptor: u32,
    block_bytes: u32,
    info: Info,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<Info>() == 232 && size_of::<Config>() == 304);

/// A block device over a file, with direct I/O where the file system can.
///
/// The kernel detaches it when the last opener closes it: this value, or whoever still uses the
/// device then. So it goes away with its process, however that ends.
#[derive(Debug)]
pub struct LoopDevice {
    device: File,
    path: PathBuf,
    lasting: bool,
}

impl LoopDevice {
    /// Attaches `image` to a free device with logical blocks of 512 bytes.
    ///
    /// # Errors
    ///
    /// What the kernel says; `ENOENT` without the loop driver, `EBUSY` when others are always
    /// faster.
    pub fn attach(image: &Path) -> Result<LoopDevice, Failed> {
        let file = OpenOptions::new().read(true).write(true).open(image);
        let file = file.naming("open image", image.display())?;
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control");
        let control = control.naming("open", "/dev/loop-control")?;
        let mut attempts = 1;
        loop {
            // SAFETY: LOOP_CTL_GET_FREE takes no argument.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            let number = answer(number).naming("find a free loop device", image.display())?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = OpenOptions::new().read(true).write(true).open(&path);
            let device = device.naming("open loop device", path.display())?;
            match configure(device.as_raw_fd(), file.as_raw_fd()) {
                Ok(()) => {
                    return Ok(LoopDevice {
                        device,
                        path,
                        lasting: false,
                    });
                }
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    if attempts == ATTEMPTS_MAX {
                        return Err(error).naming("attach", path.display());
                    }
                    attempts += 1;
                }
                Err(error) => return Err(error).naming("attach", path.display()),
            }
        }
    }

    /// The device file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets every access behind the first 512 bytes fail, also of those who have it open.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn fail(&self) -> Result<(), Failed> {
        self.set(FAILED_BYTES)
    }

    /// Ends [`fail`](Self::fail).
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn heal(&self) -> Result<(), Failed> {
        self.set(0)
    }

    /// Lets the device outlive everybody who has it open, until `losetup --detach`.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn make_lasting(&mut self) -> Result<(), Failed> {
        self.lasting = true;
        self.set(0)
    }

    fn set(&self, size_limit: u64) -> Result<(), Failed> {
        let info = info(
            size_limit,
            if self.lasting { 0 } else { LO_FLAGS_AUTOCLEAR },
        );
        // SAFETY: LOOP_SET_STATUS64 reads one `Info`, which lives through the call.
        let result =
            unsafe { libc::ioctl(self.device.as_raw_fd(), LOOP_SET_STATUS64, &raw const info) };
        answer(result)
            .naming("resize loop device", self.path.display())
            .map(drop)
    }
}

fn configure(device: RawFd, file: RawFd) -> io::Result<()> {
    let config = Config {
        descriptor: file.cast_unsigned(),
        block_bytes: 512,
        info: info(0, LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO),
        reserved: [0; 8],
    };
    // SAFETY: LOOP_CONFIGURE reads one `Config`, which lives through the call.
    let result = unsafe { libc::ioctl(device, LOOP_CONFIGURE, &raw const config) };
    answer(result).map(drop)
}

fn info(size_limit: u64, flags: u32) -> Info {
    Info {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, OpenOptionsExt};

    use super::*;

    const PLACE: u64 = 65_536;
    const BYTES: usize = 4096;

    fn image() -> tempfile::NamedTempFile {
        let image = tempfile::NamedTempFile::new().expect("an image");
        image.as_file().set_len(1 << 20).expect("its size");
        image
    }

    fn open(path: &LoopDevice) -> File {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT | libc::O_DSYNC);
        options.open(path.path()).expect("open past the cache")
    }

    #[test]
    fn a_failed_path_heals_and_the_other_never_notices() {
        let image = image();
        let [one, other] = [(); 2].map(|()| LoopDevice::attach(image.path()).expect("attached"));
        let disks = [&one, &other].map(open);
        let mut memory = vec![7; 2 * BYTES];
        let start = memory.as_ptr().align_offset(BYTES);
        let block = &mut memory[start..start + BYTES];
        disks[0]
            .write_all_at(block, PLACE)
            .expect("written by one path");
        block.fill(0);
        disks[1]
            .read_exact_at(block, PLACE)
            .expect("read by the other");
        assert_eq!(block[0], 7);

        one.fail().expect("failed");
        assert!(disks[0].read_exact_at(block, PLACE).is_err());
        assert!(disks[0].write_all_at(block, PLACE).is_err());
        disks[1]
            .read_exact_at(block, PLACE)
            .expect("the other path is whole");

        one.heal().expect("healed");
        disks[0].read_exact_at(block, PLACE).expect("read again");
        disks[0].write_all_at(block, PLACE).expect("written again");
    }

    #[test]
    fn it_goes_away_with_its_owner() {
        let image = image();
        let device = LoopDevice::attach(image.path()).expect("attached");
        let name = device.path().file_name().expect("a name").to_owned();
        let backing = Path::new("/sys/block").join(name).join("loop/backing_file");
        assert!(backing.exists());
        drop(device);
        crate::testing::eventually("the device is free", || (!backing.exists()).then_some(()));
    }
}
