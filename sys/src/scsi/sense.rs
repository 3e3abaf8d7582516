//! Sense data: why a unit refused a command (SPC-4 4.5; the table of codes is in its annex D).

use std::fmt;

/// Room for sense data in bytes: the most that SPC allows to be returned with a status.
pub(super) const SENSE_BYTES: usize = 252;

/// What kind of trouble it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenseKey {
    /// 0h: nothing wrong.
    NoSense,
    /// 1h: done, after the unit corrected something itself.
    Recovered,
    /// 2h: the unit cannot be used now.
    NotReady,
    /// 3h: the medium is bad there.
    Medium,
    /// 4h: the unit itself is.
    Hardware,
    /// 5h: the command or its parameters are wrong, or not known.
    IllegalRequest,
    /// 6h: something has changed since; the command was not begun.
    UnitAttention,
    /// 7h: writing is not allowed there.
    DataProtect,
    /// Bh: given up by the unit; to be tried again.
    Aborted,
    /// Eh: what was compared differs.
    Miscompare,
    /// Any other.
    Other(u8),
}

impl SenseKey {
    fn new(key: u8) -> SenseKey {
        match key {
            0x0 => SenseKey::NoSense,
            0x1 => SenseKey::Recovered,
            0x2 => SenseKey::NotReady,
            0x3 => SenseKey::Medium,
            0x4 => SenseKey::Hardware,
            0x5 => SenseKey::IllegalRequest,
            0x6 => SenseKey::UnitAttention,
            0x7 => SenseKey::DataProtect,
            0xb => SenseKey::Aborted,
            0xe => SenseKey::Miscompare,
            other => SenseKey::Other(other),
        }
    }

    /// As in the standard.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            SenseKey::NoSense => 0x0,
            SenseKey::Recovered => 0x1,
            SenseKey::NotReady => 0x2,
            SenseKey::Medium => 0x3,
            SenseKey::Hardware => 0x4,
            SenseKey::IllegalRequest => 0x5,
            SenseKey::UnitAttention => 0x6,
            SenseKey::DataProtect => 0x7,
            SenseKey::Aborted => 0xb,
            SenseKey::Miscompare => 0xe,
            SenseKey::Other(key) => key,
        }
    }
}

/// Sense data, as far as it matters.
///
/// ```text
/// fixed (70h, 71h)         0 code and VALID   2 key   3..6 information   12 ASC   13 ASCQ
/// descriptors (72h, 73h)   0 code   1 key   2 ASC   3 ASCQ   7 length   8.. descriptors
///                          of type 0:  1 length 0Ah   2 VALID   4..11 information
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// What kind of trouble.
    pub key: SenseKey,
    /// Additional sense code.
    pub asc: u8,
    /// Its qualifier.
    pub ascq: u8,
    /// It is about an earlier command; the one it was given to was not begun.
    pub deferred: bool,
    /// INFORMATION, where it is valid: an address, or of a miscompare the offset in bytes.
    pub information: Option<u64>,
}

impl Sense {
    /// Understands sense data; none if it is of no known format or too short.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Sense> {
        let code = bytes.first()? & 0x7f;
        let deferred = matches!(code, 0x71 | 0x73);
        match code {
            0x70 | 0x71 => {
                let valid = bytes[0] & 0x80 != 0;
                let information = bytes.get(3..7).filter(|_| valid);
                let information = information.and_then(|four| four.try_into().ok());
                Some(Sense {
                    key: SenseKey::new(bytes.get(2)? & 0x0f),
                    asc: bytes.get(12).copied().unwrap_or(0),
                    ascq: bytes.get(13).copied().unwrap_or(0),
                    deferred,
                    information: information.map(|four| u64::from(u32::from_be_bytes(four))),
                })
            }
            0x72 | 0x73 => Some(Sense {
                key: SenseKey::new(bytes.get(1)? & 0x0f),
                asc: *bytes.get(2)?,
                ascq: *bytes.get(3)?,
                deferred,
                information: described_information(bytes),
            }),
            _ => None,
        }
    }

    /// Was the command done all the same?
    #[must_use]
    pub(super) fn is_success(&self) -> bool {
        matches!(self.key, SenseKey::NoSense | SenseKey::Recovered) && !self.deferred
    }

    /// Is it certain that the command was not begun, and that it may be sent again at once? True
    /// of a unit attention, which is told once instead of doing the next command (SAM-5 5.14).
    #[must_use]
    pub fn was_not_begun(&self) -> bool {
        self.key == SenseKey::UnitAttention || self.deferred
    }

    /// Does the unit not know the command, or a field of it?
    #[must_use]
    pub fn is_unknown_command(&self) -> bool {
        self.key == SenseKey::IllegalRequest
            && matches!((self.asc, self.ascq), (0x20, 0) | (0x24, 0))
    }

    /// INVALID FIELD IN CDB: the command is known, something in it is not.
    pub(super) fn is_invalid_field(&self) -> bool {
        self.key == SenseKey::IllegalRequest && (self.asc, self.ascq) == (0x24, 0)
    }

    fn words(&self) -> Option<&'static str> {
        let code = (self.key.number(), self.asc, self.ascq);
        let found = WORDS
            .iter()
            .find(|(key, asc, ascq, _)| (*key, *asc, *ascq) == code);
        found.map(|(_, _, _, words)| *words)
    }
}

fn described_information(bytes: &[u8]) -> Option<u64> {
    let mut rest = bytes.get(8..)?;
    while let [kind, length, ..] = rest {
        let (kind, length) = (*kind, usize::from(*length));
        let descriptor = rest.get(..2 + length)?;
        if kind == 0 && length >= 10 && descriptor[2] & 0x80 != 0 {
            return Some(u64::from_be_bytes(descriptor[4..12].try_into().ok()?));
        }
        rest = &rest[2 + length..];
    }
    None
}

impl fmt::Display for Sense {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.key {
            SenseKey::NoSense => "no sense",
            SenseKey::Recovered => "recovered error",
            SenseKey::NotReady => "not ready",
            SenseKey::Medium => "medium error",
            SenseKey::Hardware => "hardware error",
            SenseKey::IllegalRequest => "illegal request",
            SenseKey::UnitAttention => "unit attention",
            SenseKey::DataProtect => "data protect",
            SenseKey::Aborted => "aborted command",
            SenseKey::Miscompare => "miscompare",
            SenseKey::Other(_) => "sense",
        };
        let (key, asc, ascq) = (self.key.number(), self.asc, self.ascq);
        write!(formatter, "{kind} {key:x}/{asc:02x}/{ascq:02x}")?;
        match self.words() {
            Some(words) => write!(formatter, ", {words}"),
            None => Ok(()),
        }
    }
}

/// Key, ASC, ASCQ and their meaning: those that reservations and shared disks meet
/// (T10's list of assigned codes, <https://www.t10.org/lists/asc-num.txt>).
const WORDS: &[(u8, u8, u8, &str)] = &[
    (0x2, 0x04, 0x00, "logical unit not ready"),
    (0x2, 0x04, 0x01, "becoming ready"),
    (0x2, 0x04, 0x02, "initializing command required"),
    (0x2, 0x04, 0x03, "manual intervention required"),
    (0x2, 0x04, 0x0a, "asymmetric access state transition"),
    (0x2, 0x04, 0x0b, "target port in standby state"),
    (0x2, 0x04, 0x0c, "target port in unavailable state"),
    (0x2, 0x3a, 0x00, "medium not present"),
    (0x3, 0x0c, 0x00, "write error"),
    (0x3, 0x11, 0x00, "unrecovered read error"),
    (0x4, 0x44, 0x00, "internal target failure"),
    (0x5, 0x1a, 0x00, "parameter list length error"),
    (0x5, 0x20, 0x00, "invalid command operation code"),
    (0x5, 0x21, 0x00, "logical block address out of range"),
    (0x5, 0x24, 0x00, "invalid field in cdb"),
    (0x5, 0x25, 0x00, "logical unit not supported"),
    (0x5, 0x26, 0x00, "invalid field in parameter list"),
    (0x5, 0x26, 0x04, "invalid release of persistent reservation"),
    (0x5, 0x55, 0x04, "insufficient registration resources"),
    (
        0x6,
        0x29,
        0x00,
        "power on, reset, or bus device reset occurred",
    ),
    (0x6, 0x29, 0x01, "power on occurred"),
    (0x6, 0x29, 0x02, "scsi bus reset occurred"),
    (0x6, 0x29, 0x03, "bus device reset function occurred"),
    (0x6, 0x29, 0x04, "device internal reset"),
    (0x6, 0x29, 0x07, "i_t nexus loss occurred"),
    (0x6, 0x2a, 0x03, "reservations preempted"),
    (0x6, 0x2a, 0x04, "reservations released"),
    (0x6, 0x2a, 0x05, "registrations preempted"),
    (0x6, 0x2a, 0x06, "asymmetric access state changed"),
    (0x6, 0x2a, 0x09, "capacity data has changed"),
    (0x6, 0x2f, 0x00, "commands cleared by another initiator"),
    (0x6, 0x3f, 0x03, "inquiry data has changed"),
    (0x6, 0x3f, 0x0e, "reported luns data has changed"),
    (0x7, 0x27, 0x00, "write protected"),
    (0x7, 0x27, 0x02, "logical unit software write protected"),
    (0xb, 0x00, 0x06, "i/o process terminated"),
    (0xb, 0x08, 0x00, "logical unit communication failure"),
    (0xb, 0x47, 0x00, "scsi parity error"),
    (0xe, 0x1d, 0x00, "miscompare during verify operation"),
];
