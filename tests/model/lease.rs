//! The lease against the eviction, tick by tick.
//!
//! ```text
//! A: sends frames, gets them confirmed, reads the register: lease until the proof's date + L;
//!    what runs is gone G after the lease's end
//! B: hears A, confirms; silent for S: asks for a view without A, confirms no more;
//!    has won it at r;
//!    starts at r + L + G
//! ```
//!
//! Ages are counted instead of dates. Frames and confirmations take any time; of those under way
//! the youngest stands for all, since an older one proves less. A read of the register begins,
//! sees it as it is at some moment, and is reported at any later one. S = L and G = 1 tick; the
//! compare-and-swap takes any time.

use stateright::{Model, Property};

/// G in ticks.
const RELEASE: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cast {
    /// B has not asked for a view without A.
    Idle,
    /// Asked; it may be decided, which B does not know yet.
    Asked { decided: bool },
    /// B has known for so many ticks that it has won.
    Won(u8),
    /// A was first: B is out.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Read {
    age: u8,
    /// Whether it saw A evicted; none before it has looked.
    evicted: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// Ticks that A's lease is still good for.
    lease: u8,
    /// Ticks within which A has to be gone after its lease.
    grace: u8,
    runs: [bool; 2],
    /// A has learnt that it is out.
    knows: bool,
    frame: Option<u8>,
    /// Age of the newest frame that B has heard, by its sending.
    heard: u8,
    silent: u8,
    confirmation: Option<u8>,
    read: Option<Read>,
    cast: Cast,
    /// Since B began to suspect A.
    suspected: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Tick,
    Send,
    Hear,
    Confirm,
    Confirmed,
    BeginRead,
    Look,
    EndRead,
    Stop,
    Start,
    Ask,
    Decide,
    Learn,
    LoseRace,
    TakeOver,
}

/// A rule that is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Nothing,
    /// A confirmation is dated by its arrival.
    DatedByArrival,
    /// A read of the register is dated by its end.
    ReadDatedByEnd,
    /// B goes on confirming, also once it knows another view.
    StillConfirms,
    /// B goes on confirming until it knows another view.
    StillConfirmsWhileAsking,
    /// B counts from its suspicion.
    FromSuspicion,
    /// B does not wait for the release.
    NoRelease,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Race {
    /// S and L in ticks.
    pub(crate) lease: u8,
    pub(crate) broken: Broken,
}

impl Race {
    fn confirms(&self, state: &State) -> bool {
        match state.cast {
            Cast::Idle => true,
            Cast::Asked { .. } => matches!(
                self.broken,
                Broken::StillConfirms | Broken::StillConfirmsWhileAsking
            ),
            Cast::Won(_) => self.broken == Broken::StillConfirms,
            Cast::Lost => false,
        }
    }

    fn may_take_over(&self, state: &State) -> bool {
        let Cast::Won(ago) = state.cast else {
            return false;
        };
        let wait = match self.broken {
            Broken::NoRelease => self.lease,
            _ => self.lease + RELEASE,
        };
        let since = match self.broken {
            Broken::FromSuspicion => state.suspected,
            _ => ago,
        };
        since >= wait && !state.runs[1]
    }

    fn prove(&self, state: &mut State, age: u8) {
        if !state.knows {
            state.lease = state.lease.max(self.lease.saturating_sub(age));
        }
    }

    fn tick(&self, state: &mut State) {
        // Beyond this an age proves nothing, and no more is waited for.
        let old = self.lease + RELEASE + 1;
        let older = |age: &mut u8| *age = (*age + 1).min(old);
        state.frame.iter_mut().for_each(older);
        state.confirmation.iter_mut().for_each(older);
        state.read.iter_mut().for_each(|read| older(&mut read.age));
        older(&mut state.heard);
        state.silent = (state.silent + 1).min(self.lease);
        if let Cast::Won(ago) = &mut state.cast {
            older(ago);
        }
        if state.cast != Cast::Idle {
            older(&mut state.suspected);
        }
        if state.lease > 0 {
            state.lease -= 1;
            state.grace = RELEASE;
        } else {
            state.grace = state.grace.saturating_sub(1);
        }
        if state.lease == 0 && state.grace == 0 {
            state.runs[0] = false;
        }
    }

    fn end_read(&self, state: &mut State) {
        let Some(read) = state.read.take() else {
            return;
        };
        if read.evicted == Some(true) {
            state.knows = true;
            state.lease = 0;
            state.grace = RELEASE;
        } else {
            let by_end = self.broken == Broken::ReadDatedByEnd;
            self.prove(state, if by_end { 0 } else { read.age });
        }
    }
}

impl Model for Race {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            lease: self.lease,
            grace: RELEASE,
            runs: [true, false],
            knows: false,
            frame: None,
            heard: 0,
            silent: 0,
            confirmation: None,
            read: None,
            cast: Cast::Idle,
            suspected: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend([Action::Tick, Action::Send]);
        let mut when = |possible: bool, action: Action| actions.extend(possible.then_some(action));
        when(state.frame.is_some(), Action::Hear);
        when(self.confirms(state), Action::Confirm);
        when(state.confirmation.is_some(), Action::Confirmed);
        when(state.read.is_none(), Action::BeginRead);
        when(
            state.read.is_some_and(|read| read.evicted.is_none()),
            Action::Look,
        );
        when(
            state.read.is_some_and(|read| read.evicted.is_some()),
            Action::EndRead,
        );
        when(state.runs[0], Action::Stop);
        when(!state.runs[0] && state.lease > 0, Action::Start);
        when(
            state.cast == Cast::Idle && state.silent >= self.lease,
            Action::Ask,
        );
        when(state.cast == Cast::Asked { decided: false }, Action::Decide);
        when(state.cast == Cast::Asked { decided: true }, Action::Learn);
        let open = matches!(state.cast, Cast::Idle | Cast::Asked { decided: false });
        when(open, Action::LoseRace);
        when(self.may_take_over(state), Action::TakeOver);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        let evicted = matches!(last.cast, Cast::Won(_) | Cast::Asked { decided: true });
        match action {
            Action::Tick => self.tick(&mut state),
            Action::Send => state.frame = Some(0),
            Action::Hear => {
                state.heard = state.frame.take()?;
                state.silent = 0;
            }
            Action::Confirm => {
                state.confirmation = Some(
                    state
                        .confirmation
                        .map_or(state.heard, |age| age.min(state.heard)),
                );
            }
            Action::Confirmed => {
                let age = state.confirmation.take()?;
                let by_arrival = self.broken == Broken::DatedByArrival;
                self.prove(&mut state, if by_arrival { 0 } else { age });
            }
            Action::BeginRead => {
                state.read = Some(Read {
                    age: 0,
                    evicted: None,
                });
            }
            Action::Look => state.read.as_mut()?.evicted = Some(evicted),
            Action::EndRead => self.end_read(&mut state),
            Action::Stop => state.runs[0] = false,
            Action::Start => state.runs[0] = true,
            Action::Ask => state.cast = Cast::Asked { decided: false },
            Action::Decide => state.cast = Cast::Asked { decided: true },
            Action::Learn => state.cast = Cast::Won(0),
            Action::LoseRace => state.cast = Cast::Lost,
            Action::TakeOver => state.runs[1] = true,
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![Property::always("never two runners", |_, state: &State| {
            state.runs != [true, true]
        })];
        if self.broken == Broken::Nothing {
            properties.extend([
                Property::sometimes("B takes over", |_, state: &State| state.runs[1]),
                Property::sometimes("A runs until B may start", |race: &Race, state: &State| {
                    state.runs[0] && state.cast == Cast::Won(race.lease + RELEASE - 1)
                }),
            ]);
        }
        properties
    }
}

fn race(broken: Broken) -> Race {
    let lease = match crate::size() {
        crate::Size::Small => 2,
        crate::Size::Normal => 3,
        crate::Size::Large => 4,
    };
    Race { lease, broken }
}

#[test]
fn never_two_runners() {
    crate::holds("lease", race(Broken::Nothing));
}

/// The view has another epoch as soon as it is known, which ends the confirmations as well, and
/// the time is counted from then: that they end with the asking already is one rule more.
#[test]
fn confirming_until_the_view_is_known_would_do() {
    let broken = Broken::StillConfirmsWhileAsking;
    crate::holds("lease, StillConfirmsWhileAsking", race(broken));
}

#[test]
fn each_rule_is_needed() {
    for broken in [
        Broken::DatedByArrival,
        Broken::ReadDatedByEnd,
        Broken::StillConfirms,
        Broken::FromSuspicion,
        Broken::NoRelease,
    ] {
        crate::breaks(&format!("lease, {broken:?}"), race(broken));
    }
}
