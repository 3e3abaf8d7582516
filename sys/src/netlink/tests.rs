//! The kernel's own tables in a network namespace of its own.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;

use super::*;
use crate::testing::{becomes_readable, eventually, in_network, index_of, mac_of, make_cable, run};

const IP: Ipv4Addr = Ipv4Addr::new(10, 9, 8, 7);

fn own(route: &mut Route) -> Vec<Address> {
    let mut addresses = route.addresses().unwrap();
    addresses.retain(|address| address.protocol == Some(OWN_PROTOCOL));
    addresses
}

/// Reads changes until one satisfies the question.
fn wait_for(monitor: &mut Monitor, what: &str, wanted: impl Fn(&Change) -> bool) -> Change {
    eventually(what, || {
        let change = monitor.next_change().unwrap();
        if change.is_none() {
            assert!(becomes_readable(monitor), "nothing more happens: {what}");
        }
        change.filter(|change| wanted(change))
    })
}

#[test]
fn an_address_comes_and_goes_and_is_recognised_as_own() {
    in_network(|| {
        make_cable("left", "right");
        let left = index_of("left");
        let mut route = Route::open().unwrap();
        run("ip address add 10.9.8.1/24 dev left");
        assert_eq!(own(&mut route), []);
        route.add_address(left, IP, 24, None).unwrap();
        let protocol = Some(OWN_PROTOCOL);
        let expected = Address {
            interface_index: left,
            ip: IP,
            prefix: 24,
            protocol,
            valid_seconds: None,
        };
        assert_eq!(own(&mut route), [expected]);
        assert!(run("ip -4 -o address show left").contains("10.9.8.7/24 brd 10.9.8.255"));
        assert!(
            !route.delete_address(left, IP, 25).unwrap(),
            "another prefix is another address"
        );
        assert!(route.delete_address(left, IP, 24).unwrap());
        assert!(!route.delete_address(left, IP, 24).unwrap());
        assert_eq!(own(&mut route), []);
        assert_eq!(
            route.addresses().unwrap().len(),
            2,
            "127.0.0.1 and the one of ip"
        );
    });
}

#[test]
fn a_host_address_brings_no_route() {
    in_network(|| {
        make_cable("left", "right");
        let mut route = Route::open().unwrap();
        route.add_address(index_of("left"), IP, 32, None).unwrap();
        let shown = run("ip -4 -o address show left");
        assert!(
            shown.contains("10.9.8.7/32") && shown.contains("noprefixroute"),
            "{shown}"
        );
        assert!(!shown.contains("brd"), "{shown}");
        assert_eq!(run("ip route show"), "");
    });
}

#[test]
fn a_lifetime_is_renewed_and_lifted_by_adding_again() {
    in_network(|| {
        make_cable("left", "right");
        let left = index_of("left");
        let mut route = Route::open().unwrap();
        for (wanted, least) in [(100, 50), (5000, 4000)] {
            route
                .add_address(left, IP, 32, NonZeroU32::new(wanted))
                .unwrap();
            let valid = own(&mut route)[0].valid_seconds.unwrap();
            assert!((least..=wanted).contains(&valid), "{valid}");
        }
        route.add_address(left, IP, 32, None).unwrap();
        assert_eq!(own(&mut route)[0].valid_seconds, None);
        assert_eq!(own(&mut route).len(), 1);
    });
}

#[test]
fn the_kernel_itself_removes_an_address_that_is_not_renewed() {
    in_network(|| {
        make_cable("left", "right");
        let mut monitor = Monitor::open().unwrap();
        let mut route = Route::open().unwrap();
        route
            .add_address(index_of("left"), IP, 32, NonZeroU32::new(1))
            .unwrap();
        wait_for(
            &mut monitor,
            "the address expires",
            |change| matches!(change, Change::AddressDeleted(address) if address.ip == IP),
        );
        assert_eq!(own(&mut route), []);
    });
}

#[test]
fn errors_name_the_address_and_keep_the_kernels_answer() {
    in_network(|| {
        let mut route = Route::open().unwrap();
        let error = route.add_address(9999, IP, 24, None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot add address 10.9.8.7/24 on interface 9999"
        );
        assert_eq!(error.errno(), Some(libc::ENODEV));
        assert!(!route.delete_address(9999, IP, 24).unwrap());
        let error = route.add_address(index_of("lo"), IP, 33, None).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EINVAL));
        // The socket stays usable after refusals.
        assert!(route.link_by_name("lo").unwrap().is_some());
    });
}

#[test]
fn links_tell_name_hardware_address_and_carrier() {
    in_network(|| {
        make_cable("left", "right");
        run("ip link add bridge0 type bridge");
        run("ip link set right master bridge0");
        let mut route = Route::open().unwrap();
        let left = route.link_by_name("left").unwrap().unwrap();
        assert_eq!(
            (left.index, left.mac),
            (index_of("left"), Some(mac_of("left")))
        );
        assert_eq!(
            (left.up, left.running, left.mtu, left.master),
            (true, true, 1500, None)
        );
        let right = route.link_by_name("right").unwrap().unwrap();
        assert_eq!(right.master, Some(index_of("bridge0")));
        run("ip link set left down");
        let right = route.link_by_name("right").unwrap().unwrap();
        assert_eq!((right.up, right.running), (true, false));
        assert_eq!(route.link_by_name("absent").unwrap(), None);
    });
}

#[test]
fn the_monitor_tells_changes_of_links_and_addresses() {
    in_network(|| {
        let mut monitor = Monitor::open().unwrap();
        assert_eq!(monitor.next_change().unwrap(), None);
        make_cable("left", "right");
        wait_for(
            &mut monitor,
            "right runs",
            |change| matches!(change, Change::Link(link) if link.name == "right" && link.running),
        );
        run("ip link set left down");
        wait_for(&mut monitor, "right lost its carrier", |change| {
            matches!(change, Change::Link(link)
                if link.name == "right" && link.up && !link.running)
        });
        run("ip address add 10.9.8.7/24 dev right");
        wait_for(&mut monitor, "an address", |change| {
            matches!(change, Change::AddressAdded(address)
                if address.ip == IP && address.prefix == 24)
        });
        run("ip address delete 10.9.8.7/24 dev right");
        wait_for(
            &mut monitor,
            "no address",
            |change| matches!(change, Change::AddressDeleted(address) if address.ip == IP),
        );
        run("ip link delete left");
        wait_for(
            &mut monitor,
            "right is gone",
            |change| matches!(change, Change::LinkGone(link) if link.name == "right"),
        );
    });
}

#[test]
fn leaving_a_bridge_is_not_mistaken_for_a_removed_interface() {
    in_network(|| {
        make_cable("left", "right");
        run("ip link add bridge0 type bridge");
        let mut monitor = Monitor::open().unwrap();
        run("ip link set left master bridge0");
        run("ip link set left nomaster");
        run("ip link set left alias last");
        run("ip link delete bridge0");
        let gone = wait_for(&mut monitor, "an interface gone", |change| {
            matches!(change, Change::LinkGone(_))
        });
        assert!(matches!(gone, Change::LinkGone(link) if link.name == "bridge0"));
    });
}

#[test]
fn a_reader_that_is_too_slow_is_told_so() {
    in_network(|| {
        make_cable("left", "right");
        let mut monitor = Monitor::open().unwrap();
        let mut route = Route::open().unwrap();
        let left = index_of("left");
        // Far more notices than the buffer of the subscription holds.
        for _ in 0..3000 {
            route.add_address(left, IP, 32, None).unwrap();
            route.delete_address(left, IP, 32).unwrap();
        }
        wait_for(&mut monitor, "an overrun", |change| {
            *change == Change::Overrun
        });
        while monitor.next_change().unwrap().is_some() {}
        run("ip link set left down");
        wait_for(&mut monitor, "it goes on", |change| {
            matches!(change, Change::Link(_))
        });
    });
}
