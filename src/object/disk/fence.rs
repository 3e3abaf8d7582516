//! The array's part in a shared disk: reserved before it is written to, watched while it is used.
//!
//! ```text
//! raise   the disk has the right name -> taken -> watched by a thread of its own
//! adopt   the key of an earlier life of this process -> watched
//! told    what the thread has seen; an eviction ends the task
//! ask     is it still this node's, right now?
//! rest    not watched any more; the reservation stays for the heir to take over
//! online  a disk that was taken from everybody here is given back, once nothing uses it
//! ```
//! The key is kept in a file of the run directory, with the devices whose disks were taken with it,
//! so that a runner that was restarted goes on with them.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use standfast_sys::scsi::Identity;

use super::spec::DiskSpec;
use super::watching::{Asked, Watching};
use crate::engine::Class;
use crate::model::{NodeId, TaskIndex};
use crate::object::aside::Aside;
use crate::object::{BuildContext, Context, ObjectError, Urgency, Watched};
use crate::storage::reservation::{
    Bounds, Claim, ClusterTag, Key, KeyEpoch, ReservedVolume, TakeError, VolumeError, bring_online,
    is_offline,
};

/// Shortest and longest time for one round trip to a disk, whatever `detect` is.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// Polls in a `detect`: an eviction is seen within a heartbeat.
const POLLS: u32 = 10;

/// Between two questions whose disk it is.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// The reservation of one device, or at least the name that its disk must have.
pub(super) struct Fence {
    name: String,
    /// What the object uses.
    device: PathBuf,
    /// What it lies on, as far as that had to be found out: the device itself, or all of a group.
    parts: Vec<PathBuf>,
    identity: Option<Identity>,
    reserved: bool,
    task: TaskIndex,
    cluster: ClusterTag,
    node: NodeId,
    period: Duration,
    patience: Duration,
    key_file: PathBuf,
    detect: Duration,
    /// How a disk that was taken offline is brought back.
    offline_file: PathBuf,
    aside: Aside<io::Result<()>>,
    watch: Option<Watching>,
}

impl Fence {
    /// None for a device without either.
    pub(super) fn new(name: &str, spec: &DiskSpec, context: &BuildContext) -> Option<Fence> {
        if !spec.is_reserved() && spec.identity.is_none() {
            return None;
        }
        let detect = context.detect.to_std();
        Some(Fence {
            name: name.to_owned(),
            device: spec.device.clone(),
            parts: vec![spec.device.clone()],
            identity: spec.identity.clone(),
            reserved: spec.is_reserved(),
            task: context.task,
            cluster: ClusterTag::new(&context.cluster),
            node: context.node_id,
            period: detect / POLLS,
            patience: detect.clamp(PATIENCE.0, PATIENCE.1),
            key_file: context.directory.join(format!("{name}.key")),
            detect,
            offline_file: context.directory.join(format!("{name}.offline")),
            aside: Aside::new(),
            watch: None,
        })
    }

    fn claim(&self, own: Key) -> Claim<'_> {
        Claim {
            devices: &self.parts,
            identity: self.identity.as_ref(),
            own,
        }
    }

    /// Makes sure of the name of the disk, or of all disks that these parts of the device lie on,
    /// and takes it for this node alone.
    pub(super) fn raise(
        &mut self,
        parts: Option<Vec<PathBuf>>,
        context: &Context<'_>,
        deadline: Instant,
    ) -> Result<(), ObjectError> {
        self.rest(deadline);
        self.parts = parts.unwrap_or_else(|| vec![self.device.clone()]);
        let own = Key {
            cluster: self.cluster,
            node: self.node,
            epoch: KeyEpoch::new(context.epoch),
        };
        self.bring_online(deadline)?;
        if !self.reserved {
            ReservedVolume::check_name(self.claim(own), self.patience)?;
            return Ok(());
        }
        let cancelled =
            || context.cancel.is_raised(Urgency::Stop) || !context.permit.may_run(self.task);
        let bounds = Bounds {
            patience: self.patience,
            deadline,
            cancelled: &cancelled,
        };
        let begun = Instant::now();
        let volume =
            ReservedVolume::take(self.claim(own), bounds).map_err(|error| match error {
                VolumeError::Take {
                    source: TakeError::Cancelled,
                    ..
                } => ObjectError::Cancelled,
                error => error.into(),
            })?;
        let ms = begun.elapsed().as_secs_f64() * 1e3;
        let text = format!("{}: reserved {} in {ms:.1} ms", self.name, volume.words());
        (context.note)(Class::Info, text);
        // Without the file a restarted runner asks the disk.
        let _ = fs::write(&self.key_file, words_of(own, &self.parts));
        self.watch(volume)
    }

    /// Watches a disk that was taken before, with the key it was taken with.
    pub(super) fn adopt(&mut self) -> Result<(), ObjectError> {
        if !self.reserved || self.watch.is_some() {
            return Ok(());
        }
        if self.is_offline() {
            let device = self.device.display().to_string();
            return Err(ObjectError::Fenced { device });
        }
        let own = match self.kept() {
            Some((own, parts)) => {
                self.parts = parts;
                own
            }
            None => self.key_on_disk()?,
        };
        let volume = ReservedVolume::adopt(self.claim(own), self.patience)?;
        self.watch(volume)
    }

    fn is_mine(&self, key: Key) -> bool {
        key.cluster == self.cluster && key.node == self.node
    }

    /// The key that was written down, and for what.
    fn kept(&self) -> Option<(Key, Vec<PathBuf>)> {
        let text = fs::read_to_string(&self.key_file).ok()?;
        let (key, parts) = read_words(&text)?;
        Some((key, parts)).filter(|(key, _)| self.is_mine(*key))
    }

    fn key_on_disk(&self) -> Result<Key, ObjectError> {
        let held = ReservedVolume::held_by(&self.parts, self.cluster, self.patience)?;
        held.filter(|key| self.is_mine(*key)).ok_or_else(|| {
            let device = self.device.display();
            ObjectError::Unexpected(format!(
                "{device} is in use, but not reserved for this node"
            ))
        })
    }

    fn watch(&mut self, volume: ReservedVolume) -> Result<(), ObjectError> {
        let kept = self.offline_file.clone();
        self.watch = Some(Watching::begin(&self.name, volume, self.period, kept)?);
        Ok(())
    }

    /// Readable while there is something to tell.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(Watching::descriptor)
    }

    /// What was seen, one thing at a time.
    pub(super) fn told(&mut self) -> Option<Watched> {
        self.watch.as_ref()?.told()
    }

    /// Asks the disk now whether it is still this node's, as often as is needed for an answer and
    /// at most for a `detect`.
    pub(super) fn ask(&self, context: &Context<'_>, deadline: Instant) -> Watched {
        let Some(watch) = &self.watch else {
            return Watched::Fine;
        };
        let deadline = deadline.min(Instant::now() + self.detect);
        loop {
            match watch.ask(deadline) {
                Asked::Ours => return Watched::Fine,
                Asked::Evicted(reason) => return Watched::Evicted { reason },
                Asked::Silent if Instant::now() < deadline => {}
                Asked::Silent => {
                    let device = self.device.display();
                    let reason = format!("{device} does not say whose it is");
                    return Watched::Lost { reason };
                }
            }
            if context.pause(ASK_AGAIN, Urgency::Stop).is_err() {
                return Watched::Fine;
            }
        }
    }

    /// Ends the watch and leaves the reservation. A poll that hangs ends by itself.
    pub(super) fn rest(&mut self, deadline: Instant) {
        if let Some(watch) = self.watch.take() {
            watch.end(deadline);
        }
    }

    /// Was the disk taken from everybody on this node?
    pub(super) fn is_offline(&self) -> bool {
        is_offline(&self.offline_file)
    }

    /// Gives it back, now that nothing on this node has anything left to write to it.
    pub(super) fn bring_online(&mut self, deadline: Instant) -> Result<(), ObjectError> {
        if !self.is_offline() {
            return Ok(());
        }
        let kept = self.offline_file.clone();
        let what = || format!("bring {} online again", self.device.display());
        match self.aside.call(deadline, move || bring_online(&kept)) {
            Ok(done) => done.map_err(ObjectError::file(what())),
            Err(_) => Err(ObjectError::late(format!("did not {}", what()))),
        }
    }
}

/// A watch must not outlive the object: it would go on registering paths.
impl Drop for Fence {
    fn drop(&mut self) {
        self.rest(Instant::now());
    }
}

/// A line with the key, and one for each device.
fn words_of(key: Key, parts: &[PathBuf]) -> String {
    let parts = parts.iter().map(|part| format!("{}\n", part.display()));
    format!("{:#018x}\n{}", key.number(), parts.collect::<String>())
}

fn read_words(text: &str) -> Option<(Key, Vec<PathBuf>)> {
    let mut lines = text.lines();
    let digits = lines.next()?.strip_prefix("0x")?;
    let key = Key::read(u64::from_str_radix(digits, 16).ok()?)?;
    let parts: Vec<PathBuf> = lines.map(PathBuf::from).collect();
    Some((key, parts)).filter(|(_, parts)| !parts.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_down_and_half_of_it_is_not() {
        let key = Key {
            cluster: ClusterTag::new(&[7; 16]),
            node: NodeId::new(3).unwrap(),
            epoch: KeyEpoch::new(9),
        };
        let parts = vec![PathBuf::from("/dev/sdb"), PathBuf::from("/dev/mapper/x")];
        let text = words_of(key, &parts);
        assert_eq!(read_words(&text), Some((key, parts)));
        let first = text.lines().next().unwrap();
        for cut in [first, "0x48", "", "naa.6\n/dev/sdb\n"] {
            assert_eq!(read_words(cut), None, "{cut}");
        }
    }
}
