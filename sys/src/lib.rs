//! What the kernel lends, each behind an owner type: the only unsafe code of Standfast.
//!
//! Nothing here knows the cluster: arguments are plain integers, byte arrays and durations, results
//! are owners that close what they opened. Every file descriptor is close-on-exec, and whatever a
//! loop has to wait for implements `AsFd` and `AsRawFd`.
//!
//! Calls that can stop a real-time thread (file systems, disks) say so in their comment.

pub mod cgroup;
pub mod clock;
pub mod disk;
mod error;
pub mod loop_device;
pub mod mount;
pub mod netlink;
pub mod packet;
pub mod process;
pub mod realtime;
pub mod scsi;
pub mod sharedpage;
pub mod signal;
pub mod socket;
pub mod spawn;
#[cfg(test)]
mod testing;
pub mod watchdog;

pub use error::{Failed, sentence};
