//! Two nodes and a cable.

use standfast::engine::Event;
use standfast::frame::{FRAME_LEN, Frame, FrameError, Keyring};
use standfast::link::{Count, Medium, group_mac};
use standfast::model::Incarnation;
use standfast_sys::packet::{FrameFilter, PacketSocket};

use super::bench::{CLUSTER, Namespace, Station, frame, keyring, life, node, passes};

const ETHERTYPE: u16 = 0x88B5;

/// Two namespaces joined by a cable, `left` here and `right` there.
pub(crate) fn cable() -> (Namespace, Namespace) {
    let (here, there) = (Namespace::new(), Namespace::new());
    plug(&here, &there);
    (here, there)
}

fn plug(here: &Namespace, there: &Namespace) {
    let path = there.path();
    here.run(&format!(
        "ip link add left type veth peer name right netns {path}"
    ));
    here.run("ip link set left up");
    there.run("ip link set right up");
}

pub(crate) fn medium(interface: &str) -> Medium {
    Medium::Ethernet {
        interface: interface.to_owned(),
        ethertype: ETHERTYPE,
    }
}

pub(crate) fn pair(here: &Namespace, there: &Namespace) -> (Station, Station) {
    let one = Station::start((1, 0), medium("left"), here.entrance());
    let two = Station::start((2, 0), medium("right"), there.entrance());
    one.wait_state(true);
    two.wait_state(true);
    (one, two)
}

#[test]
fn frames_pass_both_ways_and_a_drain_follows_each() {
    let (here, there) = cable();
    let (mut one, mut two) = pair(&here, &there);
    for _ in 0..20 {
        passes(&mut one, &two);
        passes(&mut two, &one);
    }
    let before = standfast_sys::clock::boottime_ns();
    one.beat();
    one.wait("a drain begun after the order", |event| match event {
        Event::LinkDrained { link: 0, begun } if begun.0 >= before => Some(()),
        _ => None,
    });
    let counters = one.handle.counters();
    assert_eq!(counters.get(Count::Sent), 21);
    assert_eq!(counters.get(Count::Received), 20);
    for count in [
        Count::Echoed,
        Count::Crossed,
        Count::SendFailed,
        Count::QueueFull,
    ] {
        assert_eq!(counters.get(count), 0, "{count:?}");
    }
    one.stop();
    two.stop();
}

#[test]
fn a_pulled_cable_and_a_switched_off_interface_are_told_and_survived() {
    let (here, there) = cable();
    let (mut one, mut two) = pair(&here, &there);
    passes(&mut one, &two);
    there.run("ip link set right down");
    assert_eq!(
        two.wait_state(false),
        "right is switched off ('ip link set right up')"
    );
    assert!(one.wait_state(false).contains("left has no carrier"));
    two.beat();
    there.run("ip link set right up");
    assert_eq!(two.wait_state(true), "right is up");
    assert_eq!(one.wait_state(true), "left is up");
    passes(&mut one, &two);
    passes(&mut two, &one);
    assert_eq!(one.handle.counters().get(Count::Downs), 1);
    assert_eq!(one.handle.counters().get(Count::Ups), 2);
    one.stop();
    two.stop();
}

#[test]
fn a_new_card_of_the_same_name_is_taken_into_use() {
    let (here, there) = cable();
    let (mut one, mut two) = pair(&here, &there);
    passes(&mut one, &two);
    here.run("ip link delete left");
    assert!(!one.wait_reason("no interface left"));
    assert!(!two.wait_reason("no interface right"));
    one.beat();
    // Another interface takes the old index, or the next one: either way it is not the same card.
    here.run("ip link add decoy type veth peer name decoy-peer");
    plug(&here, &there);
    one.wait_state(true);
    two.wait_state(true);
    passes(&mut one, &two);
    passes(&mut two, &one);
    one.stop();
    two.stop();
}

#[test]
fn a_renamed_interface_is_lost_and_found() {
    let (here, there) = cable();
    let (mut one, two) = pair(&here, &there);
    // The kernel renames a running interface since 6.2; off and on works with all.
    here.run("ip link set left down");
    here.run("ip link set left name aside");
    here.run("ip link set aside up");
    assert!(!one.wait_reason("no interface left"));
    here.run("ip link set aside down");
    here.run("ip link set aside name left");
    here.run("ip link set left up");
    one.wait_state(true);
    passes(&mut one, &two);
    one.stop();
    two.stop();
}

#[test]
fn an_interface_may_come_after_its_link() {
    let (here, there) = (Namespace::new(), Namespace::new());
    let mut one = Station::start((1, 0), medium("left"), here.entrance());
    assert_eq!(
        one.wait_state(false),
        "there is no interface left on this node"
    );
    one.beat();
    plug(&here, &there);
    let two = Station::start((2, 0), medium("right"), there.entrance());
    one.wait_state(true);
    two.wait_state(true);
    passes(&mut one, &two);
    assert_eq!(one.handle.counters().get(Count::Unsent), 1);
    one.stop();
    two.stop();
}

/// Puts `payloads` on the wire at the other end.
pub(crate) fn inject(there: &Namespace, payloads: &[Vec<u8>]) {
    there.within(|| {
        let index = nix::net::if_::if_nametoindex("right").expect("the interface");
        let filter = FrameFilter {
            ethertype: ETHERTYPE,
            min_len: 0,
            magic: None,
            cluster: (0, [0xFF; 8]),
            not_sender: None,
        };
        let socket = PacketSocket::open(index, [3, 0, 0, 0, 0, 9], &filter).expect("a socket");
        for payload in payloads {
            socket
                .send(group_mac(&CLUSTER), [2; 6], payload)
                .expect("sent");
        }
    });
}

fn encoded(frame: &Frame, keyring: &Keyring) -> Vec<u8> {
    let mut bytes = [0; FRAME_LEN];
    frame.encode(keyring, &mut bytes);
    bytes.to_vec()
}

/// One good frame, number 9, after everything that is none or needs a second look.
fn noise_and_one_good_frame() -> Vec<Vec<u8>> {
    let good = encoded(&frame(2, 9), &keyring());
    let altered = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let mut other_cluster = CLUSTER;
    other_cluster[15] ^= 1;
    let foreign = Frame::blank(other_cluster, node(2), life(2));
    let other_life = Incarnation {
        start: 9,
        ..life(1)
    };
    let impostor = Frame::blank(CLUSTER, node(1), other_life);
    let mut crossed = frame(2, 8);
    crossed.link = 5;
    vec![
        b"nothing of ours".to_vec(),
        vec![0xFF; 1400],
        good[..100].to_vec(),
        altered(4),
        altered(300),
        encoded(&foreign, &Keyring::new(&[7; 32], &other_cluster)),
        encoded(&frame(2, 7), &Keyring::new(&[8; 32], &CLUSTER)),
        encoded(&frame(1, 3), &keyring()),
        encoded(&impostor, &keyring()),
        encoded(&crossed, &keyring()),
        good.clone(),
    ]
}

#[test]
fn what_is_not_a_good_frame_is_counted_and_the_good_ones_still_flow() {
    let (here, there) = cable();
    let (one, mut two) = pair(&here, &there);
    inject(&there, &noise_and_one_good_frame());
    let heard = |one: &Station| {
        one.wait("a frame", |event| match event {
            Event::Frame { link: 0, frame } => {
                Some((frame.sender.number(), frame.sequence, frame.link))
            }
            _ => None,
        })
    };
    assert_eq!(
        heard(&one),
        (1, 0, 0),
        "another life of this node is the engine's business"
    );
    assert_eq!(
        heard(&one),
        (2, 8, 5),
        "delivered all the same: the engine knows what it means"
    );
    assert_eq!(heard(&one), (2, 9, 0));
    let counters = one.handle.counters();
    let refused = |name: &str| {
        let kind = FrameError::KINDS
            .iter()
            .position(|kind| *kind == name)
            .expect("a kind");
        counters.refused(kind)
    };
    assert_eq!(refused("too-short"), 1);
    assert_eq!(refused("version"), 1);
    assert_eq!(refused("foreign"), 1);
    assert_eq!(refused("bad-tag"), 2);
    assert_eq!(refused("not-ours"), 0, "the kernel keeps them away");
    assert_eq!(counters.get(Count::Echoed), 1);
    assert_eq!(counters.get(Count::Impostor), 1);
    assert_eq!(counters.get(Count::Crossed), 1);
    assert_eq!(counters.get(Count::Received), 3);
    two.beat();
    heard(&one);
    one.stop();
    two.stop();
}

#[test]
fn an_engine_that_does_not_listen_costs_frames_but_no_news_of_the_link() {
    let (here, there) = cable();
    let one = Station::start_with_room(1, (1, 0), medium("left"), here.entrance());
    let two = Station::start((2, 0), medium("right"), there.entrance());
    two.wait_state(true);
    one.wait_state(true);
    // The one place is taken by the first frame: the others find no room.
    let payloads: Vec<_> = (1..50)
        .map(|at| encoded(&frame(2, at), &keyring()))
        .collect();
    inject(&there, &payloads);
    let counters = one.handle.counters().clone();
    while counters.get(Count::QueueFull) == 0 {
        std::thread::yield_now();
    }
    there.run("ip link set right down");
    while counters.get(Count::QueueWait) == 0 {
        std::thread::yield_now();
    }
    assert!(one.wait_state(false).contains("no carrier"));
    one.stop();
    two.stop();
}

#[test]
fn a_thread_that_waits_for_the_engine_can_be_stopped() {
    let (here, there) = cable();
    let one = Station::start_with_room(0, (1, 0), medium("left"), here.entrance());
    let counters = one.handle.counters().clone();
    while counters.get(Count::QueueWait) == 0 {
        std::thread::yield_now();
    }
    one.stop();
    drop(there);
}
