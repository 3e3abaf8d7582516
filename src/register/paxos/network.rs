//! A ballot that does without the disk: every node is asked, and every node must agree.

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use super::{Phase, Register, Stage};
use crate::model::{NodeId, NodeSet};
use crate::register::{Ballot, Message, Trouble, VALUE_MAX, Value};
use crate::time::Instant;

/// Times that silent nodes are asked again in one stage of a ballot.
const ASKED_AGAIN_MAX: u32 = 16;

/// Messages that may wait to be fetched after each event. The oldest makes room; it is asked for
/// again.
pub const MAIL_MAX: usize = 8;

/// The answers to the ballot under way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Round {
    /// Who has promised, or accepted.
    pub(super) answered: NodeSet,
    /// The newest accepted value among the promises, then the value to be accepted.
    bal: Ballot,
    value: Value,
    /// When those who have not answered are asked again.
    pub(super) again: Instant,
    asked_again: u32,
}

impl Register {
    /// Begins a ballot by asking everybody, this node included.
    pub(super) fn ask(&mut self, now: Instant, ballot: Ballot) {
        self.round = Round {
            again: now + self.backoff,
            ..Round::default()
        };
        self.phase = Phase::Asking(ballot, Stage::Promise);
        self.acceptor.asked_to_promise(self.me, ballot);
        self.post(self.nodes.without(self.me), Message::Prepare { ballot });
    }

    /// Whoever has not answered is asked again; after a while the ballot is given up.
    pub(super) fn ask_again(&mut self, now: Instant) {
        let Phase::Asking(ballot, stage) = self.phase else {
            return;
        };
        if now < self.round.again {
            return;
        }
        if self.round.asked_again == ASKED_AGAIN_MAX {
            self.retry(now);
            return;
        }
        self.round.asked_again += 1;
        self.round.again = now + self.backoff;
        let silent = self.nodes.minus(self.round.answered);
        if silent.contains(self.me) {
            self.ask_myself(ballot, stage);
        }
        self.post(silent.without(self.me), self.question(ballot, stage));
    }

    fn question(&self, ballot: Ballot, stage: Stage) -> Message {
        match stage {
            Stage::Promise => Message::Prepare { ballot },
            Stage::Accept => Message::Accept {
                ballot,
                value: self.round.value.clone(),
            },
        }
    }

    fn ask_myself(&mut self, ballot: Ballot, stage: Stage) {
        match stage {
            Stage::Promise => self.acceptor.asked_to_promise(self.me, ballot),
            Stage::Accept => {
                self.acceptor
                    .asked_to_accept(self.me, ballot, &self.round.value);
            }
        }
    }

    /// Gives the answers that are in the file by now.
    pub(super) fn answer(&mut self, now: Instant) {
        while let Some((to, message)) = self.acceptor.poll_answer() {
            if to == self.me {
                self.heard_answer(now, to, &message);
            } else {
                self.post(NodeSet::only(to), message);
            }
        }
    }

    /// Another node's register speaks.
    pub(super) fn heard(&mut self, now: Instant, from: NodeId, message: &Message) {
        if from == self.me || !self.nodes.contains(from) || !message.may_be_from(from, self.me) {
            return;
        }
        if let Message::Decided { value } = message {
            self.told(now, value);
            return;
        }
        if self.halted.is_some() || !self.acceptor.votes() {
            return;
        }
        match message {
            Message::Prepare { ballot } => {
                self.highest = self.highest.max(*ballot);
                self.acceptor.asked_to_promise(from, *ballot);
            }
            Message::Accept { ballot, value } => {
                self.highest = self.highest.max(*ballot);
                self.acceptor.asked_to_accept(from, *ballot, value);
            }
            Message::Promised { .. } | Message::Accepted { .. } | Message::Refused { .. } => {
                self.heard_answer(now, from, message);
            }
            Message::Decided { .. } => {}
        }
    }

    fn heard_answer(&mut self, now: Instant, from: NodeId, message: &Message) {
        let Phase::Asking(asked, stage) = self.phase else {
            return;
        };
        match message {
            Message::Promised { ballot, bal, value }
                if *ballot == asked && stage == Stage::Promise =>
            {
                if *bal > self.round.bal {
                    (self.round.bal, self.round.value) = (*bal, value.clone());
                }
                self.round.answered.insert(from);
                if self.all_have_answered() {
                    self.ask_to_accept(now, asked);
                }
            }
            Message::Accepted { ballot } if *ballot == asked && stage == Stage::Accept => {
                self.round.answered.insert(from);
                if self.all_have_answered() {
                    let value = self.round.value.clone();
                    self.decided(now, now, value);
                }
            }
            Message::Refused { ballot, mbal } if *ballot == asked => {
                self.highest = self.highest.max(*mbal);
                self.retry(now);
            }
            Message::Promised { .. }
            | Message::Accepted { .. }
            | Message::Refused { .. }
            | Message::Prepare { .. }
            | Message::Accept { .. }
            | Message::Decided { .. } => {}
        }
    }

    fn all_have_answered(&self) -> bool {
        self.nodes.minus(self.round.answered).is_empty()
    }

    /// All have promised.
    fn ask_to_accept(&mut self, now: Instant, ballot: Ballot) {
        let found = std::mem::take(&mut self.round.value);
        let newest = (self.round.bal != Ballot::NONE).then_some(&found);
        let value = self.value_to_accept(newest);
        self.round = Round {
            value: value.clone(),
            again: now + self.backoff,
            ..Round::default()
        };
        self.phase = Phase::Asking(ballot, Stage::Accept);
        self.acceptor.asked_to_accept(self.me, ballot, &value);
        let others = self.nodes.without(self.me);
        self.post(others, Message::Accept { ballot, value });
    }

    /// Somebody who knows says that this is decided.
    fn told(&mut self, now: Instant, value: &Value) {
        if self.halted.is_some() {
            return;
        }
        if value.epoch > self.known.epoch {
            self.learn(value, now);
        } else if value.epoch == self.known.epoch && *value != self.known {
            self.halt(Trouble::WentBack);
        }
    }

    /// Tells these nodes what is decided.
    pub fn tell(&mut self, nodes: NodeSet, value: Value) {
        self.post(nodes, Message::Decided { value });
    }

    fn post(&mut self, to: NodeSet, message: Message) {
        if to.is_empty() {
            return;
        }
        if self.mail.len() == MAIL_MAX {
            self.mail.pop_front();
        }
        self.mail.push_back((to, message));
    }
}

impl Message {
    /// Can `from` have said this to `to`? Who asks does so in a ballot of its own.
    fn may_be_from(&self, from: NodeId, to: NodeId) -> bool {
        let fits = |value: &Value| value.bytes.len() <= VALUE_MAX;
        match self {
            Message::Prepare { ballot } => ballot.is_of(from),
            Message::Accept { ballot, value } => ballot.is_of(from) && fits(value),
            Message::Promised { ballot, bal, value } => {
                ballot.is_of(to) && bal <= ballot && fits(value)
            }
            Message::Accepted { ballot } => ballot.is_of(to),
            Message::Refused { ballot, mbal } => {
                ballot.is_of(to) && mbal > ballot && mbal.is_possible()
            }
            Message::Decided { value } => value.epoch > 0 && fits(value),
        }
    }
}
