//! The storage agent: takes a shared disk for this node alone by SCSI-3 persistent reservations,
//! and watches that it stays so.
//!
//! Owner-only registration: type 5 (write exclusive, registrants only), the owner holds it and
//! nobody else is registered. Whoever owned it before is refused by the array from the moment his
//! key is preempted, whatever he believes; what he had under way is aborted. A hand-over is the
//! same: the heir preempts. The owner never lets go first, for until the next reservation anybody
//! could write.
//!
//! ```text
//! key        whose registration it is, and of which epoch
//! unit       what is asked of a disk: the seam           paths    a real one
//! workers    its threads
//! discover   the disks below a device
//! take       becomes the owner                     keeper  stays it
//! volume     all disks of one device                     offline  nobody here may write
//! ```
//! Blocks; every wait has a bound. A hung path costs a thread, never the caller.

mod discover;
mod error;
mod keeper;
mod key;
mod offline;
mod paths;
mod release;
mod take;
#[cfg(test)]
mod tests;
mod unit;
mod volume;
mod workers;

pub use discover::{DiscoverError, Disk, Roots, Transport, disks_below};
pub use error::TakeError;
pub use keeper::{Found, Keeper};
pub use key::{ClusterTag, Key, KeyEpoch, Whose};
pub use offline::{bring_online, is_offline};
pub use paths::PathUnit;
pub use release::release;
pub use take::{Bounds, take};
pub use unit::{Answer, Ask, Fault, Held, Unit};
pub use volume::{Claim, ReservedVolume, VolumeError};
