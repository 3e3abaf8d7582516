//! Versions of the register as a tree of proposals.

/// The nonces on the way from the first version to this one, two bits each from the lowest on; 0 is
/// "never written". So an ancestor is a prefix, and at most four epochs and three nonces fit.
pub(crate) type Path = u8;

pub(crate) fn epoch(value: Path) -> u8 {
    (8 - value.leading_zeros() as u8).div_ceil(2)
}

/// Is `old` the value `new`, or one that it stands upon?
pub(crate) fn leads_to(old: Path, new: Path) -> bool {
    let (older, newer) = (epoch(old), epoch(new));
    older <= newer && new & ((1u16 << (2 * older)) - 1) as u8 == old
}

pub(crate) fn successor(value: Path, nonce: u8) -> Path {
    value | nonce << (2 * epoch(value))
}

pub(crate) fn parent(value: Path) -> Path {
    match epoch(value) {
        0 => 0,
        epoch => value & ((1u16 << (2 * (epoch - 1))) - 1) as u8,
    }
}
