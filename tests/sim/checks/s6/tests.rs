//! Each excuse, and what is none.

use standfast::model::NodeId;

use super::*;

const MS: u64 = 1_000_000;

fn troubles() -> Troubles {
    let mut troubles = Troubles::new(&Plan::calm(3, 1, 500));
    for node in 0..3 {
        troubles.set(Place::Node { node }, false, MS);
    }
    troubles
}

#[test]
fn no_single_medium_justifies_an_eviction() {
    let (now, from) = (5_000 * MS, 4_500 * MS);
    let by_1 = |troubles: &Troubles, at| troubles.justify_eviction((0, true), 1, at, at);
    let mut troubles = troubles();
    assert!(!by_1(&troubles, now), "nothing was wrong");
    for link in 0..2 {
        troubles.set(Place::path((link, 0, 1)), true, from);
    }
    assert!(!by_1(&troubles, now), "the disk is well");
    troubles.note(
        Place::Disk { node: 1, disk: 0 },
        from - 20 * MS,
        from - 10 * MS,
    );
    assert!(!by_1(&troubles, now), "too short together");
    troubles.note(
        Place::Disk { node: 1, disk: 0 },
        from + 40 * MS,
        from + 50 * MS,
    );
    assert!(by_1(&troubles, now), "the next heartbeat is lost too");
    let by_2 = troubles.justify_eviction((0, true), 2, now, now);
    assert!(!by_2, "another pair");
    let later = now + 3_000 * MS;
    for link in 0..2 {
        troubles.set(Place::path((link, 0, 1)), false, now);
    }
    assert!(!by_1(&troubles, later), "long ago");
}

#[test]
fn trouble_of_the_judge_is_no_reason_but_own_trouble_is() {
    let now = 5_000 * MS;
    let mut troubles = troubles();
    troubles.note(Place::Node { node: 1 }, now - 400 * MS, now - 100 * MS);
    assert!(!troubles.justify_eviction((0, true), 1, now, now));
    assert!(troubles.justify_eviction((1, true), 0, now, now));
    troubles.note(Place::Node { node: 2 }, now - 400 * MS, now - 360 * MS);
    let short = troubles.justify_eviction((2, true), 0, now, now);
    assert!(!short, "a short stall");
    assert!(troubles.justify_eviction((2, false), 0, now, now));
    troubles.note(
        Place::Disk { node: 2, disk: 0 },
        now - 300 * MS,
        now - 100 * MS,
    );
    assert!(!troubles.justify_eviction((2, true), 0, now, now));
    assert!(troubles.justify_eviction((2, true), 1, now, now));
}

#[test]
fn a_reason_is_as_old_as_the_clocks_of_the_judge_let_it_be() {
    let (now, then) = (9_000 * MS, 5_000 * MS);
    let mut troubles = troubles();
    troubles.note(Place::Node { node: 0 }, then - 300 * MS, then + 100 * MS);
    assert!(!troubles.justify_eviction((0, true), 1, now, now));
    troubles.stood_still(1, then, now - MS);
    assert!(troubles.justify_eviction((0, true), 1, now, now));
    assert!(!troubles.justify_eviction((0, true), 2, now, now));
    let later = now + 100 * MS;
    let looked = troubles.justify_eviction((0, true), 1, later, later);
    assert!(!looked, "it had the time to look again");
}

#[test]
fn a_lease_ends_only_without_the_disk_and_somebody() {
    let now = 5_000 * MS;
    let mut quiet = troubles();
    quiet.set(Place::Disk { node: 0, disk: 0 }, true, now - 300 * MS);
    assert!(
        !quiet.justify_end(0, &[1, 2], (true, true), now),
        "all are heard"
    );
    assert!(
        quiet.justify_end(0, &[], (true, true), now),
        "alone it needs the disk"
    );
    assert!(
        quiet.justify_end(0, &[1, 2], (false, true), now),
        "not in a new view"
    );
    assert!(
        quiet.justify_end(0, &[1, 2], (true, false), now),
        "one was started anew"
    );
    let mut troubles = troubles();
    assert!(
        !troubles.justify_end(0, &[1, 2], (false, true), now),
        "nothing is wrong"
    );
    troubles.note(
        Place::Disk { node: 0, disk: 0 },
        now - 600 * MS,
        now - 450 * MS,
    );
    troubles.set(Place::Node { node: 2 }, true, now - 400 * MS);
    assert!(
        !troubles.justify_end(0, &[1, 2], (true, true), now),
        "the disk was well again and proves it"
    );
    assert!(
        troubles.justify_end(0, &[1, 2], (false, true), now),
        "an open ballot"
    );
    troubles.set(Place::Disk { node: 0, disk: 0 }, true, now - 300 * MS);
    assert!(
        !troubles.justify_end(0, &[1], (true, true), now),
        "all that are listed are heard"
    );
    assert!(troubles.justify_end(0, &[1, 2], (true, true), now));
}

#[test]
fn what_a_slow_disk_was_asked_outlasts_the_healing() {
    let healed = 5_000 * MS;
    let ends = |plan: &Plan, later| {
        let mut troubles = Troubles::new(plan);
        for node in 0..3 {
            troubles.set(Place::Node { node }, false, MS);
        }
        troubles.all_over(healed);
        troubles.note(Place::Node { node: 2 }, healed, healed + 200 * MS);
        troubles.justify_end(0, &[1, 2], (true, true), healed + later)
    };
    let mut plan = Plan::calm(3, 1, 500);
    assert!(!ends(&plan, 200 * MS), "the disk was well");
    plan.slow_io = 1;
    assert!(ends(&plan, 200 * MS), "a read that takes long");
    assert!(!ends(&plan, 2_000 * MS), "none takes so long");
}

#[test]
fn a_task_that_moves_for_no_reason_is_found() {
    let record = |owner, heir, cause| TaskRecord {
        owner: NodeId::new(owner),
        heir: NodeId::new(heir),
        cause,
        ..TaskRecord::default()
    };
    let old = record(1, 0, Cause::Placed);
    let none = Grounds::default();
    assert_eq!(movement(&old, &record(1, 0, Cause::Settled), none), Ok(()));
    for cause in [
        Cause::Evicted,
        Cause::Placed,
        Cause::Operator,
        Cause::Failed,
    ] {
        assert!(
            movement(&old, &record(2, 0, cause), none).is_err(),
            "{cause:?}"
        );
    }
    assert!(movement(&old, &record(1, 2, Cause::Unfit), none).is_err());
    let asked = Grounds {
        asked: NodeSet::only(NodeId::new(2).expect("a node")),
        ..none
    };
    let named = record(1, 2, Cause::Operator);
    assert_eq!(movement(&old, &named, asked), Ok(()));
    let another = record(1, 3, Cause::Operator);
    assert!(movement(&old, &another, asked).is_err(), "not that one");
    let handed = record(2, 0, Cause::HandedOver);
    assert_eq!(movement(&named, &handed, none), Ok(()));
    assert!(movement(&old, &handed, none).is_err(), "nobody was named");
}
