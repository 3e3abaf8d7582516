//! Which link leads where, and what depends on it.

use super::*;

/// One with two links: the first leads to the disk, the second is a network.
fn disk_first() -> Engine {
    let mut engine = engine(None);
    (engine.setup.links, engine.setup.networks) = (2, 0b10);
    engine.links = vec![LinkView::default(); 2];
    engine
}

#[test]
fn each_link_is_what_the_setup_says() {
    let mut engine = disk_first();
    assert_eq!([0, 1].map(|link| engine.disk_of(link)), [Some(0), None]);
    let sent = beat(&mut engine);
    for (on, sequence, heard) in [(0, 10, false), (1, 11, true)] {
        let Event::Frame { mut frame, .. } = frame(life(2, 1), 2, sequence, 0, &sent) else {
            unreachable!()
        };
        frame.link = on;
        engine.handle(engine.now, Event::Frame { link: on, frame });
        assert_eq!(engine.heard_on_network(node(2)), heard, "link {on}");
    }
    engine.setup.networks = 0b01;
    assert_eq!([0, 1].map(|link| engine.disk_of(link)), [None, Some(0)]);
    (engine.setup.networks, engine.disks) = (0b010, Disks::new(3));
    let found = [0, 1, 2].map(|link| engine.disk_of(link));
    assert_eq!(found, [Some(0), None, Some(1)]);
}

#[test]
fn one_of_several_disks_may_be_silent_but_not_the_only_one() {
    let mut engine = disk_first();
    assert!(!engine.is_silent_disk(0), "without it nothing goes");
    (engine.setup.disks, engine.disks) = (3, Disks::new(3));
    assert!(engine.is_silent_disk(0) && !engine.is_silent_disk(1));
}

#[test]
fn without_the_disk_whoever_cannot_agree_is_named() {
    let engine = disk_first();
    let why = engine.why_no_change().expect("there is no disk");
    assert!(why.ends_with(": n1, n2, n3 cannot"), "{why}");
}

#[test]
fn whoever_is_looked_for_is_waited_for_until_every_link_was_emptied() {
    let mut engine = engine(None);
    assert!(!engine.waits_for_drain());
    engine.peers.of_mut(node(2)).looking = Some(engine.now);
    assert!(engine.waits_for_drain());
    engine.peers.of_mut(node(2)).looking = None;
    engine.distrust = Some(engine.now);
    assert!(engine.waits_for_drain());
}

#[test]
fn a_change_of_a_link_is_told_once_and_why_it_is_down() {
    let mut engine = engine(None);
    let mut told = |up: bool, reason: &str| {
        let (link, reason) = (0, reason.into());
        engine.handle(engine.now, Event::LinkState { link, up, reason });
        let actions = std::iter::from_fn(|| engine.poll_action());
        let is_told = |action: &Action| matches!(action, Action::Record(_));
        actions.filter(is_told).count()
    };
    for (up, reason, times) in [
        (false, "no carrier", 1),
        (false, "no carrier", 0),
        (false, "no such interface", 1),
        (true, "", 1),
        (true, "another driver", 0),
        (true, "", 0),
        (false, "no carrier", 1),
    ] {
        assert_eq!(told(up, reason), times, "{up} {reason}");
    }
    assert_eq!(engine.snapshot(engine.now).links[0].downs, 1);
}
