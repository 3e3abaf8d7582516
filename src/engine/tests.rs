//! The rules on which safety rests, one by one; what they make together is the simulator's
//! business.

mod commands;
mod links;
mod status;
mod tasks;
mod told;

use super::*;
use crate::config::RETRY_MAX;
use crate::frame::{Frame, TaskReport};
use crate::model::TaskState;
use crate::register::{News, Value};
use crate::time::Span;

const H: Span = Span::from_ms(50);

fn node(id: u8) -> NodeId {
    NodeId::new(id).unwrap()
}

fn life(id: u8, start: u32) -> Incarnation {
    let boot = [id; 16];
    Incarnation { boot, start }
}

fn engine(resumed: Option<Resumed>) -> Engine {
    let nodes = (1..=3).map(|id| (node(id), format!("n{id}")));
    let setup = Setup {
        me: node(1),
        incarnation: life(1, 1),
        cluster: [7; 16],
        nodes: nodes.collect(),
        tasks: vec![TaskSetup {
            name: "web".into(),
            nodes: (1..=3).map(node).collect(),
            enabled: true,
            fence_required: false,
        }],
        timing: Timing::from_detect(Span::from_ms(500)),
        config_hash: [1; 8],
        config_revision: 1,
        links: 1,
        seed: 9,
        first_sequence: 0,
        resumed,
        watchdog: false,
        memory: Memory::Nothing,
        networks: 1,
        fences: NodeSet::EMPTY,
        disks: 1,
    };
    Engine::new(setup, Instant(1_000_000_000))
}

fn view(epoch: u64, members: &[(u8, Standing)]) -> View {
    let mut view = View {
        epoch,
        config_hash: [1; 8],
        ..View::default()
    };
    for (id, standing) in members {
        view.admit(Member {
            node: node(*id),
            incarnation: life(*id, 1),
            standing: *standing,
        });
    }
    view.tasks = vec![TaskRecord {
        epoch: epoch as u32,
        ..TaskRecord::default()
    }];
    view
}

fn learn(engine: &mut Engine, view: &View) {
    let (epoch, bytes) = (view.epoch, view.encode());
    let nonce = epoch;
    let value = Value {
        epoch,
        nonce,
        bytes,
    };
    engine.on_news(News::Learned(value));
}

/// Lets time pass and returns the frame that is sent then.
fn beat(engine: &mut Engine) -> Frame {
    let now = engine.now + H;
    engine.handle(now, Event::Tick);
    let mut sent = None;
    while let Some(action) = engine.poll_action() {
        if let Action::Send(frame) = action {
            sent = Some(frame);
        }
    }
    sent.expect("a heartbeat is due")
}

/// A frame of another node that has heard `echo`.
fn frame(from: Incarnation, id: u8, sequence: u64, epoch: u64, echo: &Frame) -> Event {
    let mut frame = Frame::blank([7; 16], node(id), from);
    frame.sequence = sequence;
    frame.epoch = epoch;
    frame.config_hash = [1; 8];
    frame.heard[0] = echo.sequence as u32;
    Event::Frame { link: 0, frame }
}

const BOTH: [(u8, Standing); 2] = [(1, Standing::Member), (2, Standing::Member)];

#[test]
fn a_lease_is_dated_by_the_sending_of_what_was_confirmed() {
    let mut engine = engine(None);
    learn(&mut engine, &view(3, &BOTH));
    let sent = beat(&mut engine);
    let date = engine.now;
    engine.handle(date + H.times(2), frame(life(2, 1), 2, 10, 3, &sent));
    assert_eq!(engine.lease_deadline(), date + H.times(4));
}

#[test]
fn a_confirmation_counts_between_equal_epochs_and_of_the_listed_life_only() {
    for (incarnation, epoch) in [(life(2, 1), 2), (life(2, 1), 4), (life(2, 2), 3)] {
        let mut engine = engine(None);
        learn(&mut engine, &view(3, &BOTH));
        let sent = beat(&mut engine);
        let now = engine.now + H;
        engine.handle(now, frame(incarnation, 2, 10, epoch, &sent));
        assert_eq!(
            engine.lease_deadline(),
            Instant(0),
            "{incarnation:?} {epoch}"
        );
    }
}

#[test]
fn every_listed_node_has_to_confirm_a_joining_one_too() {
    let mut engine = engine(None);
    let [me, other] = BOTH;
    learn(&mut engine, &view(3, &[me, other, (3, Standing::Joining)]));
    let sent = beat(&mut engine);
    let now = engine.now;
    engine.handle(now, frame(life(2, 1), 2, 10, 3, &sent));
    assert_eq!(engine.lease_deadline(), Instant(0));
    engine.handle(now, frame(life(3, 1), 3, 10, 3, &sent));
    assert_eq!(engine.lease_deadline(), now + H.times(4));
}

#[test]
fn a_proof_by_the_register_counts_for_the_known_epoch_only() {
    let mut engine = engine(None);
    learn(&mut engine, &view(3, &BOTH));
    let begun = engine.now;
    engine.on_news(News::Proof { begun, epoch: 2 });
    engine.handle(begun, Event::Tick);
    assert_eq!(engine.lease_deadline(), Instant(0));
    engine.on_news(News::Proof { begun, epoch: 3 });
    engine.handle(begun, Event::Tick);
    assert_eq!(engine.lease_deadline(), begun + H.times(4));
}

#[test]
fn another_boot_is_not_listened_to_while_the_known_one_speaks() {
    let mut engine = engine(None);
    learn(&mut engine, &view(3, &BOTH));
    let sent = beat(&mut engine);
    let now = engine.now;
    engine.handle(now, frame(life(2, 1), 2, 10, 3, &sent));
    engine.handle(now + H, frame(life(9, 1), 2, 500, 3, &sent));
    assert!(!engine.proved_rebooted(node(2)));
    let later = now + H.times(3);
    engine.handle(later, frame(life(9, 1), 2, 501, 3, &sent));
    assert!(engine.proved_rebooted(node(2)));
}

#[test]
fn who_is_to_be_put_out_is_not_confirmed_any_more() {
    let mut engine = engine(None);
    learn(&mut engine, &view(3, &BOTH));
    let sent = beat(&mut engine);
    engine.handle(engine.now, frame(life(2, 1), 2, 10, 3, &sent));
    assert_eq!(beat(&mut engine).heard[1], 10);
    engine.asked_out.insert(node(2));
    assert_eq!(beat(&mut engine).heard[1], 0);
}

#[test]
fn each_life_numbers_its_frames_from_a_place_of_its_own() {
    let first = beat(&mut engine(None)).sequence;
    assert!(first > 1_000, "{first}: a replayed echo would find it");
}

#[test]
fn time_puts_out_only_who_is_not_listed() {
    let mut engine = engine(None);
    let mut known = view(3, &BOTH);
    known.tasks[0].after = After::Node(node(2));
    learn(&mut engine, &known);
    let task = TaskIndex::new(0).unwrap();
    engine.now += Span::from_ms(10_000);
    assert!(!engine.earlier_owner_is_out(task, &known.task(task)));
    known.epoch = 4;
    known.dismiss(node(2));
    learn(&mut engine, &known);
    assert!(engine.earlier_owner_is_out(task, &known.task(task)));
}

#[test]
fn a_listed_node_is_out_when_it_says_so_under_the_same_view() {
    let mut engine = engine(None);
    let mut known = view(3, &BOTH);
    known.tasks[0].after = After::Anybody;
    learn(&mut engine, &known);
    let task = TaskIndex::new(0).unwrap();
    engine.local[0] = Local::Stopped;
    for (epoch, state, out) in [
        (2, TaskState::Stopped, false),
        (3, TaskState::Stopping, false),
        (3, TaskState::Stopped, true),
    ] {
        let sent = beat(&mut engine);
        let Event::Frame { link, mut frame } = frame(life(2, 1), 2, sent.sequence, epoch, &sent)
        else {
            unreachable!()
        };
        frame.tasks[0] = TaskReport::new(state, 3);
        engine.handle(engine.now, Event::Frame { link, frame });
        engine.task_known_at[0] = engine.now;
        let found = engine.is_out(task, node(2));
        assert_eq!(found, out, "epoch {epoch}, {state:?}");
    }
}

#[test]
fn two_absent_nodes_that_may_confirm_each_other_are_not_put_out() {
    let two = [(2, Standing::Member), (3, Standing::Member)];
    let mut engine = engine(None);
    learn(&mut engine, &view(3, &two));
    assert!(engine.may_start_alone().is_err());
    engine.confirmed_off.insert(node(3));
    assert!(engine.may_start_alone().is_ok());
    let mut listed = view(4, &two);
    listed.admit(Member {
        node: node(1),
        incarnation: life(8, 1),
        standing: Standing::Member,
    });
    engine.confirmed_off = NodeSet::EMPTY;
    learn(&mut engine, &listed);
    assert!(
        engine.may_start_alone().is_ok(),
        "an earlier life was needed"
    );
}

#[test]
fn an_heir_that_is_dropped_is_waited_for() {
    let record = TaskRecord {
        owner: Some(node(1)),
        heir: Some(node(2)),
        ..TaskRecord::default()
    };
    assert_eq!(record.without_heir().after, After::Node(node(2)));
    let after = After::Node(node(3));
    let record = TaskRecord { after, ..record };
    assert_eq!(record.without_heir().after, After::Anybody);
}

#[test]
fn a_resumed_core_keeps_the_lease_it_was_left_and_no_more() {
    let lease_deadline = Instant(1_100_000_000);
    let resumed = Resumed {
        lease_deadline,
        granted: 1,
    };
    let mut engine = engine(Some(resumed));
    engine.handle(engine.now, Event::Tick);
    assert_eq!(engine.lease_deadline(), lease_deadline);
    assert_eq!(engine.granted(), 1);
}

/// An engine that is a member with a lease, has seen the eviction of node 2 in epoch 4 by `by`, and
/// knows that a task may still run there; with its task, which requires fencing or does not.
fn after_an_eviction(by: u8, required: bool) -> (Engine, View, TaskIndex) {
    let mut engine = engine(None);
    engine.setup.fences = NodeSet::only(node(2)).with(node(3));
    engine.setup.tasks[0].fence_required = required;
    engine.on_report(Report::Hello {
        found: vec![Found::Stopped],
    });
    let mut known = view(3, &BOTH);
    known.admit(Member {
        node: node(3),
        incarnation: life(3, 1),
        standing: Standing::Member,
    });
    learn(&mut engine, &known);
    known.epoch = 4;
    known.evict(node(2), node(by), EvictReason::Silent);
    known.tasks[0].owner = Some(node(1));
    known.tasks[0].after = After::Node(node(2));
    known.tasks[0].epoch += 1;
    learn(&mut engine, &known);
    (engine, known, TaskIndex::new(0).unwrap())
}

/// Holds a lease from now on, and gives the orders about power.
fn power_orders(engine: &mut Engine) -> Vec<(u8, Option<u64>)> {
    let (begun, epoch) = (engine.now, engine.view.epoch);
    engine.on_news(News::Proof { begun, epoch });
    engine.handle(begun, Event::Tick);
    let mut orders = Vec::new();
    while let Some(action) = engine.poll_action() {
        if let Action::PowerFence { node, epoch } = action {
            orders.push((node.number(), epoch));
        }
    }
    orders
}

fn off(engine: &mut Engine, epoch: u64) {
    let outcome = PowerOutcome::Off { by: "bmc".into() };
    engine.on_power_fenced(node(2), epoch, outcome);
}

#[test]
fn whoever_has_put_a_node_out_has_it_switched_off_once() {
    let (mut engine, _, task) = after_an_eviction(1, false);
    assert_eq!(power_orders(&mut engine), [(2, Some(4))]);
    assert_eq!(power_orders(&mut engine), [], "asked for already");
    let record = engine.view.task(task);
    assert!(!engine.earlier_owner_is_out(task, &record));
    off(&mut engine, 4);
    assert!(engine.earlier_owner_is_out(task, &record), "off is proof");
    assert_eq!(power_orders(&mut engine), [], "it is done");
}

#[test]
fn without_a_lease_and_for_anothers_eviction_nothing_is_switched_off() {
    let (mut engine, ..) = after_an_eviction(1, true);
    engine.handle(engine.now, Event::Tick);
    while let Some(action) = engine.poll_action() {
        assert!(!matches!(action, Action::PowerFence { .. }), "no lease");
    }
    let (mut engine, ..) = after_an_eviction(3, true);
    let sent = beat(&mut engine);
    engine.handle(engine.now, frame(life(3, 1), 3, 10, 4, &sent));
    assert_eq!(power_orders(&mut engine), [], "it is for node 3 to do");
    engine.now += Span::from_ms(1_000);
    assert_eq!(power_orders(&mut engine), [(2, Some(4))], "who is silent");
}

#[test]
fn a_node_that_is_listed_again_is_let_be_and_what_was_proved_is_forgotten() {
    let (mut engine, mut known, task) = after_an_eviction(1, true);
    assert_eq!(power_orders(&mut engine), [(2, Some(4))]);
    known.epoch = 5;
    known.admit(Member {
        node: node(2),
        incarnation: life(2, 2),
        standing: Standing::Joining,
    });
    learn(&mut engine, &known);
    assert_eq!(power_orders(&mut engine), [(2, None)]);
    off(&mut engine, 4);
    assert!(
        !engine.earlier_owner_is_out(task, &known.task(task)),
        "taken back"
    );
    known.epoch = 6;
    known.evict(node(2), node(1), EvictReason::Silent);
    learn(&mut engine, &known);
    assert_eq!(power_orders(&mut engine), [(2, Some(6))]);
    off(&mut engine, 4);
    assert!(
        !engine.earlier_owner_is_out(task, &known.task(task)),
        "of an earlier life"
    );
    off(&mut engine, 6);
    assert!(engine.earlier_owner_is_out(task, &known.task(task)));
    known.epoch = 7;
    known.admit(Member {
        node: node(2),
        incarnation: life(2, 3),
        standing: Standing::Joining,
    });
    learn(&mut engine, &known);
    assert!(
        !engine.earlier_owner_is_out(task, &known.task(task)),
        "it is on again"
    );
}

#[test]
fn time_does_for_a_task_what_it_does_not_for_one_that_requires_fencing() {
    for required in [false, true] {
        let (mut engine, known, task) = after_an_eviction(1, required);
        engine.now += Span::from_ms(10_000);
        let out = engine.earlier_owner_is_out(task, &known.task(task));
        assert_eq!(out, !required);
        let reason = "no answer".to_owned();
        assert_eq!(power_orders(&mut engine), [(2, Some(4))]);
        let failed = PowerOutcome::Failed { reason };
        engine.on_power_fenced(node(2), 4, failed);
        assert_eq!(engine.earlier_owner_is_out(task, &known.task(task)), out);
        let alarms = engine.snapshot(engine.now).alarms;
        assert!(alarms.contains(&"cannot switch off n2: no answer".to_owned()));
        engine.vouched_off(node(2));
        assert!(
            engine.earlier_owner_is_out(task, &known.task(task)),
            "a person's word"
        );
    }
}

#[test]
fn a_new_runner_is_told_again() {
    let (mut engine, ..) = after_an_eviction(1, false);
    assert_eq!(power_orders(&mut engine), [(2, Some(4))]);
    engine.on_report(Report::Gone);
    assert_eq!(power_orders(&mut engine), []);
    engine.on_report(Report::Hello {
        found: vec![Found::Stopped],
    });
    assert_eq!(power_orders(&mut engine), [(2, Some(4))]);
}

#[test]
fn the_others_learn_from_the_view_that_a_node_is_off() {
    let (mut engine, mut known, task) = after_an_eviction(1, true);
    known.epoch = 5;
    known.tasks[0].owner = Some(node(3));
    known.tasks[0].epoch += 1;
    learn(&mut engine, &known);
    assert_eq!(power_orders(&mut engine), [(2, Some(4))]);
    assert!(engine.tell_off().is_none());
    off(&mut engine, 4);
    let told = engine.tell_off().expect("something to tell").view;
    assert_eq!(told.task(task).after, After::Nobody);
    assert_eq!(
        told.task(task).epoch,
        known.task(task).epoch,
        "nobody waits anew"
    );
    learn(&mut engine, &told);
    assert!(engine.tell_off().is_none());
}

/// A heartbeat later the lease is proved anew; the orders to the runner that follow.
fn orders_at(engine: &mut Engine, now: Instant) -> Vec<Order> {
    let (begun, epoch) = (now, engine.view.epoch);
    engine.handle(now, Event::Tick);
    engine.on_news(News::Proof { begun, epoch });
    engine.handle(now, Event::Tick);
    let orders = std::iter::from_fn(|| engine.poll_action());
    let orders = orders.filter_map(|action| match action {
        Action::Order(order) => Some(order),
        _ => None,
    });
    orders.collect()
}

#[test]
fn what_was_stuck_gets_no_second_pause_but_time_to_go_elsewhere() {
    let mut engine = engine(None);
    engine.on_report(Report::Hello {
        found: vec![Found::Stopped],
    });
    let mut known = view(3, &BOTH);
    known.tasks[0].owner = Some(node(1));
    learn(&mut engine, &known);
    let now = engine.now + H;
    let task = TaskIndex::new(0).unwrap();
    let [Order::Start { op, .. }] = orders_at(&mut engine, now)[..] else {
        panic!("it is to be started");
    };
    let failure = Some(Failure {
        object: "server".into(),
        reason: "half of it runs".into(),
        stopped: false,
    });
    engine.on_report(Report::Done { op, task, failure });
    let mut now = engine.now;
    let stuck = now;
    let stop = loop {
        now += H;
        if let Some(order) = orders_at(&mut engine, now).pop() {
            break order;
        }
        assert!(now.since(stuck) < RETRY_MAX, "it is never stopped");
    };
    assert!(now.since(stuck) > H, "not at once");
    let Order::Stop { op, forced, .. } = stop else {
        panic!("{stop:?} of what is stuck");
    };
    assert!(forced);
    let failure = None;
    engine.on_report(Report::Done { op, task, failure });
    assert_eq!(orders_at(&mut engine, now), [], "others come first");
    let stopped = now;
    let order = loop {
        now += H;
        if let Some(order) = orders_at(&mut engine, now).pop() {
            break order;
        }
        assert!(now.since(stopped) < H.times(10), "it waits once more");
    };
    assert!(matches!(order, Order::Start { .. }), "{order:?}");
}
