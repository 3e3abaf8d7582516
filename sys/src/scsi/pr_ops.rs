//! The kernel's own calls for persistent reservations, for what is no SCSI disk (linux/pr.h).
//!
//! Only for NVMe: of a map of several paths the kernel reaches one or all as it sees fit, and
//! makes of PREEMPT AND ABORT a plain PREEMPT. Registrations always outlive a loss of power.

use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;

use super::{Fault, ScsiPath};

#[repr(C)]
struct Registration {
    old_key: u64,
    new_key: u64,
    flags: u32,
    padding: u32,
}

#[repr(C)]
struct Reservation {
    key: u64,
    kind: u32,
    flags: u32,
}

/// `old_key` is the caller's own, `new_key` the victim's, whatever their names suggest
/// (`sd_pr_preempt`, `nvme_pr_preempt`).
#[repr(C)]
struct Preemption {
    old_key: u64,
    new_key: u64,
    kind: u32,
    flags: u32,
}

#[repr(C)]
struct Clearing {
    key: u64,
    flags: u32,
    padding: u32,
}

#[repr(C)]
struct ReadKeys {
    generation: u32,
    count: u32,
    keys: u64,
}

#[repr(C)]
#[derive(Default)]
struct ReadReservation {
    key: u64,
    generation: u32,
    kind: u32,
}

/// The raw calls. The last two are of Linux 6.19 and later.
mod calls {
    use super::{Clearing, Preemption, ReadKeys, ReadReservation, Registration, Reservation};

    nix::ioctl_write_ptr!(register, b'p', 200, Registration);
    nix::ioctl_write_ptr!(reserve, b'p', 201, Reservation);
    nix::ioctl_write_ptr!(release, b'p', 202, Reservation);
    nix::ioctl_write_ptr!(preempt, b'p', 203, Preemption);
    nix::ioctl_write_ptr!(preempt_abort, b'p', 204, Preemption);
    nix::ioctl_write_ptr!(clear, b'p', 205, Clearing);
    nix::ioctl_readwrite!(read_keys, b'p', 206, ReadKeys);
    nix::ioctl_read!(read_reservation, b'p', 207, ReadReservation);
}

/// `PR_FL_IGNORE_KEY`.
const IGNORE_KEY: u32 = 1;

/// `PR_WRITE_EXCLUSIVE_REG_ONLY`, which is type 5 in SCSI: the kernel has numbers of its own.
const WRITE_EXCLUSIVE_REGISTRANTS_ONLY: u32 = 3;

/// Most keys that are asked for: the kernel's `PR_KEYS_MAX` is 65536, a name space has fewer.
const KEYS_MAX: u32 = 1024;

/// `enum pr_status`: what a call answers that is neither 0 nor an errno.
const STATUS_IO_ERROR: i32 = 0x2;
const STATUS_CONFLICT: i32 = 0x18;

/// Who holds a reservation, in the kernel's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The holder's key, 0 where all registrants hold it.
    pub key: u64,
    /// Is it write exclusive, registrants only?
    pub is_registrants_only: bool,
}

fn judge(result: nix::Result<i32>, timeout: Duration) -> Result<(), Fault> {
    match result {
        Ok(0) => Ok(()),
        Ok(STATUS_CONFLICT) | Err(Errno::EBADE) => Err(Fault::Conflict),
        Ok(STATUS_IO_ERROR) => Err(Fault::Kernel(Errno::EIO.into())),
        // PR_STS_PATH_FAILED, PR_STS_PATH_FAST_FAILED, PR_STS_RETRY_PATH_FAILURE.
        Ok(status) if status >= 0x1_0000 => Err(Fault::Transport {
            host: (status >> 16) as u16,
            driver: 0,
        }),
        Ok(status) => Err(Fault::Status(status as u8)),
        Err(Errno::ETIMEDOUT | Errno::ETIME) => Err(Fault::TimedOut {
            ms: timeout.as_millis() as u32,
        }),
        Err(errno) => Err(Fault::Kernel(errno.into())),
    }
}

/// Reservations by the kernel's calls. The kernel has its own timeout for each (NVMe: 60 s, module
/// parameter `admin_timeout`); the one given is only told in the error.
pub struct ReservationCalls<'a> {
    /// The block device.
    pub device: &'a ScsiPath,
    /// How long the caller is ready to wait.
    pub timeout: Duration,
}

impl ReservationCalls<'_> {
    fn descriptor(&self) -> i32 {
        self.device.as_raw_fd()
    }

    /// Gives this host a key, whichever it had; 0 takes it.
    ///
    /// # Errors
    ///
    /// [`Fault::Kernel`] with `EOPNOTSUPP` where there are no reservations.
    pub fn register(&self, key: u64) -> Result<(), Fault> {
        let argument = Registration {
            old_key: 0,
            new_key: key,
            flags: IGNORE_KEY,
            padding: 0,
        };
        // SAFETY: the call reads a live structure of the kernel's layout.
        let result = unsafe { calls::register(self.descriptor(), &raw const argument) };
        judge(result, self.timeout)
    }

    /// Reserves: only registered hosts write from then on.
    ///
    /// # Errors
    ///
    /// [`Fault::Conflict`] if another holds it or the key is not this host's.
    pub fn reserve(&self, key: u64) -> Result<(), Fault> {
        let argument = reservation(key);
        // SAFETY: the call reads a live structure of the kernel's layout.
        let result = unsafe { calls::reserve(self.descriptor(), &raw const argument) };
        judge(result, self.timeout)
    }

    /// Ends this host's reservation.
    ///
    /// # Errors
    ///
    /// [`Fault::Conflict`] if the key is not this host's.
    pub fn release(&self, key: u64) -> Result<(), Fault> {
        let argument = reservation(key);
        // SAFETY: the call reads a live structure of the kernel's layout.
        let result = unsafe { calls::release(self.descriptor(), &raw const argument) };
        judge(result, self.timeout)
    }

    /// Removes the victim's registration and takes its reservation over; with `abort` after its
    /// commands were ended.
    ///
    /// # Errors
    ///
    /// [`Fault::Conflict`] if either key is not registered.
    pub fn preempt(&self, own: u64, victim: u64, abort: bool) -> Result<(), Fault> {
        let argument = Preemption {
            old_key: own,
            new_key: victim,
            kind: WRITE_EXCLUSIVE_REGISTRANTS_ONLY,
            flags: 0,
        };
        let result = if abort {
            // SAFETY: the call reads a live structure of the kernel's layout.
            unsafe { calls::preempt_abort(self.descriptor(), &raw const argument) }
        } else {
            // SAFETY: the call reads a live structure of the kernel's layout.
            unsafe { calls::preempt(self.descriptor(), &raw const argument) }
        };
        judge(result, self.timeout)
    }

    /// Removes every registration and the reservation.
    ///
    /// # Errors
    ///
    /// [`Fault::Conflict`] if the key is not this host's.
    pub fn clear(&self, key: u64) -> Result<(), Fault> {
        let argument = Clearing {
            key,
            flags: 0,
            padding: 0,
        };
        // SAFETY: the call reads a live structure of the kernel's layout.
        let result = unsafe { calls::clear(self.descriptor(), &raw const argument) };
        judge(result, self.timeout)
    }

    /// The generation and every registered key.
    ///
    /// # Errors
    ///
    /// [`Fault::Kernel`] with `ENOTTY` on a kernel that cannot tell.
    pub fn read_keys(&self) -> Result<(u32, Vec<u64>), Fault> {
        let mut keys = vec![0_u64; KEYS_MAX as usize];
        let mut argument = ReadKeys {
            generation: 0,
            count: KEYS_MAX,
            keys: keys.as_mut_ptr() as u64,
        };
        // SAFETY: the call fills a live structure of the kernel's layout, and at most `count` of
        // the live keys that it points to.
        let result = unsafe { calls::read_keys(self.descriptor(), &raw mut argument) };
        judge(result, self.timeout)?;
        keys.truncate(argument.count as usize);
        Ok((argument.generation, keys))
    }

    /// The reservation, if there is one.
    ///
    /// # Errors
    ///
    /// [`Fault::Kernel`] with `ENOTTY` on a kernel that cannot tell.
    pub fn read_reservation(&self) -> Result<Option<Held>, Fault> {
        let mut argument = ReadReservation::default();
        // SAFETY: the call fills a live structure of the kernel's layout.
        let result = unsafe { calls::read_reservation(self.descriptor(), &raw mut argument) };
        judge(result, self.timeout)?;
        // Type 0 is no reservation.
        Ok((argument.kind != 0).then_some(Held {
            key: argument.key,
            is_registrants_only: argument.kind == WRITE_EXCLUSIVE_REGISTRANTS_ONLY,
        }))
    }
}

fn reservation(key: u64) -> Reservation {
    Reservation {
        key,
        kind: WRITE_EXCLUSIVE_REGISTRANTS_ONLY,
        flags: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use nix::{request_code_read, request_code_readwrite, request_code_write};

    use super::*;

    #[test]
    fn the_calls_are_those_of_the_kernels_header() {
        let write = |number: u8, size: usize| request_code_write!(b'p', number, size);
        assert_eq!(write(200, size_of::<Registration>()), 0x4018_70c8);
        assert_eq!(write(201, size_of::<Reservation>()), 0x4010_70c9);
        assert_eq!(write(202, size_of::<Reservation>()), 0x4010_70ca);
        assert_eq!(write(203, size_of::<Preemption>()), 0x4018_70cb);
        assert_eq!(write(204, size_of::<Preemption>()), 0x4018_70cc);
        assert_eq!(write(205, size_of::<Clearing>()), 0x4010_70cd);
        let keys = request_code_readwrite!(b'p', 206, size_of::<ReadKeys>());
        assert_eq!(keys, 0xc010_70ce);
        let held = request_code_read!(b'p', 207, size_of::<ReadReservation>());
        assert_eq!(held, 0x8010_70cf);
    }

    #[test]
    fn answers_are_told_apart() {
        let answer = |result| judge(result, Duration::from_secs(1));
        assert!(answer(Ok(0)).is_ok());
        assert!(matches!(answer(Ok(0x18)), Err(Fault::Conflict)));
        assert!(matches!(answer(Err(Errno::EBADE)), Err(Fault::Conflict)));
        let failed = answer(Ok(0x1_0000));
        assert!(matches!(failed, Err(Fault::Transport { .. })), "{failed:?}");
        let failed = answer(Ok(0xf_0000));
        assert!(matches!(failed, Err(Fault::Transport { .. })), "{failed:?}");
        assert!(matches!(answer(Err(Errno::ENOTTY)), Err(Fault::Kernel(_))));
    }

    #[test]
    fn what_has_no_reservations_says_so() {
        let device = ScsiPath::open(Path::new("/dev/null")).unwrap();
        let calls = ReservationCalls {
            device: &device,
            timeout: Duration::from_secs(1),
        };
        let told = |result: Result<(), Fault>| match result.unwrap_err() {
            Fault::Kernel(error) => error.raw_os_error(),
            other => panic!("{other:?}"),
        };
        assert_eq!(told(calls.register(1)), Some(libc::ENOTTY));
        assert_eq!(told(calls.read_keys().map(drop)), Some(libc::ENOTTY));
    }
}
