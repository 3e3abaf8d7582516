//! A register with two kinds of quorum: the disk and the proposer's own node, or all nodes.
//!
//! Acceptors are the disk `D`, as in Disk Paxos (a block for each node that only this node writes),
//! and in each node one, `N_i`, with a memory that a crash takes and a local file. Quorums are
//! `{D, N_i}` for a proposer `i`, and `{N_1..N_n}`. Any two of them meet: in `D`, or in `N_i`.
//!
//! ```text
//! disk ballot b of i                              network ballot b of i
//! N_i promises b; write mbal=b                    N_i promises b; Prepare b to all
//! read all: nobody above b, nor N_i?              all have promised, durably
//! value of the highest bal of disk and N_i        value of the highest bal of all
//! N_i accepts b; write bal=b                      Accept b to all
//! read all: nobody above b, nor N_i? decided      all have accepted, durably: decided
//! ```
//!
//! What may happen: writes land late, also after their node has crashed, but not after it has read
//! its block again; they fail; a node may have heard which epoch others know; reads see each block
//! at another moment, and fail (a read that is not begun is the same); messages are lost, late,
//! doubled and in any order (they form a set from which anybody takes anything at any time); nodes
//! crash anywhere and come back.
//!
//! Judged by what stands on the disk and in the nodes: the values decided form one chain, nobody
//! holds a value for decided which is not, and no proof is given of a value that had a decided
//! successor before the proof's read began.

mod steps;

use stateright::{Model, Property};

use crate::path::{Path as Value, epoch};

/// Ballots: counter times nodes plus node plus 1; 0 is none.
type Ballot = u8;

/// A block on the disk, an acceptor's memory, or its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Acceptor {
    mbal: Ballot,
    bal: Ballot,
    value: Value,
}

impl Acceptor {
    fn accept(&mut self, bal: Ballot, value: Value) {
        *self = Acceptor {
            mbal: bal.max(self.mbal),
            bal,
            value,
        };
    }

    /// What both together say.
    fn joined(self, other: Acceptor) -> Acceptor {
        let top = if other.bal > self.bal { other } else { self };
        Acceptor {
            mbal: self.mbal.max(other.mbal),
            ..top
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Phase {
    #[default]
    Idle,
    WritePromise(Ballot),
    ReadPromise(Ballot),
    WriteAccept(Ballot),
    ReadAccept(Ballot),
    NetPromise(Ballot),
    NetAccept(Ballot),
}

/// A read under way: of each block, what it was at some moment since the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Read<const N: usize> {
    /// It was begun after the write of this stage had been reported.
    serves: Phase,
    /// Highest accepted ballot that an earlier read, ended by then, had shown.
    newer: Ballot,
    /// Newest decided value when it was begun.
    decided: Value,
    /// The newest epoch that its node can have heard of by then, if it does not know that.
    heard: u8,
    seen: [Option<Acceptor>; N],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Node<const N: usize> {
    up: bool,
    memory: Acceptor,
    file: Acceptor,
    known: Value,
    proposal: Value,
    phase: Phase,
    write: Option<Acceptor>,
    newer: Ballot,
    read: Option<Read<N>>,
}

/// All messages of one network ballot that were ever sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Net<const N: usize> {
    prepare: bool,
    promised: [Option<(Ballot, Value)>; N],
    accept: Value,
    accepted: [bool; N],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State<const N: usize, const B: usize> {
    nodes: [Node<N>; N],
    disk: [Acceptor; N],
    nets: [Net<N>; B],
    nonces: u8,
    crashes: u8,
    /// Newest value that anybody was ever right to hold for decided, and may tell.
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
    StartDisk(usize),
    StartNet(usize),
    Land(usize),
    WriteFailed(usize),
    BeginRead(usize),
    Sample(usize, usize),
    /// With the knowledge of which epoch others know, or without.
    EndRead(usize, bool),
    HearPrepare(usize, Ballot),
    HearAccept(usize, Ballot),
    SyncAndAnswer(usize),
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
    /// A disk ballot goes on although the own acceptor has promised a higher one.
    OwnPromiseIgnored,
    /// Only the second look ignores it.
    OwnPromiseIgnoredInPhaseTwo,
    /// The first look of a disk ballot does not count what the own acceptor has accepted.
    OwnValueIgnored,
    /// A disk ballot is no promise of the own acceptor.
    DiskBallotNotPromised,
    /// The own acceptor accepts a disk ballot's value only when it is reported as written.
    AcceptedWhenReported,
    /// Answers go out before the state is durable.
    NotDurable,
    /// After a crash the own block is not read before taking part.
    OwnBlockForgotten,
    /// A network ballot is content when one node is missing, in its phase 1 or 2.
    OnePromiseMissing,
    OneAcceptanceMissing,
    /// A value seen once on the disk is held for decided.
    SeenOnce,
    /// A value is learnt from the disk with a higher `mbal` beside it.
    HigherBesideIt,
    /// A value is learnt from the disk although the own acceptor knows of higher ballots.
    OwnIgnoredInLearning,
    /// A value that only the own acceptor holds is learnt like one on the disk.
    OwnValueLearnt,
    /// A value is learnt whose epoch was heard of while it was read.
    HeardTooLate,
    /// A value whose epoch was heard of is learnt, without a look at the own acceptor.
    HeardOwnIgnored,
    /// A proof looks at the disk alone.
    ProofWithoutOwn,
    /// A write lands after its node has read its block again.
    LandsAfterRestart,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Mixed<const N: usize, const B: usize> {
    pub(crate) nonces: u8,
    pub(crate) crashes: u8,
    /// What a node hears may be in its memory and not be durable yet; else both is one step.
    pub(crate) volatile: bool,
    pub(crate) broken: Broken,
}

impl<const N: usize, const B: usize> Model for Mixed<N, B> {
    type State = State<N, B>;
    type Action = Action;

    fn init_states(&self) -> Vec<State<N, B>> {
        vec![State::first()]
    }

    fn actions(&self, state: &State<N, B>, actions: &mut Vec<Action>) {
        for at in 0..N {
            self.actions_of(state, at, actions);
        }
    }

    fn next_state(&self, last: &State<N, B>, action: Action) -> Option<State<N, B>> {
        let mut state = *last;
        self.act(&mut state, action);
        if !self.volatile {
            state.forget_promises();
        }
        (state != *last).then_some(state)
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
                    state.told != 0 && state.disk.iter().all(|block| block.mbal == 0)
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

fn search<const N: usize, const B: usize>(nonces: u8, crashes: u8, volatile: bool) {
    let broken = Broken::Nothing;
    let name = format!("mixed, {N} nodes, {B} ballots, {nonces} proposals, {crashes} crashes");
    crate::holds(
        &format!("{name}, volatile {volatile}"),
        Mixed::<N, B> {
            nonces,
            crashes,
            volatile,
            broken,
        },
    );
}

#[test]
fn two_nodes() {
    search::<2, 3>(3, 0, false);
    search::<2, 2>(2, 1, true);
    if crate::size() >= crate::Size::Normal {
        search::<2, 4>(3, 0, false);
        search::<2, 4>(2, 1, false);
    }
    if crate::size() >= crate::Size::Large {
        search::<2, 4>(3, 1, false);
        search::<2, 3>(3, 2, false);
        search::<2, 3>(3, 1, true);
    }
}

#[test]
fn three_nodes() {
    search::<3, 2>(3, 0, false);
    if crate::size() >= crate::Size::Large {
        search::<3, 2>(3, 1, false);
        search::<3, 3>(3, 0, false);
    }
}

#[test]
fn each_rule_is_needed() {
    let quick = [
        Broken::OwnValueIgnored,
        Broken::NotDurable,
        Broken::OneAcceptanceMissing,
        Broken::ProofWithoutOwn,
    ];
    let longer = [
        Broken::OwnPromiseIgnored,
        Broken::DiskBallotNotPromised,
        Broken::AcceptedWhenReported,
        Broken::OwnBlockForgotten,
        Broken::OnePromiseMissing,
        Broken::HigherBesideIt,
        Broken::OwnValueLearnt,
        Broken::HeardTooLate,
        Broken::HeardOwnIgnored,
        Broken::LandsAfterRestart,
    ];
    let longer = longer
        .into_iter()
        .filter(|_| crate::size() >= crate::Size::Normal);
    for broken in quick.into_iter().chain(longer) {
        let model = Mixed::<2, 4> {
            nonces: 2,
            crashes: 1,
            volatile: false,
            broken,
        };
        crate::breaks(&format!("mixed, {broken:?}"), model);
    }
    if crate::size() >= crate::Size::Normal {
        // With two nodes one look is at one block only.
        let broken = Broken::SeenOnce;
        let model = Mixed::<3, 3> {
            nonces: 3,
            crashes: 0,
            volatile: false,
            broken,
        };
        crate::breaks("mixed, SeenOnce", model);
    }
}

/// What these add to the rules is not needed for safety: what a node has accepted before it
/// promised more stays accepted, and what two looks show as decided is.
#[test]
fn two_rules_are_stricter_than_needed() {
    if crate::size() < crate::Size::Normal {
        return;
    }
    for broken in [
        Broken::OwnPromiseIgnoredInPhaseTwo,
        Broken::OwnIgnoredInLearning,
    ] {
        let model = Mixed::<2, 4> {
            nonces: 3,
            crashes: 0,
            volatile: false,
            broken,
        };
        crate::holds(&format!("mixed, {broken:?}"), model);
    }
}
