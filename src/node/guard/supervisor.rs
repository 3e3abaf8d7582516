//! The thread `supervisor`: starts core and runner, starts them again when they die, kills the core
//! when the guard says so, and ends everything in order. Normal priority; it may wait, but it
//! writes no log itself, because a log that hangs must not keep a dead core dead.
//!
//! ```text
//! SIGTERM --> leaving: LEAVE in the page, the core hands everything over
//!               |-- LEFT in the page ---> runner, core, guard end in this order      exit 0
//!               |-- time is up, or a second SIGTERM --> guard takes everything back, then they end
//! ```
//! The children are bound to this thread by their parent-death signal; it is the process's first
//! thread and lives as long as the process.

use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use standfast_sys::clock::boottime_ns;
use standfast_sys::sharedpage::SharedPage;
use standfast_sys::signal::{Signal, Signals};
use tracing::Level;

use super::children::Keeper;
use super::control::Control;
use super::said::Voice;
use super::watchdog::Ending;
use crate::node::options::{Options, Role};
use crate::node::page::word;
use crate::time::{Instant, Span};

const SIGNALS: Token = Token(0);
const WAKER: Token = Token(1);

/// How often the page is looked at for LEFT while the node leaves.
const LOOK_FOR_LEFT: Duration = Duration::from_millis(20);

/// Longest sleep otherwise; nothing depends on it.
const IDLE: Duration = Duration::from_secs(1);

/// How long runner and core may take to end after they were asked to.
const END_MAX: Span = Span::from_ms(5_000);

/// How often one that was killed and has not ended is killed again.
const KILL_AGAIN: Span = Span::from_ms(100);

/// How long the thread `guard` may take to take everything back; it has its own, shorter bound.
const GUARD_END_MAX: Span = Span::from_ms(8_000);

/// The threads of the guard that the supervisor ends.
pub(super) struct Threads {
    pub(super) guard: JoinHandle<bool>,
    pub(super) watchdog: Option<JoinHandle<()>>,
    pub(super) ending: Arc<Ending>,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// Nobody wants it to end.
    No,
    /// The core was asked to leave the cluster, and has time until then.
    Until(Instant),
    /// The core has left: nothing is held.
    Left,
    /// Do not wait for the core.
    AtOnce,
}

/// The supervisor's loop.
pub(super) struct Supervisor {
    options: Options,
    leave_max: Span,
    poll: Poll,
    events: Events,
    signals: Signals,
    page: Arc<SharedPage>,
    control: Arc<Control>,
    voice: Voice,
    runner: Keeper,
    core: Keeper,
    core_kills: u64,
    leaving: Leaving,
}

impl Supervisor {
    /// `signals` were blocked before any thread was made. `leave_max` is how long leaving may take.
    ///
    /// # Errors
    ///
    /// Out of file descriptors.
    pub(super) fn new(
        options: Options,
        leave_max: Span,
        signals: Signals,
        page: Arc<SharedPage>,
        control: Arc<Control>,
        voice: Voice,
    ) -> std::io::Result<Supervisor> {
        let poll = Poll::new()?;
        let mut source = SourceFd(&signals.as_raw_fd());
        poll.registry()
            .register(&mut source, SIGNALS, Interest::READABLE)?;
        control.set_supervisor_waker(Waker::new(poll.registry(), WAKER)?);
        Ok(Supervisor {
            options,
            leave_max,
            poll,
            events: Events::with_capacity(8),
            signals,
            page,
            core_kills: control.core_kills(),
            control,
            voice,
            runner: Keeper::new(Role::Runner),
            core: Keeper::new(Role::Core),
            leaving: Leaving::No,
        })
    }

    /// Runs until the node has left or is made to end.
    pub(super) fn run(mut self, threads: Threads) -> ExitCode {
        loop {
            self.read_signals();
            // Before the children: the runner ends by itself when the node has left.
            self.look_for_left();
            match self.leaving {
                Leaving::No | Leaving::Until(_) => {}
                Leaving::Left => return self.end_in_order(threads),
                Leaving::AtOnce => return self.end_at_once(threads),
            }
            self.keep_children();
            if threads.guard.is_finished() {
                // Its own bug. Children and watchdog must see this process die, not linger.
                self.voice.line(Level::ERROR, "the guard's thread has died");
                std::thread::sleep(LOOK_FOR_LEFT);
                std::process::abort();
            }
            self.wait();
        }
    }

    fn read_signals(&mut self) {
        while let Ok(Some(arrived)) = self.signals.next_signal() {
            match arrived.signal {
                Signal::SIGTERM | Signal::SIGINT => self.leave(arrived.pid),
                Signal::SIGHUP => {
                    self.voice.line(
                        Level::INFO,
                        "SIGHUP ignored: restart to read the configuration",
                    );
                }
                // The children are looked at in every turn.
                _ => {}
            }
        }
    }

    fn leave(&mut self, by: u32) {
        self.leaving = match self.leaving {
            Leaving::No => {
                let ms = self.leave_max.as_ms();
                let line = format!("pid={by} asks to leave the cluster; at most {ms} ms");
                self.voice.line(Level::INFO, line);
                self.page.words()[word::LEAVE].store(1, Ordering::Release);
                Leaving::Until(clock() + self.leave_max)
            }
            Leaving::Until(_) | Leaving::AtOnce => {
                self.voice.line(
                    Level::WARN,
                    format!("pid={by} asks again: everything ends now"),
                );
                Leaving::AtOnce
            }
            Leaving::Left => Leaving::Left,
        };
    }

    fn look_for_left(&mut self) {
        let Leaving::Until(deadline) = self.leaving else {
            return;
        };
        if self.page.words()[word::LEFT].load(Ordering::Acquire) == 1 {
            self.voice
                .line(Level::INFO, "the node has left the cluster");
            self.leaving = Leaving::Left;
        } else if clock() >= deadline {
            self.voice.line(
                Level::ERROR,
                "the node did not leave in time: everything ends now",
            );
            self.leaving = Leaving::AtOnce;
        }
    }

    fn keep_children(&mut self) {
        let kills = self.control.core_kills();
        if kills != self.core_kills {
            self.core_kills = kills;
            self.core.kill();
        }
        for keeper in [&mut self.core, &mut self.runner] {
            let role = keeper.role();
            if let Some(status) = keeper.ended() {
                self.voice
                    .line(Level::ERROR, format!("role={role:?} has ended: {status}"));
            }
            if keeper.start_due().is_none_or(|due| due > clock()) {
                continue;
            }
            match keeper.start(&self.options, &self.control) {
                Ok(pid) => {
                    self.voice
                        .line(Level::INFO, format!("role={role:?} pid={pid} started"));
                    if role == Role::Core {
                        self.control.core_started();
                    }
                }
                Err(error) => {
                    self.voice
                        .line(Level::ERROR, format!("role={role:?} cannot start: {error}"));
                }
            }
        }
    }

    fn wait(&mut self) {
        let now = clock();
        let dues = [self.core.start_due(), self.runner.start_due()];
        let start = dues
            .into_iter()
            .flatten()
            .map(|due| due.since(now).to_std())
            .min();
        let look = if self.leaving == Leaving::No {
            IDLE
        } else {
            LOOK_FOR_LEFT
        };
        let timeout = start.map_or(look, |start| start.min(look));
        // Interrupted or not, everything is looked at anew.
        let _ = self.poll.poll(&mut self.events, Some(timeout));
    }

    /// Nothing is held any more.
    fn end_in_order(mut self, threads: Threads) -> ExitCode {
        for keeper in [&mut self.runner, &mut self.core] {
            end_child(keeper);
        }
        self.control.end();
        end_threads(threads, &self.voice)
    }

    /// Something may be held: it is taken back before anything else.
    fn end_at_once(mut self, threads: Threads) -> ExitCode {
        self.control.end();
        let deadline = clock() + GUARD_END_MAX;
        while !threads.guard.is_finished() && clock() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        for keeper in [&mut self.runner, &mut self.core] {
            keeper.kill();
            end_child(keeper);
        }
        end_threads(threads, &self.voice)
    }
}

fn end_child(keeper: &mut Keeper) {
    keeper.terminate();
    let deadline = clock() + END_MAX;
    while keeper.is_alive() && keeper.ended().is_none() {
        if clock() < deadline {
            keeper.wait(deadline);
        } else {
            keeper.kill();
            keeper.wait(clock() + KILL_AGAIN);
        }
    }
}

/// Ends the guard's threads; the watchdog is disarmed only if everything is proved to be released.
fn end_threads(threads: Threads, voice: &Voice) -> ExitCode {
    let deadline = clock() + GUARD_END_MAX;
    while !threads.guard.is_finished() && clock() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    let verified = threads.guard.is_finished() && threads.guard.join().unwrap_or(false);
    threads.ending.end(verified);
    if let Some(watchdog) = threads.watchdog {
        watchdog.thread().unpark();
        while !watchdog.is_finished() && clock() < deadline + END_MAX {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    if verified {
        voice.line(Level::INFO, "ended, nothing is held");
        ExitCode::SUCCESS
    } else {
        voice.line(
            Level::ERROR,
            "ended with something held: the watchdog stays armed",
        );
        ExitCode::FAILURE
    }
}

fn clock() -> Instant {
    Instant(boottime_ns())
}
