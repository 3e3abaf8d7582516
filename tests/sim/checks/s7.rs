//! S7: if any eligible node is healthy and the register is reachable, every enabled task runs again
//! within a bound that `standfast check` prints.
//!
//! The bounds are the rows of [`Config::derived`], which is what the command prints, of a
//! configuration with the run's nodes, tasks and detect time, parsed as the daemon would. The time
//! counts from the moment at which everything works again; a start or stop that a fault had made
//! slow still takes its time first.

use standfast::config::Config;
use standfast::config::kind::{Claims, Kind};
use standfast::model::{TaskIndex, TaskState};

use super::Violation;
use crate::plan::Plan;
use crate::runner::SLOW_DETECTS;
use crate::world::World;

/// A kind whose longest start is the simulated one.
const SIMULATED: Kind = Kind {
    name: "simulated",
    summary: "what the simulator starts and stops",
    parameters: &["start_ms_max"],
    example: "[[task.object]]\nname = \"object\"\nkind = \"simulated\"\nstart_ms_max = 1",
    check: |parameters| {
        let longest = parameters
            .get("start_ms_max")
            .and_then(toml::Value::as_integer);
        Ok(Claims {
            start_ms_max: longest.unwrap_or(0) as u64,
            ..Claims::default()
        })
    },
};

/// The cluster of a plan, as an administrator would write it.
pub(crate) fn config(plan: &Plan) -> Config {
    let per_node = |what: &str| {
        let names = plan.names.nodes.iter().take(plan.nodes);
        let rows: Vec<String> = names.map(|name| format!("{name} = \"{what}\"")).collect();
        rows.join(", ")
    };
    let detect = plan.timing.detect.as_ms();
    let start = detect * SLOW_DETECTS;
    let mut text = format!(
        "[cluster]\nname = \"simulated\"\nid = \"{}\"\ndetect = \"{detect}ms\"\n",
        "07".repeat(16)
    );
    for (index, name) in plan.names.nodes.iter().enumerate() {
        text += &format!("[[node]]\nname = \"{name}\"\nid = {}\n", index + 1);
    }
    for link in 0..plan.networks {
        let interfaces = per_node(&format!("eth{link}"));
        text += &format!("[[link]]\nname = \"net-{link}\"\nkind = \"ethernet\"\n");
        text += &format!("interface = {{ {interfaces} }}\n");
    }
    let devices = per_node("/dev/disk/by-id/beat");
    text += &format!("[[link]]\nname = \"disk\"\nkind = \"disk\"\ndevice = {{ {devices} }}\n");
    for name in &plan.names.tasks {
        let nodes: Vec<String> = plan
            .names
            .nodes
            .iter()
            .map(|node| format!("{node:?}"))
            .collect();
        text += &format!(
            "[[task]]\nname = \"{name}\"\nnodes = [{}]\n",
            nodes.join(", ")
        );
        text += "[[task.object]]\nname = \"object\"\nkind = \"simulated\"\n";
        text += &format!("start_ms_max = {start}\n");
    }
    Config::parse(&text, &[SIMULATED]).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"))
}

/// What has to be waited for beside the recovery itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pauses {
    /// A task has failed, or could not be stopped: its next try may be a pause away.
    pub(crate) retry: bool,
    /// A node has come and gone: it is let in only after the longest contact.
    pub(crate) flapped: bool,
}

/// Until every task runs, and until every node is in, in nanoseconds.
pub(crate) fn bounds(config: &Config, pauses: Pauses) -> (u64, u64) {
    let derived = config.derived();
    let row = |name: &str| {
        let row = derived.iter().find(|row| row.name == name);
        row.unwrap_or_else(|| panic!("`check` prints no {name}"))
            .span
            .0
    };
    let tasks = config.tasks().iter();
    let takeover = tasks
        .map(|task| row(&format!("takeover of {}", task.name)))
        .max();
    let retry = if pauses.retry {
        row("retry at most")
    } else {
        0
    };
    let run = row("recovery") + takeover.unwrap_or(0) + retry;
    let rejoin = row(if pauses.flapped {
        "rejoin at most"
    } else {
        "rejoin"
    });
    (run, run + rejoin * 2)
}

/// What took longer than it may.
pub(crate) fn check(what: &str, took: u64, bound: u64) -> Result<(), String> {
    if took <= bound {
        return Ok(());
    }
    let ms = |span: u64| span / 1_000_000;
    Err(format!(
        "{what} takes over {} ms, the bound is {} ms",
        ms(took),
        ms(bound)
    ))
}

impl World {
    fn within(&self, what: &str, since: u64, bound: u64, state: &Result<(), String>) {
        let took = self.now.saturating_sub(since);
        if let (Err(missing), Err(late)) = (state, check(what, took, bound)) {
            self.violated(Violation::new(
                "S7",
                format!("{late}: {missing}"),
                Vec::new(),
            ));
        }
    }

    /// Everything works again: every task must run in time, every node must be in, and it must stay
    /// so. Returns how long the tasks took, and the nodes.
    pub(crate) fn recovers(&mut self) -> (u64, u64) {
        let d = self.plan.timing.detect.0;
        let works = self.nodes.iter().flat_map(|node| &node.held);
        let ends = works
            .filter_map(|held| held.work)
            .map(|work| work.until)
            .max();
        let begun = ends.unwrap_or(0).max(self.now);
        let pauses = Pauses {
            retry: self.waits_to_try_again(),
            flapped: self.flapped(),
        };
        let (run, whole) = bounds(&config(&self.plan), pauses);
        let (mut runs_at, mut well_at) = (None, None);
        loop {
            let step = self.now + d / 4;
            self.run_until(step);
            let (runs, well) = (self.all_run(), self.is_well());
            self.within("a task", begun, run, &runs);
            self.within("a node", begun, whole, &well);
            runs_at = runs.is_ok().then(|| runs_at.unwrap_or(self.now));
            well_at = well.is_ok().then(|| well_at.unwrap_or(self.now));
            if let (Some(runs), Some(well)) = (runs_at, well_at)
                && self.now - well > d * 3
            {
                self.judge_calm_status();
                return (runs.saturating_sub(begun), well.saturating_sub(begun));
            }
        }
    }

    /// Has a task failed somewhere, lately or in what the node there still believes?
    fn waits_to_try_again(&self) -> bool {
        self.nodes.iter().any(|node| {
            let failed = |task: usize| {
                let task = TaskIndex::new(task).expect("few tasks");
                let state = node.engine.as_ref().map(|engine| engine.task_state(task));
                matches!(state, Some(TaskState::Failed | TaskState::StopFailed))
            };
            let mut tasks = node.held.iter().enumerate();
            tasks.any(|(task, held)| held.trouble || failed(task))
        })
    }

    fn flapped(&self) -> bool {
        let newest = self.checks.newest();
        newest.is_some_and(|view| view.evictions.iter().any(|gone| gone.times > 1))
    }
}

#[test]
fn the_bounds_are_what_check_prints_and_what_exceeds_them_is_found() {
    let config = config(&Plan::calm(3, 2, 500));
    let quick = bounds(&config, Pauses::default());
    let all = Pauses {
        retry: true,
        flapped: true,
    };
    let slow = bounds(&config, all);
    assert!(quick.0 < slow.0 && quick.1 < slow.1);
    let takeover = config.timing().detect.0 * (1 + SLOW_DETECTS);
    assert_eq!(quick.0, config.timing().recovery().0 + takeover);
    assert_eq!(check("a task", quick.0, quick.0), Ok(()));
    assert!(check("a task", quick.0 + 1, quick.0).is_err());
}
