//! How a volume is let go: down a ladder, until nobody on this node can write to the device any
//! more, or with the names of those who still can.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::libc::{EBUSY, ENXIO, O_CLOEXEC, O_EXCL, O_NONBLOCK};
use standfast_sys::mount::{self, UnmountFlags};

use super::fence::Fence;
use super::{ANSWER_MAX, Volume};
use crate::object::aside::Aside;
use crate::object::program::Group;
use crate::object::{Context, ObjectError, Urgency, holders};

/// How long unmounting is tried before processes are killed.
const POLITE_MAX: Duration = Duration::from_millis(500);
/// How long it is tried after they were killed.
const KILLED_MAX: Duration = Duration::from_secs(2);
/// How long the device may stay in use after the last rung.
const RELEASE_MAX: Duration = Duration::from_secs(2);
/// Longest time between two tries.
const TRY_AGAIN_MAX: Duration = Duration::from_millis(10);
/// Between the first two tries of an unmount: a process that was killed lets go soon. Doubled from
/// one to the next.
const TRY_AGAIN: Duration = Duration::from_millis(1);

impl Volume {
    /// Down the ladder, until nobody on this node can write to the device any more.
    pub(super) fn unmount_all(
        &mut self,
        context: &Context<'_>,
        deadline: Instant,
        forced: bool,
    ) -> Result<(), ObjectError> {
        // A mount that was given up on may still succeed, or hang for good.
        self.acts
            .settle(deadline)
            .map_err(|_| ObjectError::late("did not finish an earlier mount"))?;
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
        let named = self.holders(deadline);
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
        let mut pause = TRY_AGAIN;
        loop {
            if self.mounted(deadline)?.is_none() {
                return Ok(true);
            }
            let target = self.spec.mount.clone();
            match self.act("unmount", deadline, move || {
                mount::unmount(&target, how).map(drop)
            }) {
                // The same device may be mounted there more than once: look again.
                Ok(()) => continue,
                Err(ObjectError::Kernel(failed)) if failed.errno() == Some(EBUSY) => {}
                Err(error) => return Err(error),
            }
            let hurried = context.cancel.is_raised(Urgency::Forced) && patience == POLITE_MAX;
            if Instant::now() >= until || hurried {
                return Ok(false);
            }
            std::thread::sleep(pause);
            pause = TRY_AGAIN_MAX.min(pause * 2);
        }
    }

    /// Can nobody on this node write to the device any more? Not being in this list of mounts is
    /// not enough: another mount namespace, or a lazy unmount, keeps a file system alive.
    fn verify(&mut self, deadline: Instant, clean: bool) -> Result<(), ObjectError> {
        let until = deadline.min(Instant::now() + RELEASE_MAX);
        let mut pause = TRY_AGAIN;
        while self.in_use(deadline, clean)? {
            if Instant::now() >= until {
                let holders = self.holders(deadline);
                let what = self.spec.device.display().to_string();
                return Err(ObjectError::InUse { what, holders });
            }
            std::thread::sleep(pause);
            pause = TRY_AGAIN_MAX.min(pause * 2);
        }
        self.number = None;
        Ok(())
    }

    /// Has the kernel given the device to anybody for himself, such as to a file system? A device
    /// that is not there is in nobody's use, unless a file system of it may still live unseen.
    pub(super) fn in_use(
        &mut self,
        deadline: Instant,
        missing_is_free: bool,
    ) -> Result<bool, ObjectError> {
        let device = self.spec.device.clone();
        let open = move || {
            let flags = O_EXCL | O_CLOEXEC | O_NONBLOCK;
            OpenOptions::new()
                .read(true)
                .custom_flags(flags)
                .open(device)
                .map(drop)
        };
        match self.opens.call(deadline, open) {
            Ok(Ok(())) => Ok(false),
            Ok(Err(error)) if error.raw_os_error() == Some(EBUSY) => Ok(true),
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound && missing_is_free => {
                Ok(false)
            }
            // Nobody else claims it: that is asked before the disk is (`bdev_open` in the kernel).
            Ok(Err(error)) if error.raw_os_error() == Some(ENXIO) && self.is_offline() => Ok(false),
            Ok(Err(error)) => {
                let what = format!(
                    "open {} to see whether it is in use",
                    self.spec.device.display()
                );
                Err(ObjectError::file(what)(error))
            }
            Err(_) => Err(ObjectError::late("could not open the device")),
        }
    }

    pub(super) fn is_offline(&self) -> bool {
        self.fence.as_ref().is_some_and(Fence::is_offline)
    }

    fn holders(&self, deadline: Instant) -> String {
        let Some((major, minor)) = self.number.or_else(|| self.device_number()) else {
            return "somebody unknown".to_owned();
        };
        let deadline = deadline.max(Instant::now() + ANSWER_MAX);
        let mut scan = Aside::new();
        match scan.call(deadline, move || holders::of_file_system(major, minor)) {
            Ok(found) if found.is_empty() => "the kernel itself; no process was found".to_owned(),
            Ok(found) => found.join(", "),
            Err(_) => "somebody unknown; the search did not end".to_owned(),
        }
    }
}
