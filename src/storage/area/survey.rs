//! What a format would destroy: known signatures in the first 68 KiB, or data of any kind.
//!
//! Signatures and offsets are those of libblkid (util-linux) and of sbd's `sbd-md.c`.

use serde::Serialize;

use super::device::{AreaError, Blocks, read};
use super::header::{AREA_MAGIC, claimed_cluster};
use super::{SLOT_LEN, hex};

/// What was found where an area would be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// Zeros throughout.
    Blank,
    /// A disk area of Standfast.
    Area {
        /// The cluster it names, in hexadecimal; `None` if its header is damaged.
        cluster: Option<String>,
    },
    /// Something well known.
    Known {
        /// What it is, as people call it.
        name: &'static str,
    },
    /// Bytes other than zero, of no known kind.
    Data {
        /// Offset of the first 4 KiB that hold any.
        offset: u64,
    },
}

/// A signature: its name, its offset, its bytes. First match wins, so what wraps others comes
/// first and what a mere boot sector has comes last.
const SIGNATURES: [(&str, usize, &[u8]); 16] = [
    ("an sbd device of a Pacemaker cluster", 0, b"SBD_SBD_"),
    ("a LUKS encrypted volume", 0, b"LUKS\xBA\xBE"),
    ("an LVM physical volume", 512, b"LABELONE"),
    ("a member of an MD array", 4096, b"\xFC\x4E\x2B\xA9"),
    ("a member of an MD array", 0, b"\xFC\x4E\x2B\xA9"),
    ("a sanlock lockspace", 0, b"\x10\x20\x21\x12"),
    ("a sanlock resource", 0, b"\x10\x20\x15\x06"),
    ("an XFS file system", 0, b"XFSB"),
    ("an ext2, ext3 or ext4 file system", 0x438, b"\x53\xEF"),
    ("a Btrfs file system", 0x10040, b"_BHRfS_M"),
    ("a GFS2 file system", 0x10000, b"\x01\x16\x19\x70"),
    ("an OCFS2 file system", 0x2000, b"OCFSV2"),
    ("swap space", 4086, b"SWAPSPACE2"),
    ("a GPT partition table", 512, b"EFI PART"),
    ("a GPT partition table", 4096, b"EFI PART"),
    ("a partition table or a boot sector", 510, b"\x55\xAA"),
];

/// Bytes that signatures may lie in.
const SIGNATURES_LEN: usize = 17 * SLOT_LEN;

/// Looks at the first `len` bytes of `dev`, as many as an area would take, and at the places of all
/// known signatures. Reads only.
pub fn survey(dev: &impl Blocks, len: u64) -> Result<Found, AreaError> {
    let slot = SLOT_LEN as u64;
    let end = dev.size().min(len.max(SIGNATURES_LEN as u64)) / slot * slot;
    let mut head = vec![0; (end as usize).min(SIGNATURES_LEN)];
    read(dev, 0, &mut head)?;
    for copy in head.chunks_exact(SLOT_LEN).take(2) {
        if copy.starts_with(&AREA_MAGIC) {
            let cluster = claimed_cluster(copy).ok().map(|cluster| hex(&cluster));
            return Ok(Found::Area { cluster });
        }
    }
    for (name, at, bytes) in SIGNATURES {
        if head.get(at..at + bytes.len()) == Some(bytes) {
            return Ok(Found::Known { name });
        }
    }
    let mut chunk = [0; SLOT_LEN];
    for offset in (0..end).step_by(SLOT_LEN) {
        read(dev, offset, &mut chunk)?;
        if chunk.iter().any(|byte| *byte != 0) {
            return Ok(Found::Data { offset });
        }
    }
    Ok(Found::Blank)
}
