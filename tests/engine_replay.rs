//! What was recorded of engines decides the same again, however often the record has gone round;
//! and an engine that was written down and read back is the same.

#[allow(dead_code, reason = "the crowd serves several programs")]
#[path = "engine_crowd/mod.rs"]
mod engine_crowd;
#[allow(dead_code, reason = "the pair serves several programs")]
#[path = "engine_pair/mod.rs"]
mod engine_pair;

use engine_pair::Pair;
use standfast::engine::{Action, Engine, WRITTEN_MAX};
use standfast::record::{End, Replay, SEGMENTS, Verdict};

/// Words of memory for a record of all.
const WORDS: usize = 16 << 20;

/// Words of memory for a record that goes round several times.
const FEW_WORDS: usize = 1 << 17;

/// How many turns, frames and decisions there were in it; none differs.
fn played(replay: &mut Replay<'_>, name: &str) -> (u64, u32, u32) {
    let (mut turns, mut frames, mut decisions) = (0, 0, 0);
    while let Some(turn) = replay.turn().expect("a whole record") {
        assert_eq!(
            turn.verdict,
            Verdict::Same,
            "turn {} of {name}",
            turn.number
        );
        turns += 1;
        for action in &turn.actions {
            frames += u32::from(matches!(action, Action::Send(_)));
            decisions += u32::from(matches!(action, Action::Record(_)));
        }
    }
    assert_eq!(replay.end(), Some(End::Open));
    (turns, frames, decisions)
}

#[test]
fn both_engines_of_a_pair_decide_the_same_again() {
    let pair = Pair::recorded(WORDS);
    for (i, name) in ["a", "b"].into_iter().enumerate() {
        let record = pair.record(i);
        let mut replay = Replay::open(&record).expect("a record");
        assert_eq!(replay.setup().nodes[i].1, name);
        assert_eq!(replay.begins(), replay.started());
        let (turns, frames, decisions) = played(&mut replay, name);
        assert_eq!(replay.checkpoints(), 0);
        assert!(
            turns > 10_000 && frames > 100 && decisions > 1,
            "{turns} {frames} {decisions}"
        );
    }
}

#[test]
fn both_decide_the_same_again_long_after_the_record_went_round() {
    let pair = Pair::recorded(FEW_WORDS);
    for (i, name) in ["a", "b"].into_iter().enumerate() {
        let record = pair.record(i);
        let mut replay = Replay::open(&record).expect("a record");
        assert!(replay.begins() > replay.started());
        let (turns, frames, _) = played(&mut replay, name);
        assert_eq!(replay.checkpoints(), SEGMENTS as u64 - 1);
        assert!(replay.left_out().is_empty());
        assert!(turns > 200 && frames > 10, "{turns} {frames}");
    }
}

#[test]
fn the_largest_engine_is_as_large_as_reckoned_with_and_is_read_back() {
    let engine = engine_crowd::crowd();
    let written = postcard::to_allocvec(&engine).expect("everything can be written");
    println!("{} of {WRITTEN_MAX} bytes", written.len());
    assert!((WRITTEN_MAX / 2..WRITTEN_MAX).contains(&written.len()));
    let read: Engine = postcard::from_bytes(&written).expect("what was written");
    assert!(read == engine && read.makes_sense());
}
