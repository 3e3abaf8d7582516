//! Two engines run a cluster for half a minute; what was recorded of each decides the same again.

#[allow(dead_code, reason = "the pair serves several programs")]
#[path = "engine_pair/mod.rs"]
mod engine_pair;

use engine_pair::Pair;
use standfast::engine::Action;
use standfast::record::{End, Replay, Verdict};

/// Words of memory for each record.
const WORDS: usize = 16 << 20;

#[test]
fn both_engines_of_a_pair_decide_the_same_again() {
    let pair = Pair::recorded(WORDS);
    for (i, name) in ["a", "b"].into_iter().enumerate() {
        let record = pair.record(i);
        let mut replay = Replay::open(&record).expect("a record");
        let names = replay.start().setup.nodes.clone();
        assert_eq!(names[i].1, name);
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
        assert!(
            turns > 10_000 && frames > 100 && decisions > 1,
            "{turns} {frames} {decisions}"
        );
    }
}
