//! A register whose disk is an acceptor of its own, changed by COMPARE AND WRITE, beside that of
//! all nodes.
//!
//! Acceptors are the disk `D`, with one image `{count, bal, value}`, and in each node one, `N_i`,
//! with a memory that a crash takes and a local file. Quorums are `{D, N_i}` for every `i`, and
//! `{N_1..N_n}`. Any two of them meet.
//!
//! ```text
//! disk ballot b of i                               network ballot b of i
//! image E is known, nothing of i may land          N_i promises b; Prepare b to all
//! N_i holds b; value of the higher bal of E, N_i   all have promised, durably
//! COMPARE AND WRITE E -> {count + 1, b, value}     value of the highest bal of all
//! done, and N_i has promised nothing above b:      Accept b to all
//!   N_i accepts b: decided                         all have accepted, durably: decided
//!
//! whoever reads {count, b, value} and has promised nothing above b accepts it: decided
//! ```
//!
//! What may happen: a command, once sent, is done at any time, any number of times, also after its
//! node has crashed and come back, as long as the image is the one that it expects; its answer is
//! lost; a read is taken in late; messages are lost, late, doubled and in any order; nodes crash
//! anywhere and come back. A value is decided at the moment when the second of `D` and some node,
//! or the last of all nodes, has accepted it.

mod steps;

use stateright::{Model, Property};

use crate::path::{Path as Value, epoch};

/// Ballots: counter times nodes plus node plus 1; 0 is none.
type Ballot = u8;

/// Number of an image.
type Count = u8;

/// What an acceptor has promised and accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Acceptor {
    mbal: Ballot,
    bal: Ballot,
    value: Value,
}

/// The record on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Image {
    count: Count,
    bal: Ballot,
    value: Value,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Phase {
    #[default]
    Idle,
    Comparing(Ballot),
    /// The image of this number is given another one.
    Closing(Count),
    NetPromise(Ballot),
    NetAccept(Ballot),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Node {
    up: bool,
    /// The disk was read since the start.
    recovered: bool,
    memory: Acceptor,
    file: Acceptor,
    /// Ballot of the own command that may be done yet.
    held: Ballot,
    /// Highest ballot begun in this life.
    highest: Ballot,
    /// Own commands that expect the image of this number may be done yet.
    open: Option<Count>,
    /// The same of earlier lives.
    past: Option<Count>,
    image: Option<Image>,
    /// Highest number of an image that was ever known.
    count: Count,
    known: Value,
    proposal: Value,
    phase: Phase,
    /// What a read has shown that is not taken in yet, and what was decided by then.
    read: Option<(Image, Value)>,
}

/// All messages of one network ballot that were ever sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Net<const N: usize> {
    prepare: bool,
    promised: [Option<(Ballot, Value)>; N],
    accept: Value,
    accepted: [bool; N],
}

/// The command of a ballot, from the moment it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Command {
    expected: Count,
    value: Value,
    done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State<const N: usize, const B: usize> {
    nodes: [Node; N],
    disk: Image,
    commands: [Option<Command>; B],
    /// Images that somebody has sent a command to renumber, bit by count.
    closings: u16,
    nets: [Net<N>; B],
    nonces: u8,
    crashes: u8,
    /// Newest value that anybody holds for decided, and may tell.
    told: Value,
    /// Newest decided value, as judged from the acceptors.
    decided: Value,
    forked: bool,
    misled: bool,
    wrong_proof: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Propose(usize),
    Read(usize),
    TakeIn(usize),
    Send(usize),
    Land(Ballot),
    Answer(usize),
    AnswerLost(usize),
    Close(usize),
    Renumber(Count),
    StartNet(usize),
    HearPrepare(usize, Ballot),
    HearAccept(usize, Ballot),
    Sync(usize),
    AllPromised(usize),
    AllAccepted(usize),
    Told(usize, Value),
    Crash(usize),
    Restart(usize),
}

/// A rule that is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Nothing,
    /// The own voice accepts when the command is sent, not when it is done.
    AcceptedWhenSent,
    /// A command that may be done yet is no promise.
    NotHeld,
    /// An answer that was lost counts as a refusal.
    LostMeansRefused,
    /// A refusal frees a node at once, not when it has seen what is there instead.
    ForgottenWhenRefused,
    /// After a crash a node speaks although its earlier life's commands may be done yet.
    PastNotClosed,
    /// The value is chosen from the image alone.
    OwnValueIgnored,
    /// What the disk has accepted is accepted against a higher promise.
    PromiseIgnored,
    /// What the disk has accepted is held for decided, accepted or not.
    LearntFromTheDiskAlone,
    /// After a crash what the file says counts for nothing.
    FileForgotten,
    /// After a crash a node speaks before it has read the disk.
    DiskNotRead,
    /// A command writes whatever image is there.
    NotCompared,
    /// A proof looks at the disk alone.
    ProofWithoutOwn,
    /// A network ballot is content when one node is missing, in its phase 1 or 2.
    OnePromiseMissing,
    OneAcceptanceMissing,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Recorded<const N: usize, const B: usize> {
    pub(crate) nonces: u8,
    pub(crate) crashes: u8,
    /// Most images that there are.
    pub(crate) images: Count,
    /// What a node hears may be in its memory and not be durable yet; else both is one step.
    pub(crate) volatile: bool,
    pub(crate) broken: Broken,
}

impl<const N: usize, const B: usize> Model for Recorded<N, B> {
    type State = State<N, B>;
    type Action = Action;

    fn init_states(&self) -> Vec<State<N, B>> {
        vec![State::first()]
    }

    fn actions(&self, state: &State<N, B>, actions: &mut Vec<Action>) {
        for at in 0..N {
            self.actions_of(state, at, actions);
        }
        self.commands_to(state, actions);
    }

    fn next_state(&self, last: &State<N, B>, action: Action) -> Option<State<N, B>> {
        let mut state = *last;
        self.act(&mut state, action);
        if !self.volatile {
            state.forget_promises();
        }
        (state != *last).then_some(state)
    }

    fn within_boundary(&self, state: &State<N, B>) -> bool {
        state.disk.count <= self.images
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("decided values form one chain", |_, state: &State<N, B>| {
                !state.forked
            }),
            Property::always("what a node learns is decided", |_, state: &State<N, B>| {
                !state.misled
            }),
            Property::always("a proof is true", |_, state: &State<N, B>| {
                !state.wrong_proof
            }),
        ];
        if self.broken == Broken::Nothing {
            properties.extend([
                Property::sometimes("a disk ballot is won", |_, state: &State<N, B>| {
                    state.told != 0 && state.nets.iter().all(|net| !net.prepare)
                }),
                Property::sometimes("a network ballot is won", |_, state: &State<N, B>| {
                    state.told != 0 && state.disk.bal == 0
                }),
            ]);
        }
        if self.broken == Broken::Nothing && usize::from(self.nonces) > N {
            properties.push(Property::sometimes(
                "all know two epochs",
                |_, state: &State<N, B>| state.nodes.iter().all(|node| epoch(node.known) == 2),
            ));
        }
        properties
    }
}

fn search<const N: usize, const B: usize>(nonces: u8, crashes: u8, images: Count, volatile: bool) {
    let broken = Broken::Nothing;
    let name = format!(
        "record, {N} nodes, {B} ballots, {nonces} proposals, {crashes} crashes, {images} images"
    );
    crate::holds(
        &format!("{name}, volatile {volatile}"),
        Recorded::<N, B> {
            nonces,
            crashes,
            images,
            volatile,
            broken,
        },
    );
}

#[test]
fn two_nodes() {
    search::<2, 3>(2, 0, 3, false);
    search::<2, 2>(2, 1, 2, true);
    if crate::size() >= crate::Size::Normal {
        search::<2, 3>(2, 1, 3, false);
        search::<2, 4>(3, 0, 4, false);
    }
    if crate::size() >= crate::Size::Large {
        search::<2, 3>(3, 1, 3, false);
        search::<2, 4>(3, 1, 4, false);
        search::<2, 3>(3, 2, 4, false);
        search::<2, 3>(3, 1, 3, true);
    }
}

#[test]
fn three_nodes() {
    if crate::size() >= crate::Size::Normal {
        search::<3, 2>(3, 0, 2, false);
    }
    if crate::size() >= crate::Size::Large {
        search::<3, 2>(3, 1, 3, false);
        search::<3, 3>(3, 0, 3, false);
    }
}

#[test]
fn each_rule_is_needed() {
    let quick = [
        Broken::AcceptedWhenSent,
        Broken::LearntFromTheDiskAlone,
        Broken::NotCompared,
        Broken::ProofWithoutOwn,
    ];
    let longer = [
        Broken::NotHeld,
        Broken::LostMeansRefused,
        Broken::ForgottenWhenRefused,
        Broken::PastNotClosed,
        Broken::OwnValueIgnored,
        Broken::PromiseIgnored,
        Broken::FileForgotten,
        Broken::DiskNotRead,
        Broken::OnePromiseMissing,
        Broken::OneAcceptanceMissing,
    ];
    let longer = longer
        .into_iter()
        .filter(|_| crate::size() >= crate::Size::Normal);
    for broken in quick.into_iter().chain(longer) {
        let model = Recorded::<2, 4> {
            nonces: 2,
            crashes: 1,
            images: 4,
            volatile: false,
            broken,
        };
        crate::breaks(&format!("record, {broken:?}"), model);
    }
}
