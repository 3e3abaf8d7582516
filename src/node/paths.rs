//! Where a node's processes meet: sockets and the shared page in the run directory, and a cgroup
//! for each task; and where its own record lies. One place, because guard and runner must mean the
//! same cgroup.

use std::path::{Path, PathBuf};

use crate::model::{ClusterId, NodeId};

/// The page that guard, core and runner share; see [`page`](super::page).
#[must_use]
pub fn page(run_dir: &Path) -> PathBuf {
    run_dir.join("page")
}

/// Locked by the guard while it lives, so that there is only one.
#[must_use]
pub fn lock(run_dir: &Path) -> PathBuf {
    run_dir.join("lock")
}

/// The configuration as the guard has checked it; core and runner read this one.
#[must_use]
pub fn configuration(run_dir: &Path) -> PathBuf {
    run_dir.join("configuration")
}

/// Where the guard listens for the runner.
#[must_use]
pub fn guard_socket(run_dir: &Path) -> PathBuf {
    run_dir.join("guard.sock")
}

/// Where the core listens for the runner.
#[must_use]
pub fn core_socket(run_dir: &Path) -> PathBuf {
    run_dir.join("core.sock")
}

/// Where the runner listens for the command line.
#[must_use]
pub fn control_socket(run_dir: &Path) -> PathBuf {
    run_dir.join("control.sock")
}

/// Where a node keeps its own record. Cluster and node are in the name because several daemons may
/// keep their state in one directory.
#[must_use]
pub fn register(state_dir: &Path, cluster: &ClusterId, node: NodeId) -> PathBuf {
    let cluster: String = cluster.iter().map(|byte| format!("{byte:02x}")).collect();
    state_dir.join(format!("register-{cluster}-{node}"))
}

/// What a node writes down before it resets itself; named like its own record.
#[must_use]
pub fn last_words(state_dir: &Path, cluster: &ClusterId, node: NodeId) -> PathBuf {
    let cluster: String = cluster.iter().map(|byte| format!("{byte:02x}")).collect();
    state_dir.join(format!("last-words-{cluster}-{node}"))
}

/// The cgroup that has one cgroup for each task of this node, below where cgroup2 is mounted.
/// Outside of the daemon's own unit, so that a restart of the daemon does not end the tasks.
/// Cluster and node are in the name because several daemons may run on one machine.
#[must_use]
pub fn node_cgroup(cluster: &str, node: &str) -> PathBuf {
    Path::new("standfast").join(format!("{cluster}.{node}"))
}

/// The cgroup of a task, below where cgroup2 is mounted: whatever runs in it without a lease is
/// killed. The guard makes it and keeps it open to kill it; nobody else may remove it.
#[must_use]
pub fn task_cgroup(cluster: &str, node: &str, task: &str) -> PathBuf {
    node_cgroup(cluster, node).join(task)
}
