//! The last rung: a node that cannot let go resets itself, once, and where it has a reason to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use standfast::model::TaskState;
use standfast::node::guard::{Farewell, LastRung, Reset};
use standfast::node::page::{FELL_IN_VAIN, is_falling, word};
use standfast::storage::last_words::{LastWords, Reason};
use standfast::time::Instant;
use standfast_sys::clock::boottime_ns;

use crate::rig::{Rig, Running, eventually, in_network};
use crate::{end, stuck};

/// Counts instead of resetting the machine that the test runs on.
pub(crate) struct Counted(pub(crate) Arc<AtomicU32>);

impl Reset for Counted {
    fn reset(&self) -> std::io::Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn a_node_that_cannot_let_go_says_why_and_resets_itself_once() {
    in_network(|| {
        let disk = stuck::Disk::new();
        let mut rig = Rig::new();
        let path = rig.run_dir().join("last-words");
        let mut farewell = Farewell::default();
        farewell.keep_in(&path, None).unwrap();
        let resets = Arc::new(AtomicU32::new(0));
        // Of its watchdog a reset can be expected for longer than this test takes.
        rig.store(word::WATCHDOG_IN_FORCE, 60_000_000_000);
        let guard = rig.guard_that_falls(LastRung {
            reset: Some(Box::new(Counted(resets.clone()))),
            farewell: Some(farewell),
            boot: [7; 16],
        });
        rig.grant(0b01);
        rig.store(word::EPOCH, 17);
        let mut process = disk.writer(&rig.cgroup(0));
        assert_eq!(resets.load(Ordering::SeqCst), 0);
        rig.lease(false);
        eventually("a reset", || {
            (resets.load(Ordering::SeqCst) == 1).then_some(())
        });
        let words = LastWords::decode(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!((words.boot, words.epoch, words.tasks), ([7; 16], 17, 0b01));
        assert_eq!(words.reason, Reason::NotReleased);
        assert_eq!(rig.load(word::FALL), Reason::NotReleased as u64);
        // Whatever happens from now on: no pet, and no second reset.
        disk.thaw();
        process.wait().unwrap();
        let turns = rig.load(word::GUARD_TURN_AT);
        eventually("turns", || {
            (rig.load(word::GUARD_TURN_AT) > turns + 300_000_000).then_some(())
        });
        assert!(!guard.control.may_pet(Instant(boottime_ns())));
        assert_eq!(resets.load(Ordering::SeqCst), 1);
        end(guard);
    });
}

/// Waits for many turns of the guard after the end of the lease in the page, for longer than it is
/// patient.
fn turns(rig: &Rig) {
    let lease = rig.load(word::LEASE_DEADLINE);
    let from = rig.load(word::GUARD_TURN_AT).max(lease);
    eventually("turns", || {
        (rig.load(word::GUARD_TURN_AT) > from + 600_000_000).then_some(())
    });
}

/// A guard without a watchdog that falls, and how often it did.
fn falling(rig: &Rig, farewell: Option<Farewell>) -> (Running, Arc<AtomicU32>) {
    let resets = Arc::new(AtomicU32::new(0));
    let guard = rig.guard_that_falls(LastRung {
        reset: Some(Box::new(Counted(resets.clone()))),
        farewell,
        boot: [7; 16],
    });
    (guard, resets)
}

#[test]
fn a_task_that_cannot_be_stopped_resets_a_node_without_a_lease_only() {
    in_network(|| {
        let mut rig = Rig::new();
        let (guard, resets) = falling(&rig, None);
        rig.lease(true);
        rig.store(word::TASK_STATES + 1, TaskState::StopFailed as u64 | 3 << 8);
        turns(&rig);
        rig.lease(false);
        // It was never granted in this boot: the next one would find it the same.
        turns(&rig);
        rig.grant(0b10);
        rig.seen_granted(0b10);
        turns(&rig);
        assert_eq!(resets.load(Ordering::SeqCst), 0);
        rig.lease(false);
        eventually("a reset", || {
            (resets.load(Ordering::SeqCst) == 1).then_some(())
        });
        assert_eq!(rig.load(word::FALL) & 0xff, Reason::NotStopped as u64);
        rig.store(word::TASK_STATES + 1, TaskState::Stopped as u64 | 3 << 8);
        end(guard);
    });
}

#[test]
fn a_node_that_nothing_resets_takes_its_words_back_and_is_petted_no_more() {
    in_network(|| {
        let mut rig = Rig::new();
        let path = rig.run_dir().join("last-words");
        let mut farewell = Farewell::default();
        farewell.keep_in(&path, None).unwrap();
        let (guard, resets) = falling(&rig, Some(farewell));
        rig.grant(0b10);
        rig.seen_granted(0b10);
        rig.store(word::TASK_STATES + 1, TaskState::StopFailed as u64 | 3 << 8);
        rig.lease(false);
        eventually("the core may write to disks again", || {
            let fall = rig.load(word::FALL);
            (fall == Reason::NotStopped as u64 | FELL_IN_VAIN && !is_falling(fall)).then_some(())
        });
        eventually("the words are taken back", || {
            let bytes = std::fs::read(&path).unwrap();
            LastWords::decode(&bytes).is_none().then_some(())
        });
        rig.store(word::TASK_STATES + 1, TaskState::Stopped as u64 | 3 << 8);
        turns(&rig);
        assert!(!guard.control.may_pet(Instant(boottime_ns())));
        assert_eq!(resets.load(Ordering::SeqCst), 1);
        end(guard);
    });
}

#[test]
fn a_guard_does_not_end_well_while_a_task_cannot_be_stopped() {
    in_network(|| {
        let mut rig = Rig::new();
        let (guard, resets) = falling(&rig, None);
        rig.grant(0b10);
        rig.seen_granted(0b10);
        rig.store(word::TASK_STATES + 1, TaskState::StopFailed as u64 | 3 << 8);
        guard.control.end();
        assert!(!guard.thread.join().unwrap(), "its volume may be mounted");
        assert_eq!(resets.load(Ordering::SeqCst), 1);
        rig.lease(false);
    });
}
