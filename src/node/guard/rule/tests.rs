//! The rule as tables: a time line of page contents and what each turn must say.

use super::*;

/// D = 1 s: h = 100 ms, L = 400 ms, G = 100 ms, a turn every 100 ms, or 25 without a lease.
fn timing() -> Timing {
    Timing::from_detect(Span::from_ms(1_000))
}

fn at(ms: u64) -> Instant {
    Instant(1_000_000_000_000) + Span::from_ms(ms)
}

struct World {
    rule: Rule,
    page: PageReading,
}

impl World {
    fn new() -> World {
        let rule = Rule::new(timing(), at(0));
        let page = PageReading::default();
        World { rule, page }
    }

    /// A node with a valid lease until 400 ms that runs tasks 0 and 2.
    fn running() -> World {
        let mut world = World::new();
        world.page = PageReading {
            lease_deadline: at(400),
            granted: 0b101,
            core_turns: 1,
            holding: 0b101,
        };
        world
    }

    fn turn(&mut self, ms: u64) -> Decision {
        self.rule.turn(at(ms), &self.page)
    }
}

#[test]
fn an_idle_node_pets_and_releases_nothing() {
    let mut world = World::new();
    let decision = world.turn(0);
    let expected = Decision {
        lease_until: None,
        release: None,
        revoked: None,
        pet: true,
        overdue: false,
        restart_core: false,
        next: at(25),
    };
    assert_eq!(decision, expected);
}

#[test]
fn a_valid_lease_is_petted_and_its_end_is_the_next_turn() {
    let mut world = World::running();
    for (ms, next) in [(0, 100), (200, 300), (380, 400), (399, 400)] {
        let decision = world.turn(ms);
        assert!(decision.lease_until.is_some() && decision.pet, "{ms} ms");
        assert_eq!(decision.release, None, "{ms} ms");
        assert_eq!(decision.next, at(next), "{ms} ms");
    }
}

#[test]
fn at_the_very_deadline_everything_goes() {
    let mut world = World::running();
    let _ = world.turn(399);
    let decision = world.turn(400);
    assert!(decision.lease_until.is_none() && !decision.pet && !decision.overdue);
    assert_eq!(decision.release, Some(0b101));
    assert_eq!(decision.revoked, Some(0b101));
    assert!(decision.next <= at(404), "it looks again soon");
}

#[test]
fn the_release_is_repeated_until_verified_and_counted_once() {
    let mut world = World::running();
    let _ = world.turn(400);
    world.page.holding = 0b100;
    let decision = world.turn(404);
    assert_eq!((decision.release, decision.revoked), (Some(0b100), None));
    assert!(!decision.pet);
    world.page.holding = 0;
    let decision = world.turn(408);
    assert_eq!((decision.release, decision.revoked), (None, None));
    assert!(
        decision.pet,
        "the page still grants, but nothing is left to protect"
    );
    assert_eq!(decision.next, at(433));
}

#[test]
fn a_release_that_takes_longer_than_its_bound_is_overdue_and_never_petted() {
    let mut world = World::running();
    for (ms, overdue) in [
        (400, false),
        (450, false),
        (499, false),
        (500, true),
        (9_000, true),
    ] {
        let decision = world.turn(ms);
        assert_eq!(
            (decision.pet, decision.overdue),
            (false, overdue),
            "{ms} ms"
        );
    }
}

#[test]
fn what_turns_up_without_a_lease_is_taken_back_and_named_with_the_rest() {
    let mut world = World::running();
    let _ = world.turn(400);
    world.page.holding = 0;
    let _ = world.turn(404);
    world.page.holding = 0b1000;
    let decision = world.turn(430);
    assert_eq!(decision.release, Some(0b1000));
    assert_eq!(decision.revoked, Some(0b1101));
    assert!(!decision.pet);
}

#[test]
fn held_but_not_granted_is_released_too() {
    let mut world = World::running();
    world.page.granted = 0;
    assert_eq!(world.turn(401).release, Some(0b101));
}

#[test]
fn granted_but_not_held_is_revoked_without_waiting_for_anything() {
    let mut world = World::running();
    world.page.holding = 0;
    assert_eq!(world.turn(400).revoked, Some(0b101));
    assert!(world.turn(404).pet);
}

#[test]
fn a_release_once_begun_goes_on_under_a_new_lease() {
    let mut world = World::running();
    let _ = world.turn(400);
    world.page.lease_deadline = at(800);
    world.page.holding = 0b1100;
    let decision = world.turn(404);
    assert!(decision.lease_until.is_some() && !decision.pet);
    assert_eq!((decision.release, decision.revoked), (Some(0b100), None));
    assert!(world.turn(500).overdue);
    world.page.holding = 0b1000;
    let decision = world.turn(504);
    assert!(decision.pet && decision.release.is_none());
    world.page.holding = 0b1101;
    assert!(
        world.turn(508).pet,
        "what began under the new lease is rightful"
    );
}

#[test]
fn a_lease_found_again_ends_the_release_and_the_next_end_counts_anew() {
    let mut world = World::running();
    let _ = world.turn(400);
    world.page.holding = 0;
    world.page.lease_deadline = at(800);
    let decision = world.turn(410);
    assert!(decision.lease_until.is_some() && decision.pet && decision.release.is_none());
    assert_eq!(world.turn(800).revoked, Some(0b101));
}

#[test]
fn a_deadline_beyond_any_lease_counts_only_as_long_as_a_lease() {
    for wild in [at(5_000), Instant::NEVER] {
        let mut world = World::running();
        world.page.lease_deadline = wild;
        assert_eq!(world.turn(0).next, at(100));
        assert!(world.turn(399).lease_until.is_some());
        assert_eq!(world.turn(400).release, Some(0b101));
    }
}

#[test]
fn a_stalled_core_is_restarted_only_after_the_lease() {
    // Its last turn is seen at 0 ms and the lease ends at 400 ms; D = 1 s after the turn it is
    // killed.
    let mut world = World::running();
    let restarted = |world: &mut World, until: u64| {
        let times = (0..=until).step_by(25);
        let restarts = times.filter(|ms| world.turn(*ms).restart_core);
        restarts.collect::<Vec<u64>>()
    };
    assert_eq!(restarted(&mut world, 5_000), [1_000]);
    let mut world = World::running();
    world.page.lease_deadline = Instant::NEVER;
    let _ = world.turn(0);
    for ms in (25..=3_000).step_by(25) {
        world.page.lease_deadline = at(ms + 300);
        assert!(!world.turn(ms).restart_core, "{ms} ms, under a valid lease");
    }
}

#[test]
fn a_restarted_core_gets_its_time_to_begin() {
    let mut world = World::new();
    let times = (0..=11_000).step_by(25);
    let restarts = times.filter(|ms| world.turn(*ms).restart_core);
    assert_eq!(restarts.collect::<Vec<u64>>(), [5_000, 10_000]);
}

#[test]
fn a_core_that_moves_is_never_restarted() {
    let mut world = World::new();
    for ms in (0..20_000).step_by(25) {
        world.page.core_turns += u64::from(ms % 100 == 0);
        assert!(!world.turn(ms).restart_core, "{ms} ms");
    }
}

#[test]
fn a_guard_that_was_stopped_releases_at_once_and_blames_nobody() {
    let mut world = World::running();
    let _ = world.turn(0);
    let decision = world.turn(60_000);
    assert_eq!(decision.release, Some(0b101));
    assert!(!decision.restart_core);
}
