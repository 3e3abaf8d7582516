//! Takes a unit: afterwards this node alone is registered, on every path that lives, and holds the
//! reservation. Looks, decides, acts, and looks again until it is so.
//!
//! ```text
//! 1  look       names, keys, holder, capabilities      by every path at once
//! 2  register   own key, by every path at once
//! 3  reserve, or preempt and abort the former owner
//! 4  look       keys, holder; is the own key there once for each path?  -> taken
//! ```
//! Four round trips, one after the other, whether the unit was free or one former owner held it;
//! three more for each further key: preempt, reset, look. Nothing is written before the first look
//! has shown that the unit is the right one and that nobody came later. What was lost on the way
//! (an error after the command was done, a key gone before it was preempted, somebody later who
//! came after the first look) shows in the next look and in nothing else: a key that is gone cannot
//! be preempted, and what another holds not be reserved.

use std::time::{Duration, Instant};

use standfast_sys::scsi::{Identity, preferred_identity};

use super::error::TakeError;
use super::key::{Key, Whose};
use super::unit::{Answer, Ask, Fault, Held, Unit};

/// Most looks of one attempt. Each but the last is followed by one step forward; only nodes that
/// register again and again while they are preempted could use them up.
const LOOKS_MAX: usize = 24;

/// Between two looks when no path answered or a race was lost.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How often a holder without a registration is looked at again.
const ODD_MAX: usize = 3;

/// How often a path that has lost its registration meanwhile is given it again.
const REGISTER_MAX: usize = 4;

/// Least time for a preempt: it answers when all that the victim has under way is aborted, and to
/// reset the unit before that would only disturb it.
const ABORT_MIN: Duration = Duration::from_secs(3);

/// How long the paths get to take back what was registered, after a failure.
const RETREAT_MAX: Duration = Duration::from_secs(1);

/// What bounds an attempt.
#[derive(Clone, Copy)]
pub struct Bounds<'a> {
    /// How long one round trip is waited for. A path that needs longer is left behind; the keeper
    /// looks after it.
    pub patience: Duration,
    /// When to give up.
    pub deadline: Instant,
    /// Asked between round trips: is the attempt to end?
    pub cancelled: &'a dyn Fn() -> bool,
}

/// What a look has shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    pub(super) keys: Vec<u64>,
    pub(super) holder: Option<Held>,
    pub(super) outlives_power: bool,
    pub(super) has_type: bool,
    /// Paths that turned out not to be registered.
    pub(super) refused: Vec<usize>,
    /// How often the own key is there: once for each path, if the unit counts so.
    pub(super) copies: usize,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Give these paths the own key.
    Register(Vec<usize>),
    /// Remove this key.
    Preempt(u64),
    Reserve,
    Taken,
}

/// What a look asks for: pure, so that every case can be tried.
///
/// `registered` are the paths that were given the key already, `alive` those that answer.
pub(super) fn decide(
    look: &Look,
    own: Key,
    registered: &[usize],
    alive: &[usize],
) -> Result<Next, TakeError> {
    let all: Vec<Whose> = look
        .keys
        .iter()
        .chain(
            look.holder
                .iter()
                .map(|held| &held.key)
                .filter(|key| **key != 0),
        )
        .map(|number| Whose::read(*number, own.cluster))
        .collect();
    let later =
        |whose: &&Whose| matches!(whose, Whose::Ours(key) if key.epoch.is_later_than(own.epoch));
    if let Some(by) = all.iter().find(later) {
        return Err(TakeError::Later { by: *by, own });
    }
    let strange = |whose: &Whose| !matches!(whose, Whose::Ours(_));
    let mut foreign: Vec<Whose> = all.iter().copied().filter(strange).collect();
    foreign.dedup();
    if !foreign.is_empty() {
        return Err(TakeError::Foreign { keys: foreign });
    }
    if !look.has_type {
        return Err(TakeError::NoSuchType);
    }
    let missing = |path: &&usize| !registered.contains(path) || look.refused.contains(path);
    let missing: Vec<usize> = alive.iter().filter(missing).copied().collect();
    if !missing.is_empty() {
        return Ok(Next::Register(missing));
    }
    let number = own.number();
    let holder = look.holder.map(|held| held.key);
    // The holder's key first: with it the reservation changes hands without a gap.
    let victim = holder.filter(|key| *key != number && look.keys.contains(key));
    if let Some(victim) = victim.or_else(|| look.keys.iter().copied().find(|key| *key != number)) {
        return Ok(Next::Preempt(victim));
    }
    match look.holder {
        None => Ok(Next::Reserve),
        Some(held) if held.key == number && held.is_ours_in_kind && look.keys.contains(&number) => {
            if look.outlives_power {
                Ok(Next::Taken)
            } else {
                Err(TakeError::NotPersistent)
            }
        }
        Some(held) => Err(TakeError::HeldOtherwise { key: held.key }),
    }
}

/// Takes the unit with this key. With an identity, only if the unit has this name; else only if all
/// paths show the same.
///
/// # Errors
///
/// Nothing was taken; registrations of this attempt were taken back where that was possible, unless
/// the reservation may be this node's by then: better nobody writes than two.
pub fn take(
    unit: &mut dyn Unit,
    own: Key,
    identity: Option<&Identity>,
    bounds: Bounds<'_>,
) -> Result<(), TakeError> {
    let mut attempt = Attempt {
        alive: (0..unit.paths()).collect(),
        unit,
        own,
        bounds,
        name: identity.cloned(),
        proven: Vec::new(),
        registered: Vec::new(),
        may_hold: false,
        registrations: 0,
        trouble: None,
    };
    let result = attempt.run();
    if result.is_err() {
        attempt.retreat();
    }
    result
}

/// A look that is being put together.
#[derive(Default)]
struct Seen {
    /// The own key.
    own: u64,
    look: Option<Look>,
    /// The holder was told.
    told: bool,
    names: Vec<(usize, Vec<Identity>)>,
    /// Paths that did not answer.
    dead: Vec<usize>,
}

impl Seen {
    fn take_in(
        &mut self,
        path: usize,
        ask: &Ask,
        answer: Result<Answer, Fault>,
    ) -> Result<(), TakeError> {
        let look = self.look.get_or_insert_with(|| Look {
            outlives_power: true,
            has_type: true,
            ..Look::default()
        });
        match answer {
            // Read at slightly different moments: what any path shows counts.
            Ok(Answer::Keys { keys, .. }) => {
                let copies = keys.iter().filter(|key| **key == self.own).count();
                look.copies = look.copies.max(copies);
                let new = |key: &u64| !look.keys.contains(key);
                let new: Vec<u64> = keys.into_iter().filter(new).collect();
                look.keys.extend(new);
            }
            Ok(Answer::Holder(held)) => (look.holder, self.told) = (held, true),
            Ok(Answer::Identities(found)) => self.names.push((path, found)),
            Ok(Answer::Capabilities {
                outlives_power,
                has_type,
            }) => (look.outlives_power, look.has_type) = (outlives_power, has_type),
            Ok(Answer::Registered(_) | Answer::Done) => {}
            Err(fault) if fault.is_of_the_path() => self.dead.push(path),
            Err(_) if *ask == Ask::Identity => self.names.push((path, Vec::new())),
            // Not every unit tells; the keys decide.
            Err(_) if *ask == Ask::Capabilities => {}
            Err(fault) => return Err(TakeError::Refused { fault }),
        }
        Ok(())
    }
}

/// Does every path that answers lead to the unit of this name, or without one to the same?
///
/// # Errors
///
/// [`TakeError::OtherDisk`]; no path answers.
pub(super) fn check_name(
    unit: &mut dyn Unit,
    identity: Option<&Identity>,
    patience: Duration,
) -> Result<(), TakeError> {
    let asks: Vec<(usize, Ask)> = (0..unit.paths())
        .map(|path| (path, Ask::Identity))
        .collect();
    let mut wanted = identity.cloned();
    let mut trouble = None;
    let mut proven = false;
    for ((path, _), answer) in asks.iter().zip(unit.round(&asks, patience)) {
        let found = match answer {
            Ok(Answer::Identities(found)) => found,
            Ok(_) => continue,
            Err(fault) => {
                trouble = Some(fault.to_string());
                continue;
            }
        };
        wanted = same_disk(unit, *path, found, wanted)?;
        proven = true;
    }
    match proven {
        true => Ok(()),
        false => Err(TakeError::Late {
            what: trouble.unwrap_or_else(|| "no path answered".to_owned()),
        }),
    }
}

/// The name that the next path must have too.
fn same_disk(
    unit: &dyn Unit,
    path: usize,
    found: Vec<Identity>,
    wanted: Option<Identity>,
) -> Result<Option<Identity>, TakeError> {
    match wanted.or_else(|| preferred_identity(&found).cloned()) {
        Some(wanted) if !found.contains(&wanted) => Err(TakeError::OtherDisk {
            path: unit.path_name(path),
            wanted,
            found: preferred_identity(&found).cloned(),
        }),
        wanted => Ok(wanted),
    }
}

struct Attempt<'a> {
    unit: &'a mut dyn Unit,
    own: Key,
    bounds: Bounds<'a>,
    /// Paths that answer.
    alive: Vec<usize>,
    /// What the unit is called: as told, else by the first path.
    name: Option<Identity>,
    /// Paths that lead to it.
    proven: Vec<usize>,
    /// Paths that were given the key.
    registered: Vec<usize>,
    /// The reservation may be this node's.
    may_hold: bool,
    /// How often paths were given the key.
    registrations: usize,
    /// What went wrong last.
    trouble: Option<String>,
}

impl Attempt<'_> {
    fn run(&mut self) -> Result<(), TakeError> {
        let (mut looks, mut odd) = (0, 0);
        while looks < LOOKS_MAX {
            self.bounded()?;
            let Some(mut look) = self.look()? else {
                if self.alive.is_empty() {
                    self.unit.pause(LOOK_AGAIN);
                    self.alive = (0..self.unit.paths()).collect();
                }
                continue;
            };
            looks += 1;
            if !self.registered.is_empty() && look.copies < self.alive.len() {
                self.find_refused(&mut look);
            }
            self.may_hold = look
                .holder
                .is_some_and(|held| held.key == self.own.number());
            match decide(&look, self.own, &self.registered, &self.alive) {
                Ok(Next::Taken) => return Ok(()),
                Ok(Next::Register(paths)) => {
                    self.register(&paths)?;
                    let then = decide(&look, self.own, &self.registered, &self.alive);
                    if let Ok(next @ (Next::Preempt(_) | Next::Reserve)) = then {
                        self.bounded()?;
                        self.hold(&next, &look)?;
                    }
                }
                Ok(next) => self.hold(&next, &look)?,
                // Keys and holder are read one after the other: between them something changed.
                Err(TakeError::HeldOtherwise { .. }) if odd < ODD_MAX => {
                    odd += 1;
                    self.unit.pause(LOOK_AGAIN);
                }
                Err(error) => return Err(error),
            }
        }
        Err(self.late("others register again and again"))
    }

    /// Makes the reservation this node's, or removes who stands in the way.
    fn hold(&mut self, next: &Next, look: &Look) -> Result<(), TakeError> {
        match *next {
            Next::Preempt(victim) => self.preempt(victim, look),
            Next::Reserve => self.reserve(),
            Next::Register(_) | Next::Taken => Ok(()),
        }
    }

    fn bounded(&self) -> Result<(), TakeError> {
        if (self.bounds.cancelled)() {
            return Err(TakeError::Cancelled);
        }
        if self.unit.now() >= self.bounds.deadline {
            return Err(self.late("no path answered in time"));
        }
        Ok(())
    }

    fn late(&self, what: &str) -> TakeError {
        let what = match &self.trouble {
            Some(trouble) => format!("{what}; the last was: {trouble}"),
            None => what.to_owned(),
        };
        TakeError::Late { what }
    }

    /// One round trip, within what is left of the time.
    fn round(&mut self, asks: &[(usize, Ask)]) -> Vec<Result<Answer, Fault>> {
        let left = self
            .bounds
            .deadline
            .saturating_duration_since(self.unit.now());
        let aborts = asks
            .iter()
            .any(|(_, ask)| matches!(ask, Ask::Preempt { .. }));
        let patience = match aborts {
            true => self.bounds.patience.max(ABORT_MIN),
            false => self.bounds.patience,
        };
        let answers = self.unit.round(asks, patience.min(left));
        for ((path, _), answer) in asks.iter().zip(&answers) {
            if let Err(fault) = answer {
                let path = self.unit.path_name(*path);
                self.trouble = Some(format!("{path}: {fault}"));
            }
        }
        answers
    }

    /// Looks by every path that lives; none if no path told enough.
    fn look(&mut self) -> Result<Option<Look>, TakeError> {
        let Some(leader) = self.alive.first().copied() else {
            return Ok(None);
        };
        let mut asks = vec![(leader, Ask::Holder), (leader, Ask::Capabilities)];
        for path in self.alive.iter().copied() {
            asks.push((path, Ask::Keys));
            if !self.proven.contains(&path) {
                asks.push((path, Ask::Identity));
            }
        }
        let answers = self.round(&asks);
        let mut seen = Seen {
            own: self.own.number(),
            ..Seen::default()
        };
        for ((path, ask), answer) in asks.iter().zip(answers) {
            seen.take_in(*path, ask, answer)?;
        }
        self.alive.retain(|path| !seen.dead.contains(path));
        self.check_names(seen.names)?;
        let whole = seen.told && self.alive.first() == Some(&leader);
        Ok(seen.look.filter(|_| whole))
    }

    /// Is every path one to the unit that is meant?
    fn check_names(&mut self, names: Vec<(usize, Vec<Identity>)>) -> Result<(), TakeError> {
        for (path, found) in names {
            self.name = same_disk(self.unit, path, found, self.name.take())?;
            self.proven.push(path);
        }
        Ok(())
    }

    fn register(&mut self, paths: &[usize]) -> Result<(), TakeError> {
        self.registrations += 1;
        if self.registrations > REGISTER_MAX {
            return Err(self.late("registrations do not stay"));
        }
        let key = self.own.number();
        let asks: Vec<(usize, Ask)> = paths
            .iter()
            .map(|path| (*path, Ask::Register { key }))
            .collect();
        let answers = self.round(&asks);
        for (path, answer) in paths.iter().zip(answers) {
            match answer {
                Ok(_) => self.registered.push(*path),
                Err(fault) if fault.is_of_the_path() => {
                    // Perhaps it was done all the same: to be taken back in case of a failure.
                    self.registered.push(*path);
                    self.alive.retain(|alive| alive != path);
                }
                Err(fault) => return Err(TakeError::Refused { fault }),
            }
        }
        Ok(())
    }

    /// Which path has no registration? Not every unit counts a key once for each path.
    fn find_refused(&mut self, look: &mut Look) {
        let key = self.own.number();
        let asks: Vec<(usize, Ask)> = self
            .alive
            .iter()
            .map(|path| (*path, Ask::IsRegistered { key }))
            .collect();
        let answers = self.round(&asks);
        for ((path, _), answer) in asks.iter().zip(answers) {
            if answer == Ok(Answer::Registered(false)) {
                look.refused.push(*path);
            }
        }
    }

    /// Removes a key. Whatever comes of it, the next look tells.
    fn preempt(&mut self, victim: u64, look: &Look) -> Result<(), TakeError> {
        let own = self.own.number();
        assert_ne!(own, victim, "the own key is never preempted");
        self.may_hold = true;
        let held = look.holder.is_some_and(|held| held.key == victim);
        match self.act(&Ask::Preempt { own, victim })? {
            // What the victim has under way may keep the unit from answering (SPC-4 5.13.11.2.4).
            Some(Fault::Late(_)) => self.reset(),
            Some(_) => {}
            // Targets are known that abort nothing of a registrant that does not hold.
            None if !held && Key::read(victim).is_some_and(|key| key.node != self.own.node) => {
                self.reset();
            }
            None => {}
        }
        Ok(())
    }

    fn reserve(&mut self) -> Result<(), TakeError> {
        let key = self.own.number();
        self.may_hold = true;
        self.act(&Ask::Reserve { key }).map(drop)
    }

    /// Has one path do it. Returns what came in the way, if that is for the next look to judge.
    fn act(&mut self, ask: &Ask) -> Result<Option<Fault>, TakeError> {
        let Some(leader) = self.alive.first().copied() else {
            return Ok(None);
        };
        let answer = self.round(&[(leader, ask.clone())]).pop();
        match answer {
            Some(Err(fault @ (Fault::Unknown(_) | Fault::Refused(_)))) => {
                Err(TakeError::Refused { fault })
            }
            Some(Err(fault)) => {
                if fault.is_of_the_path() && self.alive.len() > 1 {
                    self.alive.retain(|path| *path != leader);
                }
                Ok(Some(fault))
            }
            Some(Ok(_)) | None => Ok(None),
        }
    }

    /// Best effort: what it was to end is judged by the looks that follow.
    fn reset(&mut self) {
        if let Some(path) = self.alive.first().copied() {
            let _ = self.round(&[(path, Ask::Reset)]);
        }
    }

    /// Takes back what this attempt has registered: a registration is the right to write.
    fn retreat(&mut self) {
        if self.may_hold || self.registered.is_empty() {
            return;
        }
        let key = self.own.number();
        let back = |path: &usize| (*path, Ask::Unregister { key });
        let asks: Vec<(usize, Ask)> = self.registered.iter().map(back).collect();
        let _ = self.unit.round(&asks, RETREAT_MAX);
    }
}
