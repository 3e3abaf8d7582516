//! S2: a node starts an object only while it owns the task in the newest view it could read, holds
//! its lease, and every earlier owner is out.
//!
//! Whether earlier owners are out is judged from the truth: nothing of the task runs anywhere else
//! (S1 judges that after the same event). Here: the view it acts on is decided and entitles it, or
//! one of the last few did (on its way to the runner the order may have been overtaken by a newer
//! view, or the core started anew), or any since a runner that has just woken fell asleep; its
//! lease is valid at that moment; and no view takes its membership away for longer than a lease and
//! its release can last.

use standfast::model::TaskIndex;

use super::Violation;
use crate::world::World;

/// What is known at the moment of a start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub(crate) now: u64,
    /// The view its engine knows was decided.
    pub(crate) knows_decided: bool,
    /// That view, or one of the few before it, entitles it.
    pub(crate) entitled: bool,
    /// The page allows it: granted, and the lease valid on its own clock.
    pub(crate) allowed: bool,
    /// When a newer view was decided in which it is no member.
    pub(crate) put_out_at: Option<u64>,
    /// Longest that a node may act after that.
    pub(crate) out_after: u64,
    /// Frozen, or its guard stood still a moment ago.
    pub(crate) excused: bool,
}

pub(crate) fn check(start: &Start) -> Result<(), &'static str> {
    if !start.allowed {
        return Err("without a lease");
    }
    if !start.knows_decided || !start.entitled {
        return Err("without owning it");
    }
    let late = |at: u64| start.now > at + start.out_after;
    if !start.excused && start.put_out_at.is_some_and(late) {
        return Err("long after it was put out");
    }
    Ok(())
}

impl World {
    /// The runner of node `i` starts the task.
    pub(crate) fn started(&mut self, i: usize, task: usize) {
        self.checks.count("start");
        let node = &self.nodes[i];
        let index = TaskIndex::new(task).expect("few tasks");
        let Some(engine) = &node.engine else { return };
        let me = Some(node.id);
        let (decided, epoch) = (&self.checks.decided, engine.view().epoch.max(node.knew));
        let asleep = match self.now <= node.runner_paused_until {
            true => node.runner_paused_from,
            false => self.now,
        };
        let since = decided.range(..=epoch).rev();
        let since = since.take_while(|(_, known)| known.at >= asleep).count();
        let mut lately = decided.range(..=epoch).rev().take(since + 3);
        let entitled = lately.any(|(_, known)| {
            let record = known.view.task(index);
            record.wanted && (record.owner == me || record.heir == me)
        });
        let mut newer = decided.range(epoch..);
        let put_out = newer.find(|(_, known)| !known.view.grants(node.id, node.incarnation));
        let start = Start {
            now: self.now,
            knows_decided: decided.contains_key(&epoch),
            entitled,
            allowed: node.page_allows(self.now, task),
            put_out_at: put_out.map(|(_, known)| known.at),
            out_after: self.plan.timing.out_after().0,
            excused: node.below_the_guard(self.now),
        };
        if let Err(how) = check(&start) {
            let name = &self.plan.names.nodes[node.slot];
            let what = format!("{name} starts {} {how}", self.plan.names.tasks[task]);
            self.violated(Violation::new("S2", what, vec![i]));
        }
    }
}

#[test]
fn each_missing_right_is_found() {
    let good = Start {
        now: 1_000,
        knows_decided: true,
        entitled: true,
        allowed: true,
        put_out_at: Some(600),
        out_after: 500,
        excused: false,
    };
    assert_eq!(check(&good), Ok(()));
    let leaseless = Start {
        allowed: false,
        ..good
    };
    let foreign = Start {
        entitled: false,
        ..good
    };
    let imagined = Start {
        knows_decided: false,
        ..good
    };
    let late = Start {
        put_out_at: Some(499),
        ..good
    };
    assert_eq!(check(&leaseless), Err("without a lease"));
    assert_eq!(check(&foreign), Err("without owning it"));
    assert_eq!(check(&imagined), Err("without owning it"));
    assert_eq!(check(&late), Err("long after it was put out"));
    let frozen = Start {
        excused: true,
        ..late
    };
    assert_eq!(check(&frozen), Ok(()));
}
