//! Is a disk array fit for a cluster? The acceptance test that two nodes run on one empty disk.
//!
//! ```text
//! first                                 second
//! look, register              1 <---> 1  register, wait for the reservation
//! reserve, write by all paths     <---   leave; all writes must be refused, reads not
//! announce                    2 <---> 2  register again
//! eject it; nothing may land      <-- 3  write without pause; every writer is refused
//! write without pause         4 <---> 4  eject the holder; nothing may land; holds now
//! every writer is refused     5 <---> 5
//! reset the unit, all stays   6 <---> 6  begin the counter
//! compare and write, both     7 <---> 7  one winner each; findings left on the disk
//! merge the findings, clear
//! ```
//! The nodes need no network: each tells the other how far it is by the last bits of its key,
//! which can be registered and read whatever else is refused. What is asked of an array, and why,
//! is in the sentences of [`Asked`].

mod conflict;
mod contend;
mod known;
mod lun;
mod session;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use standfast_sys::scsi::Fault;

pub use known::Peculiarity;
pub use lun::{Facts, Lun, ScsiLun};
pub use session::certify;

/// Smallest disk that can be tested, in bytes.
pub const BYTES_MIN: u64 = 8 << 20;

/// Which of the two nodes this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Begins, and ends with the report.
    First,
    /// Follows.
    Second,
}

/// How thorough the test is.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// This node.
    pub role: Role,
    /// Compare-and-write operations of each node.
    pub rounds: u32,
    /// How long a node writes before it is ejected.
    pub load: Duration,
    /// How long nothing may change on the disk after that.
    pub settle: Duration,
    /// How long one node waits for a step of the other.
    pub patience: Duration,
}

impl Options {
    /// 10,000 operations, writes for 2 s, stillness for 30 s, patience of 2 min.
    #[must_use]
    pub fn new(role: Role) -> Options {
        Options {
            role,
            rounds: 10_000,
            load: Duration::from_secs(2),
            settle: Duration::from_secs(30),
            patience: Duration::from_secs(120),
        }
    }
}

/// One question to the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asked {
    /// Every path takes a registration of its own.
    Register,
    /// Registrations are told path by path.
    FullStatus,
    /// Registrations outlive a loss of the array's power.
    OutlivesPower,
    /// A reservation of type 5 is granted.
    Reserve,
    /// The registered owner writes by all its paths.
    OwnerWrites,
    /// A node that is not registered cannot write.
    RefusesWrite,
    /// Nor compare and write.
    RefusesCompareAndWrite,
    /// Nor flush.
    RefusesFlush,
    /// But it can read.
    AllowsRead,
    /// One command removes a node's registrations on all paths.
    EjectsAllPaths,
    /// Nothing of an ejected node lands afterwards.
    EjectedIsSilent,
    /// An ejected node is told so by a conflict, not by silence.
    EjectedIsTold,
    /// Ejecting the holder makes the ejector the holder.
    EjectorHolds,
    /// Registrations and reservation outlive a reset of the unit.
    OutlivesReset,
    /// A compare-and-write that matches writes, another one does not.
    CompareAndWrite,
    /// Of two nodes that compare and write at once, one wins.
    OneWinner,
    /// Clearing leaves nothing behind.
    Clears,
}

impl Asked {
    /// The question as a sentence that a vendor can be held to.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Asked::Register => "each path takes a registration, and READ KEYS tells one for each",
            Asked::FullStatus => "READ FULL STATUS tells which path is registered",
            Asked::OutlivesPower => "registrations outlive a loss of power (APTPL, PTPL_A)",
            Asked::Reserve => "RESERVE, type 5 (write exclusive, registrants only), is granted",
            Asked::OwnerWrites => "the owner writes by all its paths",
            Asked::RefusesWrite => "WRITE of a node that is not registered is refused",
            Asked::RefusesCompareAndWrite => {
                "COMPARE AND WRITE of a node that is not registered is refused"
            }
            Asked::RefusesFlush => "SYNCHRONIZE CACHE of a node that is not registered is refused",
            Asked::AllowsRead => "READ of a node that is not registered is done",
            Asked::EjectsAllPaths => "one PREEMPT AND ABORT removes a key on all paths",
            Asked::EjectedIsSilent => "nothing of an ejected node lands after PREEMPT AND ABORT",
            Asked::EjectedIsTold => "an ejected node's commands end with a conflict",
            Asked::EjectorHolds => "who preempts the holder is the holder, without a gap",
            Asked::OutlivesReset => "registrations and reservation outlive a reset of the unit",
            Asked::CompareAndWrite => "COMPARE AND WRITE writes only on a match",
            Asked::OneWinner => "of two nodes' COMPARE AND WRITE at once, one wins",
            Asked::Clears => "CLEAR leaves no key and no reservation",
        }
    }

    /// May an array that fails here still be used? Some things are only missed.
    #[must_use]
    pub fn is_needed(self) -> bool {
        !matches!(
            self,
            Asked::FullStatus | Asked::CompareAndWrite | Asked::OneWinner
        )
    }
}

/// How a question was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it must be.
    Passed,
    /// Not so.
    Failed,
    /// The unit does not have it.
    Absent,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The question.
    pub asked: Asked,
    /// The answer.
    pub verdict: Verdict,
    /// Numbers and reasons, for the vendor.
    pub detail: String,
    /// Which node saw it, 1 or 2.
    pub node: u8,
}

/// What both nodes have found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The unit.
    pub facts: Facts,
    /// Both nodes' answers, in the order of the questions; of the second node only its own.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Is the array fit: is nothing that is needed failed or absent, and was everything answered?
    /// What is known and harmless does not count.
    #[must_use]
    pub fn is_fit(&self) -> bool {
        let bad = |finding: &Finding| {
            let needed = finding.asked.is_needed();
            let harmless = self.known(finding).is_some_and(|known| known.is_harmless);
            let failed = finding.verdict == Verdict::Failed && !harmless;
            failed || (needed && finding.verdict == Verdict::Absent)
        };
        !self.findings.iter().any(bad)
    }

    /// What targets of this kind are known to do, if that is why the question was failed.
    #[must_use]
    pub fn known(&self, finding: &Finding) -> Option<&'static Peculiarity> {
        let failed = finding.verdict == Verdict::Failed;
        known::peculiarity(&self.facts, finding.asked).filter(|_| failed)
    }
}

/// What ended the test before its end.
#[derive(Debug, thiserror::Error)]
pub enum CertifyError {
    /// Somebody else's registrations are there.
    #[error("the disk has keys of others: {keys}")]
    Foreign {
        /// In hexadecimal.
        keys: String,
    },
    /// Less than [`BYTES_MIN`].
    #[error("the disk has only {bytes} bytes, {BYTES_MIN} are needed")]
    Small {
        /// Its size.
        bytes: u64,
    },
    /// The other node did not come so far in time.
    #[error("the other node did not come to step {step} in time; is the test running there too?")]
    Alone {
        /// The step it should have reached.
        step: u32,
    },
    /// A command that must work did not.
    #[error("{what}")]
    Command {
        /// What was to be done.
        what: &'static str,
        /// How it ended.
        #[source]
        fault: Fault,
    },
    /// What the other node left on the disk cannot be understood.
    #[error("the other node's findings cannot be read from the disk")]
    Findings(#[source] serde_json::Error),
}
