//! Messages over a cable: packets beside the frames, and what is none for us.

use standfast::engine::Event;
use standfast::frame::{FRAME_LEN, Keyring};
use standfast::link::{Companions, Count, MAIL_MAX, Medium};
use standfast::mldc::{
    Assembler, DATA_MAX, MESSAGE_MAX, Origin, PARTS_MAX, Packet, PacketError, split,
};
use standfast::model::{Incarnation, NodeSet};

use super::bench::{CLUSTER, Station, keyring, life, node, passes};
use super::ethernet::{cable, inject, medium, pair};

fn origin(id: u8) -> Origin {
    Origin {
        cluster: CLUSTER,
        sender: node(id),
        incarnation: life(id),
    }
}

/// `len` bytes that tell their places apart.
fn text(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// A message of one packet.
fn letter(from: Origin, to: u8, number: u64) -> Packet {
    let mut packets = split(from, NodeSet::only(node(to)), number, b"a letter");
    packets.next().expect("one packet")
}

fn encoded(packet: &Packet, keyring: &Keyring) -> Vec<u8> {
    let mut bytes = [0; FRAME_LEN];
    packet.encode(keyring, &mut bytes);
    bytes.to_vec()
}

/// The next packet that a link tells of.
fn packet(station: &Station) -> Packet {
    station.wait("a packet", |event| match event {
        Event::Packet { link: 0, packet } => Some(packet),
        _ => None,
    })
}

/// Has `from` send a message in packets and `to` put it together.
fn converse(from: &Station, to: &Station, assembler: &mut Assembler, number: u64, len: usize) {
    let message = text(len);
    for packet in split(
        origin(from.id),
        NodeSet::only(node(to.id)),
        number,
        &message,
    ) {
        from.handle.mail(&packet);
    }
    let given = to.wait("the message", |event| match event {
        Event::Packet { link: 0, packet } => assembler.take(&packet),
        _ => None,
    });
    assert_eq!(given, (node(from.id), life(from.id), message));
}

#[test]
fn messages_of_all_sizes_pass_both_ways_and_frames_between_them() {
    let (here, there) = cable();
    let (mut one, mut two) = pair(&here, &there);
    let (mut at_one, mut at_two) = (Assembler::new(), Assembler::new());
    for parts in 1..=PARTS_MAX {
        let len = (parts * DATA_MAX).min(MESSAGE_MAX);
        converse(&one, &two, &mut at_two, parts as u64, len);
        passes(&mut one, &two);
        converse(&two, &one, &mut at_one, parts as u64, len);
        passes(&mut two, &one);
    }
    let packets: u64 = (1..=PARTS_MAX as u64).sum();
    for station in [&one, &two] {
        let counters = station.handle.counters();
        assert_eq!(counters.get(Count::MailSent), packets);
        assert_eq!(counters.get(Count::MailReceived), packets);
        for count in [Count::Echoed, Count::MailFull, Count::MailQueueFull] {
            assert_eq!(counters.get(count), 0, "{count:?}");
        }
    }
    one.stop();
    two.stop();
}

#[test]
fn what_is_not_a_good_packet_for_this_node_is_counted_and_dropped() {
    let (here, there) = cable();
    let (mut one, mut two) = pair(&here, &there);
    let good = encoded(&letter(origin(2), 1, 9), &keyring());
    let altered = |at: usize, by: u8| {
        let mut bytes = good.clone();
        bytes[at] ^= by;
        bytes
    };
    let mut cluster = CLUSTER;
    cluster[15] ^= 1;
    let stranger = Origin {
        cluster,
        ..origin(2)
    };
    let other_life = Incarnation {
        start: 9,
        ..life(1)
    };
    let impostor = Origin {
        incarnation: other_life,
        ..origin(1)
    };
    inject(
        &there,
        &[
            good[..100].to_vec(),
            altered(4, 1),
            altered(100, 1),
            altered(7, 2),
            encoded(&letter(stranger, 1, 1), &Keyring::new(&[7; 32], &cluster)),
            encoded(&letter(origin(2), 1, 8), &Keyring::new(&[8; 32], &CLUSTER)),
            encoded(&letter(origin(2), 3, 1), &keyring()),
            encoded(&letter(origin(1), 1, 1), &keyring()),
            encoded(&letter(impostor, 1, 1), &keyring()),
            good.clone(),
        ],
    );
    assert_eq!(packet(&one), letter(origin(2), 1, 9));
    let counters = one.handle.counters();
    let refused = |name: &str| {
        let kind = PacketError::KINDS.iter().position(|kind| *kind == name);
        counters.refused_packets(kind.expect("a kind"))
    };
    assert_eq!(refused("packet-too-short"), 1);
    assert_eq!(refused("packet-version"), 1);
    assert_eq!(refused("packet-foreign"), 1);
    assert_eq!(refused("packet-bad-tag"), 2);
    let told: Vec<_> = counters.told().collect();
    assert!(told.contains(&("kind", 1)), "neither frame nor packet");
    assert_eq!(counters.get(Count::MailElsewhere), 1);
    assert_eq!(counters.get(Count::Echoed), 1);
    assert_eq!(counters.get(Count::Impostor), 1);
    assert_eq!(counters.get(Count::Received), 0);
    passes(&mut two, &one);
    assert_eq!(counters.get(Count::MailReceived), 1);
    passes(&mut one, &two);
    one.stop();
    two.stop();
}

#[test]
fn a_message_sent_again_by_a_stranger_reaches_the_assembler_and_ends_there() {
    let (here, there) = cable();
    let (one, mut two) = pair(&here, &there);
    let mut assembler = Assembler::new();
    converse(&two, &one, &mut assembler, 5, 2000);
    let message = text(2000);
    let again: Vec<_> = split(origin(2), NodeSet::only(node(1)), 5, &message).collect();
    let bytes: Vec<_> = again.iter().map(|it| encoded(it, &keyring())).collect();
    inject(&there, &bytes);
    for expected in &again {
        let heard = packet(&one);
        assert_eq!(&heard, expected);
        assert_eq!(assembler.take(&heard), None);
    }
    converse(&two, &one, &mut assembler, 6, 2000);
    passes(&mut two, &one);
    one.stop();
    two.stop();
}

#[test]
fn a_full_queue_drops_the_oldest_packets_and_counts_them() {
    let (here, there) = cable();
    let two = Station::start((2, 0), medium("right"), there.entrance());
    two.wait_state(true);
    // Without room for its first word the thread waits before it looks at its work.
    let mut one = Station::start_with_room(0, (1, 0), medium("left"), here.entrance());
    let counters = one.handle.counters().clone();
    while counters.get(Count::QueueWait) == 0 {
        std::thread::yield_now();
    }
    let surplus = 5;
    for number in 1..=MAIL_MAX as u64 + surplus {
        one.handle.mail(&letter(origin(1), 2, number));
    }
    assert_eq!(counters.get(Count::MailFull), surplus);
    one.wait_state(true);
    for number in 1 + surplus..=MAIL_MAX as u64 + surplus {
        assert_eq!(packet(&two).number, number);
    }
    passes(&mut one, &two);
    one.stop();
    two.stop();
}

#[test]
fn an_engine_that_does_not_listen_costs_packets() {
    let (here, there) = cable();
    let one = Station::start_with_room(1, (1, 0), medium("left"), here.entrance());
    one.wait_state(true);
    let letters: Vec<_> = (1..50)
        .map(|number| encoded(&letter(origin(2), 1, number), &keyring()))
        .collect();
    inject(&there, &letters);
    let counters = one.handle.counters().clone();
    while counters.get(Count::MailQueueFull) == 0 {
        std::thread::yield_now();
    }
    assert_eq!(packet(&one).number, 1);
    one.stop();
}

#[test]
fn a_disk_takes_no_mail() {
    let nowhere = Medium::Disk {
        device: "/nowhere".into(),
        highest: node(2),
        disk: 0,
        companions: Companions::new(1),
    };
    let one = Station::start((1, 0), nowhere, || ());
    one.wait_state(false);
    for number in 1..=2 * MAIL_MAX as u64 {
        one.handle.mail(&letter(origin(1), 2, number));
    }
    let counters = one.handle.counters().clone();
    one.stop();
    for count in [Count::MailFull, Count::MailSent, Count::Unsent] {
        assert_eq!(counters.get(count), 0, "{count:?}");
    }
}
