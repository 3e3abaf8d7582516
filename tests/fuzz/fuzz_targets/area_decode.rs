//! The disk area: headers, register blocks, last words and a whole small area, as they are and with
//! true check sums and tags, as no fuzzer guesses those.
#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use standfast::frame::Keyring;
use standfast::frame::tag::{Author, Purpose};
use standfast::model::{ClusterId, Incarnation, NodeId};
use standfast::storage::area::{
    Blocks, Header, SECTOR_LEN, SLOT_LEN, Side, Slot, decode_block, decode_words, encode_block,
    encode_words, newest_block, show, survey,
};

const CLUSTER: ClusterId = *b"cluster-for-fuzz";
const AREA: [u8; 16] = *b"nonce-for-format";

struct Input<'a>(&'a [u8]);

impl Blocks for Input<'_> {
    fn size(&self) -> u64 {
        (self.0.len() / SLOT_LEN * SLOT_LEN) as u64
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.get(offset as usize..).and_then(|bytes| bytes.get(..out.len()));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

/// Puts a true tag and check sum into the first sector of a slot.
fn seal(slot: &mut Slot, keyring: &Keyring, purpose: Purpose, author: Author) {
    let tag = keyring.tag(purpose, author, &slot[..492]);
    slot[492..508].copy_from_slice(&tag);
    let crc = crc32c::crc32c(&slot[..508]);
    slot[508..512].copy_from_slice(&crc.to_le_bytes());
}

/// What is read of a sealed sector is written as it was, but for what must be zero.
fn last_words(mut slot: Slot, node: NodeId, keyring: &Keyring) {
    slot[..6].copy_from_slice(b"STRW\x01\x01");
    slot[8..24].copy_from_slice(&AREA);
    let mut writer = Incarnation { boot: [0; 16], start: 0 };
    writer.boot.copy_from_slice(&slot[24..40]);
    writer.start = u32::from_le_bytes([slot[40], slot[41], slot[42], slot[43]]);
    seal(&mut slot, keyring, Purpose::LastWords, Author::Node(node, writer));
    if let Ok(Some(found)) = decode_words(&AREA, node, &slot, keyring) {
        let mut again = [0; SECTOR_LEN];
        encode_words(&AREA, node, &found, keyring, &mut again);
        assert_eq!(again[48..80], slot[48..80]);
        assert_eq!(decode_words(&AREA, node, &again, keyring), Ok(Some(found)));
    }
}

fuzz_target!(|data: &[u8]| {
    let keyring = Keyring::new(&[7; 32], &CLUSTER);
    let node = NodeId::new(1).expect("within 1 to 64");
    let half = data.len() / 2;
    let _ = Header::read(&data[..half], &data[half..], &keyring, &CLUSTER);
    let _ = newest_block(&AREA, node, &data[..half], &data[half..], &keyring);
    let _ = decode_words(&AREA, node, data, &keyring);
    let _ = show(&Input(data), &keyring, &CLUSTER);
    let _ = survey(&Input(data), 1 << 20);

    let mut slot: Slot = [0; SLOT_LEN];
    let len = data.len().min(SLOT_LEN);
    slot[..len].copy_from_slice(&data[..len]);
    let mut header = slot;
    header[..12].copy_from_slice(b"STANDFST\x01\0\0\0");
    header[16..32].copy_from_slice(&CLUSTER);
    seal(&mut header, &keyring, Purpose::Header, Author::Cluster);
    let _ = Header::decode(&header, &keyring, &CLUSTER);

    last_words(slot, node, &keyring);

    slot[..8].copy_from_slice(b"STRB\x01\x01\0\0");
    slot[8..24].copy_from_slice(&AREA);
    let tail_hash = blake3::hash(&slot[512..]);
    slot[88..120].copy_from_slice(tail_hash.as_bytes());
    let mut writer = Incarnation { boot: [0; 16], start: 0 };
    writer.boot.copy_from_slice(&slot[24..40]);
    writer.start = u32::from_le_bytes([slot[40], slot[41], slot[42], slot[43]]);
    seal(&mut slot, &keyring, Purpose::Register, Author::Node(node, writer));
    if let Ok(found) = decode_block(&AREA, (node, Side::A), &slot, &keyring) {
        if found.block.writes > 0 {
            let mut again: Slot = [0; SLOT_LEN];
            encode_block(&AREA, (node, Side::A), &found.block, writer, &keyring, &mut again);
            let back = decode_block(&AREA, (node, Side::A), &again, &keyring);
            assert_eq!(back, Ok(found));
        }
    }
});
