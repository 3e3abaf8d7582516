//! Reads `[watchdog]`: what resets a node that hangs, and after how long.

use std::ops::RangeInclusive;

use super::names::absolute;
use super::problem::{Problem, Problems, TextSpan};
use super::reader::{At, Section, shown};
use super::schema;
use super::types::{Place, WatchdogConfig, WatchdogSource};
use crate::time::Span;

const SECOND: Span = Span::from_ms(1_000);

/// Shortest and longest timeout that drivers commonly support.
const TIMEOUT: RangeInclusive<Span> = SECOND..=Span::from_ms(300_000);

/// Timeout if none is written, unless `detect` is so long that it must be longer.
const TIMEOUT_DEFAULT: Span = Span::from_ms(10_000);

/// Reads the table, which may be missing.
pub(super) fn read(
    top: &Section<'_>,
    detect: Option<&At<Span>>,
    problems: &mut Problems,
) -> WatchdogConfig {
    let long_enough = detect.map_or(SECOND, |detect| shortest(detect.value));
    let default = WatchdogConfig {
        source: WatchdogSource::Device("/dev/watchdog".to_owned()),
        timeout: TIMEOUT_DEFAULT.max(long_enough),
        self_fence: true,
        written: None,
    };
    let Some(table) = top.table("watchdog", problems) else {
        return default;
    };
    let section = Section::open(&schema::WATCHDOG, Some(table.span), table.value, problems);
    let device = section.string("device", problems);
    let stand_in = section.string("stand-in", problems);
    let timeout = section.duration("timeout", TIMEOUT, problems);
    if let (Some(device), Some(stand_in)) = (&device, &stand_in) {
        let remedy = "keep `device` if the machine has a watchdog, else keep `stand-in`";
        let problem = Problem::error(
            stand_in.span.clone(),
            "[watchdog] has both `device` and `stand-in`",
            remedy,
        );
        problems.push(problem.and_at(device.span.clone(), "the other one"));
    }
    if let Some(timeout) = &timeout {
        check_timeout(timeout, detect, problems);
    }
    let (written, source) = read_source(device, stand_in, problems).unzip();
    let source = source.unwrap_or(default.source);
    let is_device = matches!(source, WatchdogSource::Device(_));
    let self_fence = section.boolean("self-fence", problems);
    if self_fence == Some(true) && !is_device {
        let span = section.value("self-fence").map(toml::Spanned::span);
        let problem = "without a watchdog device this node does not reset itself";
        let remedy = "write `device = \"/dev/watchdog\"`, or remove `self-fence`";
        problems.push(Problem::error(span, problem, remedy));
    }
    WatchdogConfig {
        source,
        timeout: timeout.map_or(default.timeout, |timeout| timeout.value),
        self_fence: is_device && self_fence.unwrap_or(true),
        written: written.map(Place),
    }
}

fn read_source(
    device: Option<At<&str>>,
    stand_in: Option<At<&str>>,
    problems: &mut Problems,
) -> Option<(TextSpan, WatchdogSource)> {
    let weak = "a node that hangs completely will not be reset";
    if let Some(path) = device {
        if path.value == "none" {
            let remedy = "use the machine's watchdog, or `modprobe softdog`, before it matters";
            problems.push(Problem::warning(path.span.clone(), weak, remedy));
            return Some((path.span, WatchdogSource::None));
        }
        absolute("device", &path, problems);
        return Some((path.span, WatchdogSource::Device(path.value.to_owned())));
    }
    let path = stand_in?;
    absolute("stand-in", &path, problems);
    let remedy = "a stand-in is for tests; use `device = \"/dev/watchdog\"` before it matters";
    problems.push(Problem::warning(path.span.clone(), weak, remedy));
    Some((path.span, WatchdogSource::StandIn(path.value.to_owned())))
}

fn check_timeout(timeout: &At<Span>, detect: Option<&At<Span>>, problems: &mut Problems) {
    if whole_seconds(timeout.value) != timeout.value {
        let up = shown(whole_seconds(timeout.value));
        let problem = "a watchdog counts whole seconds";
        let remedy = format!("write `timeout = \"{up}\"`");
        problems.error(timeout.span.clone(), problem, remedy);
        return;
    }
    let Some(detect) = detect else { return };
    let low = shortest(detect.value);
    let high = detect.value.times(20).max(Span::from_ms(60_000));
    let (problem, remedy) = if timeout.value < low {
        let remedy = format!("write `timeout = \"{}\"` or more", shown(low));
        (
            "the watchdog resets a node that is only late, before the others miss it",
            remedy,
        )
    } else if timeout.value > high {
        let remedy = format!("write `timeout = \"{}\"` or less", shown(high));
        ("a node that hangs stays useless for very long", remedy)
    } else {
        return;
    };
    let problem = Problem::warning(timeout.span.clone(), problem, remedy);
    problems.push(problem.and_at(detect.span.clone(), "compared with this"));
}

/// Twice `detect`: a node that is only late is first missed by the others, and then reset.
fn shortest(detect: Span) -> Span {
    whole_seconds(detect.times(2))
}

/// Rounded up, since a watchdog counts whole seconds.
fn whole_seconds(span: Span) -> Span {
    SECOND.times(span.0.div_ceil(SECOND.0))
}
