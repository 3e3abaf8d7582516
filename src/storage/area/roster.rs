//! The three disks of a register, by the nonces of their areas.
//!
//! Each of the three holds the same roster, and that is what makes them one register: a disk counts
//! only together with another one that names the same three. So a disk that was replaced and comes
//! back is known as what it is, whatever it holds.

use std::fmt;

use super::{AreaNonce, Header, hex};
use crate::register::DISKS_MAX;

/// Bytes of a roster in a header: nonce by nonce, by position.
pub(super) const ROSTER_LEN: usize = DISKS_MAX * size_of::<AreaNonce>();

/// Three different nonces, by position.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Roster([AreaNonce; DISKS_MAX]);

impl Roster {
    /// `None` if two of them are the same.
    #[must_use]
    pub fn new(nonces: [AreaNonce; DISKS_MAX]) -> Option<Roster> {
        let [a, b, c] = &nonces;
        (a != b && b != c && a != c).then_some(Roster(nonces))
    }

    pub(super) fn from_bytes(bytes: &[u8; ROSTER_LEN]) -> Option<Roster> {
        let (nonces, _) = bytes.as_chunks();
        Roster::new(*nonces.first_chunk()?)
    }

    /// All three.
    #[must_use]
    pub fn nonces(&self) -> &[AreaNonce; DISKS_MAX] {
        &self.0
    }

    /// Which of the three this is.
    #[must_use]
    pub fn position(&self, nonce: &AreaNonce) -> Option<usize> {
        self.0.iter().position(|known| known == nonce)
    }

    /// The same with another disk at this position; `None` if that would be there twice.
    ///
    /// # Panics
    ///
    /// If there is no such position.
    #[must_use]
    pub fn with(mut self, position: usize, nonce: AreaNonce) -> Option<Roster> {
        self.0[position] = nonce;
        Roster::new(self.0)
    }

    /// Do the two have at least one disk in common?
    #[must_use]
    pub fn is_of_one_format(&self, other: &Roster) -> bool {
        self.0.iter().any(|nonce| other.position(nonce).is_some())
    }
}

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|nonce| hex(nonce)))
            .finish()
    }
}

/// The position of the third disk, if these are two of one register, and each the newest of its
/// place as far as the other knows. They may disagree about the third: then its replacement was
/// interrupted.
#[must_use]
pub fn third(one: &Header, two: &Header) -> Option<usize> {
    let (first, second) = (one.position(), two.position());
    let names = |roster: &Option<Roster>, header: &Header| {
        let nonces = roster.as_ref().map(Roster::nonces);
        nonces.is_some_and(|nonces| nonces[header.position()] == header.nonce)
    };
    let known = names(&one.roster, two) && names(&two.roster, one);
    let alike = one.cluster == two.cluster && one.geometry == two.geometry;
    (known && alike && first != second).then(|| (0..DISKS_MAX).sum::<usize>() - first - second)
}
