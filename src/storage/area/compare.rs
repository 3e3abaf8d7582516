//! Does a disk keep what COMPARE AND WRITE promises? What one node alone can find out; what several
//! find out together stands in [`contest`](super::contest).

use std::io;

use super::SLOT_LEN;
use super::device::{AreaError, Blocks, read};
use crate::register::Compared;

/// COMPARE AND WRITE of one logical block.
pub trait CompareAndWrite {
    /// Bytes of a logical block.
    fn block_bytes(&self) -> usize;

    /// Writes `new` at byte `offset` if `expected` is there; one block each. Sent once.
    ///
    /// # Errors
    ///
    /// Whatever is neither done nor refused; it may be done, or be done later.
    fn compare_and_write(
        &mut self,
        offset: u64,
        expected: &[u8],
        new: &[u8],
    ) -> io::Result<Compared>;
}

/// Targets that offer the command and do not keep what it promises: vendor, beginning of the
/// product, and why (the INQUIRY fields without the blanks that fill them).
pub const FAKES: [(&str, &str, &str); 1] = [(
    "IET",
    "VIRTUAL-DISK",
    "tgt compares and writes in two steps without a lock, so that two nodes can both win",
)];

/// Targets that keep it until something else happens to the disk: the vendor, and what. They are
/// used where a person asks for that, and not by choice.
pub const DOUBTFUL: [(&str, &str); 1] = [(
    "LIO-ORG",
    "Linux's target lets two nodes win at once from the moment on at which a reservation of this \
     disk has made it refuse one of them",
)];

/// Why a disk has failed its self-test.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] AreaError),
    /// A command had no clear outcome.
    #[error("COMPARE AND WRITE had no clear outcome")]
    Command(#[source] io::Error),
    /// It refused what was there, or took what was not.
    #[error("{expected}, but the disk said otherwise")]
    Answer {
        /// What should have happened, in words.
        expected: &'static str,
    },
    /// It said one thing and did another.
    #[error("{expected}, but other bytes were read back")]
    Content {
        /// What should have been there, in words.
        expected: &'static str,
    },
}

/// Makes the disk change a block, refuse a change, and change it back, and reads the block after
/// each. Nobody else may use the block meanwhile, whose content is as before in the end.
///
/// # Errors
///
/// [`SelfTestError`]; then the block may hold something else.
pub fn self_test(
    dev: &impl Blocks,
    target: &mut dyn CompareAndWrite,
    offset: u64,
) -> Result<(), SelfTestError> {
    let length = target.block_bytes();
    let mut slot = [0; SLOT_LEN];
    read(dev, offset, &mut slot)?;
    let before = slot[..length].to_vec();
    let inverted: Vec<u8> = before.iter().map(|byte| !byte).collect();
    // Differs from what is there in the last byte only.
    let mut nearly = inverted.clone();
    nearly[length - 1] ^= 1;
    let steps = [
        (
            &before,
            &inverted,
            Compared::Done,
            "a block that was as expected is changed",
        ),
        (
            &nearly,
            &before,
            Compared::Miscompare,
            "a block with another last byte is left alone",
        ),
        (
            &before,
            &nearly,
            Compared::Miscompare,
            "a block that is another one is left alone",
        ),
        (
            &inverted,
            &before,
            Compared::Done,
            "the block is changed back",
        ),
    ];
    let mut now = &before;
    for (expected, new, answer, words) in steps {
        let answered = target.compare_and_write(offset, expected, new);
        if answered.map_err(SelfTestError::Command)? != answer {
            return Err(SelfTestError::Answer { expected: words });
        }
        if answer == Compared::Done {
            now = new;
        }
        read(dev, offset, &mut slot)?;
        if slot[..length] != **now {
            return Err(SelfTestError::Content { expected: words });
        }
    }
    Ok(())
}
