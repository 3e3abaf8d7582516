//! One path to the disk under test, as far as the test needs it.

use std::time::Duration;

use serde::Serialize;
use standfast_sys::disk::Sectors;
use standfast_sys::scsi::{
    Action, Capabilities, Compared, Extent, Fault, OutParameters, ReservationType, ScsiPath,
    preferred_identity,
};

/// Longest time for a command of the test.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What the unit says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Who made it.
    pub vendor: String,
    /// What it is.
    pub product: String,
    /// Which version of it.
    pub revision: String,
    /// Its serial number; empty where it tells none.
    pub serial: String,
    /// Its name by VPD page 83h; empty where it tells none.
    pub identity: String,
    /// How many blocks.
    pub blocks: u64,
    /// Bytes of a block.
    pub block_bytes: u32,
    /// Most blocks of a COMPARE AND WRITE; 0 for none.
    pub compare_and_write_blocks: u8,
}

/// A path; the test registers each path of a node.
pub trait Lun: Send + Sync {
    /// Who it leads to.
    ///
    /// # Errors
    ///
    /// As every command here: how it ended, if not well.
    fn facts(&self) -> Result<Facts, Fault>;

    /// PERSISTENT RESERVE IN, READ KEYS.
    ///
    /// # Errors
    ///
    /// As above.
    fn keys(&self) -> Result<Vec<u64>, Fault>;

    /// READ RESERVATION: key of the holder, and the type.
    ///
    /// # Errors
    ///
    /// As above.
    fn holder(&self) -> Result<Option<(u64, ReservationType)>, Fault>;

    /// REPORT CAPABILITIES.
    ///
    /// # Errors
    ///
    /// As above.
    fn capabilities(&self) -> Result<Capabilities, Fault>;

    /// READ FULL STATUS: the key of each registered path.
    ///
    /// # Errors
    ///
    /// As above.
    fn full_status(&self) -> Result<Vec<u64>, Fault>;

    /// PERSISTENT RESERVE OUT of type 5 that outlives a loss of power.
    ///
    /// # Errors
    ///
    /// As above.
    fn reserve_out(&self, action: Action, own: u64, other: u64) -> Result<(), Fault>;

    /// Reads whole blocks.
    ///
    /// # Errors
    ///
    /// As above.
    fn read(&self, block: u64, bytes: usize) -> Result<Vec<u8>, Fault>;

    /// Writes whole blocks, to the medium.
    ///
    /// # Errors
    ///
    /// As above.
    fn write(&self, block: u64, data: &[u8]) -> Result<(), Fault>;

    /// COMPARE AND WRITE of one block; true if it matched.
    ///
    /// # Errors
    ///
    /// As above.
    fn compare_and_write(&self, block: u64, old: &[u8], new: &[u8]) -> Result<bool, Fault>;

    /// SYNCHRONIZE CACHE of one block.
    ///
    /// # Errors
    ///
    /// As above.
    fn flush(&self) -> Result<(), Fault>;

    /// LOGICAL UNIT RESET.
    ///
    /// # Errors
    ///
    /// As above.
    fn reset(&self) -> Result<(), Fault>;
}

/// A real path.
pub struct ScsiLun {
    path: ScsiPath,
    block_bytes: u32,
}

impl ScsiLun {
    /// Asks for the size of a block.
    ///
    /// # Errors
    ///
    /// The path does not answer.
    pub fn new(path: ScsiPath) -> Result<ScsiLun, Fault> {
        let capacity = path.capacity(TIMEOUT).map_err(|error| error.into_fault())?;
        let block_bytes = capacity.block_bytes;
        Ok(ScsiLun { path, block_bytes })
    }

    fn extent(&self, block: u64, bytes: usize) -> Extent {
        let blocks = (bytes / self.block_bytes as usize) as u32;
        Extent { block, blocks }
    }
}

impl Lun for ScsiLun {
    fn facts(&self) -> Result<Facts, Fault> {
        let path = &self.path;
        let standard = path.inquiry(TIMEOUT).map_err(|error| error.into_fault())?;
        let capacity = path.capacity(TIMEOUT).map_err(|error| error.into_fault())?;
        let limits = path.block_limits(TIMEOUT).ok();
        let names = path.identities(TIMEOUT).unwrap_or_default();
        Ok(Facts {
            vendor: standard.vendor,
            product: standard.product,
            revision: standard.revision,
            serial: path.serial(TIMEOUT).unwrap_or_default(),
            identity: preferred_identity(&names).map_or_else(String::new, ToString::to_string),
            blocks: capacity.blocks,
            block_bytes: capacity.block_bytes,
            compare_and_write_blocks: limits.map_or(0, |limits| limits.compare_and_write_blocks),
        })
    }

    fn keys(&self) -> Result<Vec<u64>, Fault> {
        let keys = self.path.read_keys(TIMEOUT);
        keys.map(|keys| keys.keys)
            .map_err(|error| error.into_fault())
    }

    fn holder(&self) -> Result<Option<(u64, ReservationType)>, Fault> {
        let holder = self.path.read_reservation(TIMEOUT);
        holder
            .map(|holder| holder.map(|holder| (holder.key, holder.kind)))
            .map_err(|error| error.into_fault())
    }

    fn capabilities(&self) -> Result<Capabilities, Fault> {
        let answer = self.path.capabilities(TIMEOUT);
        answer.map_err(|error| error.into_fault())
    }

    fn full_status(&self) -> Result<Vec<u64>, Fault> {
        let answer = self.path.full_status(TIMEOUT);
        answer
            .map(|list| list.registrants.iter().map(|each| each.key).collect())
            .map_err(|error| error.into_fault())
    }

    fn reserve_out(&self, action: Action, own: u64, other: u64) -> Result<(), Fault> {
        let parameters = OutParameters {
            own,
            other,
            outlives_power: true,
        };
        let kind = ReservationType::WriteExclusiveRegistrantsOnly;
        let done = self.path.reserve_out(action, kind, &parameters, TIMEOUT);
        done.map_err(|error| error.into_fault())
    }

    fn read(&self, block: u64, bytes: usize) -> Result<Vec<u8>, Fault> {
        let mut data = Sectors::new(bytes);
        let extent = self.extent(block, bytes);
        let done = self.path.read(extent, &mut data[..bytes], TIMEOUT);
        done.map(|()| data[..bytes].to_vec())
            .map_err(|error| error.into_fault())
    }

    fn write(&self, block: u64, data: &[u8]) -> Result<(), Fault> {
        let extent = self.extent(block, data.len());
        let done = self.path.write(extent, data, TIMEOUT);
        done.map_err(|error| error.into_fault())
    }

    fn compare_and_write(&self, block: u64, old: &[u8], new: &[u8]) -> Result<bool, Fault> {
        let data = [old, new].concat();
        let done = self.path.compare_and_write(block, &data, TIMEOUT);
        done.map(|compared| compared == Compared::Written)
            .map_err(|error| error.into_fault())
    }

    fn flush(&self) -> Result<(), Fault> {
        let extent = self.extent(0, self.block_bytes as usize);
        let done = self.path.synchronize(extent, TIMEOUT);
        done.map_err(|error| error.into_fault())
    }

    fn reset(&self) -> Result<(), Fault> {
        self.path.reset_unit().map_err(|error| error.into_fault())
    }
}
