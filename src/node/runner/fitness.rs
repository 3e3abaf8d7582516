//! Could each task be served from this node now? An interface without carrier makes every task with
//! an address on it unfit, whether the task runs here or not: the owner gives it away to a fit
//! node, and nobody hands a task to an unfit one. Known from netlink, not by asking again and
//! again.

use std::os::fd::{AsFd, BorrowedFd};

use standfast_sys::Failed;
use standfast_sys::netlink::{Monitor, Route};

use crate::config::{Config, NodeConfig};

/// Changes taken from the kernel in one turn; what is left waits for the next.
const CHANGES_MAX: usize = 256;

/// The interfaces that tasks need, and what is known of them.
pub(super) struct Fitness {
    monitor: Monitor,
    route: Route,
    /// By task index.
    needed: Vec<Vec<String>>,
    /// Tasks that could be served, bit by task index.
    mask: u64,
    told: Option<u64>,
}

impl Fitness {
    /// Looks for the first time.
    ///
    /// # Errors
    /// The kernel gives no netlink socket.
    pub(super) fn new(config: &Config, node: &NodeConfig) -> Result<Fitness, Failed> {
        let needed = config.tasks().iter().map(|task| {
            let claims = task
                .objects
                .iter()
                .flat_map(|object| &object.claims.addresses);
            let mut names: Vec<String> = claims
                .filter_map(|claim| claim.interface_on(&node.name).map(str::to_owned))
                .collect();
            names.sort();
            names.dedup();
            names
        });
        let needed: Vec<Vec<String>> = needed.collect();
        // Watched before it is looked at, so that no change falls between.
        let (monitor, route) = (Monitor::open_links()?, Route::open()?);
        let mut fitness = Fitness {
            monitor,
            route,
            needed,
            mask: u64::MAX,
            told: None,
        };
        fitness.look();
        Ok(fitness)
    }

    /// Readable when something has changed.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }

    /// A new core knows nothing.
    pub(super) fn forget_told(&mut self) {
        self.told = None;
    }

    /// The mask, if the core does not have it yet.
    pub(super) fn news(&mut self) -> Option<u64> {
        let mut changed = false;
        for _ in 0..CHANGES_MAX {
            match self.monitor.next_change() {
                Ok(Some(_)) => changed = true,
                Ok(None) | Err(_) => break,
            }
        }
        if changed {
            self.look();
        }
        (self.told != Some(self.mask)).then(|| {
            self.told = Some(self.mask);
            self.mask
        })
    }

    fn look(&mut self) {
        // Without an answer of the kernel the last picture stays: no reason to move a task.
        let Ok(links) = self.route.links() else {
            return;
        };
        let runs = |name: &String| links.iter().any(|link| link.name == *name && link.running);
        let fit =
            |(task, needed): (usize, &Vec<String>)| u64::from(needed.iter().all(runs)) << task;
        self.mask = self.needed.iter().enumerate().map(fit).sum::<u64>() | self.beyond();
    }

    /// Bits of tasks that do not exist.
    fn beyond(&self) -> u64 {
        u64::MAX.checked_shl(self.needed.len() as u32).unwrap_or(0)
    }
}
