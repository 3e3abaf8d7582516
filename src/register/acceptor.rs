//! What this node itself has promised and accepted: one voice of the quorum that does without the
//! disk.
//!
//! ```text
//! asked --promise or accept--> in memory --keep--> in the node's own file --Kept--> answered
//! ```
//!
//! The node's own disk ballots raise it in memory at once, when their write is ordered: their place
//! on the disk is the own block. Only what others are told must be in the file first, for they
//! build on it whatever becomes of this node.
//!
//! Where the disk has a voice of its own (compare-and-write) a disk ballot is only *held*: until it
//! is known what has become of its change nothing lower is promised or accepted. What the disk has
//! accepted this node accepts when it sees it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::NodeId;

use super::paxos::Stage;
use super::{Ballot, Block, Memory, Message, Value};

/// An answer that waits for the file.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Due {
    to: NodeId,
    ballot: Ballot,
    stage: Stage,
}

/// Promise and acceptance, in memory and in the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Acceptor {
    /// `writes` counts the records that were ordered into the file.
    state: Arc<Block>,
    memory: Memory,
    /// The own block was read as well: nothing is missing any more.
    recovered: bool,
    /// `mbal` and `bal` that are in the file for certain.
    kept: (Ballot, Ballot),
    /// The same of the record that is on its way there.
    keeping: Option<(Ballot, Ballot)>,
    due: Option<Due>,
    /// Ballot of this node's own change of the record, while that may land or have landed.
    held: Ballot,
    /// A change by an earlier life may land or have landed, of a ballot that nobody remembers.
    past_open: bool,
}

impl Acceptor {
    pub(super) fn new(memory: Memory) -> Acceptor {
        Acceptor {
            memory,
            ..Acceptor::default()
        }
    }

    /// The node's own file has spoken.
    pub(super) fn remember(&mut self, memory: &Memory) {
        if self.memory == Memory::Pending {
            self.memory = memory.clone();
        }
    }

    /// Is nothing missing any more?
    pub(super) fn is_recovered(&self) -> bool {
        self.recovered
    }

    /// The file is there but cannot be read.
    pub(super) fn is_lost(&self) -> bool {
        self.memory == Memory::Lost
    }

    /// The own block is known: with the file, once that has spoken, there is no more to know.
    pub(super) fn recover(&mut self, own: &Block) {
        let mut state = own.clone();
        state.writes = 0;
        match &self.memory {
            Memory::Pending | Memory::Lost => return,
            Memory::Nothing | Memory::Unable => {}
            Memory::Kept(kept) => {
                self.kept = (kept.mbal, kept.bal);
                state.writes = kept.writes;
                state.mbal = state.mbal.max(kept.mbal);
                if kept.bal > state.bal {
                    (state.bal, state.value) = (kept.bal, kept.value.clone());
                }
            }
        }
        self.state = Arc::new(state);
        self.recovered = true;
    }

    /// As if it were one more block on the disk.
    pub(super) fn state(&self) -> Arc<Block> {
        self.state.clone()
    }

    /// Can it answer others?
    pub(super) fn votes(&self) -> bool {
        self.recovered && !self.past_open && !matches!(self.memory, Memory::Unable)
    }

    /// Nothing below this may be promised or accepted.
    pub(super) fn promised(&self) -> Ballot {
        self.state.mbal.max(self.held)
    }

    /// Is it unknown what has become of changes of the record by earlier lives?
    pub(super) fn set_past_open(&mut self, open: bool) {
        self.past_open = open;
    }

    /// The node begins to change the record itself.
    pub(super) fn hold(&mut self, ballot: Ballot) {
        assert!(ballot > self.promised(), "an own ballot is a new one");
        self.held = ballot;
    }

    /// What has become of the own changes of the record is known.
    pub(super) fn release(&mut self) {
        self.held = Ballot::NONE;
    }

    /// The disk has accepted this. Says whether this node has now, too.
    pub(super) fn see(&mut self, bal: Ballot, value: &Value) -> bool {
        if bal > self.state.bal && bal >= self.promised() {
            self.accept(bal, value.clone());
        }
        bal == self.state.bal
    }

    /// The node itself begins a ballot.
    pub(super) fn begin(&mut self, ballot: Ballot) {
        assert!(ballot > self.state.mbal, "an own ballot is a new one");
        Arc::make_mut(&mut self.state).mbal = ballot;
    }

    /// The node itself accepts a value, in a ballot that nothing higher was promised to.
    pub(super) fn accept(&mut self, ballot: Ballot, value: Value) {
        assert!(
            ballot >= self.promised(),
            "nothing is accepted against a promise"
        );
        let state = Arc::make_mut(&mut self.state);
        (state.mbal, state.bal, state.value) = (ballot, ballot, value);
    }

    /// Somebody, or this node over the network, asks for a promise.
    pub(super) fn asked_to_promise(&mut self, from: NodeId, ballot: Ballot) {
        if ballot > self.promised() {
            Arc::make_mut(&mut self.state).mbal = ballot;
        }
        self.owe(from, ballot, Stage::Promise);
    }

    /// Somebody, or this node over the network, asks to accept.
    pub(super) fn asked_to_accept(&mut self, from: NodeId, ballot: Ballot, value: &Value) {
        let accepted = self.state.bal == ballot;
        if ballot >= self.promised() && !accepted {
            self.accept(ballot, value.clone());
        }
        self.owe(from, ballot, Stage::Accept);
    }

    /// An answer to a higher ballot takes the place of one to a lower one, which is dead by it.
    fn owe(&mut self, to: NodeId, ballot: Ballot, stage: Stage) {
        if self.due.is_none_or(|due| due.ballot <= ballot) {
            self.due = Some(Due { to, ballot, stage });
        }
    }

    /// The record to be written to the file now.
    pub(super) fn poll_keep(&mut self) -> Option<Block> {
        let now = (self.state.mbal, self.state.bal);
        let needed = self.due.is_some() && now != self.kept;
        if !needed || self.keeping.is_some() || !self.votes() {
            return None;
        }
        Arc::make_mut(&mut self.state).writes += 1;
        self.keeping = Some(now);
        Some(Block::clone(&self.state))
    }

    /// The record that was ordered last is in the file.
    pub(super) fn kept(&mut self) {
        if let Some(keeping) = self.keeping.take() {
            self.kept = keeping;
        }
    }

    /// It may be in the file or not. Whoever asked will ask again.
    pub(super) fn keep_failed(&mut self) {
        self.keeping = None;
        self.due = None;
        // Not known any more: the record that failed may be the one in the file.
        self.kept = (Ballot::NONE, Ballot::NONE);
    }

    /// The answer that may be given now.
    pub(super) fn poll_answer(&mut self) -> Option<(NodeId, Message)> {
        let Due { to, ballot, stage } = self.due?;
        let state = &self.state;
        let promised = self.promised();
        let answer = if promised > ballot {
            let mbal = promised;
            Message::Refused { ballot, mbal }
        } else {
            if self.kept != (state.mbal, state.bal) {
                return None;
            }
            match stage {
                Stage::Promise => Message::Promised {
                    ballot,
                    bal: state.bal,
                    value: state.value.clone(),
                },
                Stage::Accept => Message::Accepted { ballot },
            }
        };
        self.due = None;
        Some((to, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u8) -> NodeId {
        NodeId::new(id).unwrap()
    }

    /// What is answered if these ask for a promise, one after the other, before the file has it.
    fn answer_to(asked: [(u8, Ballot); 2]) -> Option<(NodeId, Message)> {
        let mut acceptor = Acceptor::new(Memory::Nothing);
        acceptor.recover(&Block::default());
        for (id, ballot) in asked {
            acceptor.asked_to_promise(node(id), ballot);
        }
        assert!(acceptor.poll_keep().is_some());
        acceptor.kept();
        let answer = acceptor.poll_answer();
        assert_eq!(acceptor.poll_answer(), None, "one is answered");
        answer
    }

    #[test]
    fn of_two_who_ask_at_once_the_higher_ballot_is_answered() {
        let (low, high) = ((2, Ballot(0x102)), (3, Ballot(0x203)));
        for asked in [[low, high], [high, low]] {
            let promised = Message::Promised {
                ballot: high.1,
                bal: Ballot::NONE,
                value: Value::default(),
            };
            assert_eq!(answer_to(asked), Some((node(3), promised)), "{asked:?}");
        }
    }
}
