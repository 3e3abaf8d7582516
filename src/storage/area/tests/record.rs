//! The record's sector, and the header of an area that has one.

use super::*;
use crate::register::{Place, Record};

const LENGTHS: [u64; 4] = [0, 1, 7, 1 << 40];

fn record(count: u64) -> Record {
    let value = block(count, 30).value;
    Record {
        count,
        bal: Ballot(count << 8 | 2),
        place: Some(Place {
            node: node(2),
            writes: 2 * count + 1,
        }),
        epoch: value.epoch,
        nonce: value.nonce,
        hash: value.hash(),
    }
}

fn sector(record: &Record) -> [u8; RECORD_LEN] {
    let mut sector = [0xFF; RECORD_LEN];
    encode_record(&AREA, record, (node(3), LIFE), &ring(), &mut sector);
    sector
}

#[test]
fn what_is_written_is_read() {
    for count in LENGTHS.into_iter().filter(|count| *count > 0) {
        let placed = record(count);
        let empty = Record {
            count,
            ..Record::default()
        };
        for record in [placed, empty] {
            let writer = Some((node(3), LIFE));
            let found = decode_record(&AREA, &sector(&record), &ring());
            assert_eq!(found, Ok(StoredRecord { record, writer }));
        }
    }
    let blank = decode_record(&AREA, &[0; RECORD_LEN], &ring());
    assert_eq!(blank, Ok(StoredRecord::default()));
}

#[test]
fn the_bytes_of_a_record_are_these_for_ever() {
    let sector = sector(&record(5));
    let head = b"STRR\x01\x03\x02\0nonce-for-formatboot-id-16-bytes\x07\0\0\0\0\0\0\0\
        \x05\0\0\0\0\0\0\0\x02\x05\0\0\0\0\0\0\x0B\0\0\0\0\0\0\0\
        \x69\0\0\0\0\0\0\0\xFA\xFF\xFF\xFF\xFF\xFF\xFF\xFF";
    assert_eq!(&sector[..88], head);
    assert_eq!(blake3::hash(&sector).to_hex().as_str(), GOLDEN_RECORD);
}

/// BLAKE3 of the whole sector.
const GOLDEN_RECORD: &str = "6ad4671e84e0af5c49b751324d8a1ca7bf07e8b68f3a6cb6c88885179df8d965";

#[test]
fn every_single_bit_flip_of_a_record_is_refused() {
    let good = sector(&record(9));
    for bit in 0..RECORD_LEN * 8 {
        let mut sector = good;
        sector[bit / 8] ^= 1 << (bit % 8);
        assert!(decode_record(&AREA, &sector, &ring()).is_err(), "bit {bit}");
    }
}

#[test]
fn a_block_is_no_record_and_a_record_of_another_format_is_stale() {
    let slot = block_slot(Side::A, &block(5, 0));
    let found = decode_record(&AREA, &slot, &ring());
    assert_eq!(found, Err(SlotError::NotABlock));
    let found = decode_record(&[9; 16], &sector(&record(5)), &ring());
    assert_eq!(found, Err(SlotError::Stale));
}

#[test]
fn a_header_says_how_the_register_is_changed() {
    let disk = Memory::new(area_bytes(2).unwrap());
    for (medium, version) in [(Medium::Paxos, 1), (Medium::CompareAndWrite, 2)] {
        let options = FormatOptions {
            medium,
            ..options(2)
        };
        let header = format(&disk, &options, &ring()).unwrap();
        let slot = header_slot(&header);
        assert_eq!(slot[8], version, "older programs know their own only");
        let (found, repair) = read_header(&disk, &ring(), &CLUSTER).unwrap();
        assert_eq!((found, repair), (header, Repair::None));
        assert_eq!(found.medium, medium);
    }
}

#[test]
fn a_medium_that_its_version_does_not_know_is_refused() {
    let (_, header) = formatted(2);
    for (version, medium) in [(1, 1), (2, 0), (2, 2)] {
        let slot = resealed(header_slot(&header), |slot| {
            slot[8] = version;
            slot[112] = medium;
        });
        let error = Header::decode(&slot, &ring(), &CLUSTER).unwrap_err();
        assert_eq!(error, HeaderError::Medium);
        assert!(!error.help().is_empty());
    }
}
