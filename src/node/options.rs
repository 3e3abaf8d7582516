//! What the daemon is told on its command line, the same for guard, core and runner: the guard
//! passes its own options on to the processes it starts.

use std::ffi::OsString;
use std::path::PathBuf;

use super::core::{RECORD_MIB_MAX, RECORD_MIB_MIN};
use super::paths;

/// Which of the node's processes this one is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Starts the others, holds addresses, lets go in time.
    #[default]
    Guard,
    /// Speaks with the other nodes and decides.
    Core,
    /// Starts, stops and probes objects.
    Runner,
}

/// Options of `standfastd`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Parser)]
#[command(
    name = "standfastd",
    version,
    about = "The daemon of Standfast: keeps this node's part of the cluster",
    long_about = "The daemon of Standfast: keeps this node's part of the cluster.\n\n\
        Started once per node, as root, normally by systemd. SIGTERM makes it hand its tasks over, \
        leave the cluster and end; a second SIGTERM makes it let go of everything at once."
)]
pub struct Options {
    /// The cluster's configuration, the same file on all nodes.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/standfast/cluster.toml"
    )]
    pub config: PathBuf,
    /// This node's name in the configuration; the host name up to its first dot if not given.
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Directory for sockets and the shared page; must be on tmpfs.
    #[arg(long, value_name = "DIRECTORY", default_value = "/run/standfast")]
    pub run_dir: PathBuf,
    /// Directory for history and records.
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/lib/standfast")]
    pub state_dir: PathBuf,
    /// File with the identity of this boot of the machine.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/proc/sys/kernel/random/boot_id"
    )]
    pub boot_id: PathBuf,
    /// Longest time to hand tasks over after SIGTERM, in seconds; the stop times of all tasks are
    /// added to it.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub leave_seconds: u32,
    /// Record all that the core is told, so that `standfast replay FILE` can decide it all again.
    ///
    /// The record is of fixed size and holds the newest stretch: when it is full, its oldest
    /// quarter is overwritten. FILE is to be on tmpfs, as /run is: the core must not wait for a
    /// disk. So the record outlives the core, however that ends, but not a power cut or reboot.
    /// Each life of the core begins a new one and keeps that of the life before as FILE.1. It
    /// holds frames, commands, names and reasons for people; never the cluster's secret.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Size of a record, which is locked memory; the one of the life before takes as much again.
    /// A pair at `detect` 500 ms writes some 12 KiB a second, so 64 MiB hold its last hour.
    #[arg(
        long,
        value_name = "MIB",
        default_value_t = 64,
        value_parser = record_mib
    )]
    pub record_mib: u32,
    /// Which process to be; for the guard's own use.
    #[arg(long, value_enum, default_value_t = Role::Guard, hide = true)]
    pub role: Role,
}

impl Options {
    /// This node's name: the one given, else the host's.
    ///
    /// # Errors
    ///
    /// The host has no name that is text.
    pub fn node_name(&self) -> Result<String, NoName> {
        if let Some(name) = &self.node {
            return Ok(name.clone());
        }
        let system = nix::sys::utsname::uname().map_err(|errno| NoName(Some(errno)))?;
        let host = system.nodename().to_str().ok_or(NoName(None))?;
        let first = host.split('.').next().unwrap_or_default();
        if first.is_empty() {
            Err(NoName(None))
        } else {
            Ok(first.to_owned())
        }
    }

    /// The arguments that start another process of this node.
    #[must_use]
    pub fn arguments(&self, role: Role) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |name: &str, value: OsString| arguments.extend([name.into(), value]);
        let config = match role {
            Role::Guard => self.config.clone(),
            // As the guard has checked it, not as it may be by now.
            Role::Core | Role::Runner => paths::configuration(&self.run_dir),
        };
        add("--config", config.into());
        if let Some(node) = &self.node {
            add("--node", node.into());
        }
        add("--run-dir", self.run_dir.clone().into());
        add("--state-dir", self.state_dir.clone().into());
        add("--boot-id", self.boot_id.clone().into());
        add("--leave-seconds", self.leave_seconds.to_string().into());
        if let Some(record) = &self.record {
            add("--record", record.into());
            add("--record-mib", self.record_mib.to_string().into());
        }
        let role = match role {
            Role::Guard => "guard",
            Role::Core => "core",
            Role::Runner => "runner",
        };
        add("--role", role.into());
        arguments
    }
}

/// A size that each part of a record has use for.
fn record_mib(text: &str) -> Result<u32, String> {
    let mib: u32 = text.parse().map_err(|_| "write a number of mebibytes")?;
    if mib < RECORD_MIB_MIN {
        return Err(format!(
            "half of each quarter must hold the state of the largest cluster; use {RECORD_MIB_MIN} \
             or more"
        ));
    }
    if mib > RECORD_MIB_MAX {
        return Err(format!("it is locked memory; use {RECORD_MIB_MAX} or less"));
    }
    Ok(mib)
}

/// The host's name cannot be had or is not text.
#[derive(Debug, thiserror::Error)]
#[error("the host has no usable name; use --node")]
pub struct NoName(#[source] Option<nix::errno::Errno>);

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn what_is_passed_on_is_what_was_given() {
        let given = [
            "standfastd",
            "--node",
            "a",
            "--run-dir",
            "/r",
            "--leave-seconds",
            "7",
            "--record",
            "/r/record",
            "--record-mib",
            "70",
        ];
        let options = Options::parse_from(given);
        assert_eq!(options.role, Role::Guard);
        for role in [Role::Core, Role::Runner] {
            let passed = [OsString::from("standfastd")]
                .into_iter()
                .chain(options.arguments(role));
            assert_eq!(
                Options::parse_from(passed),
                Options {
                    role,
                    config: PathBuf::from("/r/configuration"),
                    ..options.clone()
                }
            );
        }
    }

    #[test]
    fn a_record_that_the_largest_cluster_would_not_fit_in_is_refused() {
        let parse = |mib: u32| Options::try_parse_from(["d", "--record-mib", &mib.to_string()]);
        for mib in [RECORD_MIB_MIN, RECORD_MIB_MAX] {
            assert_eq!(parse(mib).unwrap().record_mib, mib);
        }
        let small = parse(RECORD_MIB_MIN - 1).unwrap_err().to_string();
        let least = format!("the largest cluster; use {RECORD_MIB_MIN} or more");
        assert!(small.contains(&least), "{small}");
        assert!(parse(RECORD_MIB_MAX + 1).is_err());
        assert!(Options::try_parse_from(["d", "--record-mib", "much"]).is_err());
    }

    #[test]
    fn the_defaults_are_the_usual_places() {
        let options = Options::parse_from(["standfastd"]);
        assert_eq!(options.config, PathBuf::from("/etc/standfast/cluster.toml"));
        assert_eq!(options.run_dir, PathBuf::from("/run/standfast"));
        assert_eq!(options.state_dir, PathBuf::from("/var/lib/standfast"));
        assert!(!options.node_name().unwrap().contains('.'));
    }
}
