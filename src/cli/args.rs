//! The command line itself: every command, option and sentence of help.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::exit::TABLE;
use super::help;

/// Operates a Standfast cluster from any of its nodes
#[derive(Debug, Parser)]
#[command(
    name = "standfast",
    version,
    about = "Operates a Standfast cluster from any of its nodes",
    long_about = "Operates a Standfast cluster from any of its nodes.\n\n\
        Standfast keeps tasks running on 2 to 64 servers, and never one task on two at once. \
        Commands speak with the daemon of this node; `init`, `check`, `disk` and `replay` need no \
        daemon.",
    after_help = TABLE,
    after_long_help = TABLE,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    /// Where things are.
    #[command(flatten)]
    pub places: Places,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command understands.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Places")]
pub struct Places {
    /// The cluster's configuration
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "/etc/standfast/cluster.toml"
    )]
    pub config: PathBuf,
    /// Where the daemon's sockets are
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/run/standfast"
    )]
    pub run_dir: PathBuf,
    /// Where the daemon keeps its history
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/var/lib/standfast"
    )]
    pub state_dir: PathBuf,
    /// This node's name in the configuration [default: the host name up to its first dot]
    #[arg(long, global = true, value_name = "NAME")]
    pub node: Option<String>,
}

/// All commands, in the order in which a cluster's life needs them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a first configuration and the cluster's secret
    #[command(long_about = help::INIT)]
    Init(InitArgs),
    /// Check the configuration, and with --live this machine; print every time that follows
    #[command(long_about = help::CHECK)]
    Check(CheckArgs),
    /// Prepare and inspect the shared disk
    #[command(subcommand)]
    Disk(DiskCommand),
    /// Show the cluster: nodes, links, register, tasks, alarms
    #[command(long_about = help::STATUS)]
    Status(StatusArgs),
    /// Tell why a task is where it is
    #[command(long_about = help::WHY)]
    Why(WhyArgs),
    /// Show what happened on this node, newest last
    #[command(long_about = help::HISTORY)]
    History(HistoryArgs),
    /// Hand a task over to another node
    #[command(long_about = help::MOVE)]
    Move(MoveArgs),
    /// Let a task run; forgets its earlier failures
    Start(TaskArgs),
    /// Stop a task and keep it stopped
    Stop(TaskArgs),
    /// Move all tasks away from a node and let none come
    Standby(NodeArgs),
    /// Let a node run tasks again
    Online(NodeArgs),
    /// Vouch that a node is switched off
    #[command(long_about = help::CONFIRM_OFF)]
    ConfirmOff(ConfirmOffArgs),
    /// Switch a node off through its fence devices, or try them
    #[command(long_about = help::FENCE, args_conflicts_with_subcommands = true)]
    Fence(FenceArgs),
    /// Decide a recorded run again and compare
    #[command(long_about = help::REPLAY)]
    Replay(ReplayArgs),
}

/// `init`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
        standfast init --name pair --node alpha --node beta --interface hb0 \\\n    \
        --interface hb1 --disk /dev/disk/by-id/wwn-0x600508b1001c")]
pub struct InitArgs {
    /// Name of the cluster: 1 to 32 of a-z, 0-9 and the hyphen
    #[arg(long)]
    pub name: String,
    /// Name of a node; once for each, in the order of their ids
    // The same id as the global option, which it replaces here.
    #[arg(id = "node", long = "node", value_name = "NAME", required = true)]
    pub nodes: Vec<String>,
    /// Network interface between the nodes, alike on all of them; once for each network
    #[arg(long = "interface", value_name = "NAME")]
    pub interfaces: Vec<String>,
    /// Disk that all nodes reach, by a lasting name; three times for a register that does without
    /// any one of three
    #[arg(long = "disk", value_name = "DEVICE")]
    pub disks: Vec<String>,
    /// Where to write both files
    #[arg(long, value_name = "DIR", default_value = "/etc/standfast")]
    pub directory: PathBuf,
    /// Replace what is there; a new secret shuts out nodes that have the old one
    #[arg(long)]
    pub force: bool,
}

/// `check`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
        standfast check\n  \
        standfast check --live --strict && systemctl reload standfast\n\n\
        With --json: {file, ok, cluster, node, revision, problems: [{severity, line, column, \
        problem, remedy}],\ntimes: [{name, ms, explanation}], fences: [{name, agent, level, nodes, \
        action}], facts};\nfacts only with --live.")]
pub struct CheckArgs {
    /// Compare it with this machine too
    #[arg(long)]
    pub live: bool,
    /// Exit with 1 if there are warnings
    #[arg(long)]
    pub strict: bool,
    /// Print one JSON object instead
    #[arg(long)]
    pub json: bool,
}

/// `disk`.
#[derive(Debug, Subcommand)]
pub enum DiskCommand {
    /// Write the cluster's area to a disk or three, destroying what they hold
    #[command(long_about = help::FORMAT)]
    Format(FormatArgs),
    /// Show what the cluster's area on a disk holds
    #[command(long_about = help::SHOW)]
    Show(ShowArgs),
    /// Test from two nodes whether a disk array is fit for a cluster
    #[command(long_about = help::CERTIFY)]
    Certify(CertifyArgs),
    /// Show who has reserved a disk
    #[command(long_about = help::RESERVATIONS)]
    Reservations(ReservationsArgs),
    /// End this cluster's reservation of a disk for good
    #[command(long_about = help::RELEASE)]
    Release(ReleaseArgs),
    /// Change a block from several nodes at once, and count whether each change has one winner
    #[command(long_about = help::CONTEND)]
    Contend(ContendArgs),
}

/// `disk format`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
        standfast disk format /dev/disk/by-id/wwn-0x600508b1001c\n  \
        standfast disk format /dev/mapper/array-1 /dev/mapper/array-2 /dev/mapper/array-3\n  \
        standfast disk format --replace /dev/mapper/array-2")]
pub struct FormatArgs {
    /// The disk, at least 2 MiB; or the three of one register, in the order of their links
    #[arg(required = true, num_args = 1..=3, value_name = "DEVICE")]
    pub devices: Vec<PathBuf>,
    /// Put the disk in the place of a dead one of three, filled from the two others
    #[arg(long, conflicts_with_all = ["nodes_max", "register"])]
    pub replace: bool,
    /// Overwrite data
    #[arg(long)]
    pub force: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Room for node ids 1 to this
    #[arg(
        long,
        value_name = "ID",
        default_value_t = 64,
        value_parser = clap::value_parser!(u8).range(1..=64)
    )]
    pub nodes_max: u8,
    /// How the register is changed; `auto` takes compare-and-write if the disk proves that it can
    #[arg(long, value_enum, value_name = "WAY", default_value = "auto")]
    pub register: RegisterMedium,
}

/// Ways to change the register on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RegisterMedium {
    /// By compare-and-write if the disk proves that it can, else by Disk Paxos
    Auto,
    /// By Disk Paxos: plain writes, on any disk
    Paxos,
    /// By SCSI COMPARE AND WRITE, or not at all
    CompareAndWrite,
}

/// `disk contend`.
#[derive(Debug, Args)]
#[command(after_help = "Example, on two nodes at the same time:\n  \
        standfast disk contend /dev/disk/by-id/wwn-0x600508b1001c --rounds 1000\n\n\
        With --json: {device, verdict: proved|not-contended|broken, rounds, won, refused, \
        unclear, repeated, others, total}.")]
pub struct ContendArgs {
    /// The disk, with an area
    pub device: PathBuf,
    /// Changes to send once another node is there
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1_000,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000)
    )]
    pub rounds: u64,
    /// How long to wait for another node
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub wait: u64,
    /// Print one JSON object instead
    #[arg(long)]
    pub json: bool,
}

/// `disk show`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  standfast disk show /dev/disk/by-id/wwn-0x600508b1001c\n\n\
        With --json: {device, size_bytes, header, record, nodes: [{node, name, heartbeat, block}], \
        view, problems}."
)]
pub struct ShowArgs {
    /// The disk
    pub device: PathBuf,
    /// Print one JSON object instead
    #[arg(long)]
    pub json: bool,
}

/// `disk certify`.
#[derive(Debug, Args)]
#[command(after_help = "Example, at the same time on two nodes:\n  \
        standfast disk certify /dev/sdb /dev/sdc\n  \
        standfast disk certify /dev/sdb /dev/sdc --second\n\n\
        With --json: {device, role, facts: {vendor, product, revision, serial, identity, blocks, \
        block_bytes, compare_and_write_blocks}, findings: [{asked, question, needed, verdict, \
        detail, node, known}], not_tried: [text], fit}.")]
pub struct CertifyArgs {
    /// An empty disk by all its SCSI paths on this node, at least 8 MiB
    #[arg(required = true, value_name = "DEVICE")]
    pub devices: Vec<PathBuf>,
    /// This is the second of the two nodes
    #[arg(long)]
    pub second: bool,
    /// Compare-and-write operations of each node
    #[arg(
        long,
        default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub rounds: u32,
    /// How long nothing may land after a node was ejected
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(1..=90)
    )]
    pub settle: u64,
    /// Overwrite data
    #[arg(long)]
    pub force: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Print one JSON object instead
    #[arg(long)]
    pub json: bool,
}

/// `disk reservations`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  standfast disk reservations /dev/disk/by-id/wwn-0x600508b1001c\n\n\
        With --json: {device, disks: [{identity, vendor, product, size_bytes, paths: [{path, \
        answers,\nkeys, trouble}], capabilities, generation, holder: {key, whose, kind}, \
        registrations: [{key,\nwhose, initiator, target_port, holds}], problems}]}; null where \
        nothing is known."
)]
pub struct ReservationsArgs {
    /// A disk, partition, multipath map or logical volume
    pub device: PathBuf,
    /// Print one JSON object instead
    #[arg(long)]
    pub json: bool,
}

/// `disk release`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  standfast disk release /dev/disk/by-id/wwn-0x600508b1001c --yes"
)]
pub struct ReleaseArgs {
    /// A disk, partition, multipath map or logical volume
    pub device: PathBuf,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
        standfast status --watch\n  \
        standfast status --json | jq -r '.tasks[] | \"\\(.name) \\(.owner) \\(.state)\"'\n\n\
        With --json: {cluster, node, epoch, standing, waiting_for, lease_ms, proof, age_ms,\n\
        nodes: [{name, id, state, standby, heard_ms, epoch, evicted}],\n\
        links: [{name, up, reason, frames, crossed, downs, peers: {node: heard_ms}}],\n\
        register: {reachable, read_ms, trouble, missing_voters: [node], refused_messages},\n\
        tasks: [{name, owner, heir, wanted, state, states: {node: state}, blocked, epoch, \
        failed_on, \
        cause}],\n\
        fences: [{node, devices: [{name, level, trouble}], tried_ms, trouble, at_work}],\n\
        alarms: [text], page}. Times in milliseconds; null where nothing is known.")]
pub struct StatusArgs {
    /// Print one JSON object instead; with --watch one a line
    #[arg(long)]
    pub json: bool,
    /// Look again each second, until Ctrl-C
    #[arg(long, short)]
    pub watch: bool,
}

/// `why`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  standfast why web\n\n\
        With --json: {task, owner, heir, wanted, state, blocked, cause, entries}; entries as in \
        `history --json`.")]
pub struct WhyArgs {
    /// Name of the task
    pub task: String,
    /// How many decisions
    #[arg(long, default_value_t = 3)]
    pub limit: u32,
    /// Print one JSON object instead
    #[arg(long)]
    pub json: bool,
}

/// `history`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  standfast history --task web --limit 100\n  \
        standfast history --json | jq '.entries[] | select(.class == \"critical\")'\n\n\
        With --json: {cluster, node, entries: [{time, asked_by, uptime_ms, epoch, class, task, \
        node, \
        trigger,\nevidence, rule, rejected, outcome}]}."
)]
pub struct HistoryArgs {
    /// Only about this task
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,
    /// How many entries
    #[arg(long, default_value_t = 20)]
    pub limit: u32,
    /// Print one JSON object instead
    #[arg(long)]
    pub json: bool,
}

/// Whether and how long to wait until a command has taken effect.
#[derive(Clone, Debug, Args)]
pub struct Waiting {
    /// Return as soon as the cluster has agreed
    #[arg(long)]
    pub no_wait: bool,
    /// Longest time to wait until it is done
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = timeout)]
    pub timeout: Duration,
}

/// `move`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  standfast move web beta")]
pub struct MoveArgs {
    /// Name of the task
    pub task: String,
    /// Name of the node that is to run it
    pub to: String,
    /// How long to wait.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// `start` and `stop`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  standfast stop web && standfast start web")]
pub struct TaskArgs {
    /// Name of the task
    pub task: String,
    /// How long to wait.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// `standby` and `online`.
#[derive(Debug, Args)]
#[command(after_help = "Example, before and after work on a node:\n  \
        standfast standby alpha\n  standfast online alpha")]
pub struct NodeArgs {
    /// Name of the node; this node if not given
    #[arg(value_name = "NODE")]
    pub name: Option<String>,
    /// How long to wait.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// `confirm-off`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  standfast confirm-off beta")]
pub struct ConfirmOffArgs {
    /// Name of the node that is off
    #[arg(value_name = "NODE")]
    pub name: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `fence`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  standfast fence test beta\n  standfast fence beta")]
pub struct FenceArgs {
    /// Name of the node that is to be switched off
    #[arg(value_name = "NODE")]
    pub name: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Longest time to wait for the devices; they go on without you
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = timeout)]
    pub timeout: Duration,
    /// Something else than to switch it off.
    #[command(subcommand)]
    pub command: Option<FenceCommand>,
}

/// `fence ...`.
#[derive(Debug, Subcommand)]
pub enum FenceCommand {
    /// Ask every device of a node whether it is on: who can tell can be reached
    #[command(after_help = "Example:\n  standfast fence test beta")]
    Test {
        /// Name of the node
        #[arg(value_name = "NODE")]
        name: String,
        /// Longest time to wait for the devices
        #[arg(long, value_name = "TIME", default_value = "5m", value_parser = timeout)]
        timeout: Duration,
    },
}

/// `replay`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
        standfastd --record /run/standfast.record\n  \
        standfast replay /run/standfast.record\n  \
        standfast replay /run/standfast.record.1 --only all --until 1500\n\n\
        With --json: {program, node, events, decisions, bytes, seconds, from_ms, to_ms, \
        checkpoints, left_out,\nend, identical, difference, entries}; entries as in `history \
        --json`; difference: {turn, ms, event,\nactions, recorded_actions}; with --only all also \
        turns: [{turn, ms, event, actions}]. Times are since\nthe core's start.")]
pub struct ReplayArgs {
    /// The record
    pub file: PathBuf,
    /// Print one JSON object instead
    #[arg(long)]
    pub json: bool,
    /// Play only up to so many milliseconds after the core's start
    #[arg(long, value_name = "MS")]
    pub until: Option<u64>,
    /// What to print
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Only::Records)]
    pub only: Only,
}

/// What `replay` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Only {
    /// Decisions, as `history` does
    Records,
    /// Every event with what the engine wants done, too
    All,
}

fn timeout(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 30s or 500ms"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_places_stand_before_or_behind_the_command() {
        for line in [
            ["standfast", "--node", "x", "--run-dir", "/r", "status"],
            ["standfast", "status", "--node", "x", "--run-dir", "/r"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.places.node.as_deref(), Some("x"));
            assert_eq!(cli.places.run_dir, PathBuf::from("/r"));
        }
    }

    #[test]
    fn init_has_nodes_of_its_own() {
        let line = [
            "standfast",
            "init",
            "--name",
            "pair",
            "--node",
            "a",
            "--node",
            "b",
        ];
        let cli = Cli::try_parse_from(line).unwrap();
        let Command::Init(init) = cli.command else {
            panic!("init")
        };
        assert_eq!(init.nodes, ["a", "b"]);
        assert_eq!(init.directory, PathBuf::from("/etc/standfast"));
    }

    #[test]
    fn every_command_has_an_example_and_a_known_exit_code() {
        fn examine(command: &clap::Command) {
            let inner: Vec<_> = command.get_subcommands().collect();
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                !inner.is_empty() || help.contains("Example"),
                "{}",
                command.get_name()
            );
            inner.into_iter().for_each(examine);
        }
        examine(&Cli::command());
    }
}
