//! Runs in which one rule alone stands between the cluster and a broken promise: what else would
//! have helped is out of the way (a disk lost, a word late), and the checkers judge.

use standfast::engine::{After, Command};
use standfast::model::TaskIndex;

use super::{D, H, cluster, elsewhere, runner_of, runs, wait};
use crate::strike::{Flaw, Ill, Part, Strike};
use crate::world::World;

fn moved(world: &World, to: usize) -> Command {
    let task = TaskIndex::new(0).expect("the first");
    let to = world.nodes[to].id;
    Command::Move { task, to }
}

fn put_out(world: &World, node: usize) -> bool {
    let newest = world.checks.newest().expect("a view was decided");
    newest.member(world.nodes[node].id).is_none()
}

/// All that the other node says is held back until it has put the owner out, and then comes within
/// the time in which it still counts as fresh. It proves what it did when it was said: the owner
/// may even begin again, but not for longer than a lease after that.
#[test]
fn a_confirmation_that_comes_late_is_as_old_as_what_it_confirms() {
    let mut begun_again = 0;
    for seed in 0..10 {
        for held in 17..24 {
            let mut world = cluster(2, 1, seed);
            let owner = runner_of(&world, 0);
            let other = 1 - owner;
            world.cut(&[(0, other, owner), (1, owner, other)]);
            let span = H * held / 2;
            world.strike(Strike::Clog { link: 1, span });
            world.lose_disk(owner);
            if !world.run_while(D, |w| !put_out(w, owner)) {
                continue; // it came before that
            }
            // What it says of that is lost.
            world.cut(&[(1, other, owner)]);
            let mut again = false;
            let taken = world.run_while(D, |w| {
                again |= runs(w, owner, 0);
                !elsewhere(w, owner, 0)
            });
            assert!(taken, "nobody has taken the task over");
            begun_again += u32::from(again);
        }
    }
    assert!(begun_again > 0, "no confirmation was held back long enough");
}

/// The task is moved, and called back in the moment in which the heir starts it.
#[test]
fn an_heir_that_is_dropped_while_it_starts_is_waited_for() {
    let mut dropped = 0;
    for seed in 0..20 {
        let mut world = cluster(2, 1, seed);
        let owner = runner_of(&world, 0);
        let heir = 1 - owner;
        let there = moved(&world, heir);
        world.command(owner, there);
        wait(&mut world, D * 2, "the start", |w| runs(w, heir, 0));
        // The owner's change is decided before the heir can tell that it has the task.
        world.set_disk((heir, 0), Ill::Hangs, true, Some(D));
        let back = moved(&world, owner);
        world.command(owner, back);
        let after = After::Node(world.nodes[heir].id);
        let mut waited_for = false;
        let settled = world.run_while(D * 4, |w| {
            let newest = w.checks.newest().expect("a view was decided");
            waited_for |= newest.task(TaskIndex::new(0).expect("the first")).after == after;
            !w.nodes[owner].held[0].whole
        });
        assert!(settled, "the task did not come back");
        dropped += u32::from(waited_for);
    }
    assert!(dropped > 0, "no heir was dropped");
}

/// The same, but the heir cannot stop what it has started: time changes nothing about that.
#[test]
fn an_heir_that_is_dropped_and_cannot_stop_is_waited_for_however_long() {
    for seed in 0..10 {
        let mut world = cluster(2, 1, seed);
        let owner = runner_of(&world, 0);
        let heir = 1 - owner;
        let there = moved(&world, heir);
        world.command(owner, there);
        wait(&mut world, D * 2, "the start", |w| runs(w, heir, 0));
        world.strike(Strike::Flaw {
            task: 0,
            node: heir,
            flaw: Flaw::StopsFail,
            span: Some(D * 4),
        });
        world.set_disk((heir, 0), Ill::Hangs, true, Some(D));
        let back = moved(&world, owner);
        world.command(owner, back);
        let later = world.now + D * 4;
        world.run_until(later);
        wait(&mut world, D * 40, "the task at its owner", |w| {
            w.nodes[owner].held[0].whole
        });
    }
}

/// The last frame of a dead owner comes again and again, as young as its hearer's own frames are.
#[test]
fn a_frame_that_is_sent_again_keeps_nobody_alive() {
    for seed in 0..10 {
        let mut world = cluster(2, 1, seed);
        let owner = runner_of(&world, 0);
        let died = world.now;
        world.power_cut(owner);
        let last = world.disks[0].frames[owner].clone().expect("it was heard");
        while !elsewhere(&world, owner, 0) {
            assert!(world.now < died + D, "taken over later than without it");
            world.arrive(1, 0, 1 - owner, last.clone());
            let soon = world.now + H / 4;
            world.run_until(soon);
        }
    }
}

/// The core stands still past the end of its lease, and the guard over the moment of that end.
#[test]
fn the_time_in_which_a_guard_stood_still_counts() {
    for seed in 0..10 {
        let mut world = cluster(2, 1, seed);
        let owner = runner_of(&world, 0);
        world.pause_core(owner, D * 2);
        let soon = world.now + H;
        world.run_until(soon);
        world.pause_guard(owner, H * 5);
        wait(&mut world, D * 2, "the takeover", |w| {
            elsewhere(w, owner, 0)
        });
        let later = world.now + D * 2;
        world.run_until(later);
    }
}

/// Whatever holds both nodes up makes each of them hear nothing for longer than others may be
/// silent. It was they that slept: neither puts the other out.
#[test]
fn who_stood_still_counts_the_silence_of_others_from_then_on() {
    for seed in 0..10 {
        for step in 0..8 {
            let mut world = cluster(2, 1, seed);
            let before = world.checks.newest().expect("a view was decided").listed();
            for node in 0..2 {
                world.pause_core(node, H * 3 + H * step / 4);
            }
            let later = world.now + D * 2;
            world.run_until(later);
            let newest = world.checks.newest().expect("a view was decided");
            assert_eq!((newest.listed(), newest.evictions.len()), (before, 0));
        }
    }
}

/// All cables are cut, so nobody tells the core that is started again what the view is, and its
/// last ballot, left open on the disk, hides it from every reader.
#[test]
fn a_core_that_ends_in_a_write_is_no_failure_though_all_cables_are_cut() {
    for seed in 0..40 {
        let mut world = cluster(2, 1, seed);
        let owner = runner_of(&world, 0);
        let paths = world.all_paths_of(owner);
        world.cut(&paths);
        let strike = Strike::Kill {
            part: Part::Core,
            node: owner,
            span: H / 2,
        };
        world.strike(Strike::WhenWriting {
            node: owner,
            strike: Box::new(strike),
        });
        let node = world.nodes[1 - owner].id;
        world.command(owner, Command::Standby { node });
        let stays = |w: &World| w.nodes[owner].held[0].whole;
        assert!(!world.run_while(D * 4, stays), "seed {seed}");
    }
}
