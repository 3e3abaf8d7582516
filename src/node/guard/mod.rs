//! The guard: the process that guarantees that this node lets go when it may not act any more, even
//! if everything else hangs.
//!
//! ```text
//! supervisor  the first thread: starts core and runner, restarts them, ends everything in order
//! guard       real-time: page -> rule -> release; holds addresses; asks for nothing that can block
//! watchdog    real-time: pets the hardware while the guard's permission lasts
//! log         writes the log, closes what takes its time
//! farewell    keeps why this node resets itself; one thread for the file, one for each disk
//!
//!        page (lease, grants, progress)          pet_until
//!  core ------------------------------> guard --------------> watchdog
//!  runner <-------- guard.sock --------> guard --- lines ---> log
//!  supervisor <----- core_kills -------- guard
//! ```
//! Below it there is only the kernel: addresses have a finite lifetime there, and the hardware
//! watchdog resets the node when the permission is not renewed.

mod addresses;
mod announce;
mod cgroups;
mod children;
mod clients;
mod control;
mod fall;
mod farewell;
mod interfaces;
mod plan;
mod rights;
pub mod rule;
mod said;
pub mod start;
mod supervisor;
mod thread;
mod watchdog;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use standfast_sys::realtime;
use standfast_sys::signal::{DAEMON_SIGNALS, Signals};
use standfast_sys::socket::SeqListener;
use tracing::Level;

pub use control::Control;
pub use fall::{LastRung, Reset, SysRq};
pub use farewell::{Farewell, Speaker};
pub use plan::{AddressPlan, Plan, TaskPlan};
pub use said::{Ear, Said, Voice, queue};
pub use thread::{Guard, Parts, SetupError};
pub use watchdog::{Armed, Device, Ending, Petter, TooLong};

use self::said::with_cause;
use self::start::StartError;
use self::supervisor::{Supervisor, Threads};
use super::options::{NoName, Options};
use super::page::{WatchdogKind, word};
use super::{paths, secret};
use crate::config::{Config, LinkKind};
use crate::frame::Keyring;
use crate::model::NodeId;
use crate::time::Span;

/// Scheduling priority of the threads `guard` and `watchdog`, `SCHED_FIFO` 1..=99: above the core,
/// which they must be able to outlive, below the kernel's interrupt threads.
pub const PRIORITY: u8 = 45;

/// Stack of each thread. All of it is locked memory.
const STACK_BYTES: usize = 256 * 1024;

/// How long the last lines of the log may take.
const LOG_END_MAX: Duration = Duration::from_secs(1);

/// Exit code when the guard could not start at all.
const EXIT_START: u8 = 2;

/// Why the guard could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// This node's name is not known.
    #[error(transparent)]
    Name(#[from] NoName),
    /// The configuration does not know this node.
    #[error("no node {0} in the configuration; use --node")]
    NoSuchNode(String),
    /// Run directory, boot id or page.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The loop.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A call of the kernel.
    #[error(transparent)]
    Kernel(#[from] standfast_sys::Failed),
    /// The watchdog is not what the configuration says.
    #[error(transparent)]
    Watchdog(#[from] TooLong),
    /// A thread.
    #[error("cannot make a thread or a loop")]
    Thread(#[from] std::io::Error),
}

/// Runs the guard of this node to its end. Called by the first thread of the process, before any
/// other was made.
#[must_use]
pub fn run(options: &Options, config: &Config, text: &str) -> ExitCode {
    let _ = realtime::limit_arenas();
    let (voice, ear) = queue();
    let code = match start_and_run(options, config, text, voice, ear) {
        Ok(code) => return code,
        Err(error) => {
            let causes = std::iter::successors(std::error::Error::source(&error), |e| e.source());
            let causes: Vec<String> = causes.map(ToString::to_string).collect();
            tracing::error!(?causes, "the guard cannot start: {error}");
            EXIT_START
        }
    };
    ExitCode::from(code)
}

fn start_and_run(
    options: &Options,
    config: &Config,
    text: &str,
    voice: Voice,
    ear: Ear,
) -> Result<ExitCode, RunError> {
    // First of all: every thread made from here on inherits what is blocked.
    let signals = Signals::block(&DAEMON_SIGNALS)?;
    let node = options.node_name()?;
    if config.node(&node).is_none() {
        return Err(RunError::NoSuchNode(node));
    }
    let _lock = start::lock(&options.run_dir)?;
    start::publish_configuration(&options.run_dir, text)?;
    let boot = start::boot_id(&options.boot_id)?;
    let page = Arc::new(start::page(&options.run_dir, boot)?);
    let log = spawn("log", move || ear.write_log())?;
    let plan = Plan::of(config, &node);
    clear_strangers(config, &node, &plan, &voice);
    let control = Arc::new(Control::default());
    let listener = SeqListener::bind(&paths::guard_socket(&options.run_dir), 0o600)?;
    let mut guard = Guard::new(Parts {
        plan,
        page: page.clone(),
        listener,
        control: control.clone(),
        voice: voice.clone(),
    })?;
    let supervisor = Supervisor::new(
        options.clone(),
        leave_max(options, config),
        signals,
        page.clone(),
        control.clone(),
        voice.clone(),
    )?;
    // Armed last: a start that fails after this is answered by a reset.
    let watchdog = config.watchdog();
    let petter = Petter::open(
        &watchdog.source,
        watchdog.timeout,
        config.timing().detect,
        page.clone(),
        control,
        &voice,
    )?;
    if watchdog.self_fence && petter.as_ref().is_some_and(is_real) {
        let start = page.words()[word::START].load(Ordering::Acquire) as u32;
        guard.arm(last_rung(options, config, &node, (boot, start), &voice));
    }
    let threads = start_threads(guard, petter, &voice)?;
    report_refusals(&voice);
    let code = supervisor.run(threads);
    drop(voice);
    end_log(&log);
    Ok(code)
}

/// Does it reset this machine? Then the machine is this node's own to reset.
fn is_real(petter: &Petter) -> bool {
    match petter.armed().kind {
        WatchdogKind::Software | WatchdogKind::Hardware => true,
        WatchdogKind::None | WatchdogKind::Missing | WatchdogKind::StandIn => false,
    }
}

/// Opens what the guard resets this node with when it cannot let go.
fn last_rung(
    options: &Options,
    config: &Config,
    node: &str,
    (boot, start): (u128, u32),
    voice: &Voice,
) -> LastRung {
    let told = |what: &str, error: std::io::Error| {
        voice.line(Level::WARN, format!("{what}: {error}"));
    };
    let reset = SysRq::open().map_err(|error| {
        told(
            "without the kernel's reset only the watchdog is left",
            error,
        )
    });
    let farewell = config
        .node(node)
        .map(|node| farewell(options, config, node.id, start, voice));
    LastRung {
        reset: reset.ok().map(|reset| Box::new(reset) as Box<dyn Reset>),
        farewell,
        boot: boot.to_be_bytes(),
    }
}

/// Prepares to keep the reason of a reset: in a file, and on every disk of the node.
fn farewell(
    options: &Options,
    config: &Config,
    node: NodeId,
    start: u32,
    voice: &Voice,
) -> Farewell {
    let told = |place: &dyn std::fmt::Display, error: std::io::Error| {
        let line = format!("a reset will not be explained in {place}: {error}");
        voice.line(Level::WARN, line);
    };
    let mut farewell = Farewell::default();
    let cluster = config.cluster();
    let path = paths::last_words(&options.state_dir, &cluster.id, node);
    if let Err(error) = farewell.keep_in(&path, farewell::kernel_log()) {
        told(&path.display(), error);
    }
    // Without the secret the core will not start either, and says so.
    let Ok(secret) = secret::read(Path::new(&cluster.secret)) else {
        return farewell;
    };
    let speaker = Speaker {
        cluster: cluster.id,
        node,
        start,
        keyring: Keyring::new(&secret, &cluster.id),
    };
    for (link, path) in config.links_of(node) {
        if let LinkKind::Disk { .. } = link.kind
            && let Err(error) = farewell.keep_on(path.into(), speaker.clone())
        {
            told(&path, error);
        }
    }
    farewell
}

fn start_threads(
    guard: Guard,
    petter: Option<Petter>,
    voice: &Voice,
) -> Result<Threads, std::io::Error> {
    let ending = Arc::new(Ending::default());
    let own = voice.clone();
    let guard = spawn("guard", move || {
        become_realtime("guard", &own);
        drop(own);
        guard.run()
    })?;
    let watchdog = match petter {
        Some(petter) => {
            let (own, ending) = (voice.clone(), ending.clone());
            Some(spawn("watchdog", move || {
                become_realtime("watchdog", &own);
                drop(own);
                petter.run(&ending);
            })?)
        }
        None => None,
    };
    Ok(Threads {
        guard,
        watchdog,
        ending,
    })
}

fn become_realtime(thread: &str, voice: &Voice) {
    realtime::prefault_stack();
    match realtime::become_realtime(PRIORITY) {
        Ok(realtime::Outcome::Realtime) => {}
        Ok(realtime::Outcome::RealtimeInRootGroup) => {
            let line = format!("thread={thread} is real-time, but only in the root cgroup");
            voice.line(Level::WARN, line);
        }
        Ok(realtime::Outcome::Normal { why, .. }) => {
            let line = format!(
                "thread={thread} is not real-time and may be late: {}",
                with_cause(&why)
            );
            voice.line(Level::ERROR, line);
        }
        Err(error) => voice.line(Level::ERROR, format!("thread={thread}: {error}")),
    }
}

/// Locks memory and leaves the OOM killer's list, after all threads are made.
fn report_refusals(voice: &Voice) {
    match realtime::lock_memory() {
        Ok(None) => {}
        Ok(Some(refused)) => voice.line(Level::INFO, with_cause(&refused)),
        Err(error) => voice.line(
            Level::ERROR,
            format!("{error}: the guard may wait for a disk"),
        ),
    }
    if let Err(error) = realtime::protect_from_oom() {
        voice.line(Level::WARN, with_cause(&error));
    }
}

fn clear_strangers(config: &Config, node: &str, plan: &Plan, voice: &Voice) {
    let group = paths::node_cgroup(&config.cluster().name, node);
    match cgroups::clear_strangers(&group, &plan.tasks) {
        Ok(cleared) => {
            for task in cleared {
                let line = format!("task={task} is not configured any more: what ran is killed");
                voice.line(Level::WARN, line);
            }
        }
        Err(error) => voice.line(Level::WARN, with_cause(&error)),
    }
}

/// How long leaving may take: what was allowed, and the stops of all objects one after the other.
fn leave_max(options: &Options, config: &Config) -> Span {
    let objects = config.tasks().iter().flat_map(|task| &task.objects);
    let stops = objects.map(|object| Span::from_ms(object.claims.stop_ms_max));
    stops.fold(
        Span::from_ms(1_000).times(u64::from(options.leave_seconds)),
        |sum, stop| sum + stop,
    )
}

fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES)
        .spawn(body)
}

fn end_log(log: &JoinHandle<()>) {
    let deadline = std::time::Instant::now() + LOG_END_MAX;
    while !log.is_finished() && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}
