//! Is a register by compare-and-write still safe on this disk? Asked whenever a node starts, by all
//! nodes that run.
//!
//! ```text
//! starts --> challenger --company, or none--> looks every second --a challenger--> second --.
//!                 |                                ^      |                          |      |
//!                 |                                '------|--------------------------|------'
//!                 '--a change is missing--------------.   | told on the disk         |
//!                                                     v   v                          |
//!                            the register is changed no more <--a change is missing--'
//! ```
//!
//! A thread of its own, of normal priority and with its own open of the disk: neither the link nor
//! the node's way into the cluster waits for it. What it writes nobody else of the daemon relies
//! on: the slots of the view's shadow copies, of which none is made.
//!
//! The heartbeat goes on beside it. Each contender sends one command at a time, then waits, on
//! average as long as that took, once for each other contender: together they keep about one
//! command under way, however many nodes start at once and however slow the disk is. How long each
//! waits is drawn, or two of them might go past each other for ever. A contender ends after
//! [`ROUNDS`], or when [`PACE`] says.
//!
//! Nothing else looks like a lost change: a block that was torn by the read is read once more, who
//! made room for later contenders knows it, an unclear answer leaves open what has become of the
//! change, and after a suspicion the header must still be the same one, for a format wipes it
//! before the counts. A disk that fails ends a contest without a verdict. A verdict of *broken* is
//! told on the disk, see [`Broken`]; until somebody formats it no node changes the register there.

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::Builder;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use standfast_sys::disk::DirectDisk;
use standfast_sys::sentence;

use super::{AreaDisk, good_header, target};
use crate::engine::{Class, Event, Report};
use crate::frame::Keyring;
use crate::link::counters::Counters;
use crate::link::{Parameters, now};
use crate::model::{ClusterId, Incarnation, NodeId};
use crate::register::Compared;
use crate::storage::area::{
    AreaError, AreaNonce, Blocks, Broken, CompareAndWrite, Contender, ContestReport, Header, Part,
    Verdict, Watch, read_broken, read_contest, read_header, write_broken,
};
use crate::time::Span;

/// Changes that a contender sends while others are there. A disk that lets two win now and then
/// does so within some ten of them, if they come at the same time.
const ROUNDS: u64 = 200;

/// Stack of the thread: locked memory in the daemon.
const STACK_BYTES: usize = 128 * 1024;

/// How long everything may take.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Between two looks of who takes no part.
    look: Span,
    /// Between two changes of who has no company.
    call: Span,
    /// A contender without company ends after this: others look at least twice meanwhile.
    alone: Span,
    /// One with company ends after this, counted from when that came.
    together: Span,
}

const PACE: Pace = Pace {
    look: Span::from_ms(1_000),
    call: Span::from_ms(100),
    alone: Span::from_ms(3_000),
    together: Span::from_ms(3_000),
};

/// The thread of one area. Dropping it ends the thread after what it is doing.
pub(super) struct Contest {
    nonce: AreaNonce,
    _running: Sender<Infallible>,
}

impl Contest {
    /// Starts the thread for the area with this header on this device.
    ///
    /// # Errors
    ///
    /// There is no thread to be had.
    pub(super) fn start(
        device: PathBuf,
        header: &Header,
        parameters: &Parameters,
        counters: Arc<Counters>,
        events: Sender<Event>,
    ) -> io::Result<Contest> {
        let (running, stop) = bounded(0);
        let nonce = header.nonce;
        let Parameters {
            cluster,
            ref keyring,
            ..
        } = *parameters;
        let keys = keyring.clone();
        let open = move || Seat::open(&device, &keys, &cluster);
        let judge = Judge {
            link: parameters.index,
            cluster,
            node: parameters.node,
            life: parameters.incarnation,
            keyring: keyring.clone(),
            nonce,
            counters,
            events,
            stop,
            pace: PACE,
            open,
            watch: Watch::default(),
            part: Some(Part::Challenger),
            found: None,
        };
        Builder::new()
            .name(format!("contest-{}", parameters.index))
            .stack_size(STACK_BYTES)
            .spawn(move || judge.run())?;
        Ok(Contest {
            nonce,
            _running: running,
        })
    }

    /// Is it about the area with this nonce?
    pub(super) fn is_about(&self, nonce: &AreaNonce) -> bool {
        self.nonce == *nonce
    }
}

/// What this node is to be told of a verdict that stands on the disk of this link.
pub(super) fn alarm(link: u8, broken: &Broken) -> String {
    format!("link {link}: {}", broken.words())
}

/// The disk, opened.
struct Seat<D> {
    disk: D,
    target: Box<dyn CompareAndWrite>,
    header: Header,
}

impl Seat<AreaDisk> {
    fn open(device: &Path, keyring: &Keyring, cluster: &ClusterId) -> Result<Self, String> {
        let disk = DirectDisk::open(device, true).map_err(|error| sentence(&error))?;
        let disk = AreaDisk::new(disk);
        let header = good_header(&disk, device, keyring, cluster)?;
        let target = target(&disk, &header, device)?;
        Ok(Seat {
            disk,
            target: target.ok_or("the register is not changed by compare-and-write")?,
            header,
        })
    }
}

/// What follows from a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Another look.
    Look,
    /// It is another area than this is about: the right one may come back.
    Reopen,
    /// Nothing is left to be found out.
    End,
}

/// The thread's own.
struct Judge<O> {
    link: u8,
    cluster: ClusterId,
    node: NodeId,
    life: Incarnation,
    keyring: Keyring,
    /// Of the area that it is about.
    nonce: AreaNonce,
    counters: Arc<Counters>,
    events: Sender<Event>,
    /// Disconnected when the thread is to end.
    stop: Receiver<Infallible>,
    pace: Pace,
    open: O,
    watch: Watch,
    /// What it is to take part as next.
    part: Option<Part>,
    /// Not on the disk yet.
    found: Option<Broken>,
}

impl<O> Judge<O> {
    fn run<D: Blocks>(mut self)
    where
        O: FnMut() -> Result<Seat<D>, String>,
    {
        let mut seat = None;
        loop {
            match self.turn(&mut seat) {
                Ok(Next::Look) => {}
                Ok(Next::Reopen) => seat = None,
                Ok(Next::End) => return,
                Err(reason) => {
                    // The link tells what is wrong with the disk. A path that is being removed must
                    // not be held by us.
                    tracing::debug!(link = self.link, %reason, "no contest");
                    seat = None;
                }
            }
            if self.stops_within(self.pace.look) {
                return;
            }
        }
    }

    fn stops_within(&self, span: Span) -> bool {
        let waited = self.stop.recv_timeout(span.to_std());
        matches!(waited, Err(RecvTimeoutError::Disconnected))
    }

    /// One look, and what it calls for.
    fn turn<D: Blocks>(&mut self, seat: &mut Option<Seat<D>>) -> Result<Next, String>
    where
        O: FnMut() -> Result<Seat<D>, String>,
    {
        let seat = match seat {
            Some(seat) => seat,
            None => seat.insert((self.open)()?),
        };
        if seat.header.nonce != self.nonce {
            return Ok(Next::Reopen);
        }
        self.look(seat).map_err(|error| sentence(&error))
    }

    fn look<D: Blocks>(&mut self, seat: &mut Seat<D>) -> Result<Next, AreaError> {
        if let Some(broken) = self.found(seat)? {
            return Ok(self.convict(broken));
        }
        if let Some(broken) = self.found {
            write_broken(&seat.disk, &seat.header, &broken, &self.keyring)?;
            return Ok(Next::End);
        }
        let length = seat.target.block_bytes();
        let block = read_contest(&seat.disk, seat.header.geometry, length)?;
        if self.watch.look(&block) {
            self.part = self.part.or(Some(Part::Second));
        }
        let Some(part) = self.part.take() else {
            return Ok(Next::Look);
        };
        // Before a byte is written there: is it this area still?
        if !self.is_same(seat)? {
            return Ok(Next::Reopen);
        }
        match self.contend(seat, part)? {
            Some(report) => self.judge(seat, &report),
            None => Ok(Next::Look),
        }
    }

    fn is_same<D: Blocks>(&self, seat: &Seat<D>) -> Result<bool, AreaError> {
        let (header, _) = read_header(&seat.disk, &self.keyring, &self.cluster)?;
        Ok(header.nonce == self.nonce)
    }

    fn found(&self, seat: &Seat<impl Blocks>) -> Result<Option<Broken>, AreaError> {
        read_broken(&seat.disk, &seat.header, &self.keyring)
    }

    /// Takes part until it is over. Nothing if the thread is to end, or if somebody has found what
    /// there is to be found.
    fn contend<D: Blocks>(
        &mut self,
        seat: &mut Seat<D>,
        part: Part,
    ) -> Result<Option<ContestReport>, AreaError> {
        let geometry = seat.header.geometry;
        let length = seat.target.block_bytes();
        let mut draw = getrandom::u64().unwrap_or(now().0) | 1;
        let id = part.id(self.node, (draw >> 32) as u32);
        let mut contender = Contender::new(id, ROUNDS);
        let begun = now();
        let (mut joined, mut looked) = (None, begun);
        loop {
            let at = now();
            let block = read_contest(&seat.disk, geometry, length)?;
            let new = contender.read(&block);
            let (since, patience) = if contender.has_company() {
                (*joined.get_or_insert(at), self.pace.together)
            } else {
                (begun, self.pace.alone)
            };
            let (Some(new), true) = (new, at.since(since) <= patience) else {
                // Who is in this block has been met.
                self.watch.look(&block);
                return Ok(Some(contender.report()));
            };
            let offset = geometry.contest();
            let outcome = seat.target.compare_and_write(offset, &block, &new);
            contender.answered(outcome.unwrap_or(Compared::Unclear));
            let pause = match contender.company() {
                0 => self.pace.call,
                others => pause(now().since(at), others, &mut draw),
            };
            if self.stops_within(pause) {
                return Ok(None);
            }
            if at.since(looked) >= self.pace.look {
                looked = at;
                if self.found(seat)?.is_some() {
                    return Ok(None);
                }
            }
        }
    }

    fn judge<D: Blocks>(
        &mut self,
        seat: &Seat<D>,
        report: &ContestReport,
    ) -> Result<Next, AreaError> {
        match report.verdict {
            Verdict::NotContended => Ok(Next::Look),
            Verdict::Proved => {
                if let Some(broken) = self.found(seat)? {
                    return Ok(self.convict(broken));
                }
                let ContestReport { won, others, .. } = *report;
                self.note(
                    Class::Info,
                    format!(
                        "link {}: compare-and-write is sound on this disk: of {won} changes by \
                         this node and {others} by others at the same time each had one winner",
                        self.link
                    ),
                );
                Ok(Next::Look)
            }
            // A format writes over all counts, but over the header before that.
            Verdict::Broken if !self.is_same(seat)? => Ok(Next::Reopen),
            Verdict::Broken => {
                let wall = SystemTime::now().duration_since(UNIX_EPOCH);
                let broken = Broken {
                    node: self.node,
                    life: self.life,
                    won: report.won,
                    wall_ms: wall.map_or(0, |wall: Duration| wall.as_millis() as u64),
                };
                self.convict(broken);
                self.found = Some(broken);
                write_broken(&seat.disk, &seat.header, &broken, &self.keyring)?;
                Ok(Next::End)
            }
        }
    }

    /// From here on this node does not change the register.
    fn convict(&mut self, broken: Broken) -> Next {
        let text = alarm(self.link, &broken);
        // The link may have found it on the disk before; then this only tells it.
        let _ = self.counters.register_lost.set(text.clone());
        if self.found.is_none() {
            self.note(Class::Critical, text);
        }
        Next::End
    }

    fn note(&self, class: Class, text: String) {
        let task = None;
        // Without an engine nobody wants to know.
        let _ = self
            .events
            .send(Event::Report(Report::Note { task, class, text }));
    }
}

/// How long to wait after a round that took so long, beside so many others: from nothing to twice
/// as long as one round of each of them (splitmix64).
fn pause(round: Span, others: usize, draw: &mut u64) -> Span {
    *draw = draw.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *draw;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    round.times(mixed % (2 * others as u64 + 1))
}
