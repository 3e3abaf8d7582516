//! The volume of each task, the writes of whoever runs it, and the reservation that guards it.
//!
//! There is no storage agent in the core yet. So that the layer and its checker can be tried, a
//! start does here what the agent will do before it mounts: register the own key on every path,
//! preempt and abort every foreign key, reserve. Whoever was preempted is refused by the array,
//! whatever it believes. A key carries the task's epoch: who finds a later one there is deceived by
//! a lease of old, as a machine is that stood still, and preempts nobody.

use crate::checks::s3::Stamp;
use crate::reservation::{Key, Kind, Refused};
use crate::world::{Ev, World};

/// Paths of a node to the array; writes take them in turn.
const PATHS: usize = 2;

const TYPE: Kind = Kind::WriteExclusiveRegistrantsOnly;

impl World {
    /// The task runs from now on, started for this epoch, and writes as long as it does.
    pub(crate) fn writes_begin(&mut self, i: usize, task: usize, epoch: u32) {
        if self.plan.reservations {
            self.take_volume(i, task, epoch);
        }
        let held = &mut self.nodes[i].held[task];
        held.epoch = epoch;
        held.start += 1;
        let start = held.start;
        self.after(1, i, Ev::VolumeWrite { task, start });
    }

    fn take_volume(&mut self, i: usize, task: usize, epoch: u32) {
        let (slot, life) = (self.nodes[i].slot, self.nodes[i].power_life);
        let key: Key = u64::from(epoch) << 40 | (slot as u64 + 1) << 32 | life;
        let unit = &mut self.volumes[task];
        if unit.keys().any(|(_, known)| known >> 40 > u64::from(epoch)) {
            return;
        }
        // A unit attention is told once; the second try is done.
        let twice = |act: &mut dyn FnMut() -> Result<(), Refused>| {
            let done = act().or_else(|_| act());
            assert_eq!(done, Ok(()), "a registrant's command is done");
        };
        for path in 0..PATHS {
            twice(&mut || unit.register_anyway((i, path), key));
        }
        let foreign: Vec<Key> = unit.keys().map(|(_, known)| known).collect();
        for victim in foreign.into_iter().filter(|known| *known != key) {
            // The same key stands on several paths and goes at once.
            let _ = unit.preempt((i, 0), key, victim, TYPE);
        }
        if unit.holder().is_none_or(|(holder, _)| holder.0 != i) {
            twice(&mut || unit.reserve((i, 0), key, TYPE));
        }
        let whole = unit.keys().all(|(path, known)| path.0 == i && known == key);
        assert!(whole, "after a takeover nobody else is registered");
    }

    /// Time for the next write. A machine that stands still has it under way when it goes on.
    pub(crate) fn volume_write(&mut self, i: usize, task: usize, start: u64) {
        let node = &self.nodes[i];
        let held = &node.held[task];
        if !held.running || held.start != start {
            return;
        }
        let until = node.runner_paused_until;
        let still = node.machine_still && self.now < until;
        let when = if still {
            until - self.now
        } else {
            self.rng.below(self.plan.io) + 1
        };
        let stamp = Stamp {
            node: i,
            epoch: held.epoch,
        };
        let lands = Ev::VolumeLands {
            task,
            start,
            stamp,
            still,
        };
        self.after(when, i, lands);
        let next = self.plan.timing.heartbeat.0.max(when);
        self.after(next, i, Ev::VolumeWrite { task, start });
    }

    /// A write reaches the array.
    pub(crate) fn volume_lands(
        &mut self,
        i: usize,
        task: usize,
        start: u64,
        stamp: Stamp,
        still: bool,
    ) {
        let held = &self.nodes[i].held[task];
        // Whoever ends a task waits for what it has under way.
        if !held.running || held.start != start {
            return;
        }
        if self.plan.reservations {
            let path = (self.now / 1_000) as usize % PATHS;
            let unit = &mut self.volumes[task];
            let allowed = unit.write((i, path)).or_else(|_| unit.write((i, path)));
            if allowed.is_err() {
                self.checks.count("refused write");
                self.say(i, || format!("a write of t{task} is refused"));
                return;
            }
        }
        let still = still || self.nodes[i].below_the_guard(self.now);
        self.volume_written(task, stamp, still);
    }
}
