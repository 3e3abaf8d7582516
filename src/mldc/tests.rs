//! Golden bytes, refusals, and messages through loss, disorder and repetition.

use proptest::array::uniform16;
use proptest::prelude::*;

use super::*;
use crate::frame::layout::FRAME_LEN;
use crate::frame::tag::{Author, Purpose};
use crate::frame::{Frame, FrameError, HeadError, Keyring};
use crate::model::{ClusterId, Incarnation, NodeId, NodeSet};

const CLUSTER: ClusterId = *b"cluster-for-test";

const LIFE: Incarnation = Incarnation {
    boot: *b"boot-id-16-bytes",
    start: 0x0102_0304,
};

fn ring() -> Keyring {
    Keyring::new(&[7; 32], &CLUSTER)
}

fn node(id: u8) -> NodeId {
    NodeId::new(id).unwrap()
}

fn origin(sender: u8) -> Origin {
    Origin {
        cluster: CLUSTER,
        sender: node(sender),
        incarnation: LIFE,
    }
}

/// `len` bytes that tell their places apart.
fn text(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|at| (at * 7 + at / 251) as u8 ^ seed)
        .collect()
}

fn packets(sender: u8, number: u64, message: &[u8]) -> Vec<Packet> {
    split(origin(sender), NodeSet::only(node(2)), number, message).collect()
}

/// Packet 9 of 10, shorter than the others.
fn sample() -> Packet {
    let mut packet = packets(3, 0x1112_1314_1516_1718, &text(MESSAGE_MAX, 0)).remove(9);
    packet.link = 2;
    packet
}

fn encoded(packet: &Packet) -> [u8; FRAME_LEN] {
    let mut bytes = [0xFF; FRAME_LEN];
    packet.encode(&ring(), &mut bytes);
    bytes
}

fn decoded(bytes: &[u8]) -> Result<Packet, PacketError> {
    Packet::decode(bytes, &ring(), &CLUSTER)
}

/// The same bytes with a change and a true tag.
fn resealed(bytes: &[u8; FRAME_LEN], change: impl FnOnce(&mut [u8; FRAME_LEN])) -> Vec<u8> {
    let mut bytes = *bytes;
    change(&mut bytes);
    let tag = ring().tag(
        Purpose::Message,
        Author::Node(node(3), LIFE),
        &bytes[..FRAME_LEN - 16],
    );
    bytes[FRAME_LEN - 16..].copy_from_slice(&tag);
    bytes.to_vec()
}

#[test]
fn the_bytes_are_these_for_ever() {
    let bytes = encoded(&sample());
    let head = b"STF1\x01\x03\x02\x01cluster-for-testboot-id-16-bytes\
        \x04\x03\x02\x01\x09\x0A\x18\x01\x00\x10\x00\x00\x00\x00\x00\x00\
        \x02\x00\x00\x00\x00\x00\x00\x00\x18\x17\x16\x15\x14\x13\x12\x11";
    assert_eq!(&bytes[..72], head);
    assert_eq!(bytes[72..72 + 280], text(MESSAGE_MAX, 0)[9 * 424..]);
    assert_eq!(bytes[72 + 280..496], [0; 144]);
    assert_eq!(blake3::hash(&bytes).to_hex().as_str(), GOLDEN);
}

/// BLAKE3 of all 512 bytes, the tag among them.
const GOLDEN: &str = "05b2a5fbf1a8654e7bac8fa4d0dd41478ed00915d5e6fc36468c9cce26247a1d";

#[test]
fn every_single_bit_flip_is_refused() {
    let good = encoded(&sample());
    assert_eq!(decoded(&good).unwrap(), sample());
    for bit in 0..FRAME_LEN * 8 {
        let mut bytes = good;
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(decoded(&bytes).is_err(), "bit {bit}");
    }
}

#[test]
fn each_reason_to_refuse_has_its_name() {
    let good = encoded(&sample());
    let changed = |at: usize, value: u8| {
        let mut bytes = good;
        bytes[at] = value;
        decoded(&bytes).unwrap_err()
    };
    let sealed = |at: usize, value: u8| {
        let bytes = resealed(&good, |bytes| bytes[at] = value);
        decoded(&bytes).unwrap_err()
    };
    let mut foreign = CLUSTER;
    foreign[15] = 0;
    let parts = |part, parts, total| PacketError::BadParts { part, parts, total };
    let errors = [
        (
            decoded(&good[..511]).unwrap_err(),
            HeadError::TooShort { len: 511 }.into(),
        ),
        (changed(0, 0), HeadError::NotOurs.into()),
        (changed(4, 2), HeadError::Version { found: 2 }.into()),
        (changed(7, 0), HeadError::Kind { found: 0 }.into()),
        (
            changed(23, 0),
            HeadError::Foreign { cluster: foreign }.into(),
        ),
        (changed(5, 0), HeadError::BadSender { found: 0 }.into()),
        (changed(300, 0xAA), HeadError::BadTag.into()),
        (sealed(56, 0), PacketError::NoReceiver),
        (sealed(44, 10), parts(10, 10, 4096)),
        (
            sealed(46, 0x19),
            PacketError::BadLength {
                length: 0x119,
                expected: 280,
            },
        ),
    ];
    for (kind, (found, expected)) in errors.into_iter().enumerate() {
        assert_eq!(found, expected);
        assert_eq!(found.kind(), kind, "{}", PacketError::KINDS[kind]);
    }
    assert_eq!(
        sealed(45, 11),
        parts(9, 11, 4096),
        "parts and total disagree"
    );
    assert_eq!(sealed(45, 0), parts(9, 0, 4096), "none at all");
    assert_eq!(sealed(49, 0x20), parts(9, 10, 8192), "too long a message");
}

#[test]
fn a_frame_is_no_packet_and_a_packet_no_frame() {
    let mut bytes = [0; FRAME_LEN];
    Frame::blank(CLUSTER, node(3), LIFE).encode(&ring(), &mut bytes);
    assert!(!Packet::claimed(&bytes));
    let wrong = decoded(&bytes).unwrap_err();
    assert_eq!(wrong, HeadError::Kind { found: 0 }.into());
    bytes[7] = 1;
    assert_eq!(decoded(&bytes).unwrap_err(), HeadError::BadTag.into());

    let mut bytes = encoded(&sample());
    assert!(Packet::claimed(&bytes) && !Packet::claimed(&bytes[..7]));
    let frame = |bytes: &[u8]| Frame::decode(bytes, &ring(), &CLUSTER).unwrap_err();
    assert_eq!(
        frame(&bytes),
        FrameError::Head(HeadError::Kind { found: 1 })
    );
    bytes[7] = 0;
    assert_eq!(frame(&bytes), FrameError::Head(HeadError::BadTag));
}

#[test]
fn a_message_is_cut_into_as_few_packets_as_hold_it() {
    let cuts = [
        (0, 1),
        (1, 1),
        (DATA_MAX, 1),
        (DATA_MAX + 1, 2),
        (9 * DATA_MAX, 9),
        (MESSAGE_MAX, PARTS_MAX),
    ];
    for (len, parts) in cuts {
        let message = text(len, 1);
        let packets = packets(1, 5, &message);
        assert_eq!(packets.len(), parts, "{len} bytes");
        assert!(packets.iter().all(|packet| packet.parts() == parts));
        let data: Vec<u8> = packets.iter().flat_map(Packet::data).copied().collect();
        assert_eq!(data, message);
    }
}

#[test]
fn a_part_that_its_message_does_not_have_makes_no_sense() {
    let message = text(MESSAGE_MAX, 0);
    assert!(packets(1, 1, &message).iter().all(Packet::makes_sense));
    for (key, value) in [("part", 10), ("total", 9 * 424), ("total", MESSAGE_MAX + 1)] {
        let mut written = serde_json::to_value(sample()).unwrap();
        written[key] = value.into();
        let read: Packet = serde_json::from_value(written).unwrap();
        assert!(!read.makes_sense(), "{key} {value}");
    }
}

#[test]
fn a_message_comes_once_in_whatever_order_its_packets_come() {
    for len in [0, 1, DATA_MAX, 2000, MESSAGE_MAX] {
        let message = text(len, 2);
        let mut packets = packets(1, 5, &message);
        packets.reverse();
        let middle = packets.len() / 2;
        packets.rotate_left(middle);
        let mut assembler = Assembler::new();
        // Every packet twice, as from two links.
        let mut given = Vec::new();
        for packet in packets.iter().flat_map(|packet| [packet, packet]) {
            given.extend(assembler.take(packet));
        }
        assert_eq!(given, [(node(1), LIFE, message)], "{len} bytes");
        for packet in &packets {
            assert_eq!(assembler.take(packet), None, "sent again later");
        }
    }
}

#[test]
fn a_lost_packet_loses_its_message_and_no_other() {
    let (one, two) = (text(1000, 1), text(1000, 2));
    let mut assembler = Assembler::new();
    for packet in &packets(1, 5, &one)[1..] {
        assert_eq!(assembler.take(packet), None);
    }
    let again = packets(1, 6, &one);
    let given: Vec<_> = again.iter().filter_map(|it| assembler.take(it)).collect();
    assert_eq!(given, [(node(1), LIFE, one.clone())]);
    assert_eq!(
        assembler.take(&packets(1, 5, &one)[0]),
        None,
        "late: the sender has gone on"
    );
    let next = packets(1, 9, &two);
    assert_eq!(assembler.take(&next[0]), None);
    assert_eq!(assembler.take(&packets(1, 8, b"old")[0]), None);
    assert_eq!(assembler.take(&next[1]), None);
    assert_eq!(assembler.take(&next[2]), Some((node(1), LIFE, two)));
}

#[test]
fn senders_do_not_disturb_each_other() {
    let messages = [text(1000, 1), text(1200, 2), text(900, 64)];
    let senders = [1, 2, 64];
    let mut assembler = Assembler::new();
    let mut given = Vec::new();
    for part in 0..3 {
        for (sender, message) in senders.iter().zip(&messages) {
            given.extend(assembler.take(&packets(*sender, 5, message)[part]));
        }
    }
    let expected: Vec<_> = senders.iter().zip(messages).collect();
    assert_eq!(given.len(), 3);
    for ((sender, message), given) in expected.into_iter().zip(given) {
        assert_eq!(given, (node(*sender), LIFE, message));
    }
}

#[test]
fn two_lengths_under_one_number_make_no_message() {
    let mut assembler = Assembler::new();
    let (one, other) = (packets(1, 5, &text(1000, 1)), packets(1, 5, &text(999, 1)));
    assert_eq!(assembler.take(&one[0]), None);
    assert_eq!(assembler.take(&other[1]), None);
    assert_eq!(assembler.take(&other[2]), None);
    assert_eq!(assembler.take(&one[1]), None);
    assert!(assembler.take(&one[2]).is_some());
}

/// A one-packet message of a life of node 1.
fn of_life(incarnation: Incarnation, number: u64, message: &[u8]) -> Packet {
    let origin = Origin {
        incarnation,
        ..origin(1)
    };
    split(origin, NodeSet::only(node(2)), number, message)
        .next()
        .expect("a packet")
}

#[test]
fn an_old_message_sent_again_is_dropped() {
    let mut assembler = Assembler::new();
    let old = of_life(LIFE, 5, b"old");
    assert!(assembler.take(&old).is_some());
    assert!(assembler.take(&of_life(LIFE, 6, b"new")).is_some());
    assert_eq!(assembler.take(&old), None, "of the same life");

    let restarted = Incarnation {
        start: LIFE.start + 1,
        ..LIFE
    };
    assert!(assembler.take(&of_life(restarted, 1, b"anew")).is_some());
    let unheard = of_life(LIFE, 7, b"never heard");
    assert_eq!(assembler.take(&unheard), None, "of an earlier start");
    assert_eq!(assembler.take(&of_life(restarted, 1, b"anew")), None);
}

#[test]
fn a_rebooted_sender_begins_anew_and_its_half_message_is_gone() {
    let mut assembler = Assembler::new();
    let long = packets(1, 5, &text(1000, 1));
    assert_eq!(assembler.take(&long[0]), None);
    let rebooted = Incarnation {
        boot: [1; 16],
        start: 1,
    };
    let first = assembler.take(&of_life(rebooted, 1, b"first"));
    assert_eq!(first, Some((node(1), rebooted, b"first".to_vec())));
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded(
        (sender, to, link) in (1..=64u8, 1..=u64::MAX, any::<u8>()),
        (boot, start, number) in (uniform16(any::<u8>()), any::<u32>(), any::<u64>()),
        message in proptest::collection::vec(any::<u8>(), 0..=MESSAGE_MAX),
    ) {
        let incarnation = Incarnation { boot, start };
        let origin = Origin { cluster: CLUSTER, sender: node(sender), incarnation };
        let mut assembler = Assembler::new();
        let mut given = Vec::new();
        for mut packet in split(origin, NodeSet(to), number, &message) {
            packet.link = link;
            let back = decoded(&encoded(&packet)).unwrap();
            prop_assert_eq!(&back, &packet);
            given.extend(assembler.take(&back));
        }
        prop_assert_eq!(given, [(node(sender), incarnation, message)]);
    }

    #[test]
    fn arbitrary_bytes_with_a_true_tag_never_panic(
        body in proptest::collection::vec(any::<u8>(), FRAME_LEN),
        (part, parts, total) in (0..12u8, 0..12u8, 0..4400u16),
    ) {
        let mut bytes: [u8; FRAME_LEN] = body.try_into().unwrap();
        bytes[..44].copy_from_slice(&encoded(&sample())[..44]);
        (bytes[44], bytes[45]) = (part, parts);
        bytes[48..50].copy_from_slice(&total.to_le_bytes());
        let expected = usize::from(total).saturating_sub(usize::from(part) * DATA_MAX);
        bytes[46..48].copy_from_slice(&(expected.min(DATA_MAX) as u16).to_le_bytes());
        if let Ok(packet) = decoded(&resealed(&bytes, |_| ())) {
            let mut assembler = Assembler::new();
            let given = assembler.take(&packet);
            prop_assert_eq!(given.is_some(), packet.parts() == 1);
        }
    }
}
