//! `fence`, and what `status` and `check` say of the devices that switch nodes off.

use std::sync::{Arc, Mutex};

use standfast::node::control::{Code, Refused, Request, Response, Status};
use standfast::node::power::desk::{DeviceStatus, FenceStatus, Wish};

use crate::rig::{Place, node, well};

/// The cluster as it should be, with a device of node b in trouble or not.
fn fenced(trouble: Option<&str>) -> Status {
    let trouble = trouble.map(str::to_owned);
    Status {
        fences: vec![FenceStatus {
            node: node(2),
            devices: vec![DeviceStatus {
                name: "bmc-b".into(),
                level: 1,
                trouble: trouble.clone(),
            }],
            tried_ms: Some(90_000.0),
            trouble,
            at_work: false,
        }],
        ..well()
    }
}

/// What a daemon was asked about power.
type Asked = Arc<Mutex<Vec<(u8, Wish)>>>;

/// A daemon that answers questions about power with this, and what it was asked.
fn place(answer: Response) -> (Place, Asked) {
    let (place, asked) = (Place::new(), Asked::default());
    let own = Arc::clone(&asked);
    place.serve(move |request| match request {
        Request::Fence { node, wish } => {
            own.lock().unwrap().push((node.number(), wish));
            answer.clone()
        }
        _ => Response::Status(Box::new(fenced(None))),
    });
    (place, asked)
}

#[test]
fn a_test_switches_nothing_and_tells_what_the_daemon_says() {
    let (place, asked) = place(Response::Done("b can be switched off".into()));
    let ran = place.run(&["fence", "test", "b"]).exits(0);
    assert_eq!(ran.out, "b can be switched off\n");
    assert_eq!(*asked.lock().unwrap(), [(2, Wish::Test)]);
}

#[test]
fn a_node_is_switched_off_only_by_somebody_who_says_yes() {
    let (place, asked) = place(Response::Done("b is off, says bmc-b".into()));
    let ran = place.run(&["fence", "b"]).exits(4);
    ran.says("switch b off, without asking it; it is heard (12 ms ago, member)")
        .warns("no terminal to ask on");
    place
        .run(&["fence", "a", "--yes"])
        .exits(4)
        .warns("is this node");
    place
        .run(&["fence", "c", "--yes"])
        .exits(2)
        .warns("there is no node `c`");
    place.run(&["fence"]).exits(2).warns("no node is named");
    assert_eq!(*asked.lock().unwrap(), []);
    let ran = place.run(&["fence", "b", "--yes"]).exits(0);
    ran.says("b is off, says bmc-b");
    assert_eq!(*asked.lock().unwrap(), [(2, Wish::Off)]);
}

#[test]
fn a_device_that_fails_is_exit_6_with_the_reason() {
    let (place, _) = place(Response::Error(Refused {
        code: Code::Device,
        reason: "b was not switched off: bmc-b off: no answer within 60 s".into(),
        remedy: "look at the device".into(),
    }));
    let ran = place.run(&["fence", "b", "--yes"]).exits(6);
    ran.warns("no answer within 60 s")
        .warns("look at the device");
}

#[test]
fn a_device_in_trouble_needs_attention_before_the_day_of_need() {
    let good = Place::new();
    good.serve(|_| Response::Status(Box::new(fenced(None))));
    let ran = good.run(&["status"]).exits(0).says("FENCE OF");
    ran.says("b         ready  1m 30s ago  bmc-b (level 1)");
    let bad = Place::new();
    bad.serve(|_| Response::Status(Box::new(fenced(Some("bmc-b status: exit code 1")))));
    let ran = bad.run(&["status"]).exits(1).says("FAILS");
    ran.says("! cannot fence b: bmc-b status: exit code 1");
    let report = bad.run(&["status", "--json"]).exits(1).json();
    assert_eq!(report["fences"][0]["node"], "b");
    assert_eq!(
        report["alarms"][0],
        "cannot fence b: bmc-b status: exit code 1"
    );
}

#[test]
fn check_lists_the_devices_and_who_has_none() {
    let place = Place::with_cluster();
    place.configure(
        "\n[[fence]]\nname = \"bmc-b\"\nagent = \"fence_of_nobody\"\nnodes = [\"b\"]\n\
         action = \"reboot\"\noptions = { password = \"geheim\" }\n",
    );
    let ran = place.run(&["check"]).exits(0).says("FENCE  LEVEL");
    let ran = ran.says("bmc-b  1      b         reboot  /usr/sbin/fence_of_nobody, 1m at most");
    let ran = ran.says("Nothing can switch off a.");
    assert!(!ran.out.contains("geheim"));
    let report = place.run(&["check", "--json"]).json();
    assert_eq!(report["fences"][0]["nodes"], serde_json::json!(["b"]));
    let ran = place.run(&["check", "--live"]).exits(2);
    ran.says("fence `bmc-b`: /usr/sbin/fence_of_nobody cannot be run");
}
