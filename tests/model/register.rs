//! The register itself, in every order in which its disk can answer.
//!
//! The states hold real [`Register`]s. They are told apart by what they print for debugging, with
//! every instant replaced by its rank among the instants of its node: a register compares instants
//! with each other and with what it is told, and nothing else; the one length it knows, the
//! back-off, is made larger than any run is long, and time jumps to what is due as a step of its
//! own.
//!
//! A write is issued, lands, is reported; it may land without a report, fail with or without having
//! landed, or outlive a crash of its node and land until the node comes back. A read sees each
//! block at another moment. Faults are counted, and ballots are bounded by their counter.
//!
//! The last test takes away what the safety argument is given ("no write lands after its node has
//! read the block again", "a read shows nothing older than its beginning") and must see it fall.

mod print;

use std::hash::{Hash, Hasher};

use standfast::model::{NodeId, NodeSet};
use standfast::register::{
    Block, BlockSeen, Event, Memory, News, Order, Register, Seen, Trouble, Value,
};
use standfast::time::{Instant, Span};
use stateright::{Model, Property};

use crate::path::{Path, epoch, leads_to, successor};
use print::print;

/// Longer than any run has steps.
const BACKOFF: Span = Span(1 << 32);

/// A read under way: of each block, what it was at some moment since the beginning.
#[derive(Clone, Debug)]
struct Read<const N: usize> {
    begun: Instant,
    /// Newest decided value when it was begun.
    decided: Path,
    seen: [Option<Block>; N],
}

#[derive(Clone, Debug)]
struct Write {
    block: Block,
    landed: bool,
}

#[derive(Clone, Debug)]
struct Node<const N: usize> {
    register: Option<Register>,
    clock: u64,
    read: Option<Read<N>>,
    read_ordered: bool,
    write: Option<Write>,
    /// A write that nobody waits for any more.
    late: Option<Block>,
    proposal: Path,
    known: Path,
    /// Stands for all of the above.
    print: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct State<const N: usize> {
    nodes: [Node<N>; N],
    disk: [Block; N],
    /// For each block, what it was before its last change.
    before: [Block; N],
    proposals: u8,
    faults: u8,
    decided: Path,
    /// Said to be lost for good.
    never: Vec<Path>,
    wrong: Option<&'static str>,
}

impl<const N: usize> State<N> {
    fn key(&self) -> impl Hash + PartialEq + use<N> {
        let print = |block: &Block| (block.writes, block.mbal, block.bal, path(&block.value));
        let nodes = self.nodes.each_ref().map(|node| node.print);
        let disk = (
            self.disk.each_ref().map(print),
            self.before.each_ref().map(print),
        );
        let rest = (self.proposals, self.faults, self.decided, self.wrong);
        (nodes, disk, rest, self.never.clone())
    }

    fn decide(&mut self, value: Path) {
        if leads_to(self.decided, value) {
            self.decided = value;
        } else if !leads_to(value, self.decided) {
            self.wrong = Some("decided values fork");
        }
        if self.never.iter().any(|lost| leads_to(*lost, self.decided)) {
            self.wrong = Some("what was lost for good is decided");
        }
    }
}

impl<const N: usize> Hash for State<N> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.key().hash(hasher);
    }
}

impl<const N: usize> PartialEq for State<N> {
    fn eq(&self, other: &State<N>) -> bool {
        self.key() == other.key()
    }
}

/// Where the value stands in the tree of proposals: its bytes say so.
fn path(value: &Value) -> Path {
    value.bytes.first().copied().unwrap_or(0)
}

fn value(path: Path) -> Value {
    Value {
        epoch: u64::from(epoch(path)),
        nonce: u64::from(path),
        bytes: vec![path],
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Propose(usize),
    BeginRead(usize),
    Sample(usize, usize),
    EndRead(usize),
    ReadFails(usize),
    Land(usize),
    Written(usize),
    WriteFailed(usize),
    Due(usize),
    Crash(usize),
    Restart(usize),
}

impl Action {
    fn node(self) -> usize {
        match self {
            Action::Propose(at)
            | Action::BeginRead(at)
            | Action::Sample(at, _)
            | Action::EndRead(at)
            | Action::ReadFails(at)
            | Action::Land(at)
            | Action::Written(at)
            | Action::WriteFailed(at)
            | Action::Due(at)
            | Action::Crash(at)
            | Action::Restart(at) => at,
        }
    }
}

/// A part of what is given that is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Nothing,
    /// A write of an earlier life lands after the node has read its block again.
    LandsAfterRestart,
    /// A read shows of another node's block what it was before its last change.
    StaleReads,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct OneDisk<const N: usize> {
    /// Highest counter of a ballot.
    pub(crate) ballots: u64,
    pub(crate) proposals: u8,
    pub(crate) faults: u8,
    pub(crate) broken: Broken,
}

impl<const N: usize> OneDisk<N> {
    fn new_register(at: usize) -> Register {
        let id = |at: usize| NodeId::new(at as u8 + 1).expect("few");
        let all = (0..N).map(id).collect::<NodeSet>();
        Register::new(id(at), all, at as u64, BACKOFF, Memory::Nothing)
    }

    /// Gives an event to a node and takes out what follows.
    fn feed(&self, state: &mut State<N>, at: usize, event: Event<'_>, read: Option<Path>) {
        let node = &mut state.nodes[at];
        let now = Instant(node.clock);
        if let Some(register) = &mut node.register {
            register.handle(now, event);
        }
        self.pump(state, at, read);
    }

    fn pump(&self, state: &mut State<N>, at: usize, read: Option<Path>) {
        let node = &mut state.nodes[at];
        let Some(register) = &mut node.register else {
            return;
        };
        while let Some(order) = register.poll_order() {
            match order {
                Order::Read => node.read_ordered = true,
                Order::CompareAndWrite(_) => unreachable!("this disk has no record"),
                Order::Write(block) => {
                    assert!(node.write.is_none(), "two writes at once");
                    node.write = Some(Write {
                        block,
                        landed: false,
                    });
                }
            }
        }
        let mut news = Vec::new();
        while let Some(one) = register.poll_news() {
            news.push(one);
        }
        if let Some(Trouble::Foreign | Trouble::WentBack) = register.trouble()
            && self.broken == Broken::Nothing
        {
            state.wrong = Some("a register has halted");
        }
        for one in news {
            Self::judge(state, at, one, read);
        }
    }

    fn judge(state: &mut State<N>, at: usize, news: News, read: Option<Path>) {
        let decided = state.decided;
        let node = &mut state.nodes[at];
        let mut wrong = None;
        match news {
            News::Learned(value) => {
                let newer = epoch(path(&value)) > epoch(node.known);
                if !leads_to(path(&value), decided) || !newer {
                    wrong = Some("learned what is not decided, or old");
                }
                node.known = path(&value);
            }
            News::Won { value, .. } => {
                if path(&value) != node.proposal || !leads_to(path(&value), decided) {
                    wrong = Some("won what is not decided");
                }
                node.proposal = 0;
            }
            News::Lost { current, unclear } => {
                let in_it = leads_to(node.proposal, path(&current));
                if !leads_to(path(&current), decided) || (in_it && !unclear) {
                    wrong = Some("lost to what is not decided");
                }
                if !unclear {
                    state.never.push(node.proposal);
                    state.never.sort_unstable();
                }
                node.proposal = 0;
            }
            News::GaveUp { unclear } => {
                if !unclear {
                    state.never.push(node.proposal);
                }
                node.proposal = 0;
            }
            News::Proof { epoch: of, .. } => {
                let begun_with = read.map_or(0, |decided| u64::from(epoch(decided)));
                if begun_with > of {
                    wrong = Some("a proof of what had a successor");
                }
            }
        }
        state.wrong = state.wrong.or(wrong);
        state.decide(decided);
    }

    fn propose(&self, state: &mut State<N>, at: usize) {
        state.proposals += 1;
        let nonce = state.proposals;
        let node = &mut state.nodes[at];
        let now = Instant(node.clock);
        let Some(register) = &mut node.register else {
            return;
        };
        let known = path(register.known());
        let new = successor(known, nonce);
        node.proposal = new;
        let expected = register.known().id();
        register
            .propose(now, expected, value(new), Instant::NEVER)
            .expect("one at a time");
        self.pump(state, at, None);
    }

    fn begin_read(&self, state: &mut State<N>, at: usize) {
        let stale = self.broken == Broken::StaleReads;
        let seen = |slot: usize| {
            let other = slot != at;
            let block = if other && stale {
                &state.before[slot]
            } else {
                &state.disk[slot]
            };
            // With one other block, beginning later than at the look at it proves less.
            (!other || N == 2).then(|| block.clone())
        };
        let seen = std::array::from_fn(seen);
        let decided = state.decided;
        let node = &mut state.nodes[at];
        node.read_ordered = false;
        node.read = Some(Read {
            begun: Instant(node.clock),
            decided,
            seen,
        });
    }

    fn end_read(&self, state: &mut State<N>, at: usize) {
        let node = &mut state.nodes[at];
        let Some(read) = node.read.take() else {
            return;
        };
        let shown = |block: Option<Block>| match block {
            Some(block) if block.writes > 0 => BlockSeen::Good(block),
            Some(_) | None => BlockSeen::Blank,
        };
        let seen = &Seen::Blocks(read.seen.map(shown).into());
        let (begun, ended) = (read.begun, Instant(node.clock));
        let event = Event::ReadDone { begun, ended, seen };
        self.feed(state, at, event, Some(read.decided));
    }

    fn land(&self, state: &mut State<N>, at: usize) {
        let node = &mut state.nodes[at];
        let under_way = node.write.as_mut().filter(|write| !write.landed);
        let block = match (node.late.take(), under_way) {
            (Some(block), _) => block,
            (None, Some(write)) => {
                write.landed = true;
                write.block.clone()
            }
            (None, None) => return,
        };
        if self.broken == Broken::StaleReads {
            state.before[at] = state.disk[at].clone();
        }
        state.disk[at] = block;
        let block = &state.disk[at];
        let beyond = state.disk.iter().any(|other| other.mbal > block.bal);
        if block.bal == block.mbal && block.bal.0 != 0 && !beyond {
            let value = path(&block.value);
            state.decide(value);
        }
    }

    fn written(&self, state: &mut State<N>, at: usize, failed: bool) {
        let node = &mut state.nodes[at];
        node.write = None;
        let now = Instant(node.clock);
        let event = if failed {
            Event::WriteFailed { at: now }
        } else {
            Event::Written { at: now }
        };
        self.feed(state, at, event, None);
    }

    fn crash(state: &mut State<N>, at: usize) {
        let node = &mut state.nodes[at];
        let write = node.write.take().filter(|write| !write.landed);
        *node = Node {
            late: write.map(|write| write.block),
            ..Self::node_down()
        };
    }

    fn node_down() -> Node<N> {
        Node {
            register: None,
            clock: 1,
            read: None,
            read_ordered: false,
            write: None,
            late: None,
            proposal: 0,
            known: 0,
            print: 0,
        }
    }

    fn restart(&self, state: &mut State<N>, at: usize) {
        let node = &mut state.nodes[at];
        if self.broken != Broken::LandsAfterRestart {
            node.late = None;
        }
        node.register = Some(Self::new_register(at));
        self.feed(state, at, Event::Tick, None);
    }
}

impl<const N: usize> OneDisk<N> {
    fn actions_of(&self, state: &State<N>, at: usize, actions: &mut Vec<Action>) {
        let node = &state.nodes[at];
        let faults_left = state.faults < self.faults;
        let write = node.write.as_ref();
        if node.late.is_some() || write.is_some_and(|write| !write.landed) {
            actions.push(Action::Land(at));
        }
        let Some(register) = &node.register else {
            actions.push(Action::Restart(at));
            return;
        };
        if faults_left {
            actions.push(Action::Crash(at));
        }
        if state.proposals < self.proposals && node.proposal == 0 {
            actions.push(Action::Propose(at));
        }
        if register.poll_timeout() < Instant::NEVER {
            actions.push(Action::Due(at));
        }
        if write.is_some_and(|write| write.landed) {
            actions.push(Action::Written(at));
        }
        if write.is_some() && faults_left {
            actions.push(Action::WriteFailed(at));
        }
        let newer = |block: &Block| block.value.epoch > register.known().epoch;
        match &node.read {
            None if node.read_ordered || state.disk.iter().any(newer) => {
                actions.push(Action::BeginRead(at));
            }
            None => {}
            Some(read) => {
                let open = (0..N).filter(|slot| read.seen[*slot].is_none());
                actions.extend(open.map(|slot| Action::Sample(at, slot)));
                if read.seen.iter().all(Option::is_some) {
                    actions.push(Action::EndRead(at));
                }
                if faults_left {
                    actions.push(Action::ReadFails(at));
                }
            }
        }
    }

    fn act(&self, state: &mut State<N>, action: Action) {
        match action {
            Action::Propose(at) => self.propose(state, at),
            Action::BeginRead(at) => self.begin_read(state, at),
            Action::Sample(at, slot) => {
                let block = state.disk[slot].clone();
                if let Some(read) = &mut state.nodes[at].read {
                    read.seen[slot] = Some(block);
                }
            }
            Action::EndRead(at) => self.end_read(state, at),
            Action::ReadFails(at) => {
                if let Some(read) = state.nodes[at].read.take() {
                    let begun = read.begun;
                    self.feed(state, at, Event::ReadFailed { begun }, None);
                }
            }
            Action::Land(at) => self.land(state, at),
            Action::Written(at) => self.written(state, at, false),
            Action::WriteFailed(at) => self.written(state, at, true),
            Action::Due(at) => {
                let node = &mut state.nodes[at];
                let due = node.register.as_ref().map(Register::poll_timeout);
                node.clock = node.clock.max(due.map_or(0, |due| due.0));
                self.feed(state, at, Event::Tick, None);
            }
            Action::Crash(at) => Self::crash(state, at),
            Action::Restart(at) => self.restart(state, at),
        }
        state.faults += u8::from(matches!(
            action,
            Action::ReadFails(_) | Action::WriteFailed(_) | Action::Crash(_)
        ));
    }
}

impl<const N: usize> Model for OneDisk<N> {
    type State = State<N>;
    type Action = Action;

    fn init_states(&self) -> Vec<State<N>> {
        let mut state = State {
            nodes: std::array::from_fn(|_| Self::node_down()),
            disk: std::array::from_fn(|_| Block::default()),
            before: std::array::from_fn(|_| Block::default()),
            proposals: 0,
            faults: 0,
            decided: 0,
            never: Vec::new(),
            wrong: None,
        };
        for at in 0..N {
            self.restart(&mut state, at);
            // The first read finds the disk blank.
            self.begin_read(&mut state, at);
            state.nodes[at].clock += 1;
            let read = state.nodes[at].read.as_mut().expect("just begun");
            read.seen = std::array::from_fn(|_| Some(Block::default()));
            self.end_read(&mut state, at);
            state.nodes[at].clock += 1;
            state.nodes[at].print = print(&state.nodes[at]);
        }
        vec![state]
    }

    fn actions(&self, state: &State<N>, actions: &mut Vec<Action>) {
        if state.wrong.is_none() {
            (0..N).for_each(|at| self.actions_of(state, at, actions));
        }
    }

    fn next_state(&self, last: &State<N>, action: Action) -> Option<State<N>> {
        let mut state = last.clone();
        self.act(&mut state, action);
        let node = &mut state.nodes[action.node()];
        node.clock += 1;
        node.print = print(node);
        Some(state)
    }

    fn within_boundary(&self, state: &State<N>) -> bool {
        state.nodes.iter().all(|node| {
            let write = node.write.as_ref().map(|write| &write.block);
            write.is_none_or(|block| block.mbal.0 >> 8 <= self.ballots)
        })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![Property::always(
            "nobody is told what is not so",
            |_, state: &State<N>| state.wrong.is_none(),
        )];
        if self.broken == Broken::Nothing {
            properties.extend([
                Property::sometimes("somebody has won", |_, state: &State<N>| {
                    state.nodes.iter().any(|node| node.known != 0)
                }),
                Property::sometimes("all know the last", |_, state: &State<N>| {
                    let known = state.nodes.iter().map(|node| node.known);
                    known.min() > Some(0) && state.nodes.iter().all(|node| node.proposal == 0)
                }),
            ]);
        }
        properties
    }
}

fn search<const N: usize>(ballots: u64, proposals: u8, faults: u8, broken: Broken) {
    let name = format!(
        "register, {N} nodes, {ballots} ballots, {proposals} proposals, {faults} faults, {broken:?}"
    );
    let model = OneDisk::<N> {
        ballots,
        proposals,
        faults,
        broken,
    };
    if broken == Broken::Nothing {
        crate::holds(&name, model);
    } else {
        crate::breaks(&name, model);
    }
}

#[test]
fn two_nodes() {
    search::<2>(2, 1, 1, Broken::Nothing);
    if crate::size() >= crate::Size::Normal {
        search::<2>(2, 2, 0, Broken::Nothing);
        search::<2>(1, 2, 1, Broken::Nothing);
    }
    if crate::size() >= crate::Size::Large {
        search::<2>(2, 2, 1, Broken::Nothing);
        search::<2>(2, 3, 0, Broken::Nothing);
    }
}

#[test]
fn three_nodes() {
    search::<3>(1, 1, 0, Broken::Nothing);
    if crate::size() >= crate::Size::Normal {
        search::<3>(1, 1, 1, Broken::Nothing);
    }
    if crate::size() >= crate::Size::Large {
        search::<3>(1, 2, 0, Broken::Nothing);
    }
}

#[test]
fn what_is_given_is_needed() {
    search::<2>(3, 2, 0, Broken::StaleReads);
    search::<2>(3, 2, 1, Broken::LandsAfterRestart);
}
