//! The ioctl `SG_IO` and what its answer means (scsi/sg.h, include/scsi/scsi_status.h).
//!
//! ```text
//! status 18h              reservation conflict; whatever the host byte says beside it
//! status 02h              check condition, with sense
//! status 08h, 28h, 40h    busy, task set full, aborted by somebody's preempt or reset
//! host or driver byte     the path: nobody knows whether the command was done
//! ```

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;

use super::sense::{SENSE_BYTES, Sense};
use super::{Cdb, Transfer};

/// `struct sg_io_hdr`.
#[repr(C)]
struct Header {
    interface_id: i32,
    direction: i32,
    command_length: u8,
    sense_length_max: u8,
    io_vectors: u16,
    data_length: u32,
    data: *mut libc::c_void,
    command: *const u8,
    sense: *mut u8,
    timeout_ms: u32,
    flags: u32,
    pack_id: i32,
    user: *mut libc::c_void,
    status: u8,
    masked_status: u8,
    message_status: u8,
    sense_length: u8,
    host_status: u16,
    driver_status: u16,
    residue: i32,
    duration_ms: u32,
    info: u32,
}

const _: () = assert!(
    size_of::<Header>()
        == if cfg!(target_pointer_width = "64") {
            88
        } else {
            64
        }
);

/// The raw calls.
mod calls {
    use super::Header;

    nix::ioctl_readwrite_bad!(execute, 0x2285, Header);
    nix::ioctl_write_ptr_bad!(reset, 0x2284, i32);
}

const INTERFACE: i32 = b'S' as i32;
const DIRECTION_NONE: i32 = -1;
const DIRECTION_TO_DEVICE: i32 = -2;
const DIRECTION_FROM_DEVICE: i32 = -3;

/// `SG_SCSI_RESET_DEVICE` with `SG_SCSI_RESET_NO_ESCALATE`: this unit and nothing beside it.
const RESET_UNIT_ONLY: i32 = 1 | 0x100;

const GOOD: u8 = 0x00;
const CHECK_CONDITION: u8 = 0x02;
const BUSY: u8 = 0x08;
const RESERVATION_CONFLICT: u8 = 0x18;
const TASK_SET_FULL: u8 = 0x28;
const TASK_ABORTED: u8 = 0x40;

const DID_TIME_OUT: u16 = 0x03;
const DID_ABORT: u16 = 0x05;
const DRIVER_TIMEOUT: u16 = 0x06;
const DRIVER_SENSE: u16 = 0x08;

/// Why a command was not done, or is not known to be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The kernel did not take it: `ENOTTY` for what speaks no SCSI, `EPERM`, `ENODEV` and `ENXIO`
    /// for a path that is gone.
    #[error("the kernel did not take it")]
    Kernel(#[source] io::Error),
    /// The unit refused it and says why.
    #[error("{0}")]
    Check(Sense),
    /// RESERVATION CONFLICT, without sense. Of PERSISTENT RESERVE OUT it also means a key that is
    /// not there.
    #[error("reservation conflict")]
    Conflict,
    /// The unit takes no commands at the moment.
    #[error("the unit is busy")]
    Busy,
    /// The unit has too many commands.
    #[error("the unit's queue is full")]
    QueueFull,
    /// Another node's preempt or a reset ended it. A part may have been done.
    #[error("aborted by another node or a reset")]
    Aborted,
    /// No answer in time; the kernel has aborted it. It may have been done, or be done later.
    #[error("no answer within {ms} ms")]
    TimedOut {
        /// How long was waited.
        ms: u32,
    },
    /// The path failed. The command may have been done.
    #[error("the path failed ({})", TransportWords(*host, *driver))]
    Transport {
        /// The host adapter's word, `DID_*`.
        host: u16,
        /// The driver's.
        driver: u16,
    },
    /// A status that means nothing here.
    #[error("unexpected status {0:#04x}")]
    Status(u8),
    /// Data came that cannot be understood.
    #[error("{count} bytes came that cannot be understood")]
    Malformed {
        /// How many.
        count: usize,
    },
}

/// Names of the host adapter's words, as the kernel prints them.
struct TransportWords(u16, u16);

impl fmt::Display for TransportWords {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0x00 => "DID_OK",
            0x01 => "DID_NO_CONNECT",
            0x02 => "DID_BUS_BUSY",
            0x03 => "DID_TIME_OUT",
            0x04 => "DID_BAD_TARGET",
            0x05 => "DID_ABORT",
            0x06 => "DID_PARITY",
            0x07 => "DID_ERROR",
            0x08 => "DID_RESET",
            0x0d => "DID_REQUEUE",
            0x0e => "DID_TRANSPORT_DISRUPTED",
            0x0f => "DID_TRANSPORT_FAILFAST",
            0x14 => "DID_TRANSPORT_MARGINAL",
            other => return write!(formatter, "host {other:#04x}, driver {:#04x}", self.1),
        };
        formatter.write_str(name)
    }
}

/// What the kernel said of one command.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u8,
    pub(super) host: u16,
    pub(super) driver: u16,
    pub(super) duration_ms: u32,
}

/// Tells what happened; none if it was done.
pub(super) fn judge(answer: Answer, sense: &[u8], timeout_ms: u32) -> Option<Fault> {
    // The status first: for a conflict old kernels set the host byte too (DID_NEXUS_FAILURE).
    match answer.status & 0x7e {
        RESERVATION_CONFLICT => return Some(Fault::Conflict),
        BUSY => return Some(Fault::Busy),
        TASK_SET_FULL => return Some(Fault::QueueFull),
        TASK_ABORTED => return Some(Fault::Aborted),
        GOOD | CHECK_CONDITION => {}
        other => return Some(Fault::Status(other)),
    }
    let check = answer.status & 0x7e == CHECK_CONDITION || answer.driver & 0x0f == DRIVER_SENSE;
    if check && let Some(sense) = Sense::decode(sense) {
        return match sense.is_success() {
            true => None,
            false => Some(Fault::Check(sense)),
        };
    }
    let late = answer.host == DID_TIME_OUT
        || answer.driver & 0x0f == DRIVER_TIMEOUT
        || answer.host == DID_ABORT && answer.duration_ms >= timeout_ms;
    if late {
        return Some(Fault::TimedOut {
            ms: answer.duration_ms,
        });
    }
    if answer.host != 0 || answer.driver & 0x0f != 0 && !check {
        return Some(Fault::Transport {
            host: answer.host,
            driver: answer.driver,
        });
    }
    // A check condition whose sense cannot be read: refused, reason unknown.
    check.then_some(Fault::Status(answer.status))
}

/// Direction, address and length of the data.
fn shape(transfer: Transfer<'_>) -> (i32, *mut u8, usize) {
    match transfer {
        Transfer::None => (DIRECTION_NONE, std::ptr::null_mut(), 0),
        Transfer::In(buffer) => {
            let length = buffer.len();
            (DIRECTION_FROM_DEVICE, buffer.as_mut_ptr(), length)
        }
        Transfer::Out(buffer) => {
            let length = buffer.len();
            (DIRECTION_TO_DEVICE, buffer.as_ptr().cast_mut(), length)
        }
    }
}

/// Sends one command once and waits for its answer. Returns the bytes that were transferred.
pub(super) fn execute(
    descriptor: BorrowedFd<'_>,
    cdb: &Cdb,
    transfer: Transfer<'_>,
    timeout: Duration,
) -> Result<usize, Fault> {
    let mut sense = [0_u8; SENSE_BYTES];
    let (direction, data, length) = shape(transfer);
    let too_long = |_| Fault::Kernel(Errno::EINVAL.into());
    let timeout_ms = u32::try_from(timeout.as_millis())
        .unwrap_or(u32::MAX)
        .max(1);
    let mut header = Header {
        interface_id: INTERFACE,
        direction,
        command_length: cdb.bytes().len() as u8,
        sense_length_max: SENSE_BYTES as u8,
        io_vectors: 0,
        data_length: u32::try_from(length).map_err(too_long)?,
        data: data.cast(),
        command: cdb.bytes().as_ptr(),
        sense: sense.as_mut_ptr(),
        timeout_ms,
        flags: 0,
        pack_id: 0,
        user: std::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        message_status: 0,
        sense_length: 0,
        host_status: 0,
        driver_status: 0,
        residue: 0,
        duration_ms: 0,
        info: 0,
    };
    // SAFETY: command, sense and data point to live memory of the lengths given, the data is only
    // read when it is to go to the device, and the call returns after the last access.
    let result = unsafe { calls::execute(descriptor.as_raw_fd(), &raw mut header) };
    result.map_err(|errno| Fault::Kernel(errno.into()))?;
    let answer = Answer {
        status: header.status,
        host: header.host_status,
        driver: header.driver_status,
        duration_ms: header.duration_ms,
    };
    let sense = &sense[..usize::from(header.sense_length).min(SENSE_BYTES)];
    match judge(answer, sense, timeout_ms) {
        Some(fault) => Err(fault),
        // A residue is what did not come; a driver's nonsense leaves nothing.
        None => Ok(length.saturating_sub(usize::try_from(header.residue).unwrap_or(0))),
    }
}

/// LOGICAL UNIT RESET.
pub(super) fn reset_unit(descriptor: BorrowedFd<'_>) -> Result<(), Errno> {
    let how = RESET_UNIT_ONLY;
    // SAFETY: the call reads a live int.
    let result = unsafe { calls::reset(descriptor.as_raw_fd(), &raw const how) };
    result.map(drop)
}
