//! A logical volume of a group that one node at a time owns (lvm(8), lvmsystemid(7)).
//!
//! ```text
//! start   disks found by their labels -> what they tell of the group is checked
//!         -> (all of them reserved) -> told once more, the same
//!         -> system id changed to this node's -> volume activated -> verified
//! stop    volume deactivated -> verified. The system id stays: nobody else activates the group
//!         before the next owner takes it over
//! ```
//! Each program gets a deadline, and is told which devices it may look at: those of the group. One
//! that hangs on a path is left behind, as are the reads of labels. When LVM cannot deactivate a
//! volume, for its disks do not answer or tell of another owner, the device mapper can: it needs no
//! disk for it.

mod error;
mod labels;
mod names;
mod report;
mod survey;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(in crate::object) use names::LogicalVolume;
pub(in crate::object) use survey::survey;

pub use error::GroupError;

use super::{ANSWER_MAX, LOOK_AGAIN};
use crate::engine::Class;
use crate::object::program::{Plan, run, run_to_end};
use crate::object::{BuildContext, Context, ObjectError, Urgency};
use labels::Search;
use report::{COLUMNS, Report, system_id};

/// Longest time of one program of LVM.
const PROGRAM_MAX: Duration = Duration::from_secs(10);
/// How long disks of the group are waited for that do not appear or answer.
const FIND_MAX: Duration = Duration::from_secs(20);
/// How long labels are waited for at first: a disk that hangs, and is not the group's, is to hold
/// up nothing. Doubled until the group is whole.
const PATIENCE_MIN: Duration = Duration::from_millis(100);
/// Where its programs are.
const LVM: [&str; 2] = ["/usr/sbin/lvm", "/sbin/lvm"];
/// And the device mapper's.
const DMSETUP: [&str; 2] = ["/usr/sbin/dmsetup", "/sbin/dmsetup"];
/// Largest report that is read, in bytes: a thousand physical volumes.
const REPORT_BYTES_MAX: u64 = 1 << 20;

/// One volume of a group, for one object.
pub(super) struct Lvm {
    name: String,
    volume: LogicalVolume,
    context: BuildContext,
    search: Search,
    /// The group's, as it was found last.
    devices: Vec<PathBuf>,
    /// What LVM calls this node, as it was found then.
    own: String,
}

impl Lvm {
    pub(super) fn new(name: &str, volume: LogicalVolume, context: &BuildContext) -> Lvm {
        Lvm {
            name: name.to_owned(),
            volume,
            context: context.clone(),
            search: Search::default(),
            devices: Vec::new(),
            own: String::new(),
        }
    }

    /// Does the kernel have it? Asks no disk.
    pub(super) fn is_active(&self) -> bool {
        is_mapped(Path::new("/sys/class/block"), &self.volume.map_name())
    }

    /// Finds the group's disks and makes sure that this node may take them.
    pub(super) fn find(
        &mut self,
        context: &Context<'_>,
        deadline: Instant,
    ) -> Result<Vec<PathBuf>, ObjectError> {
        let told = self.call(&["systemid"], Some(context), context.epoch, deadline)?;
        self.own = system_id(&told).ok_or(GroupError::NoSystem)?;
        let deadline = deadline.min(Instant::now() + FIND_MAX);
        let mut patience = PATIENCE_MIN;
        let mut lacking: Option<GroupError> = None;
        loop {
            let until = deadline.min(Instant::now() + patience);
            match self.look(context, until, deadline) {
                // Disks that have not appeared yet, as after a boot, or have not answered.
                Err(ObjectError::Group(
                    error @ (GroupError::NotFound { .. } | GroupError::Missing { .. }),
                )) if Instant::now() + LOOK_AGAIN < deadline => {
                    lacking = Some(error);
                    patience = ANSWER_MAX.min(patience * 2);
                    context.pause(LOOK_AGAIN, Urgency::Stop)?;
                }
                // The deadline has come while that was asked once more.
                Err(error @ ObjectError::Late { .. }) => {
                    return Err(lacking.map_or(error, ObjectError::Group));
                }
                Err(error) => return Err(error),
                Ok(report) => {
                    self.devices.clone_from(&report.devices);
                    return Ok(report.devices);
                }
            }
        }
    }

    /// Makes the group this node's and its volume a device. The disks are this node's already.
    pub(super) fn activate(
        &mut self,
        context: &Context<'_>,
        deadline: Instant,
    ) -> Result<(), ObjectError> {
        let report = self.report(&self.devices, Some(context), context.epoch, deadline)?;
        let group = &report.group;
        if report.devices != self.devices || report.missing > 0 {
            let group = group.clone();
            return Err(GroupError::Changed { group }.into());
        }
        report.check()?;
        let (name, volume) = (&self.name, self.volume.to_string());
        if report.system != self.own {
            self.take_over(&report, context, deadline)?;
        }
        if report.autoactivated {
            let text = format!(
                "{name}: the volume group {group} may be activated at boot: \
                 `vgchange --setautoactivation n {group}` keeps it from that"
            );
            (context.note)(Class::Warning, text);
        }
        let words = with_devices(&["lvchange", "--yes", "-ay", &volume], &self.devices);
        self.run(&words, Some(context), context.epoch, deadline)?;
        while !self.is_active() {
            if Instant::now() >= deadline {
                let what = format!("{volume} did not become active");
                return Err(ObjectError::late(what));
            }
            context.pause(LOOK_AGAIN, Urgency::Stop)?;
        }
        Ok(())
    }

    fn take_over(
        &self,
        report: &Report,
        context: &Context<'_>,
        deadline: Instant,
    ) -> Result<(), ObjectError> {
        let words = take_over(report, &self.own, &self.devices);
        if let Err(error) = self.run(&words, Some(context), context.epoch, deadline) {
            // Another object of the task may have been faster with another volume of it.
            let now = self.report(&self.devices, Some(context), context.epoch, deadline)?;
            return match now.system == self.own {
                true => Ok(()),
                false => Err(error),
            };
        }
        let (name, group) = (&self.name, &report.group);
        let from = match report.system.as_str() {
            "" => "which was nobody's".to_owned(),
            system => format!("which was {system}'s"),
        };
        let text = format!("{name}: took over the volume group {group}, {from}");
        (context.note)(Class::Info, text);
        Ok(())
    }

    /// Takes the device away again; nobody uses it any more. `unread`: its disks are not to be
    /// asked. Goes on when the call is cancelled, for what is active can be written to.
    pub(super) fn deactivate(
        &mut self,
        epoch: u32,
        unread: bool,
        deadline: Instant,
    ) -> Result<(), ObjectError> {
        if !self.is_active() {
            return Ok(());
        }
        let mut trouble = None;
        if !unread {
            trouble = self.deactivate_by_lvm(epoch, deadline).err();
        }
        if self.is_active() {
            let words = ["remove", "--retry", &self.volume.map_name()].map(str::to_owned);
            let program = program_of(&DMSETUP)?;
            let removed = self.run_program(program, &words, None, epoch, deadline);
            removed.map_err(|error| trouble.unwrap_or(error))?;
        }
        if self.is_active() {
            let what = format!("{} was not deactivated", self.volume);
            return Err(ObjectError::late(what));
        }
        Ok(())
    }

    fn deactivate_by_lvm(&mut self, epoch: u32, deadline: Instant) -> Result<(), ObjectError> {
        let volume = self.volume.to_string();
        let words = ["lvchange", "--yes", "-an", &volume];
        if !self.devices.is_empty() {
            let words = with_devices(&words, &self.devices);
            match self.run(&words, None, epoch, deadline) {
                Ok(_) => return Ok(()),
                Err(error @ ObjectError::Late { .. }) => return Err(error),
                Err(_) => {}
            }
        }
        // Started by an earlier runner, or with another owner's name on it by now.
        let labelled = self
            .search
            .labelled(deadline.min(Instant::now() + ANSWER_MAX));
        let report = self.report(&labelled, None, epoch, deadline)?;
        let allowed = allowing(&report.system);
        let words = [&words[..], &["--config", &allowed]].concat();
        let words = with_devices(&words, &report.devices);
        self.run(&words, None, epoch, deadline).map(drop)
    }

    /// What the disks tell that answer until then.
    fn look(
        &mut self,
        context: &Context<'_>,
        until: Instant,
        deadline: Instant,
    ) -> Result<Report, ObjectError> {
        let labelled = self.search.labelled(until);
        let report = self.report(&labelled, Some(context), context.epoch, deadline)?;
        report.check()?;
        Ok(report)
    }

    fn report(
        &self,
        devices: &[PathBuf],
        context: Option<&Context<'_>>,
        epoch: u32,
        deadline: Instant,
    ) -> Result<Report, ObjectError> {
        let group = &self.volume.group;
        if devices.is_empty() {
            let group = group.clone();
            return Err(GroupError::NotFound { group }.into());
        }
        let text = self.run(&asking(devices), context, epoch, deadline)?;
        Ok(Report::read(group, &text)?)
    }

    fn call(
        &self,
        words: &[&str],
        context: Option<&Context<'_>>,
        epoch: u32,
        deadline: Instant,
    ) -> Result<String, ObjectError> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        self.run(&words, context, epoch, deadline)
    }

    /// What a program of LVM prints. Without a context it is not cancelled.
    fn run(
        &self,
        words: &[String],
        context: Option<&Context<'_>>,
        epoch: u32,
        deadline: Instant,
    ) -> Result<String, ObjectError> {
        self.run_program(program_of(&LVM)?, words, context, epoch, deadline)
    }

    fn run_program(
        &self,
        program: &str,
        words: &[String],
        context: Option<&Context<'_>>,
        epoch: u32,
        deadline: Instant,
    ) -> Result<String, ObjectError> {
        let mut command = vec![program.to_owned()];
        command.extend_from_slice(words);
        let told = self.context.directory.join(format!("{}.told", self.name));
        let environment = ["LC_ALL=C", "LVM_SUPPRESS_FD_WARNINGS=1"];
        let environment = environment.map(|pair| {
            let (name, value) = pair.split_once('=').expect("a name and a value");
            (name.to_owned(), value.to_owned())
        });
        let plan = Plan::new(&self.name, &command, &self.context, epoch)
            .environment(&environment)
            .output(&told);
        let until = deadline.min(Instant::now() + PROGRAM_MAX);
        let (plan, ending) = match context {
            Some(context) => {
                let ending = run(&plan, context, Urgency::Stop, until)?;
                (plan, ending)
            }
            None => {
                let plan = plan.beside(&self.context);
                let ending = run_to_end(&plan, until)?;
                (plan, ending)
            }
        };
        if ending.code() != Some(0) {
            return Err(plan.failed(&ending));
        }
        read_told(&told)
    }
}

fn read_told(path: &Path) -> Result<String, ObjectError> {
    use std::io::Read;
    let read = || {
        let mut text = String::new();
        let file = fs::File::open(path)?;
        file.take(REPORT_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_err(ObjectError::file(format!("read {}", path.display())))
}

/// The first of these places at which there is a program.
fn program_of(places: &[&'static str; 2]) -> Result<&'static str, GroupError> {
    let found = places.iter().find(|place| Path::new(place).exists());
    found.copied().ok_or(GroupError::NoPrograms(places[0]))
}

/// Is there a device that the device mapper calls so?
fn is_mapped(class: &Path, map: &str) -> bool {
    let entries = fs::read_dir(class).into_iter().flatten().flatten();
    let called = |entry: fs::DirEntry| {
        let name = fs::read_to_string(entry.path().join("dm/name"));
        name.is_ok_and(|name| name.trim_end() == map)
    };
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"dm-"))
        .any(called)
}

/// A command that looks at these devices only.
fn with_devices(words: &[&str], devices: &[PathBuf]) -> Vec<String> {
    let listed: Vec<String> = devices
        .iter()
        .map(|device| device.display().to_string())
        .collect();
    let devices = ["--devices", &listed.join(",")].map(str::to_owned);
    words
        .iter()
        .map(|word| (*word).to_owned())
        .chain(devices)
        .collect()
}

/// Asks for all that is known of the groups on these devices, whoever owns them.
fn asking(devices: &[PathBuf]) -> Vec<String> {
    let words = ["pvs", "--foreign", "--reportformat", "json", "-o", COLUMNS];
    with_devices(&words, devices)
}

/// Makes a group this system's, with the rights of the one that has it now.
fn take_over(report: &Report, own: &str, devices: &[PathBuf]) -> Vec<String> {
    let allowed = allowing(&report.system);
    let words = ["vgchange", "--yes", "--config", &allowed, "--systemid", own];
    with_devices(&[&words[..], &[&report.group]].concat(), devices)
}

/// Lets a command use groups of this other system too.
fn allowing(system: &str) -> String {
    match system {
        "" => "local/extra_system_ids=[]".to_owned(),
        system => format!("local/extra_system_ids=[\"{system}\"]"),
    }
}

#[cfg(test)]
mod tests;
