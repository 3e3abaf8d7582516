//! The runner: starts, stops, probes and watches objects, serves the control socket, writes the
//! history.
//!
//! ```text
//!  core.sock <---> main <--- bell --- one worker a task --- objects --- guard.sock
//!                   |  ^
//!                   |  '---- bell --- control: one thread a client
//!                   '---> history thread
//! ```
//! The main thread only passes messages on and never blocks. The runner may be killed at any
//! moment: tasks go on without it, and the next one adopts them. It dies with the guard, which
//! starts it.

mod core;
mod fitness;
mod history;
mod keeper;
mod lease;
mod serve;
mod told;
mod tree;
mod worker;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};
use standfast_sys::Failed;
use standfast_sys::realtime::{die_with_parent, expose_to_oom};
use standfast_sys::sharedpage::SharedView;
use standfast_sys::signal::{DAEMON_SIGNALS, Signals};

pub use history::History;
pub use keeper::{Keeper, Subscriber};
pub use lease::Lease;
pub use tree::{Took, Tree};
pub use worker::{Job, Mailbox, Mouth, Said};

use self::core::Core;
use self::fitness::Fitness;
use self::serve::{Ask, Server, Shared};
use self::told::Teller;
use super::control::Names;
use super::messages::{FromRunner, ToRunner};
use super::options::{NoName, Options};
use super::page::{PAGE_WORDS, word};
use super::paths;
use super::power::desk::{self as power, Desk};
use crate::config::{Config, NodeConfig, ObjectConfig, TaskConfig};
use crate::engine::{Class, Failure, Found, Order, Record, Refusal, Report, Snapshot};
use crate::model::TaskIndex;
use crate::object::{BuildContext, Notices, ObjectError, Permit, wait_for};

/// How long the probes for a greeting may take. A task that is not through by then is reported as
/// found in parts, which makes the core have it stopped rather than wait for it.
const HELLO_MAX: Duration = Duration::from_secs(2);

/// Between two turns when nothing happens; the page shows that the runner lives.
const TURN: Duration = Duration::from_millis(200);

/// Most questions of clients that wait for the main thread.
const ASKS_MAX: usize = 64;

/// Most questions that wait for the core; the oldest is given up for a new one.
const PENDING_MAX: usize = 256;

/// Why the runner could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// Nobody knows which node this is.
    #[error(transparent)]
    Name(#[from] NoName),
    /// The configuration has no node of this name.
    #[error("the configuration has no node `{0}`")]
    NoSuchNode(String),
    /// An object cannot be made.
    #[error("cannot make the object {object} of the task {task}")]
    Object {
        /// The task.
        task: String,
        /// The object.
        object: String,
        /// Why.
        #[source]
        source: ObjectError,
    },
    /// The kernel refused something.
    #[error(transparent)]
    Kernel(#[from] Failed),
    /// A file, socket or thread is not to be had.
    #[error("cannot {what}")]
    Io {
        /// The operation and its subject.
        what: String,
        /// The kernel's word.
        source: io::Error,
    },
}

/// Runs until the core says that the node has left the cluster, or the guard dies. A failure to
/// start is logged, and the guard tries again.
#[must_use]
pub fn run(options: &Options, config: &Config) -> ExitCode {
    match serve_until_end(options, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(
                error = crate::object::sentence(&error),
                "the runner cannot start"
            );
            ExitCode::FAILURE
        }
    }
}

fn serve_until_end(options: &Options, config: &Config) -> Result<(), RunnerError> {
    // By the number in the page, not by asking for the parent's: a guard that has died before this
    // line would have left us to another parent, with nobody to end us.
    let page = SharedView::open(&paths::page(&options.run_dir), PAGE_WORDS)?;
    die_with_parent(page.load(word::GUARD_PID).unwrap_or(0) as u32)?;
    // Signals for the whole service are the guard's business; it ends the others in order.
    let _blocked = Signals::block(&DAEMON_SIGNALS)?;
    // Programs of tasks must not inherit a locked daemon's privilege. Without the right to change
    // it there was none.
    let _ = expose_to_oom();
    let name = options.node_name()?;
    let node = config.node(&name).ok_or(RunnerError::NoSuchNode(name))?;
    let mut runner = Runner::new(options, config, node)?;
    tracing::info!(
        node = node.name,
        tasks = config.tasks().len(),
        "runner started"
    );
    runner.run();
    let _ = fs::remove_file(paths::control_socket(&options.run_dir));
    Ok(())
}

/// A question that waits for the core.
enum Pending {
    Snapshot(Sender<Box<Snapshot>>),
    Command(Sender<Result<String, Refusal>>),
}

/// The greeting of a new connection, while workers look at their tasks.
struct Hello {
    found: Vec<Option<Found>>,
    deadline: Instant,
}

struct Runner {
    lease: Arc<Lease>,
    core: Core,
    mailboxes: Vec<Arc<Mailbox>>,
    said: Receiver<Said>,
    asks: Receiver<Ask>,
    bell: Arc<EventFd>,
    history: History,
    shared: Arc<Shared>,
    hello: Option<Hello>,
    fitness: Fitness,
    desk: Arc<Desk>,
    power: Receiver<power::Said>,
    pending: BTreeMap<u64, Pending>,
    request: u64,
    ended: bool,
}

impl Runner {
    fn new(options: &Options, config: &Config, node: &NodeConfig) -> Result<Runner, RunnerError> {
        let run_dir = &options.run_dir;
        let lease = Arc::new(Lease::open(run_dir)?);
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let bell = Arc::new(bell.map_err(|errno| failed("create an event")(errno.into()))?);
        let keeper = Arc::new(Keeper::new(paths::guard_socket(run_dir)));
        // Asked again with the first question; only notices would be missed until then.
        if let Err(error) = keeper.connect() {
            tracing::warn!(
                error = crate::object::sentence(&error),
                "no connection to the guard"
            );
        }
        let (queue, said) = unbounded();
        let mouth = Mouth {
            queue,
            bell: Arc::clone(&bell),
        };
        let history = told::open_history(options, config, node, &lease)?;
        let mailboxes = start_workers(run_dir, config, node, &keeper, &lease, &mouth)?;
        let shared = Arc::new(Shared::default());
        let (desk, power) = Desk::open(config, node.id, &bell)
            .map_err(failed("start a thread for a node's power"))?;
        let desk = Arc::new(desk);
        let (sender, asks) = bounded(ASKS_MAX);
        let server = Server {
            asks: sender,
            bell: Arc::clone(&bell),
            history: history.clone(),
            lease: Arc::clone(&lease),
            names: Names::of(config, node),
            node: node.id,
            desk: Arc::clone(&desk),
            shared: Arc::clone(&shared),
        };
        serve::listen(&paths::control_socket(run_dir), server)
            .map_err(failed("listen on the control socket"))?;
        let core = Core::new(paths::core_socket(run_dir));
        let fitness = Fitness::new(config, node)?;
        Ok(Runner {
            lease,
            core,
            mailboxes,
            said,
            asks,
            bell,
            history,
            shared,
            hello: None,
            fitness,
            desk,
            power,
            pending: BTreeMap::new(),
            request: 0,
            ended: false,
        })
    }

    fn run(&mut self) {
        while !self.ended {
            self.lease.turn();
            if self.core.connect() {
                self.begin_hello();
            }
            self.wait();
            let _ = self.bell.read();
            self.core.flush();
            for message in self.core.receive() {
                self.hear(message);
            }
            while let Ok(said) = self.said.try_recv() {
                self.pass_on(said);
            }
            while let Ok(said) = self.power.try_recv() {
                self.pass_on_of_power(said);
            }
            while let Ok(ask) = self.asks.try_recv() {
                self.ask(ask);
            }
            self.end_hello();
            self.tell_fitness();
            if !self.core.is_connected() {
                // Whoever waits for an answer of that core learns that there is none.
                self.pending.clear();
            }
            self.shared
                .reports_lost
                .store(self.core.lost, Ordering::Relaxed);
            self.shared
                .core_connections
                .store(self.core.connections, Ordering::Relaxed);
        }
    }

    fn wait(&self) {
        let mut waited = vec![(self.bell.as_fd(), PollFlags::POLLIN)];
        waited.push((self.fitness.descriptor(), PollFlags::POLLIN));
        waited.extend(self.core.watch());
        let mut until = Instant::now() + TURN;
        until = self.core.attempt_at().map_or(until, |at| until.min(at));
        until = self
            .hello
            .as_ref()
            .map_or(until, |hello| until.min(hello.deadline));
        let _ = wait_for(&waited, Some(until));
    }

    /// A new core knows nothing: everything is looked at anew.
    fn begin_hello(&mut self) {
        self.fitness.forget_told();
        self.desk.forget_orders();
        let connection = self.core.connections;
        let mut found = vec![None; self.mailboxes.len()];
        for (index, mailbox) in self.mailboxes.iter().enumerate() {
            let epoch = TaskIndex::new(index).map_or(0, |task| self.lease.task_epoch(task));
            if !mailbox.push(Job::Probe { connection, epoch }) {
                found[index] = Some(Found::Partly);
            }
        }
        self.hello = Some(Hello {
            found,
            deadline: Instant::now() + HELLO_MAX,
        });
    }

    fn tell_fitness(&mut self) {
        if self.core.is_connected()
            && self.hello.is_none()
            && let Some(tasks) = self.fitness.news()
        {
            self.core.send(&FromRunner::Report(Report::Fit { tasks }));
        }
    }

    fn end_hello(&mut self) {
        if !self.core.is_connected() {
            self.hello = None;
        }
        let over = |hello: &mut Hello| {
            hello.found.iter().all(Option::is_some) || Instant::now() >= hello.deadline
        };
        let Some(hello) = self.hello.take_if(over) else {
            return;
        };
        let found = hello
            .found
            .into_iter()
            .map(|found| found.unwrap_or(Found::Partly))
            .collect();
        tracing::info!(?found, "connected to the core");
        self.core.send(&FromRunner::Report(Report::Hello { found }));
    }

    fn hear(&mut self, message: ToRunner) {
        match message {
            ToRunner::Order(order) => self.obey(order),
            ToRunner::PowerFence { node, epoch } => {
                self.desk.order(self.core.connections, node, epoch);
            }
            ToRunner::Record(record) => {
                tell(&record);
                self.history.keep(record, None);
            }
            ToRunner::Reply { request, outcome } => {
                if let Some(Pending::Command(asker)) = self.pending.remove(&request) {
                    let _ = asker.send(outcome);
                }
            }
            ToRunner::Snapshot { request, snapshot } => {
                if let Some(Pending::Snapshot(asker)) = self.pending.remove(&request) {
                    let _ = asker.send(snapshot);
                }
            }
            ToRunner::Log { level, line } => log(&level, &line),
            ToRunner::End => self.ended = true,
        }
    }

    fn obey(&mut self, order: Order) {
        let connection = self.core.connections;
        let (op, task, job) = match order {
            Order::Start { op, task, epoch } => (
                op,
                task,
                Job::Start {
                    op,
                    connection,
                    epoch,
                },
            ),
            Order::Stop {
                op,
                task,
                forced,
                epoch: _,
            } => (
                op,
                task,
                Job::Stop {
                    op,
                    connection,
                    forced,
                },
            ),
        };
        let refusal = match self.mailboxes.get(task.index()) {
            Some(mailbox) if mailbox.push(job) => return,
            Some(_) => "too many orders wait for this task",
            None => "the configuration has no such task",
        };
        let reason = refusal.to_owned();
        let failure = Some(Failure {
            object: String::new(),
            reason,
            stopped: false,
        });
        self.core
            .send(&FromRunner::Report(Report::Done { op, task, failure }));
    }

    fn pass_on(&mut self, said: Said) {
        let current = self.core.connections;
        let greeted = self.hello.is_none();
        let report = match said {
            Said::Found {
                task,
                connection,
                found,
            } => {
                if let Some(hello) = &mut self.hello
                    && connection == current
                {
                    hello.found[task.index()] = Some(found);
                }
                return;
            }
            // Orders of an earlier core are lost; the greeting tells how the task stands.
            Said::Done { connection, .. } if connection != current => return,
            Said::Done {
                op, task, failure, ..
            } => Report::Done { op, task, failure },
            Said::Lost { .. } if !greeted => {
                // It may have been found running a moment ago: look again.
                return self.begin_hello();
            }
            Said::Lost { task, failure } => Report::Lost { task, failure },
            Said::Note { task, class, text } => Report::Note {
                task: Some(task),
                class,
                text,
            },
        };
        self.core.send(&FromRunner::Report(report));
    }

    fn pass_on_of_power(&mut self, said: power::Said) {
        match said {
            // The order of an earlier core: this one gives its own.
            power::Said::Outcome { connection, .. } if connection != self.core.connections => {}
            power::Said::Outcome {
                node,
                epoch,
                outcome,
                ..
            } => self.core.send(&FromRunner::PowerFenced {
                node,
                epoch,
                outcome,
            }),
            power::Said::Note { node, class, text } => {
                let record = Teller::now(node, &self.lease).record(class, "", text);
                tell(&record);
                self.history.keep(record, None);
            }
        }
    }

    fn ask(&mut self, ask: Ask) {
        // Dropping the asker's channel tells him at once.
        if !self.core.is_connected() {
            return;
        }
        self.request += 1;
        let request = self.request;
        if self.pending.len() >= PENDING_MAX {
            self.pending.pop_first();
        }
        match ask {
            Ask::Snapshot(asker) => {
                self.pending.insert(request, Pending::Snapshot(asker));
                self.core.send(&FromRunner::SnapshotPlease { request });
            }
            Ask::Command(command, asker) => {
                self.pending.insert(request, Pending::Command(asker));
                self.core.send(&FromRunner::Command { request, command });
            }
        }
    }
}

/// Makes every task's objects and starts its thread.
fn start_workers(
    run_dir: &Path,
    config: &Config,
    node: &NodeConfig,
    keeper: &Arc<Keeper>,
    lease: &Arc<Lease>,
    mouth: &Mouth,
) -> Result<Vec<Arc<Mailbox>>, RunnerError> {
    let start = |task: &TaskConfig| {
        let tree = TaskPlace {
            run_dir,
            config,
            node,
            task,
            keeper,
        }
        .tree()?;
        let (permit, mouth) = (Arc::clone(lease) as Arc<dyn Permit>, mouth.clone());
        worker::spawn(task.index, &task.name, tree, task.restart, permit, mouth)
            .map_err(failed("start a task's thread"))
    };
    config.tasks().iter().map(start).collect()
}

/// Where a task's objects live on this node.
struct TaskPlace<'a> {
    run_dir: &'a Path,
    config: &'a Config,
    node: &'a NodeConfig,
    task: &'a TaskConfig,
    keeper: &'a Arc<Keeper>,
}

impl TaskPlace<'_> {
    fn tree(&self) -> Result<Tree, RunnerError> {
        let directory = self.run_dir.join("tasks").join(&self.task.name);
        fs::create_dir_all(&directory)
            .map_err(failed(&format!("create {}", directory.display())))?;
        let mut contexts = Vec::new();
        for (position, object) in self.task.objects.iter().enumerate() {
            let named = |source| RunnerError::Object {
                task: self.task.name.clone(),
                object: object.name.clone(),
                source,
            };
            let notices = Arc::new(Notices::new().map_err(named)?);
            self.keeper.subscribe(Subscriber {
                task: self.task.index,
                object: position as u8,
                notices: Arc::clone(&notices),
            });
            contexts.push(BuildContext {
                task: self.task.index,
                task_name: self.task.name.clone(),
                node: self.node.name.clone(),
                node_id: self.node.id,
                cluster: self.config.cluster().id,
                position: position as u8,
                cgroup: paths::task_cgroup(
                    &self.config.cluster().name,
                    &self.node.name,
                    &self.task.name,
                ),
                directory: directory.clone(),
                detect: self.config.timing().detect,
                fenced: self.task.is_fenced(),
                keeper: self.keeper.clone(),
                notices,
            });
        }
        Ok(Tree::new(self.task, |position, object: &ObjectConfig| {
            crate::object::build(object, contexts[position as usize].clone())
                .expect("a checked configuration names only kinds that exist")
        }))
    }
}

/// A record as a line of the log, which the core itself must not write.
fn tell(record: &Record) {
    let Record {
        epoch,
        trigger,
        outcome,
        ..
    } = record;
    match record.class {
        Class::Critical => tracing::error!(epoch, trigger, "{outcome}"),
        Class::Major | Class::Warning => tracing::warn!(epoch, trigger, "{outcome}"),
        Class::Notice | Class::Info => tracing::info!(epoch, trigger, "{outcome}"),
    }
}

/// A line of the core's log: the core itself writes no files.
fn log(level: &str, line: &str) {
    match level {
        "error" => tracing::error!(target: "core", "{line}"),
        "warn" => tracing::warn!(target: "core", "{line}"),
        "info" => tracing::info!(target: "core", "{line}"),
        _ => tracing::debug!(target: "core", "{line}"),
    }
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> RunnerError {
    let what = what.to_owned();
    move |source| RunnerError::Io { what, source }
}
