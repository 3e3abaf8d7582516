//! `replay`: what it prints of a record, and how it ends.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use standfast::engine::{Engine, Event, Found, Report};
use standfast::model::TASKS_MAX;
use standfast::record::{SEGMENTS, Start, Tape};
use standfast::time::{Instant, Span};

use crate::engine_pair::setup;
use crate::rig::{Place, Ran};

/// Turns of the run, 50 ms apart.
const TURNS: u64 = 60;

/// Words of a record in whose first segment all of the run fits.
const WORDS: usize = 1 << 16;

/// A run of node a in which something can be wrong.
#[derive(Clone, Copy)]
struct Run {
    turns: u64,
    /// In this turn the engine is told something else.
    lie: Option<u64>,
    /// It is another engine that is written down.
    other: bool,
}

/// A short run, in so many words.
fn record(words: usize, lie: Option<u64>) -> Vec<u8> {
    let (turns, other) = (TURNS, false);
    record_of(words, Run { turns, lie, other })
}

/// A run that has gone round a record whose segments hold few turns besides the engine.
fn ring() -> Vec<u8> {
    let (turns, lie, other) = (800, None, false);
    record_of(few_words(), Run { turns, lie, other })
}

/// Words of a record in whose segments the engine takes most of the room.
fn few_words() -> usize {
    let (setup, now) = (setup(1), Instant(5_000_000_000));
    let mut engine = Engine::new(setup, now);
    let found = vec![Found::Stopped; TASKS_MAX];
    engine.handle(now, Event::Report(Report::Hello { found }));
    while engine.poll_action().is_some() {}
    let engine = postcard::to_allocvec(&engine).unwrap();
    4 + SEGMENTS * (engine.len() / 8 + 800)
}

fn record_of(words: usize, run: Run) -> Vec<u8> {
    let Run { turns, lie, other } = run;
    let words: Vec<AtomicU64> = (0..words).map(|_| AtomicU64::new(0)).collect();
    let now = Instant(5_000_000_000);
    let (program, setup) = ("0.0.1".into(), setup(1));
    let mut engine = Engine::new(setup.clone(), now);
    let start = Start {
        program,
        setup,
        now,
    };
    let mut tape = Tape::begin(&words[..], &start).unwrap();
    let another = Engine::new(start.setup, start.now);
    for turn in 1..=turns {
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
        let shown = if other { &another } else { &engine };
        tape.event(&words[..], now, &event, shown);
        let told = if lie == Some(turn) {
            Event::Leave
        } else {
            event
        };
        engine.handle(now, told);
        while let Some(action) = engine.poll_action() {
            tape.action(&action);
        }
        tape.done(&words[..], &engine);
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
    let ran = replay(&place, &record(WORDS, None), &[]).exits(0);
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
    let record = record(WORDS, None);
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
    let record = record(WORDS, Some(7));
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
    let whole = record(WORDS, None);
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
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
fn the_newest_stretch_is_played_and_its_checkpoints_are_compared() {
    let place = Place::new();
    let all = replay(&place, &record(WORDS, None), &[]).exits(0);
    all.says("Played from +0.000000 s to +3.000000 s of the core's life.");
    let ring = ring();
    let ran = replay(&place, &ring, &[]).exits(0);
    let ran = ran.says(" to +40.000000 s of the core's life; what was before is overwritten.");
    ran.says("Each of the 3 checkpoints between is the engine that was played.")
        .says(" decisions, identical");
    let report = replay(&place, &ring, &["--json"]).exits(0).json();
    let [from, to, seconds] =
        ["from_ms", "to_ms", "seconds"].map(|at| report[at].as_f64().unwrap());
    assert!(from > 0.0 && to == 40_000.0 && seconds == (to - from) / 1e3);
    assert_eq!(
        (&report["checkpoints"], &report["identical"]),
        (&3.into(), &true.into())
    );
}

#[test]
fn a_part_that_is_damaged_is_left_out_and_named() {
    let place = Place::new();
    let mut ring = ring();
    let report = replay(&place, &ring, &["--json"]).exits(0).json();
    let whole = report["events"].as_u64().unwrap();
    // In the middle of each segment, so of the oldest and the newest too.
    let segment = ring.len() / SEGMENTS;
    for part in 0..SEGMENTS {
        let byte = &mut ring[part * segment + segment / 3];
        *byte ^= 1;
        let ran = replay(&place, &ring, &["--json"]).exits(6);
        let ran = ran.warns("damaged at byte").warns("copy it again");
        let report = ran.json();
        assert!(report["events"].as_u64().unwrap() < whole);
        assert!(!report["left_out"].as_array().unwrap().is_empty());
        let ran = replay(&place, &ring, &[]).exits(6);
        ran.says("; parts of the record are left out");
        ring[part * segment + segment / 3] ^= 1;
    }
}

#[test]
fn a_checkpoint_of_another_engine_is_a_difference() {
    let place = Place::new();
    let number_of_second = 8 * (4 + (few_words() - 4) / SEGMENTS);
    let records = (TURNS..).step_by(10).map(|turns| {
        let (lie, other) = (None, true);
        record_of(few_words(), Run { turns, lie, other })
    });
    let mut gone_on = records.skip_while(|record| record[number_of_second] == 0);
    let record = gone_on.next().unwrap();
    let ran = replay(&place, &record, &[]).exits(7);
    ran.warns("is not what the run before it leads to: ")
        .warns("keep the record");
    let report = replay(&place, &record, &["--json"]).exits(7).json();
    assert_eq!(
        (&report["identical"], &report["end"]),
        (&false.into(), &"checkpoint".into())
    );
}

#[test]
fn what_is_no_record_is_refused_with_a_remedy() {
    let place = Place::new();
    let ran = replay(&place, b"[cluster]\n", &[]).exits(6);
    ran.warns("this is not a record of a run").warns("--record");
    let mut newer = record(WORDS, None);
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
