//! What the shared page tells the runner: whether a task may run now, and how everything stands.

use std::path::Path;
use std::sync::atomic::Ordering;

use standfast_sys::Failed;
use standfast_sys::clock::boottime_ns;
use standfast_sys::sharedpage::SharedPage;

use crate::model::TaskIndex;
use crate::node::control::{PageStatus, WatchdogStatus};
use crate::node::page::{CAUSED_BOOT, FELL_IN_VAIN, PAGE_WORDS, WatchdogKind, is_falling, word};
use crate::node::paths;
use crate::object::Permit;

/// The page, as the runner uses it.
pub struct Lease {
    page: SharedPage,
}

impl Lease {
    /// Opens the page of this run directory.
    ///
    /// # Errors
    ///
    /// The guard has not made it.
    pub fn open(run_dir: &Path) -> Result<Lease, Failed> {
        SharedPage::open(&paths::page(run_dir), PAGE_WORDS).map(|page| Lease { page })
    }

    fn load(&self, word: usize) -> u64 {
        self.page.words()[word].load(Ordering::Acquire)
    }

    /// Writes down that the runner lives.
    pub fn turn(&self) {
        let words = self.page.words();
        words[word::RUNNER_PID].store(u64::from(std::process::id()), Ordering::Release);
        words[word::RUNNER_TURN_AT].store(boottime_ns(), Ordering::Release);
    }

    /// The view's epoch, as the core knows it.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.load(word::EPOCH)
    }

    /// The epoch of a task, as the core wrote it.
    #[must_use]
    pub fn task_epoch(&self, task: TaskIndex) -> u32 {
        (self.load(word::TASK_STATES + task.index()) >> 8) as u32
    }

    /// Everything a person may want to know.
    #[must_use]
    pub fn status(&self, tasks: usize) -> PageStatus {
        let now = boottime_ns();
        let ms = |ns: u64| ns as f64 / 1e6;
        let age = |word| ms(now.saturating_sub(self.load(word)));
        let pid = |word| self.load(word) as u32;
        PageStatus {
            epoch: self.epoch(),
            lease_ms: ms(self.load(word::LEASE_DEADLINE).saturating_sub(now)),
            granted: self.load(word::GRANTED),
            pids: [
                pid(word::GUARD_PID),
                pid(word::CORE_PID),
                pid(word::RUNNER_PID),
            ],
            turn_ms: [
                age(word::GUARD_TURN_AT),
                age(word::CORE_TURN_AT),
                age(word::RUNNER_TURN_AT),
            ],
            addresses: self.load(word::ADDRESSES),
            revocations: self.load(word::REVOCATIONS),
            tasks: (0..tasks)
                .map(|task| self.load(word::TASK_STATES + task))
                .collect(),
            watchdog: self.watchdog(),
        }
    }

    /// The watchdog as the guard has found it.
    #[must_use]
    pub fn watchdog(&self) -> WatchdogStatus {
        let ms = |word| self.load(word) as f64 / 1e6;
        let found = self.load(word::WATCHDOG);
        WatchdogStatus {
            kind: WatchdogKind::from_number((found & 0xff) as u8),
            asked_ms: ms(word::WATCHDOG_ASKED),
            in_force_ms: ms(word::WATCHDOG_IN_FORCE),
            longest_pet_ms: ms(word::PET_LONGEST),
            late_pets: self.load(word::PETS_LATE),
            caused_boot: found & CAUSED_BOOT != 0,
            falling: is_falling(self.load(word::FALL)),
            fell_in_vain: self.load(word::FALL) & FELL_IN_VAIN != 0,
        }
    }

    /// The boot this page is of.
    #[must_use]
    pub fn boot(&self) -> [u8; 16] {
        let mut boot = [0; 16];
        boot[..8].copy_from_slice(&self.load(word::BOOT_LOW).to_le_bytes());
        boot[8..].copy_from_slice(&self.load(word::BOOT_HIGH).to_le_bytes());
        boot
    }

    /// Notes that the watchdog of this start of the daemon is told of. Gives how many starts had
    /// been told of before, and the number of this one.
    pub fn tell_watchdog(&self) -> (u64, u64) {
        let start = self.load(word::START);
        let told = &self.page.words()[word::WATCHDOG_TOLD];
        (told.swap(start, Ordering::AcqRel), start)
    }
}

impl Permit for Lease {
    fn may_run(&self, task: TaskIndex) -> bool {
        let granted = self.load(word::GRANTED) & (1 << task.index()) != 0;
        granted && self.load(word::LEASE_DEADLINE) > boottime_ns()
    }
}
