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

mod release;
mod spec;

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Instant;

use nix::libc::EBADE;
use nix::poll::PollFlags;
use standfast_sys::Failed;
use standfast_sys::mount::{self, MountPoint};

use super::aside::Aside;
use super::disk::{self, ANSWER_MAX, Disk};
use super::program::{Plan, run};
use super::{
    BuildContext, Context, Object, ObjectError, ObjectKind, Probe, Urgency, Watch, Watched,
};
use crate::config::ObjectConfig;
use crate::config::kind::Kind;
use spec::{claims, parse};

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
            "group",
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
# Or on LVM, instead of `device` and `identity`; all disks of the group are reserved and taken over:
# group = "vg0"
# device = "/dev/vg0/data"
"#,
        check: |parameters| parse(parameters).map(|spec| claims(&spec)),
    },
    build,
    survey: |parameters| disk::survey(parameters),
};

fn build(config: &ObjectConfig, context: BuildContext) -> Box<dyn Object> {
    let spec = parse(&config.parameters).expect("the configuration was checked");
    Box::new(Volume {
        name: config.name.clone(),
        disk: Disk::new(&config.name, spec.disk, &context),
        target: spec.mount,
        filesystem: spec.filesystem,
        options: spec.options,
        check: spec.check,
        context,
        number: None,
        table: None,
        mounts: Aside::new(),
    })
}

/// One volume.
struct Volume {
    name: String,
    disk: Disk,
    /// Where it is mounted.
    target: PathBuf,
    filesystem: String,
    options: String,
    /// Checked before each mount?
    check: bool,
    context: BuildContext,
    /// Device number of the mounted file system, kept for naming its holders after an unmount.
    number: Option<(u32, u32)>,
    /// Tells when anything is mounted or unmounted.
    table: Option<File>,
    mounts: Aside<Result<Vec<MountPoint>, Failed>>,
}

impl Object for Volume {
    fn probe(&mut self, _context: &Context<'_>) -> Probe {
        let deadline = Instant::now() + ANSWER_MAX;
        let probe = match self.mounted(deadline) {
            Ok(Some(mount)) if self.turned_read_only(&mount) => Probe::Failed {
                reason: self.read_only_reason(),
            },
            Ok(Some(_)) => match self.disk.adopt() {
                Ok(()) => Probe::Running,
                Err(error) => error.into(),
            },
            Ok(None) => match self.disk.in_use(deadline, self.number.is_none()) {
                Ok(false) if self.disk.is_active() => Probe::Failed {
                    reason: format!("{} is active, though not mounted here", self.disk.shown()),
                },
                Ok(false) => match self.disk.bring_online(deadline) {
                    Ok(()) => Probe::Stopped,
                    Err(error) => error.into(),
                },
                Ok(true) => Probe::Failed {
                    reason: format!("{} is in use, though not mounted here", self.disk.shown()),
                },
                Err(error) => error.into(),
            },
            Err(error) => error.into(),
        };
        self.watch_if(probe == Probe::Running);
        probe
    }

    fn start(&mut self, context: &Context<'_>, deadline: Instant) -> Result<(), ObjectError> {
        self.disk.await_there(context, deadline)?;
        if self.mounted(deadline)?.is_none() {
            self.refuse_other_use(deadline)?;
            self.disk.take(context, deadline)?;
            let create = format!("create {}", self.target.display());
            fs::create_dir_all(&self.target).map_err(ObjectError::file(create))?;
            if self.check {
                self.check(context, deadline)?;
            }
            self.mount(deadline)?;
            if self.mounted(deadline)?.is_none() {
                let target = self.target.display();
                return Err(ObjectError::Unexpected(format!(
                    "{target} does not stay mounted"
                )));
            }
        } else {
            self.disk.adopt()?;
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
        let until = self.disk.bounded(deadline);
        let stopped = self
            .unmount_all(context, until, forced)
            .and_then(|()| self.disk.deactivate(context, until));
        self.disk.or_left_to_the_array(stopped)?;
        self.disk.rest(deadline);
        if self.disk.is_offline() && self.mounted(deadline)?.is_none() {
            self.disk.bring_online(deadline)?;
        }
        Ok(())
    }

    fn footing(&mut self, context: &Context<'_>, deadline: Instant) -> Watched {
        self.disk.footing(context, deadline)
    }

    fn watch(&self) -> Watch<'_> {
        let table = self.table.as_ref();
        let told = self.disk.descriptor();
        Watch {
            descriptor: table.map(|table| (table.as_fd(), PollFlags::POLLPRI)),
            other: told.map(|bell| (bell, PollFlags::POLLIN)),
            at: self.disk.look_at(),
        }
    }

    fn look(&mut self, _context: &Context<'_>) -> Watched {
        if let Some(told) = self.disk.look() {
            return told;
        }
        self.watch_if(true);
        match self.mounted(Instant::now() + ANSWER_MAX) {
            Ok(Some(mount)) if self.turned_read_only(&mount) => Watched::Lost {
                reason: self.read_only_reason(),
            },
            Ok(Some(_)) | Err(_) => Watched::Fine,
            Ok(None) => {
                let target = self.target.display();
                Watched::Lost {
                    reason: format!("{target} was unmounted by somebody else"),
                }
            }
        }
    }
}

impl Volume {
    fn mount(&mut self, deadline: Instant) -> Result<(), ObjectError> {
        let (device, target) = (self.disk.device().to_owned(), self.target.clone());
        let (filesystem, options) = (self.filesystem.clone(), self.options.clone());
        let what = format!("mount {}", target.display());
        let mounted = self.disk.act(&what, deadline, move || {
            mount::mount(&device, &target, &filesystem, &options)
        });
        match mounted {
            Err(ObjectError::Kernel(failed)) if failed.errno() == Some(EBADE) => {
                let device = self.disk.shown();
                Err(ObjectError::Fenced { device })
            }
            mounted => mounted,
        }
    }

    fn watch_if(&mut self, mounted: bool) {
        self.disk.watch_if(mounted);
        if !mounted {
            self.table = None;
        } else if self.table.is_none() {
            self.table = File::open("/proc/thread-self/mountinfo").ok();
        }
    }

    fn turned_read_only(&self, mount: &MountPoint) -> bool {
        let asked = self.options.split(',').any(|option| option == "ro");
        !asked && mount.options.split(',').any(|option| option == "ro")
    }

    fn read_only_reason(&self) -> String {
        let target = self.target.display();
        format!("{target} has become read-only: the file system met an error, see the kernel log")
    }

    /// The mount of this device at this place, if it is there.
    fn mounted(&mut self, deadline: Instant) -> Result<Option<MountPoint>, ObjectError> {
        let all = self.all_mounts(deadline)?;
        let found = all.into_iter().rfind(|mount| mount.is_at(&self.target));
        let Some(found) = found else { return Ok(None) };
        if !self.is_ours(&found) {
            let (target, source) = (self.target.display(), found.source.display());
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
        number == self.disk.number().or(self.number)
            || mount.source == self.disk.device()
            || fs::canonicalize(self.disk.device()).is_ok_and(|device| device == mount.source)
    }

    /// Two mounts of one device would share a file system that only one of them owns.
    fn refuse_other_use(&mut self, deadline: Instant) -> Result<(), ObjectError> {
        let all = self.all_mounts(deadline)?;
        let device = self.disk.shown();
        if let Some(other) = all.iter().find(|mount| self.is_ours(mount)) {
            let elsewhere = other.target.display();
            let problem = format!("{device} is already mounted at {elsewhere}");
            return Err(ObjectError::Unexpected(problem));
        }
        self.disk.refuse_other_use(deadline)
    }

    fn check(&self, context: &Context<'_>, deadline: Instant) -> Result<(), ObjectError> {
        let device = self.disk.shown();
        let words = [
            "/usr/sbin/fsck",
            "-T",
            "-t",
            &self.filesystem,
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
}
