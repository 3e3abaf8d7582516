//! One task's thread: carries out its orders one after the other and watches its objects in
//! between.
//!
//! ```text
//!            Start, Stop, Probe                     ok
//!   main ----------------------> [ order ] --------------------> [ watched ]
//!                                    |  failed or stopped             | object broken
//!                                    v                                v
//!                                [ idle ] <--- Lost, budget --- [ started again ]
//! ```
//! A stop cancels the start, or the restart, that is under way. Tasks wait for nothing of each
//! other.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;

use super::tree::{Took, Tree};
use crate::config::RestartConfig;
use crate::engine::{Class, Failure, Found};
use crate::model::TaskIndex;
use crate::object::{Cancel, Context, Permit, Urgency, Watched, Woke, wait_for};

/// Most orders that wait for one task. The engine gives one at a time; a flood is refused.
const JOBS_MAX: usize = 16;

/// What a worker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Look at every object and adopt what runs.
    Probe {
        /// Connection to the core it is for.
        connection: u64,
        /// Epoch of the task, as far as known.
        epoch: u32,
    },
    /// Start all objects.
    Start {
        /// Number of the order.
        op: u64,
        /// Connection it came from.
        connection: u64,
        /// Epoch of the task.
        epoch: u32,
    },
    /// Stop all objects.
    Stop {
        /// Number of the order.
        op: u64,
        /// Connection it came from.
        connection: u64,
        /// Skip the polite rungs.
        forced: bool,
    },
}

/// What a worker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// To a probe.
    Found {
        /// Which task.
        task: TaskIndex,
        /// For which connection.
        connection: u64,
        /// What was found.
        found: Found,
    },
    /// To an order.
    Done {
        /// Number of the order.
        op: u64,
        /// Which task.
        task: TaskIndex,
        /// From which connection it came.
        connection: u64,
        /// What failed.
        failure: Option<Failure>,
    },
    /// A started task does not run any more.
    Lost {
        /// Which task.
        task: TaskIndex,
        /// What happened.
        failure: Failure,
    },
    /// For the history.
    Note {
        /// Which task.
        task: TaskIndex,
        /// How bad it is.
        class: Class,
        /// The sentence.
        text: String,
    },
}

/// Where workers speak to: the main thread's queue and its bell.
#[derive(Clone)]
pub struct Mouth {
    /// The queue; unbounded, but a worker says a few things per order and per event.
    pub queue: Sender<Said>,
    /// Rung after each.
    pub bell: Arc<EventFd>,
}

impl Mouth {
    fn say(&self, said: Said) {
        // The main thread ends only with the process.
        let _ = self.queue.send(said);
        let _ = self.bell.write(1);
    }
}

/// Where a worker is told what to do.
pub struct Mailbox {
    state: Mutex<State>,
    bell: EventFd,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<(Job, Arc<Cancel>)>,
    running: Option<Arc<Cancel>>,
}

impl State {
    fn waiting_stop(&self) -> Option<Urgency> {
        let urgency = |(job, _): &(Job, Arc<Cancel>)| match job {
            Job::Stop { forced: true, .. } => Some(Urgency::Forced),
            Job::Stop { forced: false, .. } => Some(Urgency::Stop),
            Job::Start { .. } | Job::Probe { .. } => None,
        };
        self.jobs.iter().filter_map(urgency).max()
    }
}

impl Mailbox {
    fn new() -> Result<Mailbox, nix::Error> {
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Mailbox {
            state: Mutex::new(State::default()),
            bell,
        })
    }

    /// Gives the worker a job; a stop cancels what came before it. False if too many wait, or no
    /// event descriptor is to be had.
    #[must_use]
    pub fn push(&self, job: Job) -> bool {
        let mut state = self.state.lock();
        if let Job::Stop { forced, .. } = job {
            let urgency = if forced {
                Urgency::Forced
            } else {
                Urgency::Stop
            };
            let earlier = state
                .jobs
                .iter()
                .map(|(_, cancel)| cancel)
                .chain(&state.running);
            earlier.for_each(|cancel| cancel.raise(urgency));
        }
        let Ok(cancel) = Cancel::new() else {
            return false;
        };
        if state.jobs.len() >= JOBS_MAX {
            return false;
        }
        state.jobs.push_back((job, Arc::new(cancel)));
        let _ = self.bell.write(1);
        true
    }

    fn take(&self) -> Option<(Job, Arc<Cancel>)> {
        let mut state = self.state.lock();
        let next = state.jobs.pop_front();
        state.running = next.as_ref().map(|(_, cancel)| Arc::clone(cancel));
        if next.is_none() {
            let _ = self.bell.read();
        }
        next
    }

    /// Something that a stop is to cancel although no order began it.
    fn run_unasked(&self, cancel: &Arc<Cancel>) {
        let mut state = self.state.lock();
        if let Some(urgency) = state.waiting_stop() {
            cancel.raise(urgency);
        }
        state.running = Some(Arc::clone(cancel));
    }
}

/// The restarts of a task that are not forgotten yet.
struct Budget {
    config: RestartConfig,
    used: VecDeque<Instant>,
}

impl Budget {
    /// Uses one restart, if there is one: its number within the window.
    fn take(&mut self, now: Instant) -> Option<usize> {
        let window = self.config.window.to_std();
        self.used
            .retain(|used| now.saturating_duration_since(*used) < window);
        if self.used.len() >= self.config.attempts as usize {
            return None;
        }
        self.used.push_back(now);
        Some(self.used.len())
    }
}

/// One task's thread.
pub(super) struct Worker {
    task: TaskIndex,
    tree: Tree,
    mailbox: Arc<Mailbox>,
    mouth: Mouth,
    permit: Arc<dyn Permit>,
    budget: Budget,
    watching: bool,
    epoch: u32,
}

/// Starts the thread of a task.
pub(super) fn spawn(
    task: TaskIndex,
    name: &str,
    tree: Tree,
    restart: RestartConfig,
    permit: Arc<dyn Permit>,
    mouth: Mouth,
) -> std::io::Result<Arc<Mailbox>> {
    let mailbox = Arc::new(Mailbox::new()?);
    let budget = Budget {
        config: restart,
        used: VecDeque::new(),
    };
    let shared = Arc::clone(&mailbox);
    let mut worker = Worker {
        task,
        tree,
        mailbox: shared,
        mouth,
        permit,
        budget,
        watching: false,
        epoch: 0,
    };
    // The kernel shows 15 bytes of a thread's name.
    thread::Builder::new()
        .name(format!("task {name}"))
        .spawn(move || worker.run())?;
    Ok(mailbox)
}

impl Worker {
    fn run(&mut self) -> ! {
        loop {
            while let Some((job, cancel)) = self.mailbox.take() {
                self.carry_out(job, &cancel);
            }
            self.watch();
        }
    }

    fn carry_out(&mut self, job: Job, cancel: &Arc<Cancel>) {
        match job {
            Job::Probe { connection, epoch } => {
                self.epoch = epoch;
                let (found, troubles) =
                    self.with_context(cancel, |tree, context| tree.probe(context));
                for trouble in troubles {
                    self.note(Class::Warning, trouble);
                }
                self.watching = found == Found::Running;
                self.mouth.say(Said::Found {
                    task: self.task,
                    connection,
                    found,
                });
            }
            Job::Start {
                op,
                connection,
                epoch,
            } => {
                self.epoch = epoch;
                let begun = Instant::now();
                let result = self.with_context(cancel, |tree, context| tree.start(context));
                self.watching = result.is_ok();
                let failure = match result {
                    Ok(took) => {
                        self.note(Class::Info, told("started", begun.elapsed(), &took));
                        None
                    }
                    Err(failure) => Some(failure),
                };
                self.mouth.say(Said::Done {
                    op,
                    task: self.task,
                    connection,
                    failure,
                });
            }
            Job::Stop {
                op,
                connection,
                forced,
            } => {
                self.watching = false;
                let begun = Instant::now();
                let (took, failure) =
                    self.with_context(cancel, |tree, context| tree.stop(context, forced));
                if failure.is_none() {
                    self.note(Class::Info, told("stopped", begun.elapsed(), &took));
                }
                self.mouth.say(Said::Done {
                    op,
                    task: self.task,
                    connection,
                    failure,
                });
            }
        }
    }

    fn with_context<T>(
        &mut self,
        cancel: &Cancel,
        act: impl FnOnce(&mut Tree, &Context<'_>) -> T,
    ) -> T {
        let (task, mouth) = (self.task, self.mouth.clone());
        let note = move |class, text| mouth.say(Said::Note { task, class, text });
        let permit = Arc::clone(&self.permit);
        let context = Context {
            epoch: self.epoch,
            permit: &*permit,
            cancel,
            note: &note,
        };
        act(&mut self.tree, &context)
    }

    fn note(&self, class: Class, text: String) {
        self.mouth.say(Said::Note {
            task: self.task,
            class,
            text,
        });
    }

    /// Waits for a job or for something to happen to an object, and looks at it.
    fn watch(&mut self) {
        let mailbox = Arc::clone(&self.mailbox);
        let mut waited = vec![(mailbox.bell.as_fd(), PollFlags::POLLIN)];
        let mut positions = Vec::new();
        let mut first: Option<Instant> = None;
        if self.watching {
            for (position, leaf) in self.tree.leaves().iter().enumerate() {
                let watch = leaf.object.watch();
                for descriptor in watch.descriptor.into_iter().chain(watch.other) {
                    waited.push(descriptor);
                    positions.push(position);
                }
                first = first.into_iter().chain(watch.at).min();
            }
        }
        let woke = wait_for(&waited, first);
        drop(waited);
        if let Woke::Ready(at) = woke
            && let Some(at) = at.checked_sub(1)
        {
            self.look(positions[at]);
        }
        let now = Instant::now();
        for position in 0..self.tree.leaves().len() {
            let due = |at: Instant| at <= now;
            if self.watching
                && self.tree.leaves()[position]
                    .object
                    .watch()
                    .at
                    .is_some_and(due)
            {
                self.look(position);
            }
        }
    }

    fn look(&mut self, position: usize) {
        let Ok(cancel) = Cancel::new() else { return };
        let watched = self.with_context(&cancel, |tree, context| {
            tree.leaves()[position].object.look(context)
        });
        let name = self.tree.leaves()[position].name.clone();
        match watched {
            Watched::Fine => {}
            Watched::Note { class, text } => self.note(class, format!("{name}: {text}")),
            Watched::Broken { reason } => self.mend(position, &name, reason),
            Watched::Lost { reason } => self.lose(name, reason),
            Watched::Evicted { reason } => self.evict(name, reason),
        }
    }

    /// Ends everything of a task that another node owns by now. Nobody is asked first: the core may
    /// stand as still as this node did.
    fn evict(&mut self, object: String, reason: String) {
        self.watching = false;
        self.note(Class::Critical, format!("{object}: {reason}"));
        let Ok(cancel) = Cancel::new().map(Arc::new) else {
            return self.lose(object, format!("{reason}; no descriptor is left"));
        };
        self.mailbox.run_unasked(&cancel);
        let (_, left) = self.with_context(&cancel, |tree, context| tree.stop(context, true));
        let failure = match left {
            None => Failure {
                object,
                reason,
                stopped: true,
            },
            Some(left) => Failure {
                object,
                reason: format!("{reason}; then {}: {}", left.object, left.reason),
                stopped: false,
            },
        };
        self.mouth.say(Said::Lost {
            task: self.task,
            failure,
        });
    }

    /// Starts a broken object again, as often as the task's budget allows.
    fn mend(&mut self, position: usize, name: &str, mut reason: String) {
        let RestartConfig { attempts, window } = self.budget.config;
        let window = humantime::format_duration(window.to_std());
        loop {
            // A failed start cancels its context: each attempt has its own.
            let Ok(cancel) = Cancel::new().map(Arc::new) else {
                return self.lose(name.to_owned(), format!("{reason}; no descriptor is left"));
            };
            self.mailbox.run_unasked(&cancel);
            if cancel.is_raised(Urgency::Stop) {
                // The stop that was ordered finds it as it is.
                return;
            }
            if !self.permit.may_run(self.task) {
                return self.lose(name.to_owned(), format!("{reason}; the lease is gone"));
            }
            let footing = |tree: &mut Tree, context: &Context<'_>| tree.footing(position, context);
            match self.with_context(&cancel, footing) {
                Some((below, Watched::Evicted { reason: gone })) => {
                    self.note(Class::Warning, format!("{name}: {reason}"));
                    return self.evict(below, gone);
                }
                Some((below, Watched::Lost { reason: gone })) => {
                    return self.lose(below, format!("{gone}; {name}: {reason}"));
                }
                Some((_, Watched::Fine | Watched::Note { .. } | Watched::Broken { .. })) | None => {
                }
            }
            if cancel.is_raised(Urgency::Stop) {
                return;
            }
            let Some(number) = self.budget.take(Instant::now()) else {
                let used = format!("{reason}; {attempts} restarts within {window} are used up");
                return self.lose(name.to_owned(), used);
            };
            let text = format!("{name}: {reason}; restart {number} of {attempts} within {window}");
            self.note(Class::Warning, text);
            let task = self.task;
            let result = self.with_context(&cancel, |tree, context| {
                let leaf = &mut tree.leaves()[position];
                leaf.stop(context, true).0?;
                leaf.start(task, context).0
            });
            match result {
                Ok(()) => return,
                Err(error) => reason = crate::object::sentence(&error),
            }
        }
    }

    fn lose(&mut self, object: String, reason: String) {
        self.watching = false;
        let failure = Failure {
            object,
            reason,
            stopped: false,
        };
        self.mouth.say(Said::Lost {
            task: self.task,
            failure,
        });
    }
}

/// "started in 12.3 ms: data 10.1, server 1.2".
fn told(what: &str, whole: Duration, took: &[Took]) -> String {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let parts: Vec<String> = took
        .iter()
        .map(|took| format!("{} {:.1}", took.object, ms(took.time)))
        .collect();
    format!("{what} in {:.1} ms: {}", ms(whole), parts.join(", "))
}
