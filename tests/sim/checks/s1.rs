//! S1: at any instant at most one node runs an exclusive object of a task.
//!
//! A node whose guard stands still, or whose machine is frozen, does not count until the guard has
//! had its release time again: what it still has in its kernel is the business of the layers below
//! (the lifetime of addresses, the reservation), of which S3 judges the reservation.

use super::Violation;
use crate::world::World;

/// What one node holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holder {
    pub(crate) node: usize,
    /// Bit by task index.
    pub(crate) holding: u64,
    /// Below its guard.
    pub(crate) excused: bool,
}

/// The first task that two nodes hold, with both.
pub(crate) fn check(holders: impl Iterator<Item = Holder>) -> Result<(), (u32, usize, usize)> {
    let mut seen: Vec<Holder> = Vec::new();
    for holder in holders.filter(|holder| holder.holding != 0 && !holder.excused) {
        for other in &seen {
            let both = other.holding & holder.holding;
            if both != 0 {
                return Err((both.trailing_zeros(), other.node, holder.node));
            }
        }
        seen.push(holder);
    }
    Ok(())
}

impl World {
    pub(super) fn judge_single(&mut self) {
        let (mut seen, mut twice) = (0, 0);
        for holding in &self.checks.holding {
            twice |= seen & holding;
            seen |= holding;
        }
        if twice == 0 {
            return;
        }
        let now = self.now;
        let nodes = self.nodes.iter().enumerate();
        let found = check(nodes.map(|(node, known)| Holder {
            node,
            holding: known.holding(),
            excused: known.below_the_guard(now),
        }));
        if let Err((task, one, two)) = found {
            let names = &self.plan.names;
            let what = format!(
                "{} runs on {} and {}",
                names.tasks[task as usize],
                names.nodes[self.nodes[one].slot],
                names.nodes[self.nodes[two].slot]
            );
            self.violated(Violation::new("S1", what, vec![one, two]));
        }
    }
}

#[test]
fn two_runners_of_one_task_are_found_and_excuses_count() {
    let holder = |node, holding, excused| Holder {
        node,
        holding,
        excused,
    };
    let two = [holder(0, 0b01, false), holder(1, 0b10, false)];
    assert_eq!(check(two.into_iter()), Ok(()));
    let same = [holder(0, 0b01, false), holder(4, 0b11, false)];
    assert_eq!(check(same.into_iter()), Err((0, 0, 4)));
    let frozen = [holder(0, 0b01, true), holder(1, 0b01, false)];
    assert_eq!(check(frozen.into_iter()), Ok(()));
    let third = [frozen[0], frozen[1], holder(2, 0b01, false)];
    assert_eq!(check(third.into_iter()), Err((0, 1, 2)));
}
