//! `device`: a shared block device that programs of the task use as it is, such as a database.
//!
//! ```text
//! start   device there -> in nobody's use -> cached blocks forgotten -> (disk reserved)
//!         -> cached blocks forgotten -> written down
//! stop    the task's processes have closed it -> or KILL of the task's cgroup
//!         -> verified: nobody claims it, none of the task's has it open -> or who holds it
//!         -> what is cached of it written -> not written down any more
//! ```
//! Nothing in the kernel tells that a raw device is in use by intention: a file in the run
//! directory does, which ends with the boot. Where the array does not refuse the writes of other
//! nodes, a stop is none while any process, of the task or not, has the device open for writing.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::aside::Aside;
use super::disk::{self, ANSWER_MAX, Disk, DiskSpec, RELEASE_MAX};
use super::program::Group;
use super::{
    BuildContext, Context, Object, ObjectError, ObjectKind, Probe, Watch, Watched, holders,
    sentence,
};
use crate::config::ObjectConfig;
use crate::config::kind::{Claims, Kind};
use crate::engine::Class;

/// The row.
pub(super) const KIND: ObjectKind = ObjectKind {
    row: Kind {
        name: "device",
        summary: "a shared block device without a file system, for programs that use it raw",
        parameters: &["device", "io_timeout", "reservation", "identity", "group"],
        example: r#"[[task.object]]
name = "raw"
kind = "device"
step = 1
device = "/dev/disk/by-id/wwn-0x60000000000000000000000000000002"
io_timeout = "45s"                         # the default: moves when the disk is silent for so long
reservation = "scsi"                       # the array refuses all other nodes; or "none"
identity = "naa.60000000000000000000000000000002"  # refuse every other disk; may be left away
# Or on LVM, instead of `device` and `identity`; all disks of the group are reserved and taken over:
# group = "vg0"
# device = "/dev/vg0/raw"
"#,
        check: |parameters| disk::parse(parameters).map(|spec| claims(&spec)),
    },
    build,
    survey: |parameters| disk::survey(parameters),
};

/// Longest time until a device is there and can be opened.
const OPEN_MS_MAX: u64 = 10_000;
/// Longest time for a stop, what is cached written back included.
const STOP_MS_MAX: u64 = 30_000;
/// How long the task's processes may take to close it before they are killed.
const POLITE_MAX: Duration = Duration::from_millis(500);
/// Changes with each boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

fn claims(spec: &DiskSpec) -> Claims {
    Claims {
        addresses: Vec::new(),
        exclusive: vec![spec.exclusive()],
        of_task: spec.of_task(),
        start_ms_max: OPEN_MS_MAX + spec.start_ms_max(),
        stop_ms_max: STOP_MS_MAX + spec.stop_ms_max(),
        fenced: Some(spec.is_reserved()),
        remarks: spec.unprotected("device").into_iter().collect(),
    }
}

fn build(config: &ObjectConfig, context: BuildContext) -> Box<dyn Object> {
    let spec = disk::parse(&config.parameters).expect("the configuration was checked");
    Box::new(Device {
        group: Group::new(context.cgroup.clone(), context.fenced),
        started: context.directory.join(format!("{}.started", config.name)),
        disk: Disk::new(&config.name, spec, &context),
        searches: Aside::new(),
    })
}

/// One device.
struct Device {
    disk: Disk,
    /// The task's.
    group: Group,
    /// Says of which boot it was started, while it is.
    started: PathBuf,
    searches: Aside<Vec<String>>,
}

impl Object for Device {
    fn probe(&mut self, _context: &Context<'_>) -> Probe {
        let deadline = Instant::now() + ANSWER_MAX;
        let probe = self.find_out(deadline).unwrap_or_else(Probe::from);
        self.disk.watch_if(probe == Probe::Running);
        probe
    }

    fn start(&mut self, context: &Context<'_>, deadline: Instant) -> Result<(), ObjectError> {
        self.disk.await_there(context, deadline)?;
        if self.is_started() {
            self.disk.adopt()?;
        } else {
            self.disk.refuse_other_use(deadline)?;
            self.disk.take(context, deadline)?;
            self.write_down()?;
        }
        self.disk.watch_if(true);
        Ok(())
    }

    fn stop(
        &mut self,
        context: &Context<'_>,
        deadline: Instant,
        forced: bool,
    ) -> Result<(), ObjectError> {
        self.disk.watch_if(false);
        let until = self.disk.bounded(deadline);
        let stopped = self
            .let_go(context, until, forced)
            .and_then(|()| self.disk.deactivate(context, until));
        self.disk.or_left_to_the_array(stopped)?;
        self.disk.rest(deadline);
        self.disk.bring_online(deadline)?;
        self.forget()
    }

    fn footing(&mut self, context: &Context<'_>, deadline: Instant) -> Watched {
        self.disk.footing(context, deadline)
    }

    fn watch(&self) -> Watch<'_> {
        let told = self.disk.descriptor();
        Watch {
            descriptor: told.map(|bell| (bell, PollFlags::POLLIN)),
            other: None,
            at: self.disk.look_at(),
        }
    }

    fn look(&mut self, _context: &Context<'_>) -> Watched {
        self.disk.look().unwrap_or(Watched::Fine)
    }
}

impl Device {
    fn find_out(&mut self, deadline: Instant) -> Result<Probe, ObjectError> {
        if self.is_started() {
            return self.disk.adopt().map(|()| Probe::Running);
        }
        let failed = |reason| Ok(Probe::Failed { reason });
        let device = self.disk.shown();
        if self.disk.in_use(deadline, true)? {
            return failed(format!("{device} is in use, though not started here"));
        }
        if let Some(users) = self.users_in_task(deadline)? {
            return failed(format!("{device} is used by {users}, though not started"));
        }
        if self.disk.is_active() {
            return failed(format!("{device} is active, though not started"));
        }
        self.disk.bring_online(deadline)?;
        Ok(Probe::Stopped)
    }

    /// Was it started in this boot, by this runner or an earlier one?
    fn is_started(&self) -> bool {
        let started = fs::read_to_string(&self.started);
        started.is_ok_and(|boot| fs::read_to_string(BOOT_ID).is_ok_and(|now| now == boot))
    }

    /// Written beside and renamed: never half a line.
    fn write_down(&self) -> Result<(), ObjectError> {
        let beside = self.started.with_extension("started.new");
        fs::read_to_string(BOOT_ID)
            .and_then(|boot| fs::write(&beside, boot))
            .and_then(|()| fs::rename(&beside, &self.started))
            .map_err(ObjectError::file(format!(
                "write {}",
                self.started.display()
            )))
    }

    fn forget(&self) -> Result<(), ObjectError> {
        match fs::remove_file(&self.started) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let what = format!("remove {}", self.started.display());
                Err(ObjectError::file(what)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Until nobody who counts has it open, and nothing of it is left in memory only.
    fn let_go(
        &mut self,
        context: &Context<'_>,
        deadline: Instant,
        forced: bool,
    ) -> Result<(), ObjectError> {
        self.disk.settle("write", deadline)?;
        let patience = match context.is_polite(forced) {
            true => POLITE_MAX,
            false => Duration::ZERO,
        };
        let users = Disk::await_free(patience, deadline, || self.users_in_task(deadline))?;
        if users.is_some() {
            self.group.kill_and_wait(deadline)?;
        }
        if let Some(holders) =
            Disk::await_free(RELEASE_MAX, deadline, || self.users_of_any_kind(deadline))?
        {
            let what = self.disk.shown();
            return Err(ObjectError::InUse { what, holders });
        }
        self.write_back(context, deadline)
    }

    /// The last to close it has had the kernel write what it cached of it; this asks whether that
    /// went well, and has the disk write its own cache. That it does not is no reason to call the
    /// device used.
    fn write_back(&mut self, context: &Context<'_>, deadline: Instant) -> Result<(), ObjectError> {
        if self.disk.number().is_none() || self.disk.is_offline() {
            return Ok(());
        }
        match self.disk.write_back(deadline) {
            Err(error @ ObjectError::Late { .. }) => Err(error),
            Err(error) => {
                (context.note)(Class::Major, sentence(&error));
                Ok(())
            }
            Ok(()) => self.disk.forget_cached(deadline),
        }
    }

    fn users_of_any_kind(&mut self, deadline: Instant) -> Result<Option<String>, ObjectError> {
        if let Some(users) = self.users_in_task(deadline)? {
            return Ok(Some(users));
        }
        if self.disk.in_use(deadline, true)? {
            return Ok(Some(self.disk.holders(None, deadline)));
        }
        // What an unregistered node's strangers write, the array refuses.
        if self.disk.is_reserved() {
            return Ok(None);
        }
        self.search(deadline, holders::writers_of_device)
    }

    fn users_in_task(&mut self, deadline: Instant) -> Result<Option<String>, ObjectError> {
        let processes = self.group.processes()?;
        if processes.is_empty() {
            return Ok(None);
        }
        self.search(deadline, move |major, minor| {
            holders::among(&processes, major, minor)
        })
    }

    fn search(
        &mut self,
        deadline: Instant,
        look: impl FnOnce(u32, u32) -> Vec<String> + Send + 'static,
    ) -> Result<Option<String>, ObjectError> {
        // What is not there, nobody has open by this name.
        let Some((major, minor)) = self.disk.number() else {
            return Ok(None);
        };
        match self.searches.call(deadline, move || look(major, minor)) {
            Ok(found) if found.is_empty() => Ok(None),
            Ok(found) => Ok(Some(found.join(", "))),
            Err(_) => {
                let what = format!("the search for users of {} did not end", self.disk.shown());
                Err(ObjectError::late(what))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_claims_the_disk_and_time_to_reserve_it() {
        let read = |more: &str| {
            let text = format!("device = '/dev/sdx'\n{more}");
            claims(&disk::parse(&text.parse().expect("a table")).expect("good"))
        };
        let reserved = read("reservation = 'scsi'");
        assert_eq!(reserved.exclusive, ["device /dev/sdx"]);
        assert_eq!((reserved.fenced, reserved.remarks.len()), (Some(true), 0));
        let bare = read("");
        assert!(bare.remarks[0].problem.ends_with("writing to this device"));
        assert!(bare.start_ms_max < reserved.start_ms_max);
    }
}
