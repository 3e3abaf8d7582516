//! Packets of messages: whatever arrives is refused or decodes; what decodes encodes to a packet
//! that says the same and is taken by an assembler. As no fuzzer guesses a tag, each input is tried
//! as it is and with a true tag.
#![no_main]

use libfuzzer_sys::fuzz_target;
use standfast::frame::tag::{Author, Purpose};
use standfast::frame::{FRAME_LEN, Keyring};
use standfast::mldc::{Assembler, Packet};
use standfast::model::{ClusterId, Incarnation, NodeId};

const CLUSTER: ClusterId = *b"cluster-for-fuzz";
const TAG_AT: usize = FRAME_LEN - 16;

fuzz_target!(|data: &[u8]| {
    let keyring = Keyring::new(&[7; 32], &CLUSTER);
    let _ = Packet::decode(data, &keyring, &CLUSTER);

    let mut assembler = Assembler::new();
    for piece in data.chunks(FRAME_LEN).take(64) {
        let mut bytes = [0; FRAME_LEN];
        bytes[..piece.len()].copy_from_slice(piece);
        bytes[..5].copy_from_slice(b"STF1\x01");
        bytes[7] = 1;
        bytes[8..24].copy_from_slice(&CLUSTER);
        let Some(sender) = NodeId::new(bytes[5]) else {
            continue;
        };
        let mut incarnation = Incarnation::default();
        incarnation.boot.copy_from_slice(&bytes[24..40]);
        incarnation.start = u32::from_le_bytes([bytes[40], bytes[41], bytes[42], bytes[43]]);
        let author = Author::Node(sender, incarnation);
        let tag = keyring.tag(Purpose::Message, author, &bytes[..TAG_AT]);
        bytes[TAG_AT..].copy_from_slice(&tag);
        if let Ok(packet) = Packet::decode(&bytes, &keyring, &CLUSTER) {
            let mut again = [0; FRAME_LEN];
            packet.encode(&keyring, &mut again);
            assert_eq!(Packet::decode(&again, &keyring, &CLUSTER), Ok(packet.clone()));
            if let Some((_, _, message)) = assembler.take(&packet) {
                assert_eq!(message.len(), packet.total());
            }
        }
    }
});
