//! The means to kill what runs of a task, opened before they are needed: one write each, no path,
//! no memory, so that it works when nothing else does.

use std::fs;
use std::path::Path;

use standfast_sys::Failed;
use standfast_sys::cgroup::{Cgroup, Events, KillSwitch};

use super::plan::TaskPlan;
use crate::model::TASKS_MAX;

struct Switch {
    kill: KillSwitch,
    events: Events,
}

/// The kill switches of all tasks, by task index.
pub(super) struct Cgroups {
    switches: Vec<Switch>,
}

impl Cgroups {
    /// Makes the cgroups of all tasks, or takes over those that exist with what runs in them. May
    /// block; not for the guard's thread.
    ///
    /// # Errors
    ///
    /// cgroup2 is not mounted or cannot be written, or the kernel is older than 5.14.
    pub(super) fn open(tasks: &[TaskPlan]) -> Result<Cgroups, Failed> {
        assert!(
            tasks.len() <= TASKS_MAX,
            "the configuration refuses more tasks"
        );
        let open = |task: &TaskPlan| {
            let group = Cgroup::create(&task.cgroup)?;
            Ok(Switch {
                kill: group.kill_switch()?,
                events: group.events()?,
            })
        };
        Ok(Cgroups {
            switches: tasks.iter().map(open).collect::<Result<_, _>>()?,
        })
    }

    /// Kills everything of these tasks (bit by task index); says of which it could not be ordered.
    /// That they are dead is only known from [`Cgroups::populated`].
    pub(super) fn kill(&self, tasks: u64) -> u64 {
        let mut refused = 0;
        for (index, switch) in self.switches.iter().enumerate() {
            let bit = 1 << index;
            // `Ok(false)`: the cgroup was removed, which the kernel allows only for an empty one.
            if tasks & bit != 0 && switch.kill.kill().is_err() {
                refused |= bit;
            }
        }
        refused
    }

    /// Tasks of which a process is left. One that cannot be asked about counts as left, unless its
    /// cgroup was removed.
    pub(super) fn populated(&self) -> u64 {
        let is_populated = |switch: &Switch| match switch.events.read() {
            Ok(state) => state.populated,
            Err(error) => error.errno() != Some(nix::errno::Errno::ENODEV as i32),
        };
        let rows = self.switches.iter().enumerate();
        rows.filter(|(_, switch)| is_populated(switch))
            .fold(0, |tasks, (index, _)| tasks | 1 << index)
    }
}

/// Kills and removes what is left of tasks that are not configured any more; says which there were.
/// What ran beside a task's group for an earlier runner, in one called `task:object`, is over too.
/// May block; called before any task may run.
///
/// # Errors
///
/// The node's cgroup cannot be read, or one cannot be removed yet because its processes are still
/// ending; the next start tries again.
pub(super) fn clear_strangers(node: &Path, tasks: &[TaskPlan]) -> Result<Vec<String>, Failed> {
    let Some(group) = Cgroup::open_existing(node)? else {
        return Ok(Vec::new());
    };
    let mut cleared = Vec::new();
    for entry in fs::read_dir(group.path()).into_iter().flatten().flatten() {
        let path = node.join(entry.file_name());
        let is_group = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_group || tasks.iter().any(|task| task.cgroup == path) {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let beside = |task: &TaskPlan| {
            let of = name.split_once(':').map(|(of, _)| node.join(of));
            of.as_ref() == Some(&task.cgroup)
        };
        if let Some(stranger) = Cgroup::open_existing(&path)? {
            stranger.kill()?;
            if !tasks.iter().any(beside) {
                cleared.push(name);
            }
            let _ = stranger.remove();
        }
    }
    Ok(cleared)
}
