//! The shared disk below an object: made sure of, watched while it is used, let go.
//!
//! ```text
//! start   there -> (the object asks who else uses it) -> cached blocks forgotten
//!         -> taken: named, reserved, watched -> cached blocks forgotten
//! used    its pulse, and what the array tells
//! stop    (the object lets go) -> nobody claims it -> not watched any more
//! ```
//! A logical volume is there only between the two: taken with all disks of its group, activated,
//! and deactivated by the stop.
//!
//! A stop leaves the reservation where it is: until the next owner takes it over nobody else
//! writes. Whatever may hang on a dead disk runs on a thread set aside.

mod fence;
mod lvm;
mod spec;
mod watching;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::libc::{EBUSY, ENXIO, O_CLOEXEC, O_EXCL, O_NONBLOCK};
use standfast_sys::{Failed, disk};

pub use lvm::GroupError;
pub(super) use spec::{DiskSpec, parse};

use super::aside::Aside;
use super::pulse::{Beat, Pulse, read_first_block};
use super::{BuildContext, Context, ObjectError, Urgency, Watched, holders, sentence};
use crate::config::Severity;
use crate::config::kind::Remark;
use fence::Fence;
use lvm::Lvm;

/// How long a question about a disk may take before it is called late.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(1);
/// How long a device may stay in use after the last rung of a stop.
pub(super) const RELEASE_MAX: Duration = Duration::from_secs(2);
/// How long a disk that does not answer may hold up the whole stop, if the array protects it.
const DEAD_STOP_MAX: Duration = Duration::from_secs(5);
/// Between two looks for a device that is not there yet.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Between two looks at a disk that is used.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// Between the first two tries to let go: a process that was killed lets go soon. Doubled from one
/// to the next.
const TRY_AGAIN: Duration = Duration::from_millis(1);
/// Longest time between two tries.
const TRY_AGAIN_MAX: Duration = Duration::from_millis(10);

/// One disk, of one object.
pub(super) struct Disk {
    spec: DiskSpec,
    /// Where the disk is reserved or must have a name.
    fence: Option<Fence>,
    /// Where it is a logical volume of a group.
    lvm: Option<Lvm>,
    acts: Aside<Result<(), Failed>>,
    opens: Aside<io::Result<()>>,
    /// While it is used.
    pulse: Option<Pulse>,
    look_at: Option<Instant>,
    /// It had no pulse when it was felt last.
    dead: bool,
}

impl Disk {
    /// Of the object with this name.
    pub(super) fn new(name: &str, spec: DiskSpec, context: &BuildContext) -> Disk {
        Disk {
            fence: Fence::new(name, &spec, context),
            lvm: spec
                .volume
                .clone()
                .map(|volume| Lvm::new(name, volume, context)),
            spec,
            acts: Aside::new(),
            opens: Aside::new(),
            pulse: None,
            look_at: None,
            dead: false,
        }
    }

    /// What is used of it.
    pub(super) fn device(&self) -> &Path {
        &self.spec.device
    }

    /// For sentences.
    pub(super) fn shown(&self) -> String {
        self.spec.device.display().to_string()
    }

    /// Does the array refuse every other node?
    pub(super) fn is_reserved(&self) -> bool {
        self.spec.is_reserved()
    }

    /// Major and minor number of the device, if it is there.
    pub(super) fn number(&self) -> Option<(u32, u32)> {
        if self.is_inactive() {
            return None;
        }
        let number = fs::metadata(&self.spec.device).ok()?.rdev();
        let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
        Some((major as u32, minor as u32))
    }

    /// Waits until the device is there, if others make it so.
    pub(super) fn await_there(
        &self,
        context: &Context<'_>,
        deadline: Instant,
    ) -> Result<(), ObjectError> {
        match self.lvm {
            Some(_) => Ok(()),
            None => self.await_device(context, deadline),
        }
    }

    fn await_device(&self, context: &Context<'_>, deadline: Instant) -> Result<(), ObjectError> {
        loop {
            match fs::metadata(&self.spec.device) {
                Ok(file) if file.file_type().is_block_device() => return Ok(()),
                Ok(_) => {
                    let problem = format!("{} is not a block device", self.shown());
                    return Err(ObjectError::Unexpected(problem));
                }
                Err(_) if Instant::now() >= deadline => {
                    let what = format!("{} did not appear", self.shown());
                    return Err(ObjectError::late(what));
                }
                Err(_) => context.pause(LOOK_AGAIN, Urgency::Stop)?,
            }
        }
    }

    /// Refuses a device that a file system, a map or the like on this node has for itself.
    pub(super) fn refuse_other_use(&mut self, deadline: Instant) -> Result<(), ObjectError> {
        if self.in_use(deadline, true)? {
            let problem = format!("{} is in use by something else on this node", self.shown());
            return Err(ObjectError::Unexpected(problem));
        }
        Ok(())
    }

    /// Makes sure that it is the right disk and this node's alone, and that what is read from it is
    /// what the last owner left.
    pub(super) fn take(
        &mut self,
        context: &Context<'_>,
        deadline: Instant,
    ) -> Result<(), ObjectError> {
        if self.lvm.is_some() {
            return self.take_group(context, deadline);
        }
        // What an earlier use here has left dirty is not to be written once the disk is this
        // node's; that it is refused until then is as it should be.
        let _ = self.forget_cached(deadline);
        if let Some(fence) = &mut self.fence {
            fence.raise(None, context, deadline)?;
        }
        // And what was read before must not be taken for what the last owner left.
        self.forget_cached(deadline)
    }

    fn take_group(&mut self, context: &Context<'_>, deadline: Instant) -> Result<(), ObjectError> {
        // Active since a boot, or left so: with the group as it was then.
        self.deactivate(context, deadline)?;
        self.bring_online(deadline)?;
        let Some(lvm) = &mut self.lvm else {
            return Ok(());
        };
        let parts = lvm.find(context, deadline)?;
        if let Some(fence) = &mut self.fence {
            fence.raise(Some(parts), context, deadline)?;
        }
        lvm.activate(context, deadline)?;
        self.await_device(context, deadline)?;
        self.forget_cached(deadline)
    }

    /// Takes the device of a logical volume away, now that nobody uses it.
    pub(super) fn deactivate(
        &mut self,
        context: &Context<'_>,
        deadline: Instant,
    ) -> Result<(), ObjectError> {
        let unread = self.dead || self.is_offline();
        let lvm = self.lvm.as_mut();
        lvm.map_or(Ok(()), |lvm| {
            lvm.deactivate(context.epoch, unread, deadline)
        })
    }

    /// Is it a logical volume that is active here?
    pub(super) fn is_active(&self) -> bool {
        self.lvm.as_ref().is_some_and(Lvm::is_active)
    }

    /// Is it a logical volume that is no device here? A map that anything uses, if only a file
    /// system that nobody sees any more, cannot be taken away.
    fn is_inactive(&self) -> bool {
        self.lvm.is_some() && !self.is_active()
    }

    /// Goes on watching a disk that was taken before.
    pub(super) fn adopt(&mut self) -> Result<(), ObjectError> {
        self.fence.as_mut().map_or(Ok(()), Fence::adopt)
    }

    /// Ends the watch and leaves the reservation.
    pub(super) fn rest(&mut self, deadline: Instant) {
        if let Some(fence) = &mut self.fence {
            fence.rest(deadline);
        }
    }

    /// Was it taken from everybody on this node?
    pub(super) fn is_offline(&self) -> bool {
        self.fence.as_ref().is_some_and(Fence::is_offline)
    }

    /// Gives back what was taken from everybody here while it was used.
    pub(super) fn bring_online(&mut self, deadline: Instant) -> Result<(), ObjectError> {
        let fence = self.fence.as_mut();
        fence.map_or(Ok(()), |fence| fence.bring_online(deadline))
    }

    /// A dead disk is not waited for as long as one that works.
    pub(super) fn bounded(&self, deadline: Instant) -> Instant {
        if self.dead && self.is_reserved() {
            deadline.min(Instant::now() + DEAD_STOP_MAX)
        } else {
            deadline
        }
    }

    /// How a stop has ended. What is on a dead disk cannot be let go; where the next owner takes
    /// the disk from this node before he uses it, what is left here cannot reach it any more: that
    /// is as good.
    pub(super) fn or_left_to_the_array(
        &mut self,
        stopped: Result<(), ObjectError>,
    ) -> Result<(), ObjectError> {
        let Err(error) = stopped else {
            self.dead = false;
            return Ok(());
        };
        let stuck = matches!(
            error,
            ObjectError::Late { .. }
                | ObjectError::InUse { .. }
                | ObjectError::File { .. }
                | ObjectError::Program { .. }
        );
        if self.dead && self.is_reserved() && stuck {
            let (device, reason) = (self.shown(), sentence(&error));
            tracing::warn!(%device, %reason, "left to the array: the disk does not answer");
            return Ok(());
        }
        Err(error)
    }

    /// Has the kernel given the device to anybody for himself, such as to a file system? A device
    /// that is not there is in nobody's use, unless something of it may still live unseen.
    pub(super) fn in_use(
        &mut self,
        deadline: Instant,
        missing_is_free: bool,
    ) -> Result<bool, ObjectError> {
        // What its node still leads to, if to anything, is something else.
        if self.is_inactive() {
            return Ok(false);
        }
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
                let what = format!("open {} to see whether it is in use", self.shown());
                Err(ObjectError::file(what)(error))
            }
            Err(_) => Err(ObjectError::late("could not open the device")),
        }
    }

    /// Asks until there are no users left, at most for so long; what is left then.
    pub(super) fn await_free<T>(
        patience: Duration,
        deadline: Instant,
        mut users: impl FnMut() -> Result<Option<T>, ObjectError>,
    ) -> Result<Option<T>, ObjectError> {
        let until = deadline.min(Instant::now() + patience);
        let mut pause = Pause::default();
        loop {
            let left = users()?;
            if left.is_none() || Instant::now() >= until {
                return Ok(left);
            }
            pause.pass();
        }
    }

    /// Who uses the file system with this device number, or this one's, for a sentence.
    pub(super) fn holders(&self, number: Option<(u32, u32)>, deadline: Instant) -> String {
        let Some((major, minor)) = number.or_else(|| self.number()) else {
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

    /// Waits for an act that was given up on: it may still succeed, or hang for good.
    pub(super) fn settle(&mut self, what: &str, deadline: Instant) -> Result<(), ObjectError> {
        let settled = self.acts.settle(deadline);
        settled.map_err(|_| ObjectError::late(format!("did not finish an earlier {what}")))
    }

    /// One call that may hang, with what it does for the sentence: "the kernel did not ...".
    pub(super) fn act(
        &mut self,
        what: &str,
        deadline: Instant,
        call: impl FnOnce() -> Result<(), Failed> + Send + 'static,
    ) -> Result<(), ObjectError> {
        match self.acts.call(deadline, call) {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(ObjectError::late(format!("the kernel did not {what}"))),
        }
    }

    /// Writes what is still cached of the device, on the disk itself too.
    pub(super) fn write_back(&mut self, deadline: Instant) -> Result<(), ObjectError> {
        let device = self.spec.device.clone();
        let what = format!("write what it has cached of {}", device.display());
        self.act(&what, deadline, move || disk::write_back(&device))
    }

    /// Makes the kernel forget what it has cached of the device; what is dirty is written first, if
    /// the disk takes it.
    pub(super) fn forget_cached(&mut self, deadline: Instant) -> Result<(), ObjectError> {
        let device = self.spec.device.clone();
        let what = format!("forget what it has cached of {}", device.display());
        self.act(&what, deadline, move || disk::forget_cached(&device))
    }

    /// Begins or ends the watch over a disk that is used.
    pub(super) fn watch_if(&mut self, used: bool) {
        if !used {
            (self.look_at, self.pulse) = (None, None);
            return;
        }
        let patience = self.spec.io_timeout;
        let pulse = self.pulse.get_or_insert_with(|| Pulse::new(patience));
        let now = Instant::now();
        self.look_at = Some(pulse.look_at(now).min(now + WATCH_EVERY));
    }

    /// Readable while the array has something to tell.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.fence.as_ref().and_then(Fence::descriptor)
    }

    /// When the next look is due.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// Looks at the pulse and hears what the array has told. Never waits.
    pub(super) fn look(&mut self) -> Option<Watched> {
        if let Some(reason) = self.feel_pulse() {
            return Some(Watched::Lost { reason });
        }
        self.watch_if(true);
        self.fence.as_mut().and_then(Fence::told)
    }

    /// Asks the disk now whether it is still this node's.
    pub(super) fn footing(&mut self, context: &Context<'_>, deadline: Instant) -> Watched {
        let fence = self.fence.as_ref();
        let told = fence.map_or(Watched::Fine, |fence| fence.ask(context, deadline));
        self.dead |= matches!(told, Watched::Lost { .. });
        told
    }

    /// Why the disk is of no use any more, if it is not.
    fn feel_pulse(&mut self) -> Option<String> {
        let device = self.spec.device.display();
        let read = read_first_block(&self.spec.device);
        let beat = self.pulse.as_mut()?.look(Instant::now(), read);
        self.dead = beat != Beat::Fine;
        match beat {
            Beat::Fine => None,
            Beat::Failing { reason } => Some(format!("{device} cannot be read: {reason}")),
            Beat::Silent { since } => {
                let silent = since.as_secs();
                Some(format!("{device} has not answered for {silent} s"))
            }
        }
    }
}

/// What should be known of this machine before the disk is used on it.
pub(super) fn survey(parameters: &toml::Table) -> Vec<(Severity, Remark)> {
    let volume = parse(parameters).ok().and_then(|spec| spec.volume);
    volume.map_or_else(Vec::new, |volume| lvm::survey(&volume))
}

/// Pauses between tries: short ones first.
pub(super) struct Pause(Duration);

impl Default for Pause {
    fn default() -> Pause {
        Pause(TRY_AGAIN)
    }
}

impl Pause {
    /// Sleeps, and longer the next time.
    pub(super) fn pass(&mut self) {
        std::thread::sleep(self.0);
        self.0 = TRY_AGAIN_MAX.min(self.0 * 2);
    }
}
