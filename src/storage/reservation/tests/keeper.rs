//! Keeping a unit: what is seen, what is mended, and what is left alone.

use std::sync::Arc;

use super::fake::{FakeUnit, Spc, Trick, key, number};
use super::{PATIENCE, take_at};
use crate::storage::reservation::{Ask, Found, Keeper, Unit, Whose};

/// Node 1 has taken it at epoch 7, and its keeper has looked once.
fn kept() -> (FakeUnit, Keeper) {
    let mut unit = FakeUnit::new(1);
    take_at(&mut unit, 7).unwrap();
    let mut keeper = Keeper::new(key(1, 7), unit.paths(), PATIENCE);
    assert_eq!(keeper.poll(&mut unit), []);
    (unit, keeper)
}

/// Polls until the next whole look is over.
fn soon(unit: &mut FakeUnit, keeper: &mut Keeper) -> Vec<Found> {
    (0..10).flat_map(|_| keeper.poll(unit)).collect()
}

fn by_node(node: u8, epoch: u32) -> Option<Whose> {
    Some(Whose::Ours(key(node, epoch)))
}

#[test]
fn at_rest_a_poll_is_one_question() {
    let (mut unit, mut keeper) = kept();
    let (rounds, sent) = (unit.rounds, unit.sent.len());
    assert_eq!(keeper.poll(&mut unit), []);
    assert_eq!((unit.rounds - rounds, unit.sent.len() - sent), (1, 1));
    assert_eq!(unit.sent.last(), Some(&Ask::Keys));
}

#[test]
fn an_heir_is_seen_with_the_next_poll() {
    let (mut unit, mut keeper) = kept();
    let mut heir = FakeUnit::of(Arc::clone(&unit.spc), 2);
    take_at(&mut heir, 8).unwrap();
    let by = by_node(2, 8);
    assert_eq!(keeper.poll(&mut unit), [Found::Evicted { by }]);
    assert_eq!(unit.spc.lock().writers(), [2]);
}

#[test]
fn an_heir_that_only_registered_is_let_be() {
    let (mut unit, mut keeper) = kept();
    unit.spc.lock().register((2, 0), number(2, 8));
    assert_eq!(soon(&mut unit, &mut keeper), []);
    assert_eq!(unit.spc.lock().writers(), [1, 2]);
    // And no right is given to a path while it is there.
    unit.spc.lock().keys.remove(&(1, 1));
    assert_eq!(soon(&mut unit, &mut keeper), []);
    assert!(!unit.spc.lock().keys.contains_key(&(1, 1)));
}

#[test]
fn registrations_that_are_gone_altogether_are_an_eviction() {
    let (mut unit, mut keeper) = kept();
    let mut spc = unit.spc.lock();
    (spc.holder, spc.generation) = (None, 0);
    spc.keys.clear();
    drop(spc);
    assert_eq!(keeper.poll(&mut unit), [Found::Evicted { by: None }]);
    assert!(
        unit.spc.lock().keys.is_empty(),
        "nothing is registered anew"
    );
}

#[test]
fn a_reservation_that_is_gone_comes_back() {
    let (mut unit, mut keeper) = kept();
    unit.spc.lock().holder = None;
    assert_eq!(soon(&mut unit, &mut keeper), [Found::Stripped]);
    assert!(
        unit.spc
            .lock()
            .holder
            .is_some_and(|(holder, kind)| (holder.0, kind) == (1, 5))
    );
    assert_eq!(soon(&mut unit, &mut keeper), []);
}

#[test]
fn a_path_that_comes_back_without_its_key_gets_it() {
    let (mut unit, mut keeper) = kept();
    unit.dead[1] = true;
    let found = soon(&mut unit, &mut keeper);
    let [Found::PathLost { path, why }] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!((path.as_str(), why.as_str()), ("path 1", "the path failed"));
    unit.spc.lock().keys.remove(&(1, 1));
    unit.dead[1] = false;
    let path = "path 1".to_owned();
    assert_eq!(
        soon(&mut unit, &mut keeper),
        [
            Found::PathBack { path: path.clone() },
            Found::Registered { path }
        ]
    );
    assert!(unit.spc.lock().may_write((1, 1)));
    assert_eq!(soon(&mut unit, &mut keeper), []);
}

#[test]
fn a_path_that_comes_back_as_another_port_is_registered_beside_the_old_one() {
    let (mut unit, mut keeper) = kept();
    unit.dead[1] = true;
    soon(&mut unit, &mut keeper);
    // What the unit knows of the old port stays: the key is there as often as before.
    let mut spc = unit.spc.lock();
    let key = spc.keys.remove(&(1, 1)).unwrap();
    spc.keys.insert((1, 8), key);
    drop(spc);
    unit.dead[1] = false;
    let path = "path 1".to_owned();
    let back = Found::PathBack { path: path.clone() };
    let registered = Found::Registered { path };
    assert_eq!(
        soon(&mut unit, &mut keeper),
        [back, registered.clone()],
        "it is asked, however often the key is there"
    );
    assert!(unit.spc.lock().may_write((1, 1)));
    assert_eq!(soon(&mut unit, &mut keeper), []);
    // With the old one there too, a key for each path is one too few.
    unit.spc.lock().keys.remove(&(1, 1));
    assert_eq!(soon(&mut unit, &mut keeper), [registered]);
    assert_eq!(soon(&mut unit, &mut keeper), []);
}

#[test]
fn a_key_given_to_a_path_while_another_took_over_is_taken_back() {
    let (mut unit, mut keeper) = kept();
    unit.spc.lock().keys.remove(&(1, 1));
    let overtake = |spc: &mut Spc| {
        spc.register((2, 0), number(2, 8));
        spc.preempt((2, 0), number(2, 8), number(1, 7)).unwrap();
    };
    let on = |ask: &Ask| matches!(ask, Ask::Register { .. });
    unit.trick(on, Trick::Before(Box::new(overtake)));
    let by = by_node(2, 8);
    assert_eq!(soon(&mut unit, &mut keeper)[..1], [Found::Evicted { by }]);
    assert_eq!(unit.spc.lock().writers(), [2]);
}

#[test]
fn an_older_key_is_removed() {
    let (mut unit, mut keeper) = kept();
    unit.spc.lock().register((2, 0), number(2, 6));
    let key = Whose::Ours(key(2, 6));
    assert_eq!(keeper.poll(&mut unit), [Found::Removed { key }]);
    assert_eq!(unit.spc.lock().writers(), [1]);
    assert_eq!(soon(&mut unit, &mut keeper), []);
}

#[test]
fn a_stranger_is_told_once_and_left_alone() {
    let (mut unit, mut keeper) = kept();
    unit.spc.lock().register((9, 0), 1);
    let key = Whose::Foreign(1);
    assert_eq!(soon(&mut unit, &mut keeper), [Found::Stranger { key }]);
    assert_eq!(soon(&mut unit, &mut keeper), []);
    assert_eq!(unit.spc.lock().writers(), [1, 9]);
}

#[test]
fn without_any_path_nothing_is_said_of_the_reservation() {
    let (mut unit, mut keeper) = kept();
    unit.dead = vec![true; 2];
    let lost = soon(&mut unit, &mut keeper);
    assert_eq!(lost.len(), 2, "{lost:?}");
    assert!(
        lost.iter()
            .all(|found| matches!(found, Found::PathLost { .. }))
    );
    let mut heir = FakeUnit::of(Arc::clone(&unit.spc), 2);
    take_at(&mut heir, 8).unwrap();
    assert_eq!(soon(&mut unit, &mut keeper), []);
    unit.dead = vec![false; 2];
    let found = keeper.poll(&mut unit);
    let by = by_node(2, 8);
    assert_eq!(found.last(), Some(&Found::Evicted { by }));
    assert_eq!(unit.spc.lock().writers(), [2]);
}

#[test]
fn a_path_that_hangs_costs_one_poll_its_patience() {
    let (mut unit, mut keeper) = kept();
    let begun = unit.now();
    unit.trick(|ask| *ask == Ask::Keys, Trick::Hangs);
    let found = keeper.poll(&mut unit);
    assert!(matches!(&found[..], [Found::PathLost { .. }]), "{found:?}");
    for _ in 0..8 {
        assert_eq!(keeper.poll(&mut unit), []);
    }
    assert_eq!(unit.now() - begun, PATIENCE);
}

#[test]
fn where_keys_are_counted_once_the_paths_are_asked_once() {
    let (mut unit, mut keeper) = kept();
    unit.spc.lock().counts_once = true;
    let asked = |unit: &FakeUnit| unit.count(|ask| matches!(ask, Ask::IsRegistered { .. }));
    for _ in 0..3 {
        assert_eq!(soon(&mut unit, &mut keeper), []);
        assert_eq!(asked(&unit), 2, "each path, and not again");
    }
    // And a take there comes to its end as well.
    let mut heir = FakeUnit::of(Arc::clone(&unit.spc), 2);
    take_at(&mut heir, 8).unwrap();
    assert_eq!(heir.spc.lock().writers(), [2]);
    let by = by_node(2, 8);
    assert_eq!(keeper.poll(&mut unit), [Found::Evicted { by }]);
}
