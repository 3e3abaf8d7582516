//! What targets are known to do otherwise than the standard says, and what that means for a
//! cluster.

use super::{Asked, Facts};

/// One thing that a kind of target does otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peculiarity {
    /// Whose targets, by the vendor of their INQUIRY data without the blanks that fill it.
    pub vendor: &'static str,
    /// The question that they fail.
    pub asked: Asked,
    /// A cluster loses nothing by it.
    pub is_harmless: bool,
    /// What they do, and what follows.
    pub why: &'static str,
}

/// The Linux kernel's own target, as of 6.1: `core_scsi3_pr_seq_non_holder` lets pass what carries
/// no data; `compare_and_write_callback` gives back a lock that a command which was refused before
/// its first read has never taken.
const LIO: &str = "LIO-ORG";

const KNOWN: [Peculiarity; 2] = [
    Peculiarity {
        vendor: LIO,
        asked: Asked::RefusesFlush,
        is_harmless: true,
        why: "Linux's target never refuses a flush. It brings nothing to the medium but what was \
              accepted before",
    },
    Peculiarity {
        vendor: LIO,
        asked: Asked::OneWinner,
        is_harmless: false,
        why: "Linux's target lets two COMPARE AND WRITE win at once from the moment on at which a \
              reservation has made it refuse one, as this test does, until it is restarted. \
              Format the cluster's own disk with --register paxos, or see that nobody ever \
              reserves it",
    },
];

/// What is known of this unit's answer to a question that it has failed.
#[must_use]
pub(super) fn peculiarity(facts: &Facts, asked: Asked) -> Option<&'static Peculiarity> {
    let mut known = KNOWN.iter();
    known.find(|known| known.asked == asked && known.vendor == facts.vendor.trim())
}
