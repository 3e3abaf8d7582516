//! Taking a unit: in how many round trips, from whom, and when not.

use std::sync::Arc;

use super::fake::{FakeUnit, Trick, key, number};
use super::{PATIENCE, take_at};
use crate::storage::reservation::{Ask, Bounds, TakeError, Unit, release, take};

fn is_preempt(ask: &Ask) -> bool {
    matches!(ask, Ask::Preempt { .. })
}

fn is_register(ask: &Ask) -> bool {
    matches!(ask, Ask::Register { .. })
}

fn is_reserve(ask: &Ask) -> bool {
    matches!(ask, Ask::Reserve { .. })
}

fn changes(ask: &Ask) -> bool {
    match ask {
        Ask::Identity | Ask::Keys | Ask::Holder | Ask::Capabilities => false,
        Ask::IsRegistered { .. }
        | Ask::Register { .. }
        | Ask::Unregister { .. }
        | Ask::Reserve { .. }
        | Ask::Release { .. }
        | Ask::Preempt { .. }
        | Ask::Reset => true,
    }
}

/// This node alone is registered, with this key and by these paths, and holds it.
#[track_caller]
fn assert_taken(unit: &FakeUnit, epoch: u32, paths: &[usize]) {
    let spc = unit.spc.lock();
    let own = number(unit.node, epoch);
    let expected: Vec<_> = paths.iter().map(|path| ((unit.node, *path), own)).collect();
    let keys: Vec<_> = spc.keys.iter().map(|(path, key)| (*path, *key)).collect();
    assert_eq!(keys, expected);
    let (holder, kind) = spc.holder.expect("it is reserved");
    assert_eq!((holder.0, kind), (unit.node, 5));
    assert!(spc.outlives_power);
}

#[test]
fn a_free_unit_is_taken_in_four_round_trips() {
    let mut unit = FakeUnit::new(1);
    take_at(&mut unit, 7).unwrap();
    assert_taken(&unit, 7, &[0, 1]);
    assert_eq!(unit.rounds, 4);
    assert_eq!(unit.count(is_register), 2);
}

#[test]
fn a_former_owner_is_followed_in_four_round_trips() {
    let mut old = FakeUnit::new(1);
    take_at(&mut old, 7).unwrap();
    let mut heir = FakeUnit::of(Arc::clone(&old.spc), 2);
    take_at(&mut heir, 8).unwrap();
    assert_taken(&heir, 8, &[0, 1]);
    assert_eq!((heir.rounds, heir.count(is_preempt)), (4, 1));
    assert_eq!(heir.spc.lock().aborted, [(1, 0), (1, 1)]);
    assert!(!heir.spc.lock().may_write((1, 0)));
}

#[test]
fn taking_again_what_one_has_disturbs_nothing() {
    let mut unit = FakeUnit::new(1);
    take_at(&mut unit, 7).unwrap();
    take_at(&mut unit, 7).unwrap();
    assert_taken(&unit, 7, &[0, 1]);
    assert_eq!((unit.count(is_reserve), unit.count(is_preempt)), (1, 0));
}

#[test]
fn the_own_key_of_an_earlier_epoch_goes() {
    let mut unit = FakeUnit::new(1);
    take_at(&mut unit, 7).unwrap();
    // By a nexus of an earlier session, which is no path of today.
    unit.spc.lock().register((1, 9), number(1, 6));
    take_at(&mut unit, 9).unwrap();
    assert_taken(&unit, 9, &[0, 1]);
}

#[test]
fn every_node_that_registered_and_did_not_come_through_goes() {
    let mut unit = FakeUnit::new(1);
    take_at(&mut unit, 7).unwrap();
    for node in 3..9 {
        unit.spc.lock().register((node, 0), number(node, 8));
    }
    let mut heir = FakeUnit::of(Arc::clone(&unit.spc), 2);
    take_at(&mut heir, 9).unwrap();
    assert_taken(&heir, 9, &[0, 1]);
    assert_eq!(heir.spc.lock().writers(), [2]);
    // Of each that did not hold it: some targets abort nothing then.
    assert_eq!(heir.spc.lock().resets, 6);
}

#[test]
fn who_finds_a_later_epoch_touches_nothing() {
    let mut heir = FakeUnit::new(2);
    take_at(&mut heir, 0).unwrap();
    let before = heir.spc.lock().clone();
    let mut deceived = FakeUnit::of(Arc::clone(&heir.spc), 1);
    // The last epoch before the numbers begin anew.
    let error = take_at(&mut deceived, 0xff_ffff).unwrap_err();
    assert!(matches!(error, TakeError::Later { .. }), "{error}");
    let words = error.to_string();
    assert!(words.contains("of node 2 at epoch 0"), "{words}");
    assert_eq!(deceived.count(changes), 0);
    assert_eq!(heir.spc.lock().keys, before.keys);
}

#[test]
fn who_is_overtaken_after_registering_takes_it_back() {
    let mut deceived = FakeUnit::new(1);
    let overtake = |spc: &mut super::fake::Spc| {
        spc.register((2, 0), number(2, 9));
        spc.reserve((2, 0), number(2, 9), 5).unwrap();
    };
    deceived.trick(is_register, Trick::Before(Box::new(overtake)));
    let error = take_at(&mut deceived, 7).unwrap_err();
    assert!(matches!(error, TakeError::Later { .. }), "{error}");
    assert_eq!(deceived.spc.lock().writers(), [2]);
    assert_eq!(deceived.count(is_preempt), 0);
}

#[test]
fn who_preempts_whom_a_later_one_has_preempted_takes_nothing() {
    let mut old = FakeUnit::new(1);
    take_at(&mut old, 6).unwrap();
    let mut deceived = FakeUnit::of(Arc::clone(&old.spc), 2);
    let overtake = |spc: &mut super::fake::Spc| {
        spc.register((3, 0), number(3, 9));
        spc.preempt((3, 0), number(3, 9), number(1, 6)).unwrap();
    };
    deceived.trick(is_preempt, Trick::Before(Box::new(overtake)));
    let error = take_at(&mut deceived, 7).unwrap_err();
    assert!(matches!(error, TakeError::Later { .. }), "{error}");
    assert_eq!(deceived.spc.lock().writers(), [3]);
}

#[test]
fn keys_of_others_are_named_and_left_alone() {
    let mut unit = FakeUnit::new(1);
    let strange = 0x1234_5678_0000_0001;
    unit.spc.lock().register((9, 0), strange);
    let error = take_at(&mut unit, 7).unwrap_err();
    assert!(matches!(error, TakeError::Foreign { .. }), "{error}");
    let words = error.to_string();
    assert!(
        words.contains("0x1234567800000001 of something else"),
        "{words}"
    );
    assert_eq!(unit.count(changes), 0);
    let mut cluster = FakeUnit::new(1);
    let other = crate::storage::reservation::ClusterTag::new(&[9; 16]);
    let mut theirs = key(3, 7);
    theirs.cluster = other;
    cluster.spc.lock().register((9, 0), theirs.number());
    let words = take_at(&mut cluster, 7).unwrap_err().to_string();
    assert!(words.contains("node 3 of another cluster"), "{words}");
    assert_eq!(cluster.count(changes), 0);
}

#[test]
fn a_dead_path_is_left_behind() {
    let mut unit = FakeUnit::new(1);
    unit.dead[0] = true;
    take_at(&mut unit, 7).unwrap();
    assert_taken(&unit, 7, &[1]);
}

#[test]
fn without_any_path_it_ends_at_its_deadline() {
    let mut unit = FakeUnit::new(1);
    unit.dead = vec![true; 2];
    let until = unit.now() + 20 * PATIENCE;
    let error = take_at(&mut unit, 7).unwrap_err();
    assert!(matches!(error, TakeError::Late { .. }), "{error}");
    assert!(error.to_string().contains("the path failed"), "{error}");
    assert!(unit.now() >= until);
}

#[test]
fn a_path_to_another_disk_is_refused() {
    let mut unit = FakeUnit::new(1);
    unit.astray[1] = true;
    let error = take_at(&mut unit, 7).unwrap_err();
    assert!(matches!(error, TakeError::OtherDisk { .. }), "{error}");
    assert_eq!(unit.count(changes), 0);
    unit.astray = vec![true; 2];
    let wanted = "naa.6001405aaaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap();
    let bounds = Bounds {
        patience: PATIENCE,
        deadline: unit.now() + PATIENCE,
        cancelled: &|| false,
    };
    let error = take(&mut unit, key(1, 7), Some(&wanted), bounds).unwrap_err();
    let words = error.to_string();
    assert_eq!(
        words,
        "path 0 is not the disk naa.6001405aaaaaaaaaaaaaaaaaaaaaaaaa: it is \
         naa.6001405bbbbbbbbbbbbbbbbbbbbbbbbb"
    );
    assert_eq!(unit.count(changes), 0);
}

#[test]
fn what_was_done_before_the_path_failed_is_seen_by_another() {
    for on in [is_register, is_preempt] {
        let mut old = FakeUnit::new(1);
        take_at(&mut old, 7).unwrap();
        let mut heir = FakeUnit::of(Arc::clone(&old.spc), 2);
        heir.trick(on, Trick::DoneButFailed);
        take_at(&mut heir, 8).unwrap();
        assert_taken(&heir, 8, &[0, 1]);
        assert_eq!(heir.count(is_preempt), 1, "not twice");
    }
    let mut unit = FakeUnit::new(1);
    unit.trick(is_reserve, Trick::DoneButFailed);
    take_at(&mut unit, 7).unwrap();
    assert_taken(&unit, 7, &[0, 1]);
}

#[test]
fn what_one_path_could_not_do_another_does() {
    let any_preempt = Ask::Preempt { own: 0, victim: 0 };
    for on in [is_preempt, is_reserve] {
        let mut old = FakeUnit::new(1);
        if on(&any_preempt) {
            take_at(&mut old, 7).unwrap();
        }
        let mut heir = FakeUnit::of(Arc::clone(&old.spc), 2);
        heir.trick(on, Trick::Fails);
        take_at(&mut heir, 8).unwrap();
        assert_taken(&heir, 8, &[0, 1]);
        assert_eq!(heir.count(on), 2);
    }
}

#[test]
fn a_preempt_that_hangs_is_helped_by_a_reset() {
    let mut old = FakeUnit::new(1);
    take_at(&mut old, 7).unwrap();
    let mut heir = FakeUnit::of(Arc::clone(&old.spc), 2);
    heir.trick(is_preempt, Trick::Hangs);
    take_at(&mut heir, 8).unwrap();
    assert_taken(&heir, 8, &[0, 1]);
    assert_eq!((heir.count(is_preempt), heir.spc.lock().resets), (2, 1));
}

#[test]
fn a_victim_that_is_gone_already_is_no_trouble() {
    let mut old = FakeUnit::new(1);
    take_at(&mut old, 7).unwrap();
    let mut heir = FakeUnit::of(Arc::clone(&old.spc), 2);
    let vanish = |spc: &mut super::fake::Spc| {
        spc.keys.retain(|(node, _), _| *node != 1);
        spc.holder = None;
    };
    heir.trick(is_preempt, Trick::Before(Box::new(vanish)));
    take_at(&mut heir, 8).unwrap();
    assert_taken(&heir, 8, &[0, 1]);
}

#[test]
fn of_two_that_race_the_later_epoch_wins() {
    let mut late = FakeUnit::new(1);
    let earlier = |spc: &mut super::fake::Spc| {
        spc.register((2, 0), number(2, 6));
        spc.reserve((2, 0), number(2, 6), 5).unwrap();
    };
    late.trick(is_reserve, Trick::Before(Box::new(earlier)));
    take_at(&mut late, 7).unwrap();
    assert_taken(&late, 7, &[0, 1]);
    let mut early = FakeUnit::new(1);
    let later = |spc: &mut super::fake::Spc| {
        spc.register((2, 0), number(2, 9));
        spc.preempt((2, 0), number(2, 9), number(1, 7)).unwrap();
        spc.reserve((2, 0), number(2, 9), 5).unwrap();
    };
    early.trick(is_reserve, Trick::Before(Box::new(later)));
    let error = take_at(&mut early, 7).unwrap_err();
    assert!(matches!(error, TakeError::Later { .. }), "{error}");
    assert_eq!(early.spc.lock().writers(), [2]);
}

#[test]
fn a_path_that_lost_its_key_meanwhile_gets_it_again() {
    let mut unit = FakeUnit::new(1);
    let lose = |spc: &mut super::fake::Spc| {
        spc.keys.remove(&(1, 1));
    };
    unit.trick(is_reserve, Trick::Before(Box::new(lose)));
    take_at(&mut unit, 7).unwrap();
    assert_taken(&unit, 7, &[0, 1]);
}

#[test]
fn a_unit_that_forgets_or_cannot_is_refused() {
    let mut unit = FakeUnit::new(1);
    let forget = |spc: &mut super::fake::Spc| spc.outlives_power = false;
    unit.trick(is_reserve, Trick::Before(Box::new(forget)));
    let error = take_at(&mut unit, 7).unwrap_err();
    assert!(matches!(error, TakeError::NotPersistent), "{error}");
    let mut unit = FakeUnit::new(1);
    unit.spc.lock().has_type = false;
    let error = take_at(&mut unit, 7).unwrap_err();
    assert!(matches!(error, TakeError::NoSuchType), "{error}");
    assert_eq!(unit.count(changes), 0);
}

#[test]
fn a_reservation_of_another_kind_is_named_and_registrations_go_back() {
    let mut unit = FakeUnit::new(1);
    let all = |spc: &mut super::fake::Spc| {
        spc.holder = Some(((1, 0), 7));
    };
    unit.trick(is_reserve, Trick::Before(Box::new(all)));
    let error = take_at(&mut unit, 7).unwrap_err();
    assert!(
        matches!(error, TakeError::HeldOtherwise { key: 0 }),
        "{error}"
    );
    assert!(unit.spc.lock().keys.is_empty());
}

#[test]
fn a_stop_ends_it_and_nothing_is_left() {
    let mut unit = FakeUnit::new(1);
    let asked = std::cell::Cell::new(0);
    let cancelled = || {
        asked.set(asked.get() + 1);
        asked.get() > 1
    };
    let bounds = Bounds {
        patience: PATIENCE,
        deadline: unit.now() + PATIENCE,
        cancelled: &cancelled,
    };
    let error = take(&mut unit, key(1, 7), None, bounds).unwrap_err();
    assert!(matches!(error, TakeError::Cancelled), "{error}");
    assert_eq!(unit.count(is_register), 2, "it had begun");
    assert!(unit.spc.lock().keys.is_empty());
}

#[test]
fn what_is_released_is_anybodys() {
    let mut unit = FakeUnit::new(1);
    take_at(&mut unit, 7).unwrap();
    release(&mut unit, key(1, 7), PATIENCE).unwrap();
    let spc = unit.spc.lock().clone();
    assert!(spc.keys.is_empty() && spc.holder.is_none());
    assert!(spc.may_write((2, 0)));
    let mut broken = FakeUnit::new(1);
    take_at(&mut broken, 7).unwrap();
    broken.dead = vec![true; 2];
    let error = release(&mut broken, key(1, 7), PATIENCE).unwrap_err();
    assert!(error.to_string().contains("the path failed"), "{error}");
}
