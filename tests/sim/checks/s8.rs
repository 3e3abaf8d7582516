//! S8: nothing depends on wall-clock time, on clocks agreeing, or on timestamps written by others;
//! only on each clock's *rate* being within 0.1 %.
//!
//! Three things hold it. The pure parts cannot name a clock: `tests/tidy.rs` and clippy refuse it,
//! so an engine knows only the instants it is handed, and the world hands it readings of a clock of
//! its own, with its own zero. The world has wall clocks only as strikes that set them, which reach
//! nobody. And here: the same run with every clock's zero somewhere else must tell the same story,
//! line by line; an engine that compared instants of two nodes, or with anything absolute, would
//! not.

/// Two tellings of one run that differ in nothing but where the clocks begin.
pub(crate) fn check(one: u64, other: u64) -> Result<(), String> {
    if one == other {
        return Ok(());
    }
    Err(format!(
        "clocks with another zero tell another story: {one:016x}, {other:016x}"
    ))
}

#[test]
fn another_story_is_found() {
    assert_eq!(check(7, 7), Ok(()));
    assert!(check(7, 8).is_err());
}
