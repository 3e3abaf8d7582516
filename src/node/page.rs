//! The shared page: a file on tmpfs in the run directory, mapped by guard, core and runner.
//!
//! One writer per word, all words native 64-bit atomics. The guard acts on it without asking
//! anybody; `status` reads it when every process is stuck.
//!
//! | word | writer | content |
//! |---|---|---|
//! | 0 | guard | magic and version |
//! | 1, 2 | guard | boot id of this node's life, low and high half |
//! | 3 | guard | starts of the daemon within this boot |
//! | 4 | core | lease deadline, ns of boot time; 0 = none |
//! | 5 | core | tasks granted to this node, bit by task index |
//! | 6 | core | turns of the engine (progress) |
//! | 7 | core | boot time of the last turn, ns |
//! | 8 | core | highest sequence number that may have been sent |
//! | 9 | core | epoch of the view it knows |
//! | 10 | core | process id; 0 while there is none |
//! | 11 | guard | boot time of the guard's last turn, ns |
//! | 12 | guard | process id |
//! | 13 | guard | count of revocations (lease ran out with something granted) |
//! | 14 | guard | tasks of the last revocation, bit by task index |
//! | 15 | guard | addresses held now, count |
//! | 16 | guard | boot time of the last pet of the watchdog, ns; 0 = never |
//! | 17 | guard | 1: the core is to leave the cluster and end |
//! | 18 | runner | process id; 0 while there is none |
//! | 19 | runner | boot time of its last turn, ns |
//! | 20 | core | 1: the node has left, the guard may end |
//! | 21 | core | restarts of the core seen by the core itself |
//! | 22 | guard | watchdog: a [`WatchdogKind`] in the low byte, bit 8: it caused this boot |
//! | 23, 24 | guard | timeout of the watchdog as configured and as in force, ns |
//! | 25, 26 | guard | longest pet of the watchdog in ns, count of pets that took long |
//! | 27 | runner | starts of the daemon whose watchdog it has told of; see word 3 |
//! | 28 | guard | why the node is to be reset, as `Reason`; 0 = it is not; bit 8: it lives on |
//! | 29 | guard | tasks granted at some time in this boot, bit by task index |
//! | 64..128 | core | state of each task here, as `TaskState`, and its epoch << 8 |

use serde::{Deserialize, Serialize};

/// Words of the page.
pub const PAGE_WORDS: usize = 512;

/// First word of a page this program understands: "STNDPAG" and a version.
pub const PAGE_MAGIC: u64 = u64::from_le_bytes(*b"STNDPAG\x01");

/// Position of each word; see the table above.
pub mod word {
    /// Magic and version.
    pub const MAGIC: usize = 0;
    /// Low half of the boot id.
    pub const BOOT_LOW: usize = 1;
    /// High half of the boot id.
    pub const BOOT_HIGH: usize = 2;
    /// Starts of the daemon within this boot.
    pub const START: usize = 3;
    /// Lease deadline.
    pub const LEASE_DEADLINE: usize = 4;
    /// Granted tasks.
    pub const GRANTED: usize = 5;
    /// Turns of the engine.
    pub const CORE_TURNS: usize = 6;
    /// Last turn of the engine.
    pub const CORE_TURN_AT: usize = 7;
    /// Highest sequence number.
    pub const SEQUENCE: usize = 8;
    /// Epoch of the known view.
    pub const EPOCH: usize = 9;
    /// The core's process id.
    pub const CORE_PID: usize = 10;
    /// Last turn of the guard.
    pub const GUARD_TURN_AT: usize = 11;
    /// The guard's process id.
    pub const GUARD_PID: usize = 12;
    /// Count of revocations.
    pub const REVOCATIONS: usize = 13;
    /// Tasks of the last revocation.
    pub const REVOKED: usize = 14;
    /// Addresses held.
    pub const ADDRESSES: usize = 15;
    /// Last pet of the watchdog.
    pub const PET_AT: usize = 16;
    /// Leave asked for.
    pub const LEAVE: usize = 17;
    /// The runner's process id.
    pub const RUNNER_PID: usize = 18;
    /// Last turn of the runner.
    pub const RUNNER_TURN_AT: usize = 19;
    /// The node has left.
    pub const LEFT: usize = 20;
    /// Starts of the core.
    pub const CORE_STARTS: usize = 21;
    /// Kind of the watchdog, and whether it caused this boot.
    pub const WATCHDOG: usize = 22;
    /// Its timeout as configured.
    pub const WATCHDOG_ASKED: usize = 23;
    /// Its timeout in force.
    pub const WATCHDOG_IN_FORCE: usize = 24;
    /// Longest pet.
    pub const PET_LONGEST: usize = 25;
    /// Count of pets that took long.
    pub const PETS_LATE: usize = 26;
    /// Start whose watchdog was told of.
    pub const WATCHDOG_TOLD: usize = 27;
    /// Why the node resets itself; see [`is_falling`](super::is_falling).
    pub const FALL: usize = 28;
    /// Tasks granted in this boot.
    pub const GRANTED_IN_BOOT: usize = 29;
    /// First of the tasks' states.
    pub const TASK_STATES: usize = 64;
}

/// In [`word::FALL`]: the node lives on, its reset has not come.
pub const FELL_IN_VAIN: u64 = 1 << 8;

/// Is the node with this [`word::FALL`] about to be reset? Then its core writes no frames to disks:
/// beside them stands why.
#[must_use]
pub const fn is_falling(fall: u64) -> bool {
    fall != 0 && fall & FELL_IN_VAIN == 0
}

/// In [`word::WATCHDOG`]: the last boot was the watchdog's doing.
pub const CAUSED_BOOT: u64 = 1 << 8;

/// What watches this node's guard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum WatchdogKind {
    /// Nothing, as configured.
    #[default]
    None,
    /// Nothing, although a device is configured: it cannot be had.
    Missing,
    /// A file that records the pets and resets nothing.
    StandIn,
    /// A timer of the kernel, which a kernel that hangs takes with it.
    Software,
    /// Hardware.
    Hardware,
}

impl WatchdogKind {
    /// The kind with this number; [`WatchdogKind::None`] for a number that has none.
    #[must_use]
    pub fn from_number(number: u8) -> WatchdogKind {
        use WatchdogKind::{Hardware, Missing, None, Software, StandIn};
        let all = [None, Missing, StandIn, Software, Hardware];
        all.into_iter()
            .find(|kind| *kind as u8 == number)
            .unwrap_or_default()
    }
}
