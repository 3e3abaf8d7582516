//! S4: a view is never lost and epochs never go back, whatever crashes.

use standfast::engine::View;
use standfast::register::Block;

use super::Violation;
use crate::world::World;

/// A node's own block on the disk never falls behind what it was.
pub(crate) fn block(slot: usize, before: &Block, new: &Block) -> Result<(), String> {
    // A write that landed may be done once more when the power fails.
    if new == before {
        return Ok(());
    }
    if new.mbal >= before.mbal && new.bal >= before.bal && new.writes > before.writes {
        return Ok(());
    }
    Err(format!("block {slot} goes back"))
}

/// A value is found to be decided, given the newest decided one and the nonce of the one known
/// for its epoch. Returns whether it is new.
pub(crate) fn decision(
    newest: Option<(u64, u64)>,
    known: Option<u64>,
    (epoch, nonce): (u64, u64),
) -> Result<bool, String> {
    match known {
        Some(known) if known == nonce => return Ok(false),
        Some(_) => return Err(format!("two views are decided for epoch {epoch}")),
        None => {}
    }
    match newest {
        Some((newest, _)) if epoch < newest => {
            Err(format!("epoch {epoch} is decided after {newest}"))
        }
        Some((newest, _)) if epoch > newest + 1 => {
            Err(format!("epoch {epoch} is decided right after {newest}"))
        }
        Some(_) | None => Ok(true),
    }
}

/// A task's epoch rises with every change of its owner or heir, and never falls.
pub(crate) fn task_epochs(before: &View, view: &View) -> Result<(), String> {
    for (task, (old, new)) in before.tasks.iter().zip(&view.tasks).enumerate() {
        let moved = (old.owner, old.heir) != (new.owner, new.heir);
        if new.epoch < old.epoch || (moved && new.epoch == old.epoch) {
            return Err(format!(
                "the epoch of task {task} goes from {} to {} (moved: {moved})",
                old.epoch, new.epoch
            ));
        }
    }
    Ok(())
}

/// What a node knows: a decided view, and never an older one than before in the same core.
pub(crate) fn knowledge(before: u64, now: u64, decided: bool) -> Result<(), &'static str> {
    if now < before {
        return Err("knows an older view than before");
    }
    if decided {
        return Ok(());
    }
    Err("knows a view that was never decided")
}

impl World {
    /// The engine of node `i` has learned another view; it knew `before`.
    pub(crate) fn knows(&mut self, i: usize, before: u64) {
        let Some(engine) = &self.nodes[i].engine else {
            return;
        };
        let view = engine.view();
        let decided = self.checks.decided.get(&view.epoch);
        let decided = decided.is_some_and(|known| known.view == *view);
        if let Err(what) = knowledge(before, view.epoch, decided) {
            let name = &self.plan.names.nodes[self.nodes[i].slot];
            let what = format!("{name} {what}: epoch {}, before {before}", view.epoch);
            self.violated(Violation::new("S4", what, vec![i]));
        }
    }
}

#[cfg(test)]
mod tests {
    use standfast::engine::TaskRecord;
    use standfast::model::NodeId;
    use standfast::register::Ballot;

    use super::*;

    #[test]
    fn a_block_that_goes_back_is_found() {
        let old = Block {
            writes: 4,
            mbal: Ballot(0x301),
            bal: Ballot(0x201),
            ..Block::default()
        };
        let next = Block {
            writes: 5,
            ..old.clone()
        };
        assert_eq!(block(0, &old, &next), Ok(()));
        let fallen = Block {
            mbal: Ballot(0x201),
            ..next.clone()
        };
        assert!(block(0, &old, &fallen).is_err());
        assert!(block(0, &next, &old).is_err(), "an older copy");
    }

    #[test]
    fn two_decisions_for_one_epoch_and_gaps_are_found() {
        assert_eq!(decision(None, None, (1, 9)), Ok(true));
        assert_eq!(decision(Some((1, 9)), Some(9), (1, 9)), Ok(false));
        assert!(decision(Some((1, 9)), Some(9), (1, 8)).is_err());
        assert!(decision(Some((5, 9)), None, (3, 8)).is_err(), "older");
        assert!(decision(Some((5, 9)), None, (7, 8)).is_err(), "one lost");
    }

    #[test]
    fn a_task_that_moves_without_a_new_epoch_is_found() {
        let view = |owner, epoch| View {
            tasks: vec![TaskRecord {
                owner: NodeId::new(owner),
                epoch,
                ..TaskRecord::default()
            }],
            ..View::default()
        };
        assert_eq!(task_epochs(&view(1, 3), &view(2, 4)), Ok(()));
        assert!(task_epochs(&view(1, 3), &view(2, 3)).is_err());
        assert!(task_epochs(&view(1, 3), &view(1, 2)).is_err());
    }

    #[test]
    fn false_knowledge_is_found() {
        assert_eq!(knowledge(3, 4, true), Ok(()));
        assert!(knowledge(4, 3, true).is_err());
        assert!(knowledge(3, 4, false).is_err());
    }
}
