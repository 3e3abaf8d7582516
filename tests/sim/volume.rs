//! The volume of each task, and the writes of whoever runs it.

use crate::checks::s3::Stamp;
use crate::world::{Ev, World};

impl World {
    /// The task runs from now on, started for this epoch, and writes as long as it does.
    pub(crate) fn writes_begin(&mut self, i: usize, task: usize, epoch: u32) {
        let held = &mut self.nodes[i].held[task];
        held.epoch = epoch;
        held.start += 1;
        let start = held.start;
        self.after(1, i, Ev::VolumeWrite { task, start });
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
}
