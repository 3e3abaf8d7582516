//! Waiting for what must happen, with a deadline instead of a nap.

use std::thread;
use std::time::{Duration, Instant};

use super::trouble::Trouble;

/// How long a rig waits for something that must happen; only a failing run waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Asks again and again until `question` has an answer.
///
/// # Errors
///
/// When it has none within `patience`; `what` says what was waited for.
pub(crate) fn eventually<T>(
    what: &str,
    patience: Duration,
    mut question: impl FnMut() -> Option<T>,
) -> Result<T, Trouble> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = question() {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            return Err(Trouble::new(format!(
                "waited {patience:?} in vain for {what}"
            )));
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Watches for `time` that `bad` stays without an answer.
///
/// # Errors
///
/// The first bad thing seen.
pub(crate) fn holds_for(
    time: Duration,
    mut bad: impl FnMut() -> Option<String>,
) -> Result<(), Trouble> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        if let Some(bad) = bad() {
            return Err(Trouble::new(bad));
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
