//! What is told of others, and of what cannot be.

use super::*;
use crate::mldc::{Origin, split};

#[test]
fn an_engine_whose_tables_are_not_whole_makes_no_sense() {
    let broken: [fn(&mut Engine); 6] = [
        |engine| engine.setup.tasks = vec![engine.setup.tasks[0].clone(); TASKS_MAX + 1],
        |engine| engine.view.tasks = vec![TaskRecord::default(); TASKS_MAX + 1],
        |engine| engine.links.clear(),
        |engine| drop(engine.names.pop()),
        |engine| drop(engine.power.pop()),
        |engine| engine.read_all(),
    ];
    assert!(engine(None).makes_sense());
    for (index, spoil) in broken.into_iter().enumerate() {
        let mut engine = engine(None);
        spoil(&mut engine);
        assert!(!engine.makes_sense(), "{index}");
    }
}

#[test]
fn what_another_node_has_changed_is_told_once() {
    let mut engine = engine(None);
    let mut known = view(3, &BOTH);
    learn(&mut engine, &known);
    while engine.poll_action().is_some() {}
    for (by, task_epoch, told) in [(2, 4, true), (2, 4, false), (1, 5, false)] {
        known.epoch += 1;
        known.tasks[0].epoch = task_epoch;
        (known.tasks[0].by, known.tasks[0].owner) = (Some(node(by)), Some(node(2)));
        learn(&mut engine, &known);
        let actions = std::iter::from_fn(|| engine.poll_action());
        let outcomes: Vec<String> = actions
            .filter_map(|action| match action {
                Action::Record(record) => Some(record.outcome),
                _ => None,
            })
            .collect();
        let expected: &[&str] = if told { &["web: owner n2"] } else { &[] };
        assert_eq!(outcomes, expected, "by {by}, epoch {task_epoch}");
    }
}

#[test]
fn packets_of_a_life_that_is_not_known_are_counted() {
    let mut engine = engine(None);
    let origin = Origin {
        cluster: [7; 16],
        sender: node(2),
        incarnation: life(2, 1),
    };
    for count in 1..=2 {
        for packet in split(origin, NodeSet::only(node(1)), count, &[]) {
            engine.on_packet(&packet);
        }
        let shown = engine.snapshot(engine.now);
        assert_eq!(shown.register.refused_messages, count);
    }
}

#[test]
fn who_owns_something_and_cannot_hear_of_changes_is_waited_for() {
    for (owns, network, waited_for) in [(true, 0, true), (true, 1, false), (false, 0, false)] {
        let mut engine = engine(None);
        engine.setup.networks = network;
        let mut known = view(3, &BOTH);
        known.tasks[0].owner = owns.then(|| node(2));
        learn(&mut engine, &known);
        assert_eq!(engine.owner_without_register(), None, "it is not heard");
        let sent = beat(&mut engine);
        engine.handle(engine.now, frame(life(2, 1), 2, 10, 3, &sent));
        let found = engine.owner_without_register();
        assert_eq!(found, waited_for.then(|| node(2)), "{owns} {network}");
    }
}
