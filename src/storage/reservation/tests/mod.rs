//! The agent against a unit that keeps the rules of SPC, with everything that can go wrong between
//! them.

mod discover;
mod fake;
mod keeper;
mod paths;
mod take;

use std::time::Duration;

use super::{ClusterTag, Key, KeyEpoch, Whose};
use fake::{FakeUnit, cluster, key, number};

use crate::storage::reservation::{Bounds, TakeError, Unit, take as really_take};

/// How long a round trip may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Takes it with this node's key of this epoch.
fn take_at(unit: &mut FakeUnit, epoch: u32) -> Result<(), TakeError> {
    let own = key(unit.node, epoch);
    let bounds = Bounds {
        patience: PATIENCE,
        deadline: unit.now() + 20 * PATIENCE,
        cancelled: &|| false,
    };
    really_take(unit, own, None, bounds)
}

#[test]
fn a_key_says_whose_it_is() {
    let own = key(5, 0x0100_0007);
    assert_eq!(own.number() >> 48, 0x4843);
    assert_eq!(own.number() & 0xffff_ffff, 0x0500_0007);
    assert_eq!(Key::read(own.number()), Some(own));
    assert_eq!(Whose::read(own.number(), cluster()), Whose::Ours(own));
    let other = ClusterTag::new(&[8; 16]);
    assert_eq!(Whose::read(own.number(), other), Whose::OtherCluster(own));
    for strange in [
        0,
        1,
        0x4843_0000_0000_0001,
        u64::from_be_bytes(*b"A\0VCS\0\0\0"),
    ] {
        assert_eq!(Whose::read(strange, cluster()), Whose::Foreign(strange));
    }
    let words = Whose::Ours(key(5, 7)).to_string();
    assert!(words.ends_with(" of node 5 at epoch 7"), "{words}");
}

#[test]
fn the_tag_of_a_cluster_does_not_change() {
    // Keys on disks outlive the program that wrote them.
    let tag = number(1, 0) >> 32 & 0xffff;
    assert_eq!(tag, TAG_OF_SEVENS, "{tag:#x}");
}

/// Of the cluster id of sixteen sevens.
const TAG_OF_SEVENS: u64 = 0x50bf;

#[test]
fn epochs_are_compared_as_serial_numbers() {
    let later = |one, other| KeyEpoch::new(one).is_later_than(KeyEpoch::new(other));
    assert!(later(8, 7) && !later(7, 8) && !later(7, 7));
    assert!(later(0, 0xff_ffff), "after the last comes the first");
    assert!(later(0x0100_0000, 0x00ff_ffff));
    assert!(!later(0xff_ffff, 0));
}
