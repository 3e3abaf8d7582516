//! Every time that follows from the configuration, with a sentence on what it means: what
//! `standfast check` prints, so that nobody has to work it out during an outage.

use super::timing::RETRY_MAX;
use super::types::Config;
use crate::time::Span;

/// One derived time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DerivedTime {
    /// A short name, such as `lease` or `takeover of web`.
    pub name: String,
    /// How long.
    pub span: Span,
    /// What happens then, for somebody who has not read the design.
    pub explanation: &'static str,
}

/// Name, how to derive it, explanation.
type Row = (&'static str, fn(&Config) -> Span, &'static str);

/// What every cluster has, in the order in which it comes into play.
const ROWS: [Row; 13] = [
    (
        "detect",
        |c| c.timing().detect,
        "after this silence another node may start the tasks",
    ),
    (
        "heartbeat",
        |c| c.timing().heartbeat,
        "each node sends a frame on every link this often",
    ),
    (
        "disk I/O budget",
        |c| c.timing().disk_budget(),
        "one write and one read must fit into this",
    ),
    (
        "suspect",
        |c| c.timing().suspect,
        "a node that was silent this long is to be voted out",
    ),
    (
        "race",
        |c| c.timing().race,
        "allowed for the decision on the register",
    ),
    (
        "lease",
        |c| c.timing().lease,
        "a node that proves nothing for this long stops its tasks",
    ),
    (
        "release",
        |c| c.timing().release,
        "by then addresses are gone and processes are dead",
    ),
    (
        "address lifetime",
        |c| c.timing().address_lifetime(),
        "the kernel drops it if not renewed",
    ),
    (
        "rejoin",
        |c| c.timing().stable,
        "a node that comes back must be in contact this long",
    ),
    (
        "rejoin at most",
        |c| c.timing().stable_max,
        "the same for a node that comes and goes",
    ),
    (
        "retry at most",
        |_| RETRY_MAX,
        "pause before a task that failed is tried again",
    ),
    (
        "recovery",
        |c| c.timing().recovery(),
        "when nothing is wrong any more every task begins to start within this",
    ),
    (
        "watchdog",
        |c| c.watchdog().timeout,
        "a node that hangs is reset after this",
    ),
];

/// Of each task: `detect` and the sum over its steps of the longest start allowed in each.
const TAKEOVER: &str = "it runs again elsewhere after this, even if every start takes its longest";

impl Config {
    /// The cluster's times in the order in which they come into play, then the worst takeover of
    /// each task.
    #[must_use]
    pub fn derived(&self) -> Vec<DerivedTime> {
        let cluster = ROWS.iter().map(|(name, span, explanation)| DerivedTime {
            name: (*name).to_owned(),
            span: span(self),
            explanation,
        });
        let tasks = self.tasks().iter().map(|task| DerivedTime {
            name: format!("takeover of {}", task.name),
            span: self.timing().detect + task.start_max(),
            explanation: TAKEOVER,
        });
        cluster.chain(tasks).collect()
    }
}
