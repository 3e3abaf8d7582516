//! A register on three disks: `disk format` of all of them, and of a new one in the place of a dead
//! one.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use standfast::node::control::Response;

use crate::rig::{Place, Ran, overwrite};

/// Enough for an area of 64 nodes.
const ENOUGH: u64 = 4 << 20;

/// A cluster with three register disks, and the disks' paths.
fn three() -> (Place, [String; 3]) {
    let place = Place::new();
    let disks = ["disk", "disk-2", "disk-3"].map(|name| blank(&place, name));
    let [_, second, third] = &disks;
    let ran = place.init("pair", &["--disk", second, "--disk", third]);
    ran.exits(0)
        .says(&format!("disk format {}", disks.join(" ")));
    (place, disks)
}

fn blank(place: &Place, name: &str) -> String {
    let path = place.path(name);
    fs::File::create(&path).unwrap().set_len(ENOUGH).unwrap();
    path.to_str().unwrap().to_owned()
}

fn format(place: &Place, devices: &[&String], more: &[&str]) -> Ran {
    let devices: Vec<&str> = devices.iter().map(|device| device.as_str()).collect();
    place.run(&[["disk", "format"].as_slice(), &devices, more].concat())
}

fn header(place: &Place, device: &str) -> serde_json::Value {
    let ran = place.run(&["disk", "show", device, "--json"]).exits(0);
    ran.json()["header"].clone()
}

#[test]
fn three_disks_are_formatted_as_one_register() {
    let (place, [a, b, c]) = three();
    let ran = format(&place, &[&a, &b, &c], &[]).exits(0);
    ran.says("register by paxos on 3 disks");
    for (number, disk) in (1..).zip([&a, &b, &c]) {
        let header = header(&place, disk);
        assert_eq!(
            (&header["disk"], &header["disks"]),
            (&number.into(), &3.into())
        );
        let ran = place.run(&["disk", "show", disk]).exits(0);
        ran.says(&format!("disk {number} of its 3"));
    }
    let ran = place.run(&["check", "--live", "--json"]);
    let problems = ran.json()["problems"].to_string();
    assert!(!problems.contains("register"), "{problems}");
    place
        .run(&["check"])
        .exits(0)
        .says("goes on while any 2 of them answer");
}

#[test]
fn what_would_make_no_register_of_three_is_refused_before_anything_is_written() {
    let (place, [a, b, c]) = three();
    format(&place, &[&a], &[])
        .exits(2)
        .warns("has 3 register disks, 1 named");
    format(&place, &[&a, &b], &[])
        .exits(2)
        .warns("3 register disks, 2 named");
    format(&place, &[&a, &c, &b], &[])
        .exits(2)
        .warns("is disk 3 in the configuration and named as disk 2")
        .warns("keep the order of the links");
    format(&place, &[&a, &b, &b], &[])
        .exits(2)
        .warns("are one disk");
    format(&place, &[&a, &b, &c], &["--register", "compare-and-write"])
        .exits(2)
        .warns("changes one disk");
    overwrite(c.as_ref(), 0, b"something");
    format(&place, &[&a, &b, &c], &[])
        .exits(4)
        .warns("disk-3 is not empty");
    for disk in [&a, &b] {
        assert!(
            fs::read(disk).unwrap().iter().all(|byte| *byte == 0),
            "{disk}"
        );
    }
    let one = Place::with_cluster();
    let disks = [1, 2, 3].map(|number| blank(&one, &number.to_string()));
    let [a, b, c] = disks.each_ref();
    format(&one, &[a, b, c], &[])
        .exits(2)
        .warns("has one register disk");
    format(&one, &[a], &["--replace"])
        .exits(2)
        .warns("nothing to fill from");
}

#[test]
fn a_dead_disk_is_replaced_and_never_counts_again() {
    let (place, [a, b, c]) = three();
    format(&place, &[&a, &b, &c], &[]).exits(0);
    let old = fs::read(&b).unwrap();
    fs::remove_file(&b).unwrap();
    blank(&place, "disk-2");
    format(&place, &[&b], &["--replace"])
        .exits(0)
        .says("is disk 2 of the register now");
    assert_eq!(header(&place, &b)["disk"], 2);
    let ran = place.run(&["check", "--live", "--json"]);
    assert!(!ran.out.contains("in its place"), "{}", ran.out);
    // The dead one is back, under the name of the new one.
    fs::write(&b, old).unwrap();
    let ran = place.run(&["check", "--live"]);
    ran.says("disk-2`: the two other disks");
    // Nor does it help to replace another one.
    fs::remove_file(&c).unwrap();
    blank(&place, "disk-3");
    format(&place, &[&c], &["--replace"])
        .exits(4)
        .warns("do not know each other");
    // What was there is asked for, as in every format.
    format(&place, &[&b], &["--replace"])
        .exits(6)
        .warns("blank");
}

#[test]
fn a_replacement_needs_both_others_in_their_places() {
    let (place, [a, b, c]) = three();
    format(&place, &[&a, &b, &c], &[]).exits(0);
    format(&place, &[&b], &["--replace"])
        .exits(4)
        .warns("formatted already");
    format(&place, &[&b], &["--replace", "--force"]).exits(0);
    format(&place, &[&a, &b], &["--replace"])
        .exits(2)
        .warns("takes one device");
    let stray = blank(&place, "stray");
    format(&place, &[&stray], &["--replace"])
        .exits(2)
        .warns("no link of kind disk of this node has the device");
    let (one, two) = (fs::read(&a).unwrap(), fs::read(&b).unwrap());
    fs::write(&a, two).unwrap();
    format(&place, &[&c], &["--replace", "--force"])
        .exits(4)
        .warns("is disk 2 of 3 in its register, but disk 1 in the configuration");
    place
        .run(&["check", "--live"])
        .says("this is disk 2 of the register, the link is that of disk 1");
    fs::write(&a, one).unwrap();
    fs::remove_file(&a).unwrap();
    format(&place, &[&c], &["--replace", "--force"])
        .exits(6)
        .warns("/disk");
}

#[test]
fn a_replacement_under_a_running_node_is_refused() {
    let (place, [a, b, c]) = three();
    format(&place, &[&a, &b, &c], &[]).exits(0);
    let (stop, beaten) = (Arc::new(AtomicBool::new(false)), b.clone());
    let ends = stop.clone();
    let heart = thread::spawn(move || {
        let begun = Instant::now();
        for beat in 0_u64.. {
            overwrite(beaten.as_ref(), 8192, &beat.to_le_bytes());
            if ends.load(Ordering::Relaxed) || begun.elapsed() > Duration::from_secs(60) {
                return;
            }
        }
    });
    let ran = format(&place, &[&c], &["--replace", "--force"]);
    stop.store(true, Ordering::Relaxed);
    heart.join().unwrap();
    ran.exits(4)
        .warns("disk-2 is the disk of a running cluster");
    // A daemon may run without reaching either disk.
    place.serve(|_| Response::Version("0.1.0".into()));
    let ran = format(&place, &[&c], &["--replace", "--force"]);
    ran.exits(4).warns("Standfast runs on this node");
}
