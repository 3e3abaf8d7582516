//! The sector of last words, and how a report tells them.

use super::*;
use crate::model::TaskIndex;
use crate::storage::last_words::{LastWords, Reason};
use crate::time::Instant;

fn stored() -> StoredWords {
    StoredWords {
        words: LastWords {
            reason: Reason::NotStopped,
            boot: LIFE.boot,
            epoch: 17,
            tasks: 0b101,
            at: Instant(5_000_000_000),
        },
        start: LIFE.start,
        wall_ms: 1_800_000_000_000,
    }
}

fn sector(stored: &StoredWords) -> [u8; SECTOR_LEN] {
    let mut sector = [0xFF; SECTOR_LEN];
    encode_words(&AREA, node(3), stored, &ring(), &mut sector);
    sector
}

fn decoded_words(sector: &[u8]) -> Result<Option<StoredWords>, WordsError> {
    decode_words(&AREA, node(3), sector, &ring())
}

/// With a true tag and check sum after the change.
fn resealed_words(change: impl FnOnce(&mut [u8; SECTOR_LEN])) -> [u8; SECTOR_LEN] {
    let mut sector = sector(&stored());
    change(&mut sector);
    let author = Author::Node(node(3), LIFE);
    let tag = ring().tag(Purpose::LastWords, author, &sector[..492]);
    sector[492..508].copy_from_slice(&tag);
    let crc = crc32c::crc32c(&sector[..508]);
    sector[508..].copy_from_slice(&crc.to_le_bytes());
    sector
}

#[test]
fn the_bytes_of_last_words_are_these_for_ever() {
    let sector = sector(&stored());
    let head = b"STRW\x01\x03\x02\0nonce-for-formatboot-id-16-bytes\x07\0\0\0\0\0\0\0\
        \x11\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x00\xF2\x05\x2A\x01\0\0\0\
        \x00\x50\x5C\x18\xA3\x01\x00\x00";
    assert_eq!(&sector[..80], head);
    assert_eq!(sector[80..492], [0; 412]);
    assert_eq!(blake3::hash(&sector).to_hex().as_str(), GOLDEN_WORDS);
    assert_eq!(decoded_words(&sector), Ok(Some(stored())));
    assert_eq!(decoded_words(&[0; SECTOR_LEN]), Ok(None));
}

/// BLAKE3 of the whole sector.
const GOLDEN_WORDS: &str = "821cce7d0494c6003c3d5762cbc9ab6bf4676f8db67a4b55e20f36e561f9aae5";

#[test]
fn every_single_bit_flip_of_last_words_is_refused() {
    let good = sector(&stored());
    for bit in 0..SECTOR_LEN * 8 {
        let mut sector = good;
        sector[bit / 8] ^= 1 << (bit % 8);
        assert!(decoded_words(&sector).is_err(), "bit {bit}");
    }
}

#[test]
fn last_words_count_only_where_and_of_whom_they_were_said() {
    let good = sector(&stored());
    let elsewhere = decode_words(&AREA, node(2), &good, &ring());
    assert_eq!(elsewhere, Err(WordsError::Misplaced { node: 3 }));
    let reformatted = decode_words(&[9; 16], node(3), &good, &ring());
    assert_eq!(reformatted, Err(WordsError::Stale));
    let stranger = Keyring::new(&[8; 32], &CLUSTER);
    let forged = decode_words(&AREA, node(3), &good, &stranger);
    assert_eq!(forged, Err(WordsError::WrongKey));
    assert_eq!(
        decoded_words(&good[..511]),
        Err(WordsError::TooShort { len: 511 })
    );
    let block = block_slot(Side::A, &block(5, 0));
    assert_eq!(decoded_words(&block), Err(WordsError::NotWords));
    let unknown = resealed_words(|sector| sector[6] = 77);
    assert_eq!(
        decoded_words(&unknown),
        Err(WordsError::Reason { found: 77 })
    );
    let newer = resealed_words(|sector| sector[4] = 2);
    assert_eq!(decoded_words(&newer), Err(WordsError::Version { found: 2 }));
}

#[test]
fn a_report_tells_why_a_node_fell_and_what_is_wrong_with_words() {
    let (disk, header) = formatted(4);
    let place = |id: u8| header.geometry.last_words(node(id)).unwrap();
    let slot = |id: u8| header.geometry.heartbeat(node(id)).unwrap();
    assert_eq!(place(3), slot(3) + SECTOR_LEN as u64);
    disk.put(place(3), &sector(&stored()));
    disk.put(place(2), &sector(&stored()));
    let mut frame = Frame::blank(CLUSTER, node(1), LIFE);
    frame.sequence = 42;
    let mut bytes = [0; FRAME_LEN];
    frame.encode(&ring(), &mut bytes);
    disk.put(slot(1), &bytes);
    let report = show(&disk, &ring(), &CLUSTER).unwrap();
    let told: Vec<_> = report.nodes.iter().map(|node| &node.last_words).collect();
    let expected = WordsReport {
        boot: hex(&LIFE.boot),
        start: LIFE.start,
        reason: Reason::NotStopped.words(),
        epoch: 17,
        tasks: [0, 2].map(|task| TaskIndex::new(task).unwrap()).to_vec(),
        wall_ms: Some(1_800_000_000_000),
    };
    assert_eq!(told, [&None, &None, &Some(expected)]);
    assert!(report.nodes[0].heartbeat.is_some() && report.nodes[2].heartbeat.is_none());
    assert_eq!(
        report.problems,
        ["last words of node 2: said by node 3, which does not belong here"]
    );
}

proptest! {
    #[test]
    fn what_was_said_is_read(
        epoch: u64, tasks: u64, at: u64, start: u32, wall_ms: u64, boot: [u8; 16], stuck: bool,
    ) {
        let reason = if stuck { Reason::NotStopped } else { Reason::NotReleased };
        let words = LastWords { reason, boot, epoch, tasks, at: Instant(at) };
        let stored = StoredWords { words, start, wall_ms };
        prop_assert_eq!(decoded_words(&sector(&stored)), Ok(Some(stored)));
    }

    #[test]
    fn arbitrary_words_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..=600)) {
        prop_assert_eq!(decoded_words(&bytes).ok().flatten(), None);
    }
}
