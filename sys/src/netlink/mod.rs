//! Addresses and links of this host over rtnetlink, with no helper program and no runtime
//! (rtnetlink(7)).
//!
//! [`Route`] is opened early and kept: the guard releases addresses with it when nothing else
//! works. It waits for the kernel's answer at most [`ANSWER_TIMEOUT`]. What no timeout covers: the
//! kernel does the work inside the send, under a lock (`rtnl`) that a hung network driver can hold.
//! The addresses' finite lifetime and the watchdog are there for that case.
//!
//! [`Monitor`] belongs to a loop: it never waits and tells what changed.

mod link;
mod monitor;
mod route;
#[cfg(test)]
mod tests;
mod wire;

pub use link::Link;
pub use monitor::{Change, Monitor};
pub use route::{ANSWER_TIMEOUT, Address, Route};

/// Written into every address that Standfast adds (`IFA_PROTO`, Linux 5.18), so that a restarted
/// daemon knows its own. Values above 3 are free for use (linux/if_addr.h).
pub const OWN_PROTOCOL: u8 = 0x5F;
