//! S3: after an owner is out by fencing, none of its writes reaches a volume.
//!
//! Each running task writes to its volume now and then, each write with the node and the task epoch
//! it was started in. Once a write of a later epoch is on the volume, none of an earlier one may
//! follow. Without reservations in the world's plan the lease alone has to see to that, and it
//! cannot where a machine stood still, or its guard: a write that such a node has had under way, or
//! makes before its guard has had its time again, is excused then. With reservations nothing is
//! excused: the array has to refuse it.

use super::Violation;
use crate::world::World;

/// Who wrote, for which epoch of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) node: usize,
    pub(crate) epoch: u32,
}

/// The newest write of each task that is on its volume.
#[derive(Debug)]
pub(crate) struct Writes {
    newest: Vec<Option<Stamp>>,
}

impl Writes {
    pub(crate) fn new(tasks: usize) -> Writes {
        Writes {
            newest: vec![None; tasks],
        }
    }

    /// A write is on the volume. Fails with the stamp of the later owner that was there before.
    pub(crate) fn land(&mut self, task: usize, stamp: Stamp, excused: bool) -> Result<(), Stamp> {
        let newest = &mut self.newest[task];
        match *newest {
            Some(known) if known.epoch > stamp.epoch && known.node != stamp.node => {
                if excused {
                    Ok(())
                } else {
                    Err(known)
                }
            }
            Some(_) | None => {
                *newest = Some(stamp);
                Ok(())
            }
        }
    }
}

impl World {
    /// A write of a task has reached the volume.
    pub(crate) fn volume_written(&mut self, task: usize, stamp: Stamp, was_still: bool) {
        let excused = was_still && !self.plan.reservations;
        if let Err(later) = self.checks.writes.land(task, stamp, excused) {
            let names = &self.plan.names;
            let what = format!(
                "a write of {} for epoch {} of {} lands after one of {} for epoch {}",
                names.nodes[stamp.node],
                stamp.epoch,
                names.tasks[task],
                names.nodes[later.node],
                later.epoch
            );
            self.violated(Violation::new("S3", what, vec![stamp.node, later.node]));
        }
    }
}

#[test]
fn a_late_write_of_an_old_owner_is_found() {
    let mut writes = Writes::new(2);
    let stamp = |node, epoch| Stamp { node, epoch };
    assert_eq!(writes.land(0, stamp(0, 3), false), Ok(()));
    assert_eq!(writes.land(0, stamp(1, 4), false), Ok(()));
    assert_eq!(writes.land(1, stamp(0, 1), false), Ok(()), "another task");
    assert_eq!(writes.land(0, stamp(0, 3), false), Err(stamp(1, 4)));
    assert_eq!(writes.land(0, stamp(0, 3), true), Ok(()));
    assert_eq!(writes.land(0, stamp(1, 4), false), Ok(()));
}
