//! What an operator asks for.

use super::*;
use crate::engine::changes::Change;

/// A member with a runner, one of two; its only task is `record`.
fn member(record: TaskRecord) -> Engine {
    let mut engine = engine(None);
    engine.on_report(Report::Hello {
        found: vec![Found::Stopped],
    });
    let mut known = view(3, &BOTH);
    known.tasks[0] = record;
    learn(&mut engine, &known);
    engine
}

fn asked(engine: &mut Engine, command: Command) -> Option<Change> {
    engine.on_command(7, command);
    engine.commanded()
}

#[test]
fn who_moves_a_task_to_where_it_failed_has_that_forgotten() {
    let (task, to) = (TaskIndex::new(0).unwrap(), node(1));
    for (owner, heir) in [(None, None), (Some(2), None), (Some(1), Some(2))] {
        let mut engine = member(TaskRecord {
            owner: owner.map(node),
            heir: heir.map(node),
            failed_on: NodeSet::only(to).with(node(3)),
            ..TaskRecord::default()
        });
        let change = asked(&mut engine, Command::Move { task, to });
        let moved = change.expect("there is something to do").view.task(task);
        assert_eq!(moved.failed_on, NodeSet::only(node(3)), "{owner:?}");
        let (owner, heir) = match owner {
            Some(2) => (2, Some(1)),
            _ => (1, None),
        };
        assert_eq!(
            (moved.owner, moved.heir),
            (Some(node(owner)), heir.map(node))
        );
    }
}

#[test]
fn what_is_so_already_needs_no_change() {
    let task = TaskIndex::new(0).unwrap();
    let [me, other] = [1, 2].map(node);
    for (wanted, command, needed) in [
        (true, Command::Move { task, to: me }, false),
        (true, Command::Start { task }, false),
        (false, Command::Start { task }, true),
        (true, Command::Stop { task }, true),
        (false, Command::Stop { task }, false),
        (true, Command::Standby { node: other }, true),
        (true, Command::Online { node: other }, false),
    ] {
        let mut engine = member(TaskRecord {
            owner: Some(me),
            wanted,
            ..TaskRecord::default()
        });
        let told = format!("{command:?}, wanted: {wanted}");
        let change = asked(&mut engine, command);
        assert_eq!(change.is_some(), needed, "{told}");
        let replies = std::iter::from_fn(|| engine.poll_action());
        let replies = replies.filter(|action| matches!(action, Action::Reply { .. }));
        assert_eq!(replies.count(), usize::from(!needed), "{told}");
    }
}

#[test]
fn a_command_that_cannot_be_carried_out_waits_for_a_while() {
    let mut engine = member(TaskRecord::default());
    let given = engine.now;
    let command = Command::Standby { node: node(2) };
    engine.on_command(7, command);
    let mut replies = |now: Instant| {
        engine.handle(now, Event::Tick);
        let actions = std::iter::from_fn(|| engine.poll_action());
        let is_reply = |action: &Action| {
            matches!(
                action,
                Action::Reply {
                    outcome: Err(_),
                    ..
                }
            )
        };
        actions.filter(is_reply).count()
    };
    let patience = Span::from_ms(500).times(20);
    assert_eq!(replies(given + H), 0);
    assert_eq!(replies(given + patience - Span(1)), 0);
    assert_eq!(replies(given + patience), 1);
    assert_eq!(replies(given + patience + H), 0);
}

#[test]
fn who_is_told_to_leave_says_once_that_nothing_holds_it_any_more() {
    let mut engine = engine(None);
    engine.on_report(Report::Hello {
        found: vec![Found::Running],
    });
    let mut left = |event: Event| {
        engine.handle(engine.now, event);
        let actions = std::iter::from_fn(|| engine.poll_action());
        actions.filter(|action| *action == Action::Left).count()
    };
    assert_eq!(left(Event::Leave), 0, "a task runs yet");
    let found = vec![Found::Stopped];
    assert_eq!(left(Event::Report(Report::Hello { found })), 1);
    assert_eq!(left(Event::Tick), 0);
}

#[test]
fn it_is_told_why_a_task_went_to_nobody_else() {
    let engine = member(TaskRecord::default());
    let task = TaskIndex::new(0).unwrap();
    let rejected = engine.rejected(&engine.view, task, None);
    let why = [
        "n1: later in the order or less fit",
        "n2 is not heard",
        "n3 is not a member of the cluster now",
    ];
    assert_eq!(rejected, why);
    assert_eq!(engine.rejected(&engine.view, task, Some(node(1))), why[1..]);
}
