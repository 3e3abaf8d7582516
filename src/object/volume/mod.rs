//! `volume`: a file system on a shared block device, mounted where its task runs.
//!
//! ```text
//! start   device there -> not mounted elsewhere -> (disk reserved) -> cached blocks forgotten
//!         -> directory -> (check) -> mount -> verified
//! stop    unmount -> KILL of the task's cgroup, unmount again -> forced -> lazy
//!         -> verified: not mounted, and the device can be opened for oneself alone -> or who
//! holds it
//! ```
//! A stop leaves the reservation where it is: until the next owner takes it over nobody writes.
//! Only processes of the task's own cgroup are ever killed. Whatever may hang on a dead disk runs
//! on a thread set aside.

mod fence;
mod release;
mod spec;
mod watching;

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::time::{Duration, Instant};

use nix::libc::EBADE;
use nix::poll::PollFlags;
use standfast_sys::mount::{self, MountPoint};
use standfast_sys::{Failed, disk};

use super::aside::{Aside, NoAnswer};
use super::program::{Plan, run};
use super::pulse::{Beat, Pulse, read_first_block};
use super::{
    BuildContext, Context, Object, ObjectError, ObjectKind, Probe, Urgency, Watch, Watched,
    sentence,
};
use crate::config::ObjectConfig;
use crate::config::kind::Kind;
use fence::Fence;
use spec::{Spec, claims, parse};

/// The row.
pub(super) const KIND: ObjectKind = ObjectKind {
    row: Kind {
        name: "volume",
        summary: "a file system on a shared block device",
        parameters: &[
            "device",
            "mount",
            "filesystem",
            "options",
            "check",
            "io_timeout",
            "reservation",
            "identity",
        ],
        example: r#"[[task.object]]
name = "data"
kind = "volume"
step = 1
device = "/dev/disk/by-id/wwn-0x60000000000000000000000000000001"
mount = "/srv/data"
filesystem = "ext4"
options = "noatime"                        # the default
check = "none"                             # or "auto": fsck -p before each mount
io_timeout = "45s"                         # the default: moves when the disk is silent for so long
reservation = "scsi"                       # the array refuses all other nodes; or "none"
identity = "naa.60000000000000000000000000000001"  # refuse every other disk; may be left away
"#,
        check: |parameters| parse(parameters).map(|spec| claims(&spec)),
    },
    build,
};

/// How long a disk that does not answer may hold up the whole stop, if the array protects it.
const DEAD_STOP_MAX: Duration = Duration::from_secs(5);
/// Between two looks for a device that is not there yet.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long a question about mounts or the device may take before it is called late.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Between two looks at a mounted volume; a mount or unmount by others is seen at once.
const WATCH_EVERY: Duration = Duration::from_secs(2);

fn build(config: &ObjectConfig, context: BuildContext) -> Box<dyn Object> {
    let spec = parse(&config.parameters).expect("the configuration was checked");
    let fence = Fence::new(&config.name, &spec, &context);
    Box::new(Volume {
        name: config.name.clone(),
        fence,
        spec,
        context,
        number: None,
        look_at: None,
        table: None,
        mounts: Aside::new(),
        acts: Aside::new(),
        opens: Aside::new(),
        pulse: None,
        dead: false,
    })
}

/// One volume.
struct Volume {
    name: String,
    spec: Spec,
    context: BuildContext,
    /// Where the disk is reserved or must have a name.
    fence: Option<Fence>,
    /// Device number of the mounted file system, kept for naming its holders after an unmount.
    number: Option<(u32, u32)>,
    look_at: Option<Instant>,
    /// Tells when anything is mounted or unmounted.
    table: Option<File>,
    mounts: Aside<Result<Vec<MountPoint>, Failed>>,
    acts: Aside<Result<(), Failed>>,
    opens: Aside<io::Result<()>>,
    /// The disk's, while it is mounted.
    pulse: Option<Pulse>,
    /// It had none when it was felt last.
    dead: bool,
}

impl Object for Volume {
    fn probe(&mut self, _context: &Context<'_>) -> Probe {
        let deadline = Instant::now() + ANSWER_MAX;
        let probe = match self.mounted(deadline) {
            Ok(Some(mount)) if self.turned_read_only(&mount) => Probe::Failed {
                reason: self.read_only_reason(),
            },
            Ok(Some(_)) => match self.adopt() {
                Ok(()) => Probe::Running,
                Err(error) => error.into(),
            },
            Ok(None) => match self.in_use(deadline, self.number.is_none()) {
                Ok(false) => match self.bring_online(deadline) {
                    Ok(()) => Probe::Stopped,
                    Err(error) => error.into(),
                },
                Ok(true) => {
                    let device = self.spec.device.display();
                    Probe::Failed {
                        reason: format!("{device} is in use, though not mounted here"),
                    }
                }
                Err(error) => error.into(),
            },
            Err(error) => error.into(),
        };
        self.watch_if(probe == Probe::Running);
        probe
    }

    fn start(&mut self, context: &Context<'_>, deadline: Instant) -> Result<(), ObjectError> {
        self.await_device(context, deadline)?;
        if self.mounted(deadline)?.is_none() {
            self.refuse_other_use(deadline)?;
            // What an earlier use here has left dirty is not to be written once the disk is this
            // node's; that it is refused until then is as it should be.
            let _ = self.forget_cached(deadline);
            if let Some(fence) = &mut self.fence {
                fence.raise(context, deadline)?;
            }
            // And what was read before must not be taken for what the last owner left.
            self.forget_cached(deadline)?;
            fs::create_dir_all(&self.spec.mount).map_err(ObjectError::file(format!(
                "create {}",
                self.spec.mount.display()
            )))?;
            if self.spec.check {
                self.check(context, deadline)?;
            }
            self.mount(deadline)?;
            if self.mounted(deadline)?.is_none() {
                let target = self.spec.mount.display();
                return Err(ObjectError::Unexpected(format!(
                    "{target} does not stay mounted"
                )));
            }
        } else {
            self.adopt()?;
        }
        self.watch_if(true);
        Ok(())
    }

    fn stop(
        &mut self,
        context: &Context<'_>,
        deadline: Instant,
        forced: bool,
    ) -> Result<(), ObjectError> {
        self.watch_if(false);
        match self.unmount_all(context, self.bounded(deadline), forced) {
            Ok(()) => self.dead = false,
            Err(error) => self.leave_to_the_array(error)?,
        }
        if let Some(fence) = &mut self.fence {
            fence.rest(deadline);
        }
        if self.is_offline() && self.mounted(deadline)?.is_none() {
            self.bring_online(deadline)?;
        }
        Ok(())
    }

    fn footing(&mut self, context: &Context<'_>, deadline: Instant) -> Watched {
        let fence = self.fence.as_ref();
        let told = fence.map_or(Watched::Fine, |fence| fence.ask(context, deadline));
        self.dead |= matches!(told, Watched::Lost { .. });
        told
    }

    fn watch(&self) -> Watch<'_> {
        let table = self.table.as_ref();
        let fence = self.fence.as_ref().and_then(Fence::descriptor);
        Watch {
            descriptor: table.map(|table| (table.as_fd(), PollFlags::POLLPRI)),
            other: fence.map(|bell| (bell, PollFlags::POLLIN)),
            at: self.look_at,
        }
    }

    fn look(&mut self, _context: &Context<'_>) -> Watched {
        if let Some(reason) = self.feel_pulse() {
            return Watched::Lost { reason };
        }
        self.watch_if(true);
        if let Some(told) = self.fence.as_mut().and_then(Fence::told) {
            return told;
        }
        match self.mounted(Instant::now() + ANSWER_MAX) {
            Ok(Some(mount)) if self.turned_read_only(&mount) => Watched::Lost {
                reason: self.read_only_reason(),
            },
            Ok(Some(_)) | Err(_) => Watched::Fine,
            Ok(None) => {
                let target = self.spec.mount.display();
                Watched::Lost {
                    reason: format!("{target} was unmounted by somebody else"),
                }
            }
        }
    }
}

impl Volume {
    /// Watches the disk of a volume that is mounted already.
    fn adopt(&mut self) -> Result<(), ObjectError> {
        self.fence.as_mut().map_or(Ok(()), Fence::adopt)
    }

    /// What was taken from everybody here while something of it was mounted.
    fn bring_online(&mut self, deadline: Instant) -> Result<(), ObjectError> {
        let fence = self.fence.as_mut();
        fence.map_or(Ok(()), |fence| fence.bring_online(deadline))
    }

    /// A dead disk is not waited for as long as one that works.
    fn bounded(&self, deadline: Instant) -> Instant {
        if self.dead && self.spec.is_reserved() {
            deadline.min(Instant::now() + DEAD_STOP_MAX)
        } else {
            deadline
        }
    }

    /// A file system on a dead disk cannot be unmounted. Where the next owner takes the disk from
    /// this node before he mounts it, what is left here cannot reach it any more: that is as good.
    fn leave_to_the_array(&self, error: ObjectError) -> Result<(), ObjectError> {
        let stuck = matches!(
            error,
            ObjectError::Late { .. } | ObjectError::InUse { .. } | ObjectError::File { .. }
        );
        if self.dead && self.spec.is_reserved() && stuck {
            let device = self.spec.device.display();
            let reason = sentence(&error);
            tracing::warn!(%device, %reason, "left to the array: the disk does not answer");
            return Ok(());
        }
        Err(error)
    }

    fn mount(&mut self, deadline: Instant) -> Result<(), ObjectError> {
        let (device, target) = (self.spec.device.clone(), self.spec.mount.clone());
        let (filesystem, options) = (self.spec.filesystem.clone(), self.spec.options.clone());
        let mounted = self.act("mount", deadline, move || {
            mount::mount(&device, &target, &filesystem, &options)
        });
        match mounted {
            Err(ObjectError::Kernel(failed)) if failed.errno() == Some(EBADE) => {
                let device = self.spec.device.display().to_string();
                Err(ObjectError::Fenced { device })
            }
            mounted => mounted,
        }
    }

    fn forget_cached(&mut self, deadline: Instant) -> Result<(), ObjectError> {
        let device = self.spec.device.clone();
        let call = move || disk::forget_cached(&device);
        self.act("forget what it has cached of the disk of", deadline, call)
    }

    fn watch_if(&mut self, mounted: bool) {
        if !mounted {
            (self.look_at, self.table, self.pulse) = (None, None, None);
            return;
        }
        if self.table.is_none() {
            self.table = File::open("/proc/thread-self/mountinfo").ok();
        }
        let patience = self.spec.io_timeout;
        let pulse = self.pulse.get_or_insert_with(|| Pulse::new(patience));
        let now = Instant::now();
        self.look_at = Some(pulse.look_at(now).min(now + WATCH_EVERY));
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

    fn turned_read_only(&self, mount: &MountPoint) -> bool {
        let asked = self.spec.options.split(',').any(|option| option == "ro");
        !asked && mount.options.split(',').any(|option| option == "ro")
    }

    fn read_only_reason(&self) -> String {
        let target = self.spec.mount.display();
        format!("{target} has become read-only: the file system met an error, see the kernel log")
    }

    /// The mount of this device at this place, if it is there.
    fn mounted(&mut self, deadline: Instant) -> Result<Option<MountPoint>, ObjectError> {
        let all = self.all_mounts(deadline)?;
        let found = all.into_iter().rfind(|mount| mount.is_at(&self.spec.mount));
        let Some(found) = found else { return Ok(None) };
        if !self.is_ours(&found) {
            let (target, source) = (self.spec.mount.display(), found.source.display());
            return Err(ObjectError::Unexpected(format!(
                "{source} is mounted at {target} instead"
            )));
        }
        self.number = Some((found.major, found.minor));
        Ok(Some(found))
    }

    fn all_mounts(&mut self, deadline: Instant) -> Result<Vec<MountPoint>, ObjectError> {
        match self.mounts.call(deadline, mount::mounts) {
            Ok(mounts) => Ok(mounts?),
            Err(_) => Err(ObjectError::late("did not get the list of mounts")),
        }
    }

    fn is_ours(&self, mount: &MountPoint) -> bool {
        let number = Some((mount.major, mount.minor));
        number == self.device_number().or(self.number)
            || mount.source == self.spec.device
            || fs::canonicalize(&self.spec.device).is_ok_and(|device| device == mount.source)
    }

    fn device_number(&self) -> Option<(u32, u32)> {
        let number = fs::metadata(&self.spec.device).ok()?.rdev();
        let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
        Some((major as u32, minor as u32))
    }

    fn await_device(&self, context: &Context<'_>, deadline: Instant) -> Result<(), ObjectError> {
        loop {
            match fs::metadata(&self.spec.device) {
                Ok(file) if file.file_type().is_block_device() => return Ok(()),
                Ok(_) => {
                    let device = self.spec.device.display();
                    let problem = format!("{device} is not a block device");
                    return Err(ObjectError::Unexpected(problem));
                }
                Err(_) if Instant::now() >= deadline => {
                    let what = format!("{} did not appear", self.spec.device.display());
                    return Err(ObjectError::late(what));
                }
                Err(_) => context.pause(LOOK_AGAIN, Urgency::Stop)?,
            }
        }
    }

    /// Two mounts of one device would share a file system that only one of them owns.
    fn refuse_other_use(&mut self, deadline: Instant) -> Result<(), ObjectError> {
        let all = self.all_mounts(deadline)?;
        let device = self.spec.device.display().to_string();
        if let Some(other) = all.iter().find(|mount| self.is_ours(mount)) {
            let elsewhere = other.target.display();
            let problem = format!("{device} is already mounted at {elsewhere}");
            return Err(ObjectError::Unexpected(problem));
        }
        if self.in_use(deadline, true)? {
            let problem = format!("{device} is in use by something else on this node");
            return Err(ObjectError::Unexpected(problem));
        }
        Ok(())
    }

    fn check(&self, context: &Context<'_>, deadline: Instant) -> Result<(), ObjectError> {
        let device = self.spec.device.display().to_string();
        let words = [
            "/usr/sbin/fsck",
            "-T",
            "-t",
            &self.spec.filesystem,
            &device,
            "-p",
        ];
        let command: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let plan = Plan::new(&self.name, &command, &self.context, context.epoch);
        let ending = run(&plan, context, Urgency::Stop, deadline)?;
        // fsck(8): 0 no errors, 1 errors corrected.
        if matches!(ending.code(), Some(0 | 1)) {
            return Ok(());
        }
        Err(plan.failed(&ending))
    }

    /// One call that may hang, with the operation's name for the sentence.
    fn act(
        &mut self,
        operation: &str,
        deadline: Instant,
        call: impl FnOnce() -> Result<(), Failed> + Send + 'static,
    ) -> Result<(), ObjectError> {
        match self.acts.call(deadline, call) {
            Ok(answer) => Ok(answer?),
            Err(NoAnswer::Late | NoAnswer::StillBusy) => {
                let what = format!(
                    "the kernel did not {operation} {}",
                    self.spec.mount.display()
                );
                Err(ObjectError::late(what))
            }
        }
    }
}
