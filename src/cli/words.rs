//! How times, states and absences are said, in the same way everywhere.

use std::time::Duration;

use crate::model::TaskState;
use crate::time::Span;

/// What stands in a table where there is nothing.
pub(super) const NOTHING: &str = "-";

/// A measured time, with as many digits as help: `0.42 ms`, `31 ms`, `4.2 s`, `3m 5s`.
pub(super) fn ms(value: f64) -> String {
    if !value.is_finite() || value < 0.0 {
        return "?".to_owned();
    }
    if value < 0.995 {
        format!("{value:.2} ms")
    } else if value < 9.95 {
        format!("{value:.1} ms")
    } else if value < 999.5 {
        format!("{value:.0} ms")
    } else if value < 59_950.0 {
        format!("{:.1} s", value / 1000.0)
    } else {
        humantime::format_duration(Duration::from_secs((value / 1000.0).round() as u64)).to_string()
    }
}

/// How long ago, where that is known.
pub(super) fn ago(value: Option<f64>) -> String {
    value.map_or_else(|| "never".to_owned(), |value| format!("{} ago", ms(value)))
}

/// A derived time, exactly: `500ms`, `12ms 500us`.
pub(super) fn exactly(span: Span) -> String {
    humantime::format_duration(span.to_std()).to_string()
}

/// Bytes in the unit that people buy them in.
pub(super) fn bytes(count: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, shift)| count >> shift > 0) {
        Some((unit, shift)) => format!("{:.1} {unit}", count as f64 / (1_u64 << shift) as f64),
        None => format!("{count} bytes"),
    }
}

/// One word for a state, the same in text and in JSON.
pub(super) const fn state(state: TaskState) -> &'static str {
    match state {
        TaskState::Stopped => "stopped",
        TaskState::Starting => "starting",
        TaskState::Started => "started",
        TaskState::Stopping => "stopping",
        TaskState::Failed => "failed",
        TaskState::StopFailed => "stop-failed",
        TaskState::Released => "released",
        TaskState::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_as_many_digits_as_help() {
        let said = [
            (0.04, "0.04 ms"),
            (3.12, "3.1 ms"),
            (9.96, "10 ms"),
            (187.4, "187 ms"),
            (999.6, "1.0 s"),
            (4_230.0, "4.2 s"),
            (185_000.0, "3m 5s"),
            (f64::NAN, "?"),
            (f64::INFINITY, "?"),
            (-1.0, "?"),
        ];
        for (value, text) in said {
            assert_eq!(ms(value), text);
        }
    }

    #[test]
    fn bytes_come_in_the_largest_unit_that_fits() {
        assert_eq!(bytes(0), "0 bytes");
        assert_eq!(bytes(1_855_488), "1.8 MiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
    }
}
