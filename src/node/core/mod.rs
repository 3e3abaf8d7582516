//! The core: speaks with the other nodes, decides, never forks and never touches a file once it
//! runs.
//!
//! ```text
//! link-0, link-1, ...   a real-time thread each  --events--> engine --frames, packets, orders-->
//! contest-2, ...        where the register is changed by compare-and-write: tries the disk
//! port                  core.sock, runner's end  -reports--> engine --orders, records----------->
//! keep                  this node's own record   -kept------> engine --records to keep-------->
//! engine (main thread)  real-time; publishes lease and grants in the page before anything is done
//!                       recorder, if asked for: into memory, on this same thread
//! ```
//!
//! Started by the guard and killed with it. What it must not lose when it dies alone stands in the
//! shared page: the lease deadline, what is granted, the last sequence number. Its successor goes
//! on from there, and from what the register and the runner say.

mod keep;
mod port;
mod recorder;
mod start;

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, select};
use standfast_sys::sharedpage::SharedPage;
use standfast_sys::{clock, realtime};

use crate::config::Config;
use crate::engine::{Action, Engine, Event};
use crate::link::LinkHandle;
use crate::model::TaskIndex;
use crate::node::guard::rule::Rule;
use crate::node::messages::ToRunner;
use crate::node::options::Options;
use crate::node::page::{is_falling, word};
use crate::time::{Instant, Span};
use keep::Keep;
use port::{Port, Request};
use recorder::Recorder;
pub use recorder::{PlaceError, RECORD_MIB_MAX, RECORD_MIB_MIN, check_place};
pub use start::StartError;

/// Events that may wait for the engine, some hundred kilobytes of locked memory. Links drop frames
/// and count them when it is full; everything else waits.
const EVENTS_MAX: usize = 1024;

/// Real-time priority of the engine and the links; the guard's is higher.
const PRIORITY: u8 = 40;

/// Longest sleep of the engine: the page is looked at no later than this.
const SLEEP_MAX: Span = Span::from_ms(50);

/// The core's life. Returns only when it cannot start; otherwise the guard ends it.
#[must_use]
pub fn run(options: &Options, config: &Config) -> ExitCode {
    let _ = realtime::limit_arenas();
    match Core::start(options, config) {
        Ok(core) => core.work(),
        Err(error) => {
            tracing::error!(%error, "the core cannot start");
            ExitCode::from(2)
        }
    }
}

struct Core {
    page: SharedPage,
    engine: Engine,
    events: Receiver<Event>,
    requests: Receiver<Request>,
    port: Port,
    keep: Keep,
    recorder: Option<Recorder>,
    links: Vec<LinkHandle>,
    /// Which of the links are the register's disks.
    disks: Vec<usize>,
    tasks: usize,
    revocations: u64,
    leaving: bool,
}

/// This node's boot-time clock.
fn now() -> Instant {
    Instant(clock::boottime_ns())
}

/// What each thread of the core does first.
fn become_realtime_thread() {
    realtime::prefault_stack();
    // Refusals were told by the main thread, which tries first.
    let _ = realtime::become_realtime(PRIORITY);
}

impl Core {
    fn start(options: &Options, config: &Config) -> Result<Core, StartError> {
        let page = start::open_page(options)?;
        let setup = start::setup(options, config, &page)?;
        let keyring = start::keyring(config)?;
        let tasks = setup.tasks.len();
        let (sender, events) = bounded(EVENTS_MAX);
        let keep = start::keep(options, &setup, &keyring, &sender)?;
        let (request_sender, requests) = bounded(256);
        let port = Port::spawn(&options.run_dir, sender.clone(), request_sender)
            .map_err(StartError::Port)?;
        let (links, disks) = start::links(config, &setup, &keyring, &sender)?;
        start::tell_scheduling(&port);
        let now = now();
        let recorder = start::recorder(options, &setup, now, &port);
        let engine = Engine::new(setup, now);
        page.words()[word::CORE_STARTS].fetch_add(1, Ordering::Relaxed);
        page.words()[word::CORE_PID].store(u64::from(std::process::id()), Ordering::Relaxed);
        let revocations = page.words()[word::REVOCATIONS].load(Ordering::Acquire);
        Ok(Core {
            page,
            engine,
            events,
            requests,
            port,
            keep,
            recorder,
            links,
            disks,
            tasks,
            revocations,
            leaving: false,
        })
    }

    fn work(mut self) -> ExitCode {
        loop {
            self.watch_page();
            let wait = self.engine.poll_timeout().since(now()).min(SLEEP_MAX);
            let timeout = Duration::from_nanos(wait.0);
            select! {
                recv(self.events) -> event => match event {
                    Ok(event) => self.turn(event),
                    Err(_) => return ExitCode::FAILURE,
                },
                recv(self.requests) -> request => match request {
                    Ok(request) => self.answer(&request),
                    Err(_) => return ExitCode::FAILURE,
                },
                default(timeout) => self.turn(Event::Tick),
            }
        }
    }

    fn turn(&mut self, event: Event) {
        let now = now();
        if let Some(recorder) = &mut self.recorder {
            recorder.event(now, &event, &self.engine);
        }
        self.engine.handle(now, event);
        self.publish();
        while let Some(action) = self.engine.poll_action() {
            if let Some(recorder) = &mut self.recorder {
                recorder.action(&action);
            }
            self.perform(action);
        }
        self.end_of_turn(now);
    }

    /// What a recorder wants to know last. That it can go on no longer is told once.
    fn end_of_turn(&mut self, now: Instant) {
        let Some(recorder) = &mut self.recorder else {
            return;
        };
        if let Some(farewell) = recorder.done(now, &self.engine) {
            self.port.send(ToRunner::Record(farewell));
        }
    }

    fn answer(&self, request: &Request) {
        let Request::Snapshot { request } = *request;
        let mut snapshot = Box::new(self.engine.snapshot(now()));
        let lost = |link: &LinkHandle| link.counters().register_lost.get().cloned();
        snapshot.alarms.extend(self.links.iter().filter_map(lost));
        self.port.send(ToRunner::Snapshot { request, snapshot });
    }

    /// What the guard and the operator's signals have left in the page.
    fn watch_page(&mut self) {
        let words = self.page.words();
        let revocations = words[word::REVOCATIONS].load(Ordering::Acquire);
        let leave = words[word::LEAVE].load(Ordering::Relaxed) != 0;
        if revocations != self.revocations {
            self.revocations = revocations;
            let tasks = words[word::REVOKED].load(Ordering::Acquire);
            self.turn(Event::Revoked { tasks });
        }
        if leave && !self.leaving {
            self.leaving = true;
            self.turn(Event::Leave);
        }
    }

    /// Everything the guard acts on is in the page before any action of this turn is done: the
    /// grant before the start, the end of the lease before anything that follows from it.
    fn publish(&self) {
        let words = self.page.words();
        // Taken back before the lease ends, given after it has begun: the guard would revoke a
        // grant that it sees without a lease.
        let granted = self.engine.granted();
        words[word::GRANTED].fetch_and(granted, Ordering::AcqRel);
        let deadline = self.engine.lease_deadline();
        let before = Instant(words[word::LEASE_DEADLINE].swap(deadline.0, Ordering::AcqRel));
        words[word::GRANTED].store(granted, Ordering::Release);
        if Rule::must_hear(before, deadline) {
            // The guard gave us its bell as standard input. Without one it sees the page a
            // heartbeat later.
            let _ = nix::unistd::write(std::io::stdin(), &1_u64.to_ne_bytes());
        }
        words[word::SEQUENCE].store(self.engine.sequence(), Ordering::Release);
        words[word::EPOCH].store(self.engine.view().epoch, Ordering::Relaxed);
        words[word::CORE_TURNS].fetch_add(1, Ordering::Release);
        words[word::CORE_TURN_AT].store(now().0, Ordering::Release);
        for task in (0..self.tasks).filter_map(TaskIndex::new) {
            let epoch = u64::from(self.engine.view().task(task).epoch);
            let state = self.engine.task_state(task) as u64 | epoch << 8;
            words[word::TASK_STATES + task.index()].store(state, Ordering::Relaxed);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Send(frame) => {
                let tell_drained = self.engine.waits_for_drain();
                // Beside the frame on a disk the guard leaves why this node falls: another frame
                // would wipe that.
                let falling = is_falling(self.page.words()[word::FALL].load(Ordering::Acquire));
                for link in &self.links {
                    if link.carries_mail() || !falling {
                        link.send(&frame, tell_drained);
                    }
                }
            }
            Action::Mail(packet) => {
                for link in &self.links {
                    link.mail(&packet);
                }
            }
            Action::Disk { disk, order } => {
                let link = self.disks[usize::from(disk)];
                let taken = self.links[link].order(order);
                taken.expect("the register has one write under way at most");
            }
            Action::Keep(block) => self.keep.order(block),
            Action::Order(order) => self.port.send(ToRunner::Order(order)),
            Action::PowerFence { node, epoch } => {
                self.port.send(ToRunner::PowerFence { node, epoch });
            }
            Action::Record(record) => self.port.send(ToRunner::Record(record)),
            Action::Reply { request, outcome } => {
                self.port.send(ToRunner::Reply { request, outcome });
            }
            Action::Left => {
                self.page.words()[word::LEFT].store(1, Ordering::Release);
                self.port.send(ToRunner::End);
            }
        }
    }
}
