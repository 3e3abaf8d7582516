//! Gives a unit back for good: afterwards anybody may write to it.

use std::time::Duration;

use super::error::TakeError;
use super::key::Key;
use super::unit::{Answer, Ask, Fault, Unit};

/// Ends the reservation and every registration of this key. Only for a person who has decided it: a
/// hand-over is done by the heir.
///
/// # Errors
///
/// The key is still there on some path, or nobody can tell.
pub fn release(unit: &mut dyn Unit, own: Key, patience: Duration) -> Result<(), TakeError> {
    let key = own.number();
    let paths = 0..unit.paths();
    // The reservation first, so that it does not end as the side effect of one path's leaving. Of a
    // path that does not hold it the release does nothing.
    let order = |ask: Ask| paths.clone().map(|path| (path, ask.clone())).collect();
    let releases: Vec<(usize, Ask)> = order(Ask::Release { key });
    let leaves: Vec<(usize, Ask)> = order(Ask::Unregister { key });
    let mut last = unit.round(&releases, patience);
    last.extend(unit.round(&leaves, patience));
    let looks: Vec<(usize, Ask)> = order(Ask::Keys);
    let keys = unit
        .round(&looks, patience)
        .into_iter()
        .find_map(|answer| match answer {
            Ok(Answer::Keys { keys, .. }) => Some(keys),
            Ok(_) | Err(_) => None,
        });
    match keys {
        Some(keys) if !keys.contains(&key) => Ok(()),
        Some(_) | None => {
            let trouble = last.into_iter().find_map(Result::err);
            let trouble = trouble.filter(|fault| *fault != Fault::Conflict);
            let what = trouble.map_or("its key is still there".to_owned(), |fault| {
                fault.to_string()
            });
            Err(TakeError::Late { what })
        }
    }
}
