//! What goes through the control socket, against a daemon that says what the test wants.

use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use standfast::engine::{Class, Command, Record};
use standfast::model::TaskState;
use standfast::node::control::{
    Code, HistoryEntry, MAGIC, Refused, Request, Response, VERSION, WatchdogStatus, other_version,
};
use standfast::node::page::WatchdogKind;
use standfast::time::Instant;

use crate::rig::{Place, node, task, web, well, with_task};

fn entry(outcome: &str) -> HistoryEntry {
    HistoryEntry {
        time: "2026-03-01T03:00:00.125Z".into(),
        asked_by: Some("root (pid 4711)".into()),
        record: Record {
            at: Instant(5_000_000),
            epoch: 17,
            class: Class::Major,
            task: Some(task()),
            node: Some(node(2)),
            trigger: "b was evicted".into(),
            evidence: vec!["b silent for 201 ms on all links".into()],
            rule: "a silent owner loses its tasks".into(),
            rejected: vec!["c: in standby".into()],
            outcome: outcome.into(),
        },
    }
}

fn status(status: standfast::node::control::Status) -> Response {
    Response::Status(Box::new(status))
}

#[test]
fn a_daemon_that_is_down_is_exit_3() {
    let place = Place::with_cluster();
    let lines: [&[&str]; 6] = [
        &["status"],
        &["status", "--json"],
        &["move", "web", "b"],
        &["stop", "web"],
        &["standby"],
        &["confirm-off", "b", "--yes"],
    ];
    for line in lines {
        place
            .run(line)
            .exits(3)
            .warns("daemon is not running")
            .warns("systemctl start");
    }
}

#[test]
fn history_is_there_when_the_daemon_is_not() {
    let place = Place::with_cluster();
    let ran = place.run(&["history"]).exits(0);
    ran.says("has recorded nothing")
        .warns("the daemon is not running; this is from");
    std::fs::create_dir(place.path("state")).unwrap();
    let mut line = serde_json::to_value(&entry("moved").record).unwrap();
    line["time"] = "2026-03-01T03:00:00Z".into();
    line["task"] = serde_json::Value::Null;
    std::fs::write(place.path("state/history.jsonl"), format!("torn\n{line}\n")).unwrap();
    place
        .run(&["history"])
        .exits(0)
        .says("moved (b was evicted)")
        .says("major");
}

#[test]
fn status_shows_a_healthy_cluster() {
    let place = Place::new();
    place.serve(|_| status(well()));
    let ran = place.run(&["status"]).exits(0);
    let ran = ran
        .says("cluster pair")
        .says("seen by node a")
        .says("member, epoch 17");
    let ran = ran
        .says("good for 188 ms")
        .says("last read 31 ms ago")
        .says("cable-1");
    let ran = ran.says("web   a      started  -     yes     placed while nobody owned it");
    assert!(!ran.out.contains("attention"));
    let report = place.run(&["status", "--json"]).exits(0).json();
    assert_eq!(report["cluster"], "pair");
    assert_eq!(report["node"], "a");
    assert_eq!(report["epoch"], 17);
    assert_eq!(report["standing"], "member");
    assert_eq!(report["nodes"][1]["heard_ms"], 12.25);
    assert_eq!(report["links"][0]["name"], "cable-1");
    assert_eq!(report["links"][0]["peers"]["b"], 12.25);
    let web = &report["tasks"][0];
    assert_eq!(web["owner"], "a");
    assert!(web["heir"].is_null());
    assert_eq!(web["state"], "started");
    assert_eq!(web["states"]["b"], "stopped");
    assert_eq!(report["page"]["processes"]["core"]["pid"], 11);
    assert_eq!(report["alarms"], serde_json::json!([]));
}

#[test]
fn what_needs_attention_is_exit_1() {
    let place = Place::new();
    place.serve(|_| {
        let mut broken = well();
        let snapshot = broken.snapshot.as_mut().unwrap();
        snapshot.alarms.push("link 0 is down: no carrier".into());
        snapshot.tasks[0].states[0].1 = TaskState::Failed;
        snapshot.tasks[0].blocked = Some("its start failed here".into());
        status(broken)
    });
    let ran = place.run(&["status"]).exits(1).says("Needs attention");
    ran.says("! link cable-1 is down: no carrier")
        .says("! web does not run: its start failed");
}

#[test]
fn a_weak_watchdog_is_shown_with_what_its_driver_made_of_it() {
    let place = Place::new();
    place.serve(|_| {
        let mut weak = well();
        weak.page.watchdog = WatchdogStatus {
            kind: WatchdogKind::Software,
            asked_ms: 10_000.0,
            in_force_ms: 16_000.0,
            longest_pet_ms: 2_100.0,
            late_pets: 3,
            caused_boot: true,
            falling: false,
            fell_in_vain: false,
        };
        status(weak)
    });
    let ran = place.run(&["status"]).exits(0);
    let ran = ran.says("fires after 16.0 s (10.0 s asked for); longest write to it 2.1 s");
    ran.says("WEAK: it is a timer of the kernel")
        .says("the last boot was its doing");
    let report = place.run(&["status", "--json"]).exits(0).json();
    let watchdog = &report["page"]["watchdog"];
    assert_eq!(
        (&watchdog["kind"], &watchdog["late_pets"]),
        (&"software".into(), &3.into())
    );
}

#[test]
fn a_node_that_could_not_reset_itself_is_an_alarm() {
    let place = Place::new();
    place.serve(|_| {
        let mut fallen = well();
        fallen.page.watchdog.fell_in_vain = true;
        status(fallen)
    });
    let ran = place.run(&["status"]).exits(1);
    ran.says("! this node had to reset itself and could not");
    let report = place.run(&["status", "--json"]).exits(1).json();
    assert_eq!(report["page"]["watchdog"]["fell_in_vain"], true);
}

#[test]
fn a_core_that_does_not_answer_leaves_the_page() {
    let place = Place::new();
    place.serve(|_| {
        let mut stuck = well();
        stuck.snapshot = None;
        status(stuck)
    });
    let ran = place
        .run(&["status"])
        .exits(1)
        .says("the core does not answer");
    ran.says("tasks granted   web")
        .says("started here (epoch 3)")
        .says("process 11");
    let report = place.run(&["status", "--json"]).exits(1).json();
    assert_eq!(report["standing"], "unknown");
    assert_eq!(report["page"]["granted"][0], "web");
    place
        .run(&["move", "web", "b", "--timeout", "50ms"])
        .exits(6);
}

#[test]
fn watch_looks_again() {
    let place = Place::new();
    place.serve(|_| status(well()));
    let mut command = place.command(&["status", "--watch", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    for _ in 0..2 {
        let line = lines.next().unwrap().unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&line).unwrap()["tasks"].is_array());
    }
    // Nobody reads any more: the next look ends it.
    drop(lines);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_refusal_has_its_reason_and_remedy() {
    let place = Place::new();
    place.serve(|request| match request {
        Request::Status => status(well()),
        _ => Response::Error(Refused {
            code: Code::Refused,
            reason: "b is in standby".into(),
            remedy: "`standfast online b` first".into(),
        }),
    });
    let ran = place.run(&["move", "web", "b"]).exits(4);
    ran.warns("standfast: b is in standby")
        .warns("help: `standfast online b` first");
}

#[test]
fn names_that_do_not_exist_are_exit_2() {
    let place = Place::new();
    place.serve(|_| status(well()));
    place
        .run(&["move", "wbe", "b"])
        .exits(2)
        .warns("there is no task `wbe`")
        .warns("`web`?");
    place
        .run(&["move", "web", "z"])
        .exits(2)
        .warns("there is `a` and `b`");
    place.run(&["why", "mail"]).exits(2).warns("no task `mail`");
    place.run(&["standby", "z"]).exits(2);
}

/// A daemon that shows `before` until it got the command, and `after` from the third look on.
fn moving(place: &Place, expected: Command, after: standfast::node::control::Status) {
    let looks = Arc::new(AtomicUsize::new(usize::MAX));
    place.serve(move |request| match request {
        Request::Status => {
            let seen = looks.load(Ordering::Relaxed);
            if seen == usize::MAX {
                return status(well());
            }
            looks.store(seen + 1, Ordering::Relaxed);
            status(if seen < 3 { well() } else { after.clone() })
        }
        Request::Command(command) => {
            assert_eq!(command, expected);
            looks.store(0, Ordering::Relaxed);
            Response::Done("web: owner a, heir b".into())
        }
        other => panic!("{other:?}"),
    });
}

#[test]
fn move_waits_until_the_task_runs_there() {
    let place = Place::new();
    let order = Command::Move {
        task: task(),
        to: node(2),
    };
    moving(&place, order, with_task(web(2)));
    let ran = place.run(&["move", "web", "b"]).exits(0);
    assert!(
        ran.out.starts_with("web runs on b, after ") && ran.out.ends_with(" ms\n"),
        "{}",
        ran.out
    );
}

#[test]
fn stop_and_standby_wait_until_nothing_runs() {
    let place = Place::new();
    let mut stopped = web(1);
    (stopped.wanted, stopped.states[0].1) = (false, TaskState::Stopped);
    moving(&place, Command::Stop { task: task() }, with_task(stopped));
    place
        .run(&["stop", "web"])
        .exits(0)
        .says("web is stopped and stays stopped, after");
    let place = Place::new();
    let mut empty = with_task(web(2));
    empty.snapshot.as_mut().unwrap().nodes[0].standby = true;
    moving(&place, Command::Standby { node: node(1) }, empty);
    place
        .run(&["standby"])
        .exits(0)
        .says("a is in standby and runs no task, after");
}

#[test]
fn standby_tells_at_once_what_nobody_else_can_run() {
    let place = Place::new();
    let mut alone = well();
    let nodes = &mut alone.snapshot.as_mut().unwrap().nodes;
    nodes[0].standby = true;
    nodes[1].state = "silent".into();
    moving(&place, Command::Standby { node: node(1) }, alone);
    let ran = place.run(&["standby", "a"]).exits(5);
    ran.warns("a takes no more tasks, but has web: no other node can take it, so it stays");
}

#[test]
fn what_is_not_done_in_time_is_exit_5() {
    let place = Place::new();
    let mut stuck = web(1);
    stuck.blocked = Some("a part of it cannot be stopped".into());
    moving(
        &place,
        Command::Move {
            task: task(),
            to: node(2),
        },
        with_task(stuck),
    );
    let ran = place
        .run(&["move", "web", "b", "--timeout", "100ms"])
        .exits(5);
    ran.warns("web does not run on b")
        .warns("started on a: a part of it")
        .warns("standfast why web");
    place
        .run(&["move", "web", "b", "--no-wait"])
        .exits(0)
        .says("agreed: web: owner a, heir b");
}

#[test]
fn a_start_that_failed_there_ends_the_wait() {
    let place = Place::new();
    let mut back = web(1);
    back.failed_on = vec![node(2)];
    moving(
        &place,
        Command::Move {
            task: task(),
            to: node(2),
        },
        with_task(back),
    );
    place
        .run(&["move", "web", "b"])
        .exits(5)
        .warns("could not be started there")
        .warns("on a");
}

#[test]
fn confirm_off_states_the_risk_and_doubts_what_it_sees() {
    let place = Place::new();
    place.serve(|request| match request {
        Request::Status => {
            let mut alone = well();
            alone.snapshot.as_mut().unwrap().nodes[1].heard_ms = None;
            status(alone)
        }
        Request::Command(command) => {
            assert_eq!(command, Command::ConfirmOff { node: node(2) });
            Response::Done("b is taken to be off".into())
        }
        other => panic!("{other:?}"),
    });
    place
        .run(&["confirm-off", "b"])
        .exits(4)
        .says("destroy their data")
        .warns("--yes");
    place
        .run(&["confirm-off", "b", "--yes"])
        .exits(0)
        .says("destroy their data")
        .says("taken to be");
    place
        .run(&["confirm-off", "a", "--yes"])
        .exits(4)
        .warns("is this node");
    let place = Place::new();
    place.serve(|_| status(well()));
    place
        .run(&["confirm-off", "b", "--yes"])
        .exits(4)
        .warns("was heard 12 ms ago");
}

#[test]
fn why_tells_the_latest_decision_first() {
    let place = Place::new();
    place.serve(|request| match request {
        Request::Status => status(well()),
        Request::History {
            limit,
            task: Some(_),
        } => {
            assert!(limit == 3 || limit == 1);
            Response::History(vec![entry("earlier"), entry("web: owner a")])
        }
        other => panic!("{other:?}"),
    });
    let ran = place.run(&["why", "web"]).exits(0);
    let ran = ran.says("web belongs to a and is started there: placed while nobody owned it");
    let ran = ran
        .says("seen         b silent for 201 ms")
        .says("rule         a silent owner");
    let ran = ran
        .says("not done     c: in standby")
        .says("asked by     root");
    assert!(ran.out.find("web: owner a").unwrap() < ran.out.find("earlier").unwrap());
    let report = place
        .run(&["why", "web", "--json", "--limit", "1"])
        .exits(0)
        .json();
    assert_eq!(report["owner"], "a");
    assert_eq!(report["entries"][0]["outcome"], "web: owner a");
}

#[test]
fn history_lists_and_a_closed_pipe_ends_it() {
    let place = Place::new();
    place.serve(|request| match request {
        Request::Status => status(well()),
        Request::History { .. } => Response::History(vec![entry("moved"); 2000]),
        other => panic!("{other:?}"),
    });
    place
        .run(&["history", "--task", "web"])
        .exits(0)
        .says("web on b")
        .says("moved (b was evicted)");
    let report = place.run(&["history", "--json"]).exits(0).json();
    assert_eq!(report["entries"][0]["class"], "major");
    assert_eq!(report["entries"][0]["uptime_ms"], 5.0);
    for line in [
        ["history"].as_slice(),
        &["history", "--json"],
        &["status"],
        &["why", "web"],
    ] {
        assert_eq!(place.run_unread(line).exits(0).err, "");
    }
}

#[test]
fn a_daemon_of_another_version_says_so_itself() {
    let place = Place::new();
    place.serve_raw(|stream, _| {
        let body = other_version(1);
        let mut message = MAGIC.to_vec();
        message.extend(7_u16.to_le_bytes());
        message.extend((body.len() as u32).to_le_bytes());
        message.extend(body.as_bytes());
        stream.write_all(&message).unwrap();
    });
    let ran = place
        .run(&["status"])
        .exits(6)
        .warns(&format!("speaks version {VERSION} of the control socket"));
    ran.warns("use the program that came with the daemon");
}

#[test]
fn garbage_is_not_believed() {
    assert_eq!(VERSION, 2, "as in the bytes below");
    let answers: [&[u8]; 5] = [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SFCT\x02\x00\xff\xff\xff\xff",
        b"SFCT\x02\x00\x08\x00\x00\x00half",
        b"SFCT\x02\x00\x03\x00\x00\x00\xff\xff\xff",
    ];
    for answer in answers {
        let place = Place::new();
        place.serve_raw(move |stream, _| stream.write_all(answer).unwrap());
        let ran = place.run(&["status"]).exits(6);
        ran.warns("the daemon's answer could not be read");
        place.run(&["move", "web", "b"]).exits(6);
    }
    let place = Place::new();
    place.serve(|_| Response::Version("0.1.0".into()));
    place
        .run(&["status"])
        .exits(6)
        .warns("something else than what was asked");
}
