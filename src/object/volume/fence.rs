//! The array's part in a volume: reserved before it is written to, watched while it is mounted.
//!
//! ```text
//! raise   the disk has the right name -> taken -> watched by a thread of its own
//! adopt   the key of an earlier life of this process -> watched
//! told    what the thread has seen; an eviction ends the task
//! rest    not watched any more; the reservation stays for the heir to take over
//! ```
//! The key is kept in a file of the run directory, so that a runner that was restarted goes on with
//! it.

use std::collections::VecDeque;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::{Condvar, Mutex};
use standfast_sys::scsi::Identity;

use super::spec::Spec;
use crate::engine::Class;
use crate::model::{NodeId, TaskIndex};
use crate::object::{BuildContext, Context, ObjectError, Urgency, Watched};
use crate::storage::reservation::{
    Bounds, Claim, ClusterTag, Found, Key, KeyEpoch, ReservedVolume, TakeError, VolumeError,
};

/// Shortest and longest time for one round trip to a disk, whatever `detect` is.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// Polls in a `detect`: an eviction is seen within a heartbeat.
const POLLS: u32 = 10;

/// Most findings that wait for the worker; the oldest goes first, an eviction is the last.
const FOUND_MAX: usize = 64;

/// How long a poll that is under way is waited for when the watch ends.
const REST_MAX: Duration = Duration::from_secs(2);

/// The reservation of one volume, or at least the name that its disk must have.
pub(super) struct Fence {
    name: String,
    device: PathBuf,
    identity: Option<Identity>,
    reserved: bool,
    task: TaskIndex,
    cluster: ClusterTag,
    node: NodeId,
    period: Duration,
    patience: Duration,
    key_file: PathBuf,
    watch: Option<Watching>,
}

/// A thread that watches.
struct Watching {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    bell: EventFd,
}

#[derive(Default)]
struct State {
    ending: bool,
    ended: bool,
    found: VecDeque<(String, Found)>,
}

impl Fence {
    /// None for a volume without either.
    pub(super) fn new(name: &str, spec: &Spec, context: &BuildContext) -> Option<Fence> {
        if !spec.is_reserved() && spec.identity.is_none() {
            return None;
        }
        let detect = context.detect.to_std();
        Some(Fence {
            name: name.to_owned(),
            device: spec.device.clone(),
            identity: spec.identity.clone(),
            reserved: spec.is_reserved(),
            task: context.task,
            cluster: ClusterTag::new(&context.cluster),
            node: context.node_id,
            period: detect / POLLS,
            patience: detect.clamp(PATIENCE.0, PATIENCE.1),
            key_file: context.directory.join(format!("{name}.key")),
            watch: None,
        })
    }

    fn claim(&self, own: Key) -> Claim<'_> {
        Claim {
            device: &self.device,
            identity: self.identity.as_ref(),
            own,
        }
    }

    /// Makes sure of the disk's name and takes it for this node alone.
    pub(super) fn raise(
        &mut self,
        context: &Context<'_>,
        deadline: Instant,
    ) -> Result<(), ObjectError> {
        self.rest(deadline);
        let own = Key {
            cluster: self.cluster,
            node: self.node,
            epoch: KeyEpoch::new(context.epoch),
        };
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
        let _ = fs::write(&self.key_file, format!("{:#018x}\n", own.number()));
        self.watch(volume)
    }

    /// Watches a disk that was taken before, with the key it was taken with.
    pub(super) fn adopt(&mut self) -> Result<(), ObjectError> {
        if !self.reserved || self.watch.is_some() {
            return Ok(());
        }
        let own = match self.kept_key() {
            Some(own) => own,
            None => self.key_on_disk()?,
        };
        let volume = ReservedVolume::adopt(self.claim(own), self.patience)?;
        self.watch(volume)
    }

    fn is_mine(&self, key: Key) -> bool {
        key.cluster == self.cluster && key.node == self.node
    }

    fn kept_key(&self) -> Option<Key> {
        let text = fs::read_to_string(&self.key_file).ok()?;
        let digits = text.trim().strip_prefix("0x")?;
        let key = Key::read(u64::from_str_radix(digits, 16).ok()?)?;
        Some(key).filter(|key| self.is_mine(*key))
    }

    fn key_on_disk(&self) -> Result<Key, ObjectError> {
        let held = ReservedVolume::held_by(&self.device, self.cluster, self.patience)?;
        held.filter(|key| self.is_mine(*key)).ok_or_else(|| {
            let device = self.device.display();
            ObjectError::Unexpected(format!(
                "{device} is mounted, but not reserved for this node"
            ))
        })
    }

    fn watch(&mut self, volume: ReservedVolume) -> Result<(), ObjectError> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_flags(flags).map_err(std::io::Error::from);
        let bell = event.map_err(ObjectError::file("create an event for a reservation"))?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
            bell,
        });
        let (mine, period) = (Arc::clone(&shared), self.period);
        // The kernel shows 15 bytes of a thread's name.
        let thread = thread::Builder::new()
            .name(format!("keep {}", self.name))
            .spawn(move || mine.keep(volume, period))
            .map_err(ObjectError::file("start the thread of a reservation"))?;
        self.watch = Some(Watching { shared, thread });
        Ok(())
    }

    /// Readable while there is something to tell.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(|watch| watch.shared.bell.as_fd())
    }

    /// What was seen, one thing at a time.
    pub(super) fn told(&mut self) -> Option<Watched> {
        let watch = self.watch.as_ref()?;
        let mut state = watch.shared.state.lock();
        let next = state.found.pop_front();
        if state.found.is_empty() {
            let _ = watch.shared.bell.read();
        }
        next.map(|(disk, found)| tell(&disk, &found))
    }

    /// Ends the watch and leaves the reservation. A poll that hangs ends by itself.
    pub(super) fn rest(&mut self, deadline: Instant) {
        let Some(watch) = self.watch.take() else {
            return;
        };
        let until = deadline.min(Instant::now() + REST_MAX);
        let mut state = watch.shared.state.lock();
        state.ending = true;
        watch.shared.changed.notify_all();
        while !state.ended {
            if watch
                .shared
                .changed
                .wait_until(&mut state, until)
                .timed_out()
            {
                return;
            }
        }
        drop(state);
        let _ = watch.thread.join();
    }
}

/// A watch must not outlive the object: it would go on registering paths.
impl Drop for Fence {
    fn drop(&mut self) {
        self.rest(Instant::now() + REST_MAX);
    }
}

impl Shared {
    fn keep(&self, mut volume: ReservedVolume, period: Duration) {
        loop {
            let begun = Instant::now();
            let found = volume.poll();
            let evicted = found
                .iter()
                .any(|(_, found)| matches!(found, Found::Evicted { .. }));
            let mut state = self.state.lock();
            for one in found {
                if state.found.len() == FOUND_MAX {
                    state.found.pop_front();
                }
                state.found.push_back(one);
                // A full counter is readable already, which is all that is wanted of it.
                let _ = self.bell.write(1);
            }
            while !state.ending && !evicted && Instant::now() < begun + period {
                self.changed.wait_until(&mut state, begun + period);
            }
            if state.ending || evicted {
                state.ended = true;
                self.changed.notify_all();
                return;
            }
        }
    }
}

fn tell(disk: &str, found: &Found) -> Watched {
    let (class, text) = match found {
        Found::Evicted { by: Some(by) } => {
            let reason = format!("fenced: {disk} has been taken over with key {by}");
            return Watched::Evicted { reason };
        }
        Found::Evicted { by: None } => {
            let reason = format!("fenced: {disk} is not registered for this node any more");
            return Watched::Evicted { reason };
        }
        Found::Stripped => (
            Class::Major,
            format!("the reservation of {disk} was gone, though nobody had taken it; it is back"),
        ),
        Found::PathLost { path, why } => (
            Class::Warning,
            format!("the path {path} to {disk} does not answer: {why}"),
        ),
        Found::PathBack { path } => (
            Class::Notice,
            format!("the path {path} to {disk} answers again"),
        ),
        Found::Registered { path } => (
            Class::Warning,
            format!("the path {path} to {disk} was not registered; it is now"),
        ),
        Found::Removed { key } => (
            Class::Warning,
            format!("removed a registration of {disk} that is out of date: {key}"),
        ),
        Found::Stranger { key } => (
            Class::Major,
            format!("{disk} is registered by somebody else too: {key}"),
        ),
    };
    Watched::Note { class, text }
}
