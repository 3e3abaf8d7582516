//! Raw sockets on a real pair of Ethernet interfaces in a network namespace of its own.

use std::net::Ipv4Addr;

use super::*;
use crate::testing::{
    becomes_readable, eventually, in_network, index_of, is_readable, mac_of, make_cable, run,
};

const GROUP: [u8; 6] = [3, 0x53, 0x46, 0, 0, 1];
const ETHERTYPE: u16 = 0x88B5;

fn filter(own: u8) -> FrameFilter {
    FrameFilter {
        ethertype: ETHERTYPE,
        min_len: 64,
        magic: Some((0, *b"SFST")),
        cluster: (8, *b"cluster1"),
        not_sender: Some((16, own)),
    }
}

fn payload(sender: u8, tail: u8) -> [u8; 512] {
    let mut payload = [tail; 512];
    payload[..4].copy_from_slice(b"SFST");
    payload[8..16].copy_from_slice(b"cluster1");
    payload[16] = sender;
    payload
}

fn open(interface: &str, own: u8) -> PacketSocket {
    PacketSocket::open(index_of(interface), GROUP, &filter(own)).unwrap()
}

#[test]
fn frames_cross_the_cable_to_the_group_and_to_one_host() {
    in_network(|| {
        make_cable("left", "right");
        let (left, right) = (open("left", 1), open("right", 2));
        let (left_mac, right_mac) = (mac_of("left"), mac_of("right"));
        let mut batch = RecvBatch::new();
        assert_eq!(right.recv(&mut batch).unwrap(), 0);
        for destination_mac in [GROUP, right_mac] {
            left.send(destination_mac, left_mac, &payload(1, 7))
                .unwrap();
            assert!(becomes_readable(&right));
            assert_eq!(right.recv(&mut batch).unwrap(), 1);
            let frames: Vec<_> = batch.frames().collect();
            let payload = &payload(1, 7)[..];
            assert_eq!(
                frames,
                [Frame {
                    destination_mac,
                    source_mac: left_mac,
                    payload
                }]
            );
            assert_eq!(right.recv(&mut batch).unwrap(), 0);
            assert_eq!(batch.frames().count(), 0);
        }
        assert!(!is_readable(&left), "own frames must not come back");
        assert_eq!((batch.drops(), batch.oversized()), (0, 0));
    });
}

#[test]
fn the_kernel_filters_foreign_and_own_frames() {
    in_network(|| {
        make_cable("left", "right");
        let (left, right) = (open("left", 1), open("right", 2));
        let left_mac = mac_of("left");
        let mut foreign = payload(1, 0);
        foreign[15] = b'2';
        left.send(GROUP, left_mac, &foreign).unwrap();
        left.send(GROUP, left_mac, &payload(2, 0)).unwrap();
        left.send(GROUP, left_mac, &payload(1, 0)[..60]).unwrap();
        // A veth delivers in order: once this one is here, the others would be too.
        left.send(GROUP, left_mac, &payload(1, 9)).unwrap();
        assert!(becomes_readable(&right));
        let mut batch = RecvBatch::new();
        assert_eq!(right.recv(&mut batch).unwrap(), 1);
        assert_eq!(batch.frames().next().unwrap().payload, payload(1, 9));
    });
}

#[test]
fn a_batch_takes_what_waits_and_the_rest_comes_with_the_next() {
    in_network(|| {
        make_cable("left", "right");
        let (left, right) = (open("left", 1), open("right", 2));
        let left_mac = mac_of("left");
        let total = 2 * BATCH_FRAMES + 5;
        let mut batch = RecvBatch::new();
        let mut tails = Vec::new();
        for number in 0..total {
            left.send(GROUP, left_mac, &payload(1, number as u8))
                .unwrap();
        }
        eventually("all frames", || {
            right.recv(&mut batch).unwrap();
            tails.extend(batch.frames().map(|frame| frame.payload[511]));
            (tails.len() == total).then_some(())
        });
        assert_eq!(
            tails,
            (0..total).map(|number| number as u8).collect::<Vec<_>>()
        );
    });
}

#[test]
fn a_full_receive_buffer_is_counted_and_an_oversized_frame_skipped() {
    in_network(|| {
        make_cable("left", "right");
        run("ip link set left mtu 4000");
        run("ip link set right mtu 4000");
        let (left, right) = (open("left", 1), open("right", 2));
        let left_mac = mac_of("left");
        let mut long = [0; 3000];
        long[..512].copy_from_slice(&payload(1, 0));
        left.send(GROUP, left_mac, &long).unwrap();
        let mut batch = RecvBatch::new();
        assert!(becomes_readable(&right));
        assert_eq!(right.recv(&mut batch).unwrap(), 1);
        assert_eq!((batch.frames().count(), batch.oversized()), (0, 1));
        // The count of lost frames arrives with the next one that is not lost.
        eventually("a dropped frame", || {
            for _ in 0..4000 {
                // The sender's own queue may be full for a moment; only the receiver matters here.
                let _ = left.send(GROUP, left_mac, &payload(1, 0));
            }
            while right.recv(&mut batch).unwrap() > 0 {}
            (batch.drops() > 0).then_some(())
        });
    });
}

#[test]
fn down_and_gone_are_told_apart_from_other_errors() {
    in_network(|| {
        make_cable("left", "right");
        let left = open("left", 1);
        let left_mac = mac_of("left");
        let mut batch = RecvBatch::new();
        run("ip link set left down");
        let down = left.send(GROUP, left_mac, &payload(1, 0));
        assert!(matches!(down, Err(Error::LinkGone { .. })), "{down:?}");
        let down = left.recv(&mut batch);
        assert!(matches!(down, Err(Error::LinkGone { .. })), "{down:?}");
        assert_eq!(left.recv(&mut batch).unwrap(), 0);
        run("ip link set left up");
        eventually("the link is up again", || {
            left.send(GROUP, left_mac, &payload(1, 0)).ok()
        });
        let big = left.send(GROUP, left_mac, &[0; 1600]);
        assert!(matches!(big, Err(Error::Refused { .. })), "{big:?}");
        run("ip link delete left");
        let gone = left.send(GROUP, left_mac, &payload(1, 0));
        assert!(matches!(gone, Err(Error::LinkGone { .. })), "{gone:?}");
        let absent = PacketSocket::open(9999, GROUP, &filter(1));
        assert!(matches!(absent, Err(Error::LinkGone { .. })), "{absent:?}");
    });
}

#[test]
fn an_announcement_is_a_request_and_a_reply_and_teaches_the_neighbour() {
    in_network(|| {
        make_cable("left", "right");
        let (left_mac, right_mac) = (mac_of("left"), mac_of("right"));
        let left = ArpSocket::open(index_of("left"), left_mac).unwrap();
        let right = ArpSocket::open(index_of("right"), right_mac).unwrap();
        let ip = Ipv4Addr::new(10, 1, 2, 3);
        run("ip address add 10.1.2.1/24 dev right");
        run("ip neighbour add 10.1.2.3 lladdr 02:00:00:00:00:99 nud stale dev right");
        left.announce(ip).unwrap();
        for operation in [ArpOperation::Request, ArpOperation::Reply] {
            assert!(becomes_readable(&right));
            let expected = ArpPacket {
                operation,
                sender_mac: left_mac,
                sender_ip: ip,
                target_ip: ip,
            };
            assert_eq!(right.recv().unwrap(), Some(expected));
        }
        assert_eq!(right.recv().unwrap(), None);
        assert_eq!(left.recv().unwrap(), None);
        let text = left_mac.map(|byte| format!("{byte:02x}")).join(":");
        eventually("the neighbour learns", || {
            run("ip neighbour show 10.1.2.3")
                .contains(&text)
                .then_some(())
        });
    });
}

#[test]
fn a_probe_is_answered_by_the_kernel_that_has_the_address() {
    in_network(|| {
        make_cable("left", "right");
        let right_mac = mac_of("right");
        let left = ArpSocket::open(index_of("left"), mac_of("left")).unwrap();
        let ip = Ipv4Addr::new(10, 1, 2, 1);
        run("ip address add 10.1.2.1/24 dev right");
        run("sysctl -q -w net.ipv4.conf.right.arp_ignore=1");
        left.probe(ip).unwrap();
        let answer = eventually("an answer", || {
            left.recv()
                .unwrap()
                .filter(|packet| packet.operation == ArpOperation::Reply)
        });
        assert_eq!((answer.sender_mac, answer.sender_ip), (right_mac, ip));
    });
}
