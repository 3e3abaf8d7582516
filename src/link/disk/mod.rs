//! A disk as a link: every node writes its frame into its own slot and reads the slots of all; the
//! register's blocks lie between the slots and are read along.
//!
//! ```text
//!                        .-- a transfer failed: pause, then opened anew --.
//!                        v                                               |
//!  [closed] --opened, header good--> [down] --a write and a read succeeded--> [up]
//!      ^                                |
//!      '-- cannot be opened: pause -----'
//! ```
//!
//! During the pause the disk is still written and read at each heartbeat, so a node that may no
//! longer write (a reservation keeps it out) still learns from the register what has become of it.
//! What the engine orders waits until the disk works or another try has failed.
//!
//! One of three disks is opened for good only together with another one, see [`Companions`]; until
//! then it counts as one that cannot be opened.
//!
//! Runs in the disk's own thread, the only one that waits for it: one transfer at a time, so never
//! two under way in one slot. A transfer that does not return stops this thread and nothing else;
//! the handle keeps the newest frame meanwhile. Beside it another one finds out whether the disk
//! still compares and writes in one step, see [`contest`]; where it does not, frames go on and the
//! register is not changed from here.

mod area;
mod blocks;
mod companions;
mod compare;
mod contest;
mod probe;
mod record;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::Sender;
use mio::Registry;
use standfast_sys::disk::DirectDisk;
use standfast_sys::sentence;

pub use blocks::AreaDisk;
pub use companions::{Companions, Stranger};
pub use compare::{CannotCompare, LogicalUnit};
pub use probe::{DiskProbe, Measured, ProbeError, probe_disk};

use super::backoff::Backoff;
use super::counters::{Count, Counters};
use super::outlet::Outlet;
use super::{Link, Load, Parameters, Readiness, Received, Scope, State, now};
use crate::engine::Event;
use crate::frame::{Frame, Keyring};
use crate::model::{ClusterId, NodeId};
use crate::register::{Block, Change, Compared};
use crate::storage::area::{AreaError, CompareAndWrite, Header, Medium, read_broken, read_header};
use crate::time::{Instant, Span};
use area::{Area, TransferError};
use contest::Contest;

/// Pause before a disk that has failed is opened anew, doubled by each further failure.
const RETRY_FIRST: Span = Span::from_ms(50);

/// The longest pause: a disk that comes back is in use again after this at the latest.
const RETRY_MAX: Span = Span::from_ms(2_000);

/// One disk.
pub(super) struct DiskLink {
    parameters: Parameters,
    device: PathBuf,
    highest: NodeId,
    /// Position among the register's disks, and those.
    disk: u8,
    companions: Companions,
    counters: Arc<Counters>,
    events: Sender<Event>,
    area: Option<Area>,
    /// Where the register is changed by compare-and-write.
    contest: Option<Contest>,
    state: State,
    /// A transfer of each kind has succeeded since the last failure.
    wrote: bool,
    read: bool,
    retry: Backoff,
    /// When to open it anew; none while nothing is wrong.
    retry_at: Option<Instant>,
}

impl DiskLink {
    pub(super) fn new(
        parameters: Parameters,
        device: PathBuf,
        highest: NodeId,
        (disk, companions): (u8, Companions),
        counters: Arc<Counters>,
        events: Sender<Event>,
    ) -> DiskLink {
        DiskLink {
            parameters,
            device,
            highest,
            disk,
            companions,
            counters,
            events,
            area: None,
            contest: None,
            state: State::down("not tried yet"),
            wrote: false,
            read: false,
            retry: Backoff::new(RETRY_FIRST, RETRY_MAX),
            retry_at: Some(Instant(0)),
        }
    }

    /// Opens the disk, or opens it anew: the device may be another one by now.
    fn open(&mut self) {
        let was_closed = self.area.is_none();
        // Before the new one is opened: a path that is being removed must not be held by us.
        self.area = None;
        match self.open_area() {
            Ok(area) => {
                if area.has_record() {
                    self.begin_contest(&area.header);
                }
                self.area = Some(area);
                self.retry_at = None;
                if was_closed {
                    let device = self.device.display();
                    let reason = format!("{device} has a good area, nothing written and read yet");
                    self.state = State::down(reason);
                }
            }
            Err(reason) => self.fail(reason),
        }
    }

    /// Has the disk tried for what the register relies on, once for each area that is found on it.
    fn begin_contest(&mut self, header: &Header) {
        let known = self.contest.as_ref();
        if known.is_some_and(|contest| contest.is_about(&header.nonce)) {
            return;
        }
        let device = self.device.clone();
        let (counters, events) = (self.counters.clone(), self.events.clone());
        match Contest::start(device, header, &self.parameters, counters, events) {
            Ok(contest) => self.contest = Some(contest),
            Err(error) => tracing::warn!(%error, "the disk is not tried for compare-and-write"),
        }
    }

    /// Opens the device and checks that it holds this cluster's area with a place for every node.
    fn open_area(&self) -> Result<Area, String> {
        let Parameters {
            cluster,
            node,
            keyring,
            ..
        } = &self.parameters;
        let disk = DirectDisk::open(&self.device, true).map_err(|error| sentence(&error))?;
        let disk = AreaDisk::new(disk);
        let header = good_header(&disk, &self.device, keyring, cluster)?;
        let places = header.geometry.nodes_max();
        let highest = self.highest.max(*node);
        if highest.number() > places {
            return Err(format!(
                "{}: the disk area has places for {places} nodes, none for node {highest}; stop \
                 Standfast on all nodes and run 'standfast disk format'",
                self.device.display()
            ));
        }
        let admitted = self.companions.admit(usize::from(self.disk), &header);
        admitted.map_err(|stranger| {
            let device = self.device.display();
            format!("{device}: {stranger}; {}", stranger.help())
        })?;
        let target = target(&disk, &header, &self.device)?;
        if target.is_some() {
            let broken = read_broken(&disk, &header, keyring).map_err(|error| sentence(&error))?;
            if let Some(broken) = broken {
                let lost = contest::alarm(self.parameters.index, &broken);
                self.counters.register_lost.get_or_init(|| lost);
            }
        }
        let counters = self.counters.clone();
        Ok(Area::new(
            disk,
            header,
            highest,
            &self.parameters,
            counters,
            target,
        ))
    }

    /// Something went wrong: down, and opened anew after a pause.
    fn fail(&mut self, reason: String) {
        (self.wrote, self.read) = (false, false);
        self.state = State::down(reason);
        let now = now();
        if self.retry_at.is_none_or(|at| at <= now) {
            self.retry_at = Some(self.retry.fail(now));
        }
    }

    /// A transfer has succeeded: up, once both kinds have.
    fn succeed(&mut self) {
        if self.wrote && self.read && !self.state.up {
            self.state = State::up(format!("{} is read and written", self.device.display()));
            self.retry.forgive();
            self.retry_at = None;
        }
    }

    fn read_failed(&mut self, begun: Instant, out: &mut Outlet) -> Received {
        self.counters.add(Count::RecvFailed);
        let disk = self.disk;
        out.tell(Event::DiskReadFailed { disk, begun });
        Received::Unknown
    }

    fn write_frame(&mut self, frame: &Frame) {
        let Some(area) = &mut self.area else {
            self.counters.add(Count::Unsent);
            return;
        };
        match area.write_frame(frame) {
            Ok(()) => {
                self.counters.add(Count::Sent);
                self.wrote = true;
                self.succeed();
            }
            Err(error) => {
                self.counters.add(Count::SendFailed);
                self.fail(sentence(&error));
            }
        }
    }

    /// Writes the own block. Which copy must not be written is known only from a read.
    fn write_block(&mut self, block: &Block, out: &mut Outlet) {
        if self
            .area
            .as_ref()
            .is_some_and(|area| !area.knows_own_block())
        {
            self.recv(Scope::All, out);
        }
        let result = self.area.as_mut().map(|area| area.write_block(block));
        let (at, disk) = (now(), self.disk);
        if let Some(Ok(())) = result {
            out.tell(Event::DiskWritten { disk, at });
            return;
        }
        self.counters.add(Count::SendFailed);
        if let Some(Err(TransferError::Disk(error))) = result {
            self.fail(sentence(&error));
        }
        out.tell(Event::DiskWriteFailed { disk, at });
    }
}

impl DiskLink {
    /// Changes the register's record. What must be there is known only from a read.
    fn change(&mut self, change: &Change, out: &mut Outlet) {
        if self.area.as_ref().is_some_and(|area| !area.knows_record()) {
            self.recv(Scope::All, out);
        }
        let outcome = self.area.as_mut().map(|area| area.change(change));
        let outcome = outcome.unwrap_or(Compared::Unclear);
        let at = now();
        match outcome {
            Compared::Done | Compared::Miscompare => self.counters.add(Count::Sent),
            // Nothing was sent, and nothing is wrong with the path.
            Compared::Unclear if self.counters.register_lost.get().is_some() => {}
            Compared::Unclear => {
                self.counters.add(Count::SendFailed);
                let device = self.device.display();
                self.fail(format!(
                    "{device}: a change of the register may be done or not"
                ));
            }
        }
        out.tell(Event::DiskCompared { at, outcome });
    }
}

impl Link for DiskLink {
    fn ready(&mut self, now: Instant, _registry: &Registry, _changed: bool) -> Readiness {
        let due = self.retry_at.is_some_and(|at| at <= now);
        if due {
            self.open();
        }
        let again = self.retry_at.unwrap_or(Instant::NEVER);
        Readiness {
            again,
            answers: due || self.retry_at.is_none(),
        }
    }

    fn recv(&mut self, scope: Scope, out: &mut Outlet) -> Received {
        let begun = now();
        let Some(area) = &mut self.area else {
            return self.read_failed(begun, out);
        };
        match area.read(scope) {
            Ok(seen) => {
                area.tell_frames(out);
                out.tell(Event::DiskRead {
                    disk: self.disk,
                    begun: seen.begun,
                    ended: seen.ended,
                    seen: seen.shown,
                });
                self.read = true;
                self.succeed();
                Received::All
            }
            Err(error) => {
                self.fail(sentence(&error));
                self.read_failed(begun, out)
            }
        }
    }

    fn send(&mut self, load: Load<'_>, out: &mut Outlet) {
        match load {
            Load::Frame(frame) => self.write_frame(frame),
            Load::Packet(_) => {}
            Load::Block(block) => self.write_block(block, out),
            Load::Change(change) => self.change(change, out),
        }
    }

    fn reads_after_write(&self) -> bool {
        !self.area.as_ref().is_some_and(Area::has_record)
    }

    fn state(&self) -> &State {
        &self.state
    }
}

/// What changes the record, in an area that has one.
fn target(
    disk: &AreaDisk,
    header: &Header,
    device: &Path,
) -> Result<Option<Box<dyn CompareAndWrite>>, String> {
    if header.medium == Medium::Paxos {
        return Ok(None);
    }
    let device = device.display();
    let needs = "its register is changed by compare-and-write";
    let unit = LogicalUnit::open(disk.disk())
        .map_err(|error| format!("{device}: {needs}, but {}", sentence(&error)))?;
    if unit.block_bytes() != header.block_size as usize {
        let (now, then) = (unit.block_bytes(), header.block_size);
        return Err(format!(
            "{device}: blocks of {now} bytes, but of {then} when it was formatted; stop Standfast \
             on all nodes and run 'standfast disk format'"
        ));
    }
    Ok(Some(Box::new(unit)))
}

/// The area's header, or what is wrong and what to do about it.
fn good_header(
    disk: &AreaDisk,
    device: &Path,
    keyring: &Keyring,
    cluster: &ClusterId,
) -> Result<Header, String> {
    let device = device.display();
    match read_header(disk, keyring, cluster) {
        Ok((header, _)) => Ok(header),
        Err(AreaError::Header(error)) => Err(format!("{device}: {error}; {}", error.help())),
        Err(other) => Err(format!("{device}: {}", sentence(&other))),
    }
}
