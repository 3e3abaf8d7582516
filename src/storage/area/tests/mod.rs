//! Areas in memory: round trips, torn writes at every sector, and each thing that can be found
//! where an area should be.

mod blocks;
mod compare;
mod record;
mod replace;
mod words;

use std::cell::{Cell, RefCell};
use std::io;

use proptest::prelude::*;

use super::*;
use crate::frame::tag::{Author, Keyring, Purpose};
use crate::frame::{FRAME_LEN, Frame};
use crate::model::{ClusterId, Incarnation};
use crate::register::{Ballot, Block, VALUE_MAX, Value};

const CLUSTER: ClusterId = *b"cluster-for-test";
const AREA: AreaNonce = *b"nonce-for-format";
const LIFE: Incarnation = Incarnation {
    boot: *b"boot-id-16-bytes",
    start: 7,
};

/// A disk in memory that may lose power within a write.
struct Memory {
    bytes: RefCell<Vec<u8>>,
    /// Sectors that will still be written.
    power: Cell<usize>,
    /// Writes the sectors of one write from the last to the first.
    backwards: bool,
}

impl Memory {
    fn new(size: u64) -> Memory {
        let bytes = RefCell::new(vec![0; size as usize]);
        Memory {
            bytes,
            power: Cell::new(usize::MAX),
            backwards: false,
        }
    }

    fn put(&self, offset: u64, bytes: &[u8]) {
        self.bytes.borrow_mut()[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }
}

impl Blocks for Memory {
    fn size(&self) -> u64 {
        self.bytes.borrow().len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        assert!(
            offset.is_multiple_of(4096) && out.len().is_multiple_of(4096),
            "unaligned read"
        );
        out.copy_from_slice(&self.bytes.borrow()[offset as usize..][..out.len()]);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(
            offset.is_multiple_of(4096) && bytes.len().is_multiple_of(4096),
            "unaligned"
        );
        let mut sectors: Vec<usize> = (0..bytes.len()).step_by(SECTOR_LEN).collect();
        if self.backwards {
            sectors.reverse();
        }
        for at in sectors {
            let left = self
                .power
                .get()
                .checked_sub(1)
                .ok_or(io::ErrorKind::BrokenPipe)?;
            self.power.set(left);
            self.put(offset + at as u64, &bytes[at..at + SECTOR_LEN]);
        }
        Ok(())
    }
}

fn ring() -> Keyring {
    Keyring::new(&[7; 32], &CLUSTER)
}

fn node(id: u8) -> NodeId {
    NodeId::new(id).unwrap()
}

fn options(nodes_max: u8) -> FormatOptions {
    FormatOptions {
        cluster: CLUSTER,
        nonce: AREA,
        block_size: 512,
        nodes_max,
        medium: Medium::Paxos,
        roster: None,
    }
}

fn formatted(nodes_max: u8) -> (Memory, Header) {
    let disk = Memory::new(area_bytes(nodes_max).unwrap());
    let header = format(&disk, &options(nodes_max), &ring()).unwrap();
    (disk, header)
}

fn block(writes: u64, len: usize) -> Block {
    let bytes = (0..len).map(|i| (i as u64 * 31 + writes) as u8).collect();
    let value = Value {
        epoch: 100 + writes,
        nonce: !writes,
        bytes,
    };
    Block {
        writes,
        mbal: Ballot(writes << 8 | 3),
        bal: Ballot(writes << 8),
        value,
    }
}

fn block_slot(side: Side, block: &Block) -> Slot {
    let mut slot = [0xFF; SLOT_LEN];
    encode_block(&AREA, (node(3), side), block, LIFE, &ring(), &mut slot);
    slot
}

fn decoded(side: Side, slot: &[u8]) -> Result<StoredBlock, SlotError> {
    decode_block(&AREA, (node(3), side), slot, &ring())
}

fn newest(a: &[u8], b: &[u8]) -> Result<NewestBlock, BlockLost> {
    newest_block(&AREA, node(3), a, b, &ring())
}

fn header_slot(header: &Header) -> Slot {
    let mut slot = [0xFF; SLOT_LEN];
    header.encode(&ring(), &mut slot);
    slot
}

fn read(a: &[u8], b: &[u8]) -> Result<(Header, Repair), HeaderError> {
    Header::read(a, b, &ring(), &CLUSTER)
}

#[test]
fn the_geometry_has_no_gap_and_no_overlap() {
    for nodes_max in 1..=64 {
        let geometry = Geometry::new(nodes_max).unwrap();
        let mut spans = vec![
            (geometry.header(Side::A), 4096),
            (geometry.header(Side::B), 4096),
        ];
        for node in geometry.nodes() {
            spans.push((geometry.heartbeat(node).unwrap(), 4096));
            spans.push((geometry.block(node, Side::A).unwrap(), 4096));
            spans.push((geometry.block(node, Side::B).unwrap(), 4096));
        }
        spans.push((geometry.record(), 4096));
        spans.push((geometry.view(Side::A), 4096));
        spans.push((geometry.view(Side::B), 4096));
        spans.extend(
            geometry
                .nodes()
                .map(|node| (geometry.mailbox(node).unwrap(), 16384)),
        );
        let end = spans.iter().fold(0, |at, (offset, len)| {
            assert_eq!(at, *offset, "{nodes_max} nodes");
            offset + len
        });
        assert_eq!(end, geometry.total());
    }
    assert_eq!(area_bytes(64), Some(1_855_488));
    assert_eq!((area_bytes(0), area_bytes(65)), (None, None));
    assert_eq!(Geometry::new(2).unwrap().region(node(3)), None);
}

#[test]
fn the_bytes_are_these_for_ever() {
    let header = formatted(64).1;
    let slot = header_slot(&header);
    let head = b"STANDFST\x01\0\0\0\x00\x02\0\0cluster-for-testnonce-for-format\
        \x40\0\0\0\x00\x10\0\0\x00\x20\0\0\0\0\0\0\x00\x30\0\0\0\0\0\0\
        \x00\x20\x0C\0\0\0\0\0\x00\x30\x0C\0\0\0\0\0\x00\x50\x0C\0\0\0\0\0\
        \x00\x40\0\0\0\0\0\0\x00\x50\x1C\0\0\0\0\0";
    assert_eq!(&slot[..112], head);
    assert_eq!(blake3::hash(&slot).to_hex().as_str(), GOLDEN_HEADER);
    let slot = block_slot(Side::B, &block(2, 100));
    let head = b"STRB\x01\x03\x01\0nonce-for-formatboot-id-16-bytes\x07\0\0\0\x64\0\0\0\
        \x02\0\0\0\0\0\0\0\x03\x02\0\0\0\0\0\0\x00\x02\0\0\0\0\0\0\
        \x66\0\0\0\0\0\0\0\xFD\xFF\xFF\xFF\xFF\xFF\xFF\xFF";
    assert_eq!(&slot[..88], head);
    assert_eq!(blake3::hash(&slot).to_hex().as_str(), GOLDEN_BLOCK);
}

/// BLAKE3 of the whole slots.
const GOLDEN_HEADER: &str = "379b3ee7bfa4541ede2c1ec5a2c2eac7f5d5b5bf722037cf540f5e82501e31a3";
const GOLDEN_BLOCK: &str = "13c8707390d6562eab7217e129ca37c6f952866cd558740086cc5704fff12f14";

#[test]
fn every_single_bit_flip_is_refused() {
    let header = header_slot(&formatted(64).1);
    for bit in 0..SECTOR_LEN * 8 {
        let mut slot = header;
        slot[bit / 8] ^= 1 << (bit % 8);
        assert!(
            Header::decode(&slot, &ring(), &CLUSTER).is_err(),
            "header, bit {bit}"
        );
    }
    let good = block_slot(Side::A, &block(5, 1000));
    for bit in 0..SLOT_LEN * 8 {
        let mut slot = good;
        slot[bit / 8] ^= 1 << (bit % 8);
        assert!(decoded(Side::A, &slot).is_err(), "block, bit {bit}");
    }
}

#[test]
fn a_formatted_disk_is_blank_but_for_its_headers() {
    let (disk, header) = formatted(64);
    assert_eq!(
        read_header(&disk, &ring(), &CLUSTER).unwrap(),
        (header, Repair::None)
    );
    assert!(disk.bytes.borrow()[8192..].iter().all(|byte| *byte == 0));
    let report = show(&disk, &ring(), &CLUSTER).unwrap();
    assert!(
        report.nodes.is_empty() && report.problems.is_empty(),
        "{report:?}"
    );
}

#[test]
fn a_disk_that_cannot_hold_the_area_is_refused() {
    let disk = Memory::new(area_bytes(64).unwrap() - 4096);
    let error = format(&disk, &options(64), &ring()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the disk has 1851392 bytes, an area for 64 nodes needs 1855488"
    );
    assert!(format(&disk, &options(63), &ring()).is_ok());
    let error = format(&disk, &options(0), &ring()).unwrap_err();
    assert!(matches!(error, AreaError::NodesMax { nodes_max: 0 }));
    let odd = FormatOptions {
        block_size: 520,
        ..options(2)
    };
    assert!(matches!(
        format(&disk, &odd, &ring()),
        Err(AreaError::BlockSize { .. })
    ));
    disk.bytes.borrow_mut().truncate(4096);
    let error = read_header(&disk, &ring(), &CLUSTER).unwrap_err();
    assert!(matches!(error, AreaError::Header(HeaderError::Blank)));
}

#[test]
fn each_thing_found_instead_of_a_header_has_its_name() {
    let (_, header) = formatted(2);
    let good = header_slot(&header);
    let zero = [0; SLOT_LEN];
    let mut torn = good;
    torn[100] ^= 1;
    let text = [b'x'; SLOT_LEN];
    let foreign_id = [9; 16];
    let mut foreign = zero;
    let other = Keyring::new(&[7; 32], &foreign_id);
    Header {
        cluster: foreign_id,
        ..header
    }
    .encode(&other, &mut foreign);
    let mut other_key = zero;
    header.encode(&Keyring::new(&[8; 32], &CLUSTER), &mut other_key);
    let other_format = header_slot(&Header {
        nonce: [1; 16],
        ..header
    });
    let newer = resealed(good, |slot| slot[8] = 4);
    let odd = resealed(good, |slot| slot[48] = 3);
    let foreign_error = HeaderError::Foreign {
        cluster: foreign_id,
    };

    assert_eq!(read(&good, &good), Ok((header, Repair::None)));
    for (bad, error) in [
        (zero, HeaderError::Blank),
        (text, HeaderError::NotOurs),
        (torn, HeaderError::Torn),
    ] {
        assert_eq!(read(&bad, &bad), Err(error));
        assert_eq!(
            read(&bad, &good),
            Ok((header, Repair::Rewrite(Side::A, error)))
        );
        assert_eq!(
            read(&good, &bad),
            Ok((header, Repair::Rewrite(Side::B, error)))
        );
        assert_eq!(read(&bad, &foreign), Err(foreign_error));
    }
    assert_eq!(read(&zero, &torn), Err(HeaderError::Torn));
    assert_eq!(read(&good, &other_format), Err(HeaderError::Mixed));
    for (bad, error) in [
        (foreign, foreign_error),
        (other_key, HeaderError::WrongKey),
        (newer, HeaderError::Version { found: 4 }),
        (odd, HeaderError::Geometry),
    ] {
        assert_eq!(read(&bad, &bad), Err(error));
        assert_eq!(read(&bad, &good), Err(error), "the disk is in two hands");
        assert!(!error.help().is_empty());
    }
}

/// Changes a header and seals it again.
fn resealed(mut slot: Slot, change: impl FnOnce(&mut Slot)) -> Slot {
    change(&mut slot);
    let tag = ring().tag(Purpose::Header, Author::Cluster, &slot[..492]);
    slot[492..508].copy_from_slice(&tag);
    let crc = crc32c::crc32c(&slot[..508]);
    slot[508..512].copy_from_slice(&crc.to_le_bytes());
    slot
}

#[test]
fn a_damaged_header_copy_is_written_again() {
    let (disk, header) = formatted(2);
    disk.put(0, &[0x55; 512]);
    let (found, needed) = read_header(&disk, &ring(), &CLUSTER).unwrap();
    assert_eq!(
        (found, needed),
        (header, Repair::Rewrite(Side::A, HeaderError::NotOurs))
    );
    repair(&disk, &found, needed, &ring()).unwrap();
    assert_eq!(
        read_header(&disk, &ring(), &CLUSTER).unwrap(),
        (header, Repair::None)
    );
}

/// Power fails after each sector of a second format, sectors going in either order: the disk is
/// the old area untouched, the new one blank, or none.
#[test]
fn an_interrupted_format_never_passes_for_a_good_one() {
    let (old_nonce, new_nonce) = (AREA, [2; 16]);
    let mut seen = [0; 3];
    for backwards in [false, true] {
        for power in 0.. {
            let mut disk = formatted(2).0;
            let slots_before = {
                disk.bytes.borrow_mut()[8192..].fill(0xEE);
                disk.bytes.borrow()[8192..].to_vec()
            };
            disk.backwards = backwards;
            disk.power.set(power);
            let again = FormatOptions {
                nonce: new_nonce,
                ..options(2)
            };
            let done = format(&disk, &again, &ring()).is_ok();
            match read_header(&disk, &ring(), &CLUSTER) {
                Ok((header, _)) if header.nonce == old_nonce => {
                    assert_eq!(disk.bytes.borrow()[8192..], slots_before, "after {power}");
                    seen[0] += 1;
                }
                Ok((header, _)) => {
                    assert_eq!(header.nonce, new_nonce);
                    assert!(disk.bytes.borrow()[8192..].iter().all(|byte| *byte == 0));
                    seen[1] += 1;
                }
                Err(error) => {
                    assert!(matches!(error, AreaError::Header(_)), "{error}");
                    assert!(!done);
                    seen[2] += 1;
                }
            }
            if done {
                break;
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 1), "{seen:?}");
}

#[test]
fn a_disk_that_loses_writes_is_found_out() {
    struct Fake(Memory);
    impl Blocks for Fake {
        fn size(&self) -> u64 {
            self.0.size()
        }
        fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.read_at(offset, out)
        }
        fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
    }
    let disk = Fake(Memory::new(1 << 20));
    let error = format(&disk, &options(2), &ring()).unwrap_err();
    assert!(matches!(error, AreaError::ReadBack { offset: 4096 }));
    disk.0.put(3 * 4096 + 5, &[1]);
    let error = format(&disk, &options(2), &ring()).unwrap_err();
    assert!(matches!(error, AreaError::ReadBack { offset: 12288 }));
}

#[test]
fn a_report_shows_who_is_there_and_what_is_wrong() {
    let (disk, header) = formatted(4);
    let geometry = header.geometry;
    let mut frame = Frame::blank(CLUSTER, node(3), LIFE);
    frame.sequence = 42;
    let mut bytes = [0; FRAME_LEN];
    frame.encode(&ring(), &mut bytes);
    disk.put(geometry.heartbeat(node(3)).unwrap(), &bytes);
    disk.put(geometry.heartbeat(node(2)).unwrap(), &bytes);
    disk.put(
        geometry.block(node(3), Side::A).unwrap(),
        &block_slot(Side::A, &block(9, 77)),
    );
    disk.put(geometry.block(node(3), Side::B).unwrap(), &[1]);
    disk.put(geometry.header(Side::B), &[0; 4096]);

    let report = show(&disk, &ring(), &CLUSTER).unwrap();
    assert_eq!(
        report
            .nodes
            .iter()
            .map(|node| node.node.number())
            .collect::<Vec<_>>(),
        [2, 3]
    );
    let three = &report.nodes[1];
    assert_eq!(three.heartbeat.as_ref().unwrap().sequence, 42);
    let found = three.block.as_ref().unwrap();
    assert_eq!(
        (found.writes, found.value_bytes, found.copy),
        (9, 77, Side::A)
    );
    assert_eq!(
        report.problems,
        [
            "header copy B: the disk area is blank: it was never formatted, or it was wiped; \
             the other copy is good and is used",
            "heartbeat of node 2: written by node 3: two nodes use one slot",
            "register block of node 3, copy B: not a register block: something else was \
             written over it",
        ]
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["header"]["area_bytes"], geometry.total());
    assert_eq!(json["nodes"][1]["block"]["writes"], 9);
}

#[test]
fn a_report_of_a_disk_that_is_no_area_says_so() {
    let disk = Memory::new(1 << 20);
    disk.put(0, b"something else");
    let report = show(&disk, &ring(), &CLUSTER).unwrap();
    assert_eq!(report.header, None);
    assert!(
        report.problems[0].starts_with("this is not a disk area"),
        "{report:?}"
    );
}

#[test]
fn a_survey_knows_what_would_be_lost() {
    let len = area_bytes(64).unwrap();
    let disk = Memory::new(1 << 21);
    assert_eq!(survey(&disk, len).unwrap(), Found::Blank);
    disk.put(len, &[1]);
    assert_eq!(survey(&disk, len).unwrap(), Found::Blank, "beyond the area");
    disk.put(len - 1, &[1]);
    assert_eq!(
        survey(&disk, len).unwrap(),
        Found::Data { offset: len - 4096 }
    );
    disk.put(510, b"\x55\xAA");
    disk.put(512, b"EFI PART");
    assert_eq!(
        survey(&disk, len).unwrap(),
        Found::Known {
            name: "a GPT partition table"
        }
    );
    disk.put(0x438, b"\x53\xEF");
    let name = "an ext2, ext3 or ext4 file system";
    assert_eq!(survey(&disk, len).unwrap(), Found::Known { name });
    format(&disk, &options(64), &ring()).unwrap();
    let cluster = Some(hex(&CLUSTER));
    assert_eq!(survey(&disk, len).unwrap(), Found::Area { cluster });
    disk.put(100, &[1]);
    disk.put(4096 + 100, &[1]);
    assert_eq!(survey(&disk, len).unwrap(), Found::Area { cluster: None });
    assert_eq!(survey(&Memory::new(0), len).unwrap(), Found::Blank);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..=3 * 4096)) {
        prop_assert!(Header::decode(&bytes, &ring(), &CLUSTER).is_err());
        let _ = read(&bytes, &bytes);
        let _ = decoded(Side::A, &bytes);
        if let Some((_, a, b)) = split_region(&bytes) {
            let _ = newest(a, b);
        }
        let disk = Memory::new((bytes.len() / 4096 * 4096) as u64);
        disk.put(0, &bytes[..bytes.len() / 4096 * 4096]);
        let _ = show(&disk, &ring(), &CLUSTER);
        let _ = survey(&disk, 1 << 20);
    }
}
