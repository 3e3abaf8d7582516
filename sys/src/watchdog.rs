//! The hardware watchdog: a timer that resets the machine unless it is petted in time.
//!
//! Owned by the guard's thread. Opening arms it at once. Dropping the owner without
//! [`disarm`](Watchdog::disarm) leaves it armed, as it should be when a guard dies: the machine is
//! reset.
//!
//! Calls of linux/watchdog.h (Documentation/watchdog/watchdog-api.rst): `WDIOC_GETSUPPORT`,
//! `WDIOC_SETTIMEOUT`, `WDIOC_GETTIMEOUT`, `WDIOC_GETTIMELEFT`, `WDIOC_GETBOOTSTATUS`,
//! `WDIOC_SETOPTIONS`; a pet is a write of one byte, a clean end the byte `V` before closing.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::error::{Failed, Naming};

/// `struct watchdog_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Info {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

/// The raw calls; `WATCHDOG_IOCTL_BASE` is 'W'.
mod calls {
    use super::Info;

    nix::ioctl_read!(get_support, b'W', 0, Info);
    nix::ioctl_read!(get_boot_status, b'W', 2, i32);
    nix::ioctl_read!(set_options, b'W', 4, i32);
    nix::ioctl_readwrite!(set_timeout, b'W', 6, i32);
    nix::ioctl_read!(get_timeout, b'W', 7, i32);
    nix::ioctl_read!(get_time_left, b'W', 10, i32);
}

const WDIOF_CARDRESET: u32 = 0x0020;
const WDIOF_SETTIMEOUT: u32 = 0x0080;
const WDIOF_MAGICCLOSE: u32 = 0x0100;
const WDIOS_DISABLECARD: i32 = 0x0001;

/// The byte that announces a clean end.
const MAGIC_CLOSE: &[u8] = b"V";

/// How the driver `softdog` calls itself (drivers/watchdog/softdog.c).
const SOFTDOG: &str = "Software Watchdog";

/// What a watchdog is and can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Support {
    /// The driver's name for it.
    pub identity: String,
    /// Its timeout can be chosen (`WDIOF_SETTIMEOUT`).
    pub sets_timeout: bool,
    /// It can be disarmed (`WDIOF_MAGICCLOSE`); a kernel with `nowayout` does not do it all the
    /// same.
    pub can_disarm: bool,
    /// It is only a stand-in and resets nothing.
    pub stand_in: bool,
    /// It is a timer of the kernel itself (`softdog`): a kernel that hangs with interrupts off does
    /// not fire it.
    pub software: bool,
}

/// An armed watchdog.
#[derive(Debug)]
pub struct Watchdog {
    file: File,
    path: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Device,
    /// A regular file: the last byte is at offset 0.
    PlainFile,
    /// A named pipe: one byte per pet for whoever reads it.
    Pipe,
}

impl Watchdog {
    /// Opens `/dev/watchdogN` and thereby **arms** it with the timeout the driver has set.
    ///
    /// # Errors
    ///
    /// `EBUSY` if somebody else has it (systemd's `RuntimeWatchdogSec`, sbd), `ENOENT`, and
    /// `ENOTTY` for what is not a character device.
    pub fn open(path: &Path) -> Result<Watchdog, Failed> {
        // Looked at first: to open a wrong path could do something else.
        let metadata = path.metadata().naming("find watchdog", path.display())?;
        if !metadata.file_type().is_char_device() {
            return Err(Failed::new(
                "use as a watchdog",
                path.display(),
                Errno::ENOTTY,
            ));
        }
        let opened = OpenOptions::new().write(true).open(path);
        let file = opened.naming("open watchdog", path.display())?;
        Ok(Watchdog {
            file,
            path: path.to_owned(),
            kind: Kind::Device,
        })
    }

    /// Opens a regular file (made if it is missing) or a named pipe that only records the pets, for
    /// a host without a watchdog. It protects nothing.
    ///
    /// # Errors
    ///
    /// What open(2) says, and `EINVAL` for anything else than a file or a pipe.
    pub fn open_stand_in(path: &Path) -> Result<Watchdog, Failed> {
        let opened = || -> io::Result<(File, Kind)> {
            let mut options = OpenOptions::new();
            // Reading too, because a pipe without a reader cannot be opened for writing alone.
            options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600);
            let file = options.custom_flags(libc::O_NONBLOCK).open(path)?;
            let found = file.metadata()?.file_type();
            let kind = match (found.is_file(), found.is_fifo()) {
                (true, _) => Kind::PlainFile,
                (_, true) => Kind::Pipe,
                _ => return Err(Errno::EINVAL.into()),
            };
            Ok((file, kind))
        };
        let (file, kind) = opened().naming("open watchdog stand-in", path.display())?;
        Ok(Watchdog {
            file,
            path: path.to_owned(),
            kind,
        })
    }

    /// What it is and can.
    ///
    /// # Errors
    ///
    /// `ENOTTY` if the device is no watchdog.
    pub fn support(&self) -> Result<Support, Failed> {
        if self.kind != Kind::Device {
            let identity = "stand-in".to_owned();
            return Ok(Support {
                identity,
                sets_timeout: true,
                can_disarm: true,
                stand_in: true,
                software: false,
            });
        }
        let mut info = Info::default();
        // SAFETY: the call fills a live Info, whose layout is the kernel's.
        let result = unsafe { calls::get_support(self.descriptor(), &raw mut info) };
        result.naming("identify watchdog", self.path.display())?;
        let length = info
            .identity
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(32);
        let identity = String::from_utf8_lossy(&info.identity[..length]).into_owned();
        Ok(Support {
            sets_timeout: info.options & WDIOF_SETTIMEOUT != 0,
            can_disarm: info.options & WDIOF_MAGICCLOSE != 0,
            stand_in: false,
            software: identity == SOFTDOG,
            identity,
        })
    }

    /// Asks for a timeout and returns the one in force: hardware rounds, and only what the driver
    /// answers and what is read back counts, the longer of the two. Also pets. A stand-in agrees to
    /// everything.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a timeout the hardware cannot do, `EOPNOTSUPP` if it has only one.
    pub fn set_timeout(&self, seconds: u16) -> Result<u32, Failed> {
        let mut value = i32::from(seconds);
        if self.kind != Kind::Device {
            return Ok(u32::from(seconds));
        }
        // SAFETY: the call reads and writes a live int.
        let result = unsafe { calls::set_timeout(self.descriptor(), &raw mut value) };
        result.naming("set the timeout of watchdog", self.path.display())?;
        Ok(self.seconds(value)?.max(self.timeout()?))
    }

    /// Seconds without a pet after which it fires.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if the driver cannot tell; a stand-in never fires and cannot either.
    pub fn timeout(&self) -> Result<u32, Failed> {
        const READ: &str = "read the timeout of watchdog";
        if self.kind != Kind::Device {
            return Err(Failed::new(READ, self.path.display(), Errno::EOPNOTSUPP));
        }
        let mut value = 0;
        // SAFETY: the call writes a live int.
        let result = unsafe { calls::get_timeout(self.descriptor(), &raw mut value) };
        result.naming(READ, self.path.display())?;
        self.seconds(value)
    }

    fn seconds(&self, value: i32) -> Result<u32, Failed> {
        u32::try_from(value).map_err(|_| {
            let operation = "trust the timeout of watchdog";
            Failed::new(operation, self.path.display(), Errno::ERANGE)
        })
    }

    /// Starts the timeout anew. Never blocks on a stand-in; drivers need microseconds, those behind
    /// a management processor (IPMI) milliseconds.
    ///
    /// # Errors
    ///
    /// What the driver says, as it is: this is called from a loop that must not allocate.
    pub fn pet(&self) -> io::Result<()> {
        self.write(b"\0")
    }

    /// Seconds until the reset; `None` if the driver cannot tell or it is a stand-in.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn time_left(&self) -> Result<Option<u32>, Failed> {
        if self.kind != Kind::Device {
            return Ok(None);
        }
        let mut value = 0;
        // SAFETY: the call writes a live int.
        match unsafe { calls::get_time_left(self.descriptor(), &raw mut value) } {
            Ok(_) => Ok(u32::try_from(value).ok()),
            Err(Errno::EOPNOTSUPP | Errno::ENOTTY) => Ok(None),
            Err(errno) => Err(Failed::new(
                "read the time left of",
                self.path.display(),
                errno,
            )),
        }
    }

    /// Whether this boot was caused by the watchdog (`WDIOF_CARDRESET`); false for a stand-in.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn boot_status(&self) -> Result<bool, Failed> {
        if self.kind != Kind::Device {
            return Ok(false);
        }
        let mut flags = 0;
        // SAFETY: the call writes a live int.
        let result = unsafe { calls::get_boot_status(self.descriptor(), &raw mut flags) };
        result.naming("read the boot status of", self.path.display())?;
        Ok(flags.cast_unsigned() & WDIOF_CARDRESET != 0)
    }

    /// Ends it cleanly: asks the driver to stop, writes `V`, closes. Where neither is supported, or
    /// with `nowayout`, the timer goes on and the machine will be reset.
    ///
    /// # Errors
    ///
    /// The `V` could not be written: the timer goes on.
    pub fn disarm(self) -> Result<(), Failed> {
        if self.kind == Kind::Device {
            let mut options = WDIOS_DISABLECARD;
            // SAFETY: the call reads a live int.
            let stopped = unsafe { calls::set_options(self.descriptor(), &raw mut options) };
            // Many drivers refuse it; the magic byte below is the way that counts.
            let _ = stopped;
        }
        self.write(MAGIC_CLOSE)
            .naming("disarm watchdog", self.path.display())
    }

    fn write(&self, byte: &[u8]) -> io::Result<()> {
        match self.kind {
            Kind::Device => (&self.file).write_all(byte),
            Kind::PlainFile => self.file.write_all_at(byte, 0),
            // A full pipe has enough pets in it already.
            Kind::Pipe => match (&self.file).write(byte) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
                _ => Ok(()),
            },
        }
    }

    fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;

    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn the_calls_are_those_of_the_kernels_header() {
        use nix::{request_code_read, request_code_readwrite};
        assert_eq!(size_of::<Info>(), 40);
        assert_eq!(request_code_read!(b'W', 0, size_of::<Info>()), 0x8028_5700);
        assert_eq!(request_code_read!(b'W', 2, size_of::<i32>()), 0x8004_5702);
        assert_eq!(request_code_read!(b'W', 4, size_of::<i32>()), 0x8004_5704);
        assert_eq!(
            request_code_readwrite!(b'W', 6, size_of::<i32>()),
            0xC004_5706
        );
        assert_eq!(request_code_read!(b'W', 7, size_of::<i32>()), 0x8004_5707);
        assert_eq!(request_code_read!(b'W', 10, size_of::<i32>()), 0x8004_570A);
    }

    #[test]
    fn a_file_records_the_pets_and_the_clean_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("watchdog");
        let watchdog = Watchdog::open_stand_in(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
        let support = watchdog.support().unwrap();
        assert!(support.stand_in && support.can_disarm && support.sets_timeout);
        assert!(!support.software);
        let unknown = watchdog.timeout().unwrap_err();
        assert_eq!(unknown.errno(), Some(libc::EOPNOTSUPP));
        assert_eq!(watchdog.set_timeout(10).unwrap(), 10);
        assert!(!watchdog.boot_status().unwrap());
        assert_eq!(watchdog.time_left().unwrap(), None);
        for _ in 0..3 {
            watchdog.pet().unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"\0");
        }
        watchdog.disarm().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"V");
    }

    #[test]
    fn a_pipe_tells_its_reader_each_pet_and_never_blocks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("watchdog");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let watchdog = Watchdog::open_stand_in(&path).unwrap();
        watchdog.pet().unwrap();
        watchdog.pet().unwrap();
        let mut options = OpenOptions::new();
        let mut reader = options
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .unwrap();
        let mut pets = [9; 8];
        assert_eq!(reader.read(&mut pets).unwrap(), 2);
        assert_eq!(pets[..3], [0, 0, 9]);
        // More than a pipe holds.
        for _ in 0..100_000 {
            watchdog.pet().unwrap();
        }
    }

    #[test]
    fn dropping_does_not_disarm() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("watchdog");
        let watchdog = Watchdog::open_stand_in(&path).unwrap();
        watchdog.pet().unwrap();
        drop(watchdog);
        assert_eq!(fs::read(&path).unwrap(), b"\0");
    }

    #[test]
    fn what_is_no_watchdog_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, b"").unwrap();
        assert_eq!(
            Watchdog::open(&file).unwrap_err().errno(),
            Some(libc::ENOTTY)
        );
        let absent = Watchdog::open(&directory.path().join("absent")).unwrap_err();
        assert_eq!(absent.errno(), Some(libc::ENOENT));
        let null = Watchdog::open(Path::new("/dev/null")).unwrap();
        assert_eq!(null.support().unwrap_err().errno(), Some(libc::ENOTTY));
        let stand_in = Watchdog::open_stand_in(Path::new("/dev/null")).unwrap_err();
        assert_eq!(stand_in.errno(), Some(libc::EINVAL));
    }
}
