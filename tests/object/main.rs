//! Every kind of object on the real kernel: started, stopped, adopted, killed, held on to.

mod device;
mod group;
#[path = "../node_rig/mod.rs"]
mod node_rig;
mod volume;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use node_rig::{Disk, PATIENCE, Place, eventually, in_namespaces, sh, soon, with};
use standfast::object::{KINDS, Notice, Object, ObjectError, Probe, Watched, sentence, wait_for};
use standfast_sys::cgroup::Cgroup;

fn probe(object: &mut dyn Object) -> Probe {
    with(|context| object.probe(context))
}

fn start(object: &mut dyn Object) -> Result<(), ObjectError> {
    with(|context| object.start(context, soon()))
}

fn stop(object: &mut dyn Object) -> Result<(), ObjectError> {
    with(|context| object.stop(context, soon(), false))
}

/// Waits for what the object watches and looks, until it says something.
fn watched(object: &mut dyn Object) -> Watched {
    let deadline = soon();
    loop {
        let watch = object.watch();
        let until = watch.at.map_or(deadline, |at| at.min(deadline));
        let _ = wait_for(watch.descriptor.as_slice(), Some(until));
        match with(|context| object.look(context)) {
            Watched::Fine => assert!(std::time::Instant::now() < deadline, "nothing happened"),
            seen => return seen,
        }
    }
}

/// The example of a kind, with the parts that this machine does not have replaced.
fn real_example(example: &str, disk: &Disk, place: &Place) -> String {
    let replaced = |line: &str| {
        let value = match line.split(" = ").next()? {
            "device" => disk.path.clone(),
            "mount" => place.path("mounted").display().to_string(),
            "interface" => "lo".to_owned(),
            // The disk of this machine knows no reservations, and has no name.
            "reservation" => "none".to_owned(),
            "identity" => return Some(String::new()),
            _ => return None,
        };
        Some(format!("{} = \"{value}\"", line.split(" = ").next()?))
    };
    let line = |line: &str| replaced(line).unwrap_or_else(|| line.to_owned());
    let text: Vec<String> = example.lines().map(line).collect();
    text.join("\n").replace(
        "/run/standfast-example",
        &place.path("flag").display().to_string(),
    )
}

#[test]
fn every_kind_keeps_the_contract() {
    in_namespaces(|| {
        for kind in KINDS {
            let name = kind.row.name;
            let (disk, place) = (Disk::new(), Place::new());
            let text = real_example(kind.row.example, &disk, &place);
            let mut first = place.object(&text);
            assert_eq!(probe(&mut *first), Probe::Stopped, "{name}");
            stop(&mut *first).unwrap_or_else(|error| panic!("{name}: {}", sentence(&error)));
            for _ in 0..2 {
                start(&mut *first).unwrap_or_else(|error| panic!("{name}: {}", sentence(&error)));
                assert_eq!(probe(&mut *first), Probe::Running, "{name}");
            }
            // A second runner finds it running, leaves it so, and can stop it.
            let mut second = place.object(&text);
            assert_eq!(probe(&mut *second), Probe::Running, "{name}");
            start(&mut *second).unwrap_or_else(|error| panic!("{name}: {}", sentence(&error)));
            for _ in 0..2 {
                stop(&mut *second).unwrap_or_else(|error| panic!("{name}: {}", sentence(&error)));
                assert_eq!(probe(&mut *second), Probe::Stopped, "{name}");
                assert!(!place.group.is_populated(), "{name}");
            }
            with(|context| second.stop(context, soon(), true)).unwrap();
        }
    });
}

#[test]
fn a_cancelled_or_unchecked_parameter_never_reaches_a_builder() {
    for kind in KINDS {
        let nothing = toml::Table::new();
        let refused = (kind.row.check)(&nothing).expect_err(kind.row.name);
        assert!(
            !refused.problem.is_empty() && !refused.remedy.is_empty(),
            "{}",
            kind.row.name
        );
        for name in kind.row.parameters {
            let mut wrong = toml::Table::new();
            wrong.insert((*name).to_owned(), toml::Value::Boolean(true));
            (kind.row.check)(&wrong).expect_err(name);
        }
    }
}

/// A process of nobody's task, killed with the test.
struct Stranger(Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn process(place: &Place, command: &str, more: &str) -> Box<dyn Object> {
    place.object(&format!(
        "[[task.object]]\nname = \"server\"\nkind = \"process\"\n\
         command = [\"/bin/sh\", \"-c\", \"{command}\"]\n{more}"
    ))
}

fn pid(place: &Place) -> String {
    let line = fs::read_to_string(place.path("server.pid")).unwrap();
    line.split(' ').next().unwrap().to_owned()
}

#[test]
fn a_process_runs_in_its_own_group_with_its_environment_and_its_death_is_seen() {
    let place = Place::new();
    let command = "echo $STANDFAST_TASK $STANDFAST_NODE $STANDFAST_EPOCH $X; \
                   cat /proc/self/cgroup; \
                   exec sleep 1000";
    let mut server = process(&place, command, "environment = { X = \"y\" }\n");
    start(&mut *server).unwrap();
    let log = eventually("output", || {
        fs::read_to_string(place.path("server.log"))
            .ok()
            .filter(|log| log.contains("0::"))
    });
    assert!(log.contains("task a 7 y"), "{log}");
    assert!(
        log.contains(&format!("{}/server", place.group.0.display())),
        "{log}"
    );
    // A second runner, which is not the parent, sees the death too.
    let mut adopted = process(&place, command, "");
    assert_eq!(probe(&mut *adopted), Probe::Running);
    sh(&format!("kill -9 {}", pid(&place)));
    for seen in [watched(&mut *server), watched(&mut *adopted)] {
        assert!(matches!(seen, Watched::Broken { .. }), "{seen:?}");
    }
    assert_eq!(probe(&mut *server), Probe::Stopped);
    start(&mut *server).unwrap();
    stop(&mut *server).unwrap();
}

#[test]
fn a_process_that_ignores_the_signal_and_its_children_are_killed() {
    let place = Place::new();
    let command =
        "trap '' TERM; setsid sh -c 'trap \\\"\\\" TERM; echo up; sleep 1000' & wait; sleep 1000";
    let mut server = process(&place, command, "stop_within = \"100ms\"\n");
    start(&mut *server).unwrap();
    eventually("the child is up", || {
        fs::read_to_string(place.path("server.log"))
            .ok()
            .filter(|log| log.contains("up"))
    });
    stop(&mut *server).unwrap();
    assert!(!place.group.is_populated());
    assert_eq!(probe(&mut *server), Probe::Stopped);
}

#[test]
fn a_process_that_ends_before_it_is_ready_fails_with_its_last_line() {
    let place = Place::new();
    let ready = "ready = { program = [\"/bin/false\"], within = \"20s\" }\n";
    let mut server = process(&place, "echo no licence found; exit 3", ready);
    let text = sentence(&start(&mut *server).unwrap_err());
    assert!(
        text.contains("exit code 3") && text.contains("no licence found"),
        "{text}"
    );
    stop(&mut *server).unwrap();
    let never = "ready = { program = [\"/bin/false\"], within = \"100ms\" }\n";
    let mut server = process(&place, "exec sleep 1000", never);
    let text = sentence(&start(&mut *server).unwrap_err());
    assert!(text.contains("not ready"), "{text}");
    stop(&mut *server).unwrap();
    assert!(!place.group.is_populated());
}

#[test]
fn a_process_id_of_somebody_else_is_not_adopted() {
    let place = Place::new();
    let mut child = Stranger(Command::new("sleep").arg("1000").spawn().unwrap());
    fs::write(place.path("server.pid"), format!("{} 1\n", child.0.id())).unwrap();
    let mut server = process(&place, "exec sleep 1000", "");
    assert_eq!(probe(&mut *server), Probe::Stopped);
    stop(&mut *server).unwrap();
    assert!(child.0.try_wait().unwrap().is_none());
}

fn script(place: &Place, probe: &str, more: &str) -> Box<dyn Object> {
    let flag = place.path("flag").display().to_string();
    place.object(&format!(
        "[[task.object]]\nname = \"service\"\nkind = \"script\"\n\
         start = [\"/bin/touch\", \"{flag}\"]\nstop = [\"/bin/rm\", \"-f\", \"{flag}\"]\n\
         probe = [\"/bin/sh\", \"-c\", \"{}\"]\ninterval = \"100ms\"\n{more}",
        probe.replace("FLAG", &flag)
    ))
}

#[test]
fn a_script_is_what_its_probe_says() {
    let place = Place::new();
    let mut service = script(&place, "test -e FLAG || exit 7", "");
    assert_eq!(probe(&mut *service), Probe::Stopped);
    start(&mut *service).unwrap();
    fs::remove_file(place.path("flag")).unwrap();
    assert!(matches!(watched(&mut *service), Watched::Broken { .. }));
    stop(&mut *service).unwrap();
    let mut stuck = script(&place, "exit 0", "");
    assert!(sentence(&stop(&mut *stuck).unwrap_err()).contains("running after the stop"));
    let mut broken = script(&place, "echo disk on fire; exit 1", "");
    let Probe::Failed { reason } = probe(&mut *broken) else {
        panic!("not failed")
    };
    assert!(reason.contains("disk on fire"), "{reason}");
}

/// A guard that lets nothing live in the task's group, as on a node without a right to the task.
fn without_a_right(place: &Place, body: impl FnOnce()) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let group = Cgroup::create(&place.group.0).unwrap();
            while !over.load(Ordering::SeqCst) {
                group.kill().unwrap();
                std::thread::yield_now();
            }
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        over.store(true, Ordering::SeqCst);
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn a_node_without_a_right_to_a_service_can_ask_and_stop_it() {
    let place = Place::new();
    let mut service = script(&place, "sleep 0.3; test -e FLAG || exit 3", "");
    without_a_right(&place, || {
        assert_eq!(probe(&mut *service), Probe::Stopped);
        fs::write(place.path("flag"), "").unwrap();
        assert_eq!(probe(&mut *service), Probe::Running);
        stop(&mut *service).unwrap();
        assert!(!place.path("flag").exists());
    });
    // But nothing is started there.
    without_a_right(&place, || {
        let slow = "start = [\"/bin/sleep\", \"1000\"]\nstop = [\"/bin/true\"]\n";
        let mut other = place.object(&format!(
            "[[task.object]]\nname = \"other\"\nkind = \"script\"\n{slow}"
        ));
        let error = start(&mut *other).unwrap_err();
        assert!(sentence(&error).contains("killed"), "{}", sentence(&error));
    });
}

#[test]
fn what_a_probe_or_stop_leaves_is_killed() {
    let place = Place::new();
    let left = place.path("left").display().to_string();
    let leave = format!("sleep 1000 & echo $! >> {left}; test -e FLAG || exit 3");
    let mut service = script(&place, &leave, "");
    start(&mut *service).unwrap();
    let noted = || fs::read_to_string(&left).unwrap().lines().count();
    let before = noted();
    eventually("a probe of its own accord", || {
        let watch = service.watch();
        let _ = wait_for(watch.descriptor.as_slice(), watch.at);
        assert_eq!(with(|context| service.look(context)), Watched::Fine);
        (noted() > before).then_some(())
    });
    stop(&mut *service).unwrap();
    let beside = format!("{}:service", place.group.0.display());
    let group = Cgroup::open_existing(Path::new(&beside)).unwrap();
    assert!(group.is_none(), "something is left in {beside}");
}

#[test]
fn a_late_probe_is_late_and_only_repetition_is_a_failure() {
    let place = Place::new();
    let command = "if test -e FLAG.slow; then sleep 1000; fi; test -e FLAG || exit 3";
    let mut service = script(&place, command, "probe_within = \"2s\"\n");
    start(&mut *service).unwrap();
    fs::write(place.path("flag.slow"), "").unwrap();
    assert_eq!(probe(&mut *service), Probe::Late);
    fs::remove_file(place.path("flag.slow")).unwrap();
    assert_eq!(probe(&mut *service), Probe::Running);
    fs::write(place.path("flag.slow"), "").unwrap();
    let mut notes = 0;
    loop {
        match watched(&mut *service) {
            Watched::Note { .. } => notes += 1,
            Watched::Broken { reason } => {
                assert!(
                    notes >= 2 && reason.contains("in a row"),
                    "{notes} {reason}"
                );
                break;
            }
            seen @ (Watched::Fine | Watched::Lost { .. } | Watched::Evicted { .. }) => {
                panic!("{seen:?}")
            }
        }
    }
    fs::remove_file(place.path("flag.slow")).unwrap();
    stop(&mut *service).unwrap();
}

fn address(place: &Place, interface: &str) -> Box<dyn Object> {
    place.object(&format!(
        "[[task.object]]\nname = \"vip\"\nkind = \"ip\"\naddress = \"10.9.8.7\"\n\
         interface = \"{interface}\"\n"
    ))
}

#[test]
fn an_address_that_stays_is_not_called_stopped() {
    in_namespaces(|| {
        let place = Place::new();
        let mut vip = address(&place, "lo");
        start(&mut *vip).unwrap();
        place.keeper.lies.store(true, Ordering::SeqCst);
        let now = std::time::Instant::now();
        let error = with(|context| vip.stop(context, now, false)).unwrap_err();
        assert!(
            sentence(&error).contains("10.9.8.7 on lo"),
            "{}",
            sentence(&error)
        );
        place.keeper.lies.store(false, Ordering::SeqCst);
        stop(&mut *vip).unwrap();
    });
}

#[test]
fn an_address_without_carrier_is_told_and_stays() {
    in_namespaces(|| {
        let place = Place::new();
        let mut vip = address(&place, "gone0");
        start(&mut *vip).unwrap();
        place.notices.push(Notice {
            useless: true,
            text: "no carrier".to_owned(),
        });
        assert!(matches!(watched(&mut *vip), Watched::Note { .. }));
        assert!(
            vip.watch().at.is_none(),
            "whether to move is the engine's to decide"
        );
        stop(&mut *vip).unwrap();
    });
}

#[test]
fn a_start_gives_way_to_a_stop() {
    let place = Place::new();
    let never = "ready = { program = [\"/bin/false\"], within = \"1h\" }\n";
    let mut server = process(&place, "exec sleep 1000", never);
    let cancel = standfast::object::Cancel::new().unwrap();
    let context = standfast::object::Context {
        epoch: 1,
        permit: &node_rig::Always,
        cancel: &cancel,
        note: &|_, _| {},
    };
    std::thread::scope(|scope| {
        let start = scope.spawn(|| server.start(&context, soon() + PATIENCE));
        eventually("it started", || {
            place.path("server.pid").exists().then_some(())
        });
        cancel.raise(standfast::object::Urgency::Stop);
        let error = start.join().unwrap().unwrap_err();
        assert!(
            matches!(error, ObjectError::Cancelled),
            "{}",
            sentence(&error)
        );
    });
    stop(&mut *server).unwrap();
}
