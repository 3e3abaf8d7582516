//! How a volume is let go: down a ladder, until nobody on this node can write to the device any
//! more, or with the names of those who still can.

use std::time::{Duration, Instant};

use nix::libc::EBUSY;
use standfast_sys::mount::{self, UnmountFlags};

use super::Volume;
use crate::object::disk::{Disk, Pause, RELEASE_MAX};
use crate::object::program::Group;
use crate::object::{Context, ObjectError, Urgency};

/// How long unmounting is tried before processes are killed.
const POLITE_MAX: Duration = Duration::from_millis(500);
/// How long it is tried after they were killed.
const KILLED_MAX: Duration = Duration::from_secs(2);
impl Volume {
    /// Down the ladder, until nobody on this node can write to the device any more.
    pub(super) fn unmount_all(
        &mut self,
        context: &Context<'_>,
        deadline: Instant,
        forced: bool,
    ) -> Result<(), ObjectError> {
        self.disk.settle("mount", deadline)?;
        let soft = UnmountFlags::default();
        let force = UnmountFlags {
            force: true,
            lazy: false,
        };
        if context.is_polite(forced) && self.unmount(soft, POLITE_MAX, context, deadline)? {
            return self.verify(deadline, true);
        }
        let group = Group::new(self.context.cgroup.clone(), self.context.fenced);
        group.kill_and_wait(deadline)?;
        if self.unmount(soft, KILLED_MAX, context, deadline)?
            || self.unmount(force, Duration::ZERO, context, deadline)?
        {
            return self.verify(deadline, true);
        }
        let named = self.disk.holders(self.number, deadline);
        let lazy = UnmountFlags {
            force: false,
            lazy: true,
        };
        self.unmount(lazy, Duration::ZERO, context, deadline)?;
        self.verify(deadline, false).map_err(|error| match error {
            ObjectError::InUse { what, .. } => ObjectError::InUse {
                what,
                holders: named,
            },
            other => other,
        })
    }

    /// Tries until it is unmounted, at most for `patience`; false if it is still busy then.
    fn unmount(
        &mut self,
        how: UnmountFlags,
        patience: Duration,
        context: &Context<'_>,
        deadline: Instant,
    ) -> Result<bool, ObjectError> {
        let until = deadline.min(Instant::now() + patience);
        let mut pause = Pause::default();
        loop {
            if self.mounted(deadline)?.is_none() {
                return Ok(true);
            }
            let target = self.target.clone();
            let what = format!("unmount {}", target.display());
            let unmounted = self.disk.act(&what, deadline, move || {
                mount::unmount(&target, how).map(drop)
            });
            match unmounted {
                // The same device may be mounted there more than once: look again.
                Ok(()) => continue,
                Err(ObjectError::Kernel(failed)) if failed.errno() == Some(EBUSY) => {}
                Err(error) => return Err(error),
            }
            let hurried = context.cancel.is_raised(Urgency::Forced) && patience == POLITE_MAX;
            if Instant::now() >= until || hurried {
                return Ok(false);
            }
            pause.pass();
        }
    }

    /// Can nobody on this node write to the device any more? Not being in this list of mounts is
    /// not enough: another mount namespace, or a lazy unmount, keeps a file system alive.
    fn verify(&mut self, deadline: Instant, clean: bool) -> Result<(), ObjectError> {
        let (disk, number) = (&mut self.disk, self.number);
        let used = || Ok(disk.in_use(deadline, clean)?.then_some(()));
        if Disk::await_free(RELEASE_MAX, deadline, used)?.is_some() {
            return Err(ObjectError::InUse {
                what: self.disk.shown(),
                holders: self.disk.holders(number, deadline),
            });
        }
        self.number = None;
        Ok(())
    }
}
