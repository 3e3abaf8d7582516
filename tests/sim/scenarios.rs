//! Directed runs: one fault each, in a cluster that is otherwise quiet, and what must come of it.

mod narrow;
mod rare;

use standfast::engine::{Command, Event};
use standfast::model::TaskIndex;
use standfast::register::DISKS_MAX;

use crate::node::In;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::strike::{Ill, Strike};
use crate::world::{Heal, World};

const DETECT_MS: u64 = 500;
const D: u64 = DETECT_MS * 1_000_000;
const H: u64 = D / 10;

/// A world in which no node has power yet.
fn dark(nodes: usize, tasks: usize, seed: u64) -> World {
    let mut world = World::new(Plan::calm(nodes, tasks, DETECT_MS), Rng::new(seed), true);
    world.checks.s6 = false;
    world
}

/// A cluster in which everybody is in and everything runs.
fn cluster(nodes: usize, tasks: usize, seed: u64) -> World {
    settled(dark(nodes, tasks, seed))
}

/// The same with its register on three disks.
fn on_three_disks(nodes: usize, seed: u64) -> World {
    let plan = Plan {
        disks: DISKS_MAX,
        ..Plan::calm(nodes, 1, DETECT_MS)
    };
    settled(World::new(plan, Rng::new(seed), true))
}

fn settled(mut world: World) -> World {
    world.power_up_all();
    wait(&mut world, D * 40, "a well cluster", |world| {
        world.is_well().is_ok()
    });
    let settled = world.now + D * 2;
    world.run_until(settled);
    world
}

/// Runs until something is so; returns how long that took.
fn wait(world: &mut World, longest: u64, what: &str, so: impl Fn(&World) -> bool) -> u64 {
    let begun = world.now;
    if !world.run_while(longest, |world| !so(world)) {
        world.fail(&format!("waited in vain for {what}"));
    }
    world.now - begun
}

fn runs(world: &World, node: usize, task: usize) -> bool {
    world.nodes[node].held[task].running
}

fn runner_of(world: &World, task: usize) -> usize {
    (0..world.nodes.len())
        .find(|node| world.nodes[*node].held[task].whole)
        .expect("it runs somewhere")
}

fn elsewhere(world: &World, node: usize, task: usize) -> bool {
    (0..world.nodes.len()).any(|other| other != node && runs(world, other, task))
}

fn epoch(world: &World) -> u64 {
    world.checks.newest().map_or(0, |view| view.epoch)
}

/// Nothing changes for a long time: nobody put out, every task where it was and up all the while.
fn stays_as_it_is(world: &mut World, span: u64) {
    let (before, tasks) = (epoch(world), world.plan.tasks);
    let owners: Vec<usize> = (0..tasks).map(|task| runner_of(world, task)).collect();
    let stayed = world.run_while(span, |world| {
        (0..tasks).all(|task| world.nodes[owners[task]].held[task].whole)
    });
    if stayed || epoch(world) != before {
        world.fail("a task was stopped or the view changed without need");
    }
}

#[test]
fn a_murdered_owner_is_replaced_within_detect() {
    let mut longest = 0;
    for seed in 0..40 {
        for nodes in [2, 3] {
            let mut world = cluster(nodes, 1, seed);
            let owner = runner_of(&world, 0);
            let offset = seed * H / 40;
            let when = world.now + offset;
            world.run_until(when);
            world.power_cut(owner);
            let took = wait(&mut world, D * 3, "a takeover", |w| elsewhere(w, owner, 0));
            longest = longest.max(took);
        }
    }
    println!(
        "longest takeover: {} ms of {DETECT_MS}",
        longest / 1_000_000
    );
    assert!(longest <= D, "{longest}");
}

#[test]
fn cables_cut_but_the_disk_alive_is_not_a_failure() {
    for nodes in [2, 3, 5] {
        let mut world = cluster(nodes, 2, 7);
        for node in 0..nodes {
            let paths = world.all_paths_of(node);
            world.cut(&paths);
        }
        stays_as_it_is(&mut world, D * 60);
    }
}

#[test]
fn without_the_disk_a_task_moves_and_comes_back_when_all_nodes_are_there() {
    for (nodes, seed) in [(2, 1), (3, 2), (5, 3)] {
        let mut world = cluster(nodes, 2, seed);
        for node in 0..nodes {
            world.lose_disk(node);
        }
        stays_as_it_is(&mut world, D * 3);
        let from = runner_of(&world, 0);
        let to = (from + 1) % nodes;
        let task = TaskIndex::new(0).unwrap();
        let node = world.nodes[to].id;
        world.command(from, Command::Move { task, to: node });
        wait(&mut world, D, "the task on its heir", |w| {
            w.nodes[to].held[0].whole && !runs(w, from, 0)
        });
        world.command(from, Command::Standby { node });
        wait(&mut world, D * 2, "an empty node", |w| {
            (0..2).all(|task| !runs(w, to, task) && elsewhere(w, to, task))
        });
        world.command(to, Command::Online { node });
        let quiet = world.now + D * 2;
        world.run_until(quiet);
        stays_as_it_is(&mut world, D * 20);
        // Back on the disk the view is the same one, and a takeover needs no more than usual.
        let known = epoch(&world);
        for node in 0..nodes {
            world.heals(node, Heal::Disk(0, Ill::Lost));
        }
        let settled = world.now + D * 2;
        world.run_until(settled);
        assert_eq!(epoch(&world), known);
        let owner = runner_of(&world, 0);
        world.power_cut(owner);
        let took = wait(&mut world, D * 3, "a takeover", |w| elsewhere(w, owner, 0));
        assert!(took <= D, "{took}");
    }
}

#[test]
fn an_owner_that_alone_has_lost_the_disk_still_hears_of_changes() {
    for nodes in [2, 3] {
        for asks_the_owner in [true, false] {
            let mut world = cluster(nodes, 1, 11);
            let from = runner_of(&world, 0);
            world.lose_disk(from);
            stays_as_it_is(&mut world, D * 2);
            let to = (from + 1) % nodes;
            let task = TaskIndex::new(0).unwrap();
            let command = Command::Move {
                task,
                to: world.nodes[to].id,
            };
            world.command(if asks_the_owner { from } else { to }, command);
            wait(&mut world, D, "the task on its heir", |w| {
                w.nodes[to].held[0].whole && !runs(w, from, 0)
            });
            let quiet = world.now + D * 2;
            world.run_until(quiet);
            stays_as_it_is(&mut world, D * 20);
        }
    }
}

#[test]
fn without_the_disk_and_a_node_nothing_changes_and_nothing_is_lost() {
    let mut world = cluster(3, 1, 4);
    let owner = runner_of(&world, 0);
    for node in 0..3 {
        world.lose_disk(node);
    }
    let off = (owner + 1) % 3;
    world.power_cut(off);
    let known = epoch(&world);
    let other = world.nodes[(owner + 2) % 3].id;
    let task = TaskIndex::new(0).unwrap();
    world.command(owner, Command::Move { task, to: other });
    let later = world.now + D * 30;
    world.run_until(later);
    assert_eq!(epoch(&world), known);
    for node in 0..3 {
        world.heals(node, Heal::Disk(0, Ill::Lost));
    }
    wait(&mut world, D * 10, "the task", |w| {
        (0..3).any(|node| w.nodes[node].held[0].whole)
    });
}

#[test]
fn the_disk_dead_but_a_network_alive_is_not_a_failure() {
    for nodes in [2, 3, 5] {
        let mut world = cluster(nodes, 2, 8);
        for node in 0..nodes {
            world.lose_disk(node);
        }
        stays_as_it_is(&mut world, D * 20);
        // A node that stands still for a moment costs nobody anything.
        world.pause_core(nodes - 1, H * 2);
        stays_as_it_is(&mut world, D * 20);
    }
}

#[test]
fn one_of_three_disks_is_not_missed_and_a_takeover_takes_no_longer() {
    for ill in [Ill::Lost, Ill::Hangs, Ill::Garbled] {
        for disk in 0..DISKS_MAX {
            let mut world = on_three_disks(2, disk as u64);
            let span = None;
            world.strike(Strike::Array { disk, ill, span });
            stays_as_it_is(&mut world, D * 20);
            let owner = runner_of(&world, 0);
            world.power_cut(owner);
            let took = wait(&mut world, D * 3, "a takeover", |w| elsewhere(w, owner, 0));
            assert!(took <= D, "{ill:?} {disk}: {took}");
        }
    }
}

#[test]
fn a_disk_of_three_that_was_away_makes_up_for_the_next_one() {
    let mut world = on_three_disks(3, 5);
    let (ill, span) = (Ill::Lost, None);
    for disk in 0..DISKS_MAX {
        world.strike(Strike::Array { disk, ill, span });
        // Decided on the two others only.
        let from = runner_of(&world, 0);
        let to = (from + 1) % 3;
        let task = TaskIndex::new(0).unwrap();
        let node = world.nodes[to].id;
        world.command(from, Command::Move { task, to: node });
        wait(&mut world, D, "the task on its heir", |w| {
            w.nodes[to].held[0].whole && !runs(w, from, 0)
        });
        for node in 0..3 {
            world.heals(node, Heal::Disk(disk, ill));
        }
        let quiet = world.now + D * 2;
        world.run_until(quiet);
        stays_as_it_is(&mut world, D * 3);
    }
}

#[test]
fn two_of_three_disks_gone_are_as_the_only_one_gone() {
    let mut world = on_three_disks(2, 6);
    world.checks.s6 = false;
    for disk in [0, 2] {
        let (ill, span) = (Ill::Lost, None);
        world.strike(Strike::Array { disk, ill, span });
    }
    stays_as_it_is(&mut world, D * 20);
    let (known, owner) = (epoch(&world), runner_of(&world, 0));
    world.power_cut(owner);
    let later = world.now + D * 20;
    world.run_until(later);
    assert_eq!(epoch(&world), known, "one disk and one node decide nothing");
    world.heals(1 - owner, Heal::Disk(2, Ill::Lost));
    wait(&mut world, D * 3, "a takeover", |w| elsewhere(w, owner, 0));
}

#[test]
fn an_owner_cut_off_from_everything_lets_go_before_another_takes_over() {
    for seed in 0..20 {
        let mut world = cluster(2, 1, seed);
        let owner = runner_of(&world, 0);
        let paths = world.all_paths_of(owner);
        world.cut(&paths);
        world.lose_disk(owner);
        let lets_go = wait(&mut world, D, "the release", |w| !runs(w, owner, 0));
        let taken = wait(&mut world, D, "the takeover", |w| elsewhere(w, owner, 0));
        assert!(lets_go + taken <= D, "{lets_go} {taken}");
    }
}

#[test]
fn a_switchover_is_a_matter_of_one_write_and_one_frame() {
    for seed in 0..20 {
        let mut world = cluster(3, 1, seed);
        let owner = runner_of(&world, 0);
        let heir = (owner + 1) % 3;
        let command = Command::Move {
            task: TaskIndex::new(0).expect("the first"),
            to: world.nodes[heir].id,
        };
        world.command((owner + 2) % 3, command);
        let begun = world.now;
        wait(&mut world, D * 2, "the stop", |w| !runs(w, owner, 0));
        let gap = wait(&mut world, D, "the start", |w| runs(w, heir, 0));
        assert!(gap <= H / 10, "the gap is {} us", gap / 1_000);
        assert!(world.now - begun <= D, "{}", world.now - begun);
    }
}

#[test]
fn a_reboot_faster_than_detect_is_noticed_and_needs_no_waiting() {
    let mut world = cluster(2, 1, 3);
    let owner = runner_of(&world, 0);
    world.power_cut(owner);
    let soon = world.now + D / 5;
    world.run_until(soon);
    world.power_on(owner);
    let took = wait(&mut world, D, "a start", |w| runs(w, 0, 0) || runs(w, 1, 0));
    assert!(took < D / 2, "{took}");
    wait(&mut world, D * 20, "a well cluster", |w| {
        w.is_well().is_ok()
    });
}

#[test]
fn one_node_alone_runs_everything_when_the_other_never_comes() {
    let mut world = dark(2, 2, 4);
    world.power_on(1);
    let all = |w: &World| runs(w, 1, 0) && runs(w, 1, 1);
    let took = wait(&mut world, D * 10, "both tasks", all);
    println!("alone after {} ms", took / 1_000_000);
}

#[test]
fn a_cold_start_alone_takes_over_what_the_other_had() {
    for who in [0, 1] {
        let mut world = cluster(2, 2, 5);
        world.power_cut(0);
        world.power_cut(1);
        let later = world.now + D * 3;
        world.run_until(later);
        world.power_on(who);
        let all = |w: &World| runs(w, who, 0) && runs(w, who, 1);
        let took = wait(&mut world, D * 5, "both tasks", all);
        println!("cold start alone after {} ms", took / 1_000_000);
    }
}

#[test]
fn a_cold_start_of_all_puts_no_healthy_node_out() {
    for nodes in [2, 3] {
        let mut world = cluster(nodes, 2, 6);
        for node in 0..nodes {
            world.power_cut(node);
        }
        let later = world.now + D * 3;
        world.run_until(later);
        world.power_up_all();
        wait(&mut world, D * 30, "a well cluster", |w| {
            w.is_well().is_ok()
        });
    }
}

#[test]
fn of_three_one_cannot_start_alone_while_two_may_be_at_work() {
    let mut world = cluster(3, 1, 9);
    let owner = runner_of(&world, 0);
    let (other, third) = ((owner + 1) % 3, (owner + 2) % 3);
    // The third is out for good; then the two lose the disk and go on by frames.
    world.power_cut(third);
    let later = world.now + D * 4;
    world.run_until(later);
    world.lose_disk(owner);
    world.lose_disk(other);
    let paths = world.all_paths_of(third);
    world.cut(&paths);
    world.power_on(third);
    let later = world.now + D * 20;
    world.run_until(later);
    assert!(runs(&world, owner, 0) && !runs(&world, third, 0));
    let command = Command::ConfirmOff {
        node: world.nodes[other].id,
    };
    world.power_cut(owner);
    world.power_cut(other);
    world.command(third, command);
    wait(&mut world, D * 5, "a start", |w| runs(w, third, 0));
}

#[test]
fn a_restarted_daemon_adopts_what_runs() {
    let mut world = cluster(2, 2, 10);
    let owner = runner_of(&world, 0);
    world.daemon_dies(owner);
    let soon = world.now + H / 2;
    world.run_until(soon);
    world.start_daemon(owner, true);
    let stays = |w: &World| w.nodes[owner].held[0].whole;
    let stopped = world.run_while(D * 20, stays);
    assert!(!stopped, "the task was stopped");
    assert!(world.is_well().is_ok(), "{:?}", world.is_well());
}

#[test]
fn a_restarted_core_goes_on_where_the_last_one_ended() {
    let mut world = cluster(2, 2, 11);
    let owner = runner_of(&world, 0);
    world.core_gone(owner);
    let soon = world.now + H / 2;
    world.run_until(soon);
    let node = &world.nodes[owner];
    let (power, core) = (node.power_life, node.core_life);
    world.core_starts(owner, power, core);
    let stays = |w: &World| w.nodes[owner].held[0].whole;
    let stopped = world.run_while(D * 20, stays);
    assert!(!stopped, "the task was stopped");
    assert!(world.is_well().is_ok(), "{:?}", world.is_well());
}

#[test]
fn an_owner_that_hears_no_confirmation_lets_go_and_is_replaced() {
    for seed in 0..20 {
        let mut world = cluster(2, 1, seed);
        let owner = runner_of(&world, 0);
        let one_way: Vec<_> = (0..2).map(|link| (link, 1 - owner, owner)).collect();
        world.cut(&one_way);
        world.lose_disk(owner);
        wait(&mut world, D * 2, "the takeover", |w| {
            elsewhere(w, owner, 0)
        });
    }
}

#[test]
fn of_three_two_may_die_at_once() {
    for seed in 0..20 {
        let mut world = cluster(3, 3, seed);
        world.power_cut(0);
        world.power_cut(2);
        let all = |w: &World| (0..3).all(|task| runs(w, 1, task));
        let took = wait(&mut world, D * 2, "all tasks", all);
        assert!(took <= D, "{took}");
    }
}

#[test]
fn an_heir_that_dies_during_the_hand_over_leaves_the_task_with_its_owner() {
    for seed in 0..20 {
        let mut world = cluster(2, 1, seed);
        let owner = runner_of(&world, 0);
        let heir = 1 - owner;
        let command = Command::Move {
            task: TaskIndex::new(0).expect("the first"),
            to: world.nodes[heir].id,
        };
        world.command(owner, command);
        let moment = world.now + seed * H / 40;
        world.run_until(moment);
        world.power_cut(heir);
        let back = |w: &World| w.nodes[owner].held[0].whole;
        let later = world.now + D;
        world.run_until(later);
        wait(&mut world, D, "the task at its owner", back);
    }
}

#[test]
fn a_node_that_leaves_hands_over_first() {
    let mut world = cluster(3, 3, 12);
    let owner = runner_of(&world, 0);
    world.deliver(owner, In::Other(Event::Leave));
    wait(&mut world, D * 2, "its departure", |w| {
        w.nodes[owner].engine.is_none()
    });
    let all = |w: &World| (0..3).all(|task| elsewhere(w, owner, task));
    wait(&mut world, D, "all tasks elsewhere", all);
}

#[test]
fn two_members_without_a_disk_ask_a_newcomer_too() {
    for seed in 0..10 {
        let mut world = cluster(3, 2, seed);
        let (new, one, two) = (2, 0, 1);
        world.power_cut(new);
        let later = world.now + D * 3;
        world.run_until(later);
        world.power_on(new);
        let id = world.nodes[new].id;
        let lists = |w: &World| {
            w.checks
                .newest()
                .is_some_and(|view| view.member(id).is_some())
        };
        wait(&mut world, D * 20, "a view that lists it", lists);
        let known = |w: &World| [one, two].iter().all(|i| w.nodes[*i].epoch == epoch(w));
        wait(&mut world, D, "both to know it", known);
        world.lose_disk(one);
        world.lose_disk(two);
        let grants = |w: &World| {
            let life = w.nodes[new].incarnation;
            w.checks.newest().is_some_and(|view| view.grants(id, life))
        };
        if !world.run_while(D * 2, |world| !grants(world)) {
            continue; // they knew too late to say so
        }
        let paths = world.all_paths_of(new);
        world.cut(&paths);
        let all = |w: &World| (0..2).all(|task| runs(w, new, task));
        wait(
            &mut world,
            D * 4,
            "all tasks at the only one with a disk",
            all,
        );
    }
}
