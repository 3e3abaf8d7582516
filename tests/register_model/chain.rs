//! The checks: what is decided is one chain, and nobody is told otherwise.

use std::collections::BTreeMap;

use standfast::register::Value;

/// Epoch and nonce.
pub(crate) type Id = (u64, u64);

/// What is decided, as judged from the disk's content alone, and since when.
#[derive(Default)]
pub(crate) struct Chain {
    /// Nonce and moment by epoch.
    decided: BTreeMap<u64, (u64, u64)>,
    /// What each proposed value stands upon, by its nonce.
    proposed: BTreeMap<u64, (Id, Id)>,
    /// Reported as never to come.
    never: Vec<Id>,
}

impl Chain {
    pub(crate) fn propose(&mut self, expected: Id, new: &Value) {
        let before = self.proposed.insert(new.nonce, (new.id(), expected));
        assert!(before.is_none(), "the test itself repeats a nonce");
    }

    /// No later ballot can miss this value: it is decided, and with it all that it stands upon.
    pub(crate) fn decide(&mut self, mut id: Id, now: u64) {
        while id != (0, 0) {
            if let Some((nonce, _)) = self.decided.get(&id.0) {
                assert_eq!(*nonce, id.1, "two values are decided for epoch {}", id.0);
                return;
            }
            self.decided.insert(id.0, (id.1, now));
            let (proposed, expected) = self.proposed[&id.1];
            assert_eq!(proposed, id, "nobody proposed this");
            id = expected;
        }
    }

    pub(crate) fn assert_decided(&self, value: &Value, what: &str) {
        let nonce = self.decided.get(&value.epoch).map(|(nonce, _)| *nonce);
        let nonce = if value.epoch == 0 { Some(0) } else { nonce };
        assert_eq!(
            nonce,
            Some(value.nonce),
            "{what} reports {:?}: not decided",
            value.id()
        );
    }

    /// A proof of `epoch` for a read begun at `begun`: was its successor decided by then?
    pub(crate) fn assert_proof(&self, epoch: u64, begun: u64) {
        if let Some((_, since)) = self.decided.get(&(epoch + 1)) {
            assert!(
                *since >= begun,
                "a proof of {epoch} at {begun}, but {since} has its successor"
            );
        }
    }

    /// Somebody was told that this value can never come into force.
    pub(crate) fn never(&mut self, id: Id) {
        self.never.push(id);
    }

    pub(crate) fn newest(&self) -> u64 {
        self.decided.last_key_value().map_or(0, |(epoch, _)| *epoch)
    }

    /// At the end: no holes, and what was said never to come did not come.
    pub(crate) fn assert_whole(&self) {
        assert_eq!(
            self.decided.len() as u64,
            self.newest(),
            "the chain has holes"
        );
        for (epoch, nonce) in &self.never {
            let found = self
                .decided
                .get(epoch)
                .is_some_and(|(decided, _)| decided == nonce);
            assert!(!found, "epoch {epoch} was reported lost, but was decided");
        }
    }
}
