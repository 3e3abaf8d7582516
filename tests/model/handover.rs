//! One task between two nodes: handed over, called off, taken over, with crashes at every step.
//!
//! Follows `src/engine`: `step`, `may_start`, `check_right`, `is_out` of `tasks.rs`, the changes of
//! `ownership.rs`, `reassign`, `join`, `promotion` and `start_alone` of `changes.rs`. A change of
//! the view is one compare-and-swap, which its proposer learns of by a later read. A frame is heard
//! as its sender stands; that it is old is that it is acted upon later. It is lost by not being
//! heard, and anybody may be taken for silent at any time.
//!
//! What `lease.rs` shows is taken for granted here: the time that a node waits for one that is not
//! listed is over only after that one's lease, if it is not of a later view, and with it whatever
//! ran. Epochs and lives count by their order only, so the states are finite, and it can be asked
//! whether from each of them the task can run again.

mod rules;

use stateright::{Model, Property};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Listed {
    Out,
    Joining(u8),
    Member(u8),
}

impl Listed {
    fn life(self) -> Option<u8> {
        match self {
            Listed::Out => None,
            Listed::Joining(life) | Listed::Member(life) => Some(life),
        }
    }
}

/// The view; epoch 0 is "not read yet".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct View {
    epoch: u8,
    listed: [Listed; 2],
    owner: usize,
    heir: Option<usize>,
    task: u8,
    /// Bit by node: on whom it may still run. Both bits are `Anybody`, which stays.
    after: u8,
}

const UNREAD: View = View {
    epoch: 0,
    listed: [Listed::Out; 2],
    owner: 0,
    heir: None,
    task: 0,
    after: 0,
};

impl View {
    fn without(self, node: usize) -> u8 {
        if self.after == 1 << node {
            0
        } else {
            self.after
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Local {
    /// After a restart of the core, with the truth that the runner will tell.
    Unknown(bool),
    Stopped,
    Running(u8),
    /// With the task epoch to be released, if any.
    Stopping(Option<u8>),
    Released(u8),
}

impl Local {
    /// Something of the task is there.
    fn runs(self) -> bool {
        matches!(
            self,
            Local::Unknown(true) | Local::Running(_) | Local::Stopping(_)
        )
    }

    /// The node says that something may be there.
    fn may_run(self) -> bool {
        self.runs() || matches!(self, Local::Unknown(_))
    }

    fn stopped(self) -> Local {
        match self {
            Local::Unknown(_) => Local::Unknown(false),
            Local::Running(_) | Local::Stopping(None) => Local::Stopped,
            Local::Stopping(Some(epoch)) => Local::Released(epoch),
            Local::Stopped | Local::Released(_) => self,
        }
    }
}

/// What was heard of the other node last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Frame {
    life: u8,
    epoch: u8,
    may_run: bool,
    released: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Node {
    up: bool,
    life: u8,
    known: View,
    local: Local,
    /// Epoch of the view under which the lease was last proved.
    lease: Option<u8>,
    /// None when it is silent.
    heard: Option<Frame>,
    /// The time of those not listed is over, since the task's epoch is known.
    timed: bool,
    /// Has asked for a view without the other, and does not confirm it until that is settled.
    asked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    nodes: [Node; 2],
    register: View,
    /// Changes of the view since each node has read it.
    behind: [u8; 2],
    faults: u8,
    moves: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Read(usize),
    Hear(usize),
    Silence(usize),
    Prove(usize),
    LeaseEnds(usize),
    TimeIsOver(usize),
    StopDone(usize),
    Hello(usize),
    PowerLost(usize),
    Boot(usize),
    CoreRestarts(usize),
    Move(usize),
    CallOff(usize),
    Inherit(usize),
    Settle(usize),
    Evict(usize),
    Join(usize),
    Promote(usize),
    StartAlone(usize),
}

/// A rule that is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Nothing,
    /// The heir does not wait for the owner's word.
    HeirStartsAtOnce,
    /// Time counts for listed nodes as well.
    TimeCountsForListed,
    /// Who is taken out as an heir is not waited for.
    HeirForgotten,
    /// A node's word counts whatever view it knows.
    WordUnderAnyView,
    /// A confirmation counts whatever view the other knows.
    AnyViewConfirms,
    /// An evicted owner is not waited for.
    OwnerForgotten,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct HandOver {
    /// Power losses and restarts of the core, in all.
    pub(crate) faults: u8,
    /// Changes of the view that a node may miss in a row.
    pub(crate) behind: u8,
    /// Hand-overs that somebody asks for, in all; 0 for any number.
    pub(crate) moves: u8,
    /// Nodes are evicted, and start alone.
    pub(crate) evictions: bool,
    pub(crate) broken: Broken,
}

fn is_member(node: &Node, me: usize) -> bool {
    node.known.listed[me] == Listed::Member(node.life)
}

impl State {
    fn first() -> State {
        let register = View {
            epoch: 1,
            listed: [Listed::Member(1); 2],
            owner: 0,
            heir: None,
            task: 1,
            after: 0,
        };
        let node = Node {
            up: true,
            life: 1,
            known: register,
            local: Local::Stopped,
            lease: Some(1),
            heard: None,
            timed: false,
            asked: false,
        };
        let owner = Node {
            local: Local::Running(1),
            ..node
        };
        State {
            nodes: [owner, node],
            register,
            behind: [0; 2],
            faults: 0,
            moves: 0,
        }
    }

    /// Epochs and lives by their order, so that states which differ in nothing else are one.
    fn ranked(mut self) -> State {
        let [one, two] = &mut self.nodes;
        let views = [&mut self.register, &mut one.known, &mut two.known];
        let (mut epochs, mut tasks) = (Vec::new(), Vec::new());
        let mut lives = [vec![&mut one.life], vec![&mut two.life]];
        for View {
            epoch,
            task,
            listed,
            ..
        } in views
        {
            epochs.push(epoch);
            tasks.push(task);
            for (lives, listed) in lives.iter_mut().zip(listed) {
                match listed {
                    Listed::Joining(life) | Listed::Member(life) => lives.push(life),
                    Listed::Out => {}
                }
            }
        }
        let heard = [(&mut one.heard, 1), (&mut two.heard, 0)];
        for (frame, of) in heard
            .into_iter()
            .filter_map(|(heard, of)| Some((heard.as_mut()?, of)))
        {
            epochs.push(&mut frame.epoch);
            lives[of].push(&mut frame.life);
            tasks.extend(frame.released.as_mut());
        }
        epochs.extend(one.lease.as_mut().into_iter().chain(two.lease.as_mut()));
        for local in [&mut one.local, &mut two.local] {
            match local {
                Local::Running(epoch) | Local::Released(epoch) | Local::Stopping(Some(epoch)) => {
                    tasks.push(epoch);
                }
                Local::Stopping(None) | Local::Stopped | Local::Unknown(_) => {}
            }
        }
        lives.into_iter().chain([epochs, tasks]).for_each(rank);
        self
    }
}

/// Replaces numbers by their rank; 0 stays 0.
fn rank(numbers: Vec<&mut u8>) {
    let mut order: Vec<u8> = numbers.iter().map(|number| **number).collect();
    order.push(0);
    order.sort_unstable();
    order.dedup();
    for number in numbers {
        *number = order.binary_search(number).unwrap_or(0) as u8;
    }
}

impl HandOver {
    fn proves(&self, state: &State, me: usize) -> bool {
        let (node, other) = (&state.nodes[me], &state.nodes[1 - me]);
        let by_register = node.known == state.register;
        let same_view = other.known.epoch == node.known.epoch;
        let by_frames = node.known.listed[1 - me].life() == Some(other.life)
            && other.up
            && (same_view || self.broken == Broken::AnyViewConfirms)
            && !other.asked;
        is_member(node, me) && (by_register || by_frames)
    }

    /// No lease under the node's view or an earlier one is left with who is not listed in it.
    fn time_is_over(state: &State, me: usize) -> bool {
        let (node, other) = (&state.nodes[me], &state.nodes[1 - me]);
        let later = other.lease.is_some_and(|epoch| epoch > node.known.epoch);
        let ended = later || (other.lease.is_none() && !other.local.runs());
        node.known.epoch > 0 && (ended || node.known.listed[1 - me] != Listed::Out)
    }

    fn read(node: &mut Node, me: usize, register: View) {
        let was_member = is_member(node, me);
        if node.known.task != register.task {
            node.timed = false;
        }
        node.known = register;
        node.asked = false;
        if was_member && !is_member(node, me) {
            node.lease = None;
        }
    }

    fn hear(other: &Node) -> Frame {
        let released = match other.local {
            Local::Released(epoch) => Some(epoch),
            _ => None,
        };
        Frame {
            life: other.life,
            epoch: other.known.epoch,
            may_run: other.local.may_run(),
            released,
        }
    }

    fn life(node: &mut Node, action: Action) {
        match action {
            Action::PowerLost(_) => {
                *node = Node {
                    up: false,
                    life: node.life,
                    known: UNREAD,
                    local: Local::Stopped,
                    lease: None,
                    heard: None,
                    timed: false,
                    asked: false,
                };
            }
            Action::Boot(_) => (node.up, node.life) = (true, node.life + 1),
            Action::CoreRestarts(_) => {
                // The guard lives on, and with it the lease.
                *node = Node {
                    known: UNREAD,
                    local: Local::Unknown(node.local.runs()),
                    heard: None,
                    timed: false,
                    asked: false,
                    ..*node
                };
            }
            Action::Hello(_) => match node.local {
                Local::Unknown(true) => node.local = Local::Running(node.known.task),
                Local::Unknown(false) => node.local = Local::Stopped,
                _ => {}
            },
            _ => {}
        }
    }

    fn local_actions(&self, state: &State, me: usize, actions: &mut Vec<Action>) {
        let node = &state.nodes[me];
        if !node.up {
            actions.push(Action::Boot(me));
            return;
        }
        actions.extend([Action::Read(me), Action::Silence(me)]);
        if state.faults < self.faults {
            actions.extend([Action::PowerLost(me), Action::CoreRestarts(me)]);
        }
        match node.local {
            Local::Unknown(_) => actions.push(Action::Hello(me)),
            Local::Stopping(_) => actions.push(Action::StopDone(me)),
            Local::Stopped | Local::Running(_) | Local::Released(_) => {}
        }
        if state.nodes[1 - me].up {
            actions.push(Action::Hear(me));
        }
        if node.lease.is_some() {
            actions.push(Action::LeaseEnds(me));
        }
        if Self::time_is_over(state, me) {
            actions.push(Action::TimeIsOver(me));
        }
    }
}

impl Model for HandOver {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::first()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for me in 0..2 {
            self.local_actions(state, me, actions);
            if self.proves(state, me) {
                actions.push(Action::Prove(me));
            }
            let changes = [
                Action::Move(me),
                Action::CallOff(me),
                Action::Inherit(me),
                Action::Settle(me),
                Action::Evict(me),
                Action::Join(me),
                Action::Promote(me),
                Action::StartAlone(me),
            ];
            let possible = |action: &Action| self.change(state, *action).is_some();
            actions.extend(changes.into_iter().filter(possible));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        match action {
            Action::Read(me) => Self::read(&mut state.nodes[me], me, last.register),
            Action::Hear(me) => state.nodes[me].heard = Some(Self::hear(&last.nodes[1 - me])),
            Action::Silence(me) => state.nodes[me].heard = None,
            Action::Prove(me) => state.nodes[me].lease = Some(last.nodes[me].known.epoch),
            Action::LeaseEnds(me) => {
                let node = &mut state.nodes[me];
                (node.lease, node.local) = (None, node.local.stopped());
            }
            Action::TimeIsOver(me) => state.nodes[me].timed = true,
            Action::StopDone(me) => state.nodes[me].local = last.nodes[me].local.stopped(),
            Action::Hello(me)
            | Action::PowerLost(me)
            | Action::Boot(me)
            | Action::CoreRestarts(me) => Self::life(&mut state.nodes[me], action),
            Action::Evict(me) => {
                state.register = self.change(last, action)?;
                state.nodes[me].asked = true;
            }
            Action::Move(_)
            | Action::CallOff(_)
            | Action::Inherit(_)
            | Action::Settle(_)
            | Action::Join(_)
            | Action::Promote(_)
            | Action::StartAlone(_) => state.register = self.change(last, action)?,
        }
        state.moves += u8::from(self.moves > 0 && matches!(action, Action::Move(_)));
        state.faults += u8::from(matches!(
            action,
            Action::PowerLost(_) | Action::CoreRestarts(_)
        ));
        for me in 0..2 {
            if state.nodes[me].known == state.register || state.nodes[me].known.epoch == 0 {
                state.behind[me] = 0;
            } else if state.register != last.register {
                state.behind[me] += 1;
            }
        }
        for (me, node) in state.nodes.iter_mut().enumerate() {
            // One turn: what an event means for the task is done with it. Twice: a promise that
            // ends may be followed by a start.
            if *node != last.nodes[me] && node.up {
                node.local = self.step(node, me);
                node.local = self.step(node, me);
            }
        }
        let state = state.ranked();
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let never_two = |_: &Self, state: &State| !state.nodes.iter().all(|node| node.local.runs());
        vec![Property::always("never two runners", never_two)]
    }
}

fn sized(faults: u8, moves: u8, broken: Broken) -> HandOver {
    HandOver {
        faults,
        behind: 1,
        moves,
        evictions: broken != Broken::Nothing || crate::size() >= crate::Size::Normal,
        broken,
    }
}

#[test]
fn never_two_runners() {
    let any = usize::MAX;
    if crate::size() >= crate::Size::Normal {
        crate::holds_within("handover", sized(0, 0, Broken::Nothing), any);
    }
    let name = "handover, one fault, one move";
    match crate::size() {
        crate::Size::Small => crate::holds_within(name, sized(1, 1, Broken::Nothing), 14),
        crate::Size::Normal => crate::holds_within(name, sized(1, 1, Broken::Nothing), 18),
        crate::Size::Large => crate::holds_within(name, sized(1, 1, Broken::Nothing), any),
    }
}

/// From every state, whatever went wrong on the way to it.
#[test]
fn the_task_can_always_run_again() {
    let running = |node: &Node| matches!(node.local, Local::Running(_));
    let goal = |state: &State| state.nodes.iter().any(running);
    if crate::size() == crate::Size::Small {
        return; // takes minutes without optimisation
    }
    crate::never_stuck("handover, ways on", &sized(0, 0, Broken::Nothing), goal);
}

#[test]
fn each_rule_is_needed() {
    for broken in [
        Broken::HeirStartsAtOnce,
        Broken::TimeCountsForListed,
        Broken::HeirForgotten,
        Broken::WordUnderAnyView,
        Broken::AnyViewConfirms,
        Broken::OwnerForgotten,
    ] {
        crate::breaks(&format!("handover, {broken:?}"), sized(0, 0, broken));
    }
}
