//! Agents are shell scripts here, as an administrator could write them; no device is touched.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use nix::sys::eventfd::EventFd;

use super::agent::{Action, Call, NoAnswer};
use super::desk::{Desk, Said, Wish};
use super::ladder::{Devices, Ladder, NotOff, hopeless};
use crate::config::Config;
use crate::engine::{Class, PowerOutcome};
use crate::model::NodeId;
use crate::object::{Cancel, Urgency, kind_rows};

const PATIENCE: Duration = Duration::from_secs(20);

/// Reads its options as agents do, keeps the state of each plug in a file, writes down all calls,
/// and does what a file `misbehave` says: a shell command to run before anything else.
const AGENT: &str = r#"#!/bin/sh
here=$(dirname "$0")
while read -r line; do
    case "$line" in
    action=*) action=${line#action=} ;;
    plug=*) plug=${line#plug=} ;;
    name=*) name=${line#name=} ;;
    nodename=*) node=${line#nodename=} ;;
    password=*) password=${line#password=} ;;
    esac
done
echo "$name $action $node $plug" >>"$here/calls"
[ -e "$here/misbehave" ] && . "$here/misbehave"
state="$here/state-$name-$plug"
case "$action" in
off) echo off >"$state" ;;
on) rm -f "$state" ;;
status) [ -e "$state" ] && exit 2 ;;
esac
exit 0
"#;

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place {
            directory: tempfile::tempdir().unwrap(),
        };
        let agent = place.agent();
        fs::write(&agent, AGENT).unwrap();
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).unwrap();
        place
    }

    fn agent(&self) -> PathBuf {
        self.directory.path().join("fence_script")
    }

    fn misbehave(&self, command: &str) {
        let path = self.directory.path().join("misbehave");
        let fresh = path.with_extension("new");
        fs::write(&fresh, command).unwrap();
        fs::rename(fresh, path).unwrap();
    }

    fn behave(&self) {
        fs::remove_file(self.directory.path().join("misbehave")).unwrap();
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.directory.path().join("calls"));
        calls
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// Nodes a and b, and these devices of b: name, level, action.
    fn config(&self, fences: &[(&str, u8, &str)]) -> Config {
        let mut text = "[cluster]\nname = \"t\"\nid = \"07070707070707070707070707070707\"\n\
                        detect = \"500ms\"\n"
            .to_owned();
        for (id, name) in [(1, "a"), (2, "b")] {
            text += &format!("[[node]]\nname = \"{name}\"\nid = {id}\n");
        }
        text += "[[link]]\nname = \"x\"\nkind = \"ethernet\"\ninterface = \"x\"\n\
                 [[link]]\nname = \"d\"\nkind = \"disk\"\ndevice = \"/dev/d\"\n";
        for (name, level, action) in fences {
            text += &format!(
                "[[fence]]\nname = \"{name}\"\nagent = \"{}\"\nplug = {{ b = \"7\" }}\n\
                 level = {level}\naction = \"{action}\"\ntimeout = \"2s\"\n\
                 options = {{ name = \"{name}\", password = \"se cret\" }}\n",
                self.agent().display()
            );
        }
        Config::parse(&text, &kind_rows()).unwrap_or_else(|errors| panic!("{errors:?}"))
    }

    fn ladder(&self, fences: &[(&str, u8, &str)]) -> Ladder {
        let config = self.config(fences);
        let b = config.node("b").unwrap();
        Devices::of(&config).ladder(b).unwrap()
    }
}

fn b() -> NodeId {
    NodeId::new(2).unwrap()
}

fn never() -> Cancel {
    Cancel::new().unwrap()
}

fn failed(result: Result<u8, NotOff>) -> String {
    match result {
        Err(NotOff::Failed(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn off_counts_when_every_device_of_a_level_says_so_twice() {
    let place = Place::new();
    let ladder = place.ladder(&[("one", 1, "off"), ("two", 1, "off"), ("last", 2, "off")]);
    assert_eq!(ladder.switch_off(&never()), Ok(1));
    let calls = [
        "one off b 7",
        "two off b 7",
        "one status b 7",
        "two status b 7",
    ];
    assert_eq!(place.calls(), calls);
    assert_eq!(ladder.names(1), "one, two");
}

#[test]
fn an_agent_that_lies_is_found_out_and_the_next_level_is_tried() {
    let place = Place::new();
    place.misbehave("[ $name = one ] && [ $action = off ] && exit 0");
    let ladder = place.ladder(&[("one", 1, "off"), ("two", 2, "off")]);
    assert_eq!(ladder.switch_off(&never()), Ok(2));
    place.misbehave("[ $action = off ] && exit 0");
    let ladder = place.ladder(&[("three", 1, "off"), ("four", 3, "off")]);
    let why = failed(ladder.switch_off(&never()));
    assert_eq!(
        why,
        "three says that it is still on; four says that it is still on"
    );
}

#[test]
fn only_exit_code_0_is_success_and_the_reason_is_told_without_the_password() {
    let place = Place::new();
    place.misbehave("echo talk; echo \"login as se cret with $password refused\" >&2; exit 3");
    let ladder = place.ladder(&[("one", 1, "off")]);
    let why = failed(ladder.switch_off(&never()));
    assert_eq!(why, "one off: exit code 3: login as *** with *** refused");
    place.misbehave("[ $action = status ] && exit 1");
    let why = failed(ladder.switch_off(&never()));
    assert_eq!(why, "one status: exit code 1");
    place.misbehave("kill -9 $$");
    let why = failed(ladder.switch_off(&never()));
    assert_eq!(why, "one off: killed by a signal");
    let shown = format!("{:?}", place.config(&[("one", 1, "off")]));
    assert!(
        shown.contains("***") && !shown.contains("se cret"),
        "{shown}"
    );
}

fn call(agent: &Path, timeout: Duration) -> Result<(), NoAnswer> {
    let agent = agent.to_str().unwrap();
    let call = Call {
        agent,
        action: Action::Off,
        options: &[],
        plug: None,
        node: "b",
        timeout,
    };
    call.run(&never()).map(drop)
}

#[test]
fn an_agent_that_does_not_end_is_killed_with_what_it_has_started() {
    let place = Place::new();
    let pids = place.directory.path().join("pids");
    let hang = format!(
        "trap '' TERM; sleep 1000 & echo $! $$ >{}; wait; sleep 1000",
        pids.display()
    );
    place.misbehave(&hang);
    let late = call(&place.agent(), Duration::from_millis(500)).unwrap_err();
    assert!(matches!(late, NoAnswer::Late(_)), "{late}");
    for pid in fs::read_to_string(&pids).unwrap().split_whitespace() {
        // Dead: gone, or waiting for whoever inherits it to look.
        eventually("the end of what it has started", || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.map_or(true, |stat| stat.contains(") Z "))
                .then_some(())
        });
    }
    let missing = call(Path::new("/nowhere/fence_x"), PATIENCE).unwrap_err();
    assert_eq!(missing.to_string(), "/nowhere/fence_x cannot be run");
}

#[test]
fn an_agent_that_says_very_much_or_leaves_a_child_behind_is_not_waited_for() {
    let place = Place::new();
    place.misbehave("head -c 1000000 /dev/zero | tr '\\0' x; echo; echo end; sleep 1000 & exit 1");
    let ladder = place.ladder(&[("one", 1, "off")]);
    assert_eq!(
        failed(ladder.switch_off(&never())),
        "one off: exit code 1: end"
    );
}

#[test]
fn a_call_is_called_off_at_once() {
    let place = Place::new();
    place.misbehave("sleep 1000");
    let ladder = place.ladder(&[("one", 1, "off")]);
    let cancel = Arc::new(never());
    let own = Arc::clone(&cancel);
    let thread = std::thread::spawn(move || ladder.switch_off(&own));
    eventually("the call", || (!place.calls().is_empty()).then_some(()));
    cancel.raise(Urgency::Forced);
    assert_eq!(thread.join().unwrap(), Err(NotOff::CalledOff));
}

#[test]
fn a_test_asks_every_device_and_one_whole_level_is_hope() {
    let place = Place::new();
    let ladder = place.ladder(&[("one", 1, "off"), ("two", 1, "off"), ("last", 2, "off")]);
    let tried = ladder.test(&never()).unwrap();
    assert!(tried.iter().all(|device| device.trouble.is_none()));
    assert_eq!(
        place.calls(),
        ["one status b 7", "two status b 7", "last status b 7"]
    );
    place.misbehave("[ $name = two ] && exit 1");
    let tried = ladder.test(&never()).unwrap();
    assert_eq!(tried[1].trouble.as_deref(), Some("two status: exit code 1"));
    assert_eq!(hopeless(&tried), None);
    place.misbehave("[ $name != one ] && exit 1");
    let tried = ladder.test(&never()).unwrap();
    let why = "two status: exit code 1; last status: exit code 1";
    assert_eq!(hopeless(&tried).as_deref(), Some(why));
    assert_eq!(hopeless(&[]), None);
}

/// Asks again and again until there is an answer.
fn eventually<T>(what: &str, mut question: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::yield_now();
    }
}

/// The desk of node a, after its first test.
fn open_desk(place: &Place, fences: &[(&str, u8, &str)]) -> (Desk, Receiver<Said>) {
    let bell = Arc::new(EventFd::new().unwrap());
    let a = NodeId::new(1).unwrap();
    let (desk, said) = Desk::open(&place.config(fences), a, &bell).unwrap();
    let tested = || desk.status()[0].tried_ms;
    eventually("a first test", tested);
    (desk, said)
}

fn outcome(said: &Receiver<Said>) -> (u64, u64, PowerOutcome) {
    loop {
        match said
            .recv_timeout(PATIENCE)
            .expect("the desk says something")
        {
            Said::Outcome {
                connection,
                node,
                epoch,
                outcome,
            } => {
                assert_eq!(node, b());
                return (connection, epoch, outcome);
            }
            Said::Note { .. } => {}
        }
    }
}

fn note(said: &Receiver<Said>) -> (Class, String) {
    loop {
        match said
            .recv_timeout(PATIENCE)
            .expect("the desk says something")
        {
            Said::Note { class, text, .. } => return (class, text),
            Said::Outcome { .. } => {}
        }
    }
}

#[test]
fn an_order_is_tried_again_until_it_is_done() {
    let place = Place::new();
    place.misbehave("exit 1");
    let (desk, said) = open_desk(&place, &[("one", 1, "off")]);
    assert_eq!(
        note(&said),
        (
            Class::Critical,
            "cannot fence b: one status: exit code 1".into()
        )
    );
    assert!(desk.status()[0].trouble.is_some());
    desk.order(5, b(), Some(17));
    let reason = "one off: exit code 1".to_owned();
    assert_eq!(outcome(&said), (5, 17, PowerOutcome::Failed { reason }));
    assert!(desk.status()[0].at_work);
    place.behave();
    let by = "one".to_owned();
    assert_eq!(outcome(&said), (5, 17, PowerOutcome::Off { by }));
    eventually("rest", || (!desk.status()[0].at_work).then_some(()));
}

#[test]
fn an_order_does_not_wait_for_a_test_and_can_be_taken_back() {
    let place = Place::new();
    let (desk, said) = open_desk(&place, &[("one", 1, "off")]);
    place.misbehave("[ $action = status ] && sleep 1000");
    let (sender, replies) = bounded(1);
    desk.ask(b(), Wish::Test, sender).unwrap();
    let calls = |what: &str| {
        place
            .calls()
            .iter()
            .filter(|call| call.contains(what))
            .count()
    };
    eventually("the test", || (calls("status") == 2).then_some(()));
    desk.order(5, b(), Some(17));
    let gave_way = replies.recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert!(gave_way.contains("gave way"), "{gave_way}");
    eventually("the order", || (calls("off") == 1).then_some(()));
    let (sender, _replies) = bounded(1);
    assert!(
        desk.ask(b(), Wish::Off, sender).is_err(),
        "under way already"
    );
    eventually("its check", || (calls("status") == 3).then_some(()));
    desk.forget_orders();
    place.behave();
    let (sender, replies) = bounded(1);
    desk.ask(b(), Wish::Test, sender).unwrap();
    let tested = replies.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(tested, "b can be switched off: level 1 one: good");
    assert!(
        said.try_iter()
            .all(|said| !matches!(said, Said::Outcome { .. }))
    );
}

#[test]
fn a_person_is_answered_and_a_reboot_ends_with_the_node_on() {
    let place = Place::new();
    let (desk, said) = open_desk(&place, &[("one", 1, "reboot")]);
    let (sender, replies) = bounded(1);
    desk.ask(b(), Wish::Off, sender).unwrap();
    let done = replies.recv_timeout(PATIENCE).unwrap();
    assert_eq!(done, Ok("b is off, says one".to_owned()));
    assert_eq!(
        note(&said),
        (Class::Notice, "b was switched on again".into())
    );
    let calls = [
        "one status b 7",
        "one off b 7",
        "one status b 7",
        "one on b 7",
    ];
    assert_eq!(place.calls(), calls);
    let (sender, _replies) = bounded(1);
    let a = NodeId::new(1).unwrap();
    assert!(
        desk.ask(a, Wish::Off, sender).is_err(),
        "nobody switches himself off"
    );
}
