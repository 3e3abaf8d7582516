//! Persistent reservations of one logical unit, as SPC-3 (5.6, 6.12) defines them: what an array
//! does, not what a cluster should do with it.
//!
//! A key belongs to a path (an I_T nexus). Only the types that let registrants, or the holder,
//! write and nobody else are modelled, and of their rules those that an owner-only protocol meets:
//!
//! ```text
//! REGISTER [AND IGNORE]   sets, changes or removes the key of this path
//! RESERVE                 by a registrant; fails while another path holds a reservation
//! PREEMPT [AND ABORT]     by a registrant, removes every path with the given key, takes the
//!                         reservation if one of them held it; fails if no path has that key
//! RELEASE, CLEAR          by the holder; by a registrant
//! WRITE                   refused for a path without a key while there is a reservation
//! ```
//! A path that lost its key to another learns it by a unit attention on its next command, once.

use std::collections::BTreeMap;

/// An initiator port and a target port: a node and which of its paths.
pub(crate) type Path = (usize, usize);

/// Eight bytes, never zero.
pub(crate) type Key = u64;

/// Who may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Type 1: the holder only.
    WriteExclusive,
    /// Type 5: every registrant.
    WriteExclusiveRegistrantsOnly,
}

/// Why a command was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// RESERVATION CONFLICT.
    Conflict,
    /// CHECK CONDITION, unit attention: to be tried again.
    Attention(Attention),
}

/// What a path is told with its next command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attention {
    ReservationsReleased,
    RegistrationsPreempted,
    ReservationsPreempted,
}

/// One logical unit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unit {
    keys: BTreeMap<Path, Key>,
    holder: Option<(Path, Kind)>,
    attentions: BTreeMap<Path, Attention>,
    /// Rises with every change of registrations, as PRgeneration does.
    pub(crate) generation: u32,
}

impl Unit {
    /// A unit attention goes before everything but INQUIRY and the like.
    fn attend(&mut self, path: Path) -> Result<(), Refused> {
        self.attentions
            .remove(&path)
            .map_or(Ok(()), |told| Err(Refused::Attention(told)))
    }

    fn registered(&self, path: Path, key: Key) -> Result<(), Refused> {
        if self.keys.get(&path) == Some(&key) {
            return Ok(());
        }
        Err(Refused::Conflict)
    }

    /// REGISTER: with the key the path has, 0 for none, and the one it is to have, 0 for none.
    pub(crate) fn register(&mut self, path: Path, old: Key, new: Key) -> Result<(), Refused> {
        self.attend(path)?;
        if self.keys.get(&path).copied().unwrap_or(0) != old {
            return Err(Refused::Conflict);
        }
        self.set_key(path, new);
        Ok(())
    }

    /// REGISTER AND IGNORE EXISTING KEY.
    pub(crate) fn register_anyway(&mut self, path: Path, new: Key) -> Result<(), Refused> {
        self.attend(path)?;
        self.set_key(path, new);
        Ok(())
    }

    fn set_key(&mut self, path: Path, new: Key) {
        self.generation += 1;
        if new != 0 {
            self.keys.insert(path, new);
            return;
        }
        self.keys.remove(&path);
        if self.holder.is_some_and(|(holder, _)| holder == path) {
            self.let_go(path);
        }
    }

    /// The reservation is gone: all other registrants are told.
    fn let_go(&mut self, by: Path) {
        self.holder = None;
        for path in self.keys.keys().filter(|path| **path != by) {
            self.attentions
                .insert(*path, Attention::ReservationsReleased);
        }
    }

    /// RESERVE.
    pub(crate) fn reserve(&mut self, path: Path, key: Key, kind: Kind) -> Result<(), Refused> {
        self.attend(path)?;
        self.registered(path, key)?;
        match self.holder {
            Some(held) if held != (path, kind) => Err(Refused::Conflict),
            Some(_) | None => {
                self.holder = Some((path, kind));
                Ok(())
            }
        }
    }

    /// RELEASE: of who does not hold it, it does nothing.
    pub(crate) fn release(&mut self, path: Path, key: Key, kind: Kind) -> Result<(), Refused> {
        self.attend(path)?;
        self.registered(path, key)?;
        if self.holder == Some((path, kind)) {
            self.let_go(path);
        }
        Ok(())
    }

    /// CLEAR.
    pub(crate) fn clear(&mut self, path: Path, key: Key) -> Result<(), Refused> {
        self.attend(path)?;
        self.registered(path, key)?;
        for other in self.keys.keys().filter(|other| **other != path) {
            self.attentions
                .insert(*other, Attention::ReservationsPreempted);
        }
        self.keys.clear();
        self.holder = None;
        self.generation += 1;
        Ok(())
    }

    /// PREEMPT AND ABORT. Returns the paths that lost their key: what they have under way is
    /// aborted.
    pub(crate) fn preempt(
        &mut self,
        path: Path,
        key: Key,
        victim: Key,
        kind: Kind,
    ) -> Result<Vec<Path>, Refused> {
        self.attend(path)?;
        self.registered(path, key)?;
        let having = self.keys.iter().filter(|(_, known)| **known == victim);
        let lost: Vec<Path> = having.map(|(path, _)| *path).collect();
        if lost.is_empty() || victim == 0 {
            return Err(Refused::Conflict);
        }
        let held = self
            .holder
            .is_some_and(|(holder, _)| lost.contains(&holder));
        for gone in lost.iter().filter(|gone| **gone != path) {
            self.keys.remove(gone);
            self.attentions
                .insert(*gone, Attention::RegistrationsPreempted);
        }
        if held {
            self.holder = Some((path, kind));
        }
        self.generation += 1;
        Ok(lost)
    }

    /// READ KEYS, READ RESERVATION: allowed to everybody.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (Path, Key)> + '_ {
        self.keys.iter().map(|(path, key)| (*path, *key))
    }

    pub(crate) fn holder(&self) -> Option<(Path, Kind)> {
        self.holder
    }

    /// May a write of this path be done?
    pub(crate) fn write(&mut self, path: Path) -> Result<(), Refused> {
        self.attend(path)?;
        let allowed = match self.holder {
            None => true,
            Some((holder, Kind::WriteExclusive)) => holder == path,
            Some((_, Kind::WriteExclusiveRegistrantsOnly)) => self.keys.contains_key(&path),
        };
        if allowed {
            Ok(())
        } else {
            Err(Refused::Conflict)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Kind::{WriteExclusive, WriteExclusiveRegistrantsOnly as Wero};
    use super::*;

    const A: Path = (0, 0);
    const A2: Path = (0, 1);
    const B: Path = (1, 0);

    /// A owns it by both its paths.
    fn owned() -> Unit {
        let mut unit = Unit::default();
        unit.register(A, 0, 0xa).unwrap();
        unit.register(A2, 0, 0xa).unwrap();
        unit.reserve(A, 0xa, Wero).unwrap();
        unit
    }

    #[test]
    fn every_registered_path_may_write_and_no_other() {
        let mut unit = owned();
        assert_eq!(unit.write(A), Ok(()));
        assert_eq!(
            unit.write(A2),
            Ok(()),
            "a registrant that is not the holder"
        );
        assert_eq!(unit.write(B), Err(Refused::Conflict));
        let mut unit = Unit::default();
        assert_eq!(unit.write(B), Ok(()), "no reservation, no rule");
        unit.register(A, 0, 0xa).unwrap();
        unit.register(A2, 0, 0xa).unwrap();
        unit.reserve(A, 0xa, WriteExclusive).unwrap();
        assert_eq!(
            unit.write(A2),
            Err(Refused::Conflict),
            "type 1 is the holder's"
        );
    }

    #[test]
    fn a_wrong_key_changes_nothing() {
        let mut unit = owned();
        assert_eq!(unit.register(A, 0xb, 0xc), Err(Refused::Conflict));
        assert_eq!(unit.reserve(B, 0xb, Wero), Err(Refused::Conflict));
        assert_eq!(unit.preempt(B, 0xb, 0xa, Wero), Err(Refused::Conflict));
        unit.register(B, 0, 0xb).unwrap();
        assert_eq!(
            unit.reserve(B, 0xb, Wero),
            Err(Refused::Conflict),
            "it is held"
        );
        assert_eq!(
            unit.preempt(B, 0xb, 0xdead, Wero),
            Err(Refused::Conflict),
            "nobody has it"
        );
        assert_eq!(unit.write(A), Ok(()));
    }

    #[test]
    fn preempting_takes_keys_and_reservation_and_is_told_once() {
        let mut unit = owned();
        unit.register(B, 0, 0xb).unwrap();
        assert_eq!(unit.preempt(B, 0xb, 0xa, Wero), Ok(vec![A, A2]));
        assert_eq!(unit.holder(), Some((B, Wero)));
        assert_eq!(unit.keys().collect::<Vec<_>>(), [(B, 0xb)]);
        let told = Refused::Attention(Attention::RegistrationsPreempted);
        assert_eq!(unit.write(A), Err(told));
        assert_eq!(
            unit.write(A),
            Err(Refused::Conflict),
            "told once, refused from then on"
        );
        assert_eq!(unit.write(B), Ok(()));
        assert_eq!(
            unit.preempt(B, 0xb, 0xa, Wero),
            Err(Refused::Conflict),
            "already gone"
        );
    }

    #[test]
    fn a_holder_that_unregisters_lets_go() {
        let mut unit = owned();
        unit.register(B, 0, 0xb).unwrap();
        let generation = unit.generation;
        unit.register(A, 0xa, 0).unwrap();
        assert_eq!((unit.holder(), unit.generation), (None, generation + 1));
        let told = Refused::Attention(Attention::ReservationsReleased);
        assert_eq!(unit.reserve(B, 0xb, Wero), Err(told));
        assert_eq!(unit.reserve(B, 0xb, Wero), Ok(()));
        unit.release(A2, 0xa, Wero).expect_err("told first");
        unit.release(A2, 0xa, Wero).unwrap();
        assert_eq!(unit.holder(), Some((B, Wero)), "not its to release");
        unit.release(B, 0xb, Wero).unwrap();
        assert_eq!(unit.holder(), None);
    }

    #[test]
    fn clearing_leaves_nothing() {
        let mut unit = owned();
        unit.register(B, 0, 0xb).unwrap();
        unit.clear(B, 0xb).unwrap();
        assert_eq!((unit.holder(), unit.keys().count()), (None, 0));
        let told = Refused::Attention(Attention::ReservationsPreempted);
        assert_eq!(unit.register_anyway(A, 0xa), Err(told));
        assert_eq!(unit.register_anyway(A, 0xa), Ok(()));
    }
}
