//! In a quiet cluster a turn of the engine allocates nothing: a locked process must not ask for
//! memory while somebody waits for its next frame. A test binary of its own, for it replaces the
//! allocator.

#[path = "engine_pair/mod.rs"]
mod engine_pair;

use engine_pair::Pair;

#[test]
fn a_quiet_turn_allocates_nothing() {
    let mut pair = Pair::settled();
    let mut worst = 0;
    for _ in 0..200 {
        let frame = pair.next_frame();
        let info = allocation_counter::measure(|| pair.take(frame));
        worst = worst.max(info.count_total);
    }
    assert_eq!(worst, 0, "allocations in one turn");
}
