//! In a quiet cluster a turn of the engine allocates nothing: a locked process must not ask for
//! memory while somebody waits for its next frame. A test binary of its own, for it replaces the
//! allocator.

#[allow(dead_code, reason = "the pair serves several programs")]
#[path = "engine_pair/mod.rs"]
mod engine_pair;

use engine_pair::Pair;
use standfast::record::Replay;

#[test]
fn a_quiet_turn_allocates_nothing() {
    assert_eq!(allocations(&mut Pair::settled()), 0);
}

#[test]
fn recording_a_turn_allocates_nothing() {
    let mut pair = Pair::recorded(16 << 20);
    assert_eq!(allocations(&mut pair), 0);
    assert!(!pair.record(0).is_empty(), "nothing was recorded");
}

#[test]
fn writing_down_the_engine_allocates_nothing() {
    let mut pair = Pair::recorded(1 << 14);
    let begins = |pair: &Pair| {
        let record = pair.record(0);
        Replay::open(&record).expect("a record").begins()
    };
    let before = begins(&pair);
    assert_eq!(allocations(&mut pair), 0);
    assert!(begins(&pair) > before, "no segment was begun anew");
}

/// Most allocations in one turn on a frame.
fn allocations(pair: &mut Pair) -> u64 {
    let mut worst = 0;
    for _ in 0..200 {
        let frame = pair.next_frame();
        let info = allocation_counter::measure(|| pair.take(frame));
        worst = worst.max(info.count_total);
    }
    worst
}
