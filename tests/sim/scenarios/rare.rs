//! Directed runs of what chance brings too seldom, or never within the few minutes of a run.

use std::rc::Rc;

use standfast::engine::{Class, Failure, Report, Standing};
use standfast::frame::Frame;
use standfast::mldc::DATA_MAX;
use standfast::model::{Incarnation, NodeId};
use standfast::register::Memory;

use super::*;
use crate::bytes::CLUSTER;
use crate::strike::Strike;

const MINUTES: u64 = 60_000_000_000;

/// How many lines of the story since `listen` have these words.
fn told(world: &World, words: &str) -> usize {
    let story = world.log.story.as_ref().expect("somebody listens");
    story.iter().filter(|line| line.contains(words)).count()
}

fn listen(world: &mut World) {
    world.log.story = Some(Vec::new());
}

fn first() -> TaskIndex {
    TaskIndex::new(0).expect("the first")
}

fn unknown_task() -> TaskIndex {
    TaskIndex::new(63).expect("possible, though nobody has so many here")
}

fn pass(world: &mut World, span: u64) {
    let end = world.now + span;
    world.run_until(end);
}

#[test]
fn what_was_ten_minutes_ago_is_forgotten() {
    let mut world = cluster(2, 1, 1);
    let owner = runner_of(&world, 0);
    world.nodes[owner].held[0].starts_fail = true;
    world.nodes[owner].held[0].running = false;
    world.task_dies(owner, 0);
    wait(&mut world, D * 40, "the task elsewhere", |w| {
        w.nodes[1 - owner].held[0].whole
    });
    world.nodes[owner].held[0].starts_fail = false;
    world.power_cut(owner);
    let id = world.nodes[owner].id;
    let out = |w: &World| w.checks.newest().is_some_and(|v| v.member(id).is_none());
    wait(&mut world, D * 2, "its eviction", out);
    world.power_on(owner);
    wait(&mut world, D * 40, "a well cluster", |w| {
        w.is_well().is_ok()
    });
    let remembered = |w: &World| {
        let view = w.checks.newest().expect("there is a view");
        (
            !view.evictions.is_empty(),
            !view.tasks[0].failed_on.is_empty(),
        )
    };
    assert_eq!(remembered(&world), (true, true));
    pass(&mut world, MINUTES * 9);
    assert_eq!(remembered(&world), (true, true));
    wait(&mut world, MINUTES * 2, "both to be forgotten", |w| {
        remembered(w) == (false, false)
    });
}

/// Nodes on which the only task has failed, as the newest view knows it.
fn failed_on(world: &World) -> Vec<NodeId> {
    let view = world.checks.newest().expect("there is a view");
    view.tasks[0].failed_on.iter().collect()
}

#[test]
fn who_moves_a_task_to_where_it_failed_means_it() {
    let mut world = cluster(3, 1, 3);
    let owner = runner_of(&world, 0);
    let to = world.nodes[owner].id;
    world.nodes[owner].held[0].starts_fail = true;
    world.nodes[owner].held[0].running = false;
    world.task_dies(owner, 0);
    wait(&mut world, D * 40, "the task elsewhere", |w| {
        elsewhere(w, owner, 0)
    });
    assert_eq!(failed_on(&world), [to]);
    world.nodes[owner].held[0].starts_fail = false;
    let task = first();
    world.command(owner, Command::Move { task, to });
    wait(&mut world, D, "the task back", |w| runs(w, owner, 0));
    assert_eq!(failed_on(&world), []);
}

#[test]
fn a_task_that_sticks_half_started_is_stopped_by_force_and_runs_elsewhere() {
    let mut stuck = 0;
    for seed in 0..20 {
        let mut world = cluster(2, 1, seed);
        let owner = runner_of(&world, 0);
        let heir = 1 - owner;
        let to = world.nodes[heir].id;
        world.nodes[heir].held[0].starts_fail = true;
        world.command(owner, Command::Move { task: first(), to });
        let half = |world: &World| {
            let held = &world.nodes[heir].held[0];
            held.running && !held.whole && held.work.is_none()
        };
        if world.run_while(D * 2, |world| !half(world)) {
            stuck += 1;
            wait(&mut world, D * 40, "its end there", |w| !runs(w, heir, 0));
            let nowhere = |w: &World| !runs(w, owner, 0) && !runs(w, heir, 0);
            assert!(world.run_while(D * 40, nowhere), "it stays stopped");
            assert!(runs(&world, owner, 0), "it was started there once more");
        }
        wait(&mut world, D * 40, "the task back", |world| {
            world.nodes[owner].held[0].whole && failed_on(world) == [to]
        });
        pass(&mut world, D * 40);
        assert!(runs(&world, owner, 0) && !runs(&world, heir, 0));
    }
    assert!((1..20).contains(&stuck), "stuck {stuck} times of 20");
}

#[test]
fn where_a_task_has_failed_it_gets_a_second_chance_when_nobody_else_is_left() {
    let mut world = cluster(2, 1, 4);
    let owner = runner_of(&world, 0);
    world.nodes[owner].held[0].starts_fail = true;
    world.nodes[owner].held[0].running = false;
    world.task_dies(owner, 0);
    wait(&mut world, D * 40, "the task elsewhere", |w| {
        elsewhere(w, owner, 0)
    });
    world.nodes[owner].held[0].starts_fail = false;
    let (other, id) = (1 - owner, world.nodes[1 - owner].id);
    world.strike(Strike::Leave { node: other });
    wait(&mut world, D * 2, "the other to be gone", |w| {
        w.checks.newest().is_some_and(|v| v.member(id).is_none())
    });
    world.power_cut(other);
    pass(&mut world, MINUTES - D);
    assert!(!runs(&world, owner, 0), "so soon");
    assert_eq!(failed_on(&world), [world.nodes[owner].id]);
    wait(&mut world, D * 6, "the task back", |w| runs(w, owner, 0));
    assert_eq!(failed_on(&world), []);
}

#[test]
fn a_command_about_what_is_not_there_is_refused_with_its_reason() {
    let mut world = cluster(3, 1, 2);
    listen(&mut world);
    let (task, here) = (unknown_task(), world.nodes[0].id);
    let stranger = NodeId::new(64).expect("possible, though not configured");
    for command in [
        Command::Move { task, to: here },
        Command::Start { task },
        Command::Stop { task },
        Command::Standby { node: stranger },
        Command::Online { node: stranger },
        Command::Move {
            task: first(),
            to: stranger,
        },
    ] {
        world.command(0, command);
        pass(&mut world, H);
    }
    assert_eq!(told(&world, "refuses: there is no task number 63;"), 3);
    assert_eq!(told(&world, "refuses: there is no node 64;"), 2);
    assert_eq!(told(&world, "is not among the task's nodes;"), 1);
    stays_as_it_is(&mut world, D * 4);
}

#[test]
fn every_command_is_answered_however_many_wait_in_vain() {
    let mut world = cluster(2, 1, 3);
    listen(&mut world);
    let owner = runner_of(&world, 0);
    let to = world.nodes[1 - owner].id;
    for node in 0..2 {
        world.lose_disk(node);
    }
    world.power_cut(1 - owner);
    pass(&mut world, H);
    for _ in 0..40 {
        world.command(owner, Command::Move { task: first(), to });
    }
    assert_eq!(told(&world, "refuses: too many commands are waiting"), 8);
    pass(&mut world, D * 25);
    assert_eq!(told(&world, "refuses: "), 40);
}

#[test]
fn a_move_is_taken_back_while_the_heir_stands_still() {
    let mut world = cluster(3, 1, 4);
    let owner = runner_of(&world, 0);
    let heir = (owner + 1) % 3;
    let (home, away) = (world.nodes[owner].id, world.nodes[heir].id);
    world.pause_core(heir, H * 2);
    let placed = |w: &World| {
        let record = w.checks.newest().expect("there is a view").tasks[0];
        (record.owner, record.heir)
    };
    let task = first();
    world.command(owner, Command::Move { task, to: away });
    wait(&mut world, H, "an heir", |w| {
        placed(w) == (Some(home), Some(away))
    });
    world.command(owner, Command::Move { task, to: home });
    wait(&mut world, H, "no heir", |w| {
        placed(w) == (Some(home), None)
    });
    // The heir may have started it, as far as the view knows, until it says otherwise.
    pass(&mut world, D);
    stays_as_it_is(&mut world, D * 10);
    assert_eq!(runner_of(&world, 0), owner);
}

#[test]
fn of_those_who_are_joining_when_the_last_member_dies_one_goes_on() {
    let mut both = 0;
    for seed in 0..10 {
        let mut world = dark(3, 1, seed);
        world.power_on(0);
        let all = |w: &World| runs(w, 0, 0);
        wait(&mut world, D * 10, "the task", all);
        world.power_on(1);
        world.power_on(2);
        let joining = |w: &World| {
            let members = w.checks.newest().map(|view| view.members.clone());
            let members = members.unwrap_or_default();
            let new = members.iter().filter(|m| m.standing == Standing::Joining);
            new.count()
        };
        if !world.run_while(D * 20, |w| joining(w) < 2) {
            continue;
        }
        both += 1;
        world.power_cut(0);
        wait(&mut world, D * 10, "the task elsewhere", |w| {
            elsewhere(w, 0, 0)
        });
    }
    assert!(both > 0, "two never joined at once");
}

#[test]
fn what_does_not_belong_here_changes_nothing() {
    let mut world = cluster(2, 1, 5);
    let owner = runner_of(&world, 0);
    let stranger = NodeId::new(9).expect("possible, though not configured");
    let mut frame = Frame::blank(CLUSTER, stranger, Incarnation::default());
    (frame.sequence, frame.epoch) = (7, u64::MAX);
    let frame = Rc::new(frame);
    world.deliver(owner, In::Frame { link: 0, frame });
    let reason = "of no link".to_owned();
    let (link, up) = (40, false);
    world.deliver(owner, In::Other(Event::LinkState { link, up, reason }));
    let (op, task, failure) = (1, unknown_task(), None);
    let done = Report::Done { op, task, failure };
    world.deliver(owner, In::Other(Event::Report(done)));
    let failure = Failure {
        object: String::new(),
        reason: "of no task".into(),
        stopped: true,
    };
    let lost = Report::Lost { task, failure };
    world.deliver(owner, In::Other(Event::Report(lost)));
    stays_as_it_is(&mut world, D * 10);
}

#[test]
fn what_the_runner_notes_is_told_with_its_class() {
    let mut world = cluster(2, 1, 6);
    listen(&mut world);
    for task in [Some(first()), Some(unknown_task()), None] {
        let (class, text) = (Class::Warning, "the disk is nearly full".to_owned());
        let note = Report::Note { task, class, text };
        world.deliver(0, In::Other(Event::Report(note)));
    }
    assert_eq!(told(&world, "warning: the disk is nearly full"), 3);
}

#[test]
fn frames_are_numbered_on_past_what_an_echo_can_hold() {
    let mut world = cluster(2, 2, 7);
    let owner = runner_of(&world, 0);
    // A core goes on a thousand numbers above what the one before has sent.
    world.nodes[owner].page.sequence = u64::from(u32::MAX) - 1_000 - 40;
    world.core_gone(owner);
    pass(&mut world, H / 2);
    let (power, core) = (world.nodes[owner].power_life, world.nodes[owner].core_life);
    world.core_starts(owner, power, core);
    let stays = |w: &World| w.nodes[owner].held[0].whole;
    assert!(!world.run_while(D * 20, stays), "the task was stopped");
    assert!(world.nodes[owner].page.sequence > u64::from(u32::MAX));
    assert!(world.is_well().is_ok(), "{:?}", world.is_well());
}

#[test]
fn only_the_newest_alarms_are_kept() {
    let mut world = cluster(2, 1, 8);
    let at = world.nodes[0].clock.at(world.now);
    for number in 0..20 {
        let reason = format!("error {number}");
        world.deliver(0, In::Other(Event::KeepFailed { at, reason }));
    }
    let engine = world.nodes[0].engine.as_ref().expect("it is up");
    let alarms = engine.snapshot(at).alarms;
    assert_eq!(alarms.len(), 16, "{alarms:?}");
    assert!(alarms[0].ends_with("error 4") && alarms[15].ends_with("error 19"));
}

/// The file of a node's votes cannot be read, or not be written: what becomes of a change by all?
#[test]
fn a_node_without_its_votes_does_not_vote() {
    for (memory, silent, record) in [
        (Memory::Lost, true, false),
        (Memory::Lost, true, true),
        (Memory::Unable, false, false),
    ] {
        let mut plan = Plan::calm(2, 1, DETECT_MS);
        plan.files.late = true;
        plan.compare_and_write = record;
        let mut world = World::new(plan, Rng::new(9), true);
        world.checks.s6 = false;
        listen(&mut world);
        world.power_on(1);
        let trouble = Some("input/output error".to_owned());
        let speaks = Event::Remembered { memory, trouble };
        world.deliver(1, In::Other(speaks));
        world.power_on(0);
        pass(&mut world, D * 40);
        let said = if silent {
            "critical: this node can neither join nor change anything: input/output error"
        } else {
            "warning: this node cannot agree to changes without the shared disk: input/output"
        };
        assert_eq!(told(&world, said), 1);
        assert_eq!(world.is_well().is_err(), silent);
        assert!(runs(&world, 0, 0) || runs(&world, 1, 0));
        if silent {
            continue;
        }
        // By the disk it can do everything; without it nothing is changed.
        for node in 0..2 {
            world.lose_disk(node);
        }
        stays_as_it_is(&mut world, D * 4);
        let (owner, known) = (runner_of(&world, 0), epoch(&world));
        let to = world.nodes[1 - owner].id;
        world.command(owner, Command::Move { task: first(), to });
        pass(&mut world, D * 25);
        assert_eq!(epoch(&world), known);
        assert_eq!(
            told(&world, "without it every node must agree: n2 cannot"),
            1
        );
    }
}

/// A record without an object has no colon in front of its reason.
#[test]
fn a_failure_of_no_object_is_told_by_its_reason_alone() {
    let mut world = cluster(2, 1, 10);
    listen(&mut world);
    let owner = runner_of(&world, 0);
    let failure = Failure {
        object: String::new(),
        reason: "nobody knows".into(),
        stopped: true,
    };
    let task = first();
    let lost = Report::Lost { task, failure };
    world.deliver(owner, In::Other(Event::Report(lost)));
    assert_eq!(told(&world, "major: t0: nobody knows"), 1);
    wait(&mut world, D * 10, "the task", |w| w.all_run().is_ok());
}

/// The view of many nodes is longer than a packet.
#[test]
fn a_message_in_several_parts_changes_the_view_without_the_disk() {
    let mut world = cluster(24, 1, 11);
    let owner = runner_of(&world, 0);
    let heir = (owner + 1) % 24;
    let length = world.checks.newest().map_or(0, |view| view.encode().len());
    assert!(length > DATA_MAX, "{length} bytes");
    for node in 0..24 {
        world.lose_disk(node);
    }
    pass(&mut world, D);
    let (task, to) = (first(), world.nodes[heir].id);
    world.command(owner, Command::Move { task, to });
    wait(&mut world, D * 4, "the task on its heir", |w| {
        w.nodes[heir].held[0].whole && !runs(w, owner, 0)
    });
}

#[test]
fn an_heir_that_is_passed_over_is_waited_for() {
    let mut world = cluster(3, 1, 12);
    let owner = runner_of(&world, 0);
    let (heir, third) = ((owner + 1) % 3, (owner + 2) % 3);
    let node = world.nodes[heir].id;
    // It is asked for after the owner has died and before anybody can know that, and the heir
    // stands still until after the eviction.
    world.power_cut(owner);
    pass(&mut world, H * 5 / 2);
    world.pause_core(heir, H * 3);
    let task = first();
    world.command(third, Command::Move { task, to: node });
    world.command(third, Command::Standby { node });
    wait(&mut world, H * 3, "the eviction", |w| {
        let view = w.checks.newest().expect("there is a view");
        view.member(w.nodes[owner].id).is_none()
    });
    let record = world.checks.newest().expect("there is a view").tasks[0];
    assert_eq!(record.owner, Some(world.nodes[third].id));
    assert!(record.after.may_mean(node), "{record:?}");
    wait(&mut world, D * 2, "the task", |w| runs(w, third, 0));
}

#[test]
fn a_member_whose_id_is_used_twice_orders_nothing_on_the_disk() {
    let mut world = cluster(2, 1, 13);
    listen(&mut world);
    let (owner, known) = (runner_of(&world, 0), epoch(&world));
    world.strike(Strike::Twin { node: owner });
    wait(&mut world, D * 4, "it to hear its double", |w| {
        told(w, "another machine uses this node's id") > 0
    });
    pass(&mut world, D);
    let node = world.nodes[owner].id;
    world.command(owner, Command::Standby { node });
    pass(&mut world, D * 25);
    assert_eq!((epoch(&world), told(&world, "refuses: ")), (known, 1));
    assert!(runs(&world, owner, 0));
}
