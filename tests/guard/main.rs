//! The guard on the real kernel: addresses, announcements, cgroups, the watchdog's stand-in. Needs
//! root. The test is the core (it writes the page) and the runner (it asks on guard.sock).

mod daemon;
mod disks;
mod falls;
mod rig;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rig::{ADDRESS, Client, Rig, Running, address, eventually, in_network, link, readable, run};
use standfast::config::{DETECT_MAX, Timing};
use standfast::node::guard::queue;
use standfast::node::messages::FromGuard;
use standfast::node::page::word;
use standfast_sys::clock::boottime_ns;
use standfast_sys::netlink::{Change, Monitor, OWN_PROTOCOL, Route};
use standfast_sys::packet::{ArpOperation, ArpSocket};

/// Runs the test beside a guard that holds the address of task 0 under a lease, and ends the guard.
fn holding(test: impl FnOnce(&mut Client) + Send + 'static) {
    in_network(|| {
        let mut rig = Rig::new();
        let guard = rig.guard();
        rig.grant(0b01);
        let mut client = rig.client();
        assert_eq!(client.hold(0), FromGuard::Yes);
        test(&mut client);
        end(guard);
        assert_eq!(address(0), None);
    });
}

/// Ends a guard and checks that it proved everything to be released.
fn end(guard: Running) {
    guard.control.end();
    assert!(guard.thread.join().unwrap(), "released and verified");
}

fn gone(task: usize) {
    eventually("the address is gone", || {
        address(task).is_none().then_some(())
    });
}

#[test]
fn a_held_address_is_added_with_a_lifetime_and_announced() {
    in_network(|| {
        let peer = ArpSocket::open(link("peer").index, link("peer").mac.unwrap()).unwrap();
        let mut rig = Rig::new();
        let guard = rig.guard();
        rig.grant(0b01);
        let mut client = rig.client();
        assert_eq!(client.held(0), FromGuard::No);
        assert_eq!(client.hold(0), FromGuard::Yes);
        assert_eq!(client.hold(0), FromGuard::Yes);
        assert_eq!(client.held(0), FromGuard::Yes);
        let added = address(0).expect("the kernel has it");
        assert_eq!((added.protocol, added.prefix), (Some(OWN_PROTOCOL), 24));
        assert!(added.valid_seconds.is_some_and(|seconds| seconds <= 1));
        // At once and again: requests and replies, from the interface's own address.
        let mut heard = Vec::new();
        while heard.len() < 6 {
            readable(&peer);
            while let Some(packet) = peer.recv().unwrap() {
                if packet.sender_ip == ADDRESS[0] && packet.target_ip == ADDRESS[0] {
                    assert_eq!(Some(packet.sender_mac), link("svc").mac);
                    heard.push(packet.operation);
                }
            }
        }
        assert_eq!(heard[..2], [ArpOperation::Request, ArpOperation::Reply]);
        assert_eq!(client.release(0), FromGuard::Yes);
        assert_eq!(address(0), None);
        assert_eq!(client.release(0), FromGuard::Yes);
        assert_eq!(client.held(0), FromGuard::No);
        end(guard);
    });
}

#[test]
fn nothing_is_held_without_lease_grant_or_interface() {
    in_network(|| {
        let mut rig = Rig::new();
        let guard = rig.guard();
        let mut client = rig.client();
        let refused = |answer: FromGuard, why: &str| match answer {
            FromGuard::Refused { reason } => assert!(reason.contains(why), "{reason}"),
            other => panic!("{other:?}"),
        };
        rig.store(word::GRANTED, 0b01);
        refused(client.hold(0), "no lease");
        rig.grant(0b01);
        eventually("the lease is seen", || {
            (client.hold(0) == FromGuard::Yes).then_some(())
        });
        refused(client.hold(1), "not granted");
        refused(client.hold(7), "no such address");
        run("ip link delete svc");
        assert!(client.notice("is gone"));
        assert_eq!(client.release(0), FromGuard::Yes);
        refused(client.hold(0), "no interface svc");
        end(guard);
    });
}

#[test]
fn the_end_of_the_lease_takes_everything_back_and_nothing_new_survives() {
    in_network(|| {
        let mut rig = Rig::new();
        let guard = rig.guard();
        rig.grant(0b01);
        let mut client = rig.client();
        assert_eq!(client.hold(0), FromGuard::Yes);
        let sleeper = rig.sleeper(0);
        eventually("counted", || (rig.load(word::ADDRESSES) == 1).then_some(()));
        rig.lease(false);
        eventually("killed", || rig.is_dead(sleeper).then_some(()));
        eventually("told", || (rig.load(word::REVOCATIONS) == 1).then_some(()));
        assert_eq!(rig.load(word::REVOKED), 0b01);
        assert_eq!(address(0), None);
        eventually("counted", || (rig.load(word::ADDRESSES) == 0).then_some(()));
        assert!(matches!(client.hold(0), FromGuard::Refused { .. }));
        // The runner was a moment too late.
        let late = rig.sleeper(1);
        eventually("killed", || rig.is_dead(late).then_some(()));
        eventually("told", || (rig.load(word::REVOKED) == 0b11).then_some(()));
        end(guard);
        assert_eq!(rig.load(word::REVOCATIONS), 2);
    });
}

#[test]
fn a_lease_that_ends_early_is_followed_at_the_ring_of_the_bell() {
    in_network(|| {
        // A heartbeat of 6 s: left alone, the guard would look so much later.
        let timing = Timing::from_detect(DETECT_MAX);
        let rig = Rig::new();
        let guard = rig.guard_with(timing);
        rig.store(word::LEASE_DEADLINE, boottime_ns() + timing.lease.0);
        rig.store(word::GRANTED, 0b01);
        let mut client = rig.client();
        assert_eq!(client.hold(0), FromGuard::Yes);
        rig.store(word::LEASE_DEADLINE, boottime_ns());
        let bell = guard.control.bell().unwrap();
        nix::unistd::write(&bell, &1_u64.to_ne_bytes()).unwrap();
        let rung = boottime_ns();
        eventually("taken back", || address(0).is_none().then_some(()));
        assert!(rig.load(word::GUARD_TURN_AT) < rung + timing.heartbeat.over(2).0);
        end(guard);
    });
}

#[test]
fn an_address_deleted_by_a_stranger_comes_back() {
    holding(|client| {
        for _ in 0..3 {
            run(&format!("ip address delete {}/24 dev svc", ADDRESS[0]));
            eventually("it is back", || address(0));
        }
        assert!(!client.notice("somebody deleted it"));
    });
}

#[test]
fn renewals_keep_an_address_beyond_its_lifetime() {
    holding(|_| {
        let mut monitor = Monitor::open().unwrap();
        // Four renewals in each lifetime.
        let mut renewals = 0;
        while renewals < 13 {
            readable(&monitor);
            while let Some(change) = monitor.next_change().unwrap() {
                match change {
                    Change::AddressAdded(address) if address.ip == ADDRESS[0] => renewals += 1,
                    Change::AddressDeleted(address) => panic!("lost: {address:?}"),
                    _ => {}
                }
            }
        }
    });
}

#[test]
fn a_lost_carrier_and_a_lost_interface_are_told_and_mended() {
    holding(|client| {
        run("ip link set peer down");
        assert!(client.notice("has no carrier"));
        run("ip link set peer up");
        assert!(!client.notice("is usable"));
        run("ip link delete svc");
        assert!(client.notice("is gone"));
        assert_eq!(client.held(0), FromGuard::No);
        rig::make_cable();
        assert!(!client.notice("is usable"));
        eventually("it is back", || address(0));
        let peer = ArpSocket::open(link("peer").index, link("peer").mac.unwrap()).unwrap();
        eventually("it is announced from the new interface", || {
            let packet = peer.recv().unwrap()?;
            (packet.sender_ip == ADDRESS[0] && Some(packet.sender_mac) == link("svc").mac)
                .then_some(())
        });
    });
}

#[test]
fn a_rival_is_named_and_answered() {
    holding(|client| {
        let peer = link("peer").index;
        let ear = ArpSocket::open(peer, link("peer").mac.unwrap()).unwrap();
        let rival = ArpSocket::open(peer, [2, 0, 0, 0, 0, 0x99]).unwrap();
        rival.announce(Ipv4Addr::new(10, 9, 8, 77)).unwrap();
        rival.announce(ADDRESS[0]).unwrap();
        assert!(!client.notice("02:00:00:00:00:99 on svc claims"));
        let answers = || {
            let packet = ear.recv().unwrap()?;
            (Some(packet.sender_mac) == link("svc").mac).then_some(())
        };
        eventually("an answer", answers);
    });
}

#[test]
fn a_stopped_guard_is_outlived_by_the_kernel_and_wakes_up_to_let_go() {
    in_network(|| {
        let mut rig = Rig::new();
        let mut guard = rig.guard_process();
        rig.grant(0b01);
        let mut client = rig.client();
        eventually("held", || (client.hold(0) == FromGuard::Yes).then_some(()));
        let sleeper = rig.sleeper(0);
        let pid = Pid::from_raw(guard.id().cast_signed());
        kill(pid, Signal::SIGSTOP).unwrap();
        rig.lease(false);
        gone(0);
        assert!(!rig.is_dead(sleeper));
        kill(pid, Signal::SIGCONT).unwrap();
        eventually("killed", || rig.is_dead(sleeper).then_some(()));
        eventually("told", || (rig.load(word::REVOKED) == 0b01).then_some(()));
        assert_eq!(address(0), None);
        guard.kill().unwrap();
        guard.wait().unwrap();
    });
}

#[test]
fn a_guard_that_starts_again_keeps_what_it_may_and_takes_back_the_rest() {
    in_network(|| {
        let mut rig = Rig::new();
        let mut first = rig.guard_process();
        rig.grant(0b11);
        let mut client = rig.client();
        for task in 0..2 {
            eventually("held", || {
                (client.hold(task) == FromGuard::Yes).then_some(())
            });
        }
        let sleeper = rig.sleeper(0);
        first.kill().unwrap();
        first.wait().unwrap();
        let (svc, leftover) = (link("svc").index, Ipv4Addr::new(10, 9, 8, 3));
        Route::open()
            .unwrap()
            .add_address(svc, leftover, 24, None)
            .unwrap();
        rig.store(word::GRANTED, 0b01);
        let mut monitor = Monitor::open().unwrap();
        let mut second = rig.guard_process();
        let mut client = rig.client();
        assert_eq!(client.held(0), FromGuard::Yes, "under the old lease");
        assert_eq!(client.held(1), FromGuard::No, "not granted any more");
        gone(1);
        let leftovers = run("ip -4 -o address show dev svc");
        assert!(!leftovers.contains("10.9.8.3"), "{leftovers}");
        assert!(!rig.is_dead(sleeper));
        eventually("it is renewed", || {
            match monitor.next_change().unwrap()? {
                Change::AddressAdded(address) => (address.ip == ADDRESS[0]).then_some(()),
                _ => None,
            }
        });
        second.kill().unwrap();
        second.wait().unwrap();
        // Nobody is there when the lease ends; the third guard finds it over.
        rig.lease(false);
        rig.store(word::LEASE_DEADLINE, 1);
        let mut third = rig.guard_process();
        eventually("killed", || rig.is_dead(sleeper).then_some(()));
        gone(0);
        third.kill().unwrap();
        third.wait().unwrap();
    });
}

#[test]
fn the_watchdog_is_petted_under_a_lease_or_with_nothing_to_protect() {
    in_network(|| {
        let disk = stuck::Disk::new();
        let mut rig = Rig::new();
        let guard = rig.guard();
        let (voice, _ear) = queue();
        let petter = watchdog::open(&rig, &guard, &voice);
        let ending = Arc::new(standfast::node::guard::Ending::default());
        let own = ending.clone();
        let petting = std::thread::spawn(move || petter.run(&own));
        let pets = |rig: &Rig| {
            let last = rig.load(word::PET_AT);
            eventually("a pet", || (rig.load(word::PET_AT) != last).then_some(()));
        };
        pets(&rig);
        rig.grant(0b01);
        pets(&rig);
        // A process that not even SIGKILL ends, because its disk is frozen.
        let mut process = disk.writer(&rig.cgroup(0));
        pets(&rig);
        rig.lease(false);
        eventually("told", || (rig.load(word::REVOKED) == 0b01).then_some(()));
        let last = rig.load(word::PET_AT);
        let turns = rig.load(word::GUARD_TURN_AT);
        // Many turns and more than two pets later.
        eventually("time passes", || {
            (rig.load(word::GUARD_TURN_AT) > turns + 1_000_000_000).then_some(())
        });
        assert_eq!(rig.load(word::PET_AT), last, "something may still run");
        assert!(process.try_wait().unwrap().is_none());
        // Not even a new lease helps: the release was begun and is not finished.
        rig.lease(true);
        let turns = rig.load(word::GUARD_TURN_AT);
        eventually("time passes", || {
            (rig.load(word::GUARD_TURN_AT) > turns + 1_000_000_000).then_some(())
        });
        assert_eq!(rig.load(word::PET_AT), last, "something still runs");
        disk.thaw();
        process.wait().unwrap();
        pets(&rig);
        end(guard);
        ending.end(true);
        petting.thread().unpark();
        petting.join().unwrap();
        assert_eq!(
            std::fs::read(rig.run_dir().join("watchdog")).unwrap(),
            b"V",
            "disarmed"
        );
    });
}

/// Runs a guard until it is killed; started by other tests as a process of its own. By itself it
/// does nothing.
#[test]
fn child_guard() {
    let Ok(directory) = std::env::var("GUARD_DIRECTORY") else {
        return;
    };
    let name = std::env::var("GUARD_NAME").unwrap();
    let guard = rig::start_guard(&PathBuf::from(directory), &name, rig::timing());
    let _ = guard.thread.join();
}

/// The stand-in of a watchdog with a timeout of one second.
mod watchdog {
    use super::*;
    use standfast::config::WatchdogSource;
    use standfast::node::guard::{Petter, Voice};

    pub(super) fn open(rig: &Rig, guard: &Running, voice: &Voice) -> Petter {
        let path = rig.run_dir().join("watchdog");
        let source = WatchdogSource::StandIn(path.to_str().unwrap().to_owned());
        let (page, control) = (rig.page.clone(), guard.control.clone());
        let timeout = standfast::time::Span::from_ms(1_000);
        let detect = rig::timing().detect;
        let opened = Petter::open(&source, timeout, detect, page, control, voice);
        opened.unwrap().unwrap()
    }
}

/// A disk that hangs: a file system on a loop device, frozen.
mod stuck {
    use super::*;
    use standfast_sys::cgroup::Cgroup;
    use std::process::{Child, Command, Stdio};

    pub(super) struct Disk {
        directory: tempfile::TempDir,
    }

    impl Disk {
        pub(super) fn new() -> Disk {
            Disk::frozen_after(|_| ())
        }

        /// What the file system holds is made before it freezes.
        pub(super) fn frozen_after(fill: impl FnOnce(&Path)) -> Disk {
            let directory = tempfile::tempdir().unwrap();
            let image = directory.path().join("image");
            std::fs::File::create(&image)
                .unwrap()
                .set_len(8 << 20)
                .unwrap();
            run(&format!("mkfs.ext4 -q {}", image.display()));
            let disk = Disk { directory };
            std::fs::create_dir(disk.mount()).unwrap();
            run(&format!(
                "mount -o loop {} {}",
                image.display(),
                disk.mount().display()
            ));
            fill(&disk.mount());
            run(&format!("fsfreeze -f {}", disk.mount().display()));
            disk
        }

        pub(super) fn mount(&self) -> PathBuf {
            self.directory.path().join("mount")
        }

        /// A process in the group that hangs in a write.
        pub(super) fn writer(&self, group: &Cgroup) -> Child {
            let file = self.mount().join("file");
            let mut command = Command::new("dd");
            command
                .arg("if=/dev/zero")
                .arg(format!("of={}", file.display()))
                .arg("count=1");
            let child = command.stderr(Stdio::null()).spawn().unwrap();
            group.add(child.id().cast_signed()).unwrap();
            eventually("it hangs", || {
                let state = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
                state.contains(") D ").then_some(())
            });
            child
        }

        pub(super) fn thaw(&self) {
            run(&format!("fsfreeze -u {}", self.mount().display()));
        }
    }

    impl Drop for Disk {
        fn drop(&mut self) {
            let mount = self.mount();
            let _ = Command::new("fsfreeze")
                .arg("-u")
                .arg(&mount)
                .stderr(Stdio::null())
                .status();
            eventually("unmounted", || {
                let status = Command::new("umount").arg(&mount).status();
                status.is_ok_and(|status| status.success()).then_some(())
            });
        }
    }
}
