//! Three nodes that evict each other and come back in two steps, *joining* then *member*.
//!
//! Follows `renew_lease`, `join`, `promotion`, `confirmed_by_all` and `reassign` of `src/engine`,
//! without hand-overs and reboots, which `handover.rs` has. Whoever listens hears everything at
//! once; who is not listened to may be taken for silent at any time. The wait for one who is not
//! listed is over when no lease under the waiting node's view or an earlier one is left. What has
//! to be shown is that none can be had again after that.

use stateright::{Model, Property};

const NODES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Standing {
    Out,
    Joining,
    Member,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct View {
    epoch: u8,
    standing: [Standing; NODES],
    owner: usize,
    task: u8,
    /// Bit by node; more than one bit means that everybody is asked.
    after: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Local {
    Stopped,
    Running,
    Stopping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Node {
    known: View,
    local: Local,
    /// Epoch of the view under which the lease was last proved.
    lease: Option<u8>,
    timed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    nodes: [Node; NODES],
    register: View,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Read(usize),
    Prove(usize),
    LeaseEnds(usize),
    TimeIsOver(usize),
    Stopped(usize),
    Start(usize),
    Evict(usize, usize),
    Join(usize),
    Promote(usize),
    Settle(usize),
}

/// A rule that is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Nothing,
    /// A newcomer has all rights with its first write.
    OneStep,
    /// A lease does without the confirmation of joining nodes.
    JoiningNotAsked,
    /// A confirmation counts whatever view the other knows.
    AnyViewConfirms,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Rejoin {
    /// Highest epoch of the view.
    pub(crate) epochs: u8,
    pub(crate) broken: Broken,
}

impl Rejoin {
    fn proves(&self, state: &State, me: usize) -> bool {
        let view = &state.nodes[me].known;
        let asked = |other: &usize| match view.standing[*other] {
            Standing::Member => true,
            Standing::Joining => self.broken != Broken::JoiningNotAsked,
            Standing::Out => false,
        };
        let mut others = (0..NODES)
            .filter(|other| *other != me)
            .filter(asked)
            .peekable();
        let any = self.broken == Broken::AnyViewConfirms;
        let confirms = |other: usize| any || state.nodes[other].known.epoch == view.epoch;
        let by_frames = others.peek().is_some() && others.all(confirms);
        view.standing[me] == Standing::Member && (*view == state.register || by_frames)
    }

    fn is_out(state: &State, me: usize, of: usize) -> bool {
        let (node, other) = (&state.nodes[me], &state.nodes[of]);
        let stopped = other.local == Local::Stopped;
        if of == me {
            return stopped;
        }
        match node.known.standing[of] {
            Standing::Out => node.timed || (stopped && other.known.epoch >= node.known.epoch),
            Standing::Joining | Standing::Member => {
                stopped && other.known.epoch == node.known.epoch
            }
        }
    }

    fn all_out(state: &State, me: usize) -> bool {
        let after = state.nodes[me].known.after;
        let anybody = after.count_ones() > 1;
        (0..NODES).all(|of| !(anybody || after & 1 << of != 0) || Self::is_out(state, me, of))
    }

    fn may_start(state: &State, me: usize) -> bool {
        let node = &state.nodes[me];
        node.known.owner == me
            && node.known.standing[me] == Standing::Member
            && node.lease.is_some()
            && node.local == Local::Stopped
            && Self::all_out(state, me)
    }

    fn time_is_over(state: &State, me: usize) -> bool {
        let known = &state.nodes[me].known;
        (0..NODES)
            .filter(|of| known.standing[*of] == Standing::Out)
            .all(|of| {
                let other = &state.nodes[of];
                let later = other.lease.is_some_and(|epoch| epoch > known.epoch);
                later || (other.lease.is_none() && other.local == Local::Stopped)
            })
    }

    fn change(&self, state: &State, action: Action) -> Option<View> {
        let (Action::Evict(me, _) | Action::Join(me) | Action::Promote(me) | Action::Settle(me)) =
            action
        else {
            return None;
        };
        let node = &state.nodes[me];
        let mut view = node.known;
        if view != state.register || view.epoch == self.epochs {
            return None;
        }
        view.epoch += 1;
        let member = view.standing[me] == Standing::Member;
        let done = match action {
            Action::Evict(_, of) => {
                let listed = view.standing[of] != Standing::Out && of != me;
                view.standing[of] = Standing::Out;
                let owned = view.owner == of;
                if owned || view.after & 1 << of != 0 || view.after.count_ones() > 1 {
                    view.task += 1;
                }
                if owned {
                    (view.owner, view.after) = (me, view.after | 1 << of);
                }
                member && listed
            }
            Action::Join(_) => {
                let out = view.standing[me] == Standing::Out;
                view.standing[me] = match self.broken {
                    Broken::OneStep => Standing::Member,
                    _ => Standing::Joining,
                };
                out
            }
            Action::Promote(_) => {
                let joining = view.standing[me] == Standing::Joining;
                let full = |of: &usize| node.known.standing[*of] == Standing::Member;
                let knows = |of: usize| state.nodes[of].known.epoch >= node.known.epoch;
                view.standing[me] = Standing::Member;
                joining && (0..NODES).filter(full).all(knows)
            }
            Action::Settle(_) => {
                view.after = 0;
                let runs = node.local == Local::Running && node.known.owner == me;
                member && runs && node.known.after != 0 && Self::all_out(state, me)
            }
            _ => false,
        };
        done.then_some(view)
    }

    fn read(state: &mut State, me: usize) {
        let register = state.register;
        let node = &mut state.nodes[me];
        node.timed &= node.known.task == register.task;
        node.known = register;
        if register.standing[me] != Standing::Member {
            node.lease = None;
        }
        let mine = node.lease.is_some() && register.owner == me;
        if node.local == Local::Running && !mine {
            node.local = Local::Stopping;
        }
    }
}

impl Model for Rejoin {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let register = View {
            epoch: 1,
            standing: [Standing::Member, Standing::Member, Standing::Out],
            owner: 0,
            task: 1,
            after: 0,
        };
        let node = Node {
            known: register,
            local: Local::Stopped,
            lease: None,
            timed: false,
        };
        let owner = Node {
            local: Local::Running,
            lease: Some(1),
            ..node
        };
        vec![State {
            nodes: [owner, node, node],
            register,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for me in 0..NODES {
            let node = &state.nodes[me];
            if node.known != state.register {
                actions.push(Action::Read(me));
            }
            if self.proves(state, me) {
                actions.push(Action::Prove(me));
            }
            if node.lease.is_some() {
                actions.push(Action::LeaseEnds(me));
            }
            if !node.timed && node.known.owner == me && Self::time_is_over(state, me) {
                actions.push(Action::TimeIsOver(me));
            }
            if node.local == Local::Stopping {
                actions.push(Action::Stopped(me));
            }
            if Self::may_start(state, me) {
                actions.push(Action::Start(me));
            }
            let changes = [Action::Join(me), Action::Promote(me), Action::Settle(me)];
            let changes = changes
                .into_iter()
                .chain((0..NODES).map(|of| Action::Evict(me, of)));
            actions.extend(changes.filter(|action| self.change(state, *action).is_some()));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        match action {
            Action::Read(me) => Self::read(&mut state, me),
            Action::Prove(me) => state.nodes[me].lease = Some(last.nodes[me].known.epoch),
            Action::LeaseEnds(me) => {
                state.nodes[me].lease = None;
                state.nodes[me].local = Local::Stopped;
            }
            Action::TimeIsOver(me) => state.nodes[me].timed = true,
            Action::Stopped(me) => state.nodes[me].local = Local::Stopped,
            Action::Start(me) => state.nodes[me].local = Local::Running,
            Action::Evict(..) | Action::Join(_) | Action::Promote(_) | Action::Settle(_) => {
                state.register = self.change(last, action)?;
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![Property::always("never two runners", |_, state: &State| {
            let runs = |node: &&Node| node.local != Local::Stopped;
            state.nodes.iter().filter(runs).count() < 2
        })];
        if self.broken == Broken::Nothing {
            properties.push(Property::sometimes(
                "the newcomer runs it",
                |_, state: &State| state.nodes[2].local == Local::Running,
            ));
        }
        properties
    }
}

#[test]
fn never_two_runners() {
    let epochs = match crate::size() {
        crate::Size::Small => 5,
        crate::Size::Normal => 6,
        crate::Size::Large => 8,
    };
    let broken = Broken::Nothing;
    crate::holds("rejoin, 3 nodes", Rejoin { epochs, broken });
}

#[test]
fn each_rule_is_needed() {
    for broken in [
        Broken::OneStep,
        Broken::JoiningNotAsked,
        Broken::AnyViewConfirms,
    ] {
        crate::breaks(&format!("rejoin, {broken:?}"), Rejoin { epochs: 5, broken });
    }
}
