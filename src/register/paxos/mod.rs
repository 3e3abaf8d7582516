//! The register's state machine; the module's head has the protocol and why it is safe.
//!
//! ```text
//! Idle ------propose / settle------> Waiting --own block free--> Writing Promise
//!  ^  ^                                 ^                            | Written
//!  |  |                                 |                            v
//!  |  '--no proposal-- higher mbal -----+----------------------- Reading Promise
//!  |                   or lost write    |                            | nobody higher
//!  |                                    |                            v
//!  |                                    +----------------------- Writing Accept
//!  |                                    |                            | Written
//!  |                                    |                            v
//!  '----- Won, Lost, settled -----------+----------------------- Reading Accept
//! ```
//!
//! Where the disk has a record (compare-and-write):
//!
//! ```text
//! Idle --> Waiting --the image is known--> Storing --Written--> Comparing --Done--> Idle
//!             ^                                                    |
//!             '-- lost write, miscompare, unclear and not done ----'
//! ```
//!
//! While the disk does not answer, a ballot of a proposal asks all nodes instead:
//!
//! ```text
//! Waiting --all are there--> Asking Promise --all promised--> Asking Accept --all accepted--> Idle
//! ```

mod compare;
mod network;
mod reading;
mod state;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::model::{NodeId, NodeSet};
use crate::time::{Instant, Span};

use super::acceptor::Acceptor;
use super::disks::Disks;
use super::shared::Shared;
use super::{
    Ballot, Block, Event, Memory, Message, News, Order, Refused, Trouble, VALUE_MAX, Value,
};
pub use network::MAIL_MAX;
use network::Round;
pub(super) use state::Stage;
use state::{Elsewhere, Media, Newer, Outbox, Phase, Proposal};

/// Ballots of one proposal; with the back-off they outlast every sensible deadline.
const TRIES_MAX: u32 = 64;

/// The back-off doubles with each try up to this power of two.
const BACKOFF_DOUBLINGS: u32 = 5;

/// Back-offs to wait before settling a ballot that somebody began and did not end.
const SETTLE_BACKOFFS: u64 = 8;

/// One node's part of the register: compare-and-swap by Paxos, on one disk or among all nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Register {
    me: NodeId,
    nodes: NodeSet,
    backoff: Span,
    jitter: u64,
    disks: Disks,
    /// In place of the own block on the only disk, where that is changed by compare-and-write; the
    /// first read tells.
    shared: Option<Shared>,
    acceptor: Acceptor,
    media: Media,
    phase: Phase,
    round: Round,
    mail: VecDeque<(NodeSet, Message)>,
    proposal: Option<Proposal>,
    known: Value,
    /// End of the read that showed `known` to be decided.
    known_at: Instant,
    newer: Option<Newer>,
    elsewhere: Elsewhere,
    /// When to write to the disk what this node has accepted over the network, if nobody has.
    behind: Option<Instant>,
    /// Highest ballot ever seen or begun.
    highest: Ballot,
    outbox: Outbox,
    halted: Option<Trouble>,
}

impl Register {
    /// A register that knows nothing yet. `nodes` are those whose blocks must be on the disk,
    /// `seed` feeds the jitter, `backoff` is about the time of one undisturbed ballot (two writes,
    /// two reads), `memory` is what the node's own file
    /// says, if that is known already.
    #[must_use]
    pub fn new(me: NodeId, nodes: NodeSet, seed: u64, backoff: Span, memory: Memory) -> Register {
        let mut register = Register {
            me,
            nodes: nodes.with(me),
            backoff,
            jitter: seed,
            disks: Disks::new(1),
            shared: None,
            acceptor: Acceptor::new(memory),
            media: Media {
                disk: true,
                network: false,
            },
            phase: Phase::Idle,
            round: Round::default(),
            mail: VecDeque::new(),
            proposal: None,
            known: Value::default(),
            known_at: Instant::default(),
            newer: None,
            elsewhere: Elsewhere::default(),
            behind: None,
            highest: Ballot::NONE,
            outbox: Outbox::default(),
            halted: None,
        };
        register.ask_for_reads(Instant::default());
        register
    }

    /// The same on so many disks, of which a majority decides.
    ///
    /// # Panics
    /// If these are neither one nor three, or if anything was done with this register before.
    #[must_use]
    pub fn on_disks(mut self, count: usize) -> Register {
        assert!(self.acceptor.state().writes == 0 && !self.is_recovered());
        self.disks = Disks::new(count);
        self.ask_for_reads(Instant::default());
        self
    }

    /// Takes in what has happened; on a disk, on the only one. `now` is not before any instant in
    /// the event.
    pub fn handle(&mut self, now: Instant, event: Event<'_>) {
        self.handle_on(0, now, event);
    }

    /// Takes in what has happened; if on a disk, on this one, counted from 0.
    pub fn handle_on(&mut self, disk: usize, now: Instant, event: Event<'_>) {
        match event {
            Event::ReadDone { begun, ended, seen } => {
                self.read_done(now, disk, (begun, ended), seen);
            }
            Event::ReadFailed { begun } => self.read_failed(now, disk, begun),
            Event::Written { .. } if self.shared.is_some() => self.stored(now, true),
            Event::WriteFailed { .. } if self.shared.is_some() => self.stored(now, false),
            Event::Written { at } => {
                if let Some(disk) = self.disks.of_mut(disk) {
                    disk.written(at);
                }
                self.landed();
            }
            Event::WriteFailed { at } => {
                if let Some(disk) = self.disks.of_mut(disk) {
                    disk.not_written(at);
                }
            }
            Event::Compared { at, outcome } => self.compared(now, at, outcome),
            Event::Heard { from, message } => self.heard(now, from, message),
            Event::DecidedElsewhere { epoch } if epoch > self.elsewhere.epoch => {
                self.elsewhere = Elsewhere { epoch, since: now };
            }
            Event::DecidedElsewhere { .. } => {}
            Event::Remembered(memory) => {
                self.acceptor.remember(memory);
                self.recover();
            }
            Event::Kept => self.acceptor.kept(),
            Event::KeepFailed => self.acceptor.keep_failed(),
            Event::Media { disk, network } => self.media = Media { disk, network },
            Event::Tick => {}
        }
        self.advance(now);
    }

    /// Asks for `new` in the place of the value with the epoch and nonce `expected`; the answer is
    /// one of `Won`, `Lost`, `GaveUp`. Its nonce must never have been proposed before.
    ///
    /// # Errors
    /// See [`Refused`]; an outcome that was not polled yet also counts as busy.
    pub fn propose(
        &mut self,
        now: Instant,
        expected: (u64, u64),
        new: Value,
        deadline: Instant,
    ) -> Result<(), Refused> {
        if self.proposal.is_some() || self.outbox.outcome.is_some() {
            return Err(Refused::Busy);
        }
        if expected.0.checked_add(1) != Some(new.epoch) {
            return Err(Refused::NotNext {
                expected: expected.0,
                new: new.epoch,
            });
        }
        if new.bytes.len() > VALUE_MAX {
            return Err(Refused::TooLong(new.bytes.len()));
        }
        self.proposal = Some(Proposal {
            expected,
            new,
            deadline,
            tries: 0,
            tried: false,
        });
        self.resolve(self.known_at);
        if self.proposal.is_some() && matches!(self.phase, Phase::Idle) {
            self.phase = Phase::Waiting(now);
        }
        self.advance(now);
        Ok(())
    }

    /// What to do next on the only disk.
    #[must_use]
    pub fn poll_order(&mut self) -> Option<Order> {
        self.poll_order_on(0)
    }

    /// What to do next on this disk, counted from 0.
    #[must_use]
    pub fn poll_order_on(&mut self, disk: usize) -> Option<Order> {
        if let Some(order) = self.shared.as_mut().and_then(Shared::poll) {
            return Some(order);
        }
        self.disks.of_mut(disk)?.poll()
    }

    /// The record to put into the node's own file now, durably, beside the one before it. At most
    /// one is under way.
    #[must_use]
    pub fn poll_record(&mut self) -> Option<Block> {
        self.acceptor.poll_keep()
    }

    /// What to send over the networks now, and to whom. It may be lost.
    #[must_use]
    pub fn poll_mail(&mut self) -> Option<(NodeSet, Message)> {
        self.mail.pop_front()
    }

    /// What has become known: first what was learned, then the outcome, then the proof.
    #[must_use]
    pub fn poll_news(&mut self) -> Option<News> {
        let outbox = &mut self.outbox;
        if let Some(value) = outbox.learned.take() {
            return Some(News::Learned(value));
        }
        if let Some(outcome) = outbox.outcome.take() {
            return Some(outcome);
        }
        outbox.proof.take().map(|begun| News::Proof {
            begun,
            epoch: self.known.epoch,
        })
    }

    /// When to come back with [`Event::Tick`] if nothing else happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let mut next = self
            .proposal
            .as_ref()
            .map_or(Instant::NEVER, |proposal| proposal.deadline);
        if let Some((start, _)) = self.starts_at() {
            next = next.min(start);
        }
        if let Phase::Asking(..) = self.phase {
            next = next.min(self.round.again);
        }
        if let Some(read) = self.reads_due() {
            next = next.min(read);
        }
        if let Some(close) = self.close_due() {
            next = next.min(close);
        }
        next
    }

    /// The newest value known to be decided; epoch 0 if none is.
    #[must_use]
    pub fn known(&self) -> &Value {
        &self.known
    }

    /// Have the own block and the own file been read since the start?
    #[must_use]
    pub fn is_recovered(&self) -> bool {
        self.acceptor.is_recovered()
    }

    /// Can this node answer others over the network?
    #[must_use]
    pub fn votes(&self) -> bool {
        self.acceptor.votes() && self.halted.is_none()
    }

    /// Has it stopped for good? Only a person can do something about it.
    #[must_use]
    pub fn halted(&self) -> Option<Trouble> {
        self.halted
    }

    /// What is wrong, if anything; the worst first. One disk of three is not missed.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.halted.or_else(|| self.disks.trouble())
    }

    /// What is wrong with this disk, counted from 0.
    #[must_use]
    pub fn trouble_on(&self, disk: usize) -> Option<Trouble> {
        self.disks.of(disk)?.trouble()
    }

    /// Why this one of three disks, counted from 0, does not count any more, for as long as this
    /// register lives; `None` if it does.
    #[must_use]
    pub fn left_out(&self, disk: usize) -> Option<Trouble> {
        self.disks.of(disk)?.left_out()
    }

    // ---- what follows from a ballot ----

    /// The proposal if the value it expects is the newest, else that newest value itself.
    fn value_to_accept(&mut self, newest: Option<&Value>) -> Value {
        let id = newest.map_or((0, 0), Value::id);
        match &mut self.proposal {
            Some(proposal) if id == proposal.expected => {
                proposal.tried = true;
                proposal.new.clone()
            }
            Some(_) | None => newest.cloned().unwrap_or_default(),
        }
    }

    /// A quorum has accepted it, and nobody had begun a higher ballot by then.
    fn decided(&mut self, now: Instant, at: Instant, value: Value) {
        self.phase = Phase::Idle;
        if value.epoch > self.known.epoch {
            self.learn(&value, at);
        } else if value.epoch == self.known.epoch && value != self.known {
            self.halt(Trouble::WentBack);
            return;
        }
        let known = self.known.id();
        match self.proposal.take_if(|proposal| proposal.expected != known) {
            Some(_) => {
                let current = self.known.clone();
                self.outbox.outcome = Some(News::Lost {
                    current,
                    unclear: false,
                });
            }
            None if self.proposal.is_some() => self.phase = Phase::Waiting(now),
            None => {}
        }
    }

    fn learn(&mut self, value: &Value, at: Instant) {
        self.known = value.clone();
        self.known_at = at;
        self.newer = None;
        self.outbox.learned = Some(value.clone());
        self.outbox.proof = None;
        self.resolve(at);
    }

    /// Answers the proposal if what is known decides it.
    fn resolve(&mut self, at: Instant) {
        let known = self.known.id();
        let open =
            |proposal: &Proposal| known == proposal.expected || known.0 < proposal.expected.0;
        let Some(proposal) = self.proposal.take_if(|proposal| !open(proposal)) else {
            return;
        };
        self.let_ballot_go();
        self.outbox.outcome = Some(if proposal.new.id() == known {
            News::Won {
                value: proposal.new,
                at,
            }
        } else {
            let unclear = proposal.tried && known.0 > proposal.new.epoch;
            News::Lost {
                current: self.known.clone(),
                unclear,
            }
        });
    }

    fn give_up(&mut self) {
        if let Some(proposal) = self.proposal.take() {
            self.outbox.outcome = Some(News::GaveUp {
                unclear: proposal.tried,
            });
        }
        self.let_ballot_go();
    }

    /// The proposal needs its ballot no more. What stands on the disk of it is carried to its end
    /// all the same, with the value found there: left alone, it would keep others from learning.
    fn let_ballot_go(&mut self) {
        match self.phase {
            Phase::Waiting(_) => self.phase = Phase::Idle,
            Phase::Writing(_, Stage::Promise) if self.disks.withdraw_whole() => {
                self.phase = Phase::Idle;
            }
            Phase::Storing(_) => {
                if self.withdraw_change() {
                    self.phase = Phase::Idle;
                }
            }
            Phase::Asking(..) => self.phase = Phase::Idle,
            Phase::Idle | Phase::Writing(..) | Phase::Reading(..) | Phase::Comparing(_) => {}
        }
    }

    fn halt(&mut self, trouble: Trouble) {
        self.halted = self.halted.or(Some(trouble));
        self.newer = None;
        self.outbox.proof = None;
        self.give_up();
        self.disks.withdraw();
        self.withdraw_change();
        self.phase = Phase::Idle;
    }

    /// The own block is on the disks: time to read.
    fn landed(&mut self) {
        match self.phase {
            Phase::Writing(ballot, stage) => {
                if let Some(since) = self.disks.landed(ballot, stage) {
                    self.phase = Phase::Reading(ballot, stage, since);
                }
            }
            Phase::Idle
            | Phase::Waiting(_)
            | Phase::Reading(..)
            | Phase::Storing(_)
            | Phase::Comparing(_)
            | Phase::Asking(..) => {}
        }
    }

    /// The ballot came to nothing: another one later, if it is still needed.
    fn retry(&mut self, now: Instant) {
        self.phase = Phase::Idle;
        let due = now + self.settle_delay();
        if let Some(newer) = &mut self.newer {
            newer.due = due;
        }
        let Some(proposal) = &mut self.proposal else {
            return;
        };
        proposal.tries += 1;
        if proposal.tries == TRIES_MAX {
            self.give_up();
            return;
        }
        let doublings = (proposal.tries - 1).min(BACKOFF_DOUBLINGS);
        let delay = self.jittered(self.backoff.times(1 << doublings));
        self.phase = Phase::Waiting(now + delay);
    }

    // ---- what is due ----

    fn advance(&mut self, now: Instant) {
        let late = |proposal: &Proposal| now >= proposal.deadline;
        if self.proposal.as_ref().is_some_and(late)
            || (self.halted.is_some() && self.proposal.is_some())
        {
            self.give_up();
        }
        self.leave_dead_disk(now);
        self.return_to_disk(now);
        self.close_open_change(now);
        if let Some((start, by_network)) = self.starts_at()
            && now >= start
        {
            self.start_ballot(now, by_network);
        }
        self.ask_again(now);
        self.answer(now);
        self.ask_for_reads(now);
    }

    /// A ballot on a disk that does not answer goes on by asking all nodes, if they are there. What
    /// is still on its way to the disk may land at any time: it is of a lower ballot.
    fn leave_dead_disk(&mut self, now: Instant) {
        let stuck = match self.phase {
            Phase::Writing(..) | Phase::Reading(..) | Phase::Storing(_) | Phase::Comparing(_) => {
                true
            }
            Phase::Idle | Phase::Waiting(_) | Phase::Asking(..) => false,
        };
        let may_ask = self.media.network && self.acceptor.votes();
        if stuck && !self.media.disk && may_ask && self.proposal.is_some() {
            self.disks.withdraw();
            self.drop_attempt();
            self.phase = Phase::Waiting(now);
        }
    }

    /// A ballot that asks all nodes goes back to the disk once that answers again: one node that
    /// keeps silent would hold it up.
    fn return_to_disk(&mut self, now: Instant) {
        let asking = matches!(self.phase, Phase::Asking(..));
        if asking && self.media.disk && self.proposal.is_some() && self.is_disk_free() {
            self.phase = Phase::Waiting(now);
        }
    }

    /// Can a ballot be begun on the disk, if that answers?
    fn is_disk_free(&self) -> bool {
        let free = match &self.shared {
            Some(shared) => shared.is_free(),
            None => self.disks.are_free(),
        };
        free && self.acceptor.is_recovered()
    }

    /// When a ballot is due, if it can be begun at all, and whether it has to ask all nodes.
    fn starts_at(&self) -> Option<(Instant, bool)> {
        let on_disk = self.media.disk && self.is_disk_free();
        let asking = self.media.network && !self.media.disk && self.acceptor.votes();
        if self.halted.is_some() || !(on_disk || asking) {
            return None;
        }
        let due = match self.phase {
            Phase::Waiting(start) => Some(start),
            Phase::Idle if on_disk => {
                let open = |newer: &Newer| newer.mbal > newer.bal || !newer.on_disk;
                let newer = self.newer.filter(open).map(|newer| newer.due);
                newer.into_iter().chain(self.behind).min()
            }
            Phase::Idle
            | Phase::Writing(..)
            | Phase::Reading(..)
            | Phase::Storing(_)
            | Phase::Comparing(_)
            | Phase::Asking(..) => None,
        };
        Some((due?, !on_disk))
    }

    fn start_ballot(&mut self, now: Instant, by_network: bool) {
        let promised = self.acceptor.promised().max(self.image_bal());
        self.highest = self.highest.max(promised).next_for(self.me);
        if by_network {
            self.ask(now, self.highest);
            return;
        }
        if self.shared.is_some() {
            self.begin_change(self.highest);
            return;
        }
        self.acceptor.begin(self.highest);
        self.disks.order(self.highest, None);
        self.phase = Phase::Writing(self.highest, Stage::Promise);
    }

    fn settle_delay(&mut self) -> Span {
        self.jittered(self.backoff.times(SETTLE_BACKOFFS).times(2))
    }

    /// Between half of `span` and one and a half, by the seed (splitmix64).
    fn jittered(&mut self, span: Span) -> Span {
        self.jitter = self.jitter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.jitter;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        span.over(2) + Span(mixed % span.0.max(1))
    }
}
