//! What runs here, what is reported of it, and what an heir makes of it.

use super::*;
use crate::engine::tasks::Then;
use crate::frame::Flags;

const EPOCH: u32 = 3;

fn task() -> TaskIndex {
    TaskIndex::new(0).unwrap()
}

fn broken() -> Failure {
    Failure {
        object: "server".into(),
        reason: "it ends at once".into(),
        stopped: true,
    }
}

#[test]
fn only_the_operation_under_way_is_reported_on() {
    let op = 5;
    let stopping = |then, forced| Local::Stopping { op, then, forced };
    for before in [
        Local::Starting { op, epoch: EPOCH },
        stopping(Then::Stopped, true),
        stopping(Then::Failed(EPOCH), true),
        stopping(Then::Released(EPOCH), false),
    ] {
        for failure in [None, Some(broken())] {
            let mut engine = engine(None);
            let mut reported = |op| {
                engine.local[0] = before;
                let (task, failure) = (task(), failure.clone());
                engine.on_report(Report::Done { op, task, failure });
                engine.local[0]
            };
            assert_eq!(reported(op + 2), before, "another one, {failure:?}");
            assert_ne!(reported(op), before, "{failure:?}");
        }
    }
}

#[test]
fn what_is_found_running_under_a_lease_is_granted() {
    for lease in [false, true] {
        let mut engine = engine(None);
        learn(&mut engine, &view(3, &BOTH));
        if lease {
            let now = engine.now + H;
            orders_at(&mut engine, now);
        }
        let found = vec![Found::Running];
        engine.on_report(Report::Hello { found });
        assert_eq!(engine.granted(), u64::from(lease));
        let found = vec![Found::Stopped];
        engine.on_report(Report::Hello { found });
        assert_eq!(engine.granted(), 0);
    }
}

/// A member that is to inherit the task from node 2.
fn heir(wanted: bool) -> Engine {
    let mut engine = engine(None);
    let mut known = view(3, &BOTH);
    known.tasks[0] = TaskRecord {
        owner: Some(node(2)),
        heir: Some(node(1)),
        epoch: EPOCH,
        wanted,
        ..TaskRecord::default()
    };
    learn(&mut engine, &known);
    engine
}

#[test]
fn an_heir_that_has_failed_with_it_before_tries_again() {
    for (epoch, declines) in [(EPOCH - 1, false), (EPOCH, true)] {
        let mut engine = heir(true);
        let retry = engine.now;
        engine.local[0] = Local::Failed { epoch, retry };
        let change = engine.inheritance();
        assert_eq!(change.is_some(), declines, "failed in {epoch}");
        if let Some(change) = change {
            let record = change.view.task(task());
            assert_eq!((record.heir, record.after), (None, After::Node(node(1))));
            assert_eq!(record.failed_on, NodeSet::only(node(1)));
        }
    }
}

#[test]
fn an_heir_declines_what_it_is_not_to_run() {
    for (leaving, standby, wanted) in [
        (false, false, true),
        (true, false, true),
        (false, true, true),
        (false, false, false),
    ] {
        let mut engine = heir(wanted);
        engine.local[0] = Local::Stopped;
        engine.leaving = leaving;
        if standby {
            engine.view.standby.insert(node(1));
        }
        let declines = leaving || standby || !wanted;
        let change = engine.inheritance();
        let told = format!("{leaving} {standby} {wanted}");
        assert_eq!(change.is_some(), declines, "{told}");
        assert!(change.is_none_or(|change| change.view.task(task()).heir.is_none()));
    }
}

#[test]
fn an_owner_that_cannot_serve_it_gives_it_to_whoever_can() {
    for (unfit, standby, other_fit, given) in [
        (true, false, true, true),
        (true, false, false, false),
        (false, true, false, true),
        (false, false, true, false),
    ] {
        let mut engine = engine(None);
        let mut known = view(3, &BOTH);
        known.tasks[0].owner = Some(node(1));
        learn(&mut engine, &known);
        let found = vec![Found::Running];
        engine.on_report(Report::Hello { found });
        let sent = beat(&mut engine);
        let Event::Frame { link, mut frame } = frame(life(2, 1), 2, 10, 3, &sent) else {
            unreachable!()
        };
        frame.flags = Flags::default().set(Flags::SERVICE_NETWORK_OK, other_fit);
        engine.handle(engine.now, Event::Frame { link, frame });
        engine.local[0] = Local::Started {
            epoch: EPOCH,
            since: engine.now,
        };
        engine.fit = if unfit { 0 } else { u64::MAX };
        if standby {
            engine.view.standby.insert(node(1));
        } else {
            assert!(engine.task_change().is_none(), "not at once");
        }
        engine.now += H;
        let heir = engine
            .task_change()
            .and_then(|change| change.view.task(task()).heir);
        let told = format!("{unfit} {standby} {other_fit}");
        assert_eq!(heir, given.then(|| node(2)), "{told}");
    }
}
