//! The runner as the one who switches another node off: the core's order, a shell script for an
//! agent, and what comes back; and what a person asks on the control socket.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use standfast::engine::PowerOutcome;
use standfast::model::NodeId;
use standfast::node::power::desk::Wish;

use super::*;

/// Switches with a file: there is power while it is missing.
const AGENT: &str = "#!/bin/sh\n\
    while read -r line; do case $line in action=*) action=${line#action=} ;; esac; done\n\
    [ -e DIR/broken ] && { echo no route to the device; exit 1; }\n\
    case $action in\n\
    off) echo >DIR/off ;;\n\
    status) [ -e DIR/off ] && exit 2 ;;\n\
    esac\n\
    exit 0\n";

/// After the task: a second node, and a device for it.
const FENCED: &str = "\n[[task.object]]\nname = \"server\"\nkind = \"process\"\n\
    command = [\"/bin/sleep\", \"1000\"]\n\
    [[node]]\nname = \"b\"\nid = 2\n\
    [[link]]\nname = \"x\"\nkind = \"ethernet\"\ninterface = \"x\"\n\
    [[link]]\nname = \"d\"\nkind = \"disk\"\ndevice = \"/dev/d\"\n\
    [[fence]]\nname = \"bmc-b\"\nagent = \"DIR/agent\"\nnodes = [\"b\"]\n";

fn b() -> NodeId {
    NodeId::new(2).unwrap()
}

/// A runner whose device is tried, as soon as its agent is there.
fn node() -> Node {
    let node = Node::new(FENCED);
    let directory = node.directory.path();
    let text = AGENT.replace("DIR", &directory.display().to_string());
    let fresh = directory.join("agent.new");
    fs::write(&fresh, text).unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(fresh, directory.join("agent")).unwrap();
    node
}

fn outcome(node: &Node) -> (u64, PowerOutcome) {
    loop {
        match node.hear() {
            FromRunner::PowerFenced {
                node,
                epoch,
                outcome,
            } => {
                assert_eq!(node, b());
                return (epoch, outcome);
            }
            FromRunner::Report(Report::Note { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_core_has_a_node_switched_off_and_is_told_when_it_is() {
    let mut node = node();
    node.expect_hello(Found::Stopped);
    let broken = node.directory.path().join("broken");
    fs::write(&broken, "").unwrap();
    let epoch = Some(17);
    node.tell(&ToRunner::PowerFence { node: b(), epoch });
    let reason = "bmc-b off: exit code 1: no route to the device".to_owned();
    assert_eq!(outcome(&node), (17, PowerOutcome::Failed { reason }));
    fs::remove_file(&broken).unwrap();
    let by = "bmc-b".to_owned();
    assert_eq!(outcome(&node), (17, PowerOutcome::Off { by }));
    assert!(node.directory.path().join("off").exists());
}

#[test]
fn a_person_tries_the_devices_and_the_history_knows_who() {
    let mut node = node();
    node.expect_hello(Found::Stopped);
    let test = Request::Fence {
        node: b(),
        wish: Wish::Test,
    };
    let done = node.ask(&test);
    let good = "b can be switched off: level 1 bmc-b: good".to_owned();
    assert_eq!(done, Response::Done(good));
    fs::write(node.directory.path().join("broken"), "").unwrap();
    let Response::Error(refused) = node.ask(&test) else {
        panic!("the device is broken")
    };
    assert_eq!(refused.code, Code::Device);
    let why = "cannot fence b: level 1 bmc-b: bmc-b status: exit code 1: no route to the device";
    assert_eq!(refused.reason, why);
    let Response::Status(status) = node.ask(&Request::Status) else {
        panic!("no status")
    };
    let [fence] = &status.fences[..] else {
        panic!("{:?}", status.fences)
    };
    assert!(fence.trouble.is_some() && fence.node == b() && !fence.at_work);
    let history = Request::History {
        limit: 100,
        task: None,
    };
    let entries = eventually("the alarm and both questions", || {
        let Response::History(entries) = node.ask(&history) else {
            panic!("no history")
        };
        let asked = |entry: &&control::HistoryEntry| entry.asked_by.is_some();
        (entries.iter().filter(asked).count() == 2).then_some(entries)
    });
    let alarm = "cannot fence b: bmc-b status: exit code 1: no route to the device";
    let alarm = entries.iter().find(|entry| entry.record.outcome == alarm);
    assert_eq!(alarm.map(|entry| entry.record.class), Some(Class::Critical));
    let myself = Request::Fence {
        node: NodeId::new(1).unwrap(),
        wish: Wish::Off,
    };
    assert!(matches!(node.ask(&myself), Response::Error(refused) if refused.code == Code::Refused));
}
