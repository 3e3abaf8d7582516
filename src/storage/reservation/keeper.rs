//! Watches a unit that was taken: is it still this node's, and may every path write?
//!
//! ```text
//! each poll      READ KEYS by one path; if anything moved, a whole look
//! now and then   a whole look: keys and holder by every path
//! ```
//! A path that has lost its registration shows by the own key being there less often than there are
//! paths; then each is asked. So it is when a path answers again: after a new login it may be
//! another initiator port, and the registration of the port that it was still counts.
//!
//! A poll that reaches the unit by no path says nothing but that: whoever cannot reach it cannot
//! write to it either, and is the business of the lease.
//!
//! A registration given back to a path right after another node took the unit over would let this
//! node write beside it. So it is given only after a look which showed the reservation to be this
//! node's, is looked at once more, and taken back if that has changed. Between the two looks lies
//! one round trip; the new owner's keeper removes older keys as well.

use std::time::Duration;

use super::key::{Key, Whose};
use super::unit::{Answer, Ask, Fault, Held, Unit};

/// Polls from one whole look to the next.
const WHOLE_EVERY: u32 = 10;

/// Something that a poll has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The unit is another's, or this node's registrations are gone: none of its writes arrives
    /// from now on.
    Evicted {
        /// Who holds it now, or is registered with a later epoch.
        by: Option<Whose>,
    },
    /// The reservation was gone, though nobody else was there; it is back.
    Stripped,
    /// A path does not answer any more.
    PathLost {
        /// Its name.
        path: String,
        /// What it said last.
        why: String,
    },
    /// It does again.
    PathBack {
        /// Its name.
        path: String,
    },
    /// A path that had no registration was given it.
    Registered {
        /// Its name.
        path: String,
    },
    /// A registration that had no business there was removed.
    Removed {
        /// Whose it was.
        key: Whose,
    },
    /// Somebody else is registered, and is left alone.
    Stranger {
        /// Who.
        key: Whose,
    },
}

/// Watches one unit.
pub struct Keeper {
    own: Key,
    patience: Duration,
    generation: Option<u32>,
    /// How often the own key was there.
    copies: usize,
    /// So many copies are right for so many paths: each was asked. Without, one for each is.
    proven: Option<(usize, usize)>,
    /// A path answers again, and was not asked for its registration since.
    doubted: bool,
    polls: u32,
    lost: Vec<bool>,
    /// Told already.
    strangers: Vec<u64>,
    /// The last poll was told the keys.
    answers: bool,
}

/// What a poll has seen.
#[derive(Default)]
struct Seen {
    generation: Option<u32>,
    keys: Vec<u64>,
    holder: Option<Option<Held>>,
    /// How often the own key is there.
    copies: usize,
}

impl Keeper {
    /// Watches a unit of so many paths that was taken with this key. A round trip is waited for so
    /// long.
    #[must_use]
    pub fn new(own: Key, paths: usize, patience: Duration) -> Keeper {
        Keeper {
            own,
            patience,
            generation: None,
            copies: 0,
            proven: None,
            doubted: false,
            polls: 0,
            lost: vec![false; paths],
            strangers: Vec::new(),
            answers: false,
        }
    }

    /// So many paths there are by now. New ones count as lost until they answer.
    pub fn grow(&mut self, paths: usize) {
        self.lost.resize(paths.max(self.lost.len()), true);
    }

    /// The key that the unit was taken with.
    #[must_use]
    pub fn own(&self) -> Key {
        self.own
    }

    /// Did any path tell the keys when the unit was polled last?
    #[must_use]
    pub fn answers(&self) -> bool {
        self.answers
    }

    /// Looks once. After [`Found::Evicted`] there is nothing left to watch.
    pub fn poll(&mut self, unit: &mut dyn Unit) -> Vec<Found> {
        let mut found = Vec::new();
        let none_lives = !self.lost.contains(&false);
        let due = self.polls.is_multiple_of(WHOLE_EVERY) || none_lives;
        self.polls = self.polls.wrapping_add(1);
        let seen = if due {
            self.look(unit, self.paths(), &mut found)
        } else {
            let seen = self.glance(unit, &mut found);
            // Some targets count no generation when a path is unregistered.
            let same = seen.generation == self.generation && seen.copies == self.copies;
            let moved = seen.generation.is_some() && !same;
            // A path that hangs is not waited for each time.
            match moved {
                true => self.look(unit, self.living(), &mut found),
                false => seen,
            }
        };
        self.answers = seen.generation.is_some();
        if self.answers {
            self.judge(unit, &seen, &mut found);
        }
        found
    }

    /// The paths to ask, those that answered last first.
    fn paths(&self) -> Vec<usize> {
        let mut paths: Vec<usize> = (0..self.lost.len()).collect();
        paths.sort_by_key(|path| self.lost[*path]);
        paths
    }

    fn living(&self) -> Vec<usize> {
        let mut paths = self.paths();
        paths.retain(|path| !self.lost[*path]);
        paths
    }

    /// The keys, by the first path that tells them.
    fn glance(&mut self, unit: &mut dyn Unit, found: &mut Vec<Found>) -> Seen {
        let mut seen = Seen::default();
        for path in self.living() {
            self.ask(unit, vec![(path, Ask::Keys)], &mut seen, found);
            if seen.generation.is_some() {
                break;
            }
        }
        seen
    }

    /// Everything, by these paths. By each of them the holder too: any may be the one that hangs.
    fn look(&mut self, unit: &mut dyn Unit, paths: Vec<usize>, found: &mut Vec<Found>) -> Seen {
        let mut seen = Seen::default();
        let asks = [Ask::Keys, Ask::Holder];
        let every = |path: usize| asks.iter().map(move |ask| (path, ask.clone())).collect();
        let all = paths.into_iter().flat_map(|path| -> Vec<_> { every(path) });
        self.ask(unit, all.collect(), &mut seen, found);
        seen
    }

    fn ask(
        &mut self,
        unit: &mut dyn Unit,
        asks: Vec<(usize, Ask)>,
        seen: &mut Seen,
        found: &mut Vec<Found>,
    ) {
        let answers = unit.round(&asks, self.patience);
        let mut answered: Vec<usize> = Vec::new();
        let mut silent: Vec<(usize, Fault)> = Vec::new();
        for ((path, _), answer) in asks.into_iter().zip(answers) {
            match answer {
                Ok(Answer::Keys { generation, keys }) => {
                    seen.generation = Some(generation);
                    let copies = keys.iter().filter(|key| **key == self.own.number()).count();
                    seen.copies = seen.copies.max(copies);
                    let new = |key: &u64| !seen.keys.contains(key);
                    let new: Vec<u64> = keys.into_iter().filter(new).collect();
                    seen.keys.extend(new);
                }
                Ok(Answer::Holder(held)) => seen.holder = Some(held),
                Err(fault) if fault.is_of_the_path() => {
                    silent.push((path, fault));
                    continue;
                }
                Ok(_) | Err(_) => {}
            }
            answered.push(path);
        }
        for (path, fault) in silent {
            if !answered.contains(&path) && !self.lost[path] {
                self.lost[path] = true;
                let (path, why) = (unit.path_name(path), fault.to_string());
                found.push(Found::PathLost { path, why });
            }
        }
        for path in answered {
            if std::mem::take(&mut self.lost[path]) {
                self.doubted = true;
                let path = unit.path_name(path);
                found.push(Found::PathBack { path });
            }
        }
    }

    fn judge(&mut self, unit: &mut dyn Unit, seen: &Seen, found: &mut Vec<Found>) {
        if let Some(evicted) = self.evicted(seen) {
            found.push(evicted);
            return;
        }
        let Some(holder) = seen.holder else {
            // Only the keys were asked for, and nothing has moved.
            return;
        };
        self.note_strangers(seen, found);
        let mut settled = true;
        let (others, heir) = self.others(seen);
        for key in &others {
            settled &= self.remove(unit, *key, found);
        }
        // With a later epoch there, or with something foreign, nothing is done that adds a right.
        if holder.is_none() && !heir && self.strangers.is_empty() {
            let own = self.own.number();
            match self.order(unit, &Ask::Reserve { key: own }) {
                Ok(()) => found.push(Found::Stripped),
                Err(_) => settled = false,
            }
        }
        if !heir && holder.is_some() {
            settled &= self.mend_paths(unit, seen.copies, found);
        }
        // What is not settled is looked at again with the next poll.
        self.copies = seen.copies;
        self.generation = seen.generation.filter(|_| settled && !heir);
    }

    /// Is the unit another's by what was seen?
    fn evicted(&self, seen: &Seen) -> Option<Found> {
        let own = self.own.number();
        let whose = |key: u64| Whose::read(key, self.own.cluster);
        match seen.holder {
            Some(Some(held)) if held.key != own => {
                let by = (held.key != 0).then(|| whose(held.key));
                return Some(Found::Evicted { by });
            }
            Some(_) | None => {}
        }
        if seen.keys.contains(&own) {
            return None;
        }
        let later = seen.keys.iter().map(|key| whose(*key));
        let by = later.into_iter().find(|whose| match whose {
            Whose::Ours(key) => key.epoch.is_later_than(self.own.epoch),
            Whose::OtherCluster(_) | Whose::Foreign(_) => false,
        });
        Some(Found::Evicted { by })
    }

    /// Keys of this cluster that have no business there, and whether a later one is there.
    fn others(&self, seen: &Seen) -> (Vec<Key>, bool) {
        let mut others = Vec::new();
        let mut heir = false;
        for number in &seen.keys {
            match Whose::read(*number, self.own.cluster) {
                Whose::Ours(key) if key == self.own => {}
                Whose::Ours(key) if key.epoch.is_later_than(self.own.epoch) => heir = true,
                Whose::Ours(key) => others.push(key),
                Whose::OtherCluster(_) | Whose::Foreign(_) => {}
            }
        }
        (others, heir)
    }

    fn note_strangers(&mut self, seen: &Seen, found: &mut Vec<Found>) {
        for number in &seen.keys {
            let key = Whose::read(*number, self.own.cluster);
            if !matches!(key, Whose::Ours(_)) && !self.strangers.contains(number) {
                self.strangers.push(*number);
                found.push(Found::Stranger { key });
            }
        }
        self.strangers.retain(|number| seen.keys.contains(number));
    }

    fn remove(&self, unit: &mut dyn Unit, key: Key, found: &mut Vec<Found>) -> bool {
        let ask = Ask::Preempt {
            own: self.own.number(),
            victim: key.number(),
        };
        let done = self.order(unit, &ask).is_ok();
        if done {
            let key = Whose::Ours(key);
            found.push(Found::Removed { key });
        }
        done
    }

    /// By the first path that lives.
    fn order(&self, unit: &mut dyn Unit, ask: &Ask) -> Result<(), Fault> {
        let path = self.paths()[0];
        let answer = unit.round(&[(path, ask.clone())], self.patience).pop();
        answer.map_or(Ok(()), |answer| answer.map(drop))
    }

    /// Finds the paths that have lost their registration and gives it back. False if there were
    /// any.
    fn mend_paths(&mut self, unit: &mut dyn Unit, copies: usize, found: &mut Vec<Found>) -> bool {
        let living = self.living();
        let counted = (copies, living.len());
        let known = self
            .proven
            .map_or(copies >= living.len(), |proven| proven == counted);
        if known && !self.doubted {
            return true;
        }
        let key = self.own.number();
        let ask = |path: &usize| (*path, Ask::IsRegistered { key });
        let asks: Vec<(usize, Ask)> = living.iter().map(ask).collect();
        let answers = unit.round(&asks, self.patience);
        let told = living.iter().zip(&answers);
        let refused: Vec<usize> = told
            .filter(|(_, answer)| **answer == Ok(Answer::Registered(false)))
            .map(|(path, _)| *path)
            .collect();
        if refused.is_empty() {
            let each = answers.iter().all(Result::is_ok);
            self.proven = Some(counted).filter(|_| each);
            self.doubted &= !each;
            return true;
        }
        self.register(unit, &refused, found);
        false
    }

    fn register(&mut self, unit: &mut dyn Unit, paths: &[usize], found: &mut Vec<Found>) {
        let key = self.own.number();
        let asks: Vec<(usize, Ask)> = paths
            .iter()
            .map(|path| (*path, Ask::Register { key }))
            .collect();
        let answers = unit.round(&asks, self.patience);
        let seen = self.look(unit, self.living(), found);
        if let Some(evicted) = seen.holder.and_then(|_| self.evicted(&seen)) {
            let back = |path: &usize| (*path, Ask::Unregister { key });
            let asks: Vec<(usize, Ask)> = paths.iter().map(back).collect();
            let _ = unit.round(&asks, self.patience);
            found.push(evicted);
            return;
        }
        for (path, answer) in paths.iter().zip(answers) {
            if answer.is_ok() {
                let path = unit.path_name(*path);
                found.push(Found::Registered { path });
            }
        }
    }
}
