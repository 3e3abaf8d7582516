//! What this node may hold at a moment, as read from the page in this turn.

use crate::model::TaskIndex;
use crate::time::Instant;

/// The right to hold addresses, dated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rights {
    /// The lease ends here; zero if there is none.
    pub(super) until: Instant,
    /// Tasks granted to this node, bit by task index.
    pub(super) granted: u64,
    /// Tasks that are being taken back right now.
    pub(super) pending: u64,
}

impl Rights {
    /// Why nothing may be added or renewed for this task at `now`; `None` if it may.
    pub(super) fn refusal(&self, now: Instant, task: TaskIndex) -> Option<&'static str> {
        let bit = 1 << task.index();
        if now >= self.until {
            Some("this node has no lease")
        } else if self.granted & bit == 0 {
            Some("the task is not granted to this node")
        } else if self.pending & bit != 0 {
            Some("the task is being taken back")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_must_agree() {
        let rights = Rights {
            until: Instant(100),
            granted: 0b110,
            pending: 0b100,
        };
        let refused = |now, task| rights.refusal(Instant(now), TaskIndex::new(task).unwrap());
        assert_eq!(refused(99, 1), None);
        assert!(refused(100, 1).unwrap().contains("lease"));
        assert!(refused(99, 0).unwrap().contains("granted"));
        assert!(refused(99, 2).unwrap().contains("taken back"));
    }
}
