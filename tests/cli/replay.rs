//! `replay`: what it prints of a record, and how it ends.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use standfast::engine::{Engine, Event, Found, Report};
use standfast::model::TASKS_MAX;
use standfast::record::{Start, Tape};
use standfast::time::{Instant, Span};

use crate::engine_pair::setup;
use crate::rig::{Place, Ran};

/// Turns of the run, 50 ms apart.
const TURNS: u64 = 60;

/// A short run of node a, in so many words; in this turn the engine is told something else.
fn record(words: usize, lie: Option<u64>) -> Vec<u8> {
    let words: Vec<AtomicU64> = (0..words).map(|_| AtomicU64::new(0)).collect();
    let now = Instant(5_000_000_000);
    let (program, setup) = ("0.0.1".into(), setup(1));
    let mut engine = Engine::new(setup.clone(), now);
    let start = Start {
        program,
        setup,
        now,
    };
    let mut tape = Tape::begin(&words, &start).unwrap();
    for turn in 1..=TURNS {
        let now = now + Span::from_ms(50).times(turn);
        let event = match turn {
            1 => {
                let (link, up, reason) = (0, true, "hb0 is up".into());
                Event::LinkState { link, up, reason }
            }
            2 => Event::Report(Report::Hello {
                found: vec![Found::Stopped; TASKS_MAX],
            }),
            _ => Event::Tick,
        };
        tape.event(&words, now, &event);
        let told = if lie == Some(turn) {
            Event::Leave
        } else {
            event
        };
        engine.handle(now, told);
        while let Some(action) = engine.poll_action() {
            tape.action(&action);
        }
        tape.done(&words, &engine);
    }
    let words = words.iter().map(|word| word.load(Ordering::Relaxed));
    words.flat_map(u64::to_le_bytes).collect()
}

/// Has this record replayed.
fn replay(place: &Place, record: &[u8], options: &[&str]) -> Ran {
    let path = place.path("record");
    fs::write(&path, record).unwrap();
    let mut line = vec!["replay", path.to_str().unwrap()];
    line.extend(options);
    place.run(&line)
}

#[test]
fn a_run_is_told_like_the_history_and_counted() {
    let place = Place::new();
    let ran = replay(&place, &record(1 << 14, None), &[]).exits(0);
    assert!(ran.err.is_empty(), "{}", ran.err);
    let ran = ran
        .says("TIME")
        .says("+0.050000 s  info")
        .says("link 0 is up: hb0 is up");
    let last = ran.out.lines().last().unwrap();
    assert!(last.starts_with("3.000 s of node a: 60 events, "), "{last}");
    assert!(last.ends_with(" decisions, identical"), "{last}");
}

#[test]
fn every_event_can_be_seen_up_to_an_instant() {
    let place = Place::new();
    let record = record(1 << 14, None);
    let ran = replay(&place, &record, &["--only", "all", "--until", "1000"]).exits(0);
    let ran = ran.says("+0.050000 s LinkState").says("  Send(Frame {");
    ran.says("+1.000000 s Tick")
        .says("1.000 s of node a: 20 events");
    let ran = replay(&place, &record, &["--json", "--only", "all"]).exits(0);
    let report = ran.json();
    assert_eq!(report["identical"], true);
    assert_eq!(
        (&report["end"], &report["node"]),
        (&"open".into(), &"a".into())
    );
    assert_eq!(report["turns"].as_array().unwrap().len() as u64, TURNS);
    let decisions = report["entries"].as_array().unwrap().len();
    assert_eq!(report["decisions"], decisions);
    assert!(report["entries"][0]["outcome"].is_string());
}

#[test]
fn the_first_turn_that_differs_is_named() {
    let place = Place::new();
    let record = record(1 << 14, Some(7));
    let ran = replay(&place, &record, &[]).exits(7);
    let ran = ran.says("Turn 7 at +0.350000 s differs, on Tick");
    let ran = ran.says("made by version 0.0.1").says("7 events, ");
    ran.says("decisions, and the last one differs");
    let report = replay(&place, &record, &["--json"]).exits(7).json();
    assert_eq!(
        (&report["identical"], &report["difference"]["turn"]),
        (&false.into(), &7.into())
    );
    replay(&place, &record, &["--until", "300"])
        .exits(0)
        .says("6 events");
}

#[test]
fn a_record_that_is_not_whole_is_played_as_far_as_it_goes() {
    let place = Place::new();
    let whole = record(1 << 14, None);
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let full = replay(&place, &record(used / 8 / 4 * 3, None), &[]).exits(0);
    full.says("The record is full here").says("identical");
    let cut = replay(&place, &whole[..used / 2 + used / 4], &[]).exits(0);
    cut.says("The record was cut here").says("identical");
    let mut damaged = whole;
    damaged[used / 2 + used / 4] ^= 1;
    let ran = replay(&place, &damaged, &[]).exits(6);
    ran.says("identical so far")
        .warns("damaged at byte")
        .warns("copy it again");
}

#[test]
fn what_is_no_record_is_refused_with_a_remedy() {
    let place = Place::new();
    let ran = replay(&place, b"[cluster]\n", &[]).exits(6);
    ran.warns("this is not a record of a run").warns("--record");
    let mut newer = record(1 << 14, None);
    newer[8] = 99;
    let ran = replay(&place, &newer, &[]).exits(6);
    ran.warns("has version 99")
        .warns("of the version that made");
    let missing = place.path("missing");
    let ran = place.run(&["replay", missing.to_str().unwrap()]).exits(6);
    ran.warns("cannot read").warns("No such file");
}

#[test]
fn a_daemon_does_not_start_to_record_where_it_would_wait_for_a_disk() {
    let place = Place::with_cluster();
    let mut command = Command::new(env!("CARGO_BIN_EXE_standfastd"));
    command.arg("--config").arg(place.path("etc/cluster.toml"));
    command.arg("--run-dir").arg(place.path("run"));
    command.args(["--node", "a", "--record", "/proc/record"]);
    let ran = Ran::of(command.output().unwrap()).exits(2);
    let ran = ran
        .warns("/proc is not on tmpfs")
        .warns("help: let --record name a file below /run");
    assert!(ran.out.is_empty() && !place.path("run").exists());
}
