//! The header: whose area this is and how it is laid out.
//!
//! The same bytes stand in two slots, of which one may be torn. All of it lies in the first 512
//! bytes of a slot; the rest is zero and not judged.
//!
//! ```text
//! offset  bytes  field
//!      0      8  magic         "STANDFST"
//!      8      4  version       1, 2 or 3
//!     12      4  block size    logical block size of the disk when it was formatted, in bytes
//!     16     16  cluster       id of the cluster
//!     32     16  nonce         drawn by the format
//!     48      4  nodes max     ids 1 to this have a place
//!     52      4  slot          4096
//!     56      8  regions       offset of node 1's heartbeat
//!     64      8  region        bytes from one node's region to the next
//!     72      8  record        offset of the compare-and-write record
//!     80      8  views         offset of the first shadow copy of the view
//!     88      8  mailboxes     offset of node 1's mailbox
//!     96      8  mailbox       bytes from one mailbox to the next
//!    104      8  total         bytes of the area
//!    112      4  medium        of the register: 0 Disk Paxos, 1 compare-and-write
//!    116     48  roster        nonces of the register's three disks; zeros where it has one
//!    164    328  zero
//!    492     16  tag           Purpose::Header, by the cluster, over bytes 0..492
//!    508      4  crc           CRC32C of bytes 0..508
//!    512
//! ```
//!
//! Version 1 is the only disk of a register by Disk Paxos, version 2 the only disk of one by
//! compare-and-write, version 3 one of three by Disk Paxos: a program that does not know of it
//! refuses the area. Magic, version, cluster and CRC keep their places in all versions. The CRC
//! tells damage from a wrong secret: a good CRC with a wrong tag was written whole, by somebody
//! else.

use serde::Serialize;

use crate::frame::layout::{Field, tiles};
use crate::frame::tag::{Author, Keyring, Purpose, TAG_LEN};
use crate::model::ClusterId;

use super::roster::{ROSTER_LEN, Roster};
use super::{AreaNonce, Geometry, MAILBOX_LEN, REGION_LEN, SECTOR_LEN, SLOT_LEN, Side, Slot, hex};

/// The first bytes of an area.
pub(super) const AREA_MAGIC: [u8; 8] = *b"STANDFST";

/// The newest version.
const VERSION: u32 = 3;

/// The version of an area that is one of three.
const OF_THREE: u32 = 3;

const MAGIC: Field = Field::new(0, 8);
const VERSION_AT: Field = Field::new(8, 4);
const BLOCK_SIZE: Field = Field::new(12, 4);
const CLUSTER: Field = Field::new(16, 16);
const NONCE: Field = Field::new(32, 16);
const LAYOUT: Field = Field::new(48, 64);
const MEDIUM: Field = Field::new(112, 4);
const ROSTER: Field = Field::new(116, ROSTER_LEN);
const ZERO: Field = Field::new(164, 328);
const TAG: Field = Field::new(492, TAG_LEN);
const CRC: Field = Field::new(508, 4);

const FIELDS: [Field; 11] = [
    MAGIC, VERSION_AT, BLOCK_SIZE, CLUSTER, NONCE, LAYOUT, MEDIUM, ROSTER, ZERO, TAG, CRC,
];
const _: () = assert!(tiles(&FIELDS, SECTOR_LEN));

/// How the register in an area is changed; fixed when the area is formatted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Medium {
    /// By Disk Paxos: plain writes, each node into its own block.
    #[default]
    Paxos,
    /// By SCSI COMPARE AND WRITE of one record.
    CompareAndWrite,
}

impl Medium {
    /// As it is written on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Medium::Paxos => "paxos",
            Medium::CompareAndWrite => "compare-and-write",
        }
    }

    /// The version of a header of the only disk, and the medium's number there.
    const fn code(self) -> (u32, u32) {
        match self {
            Medium::Paxos => (1, 0),
            Medium::CompareAndWrite => (2, 1),
        }
    }
}

/// What a header says, once it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The cluster that owns the area.
    pub cluster: ClusterId,
    /// Drawn by the format.
    pub nonce: AreaNonce,
    /// Logical block size of the disk when it was formatted, in bytes.
    pub block_size: u32,
    /// Where everything is.
    pub geometry: Geometry,
    /// How the register is changed; by Disk Paxos where it has three disks.
    pub medium: Medium,
    /// The register's three disks, of which this is one; none where it is the only one.
    pub roster: Option<Roster>,
}

/// Whether a copy of the header should be written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Both copies are good.
    None,
    /// This copy is damaged, for this reason; the other is good.
    Rewrite(Side, HeaderError),
}

/// Why an area is not used. Each comes with [`HeaderError::help`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Nothing but zeros.
    #[error("the disk area is blank: it was never formatted, or it was wiped")]
    Blank,
    /// Something, but not an area.
    #[error("this is not a disk area of Standfast: other data is where its header should be")]
    NotOurs,
    /// An area, but no copy of its header is whole.
    #[error("both copies of the disk area's header are damaged")]
    Torn,
    /// Both copies are whole, but of two different formats.
    #[error("the two copies of the disk area's header are from two different formats")]
    Mixed,
    /// Whole, of another cluster.
    #[error("the disk area belongs to another cluster, {}", hex(cluster))]
    Foreign {
        /// That cluster.
        cluster: ClusterId,
    },
    /// Whole, of another version.
    #[error("the disk area has version {found}, this program knows version {VERSION}")]
    Version {
        /// The version it has.
        found: u32,
    },
    /// Whole, of this cluster's id, but sealed with another secret.
    #[error("the disk area names this cluster but was sealed with another cluster secret")]
    WrongKey,
    /// Authentic, but the register is changed in a way that its version does not know.
    #[error("the register of the disk area is of a kind that this program does not know")]
    Medium,
    /// Authentic, but its offsets are not those of this version.
    #[error("the disk area is laid out in a way that this program does not know")]
    Geometry,
    /// Authentic, but it is not once among the disks it names.
    #[error("the disk area is not one of the three that it says the register has")]
    Roster,
}

impl HeaderError {
    /// What to do about it.
    #[must_use]
    pub const fn help(self) -> &'static str {
        match self {
            HeaderError::Blank => {
                "check that this is the right device; if it is new, run 'standfast disk format' \
                 once, on one node. If it held this cluster's area before, find out who wiped it: \
                 stop Standfast on all nodes before you format it again"
            }
            HeaderError::NotOurs => {
                "check the device in the configuration: it may hold a file system or somebody \
                 else's data. Nothing was written to it"
            }
            HeaderError::Torn => {
                "a format was interrupted or something wrote over the area. Stop Standfast on all \
                 nodes, then run 'standfast disk format'"
            }
            HeaderError::Mixed => {
                "a format was interrupted, or two ran at once. Stop Standfast on all nodes, then \
                 run 'standfast disk format' on one of them"
            }
            HeaderError::Foreign { .. } => {
                "check the device in the configuration and the LUN masking of the array: two \
                 clusters see one disk. Format it only if the other cluster is gone for good"
            }
            HeaderError::Version { .. } => {
                "run the same version of Standfast on all nodes; another one has formatted this \
                 disk"
            }
            HeaderError::WrongKey => {
                "this node's secret is not that of the node which formatted the disk: join this \
                 node to the cluster again, or format the disk if the secret was renewed"
            }
            HeaderError::Medium | HeaderError::Geometry | HeaderError::Roster => {
                "run the same version of Standfast on all nodes; if they are the same, report this"
            }
        }
    }

    /// Was the copy written whole, by somebody who meant it? Then it is no damage to be repaired.
    const fn is_statement(self) -> bool {
        match self {
            HeaderError::Blank | HeaderError::NotOurs | HeaderError::Torn => false,
            HeaderError::Mixed
            | HeaderError::Foreign { .. }
            | HeaderError::Version { .. }
            | HeaderError::WrongKey
            | HeaderError::Medium
            | HeaderError::Geometry
            | HeaderError::Roster => true,
        }
    }

    /// Which of two reasons says more.
    const fn weight(self) -> u8 {
        match self {
            HeaderError::Blank => 0,
            HeaderError::NotOurs => 1,
            HeaderError::Torn => 2,
            HeaderError::Version { .. } => 3,
            HeaderError::Geometry | HeaderError::Medium | HeaderError::Roster => 4,
            HeaderError::WrongKey => 5,
            HeaderError::Foreign { .. } => 6,
            HeaderError::Mixed => 7,
        }
    }
}

impl Header {
    /// Position of this disk among the register's, from 0.
    #[must_use]
    pub fn position(&self) -> usize {
        let roster = self.roster.as_ref();
        let position = roster.and_then(|roster| roster.position(&self.nonce));
        position.unwrap_or(0)
    }

    /// How many disks the register has: one or three.
    #[must_use]
    pub fn disks(&self) -> usize {
        self.roster
            .as_ref()
            .map_or(1, |roster| roster.nonces().len())
    }

    /// Version, and the medium's number in it.
    fn code(&self) -> (u32, u32) {
        match self.roster {
            Some(_) => (OF_THREE, 0),
            None => self.medium.code(),
        }
    }

    /// Writes a slot with the header.
    pub fn encode(&self, keyring: &Keyring, out: &mut Slot) {
        out.fill(0);
        MAGIC.put(out, &AREA_MAGIC);
        let (version, medium) = self.code();
        VERSION_AT.put(out, &version.to_le_bytes());
        MEDIUM.put(out, &medium.to_le_bytes());
        BLOCK_SIZE.put(out, &self.block_size.to_le_bytes());
        CLUSTER.put(out, &self.cluster);
        NONCE.put(out, &self.nonce);
        LAYOUT.put(out, &layout_bytes(self.geometry));
        if let Some(roster) = &self.roster {
            ROSTER.put(out, roster.nonces().as_flattened());
        }
        let tag = keyring.tag(Purpose::Header, Author::Cluster, &out[..TAG.at]);
        TAG.put(out, &tag);
        let crc = crc32c::crc32c(&out[..CRC.at]);
        CRC.put(out, &crc.to_le_bytes());
    }

    /// The header from its two copies, and which of them to write again.
    ///
    /// One good copy is enough, unless the other was written whole by somebody else: then the disk
    /// is in two hands and not used. Where the two differ in nothing but the other disks, A counts:
    /// another disk was being replaced, and B is always written first.
    pub fn read(
        copy_a: &[u8],
        copy_b: &[u8],
        keyring: &Keyring,
        cluster: &ClusterId,
    ) -> Result<(Header, Repair), HeaderError> {
        let copies = [copy_a, copy_b].map(|copy| Header::decode(copy, keyring, cluster));
        match copies {
            [Ok(a), Ok(b)] if a == b => Ok((a, Repair::None)),
            [Ok(a), Ok(b)] if a.is_of_one_format(&b) => {
                Ok((a, Repair::Rewrite(Side::B, HeaderError::Mixed)))
            }
            [Ok(_), Ok(_)] => Err(HeaderError::Mixed),
            [Ok(_), Err(error)] | [Err(error), Ok(_)] if error.is_statement() => Err(error),
            [Ok(header), Err(error)] => Ok((header, Repair::Rewrite(Side::B, error))),
            [Err(error), Ok(header)] => Ok((header, Repair::Rewrite(Side::A, error))),
            [Err(a), Err(b)] => Err(if a.weight() >= b.weight() { a } else { b }),
        }
    }

    /// The header in one slot, of which the first [`SECTOR_LEN`] bytes are enough.
    pub fn decode(
        copy: &[u8],
        keyring: &Keyring,
        cluster: &ClusterId,
    ) -> Result<Header, HeaderError> {
        let sector = intact(copy)?;
        let found = u32::from_le_bytes(VERSION_AT.get(sector));
        if found == 0 || found > VERSION {
            return Err(HeaderError::Version { found });
        }
        let version = found;
        let found: ClusterId = CLUSTER.get(sector);
        if found != *cluster {
            return Err(HeaderError::Foreign { cluster: found });
        }
        let tag = TAG.get(sector);
        if !keyring.verify(Purpose::Header, Author::Cluster, &sector[..TAG.at], &tag) {
            return Err(HeaderError::WrongKey);
        }
        let layout: [u8; LAYOUT.len] = LAYOUT.get(sector);
        let geometry = Geometry::new(layout[0])
            .filter(|geometry| layout_bytes(*geometry) == layout)
            .ok_or(HeaderError::Geometry)?;
        let nonce = NONCE.get(sector);
        let (medium, roster) = register_of(sector, version, &nonce)?;
        Ok(Header {
            medium,
            roster,
            cluster: *cluster,
            nonce,
            block_size: u32::from_le_bytes(BLOCK_SIZE.get(sector)),
            geometry,
        })
    }

    /// Do the two differ in nothing but the register's other disks?
    fn is_of_one_format(&self, other: &Header) -> bool {
        let roster = other.roster;
        self.roster.is_some() && roster.is_some() && Header { roster, ..*self } == *other
    }
}

/// How the register is changed, and which disks it has.
fn register_of(
    sector: &[u8; SECTOR_LEN],
    version: u32,
    nonce: &AreaNonce,
) -> Result<(Medium, Option<Roster>), HeaderError> {
    let code = (version, u32::from_le_bytes(MEDIUM.get(sector)));
    if code == (OF_THREE, 0) {
        let roster = Roster::from_bytes(&ROSTER.get(sector));
        let roster = roster.filter(|roster| roster.position(nonce).is_some());
        let roster = roster.ok_or(HeaderError::Roster)?;
        return Ok((Medium::Paxos, Some(roster)));
    }
    let media = [Medium::Paxos, Medium::CompareAndWrite];
    let medium = media.into_iter().find(|known| known.code() == code);
    Ok((medium.ok_or(HeaderError::Medium)?, None))
}

/// The cluster an undamaged header names, whoever wrote it; without a key, so for people only.
pub(super) fn claimed_cluster(copy: &[u8]) -> Result<ClusterId, HeaderError> {
    intact(copy).map(|sector| CLUSTER.get(sector))
}

/// The header's sector, if it was written whole.
fn intact(copy: &[u8]) -> Result<&[u8; SECTOR_LEN], HeaderError> {
    let sector = copy.first_chunk::<SECTOR_LEN>().ok_or(HeaderError::Torn)?;
    if MAGIC.get(sector) != AREA_MAGIC {
        let blank = sector.iter().all(|byte| *byte == 0);
        return Err(if blank {
            HeaderError::Blank
        } else {
            HeaderError::NotOurs
        });
    }
    if crc32c::crc32c(&sector[..CRC.at]) != u32::from_le_bytes(CRC.get(sector)) {
        return Err(HeaderError::Torn);
    }
    Ok(sector)
}

/// The geometry as it stands in a header, from `nodes max` to `total`.
fn layout_bytes(geometry: Geometry) -> [u8; LAYOUT.len] {
    let pair = u64::from(geometry.nodes_max()) | (SLOT_LEN as u64) << 32;
    let words = [
        pair,
        geometry.regions(),
        REGION_LEN as u64,
        geometry.record(),
        geometry.view(Side::A),
        geometry.mailboxes(),
        MAILBOX_LEN as u64,
        geometry.total(),
    ];
    let mut bytes = [0; LAYOUT.len];
    for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}
