//! What registers say to each other when a change has to do without the disk.
//!
//! ```text
//! offset  bytes  field
//!      0      1  kind    1 prepare, 2 promised, 3 accept, 4 accepted, 5 refused, 6 decided
//!      1      8  ballot  the ballot it is about; 0 in 6
//!      9      8  other   bal in 2, mbal in 5, else 0
//!     17      8  epoch   of the value in 2, 3, 6, else 0
//!     25      8  nonce   of the value, likewise
//!     33         value   its bytes, at most 3584; none in 1, 4, 5
//! ```
//!
//! Little-endian. Every one may be lost, late, doubled or repeated for ever: ballots are never used
//! twice, so that an old answer answers nothing new.

use serde::{Deserialize, Serialize};

use super::{Ballot, VALUE_MAX, Value};

const KIND: usize = 0;
/// Four numbers of eight bytes, one behind the other.
const NUMBERS: usize = KIND + 1;
const HEAD: usize = NUMBERS + 4 * 8;

/// Longest encoded message.
pub const MESSAGE_LEN_MAX: usize = HEAD + VALUE_MAX;

/// One sentence between two registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// "Promise me to accept nothing below this ballot."
    Prepare {
        /// The asker's ballot.
        ballot: Ballot,
    },
    /// "Promised, and this is what I have accepted last."
    Promised {
        /// The ballot promised to.
        ballot: Ballot,
        /// The highest ballot accepted in.
        bal: Ballot,
        /// The value accepted in it.
        value: Value,
    },
    /// "Accept this value."
    Accept {
        /// The ballot that was promised to.
        ballot: Ballot,
        /// The value.
        value: Value,
    },
    /// "Accepted."
    Accepted {
        /// The ballot it was accepted in.
        ballot: Ballot,
    },
    /// "I have promised something higher."
    Refused {
        /// The ballot asked about.
        ballot: Ballot,
        /// The ballot promised to.
        mbal: Ballot,
    },
    /// "This is decided."
    Decided {
        /// The value.
        value: Value,
    },
}

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Shorter than the head, or longer than there can be.
    #[error("{0} bytes are no message of the register")]
    Length(usize),
    /// A kind that this program does not know.
    #[error("kind {0} has no meaning")]
    Kind(u8),
}

impl Message {
    /// The bytes of the message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let none = (0, 0, &[][..]);
        let of = |value: &'_ Value| (value.epoch, value.nonce);
        let (kind, ballot, other, (epoch, nonce, bytes)) = match self {
            Message::Prepare { ballot } => (1, *ballot, Ballot::NONE, none),
            Message::Promised { ballot, bal, value } => {
                let (epoch, nonce) = of(value);
                (2, *ballot, *bal, (epoch, nonce, &value.bytes[..]))
            }
            Message::Accept { ballot, value } => {
                let (epoch, nonce) = of(value);
                (3, *ballot, Ballot::NONE, (epoch, nonce, &value.bytes[..]))
            }
            Message::Accepted { ballot } => (4, *ballot, Ballot::NONE, none),
            Message::Refused { ballot, mbal } => (5, *ballot, *mbal, none),
            Message::Decided { value } => {
                let (epoch, nonce) = of(value);
                (
                    6,
                    Ballot::NONE,
                    Ballot::NONE,
                    (epoch, nonce, &value.bytes[..]),
                )
            }
        };
        let mut all = vec![kind];
        for number in [ballot.0, other.0, epoch, nonce] {
            all.extend_from_slice(&number.to_le_bytes());
        }
        assert_eq!(all.len(), HEAD, "the head is complete");
        all.extend_from_slice(bytes);
        all
    }

    /// Reads what [`Message::encode`] wrote.
    ///
    /// # Errors
    /// [`MessageError`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Message, MessageError> {
        if bytes.len() < HEAD || bytes.len() > MESSAGE_LEN_MAX {
            return Err(MessageError::Length(bytes.len()));
        }
        let mut numbers = [0; 4];
        for (number, eight) in numbers.iter_mut().zip(bytes[NUMBERS..].as_chunks().0) {
            *number = u64::from_le_bytes(*eight);
        }
        let [ballot, other, epoch, nonce] = numbers;
        let (ballot, other) = (Ballot(ballot), Ballot(other));
        let value = || Value {
            epoch,
            nonce,
            bytes: bytes[HEAD..].to_vec(),
        };
        Ok(match bytes[KIND] {
            1 => Message::Prepare { ballot },
            2 => Message::Promised {
                ballot,
                bal: other,
                value: value(),
            },
            3 => Message::Accept {
                ballot,
                value: value(),
            },
            4 => Message::Accepted { ballot },
            5 => Message::Refused {
                ballot,
                mbal: other,
            },
            6 => Message::Decided { value: value() },
            kind => return Err(MessageError::Kind(kind)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [Message; 6] {
        let value = Value {
            epoch: 3,
            nonce: 0x0102_0304_0506_0708,
            bytes: vec![9, 8],
        };
        let ballot = Ballot(0x502);
        [
            Message::Prepare { ballot },
            Message::Promised {
                ballot,
                bal: Ballot(0x401),
                value: value.clone(),
            },
            Message::Accept {
                ballot,
                value: value.clone(),
            },
            Message::Accepted { ballot },
            Message::Refused {
                ballot,
                mbal: Ballot(0x601),
            },
            Message::Decided { value },
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        for message in all() {
            assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn the_bytes_of_a_promise_are_these() {
        let golden = "02 0205000000000000 0104000000000000 0300000000000000 0807060504030201 0908";
        let hex: String = all()[1]
            .encode()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(hex, golden.replace(' ', ""));
    }

    #[test]
    fn other_bytes_are_refused() {
        let mut bytes = all()[3].encode();
        assert_eq!(
            Message::decode(&bytes[..HEAD - 1]),
            Err(MessageError::Length(HEAD - 1))
        );
        bytes[0] = 7;
        assert_eq!(Message::decode(&bytes), Err(MessageError::Kind(7)));
        let long = vec![1; 33 + 3584 + 1];
        assert!(matches!(
            Message::decode(&long),
            Err(MessageError::Length(_))
        ));
    }
}
