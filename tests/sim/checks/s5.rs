//! S5: a node which cannot prove its right releases within the release bound `G` of its lease end,
//! without help from outside and even if the core hangs.
//!
//! Two ways to see it. From inside: nothing is held for longer than `G` without a lease that is
//! valid on the node's own clock. From outside: `out_after` after a view without it was decided,
//! it holds nothing.

use standfast::model::NodeId;

use super::Violation;
use crate::world::World;

/// A node that was put out and must hold nothing when its time is over.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: u64,
    machine: usize,
    node: NodeId,
    power: u64,
    epoch: u64,
}

/// Since when each node holds something without a lease, and who must be out when.
#[derive(Debug)]
pub(crate) struct Release {
    bound: u64,
    since: Vec<Option<u64>>,
    due: Vec<Due>,
}

impl Release {
    pub(crate) fn new(nodes: usize, bound: u64) -> Release {
        Release {
            bound,
            since: vec![None; nodes],
            due: Vec::new(),
        }
    }

    /// Node `i` holds something wrongfully, or not, at this moment. An excuse begins it anew.
    pub(crate) fn observe(&mut self, i: usize, now: u64, wrongful: bool) -> Result<(), u64> {
        if self.since.len() <= i {
            self.since.resize(i + 1, None);
        }
        let since = &mut self.since[i];
        if !wrongful {
            *since = None;
            return Ok(());
        }
        let since = *since.get_or_insert(now);
        if now - since > self.bound {
            return Err(now - since);
        }
        Ok(())
    }

    /// Node `machine` was put out by the view `epoch`; at `at` it must hold nothing.
    fn put_out(&mut self, due: Due) {
        self.due.push(due);
    }

    /// Those whose time is over now.
    fn over(&mut self, now: u64) -> Vec<Due> {
        if self.due.iter().all(|due| due.at > now) {
            return Vec::new();
        }
        let (over, due) = self.due.drain(..).partition(|due| due.at <= now);
        self.due = due;
        over
    }
}

/// What is held when the time is over.
pub(crate) fn outside(holding: u64, excused: bool, back: bool) -> Result<(), u64> {
    if holding != 0 && !excused && !back {
        return Err(holding);
    }
    Ok(())
}

impl World {
    pub(super) fn judge_release(&mut self, i: usize, holding: u64) {
        let node = &self.nodes[i];
        let now = self.now;
        let wrongful = holding != 0
            && !node.below_the_guard(now)
            && node.clock.at(now) >= node.page.lease_deadline;
        if let Err(held) = self.checks.release.observe(i, now, wrongful) {
            let name = &self.plan.names.nodes[self.nodes[i].slot];
            let what = format!("{name} has held {holding:b} for {held} ns without a lease");
            self.violated(Violation::new("S5", what, vec![i]));
        }
        for due in self.checks.release.over(now) {
            self.judge_out(due);
        }
    }

    fn judge_out(&mut self, due: Due) {
        let node = &self.nodes[due.machine];
        if node.power_life != due.power {
            return;
        }
        let mut since = self.checks.decided.range(due.epoch..);
        let back = since.any(|(_, known)| known.view.member(due.node).is_some());
        let excused = node.below_the_guard(self.now);
        if let Err(held) = outside(node.holding(), excused, back) {
            let name = &self.plan.names.nodes[node.slot];
            let what = format!("{name} still runs {held:b} after its time as a former member");
            self.violated(Violation::new("S5", what, vec![due.machine]));
        }
    }

    /// A machine is no member any more in the view that is decided now.
    pub(super) fn must_be_out(&mut self, machine: usize, epoch: u64) {
        let node = &self.nodes[machine];
        let due = Due {
            at: self.now + self.plan.timing.out_after().0,
            machine,
            node: node.id,
            power: node.power_life,
            epoch,
        };
        self.checks.release.put_out(due);
    }
}

#[test]
fn holding_on_without_a_lease_is_found() {
    let mut release = Release::new(2, 100);
    assert_eq!(release.observe(0, 1_000, true), Ok(()));
    assert_eq!(release.observe(1, 1_050, true), Ok(()));
    assert_eq!(release.observe(0, 1_100, true), Ok(()));
    assert_eq!(release.observe(1, 1_120, false), Ok(()));
    assert_eq!(release.observe(0, 1_101, true), Err(101));
    assert_eq!(release.observe(1, 1_200, true), Ok(()), "begun anew");
}

#[test]
fn a_former_member_that_still_runs_something_is_found() {
    assert_eq!(outside(0, false, false), Ok(()));
    assert_eq!(outside(0b10, false, false), Err(0b10));
    assert_eq!(outside(0b10, true, false), Ok(()));
    assert_eq!(outside(0b10, false, true), Ok(()), "let in again meanwhile");
    let mut release = Release::new(1, 100);
    let node = NodeId::new(1).expect("a node");
    let due = |at| Due {
        at,
        machine: 0,
        node,
        power: 1,
        epoch: 7,
    };
    release.put_out(due(500));
    release.put_out(due(900));
    assert!(release.over(499).is_empty());
    assert_eq!(release.over(500).len(), 1);
    assert_eq!(release.over(1_000).len(), 1);
}
