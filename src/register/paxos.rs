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

use crate::model::{NodeId, NodeSet};
use crate::time::{Instant, Span};

use super::own::{Finding, Own};
use super::scan::Scan;
use super::{Ballot, Event, News, Order, Refused, Trouble, VALUE_MAX, Value};

/// Ballots of one proposal; with the back-off they outlast every sensible deadline.
const TRIES_MAX: u32 = 64;

/// The back-off doubles with each try up to this power of two.
const BACKOFF_DOUBLINGS: u32 = 5;

/// Back-offs to wait before settling a ballot that somebody began and did not end.
const SETTLE_BACKOFFS: u64 = 8;

/// One node's part of the register: compare-and-swap by Disk Paxos on one disk.
#[derive(Clone, Debug)]
pub struct Register {
    me: NodeId,
    nodes: NodeSet,
    backoff: Span,
    jitter: u64,
    own: Own,
    phase: Phase,
    proposal: Option<Proposal>,
    known: Value,
    /// End of the read that showed `known` to be decided.
    known_at: Instant,
    newer: Option<Newer>,
    /// Highest ballot ever seen or begun.
    highest: Ballot,
    reads: Reads,
    outbox: Outbox,
    halted: Option<Trouble>,
    read_trouble: Option<Trouble>,
    write_failed: bool,
}

/// Where the ballot stands.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Idle,
    /// To begin a ballot at this moment, or later when the own block is free.
    Waiting(Instant),
    /// The own block is being written for this stage.
    Writing(Ballot, Stage),
    /// It was written at this moment; a read begun since then decides.
    Reading(Ballot, Stage, Instant),
}

/// Paxos' phase 1 and phase 2.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Promise,
    Accept,
}

#[derive(Clone, Debug)]
struct Proposal {
    expected: (u64, u64),
    new: Value,
    deadline: Instant,
    /// Ballots that came to nothing.
    tries: u32,
    /// `new` was, or may have been, written as accepted.
    tried: bool,
}

/// An accepted value that is not known to be decided.
#[derive(Clone, Copy, Debug)]
struct Newer {
    bal: Ballot,
    /// End of the first read that showed it.
    seen: Instant,
    /// Highest ballot beside it; while that is higher, plain reads do not show it as decided.
    mbal: Ballot,
    /// When to settle it, if nothing moves until then.
    due: Instant,
}

/// The one read that may be asked for.
#[derive(Clone, Debug, Default)]
struct Reads {
    /// Any read begun since then answers.
    asked: Option<Instant>,
    /// Not polled yet.
    queued: bool,
    /// No asking before this moment: the last one was no good.
    pause: Instant,
}

/// News not polled yet. One of each: newer ones take the place of older ones.
#[derive(Clone, Debug, Default)]
struct Outbox {
    learned: Option<Value>,
    outcome: Option<News>,
    proof: Option<Instant>,
}

impl Register {
    /// A register that knows nothing yet. `nodes` are those whose blocks must be on the disk,
    /// `seed` feeds the jitter, `backoff` is about the time of one undisturbed ballot (two writes,
    /// two reads).
    #[must_use]
    pub fn new(me: NodeId, nodes: NodeSet, seed: u64, backoff: Span) -> Register {
        let mut register = Register {
            me,
            nodes: nodes.with(me),
            backoff,
            jitter: seed,
            own: Own::default(),
            phase: Phase::Idle,
            proposal: None,
            known: Value::default(),
            known_at: Instant::default(),
            newer: None,
            highest: Ballot::NONE,
            reads: Reads::default(),
            outbox: Outbox::default(),
            halted: None,
            read_trouble: None,
            write_failed: false,
        };
        register.ask_for_read(Instant::default());
        register
    }

    /// Takes in what has happened. `now` is not before any instant in the event.
    pub fn handle(&mut self, now: Instant, event: Event<'_>) {
        match event {
            Event::ReadDone {
                begun,
                ended,
                blocks,
            } => {
                self.reads.finished(begun);
                let scan = Scan::of(blocks, self.nodes);
                if let Some(own) = blocks.get(self.me.index())
                    && (!scan.damaged.contains(self.me))
                {
                    let finding = self.own.seen(begun, own);
                    self.found(now, finding);
                }
                self.read_done(now, begun, ended, &scan);
            }
            Event::ReadFailed { begun } => {
                self.reads.finished(begun);
                self.read_trouble = Some(Trouble::ReadFailed);
                self.reads.pause = now + self.backoff;
            }
            Event::Written { at } => {
                if self.own.written(at) {
                    self.landed(at);
                }
            }
            Event::WriteFailed { at } => self.write_failed |= self.own.failed(at),
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

    /// What to do next.
    #[must_use]
    pub fn poll_order(&mut self) -> Option<Order> {
        if let Some(block) = self.own.poll() {
            return Some(Order::Write(block));
        }
        std::mem::take(&mut self.reads.queued).then_some(Order::Read)
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
        if let Some(start) = self.starts_at() {
            next = next.min(start);
        }
        if self.reads.asked.is_none() && self.wants_read_since().is_some() {
            next = next.min(self.reads.pause);
        }
        next
    }

    /// The newest value known to be decided; epoch 0 if none is.
    #[must_use]
    pub fn known(&self) -> &Value {
        &self.known
    }

    /// Has the own block been read since the start?
    #[must_use]
    pub fn is_recovered(&self) -> bool {
        self.own.block().is_some()
    }

    /// What is wrong, if anything; the worst first.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        let write_trouble = self.write_failed.then_some(Trouble::WriteFailed);
        self.halted.or(self.read_trouble).or(write_trouble)
    }

    // ---- what a read says ----

    fn found(&mut self, now: Instant, finding: Finding) {
        match finding {
            Finding::Same => {}
            Finding::Landed(at) => self.landed(at),
            Finding::NotLanded => match self.phase {
                Phase::Writing(..) => self.retry(now),
                Phase::Idle | Phase::Waiting(_) | Phase::Reading(..) => {}
            },
            Finding::Foreign => self.halt(Trouble::Foreign),
        }
    }

    fn read_done(&mut self, now: Instant, begun: Instant, ended: Instant, scan: &Scan<'_>) {
        self.highest = self.highest.max(scan.mbal);
        if !scan.damaged.is_empty() {
            self.read_trouble = Some(Trouble::Damaged(scan.damaged));
            self.reads.pause = now + self.backoff;
            return;
        }
        self.read_trouble = None;
        if self.halted.is_some() {
            return;
        }
        self.learn_from(now, begun, ended, scan);
        self.step_ballot(now, begun, ended, scan);
        self.prove(begun, scan);
    }

    /// A value seen twice, the second time by a read begun after the first was finished and without
    /// any higher ballot beside it, is decided.
    fn learn_from(&mut self, now: Instant, begun: Instant, ended: Instant, scan: &Scan<'_>) {
        let Some(value) = scan.value().filter(|value| value.epoch > self.known.epoch) else {
            self.newer = None;
            let same = scan
                .value()
                .map_or(self.known.epoch == 0, |value| *value == self.known);
            if !same && begun >= self.known_at {
                self.halt(Trouble::WentBack);
            }
            return;
        };
        let (bal, mbal) = (scan.bal(), scan.mbal);
        let before = self.newer.filter(|newer| newer.bal >= bal);
        if before.is_some_and(|newer| newer.bal > bal) {
            return;
        }
        if mbal == bal && before.is_some_and(|newer| begun >= newer.seen) {
            self.learn(value, ended);
            return;
        }
        let seen = before.map_or(ended, |newer| newer.seen.min(ended));
        let due = match before {
            Some(newer) if newer.mbal == mbal => newer.due,
            Some(_) | None => now + self.settle_delay(),
        };
        self.newer = Some(Newer {
            bal,
            seen,
            mbal,
            due,
        });
    }

    fn step_ballot(&mut self, now: Instant, begun: Instant, ended: Instant, scan: &Scan<'_>) {
        let (ballot, stage) = match self.phase {
            Phase::Reading(ballot, stage, since) if begun >= since => (ballot, stage),
            Phase::Idle | Phase::Waiting(_) | Phase::Writing(..) | Phase::Reading(..) => return,
        };
        if self.halted.is_some() {
            return;
        }
        if scan.mbal > ballot {
            self.retry(now);
            return;
        }
        match stage {
            Stage::Promise => self.accept(ballot, scan),
            Stage::Accept => self.decided(now, ended),
        }
    }

    /// Nobody began a higher ballot: what is accepted there now must be the proposal if the value
    /// it expects is the newest, else that newest value itself.
    fn accept(&mut self, ballot: Ballot, scan: &Scan<'_>) {
        let value = match &mut self.proposal {
            Some(proposal) if scan.id() == proposal.expected => {
                proposal.tried = true;
                proposal.new.clone()
            }
            Some(_) | None => scan.value().cloned().unwrap_or_default(),
        };
        self.own.order(ballot, Some((ballot, value)));
        self.phase = Phase::Writing(ballot, Stage::Accept);
    }

    /// Nobody began a higher ballot until after the own value was on the disk: it is decided.
    fn decided(&mut self, now: Instant, at: Instant) {
        let value = self
            .own
            .block()
            .map(|block| block.value.clone())
            .unwrap_or_default();
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

    fn prove(&mut self, begun: Instant, scan: &Scan<'_>) {
        let same = scan
            .value()
            .map_or(self.known.epoch == 0, |value| *value == self.known);
        if same && self.halted.is_none() {
            self.outbox.proof = self.outbox.proof.max(Some(begun));
        }
    }

    // ---- what follows from it ----

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
            Phase::Writing(_, Stage::Promise) if self.own.withdraw() => self.phase = Phase::Idle,
            Phase::Idle | Phase::Writing(..) | Phase::Reading(..) => {}
        }
    }

    fn halt(&mut self, trouble: Trouble) {
        self.halted = self.halted.or(Some(trouble));
        self.newer = None;
        self.outbox.proof = None;
        self.give_up();
        self.own.withdraw();
        self.phase = Phase::Idle;
    }

    /// The own block is on the disk: time to read.
    fn landed(&mut self, at: Instant) {
        self.write_failed = false;
        match self.phase {
            Phase::Writing(ballot, stage) => self.phase = Phase::Reading(ballot, stage, at),
            Phase::Idle | Phase::Waiting(_) | Phase::Reading(..) => {}
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
        if self.starts_at().is_some_and(|start| now >= start) {
            self.start_ballot();
        }
        self.ask_for_read(now);
    }

    /// When a ballot is due, if the own block may be written at all.
    fn starts_at(&self) -> Option<Instant> {
        if self.halted.is_some() {
            return None;
        }
        self.own.writable()?;
        match self.phase {
            Phase::Waiting(start) => Some(start),
            Phase::Idle => self
                .newer
                .filter(|newer| newer.mbal > newer.bal)
                .map(|newer| newer.due),
            Phase::Writing(..) | Phase::Reading(..) => None,
        }
    }

    fn start_ballot(&mut self) {
        self.highest = self.highest.next_for(self.me);
        self.own.order(self.highest, None);
        self.phase = Phase::Writing(self.highest, Stage::Promise);
    }

    fn ask_for_read(&mut self, now: Instant) {
        match (self.wants_read_since(), self.reads.asked) {
            (None, Some(_)) if self.reads.queued => {
                self.reads.queued = false;
                self.reads.asked = None;
            }
            (Some(since), None) if now >= self.reads.pause => {
                self.reads.queued = true;
                self.reads.asked = Some(since);
            }
            (Some(_) | None, Some(_) | None) => {}
        }
    }

    /// From when on a read must be begun to be of use; none if no read is needed.
    fn wants_read_since(&self) -> Option<Instant> {
        let ballot = match self.phase {
            Phase::Reading(_, _, since) => Some(since),
            Phase::Idle | Phase::Waiting(_) | Phase::Writing(..) => None,
        };
        let newer = self
            .newer
            .filter(|newer| newer.mbal == newer.bal)
            .map(|newer| newer.seen);
        self.own.wants_read_since().max(ballot).max(newer)
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

impl Reads {
    fn finished(&mut self, begun: Instant) {
        if self.asked.is_some_and(|since| begun >= since) {
            self.asked = None;
            self.queued = false;
        }
    }
}
