//! SCSI commands to one path of a disk, past the kernel's disk driver: reservations,
//! compare-and-write, identity (SG_IO, Documentation/scsi/scsi-generic.rst).
//!
//! ```text
//! cdb, reservation, inquiry, capacity, sense    bytes to send, bytes that came: pure
//! sgio                                          the ioctl, and what its answer means
//! pr_ops                                        the kernel's own calls, for NVMe
//! ```
//! A path is one block or `sg` node; where a disk has several, each has its own owner here, for a
//! registration belongs to a path. For threads that own nothing else: after its timeout a command
//! is aborted by the kernel, which may take minutes on a dead path.

mod capacity;
mod cdb;
mod inquiry;
pub mod pr_ops;
mod reservation;
mod sense;
mod sgio;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use capacity::Capacity;
pub use cdb::{Cdb, Extent};
pub use inquiry::{
    BlockLimits, Identity, Standard, UnknownIdentity, decode_block_limits, decode_identities,
    decode_pages, decode_serial, decode_standard, preferred_identity,
};
pub use reservation::{
    Action, Capabilities, Holder, Keys, OutParameters, Registrant, RegistrantList, ReservationType,
    ServiceIn, decode_capabilities, decode_full_status, decode_keys, decode_reservation,
};
pub use sense::{Sense, SenseKey};
pub use sgio::Fault;

use crate::disk::Sectors;
use crate::error::{Failed, Naming};

/// How often a command is sent again that a unit attention kept from being done. Several may wait
/// for one path: after a reset, a change of reservations and one of capacity.
pub const ATTENTIONS_MAX: usize = 8;

/// First size of a buffer for lists of keys, in bytes: a thousand keys.
const LIST_BYTES: usize = 8 * 1024;

/// Largest size: whole keys below the 16 bits of an allocation length.
const LIST_BYTES_MAX: usize = 65_528;

/// Longest single descriptor of a full status: 24 bytes and a TransportID with an iSCSI name.
const REGISTRANT_BYTES_MAX: usize = 24 + 256;

/// A command that was not done, or of which nobody knows whether it was.
#[derive(Debug, thiserror::Error)]
#[error("{command} by {}", device.display())]
pub struct CommandError {
    command: &'static str,
    device: PathBuf,
    #[source]
    fault: Fault,
}

impl CommandError {
    /// What went wrong.
    #[must_use]
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// The command's name in the standard.
    #[must_use]
    pub fn command(&self) -> &'static str {
        self.command
    }

    /// The same without the command and the path.
    #[must_use]
    pub fn into_fault(self) -> Fault {
        self.fault
    }
}

/// What COMPARE AND WRITE found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// The expected block was there; the new one is.
    Written,
    /// Another block was there and is.
    Differs {
        /// Offset of the first byte that differs, if the target tells.
        at: Option<u64>,
    },
}

/// Where data goes.
enum Transfer<'a> {
    None,
    In(&'a mut [u8]),
    Out(&'a [u8]),
}

impl Transfer<'_> {
    /// For one more try.
    fn again(&mut self) -> Transfer<'_> {
        match self {
            Transfer::None => Transfer::None,
            Transfer::In(buffer) => Transfer::In(buffer),
            Transfer::Out(buffer) => Transfer::Out(buffer),
        }
    }
}

/// One opened path to a logical unit.
#[derive(Debug)]
pub struct ScsiPath {
    file: File,
    path: PathBuf,
    /// FUA was refused: a unit without a cache that could lose anything need not know it.
    without_fua: AtomicBool,
}

impl ScsiPath {
    /// Opens a block or `sg` node. Opened for reading only: with `CAP_SYS_RAWIO` that suffices for
    /// every command, and closing it makes no udev event, which closing a writer does.
    ///
    /// # Errors
    ///
    /// What open(2) says. Whether SCSI is spoken there tells the first command (`ENOTTY`).
    pub fn open(path: &Path) -> Result<ScsiPath, Failed> {
        let mut options = OpenOptions::new();
        // A disk without medium is opened too; nothing here reads or writes by the descriptor.
        options.read(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open(path).naming("open", path.display())?;
        Ok(ScsiPath {
            file,
            path: path.to_owned(),
            without_fua: AtomicBool::new(false),
        })
    }

    /// The path that it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sends a command; again, if a unit attention kept it from being done. Returns the bytes that
    /// were transferred.
    fn send(
        &self,
        cdb: &Cdb,
        mut transfer: Transfer<'_>,
        timeout: Duration,
    ) -> Result<usize, CommandError> {
        let once = || sgio::execute(self.file.as_fd(), cdb, transfer.again(), timeout);
        attended(once).map_err(|fault| self.error(cdb.name(), fault))
    }

    /// Sends a command with FUA; where that is refused, without it. True if it had to do without.
    fn send_through(
        &self,
        cdb: &Cdb,
        mut transfer: Transfer<'_>,
        timeout: Duration,
    ) -> Result<(usize, bool), CommandError> {
        if !self.without_fua.load(Ordering::Relaxed) {
            match self.send(cdb, transfer.again(), timeout) {
                Err(CommandError {
                    fault: Fault::Check(sense),
                    ..
                }) if sense.is_invalid_field() => {}
                answer => return answer.map(|count| (count, false)),
            }
        }
        let count = self.send(&cdb.without_fua(), transfer, timeout)?;
        // Only now is it known that nothing else was wrong.
        self.without_fua.store(true, Ordering::Relaxed);
        Ok((count, true))
    }

    /// What was written is on the medium: by FUA, else by emptying the cache.
    fn write_through(
        &self,
        cdb: &Cdb,
        data: &[u8],
        extent: Extent,
        timeout: Duration,
    ) -> Result<(), CommandError> {
        match self.send_through(cdb, Transfer::Out(data), timeout)? {
            (_, false) => Ok(()),
            (_, true) => self.synchronize(extent, timeout),
        }
    }

    fn error(&self, command: &'static str, fault: Fault) -> CommandError {
        let device = self.path.clone();
        CommandError {
            command,
            device,
            fault,
        }
    }

    /// Sends a command for data of at most `bytes` and decodes it.
    fn ask<T>(
        &self,
        cdb: &Cdb,
        bytes: usize,
        timeout: Duration,
        decode: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<T, CommandError> {
        let mut buffer = Sectors::new(bytes);
        let count = self.send(cdb, Transfer::In(&mut buffer[..bytes]), timeout)?;
        decode(&buffer[..count]).ok_or_else(|| self.error(cdb.name(), Fault::Malformed { count }))
    }

    /// TEST UNIT READY: can the unit be used by this path?
    ///
    /// # Errors
    ///
    /// As every command.
    pub fn test_unit_ready(&self, timeout: Duration) -> Result<(), CommandError> {
        let done = self.send(&Cdb::test_unit_ready(), Transfer::None, timeout);
        done.map(drop)
    }

    /// INQUIRY: what kind of device it is and whose.
    ///
    /// # Errors
    ///
    /// As every command.
    pub fn inquiry(&self, timeout: Duration) -> Result<Standard, CommandError> {
        let cdb = Cdb::inquiry(None, 96);
        self.ask(&cdb, 96, timeout, decode_standard)
    }

    /// INQUIRY for page 00h: the numbers of the pages there are.
    ///
    /// # Errors
    ///
    /// As every command.
    pub fn pages(&self, timeout: Duration) -> Result<Vec<u8>, CommandError> {
        let cdb = Cdb::inquiry(Some(0x00), 252);
        self.ask(&cdb, 252, timeout, decode_pages)
    }

    /// INQUIRY for page 80h: the unit's serial number.
    ///
    /// # Errors
    ///
    /// As every command.
    pub fn serial(&self, timeout: Duration) -> Result<String, CommandError> {
        let cdb = Cdb::inquiry(Some(0x80), 252);
        self.ask(&cdb, 252, timeout, decode_serial)
    }

    /// INQUIRY for page 83h: the names of the unit, which are the same by every path.
    ///
    /// # Errors
    ///
    /// As every command.
    pub fn identities(&self, timeout: Duration) -> Result<Vec<Identity>, CommandError> {
        let cdb = Cdb::inquiry(Some(0x83), 4096);
        self.ask(&cdb, 4096, timeout, decode_identities)
    }

    /// INQUIRY for page B0h: how much one command may do.
    ///
    /// # Errors
    ///
    /// As every command.
    pub fn block_limits(&self, timeout: Duration) -> Result<BlockLimits, CommandError> {
        let cdb = Cdb::inquiry(Some(0xb0), 64);
        self.ask(&cdb, 64, timeout, decode_block_limits)
    }

    /// READ CAPACITY(16): number and size of the blocks.
    ///
    /// # Errors
    ///
    /// As every command.
    pub fn capacity(&self, timeout: Duration) -> Result<Capacity, CommandError> {
        let cdb = Cdb::read_capacity(32);
        self.ask(&cdb, 32, timeout, Capacity::decode)
    }

    /// PERSISTENT RESERVE IN, READ KEYS: every registered key, once for each path that has it.
    ///
    /// # Errors
    ///
    /// As every command.
    pub fn read_keys(&self, timeout: Duration) -> Result<Keys, CommandError> {
        self.ask_list(ServiceIn::ReadKeys, 8, timeout, decode_keys)
    }

    /// PERSISTENT RESERVE IN, READ RESERVATION: who holds it and how.
    ///
    /// # Errors
    ///
    /// As every command.
    pub fn read_reservation(&self, timeout: Duration) -> Result<Option<Holder>, CommandError> {
        let cdb = Cdb::reserve_in(ServiceIn::ReadReservation, 256);
        self.ask(&cdb, 256, timeout, decode_reservation)
    }

    /// PERSISTENT RESERVE IN, REPORT CAPABILITIES.
    ///
    /// # Errors
    ///
    /// As every command.
    pub fn capabilities(&self, timeout: Duration) -> Result<Capabilities, CommandError> {
        let cdb = Cdb::reserve_in(ServiceIn::ReportCapabilities, 256);
        self.ask(&cdb, 256, timeout, decode_capabilities)
    }

    /// PERSISTENT RESERVE IN, READ FULL STATUS: which path is registered with which key.
    ///
    /// # Errors
    ///
    /// As every command; a check condition for a target that does not have it (it is optional).
    pub fn full_status(&self, timeout: Duration) -> Result<RegistrantList, CommandError> {
        let service = ServiceIn::ReadFullStatus;
        self.ask_list(service, REGISTRANT_BYTES_MAX, timeout, decode_full_status)
    }

    /// Asks for a list, and again with the largest buffer if another entry might not have found
    /// room: some targets tell only the length of what they sent.
    fn ask_list<T>(
        &self,
        service: ServiceIn,
        entry_bytes: usize,
        timeout: Duration,
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<T, CommandError> {
        let cdb = Cdb::reserve_in(service, LIST_BYTES as u16);
        let mut buffer = Sectors::new(LIST_BYTES);
        let mut count = self.send(&cdb, Transfer::In(&mut buffer), timeout)?;
        if reservation::list_bytes(&buffer[..count])
            .is_some_and(|told| told + entry_bytes > LIST_BYTES)
        {
            let cdb = Cdb::reserve_in(service, LIST_BYTES_MAX as u16);
            buffer = Sectors::new(LIST_BYTES_MAX);
            let whole = Transfer::In(&mut buffer[..LIST_BYTES_MAX]);
            count = self.send(&cdb, whole, timeout)?;
        }
        decode(&buffer[..count]).ok_or_else(|| self.error(cdb.name(), Fault::Malformed { count }))
    }

    /// PERSISTENT RESERVE OUT with any of its actions.
    ///
    /// # Errors
    ///
    /// As every command. [`Fault::Conflict`] also for a key that is not registered: it does not
    /// mean that somebody else holds the unit.
    pub fn reserve_out(
        &self,
        action: Action,
        kind: ReservationType,
        parameters: &OutParameters,
        timeout: Duration,
    ) -> Result<(), CommandError> {
        let cdb = Cdb::reserve_out(action, kind);
        let mut buffer = Sectors::new(reservation::OUT_BYTES);
        buffer[..reservation::OUT_BYTES].copy_from_slice(&parameters.encode());
        let list = Transfer::Out(&buffer[..reservation::OUT_BYTES]);
        self.send(&cdb, list, timeout).map(drop)
    }

    /// COMPARE AND WRITE of one block past every cache: `data` is the expected block and then the
    /// new one.
    ///
    /// # Errors
    ///
    /// As every command. Nobody knows then which block is there: look, before doing it again.
    ///
    /// # Panics
    ///
    /// `data` is not two blocks.
    pub fn compare_and_write(
        &self,
        block: u64,
        data: &[u8],
        timeout: Duration,
    ) -> Result<Compared, CommandError> {
        assert!(
            data.len().is_multiple_of(1024) && !data.is_empty(),
            "two blocks of 512 bytes or a multiple"
        );
        let cdb = Cdb::compare_and_write(block, 1);
        let extent = Extent { block, blocks: 1 };
        match self.write_through(&cdb, data, extent, timeout) {
            Ok(()) => Ok(Compared::Written),
            Err(CommandError {
                fault: Fault::Check(sense),
                ..
            }) if sense.key == SenseKey::Miscompare => {
                let at = sense.information;
                Ok(Compared::Differs { at })
            }
            Err(error) => Err(error),
        }
    }

    /// READ(16) of whole blocks from the medium.
    ///
    /// # Errors
    ///
    /// As every command; [`Fault::Malformed`] if fewer bytes came.
    pub fn read(
        &self,
        extent: Extent,
        data: &mut [u8],
        timeout: Duration,
    ) -> Result<(), CommandError> {
        let wanted = data.len();
        let cdb = Cdb::read(extent);
        let (count, _) = self.send_through(&cdb, Transfer::In(data), timeout)?;
        if count == wanted {
            return Ok(());
        }
        Err(self.error(cdb.name(), Fault::Malformed { count }))
    }

    /// WRITE(16) of whole blocks, done when they are on the medium.
    ///
    /// # Errors
    ///
    /// As every command. It may still be done later.
    pub fn write(
        &self,
        extent: Extent,
        data: &[u8],
        timeout: Duration,
    ) -> Result<(), CommandError> {
        self.write_through(&Cdb::write(extent), data, extent, timeout)
    }

    /// SYNCHRONIZE CACHE(10), or (16) where the extent needs it: everything there is on the medium.
    ///
    /// # Errors
    ///
    /// As every command.
    pub fn synchronize(&self, extent: Extent, timeout: Duration) -> Result<(), CommandError> {
        let cdb = Cdb::synchronize(extent);
        self.send(&cdb, Transfer::None, timeout).map(drop)
    }

    /// LOGICAL UNIT RESET: every command of every path is aborted; registrations stay. Blocks for
    /// as long as the host adapter needs.
    ///
    /// # Errors
    ///
    /// `EIO` if the unit did not confirm, `EAGAIN` while the kernel is resetting something itself.
    pub fn reset_unit(&self) -> Result<(), CommandError> {
        sgio::reset_unit(self.file.as_fd())
            .map_err(|errno| self.error("LOGICAL UNIT RESET", Fault::Kernel(errno.into())))
    }
}

/// Does it again as long as a unit attention kept it from being done.
fn attended<T>(mut once: impl FnMut() -> Result<T, Fault>) -> Result<T, Fault> {
    for _ in 0..ATTENTIONS_MAX {
        match once() {
            Err(Fault::Check(sense)) if sense.was_not_begun() => {}
            answer => return answer,
        }
    }
    once()
}

impl AsFd for ScsiPath {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for ScsiPath {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.file.as_raw_fd()
    }
}
