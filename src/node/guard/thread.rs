//! The thread `guard`: one loop, real-time, that lets go in time.
//!
//! ```text
//!  wait: timer (a heartbeat, or the end of the lease), the core's bell, guard.sock, netlink, ARP
//!  turn: page -> rule -> release, verdict for the watchdog   before any event is looked at
//!  dispatch: requests, changes of interfaces and addresses, rivals     so many of each
//!  work: renew, add again, announce, delete again   each by a fresh look at the clock
//! ```
//! It touches no file and writes no log. What can hold it up is the kernel alone (the lock of the
//! routing tables): then its permission to pet the watchdog runs out by itself.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::sys::eventfd::{EfdFlags, EventFd};
use standfast_sys::clock::{Timer, boottime_ns};
use standfast_sys::netlink::{Monitor, Route};
use standfast_sys::sharedpage::SharedPage;
use standfast_sys::socket::SeqListener;
use tracing::Level;

use super::addresses::{Addresses, Note};
use super::cgroups::Cgroups;
use super::clients::{self, Clients};
use super::control::Control;
use super::fall::{Fall, LastRung, Sight, Step};
use super::interfaces::Interfaces;
use super::plan::Plan;
use super::rights::Rights;
use super::rule::{Decision, PageReading, Rule};
use super::said::{Voice, with_cause};
use crate::config::Timing;
use crate::model::TaskState;
use crate::node::messages::{FromGuard, ToGuard};
use crate::node::page::{FELL_IN_VAIN, word};
use crate::time::{Instant, Span};

const TIMER: Token = Token(0);
const MONITOR: Token = Token(1);
const WAKER: Token = Token(2);
const BELL: Token = Token(3);

/// Events taken from the kernel at a time.
const EVENTS_MAX: usize = 64;

/// Changes of interfaces and addresses looked at in one turn; the rest waits for the next.
const CHANGES_PER_TURN: usize = 256;

/// ARP packets of an interface looked at in one turn; the rest waits for the next.
const ARPS_PER_TURN: usize = 64;

/// The watchdog may be petted for this long after the next turn is due, or for `G` if that is
/// longer: far below any watchdog's timeout, and long enough for the watchdog's thread to come by.
const PET_FRESH_MIN: Span = Span::from_ms(100);

/// Between two tries to list everything when the kernel does not answer.
const LOOK_AGAIN: Span = Span::from_ms(1_000);

/// How long the end of the guard waits for a release to be verified before it leaves the rest to
/// the watchdog.
const END_MAX: Span = Span::from_ms(5_000);

/// What the loop is made from.
pub struct Parts {
    /// What may be held here.
    pub plan: Plan,
    /// The page shared with core and runner, of this boot.
    pub page: Arc<SharedPage>,
    /// Where the runner connects.
    pub listener: SeqListener,
    /// To and from the other threads.
    pub control: Arc<Control>,
    /// To the log.
    pub voice: Voice,
}

/// Why the guard's loop could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("the guard cannot {operation}")]
pub struct SetupError {
    operation: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// The loop, ready to run.
pub struct Guard {
    timing: Timing,
    poll: Poll,
    events: Events,
    timer: Timer,
    monitor: Monitor,
    clients: Clients,
    addresses: Addresses,
    cgroups: Cgroups,
    page: Arc<SharedPage>,
    control: Arc<Control>,
    voice: Voice,
    rule: Rule,
    rights: Rights,
    core_starts: u64,
    /// Tasks there are.
    tasks: usize,
    fall: Fall,
    /// None where this node is not to reset itself.
    last_rung: Option<LastRung>,
    /// When to list interfaces and addresses anew.
    look_due: Option<Instant>,
    /// More was waiting than one turn takes.
    again: bool,
    overdue: bool,
    ending_since: Option<Instant>,
}

impl Guard {
    /// Opens everything the loop will need. May block: done before the thread becomes real-time.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn new(parts: Parts) -> Result<Guard, SetupError> {
        let Parts {
            plan,
            page,
            listener,
            control,
            voice,
        } = parts;
        let poll = Poll::new().map_err(failed("make a loop"))?;
        let timer = Timer::new().map_err(failed("make a timer"))?;
        // Before anything is listed, so that no change falls between.
        let monitor = Monitor::open().map_err(failed("watch the network"))?;
        let registry = || poll.registry().try_clone().map_err(failed("make a loop"));
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(failed("make a bell for the core"))?;
        listen(&poll, timer.as_raw_fd(), TIMER)?;
        listen(&poll, monitor.as_raw_fd(), MONITOR)?;
        listen(&poll, bell.as_raw_fd(), BELL)?;
        let clients = Clients::new(listener, registry()?).map_err(failed("listen"))?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(failed("make a loop"))?;
        control.set_guard_waker(waker);
        control.set_bell(bell.into());
        let interfaces = Interfaces::new(&plan.addresses, registry()?);
        let route = Route::open().map_err(failed("open a netlink socket"))?;
        let lifetime = plan.lifetime();
        let mut addresses = Addresses::new(&plan.addresses, interfaces, route, lifetime);
        addresses
            .look()
            .map_err(failed("list interfaces and addresses"))?;
        let cgroups = Cgroups::open(&plan.tasks).map_err(failed("make the tasks' cgroups"))?;
        Ok(Guard {
            timing: plan.timing,
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            timer,
            monitor,
            clients,
            addresses,
            cgroups,
            core_starts: control.core_starts(),
            tasks: plan.tasks.len(),
            fall: Fall::new(&plan.timing),
            last_rung: None,
            page,
            control,
            voice,
            rule: Rule::new(plan.timing, clock()),
            rights: Rights::default(),
            look_due: None,
            again: false,
            overdue: false,
            ending_since: None,
        })
    }

    /// Gives this node the means to reset itself when it cannot let go. Without them, as in a
    /// container, only the pets end.
    pub fn arm(&mut self, last_rung: LastRung) {
        self.fall.count_on(Span(self.load(word::WATCHDOG_IN_FORCE)));
        self.last_rung = Some(last_rung);
    }

    /// Runs until [`Control::end`] and everything is taken back. True: that is verified. False:
    /// something may be left, and the watchdog must not be disarmed.
    #[must_use]
    pub fn run(mut self) -> bool {
        let mut decision = self.turn();
        // What an earlier life left behind and this one may not have; the rest is kept.
        self.addresses.drop_tasks(!self.rights.granted);
        loop {
            if let Some(verified) = self.ended(&decision) {
                return verified;
            }
            self.dispatch();
            self.addresses.work(&self.rights);
            self.look_again();
            self.tell();
            self.wait(decision.next);
            decision = self.turn();
        }
    }

    /// Asks the rule and does what it says.
    fn turn(&mut self) -> Decision {
        let now = clock();
        self.store(word::GUARD_TURN_AT, now.0);
        let starts = self.control.core_starts();
        if starts != self.core_starts {
            self.core_starts = starts;
            self.rule.core_restarted(now);
        }
        let ending = self.ending_since.is_some() || self.control.is_ending();
        if ending {
            self.ending_since.get_or_insert(now);
        }
        let (granted, lease_deadline) = self.read_rights(ending);
        let known = self.load(word::GRANTED_IN_BOOT);
        if granted & !known != 0 {
            self.store(word::GRANTED_IN_BOOT, known | granted);
        }
        let mut reading = PageReading {
            lease_deadline,
            granted,
            core_turns: self.load(word::CORE_TURNS),
            holding: 0,
        };
        if self.rule.needs_holding(now, lease_deadline) {
            reading.holding = self.addresses.holding() | self.cgroups.populated();
        }
        let decision = self.rule.turn(now, &reading);
        self.rights = Rights {
            until: decision.lease_until.unwrap_or(Instant(0)),
            granted: reading.granted,
            pending: decision.release.unwrap_or(0),
        };
        // Before the release, which may take its time: no pet once it has begun.
        self.stand_or_fall(now, &decision);
        self.allow_pets(now, &decision);
        if let Some(tasks) = decision.release {
            self.release(tasks, decision.revoked);
        }
        self.report(&decision);
        decision
    }

    /// Grants and the end of the lease as they belong together. The core takes grants back before
    /// it ends a lease, and gives them after it has begun one; whoever reads the grants on both
    /// sides of the lease never sees one that the lease does not cover: that would be a
    /// revocation.
    fn read_rights(&self, ending: bool) -> (u64, Instant) {
        let before = self.load(word::GRANTED);
        let lease_deadline = self.load(word::LEASE_DEADLINE);
        let granted = before & self.load(word::GRANTED);
        (
            granted,
            if ending {
                Instant(0)
            } else {
                Instant(lease_deadline)
            },
        )
    }

    fn allow_pets(&self, now: Instant, decision: &Decision) {
        let fresh = decision.next.max(now) + self.timing.release.max(PET_FRESH_MIN);
        let pet = decision.pet && !self.fall.has_begun();
        let until = match (pet, decision.lease_until) {
            (false, _) => Instant(0),
            (true, Some(lease_until)) => fresh.min(lease_until),
            (true, None) => fresh,
        };
        self.control.allow_pets(until);
    }

    /// The last rung: see [`fall`](super::fall).
    fn stand_or_fall(&mut self, now: Instant, decision: &Decision) {
        let Some(rung) = &self.last_rung else { return };
        let mut sight = Sight::default();
        if decision.overdue {
            sight.overdue = decision.release.unwrap_or(0);
        }
        if decision.lease_until.is_none() {
            sight.stuck = self.stuck() & self.load(word::GRANTED_IN_BOOT);
        }
        match self.fall.step(now, sight, rung.is_said()) {
            Step::Stand | Step::Wait => {}
            Step::Say(reason, tasks) => {
                // First: it keeps the core from writing over what is said on the disks.
                self.store(word::FALL, reason as u64);
                rung.say(reason, tasks, self.load(word::EPOCH), now);
                let words = reason.words();
                let line = format!("tasks={tasks:#x} {words}: this node resets itself");
                self.voice.line(Level::ERROR, line);
            }
            Step::Reset => {
                if let Err(error) = rung.reset() {
                    let line = format!("no reset, the watchdog has to do it: {error}");
                    self.voice.line(Level::ERROR, line);
                }
            }
            Step::InVain => {
                rung.take_back();
                let line = "nothing has reset this node: the watchdog is lost. Switch the node off";
                self.voice.line(Level::ERROR, line);
                // Last: the core's next frames wipe what was said on the disks.
                self.store(word::FALL, self.load(word::FALL) | FELL_IN_VAIN);
            }
        }
    }

    /// Tasks that the runner could not stop, bit by task index.
    fn stuck(&self) -> u64 {
        let stop_failed = |task: &usize| {
            let word = self.load(word::TASK_STATES + task);
            word & 0xff == TaskState::StopFailed as u64
        };
        let stuck = (0..self.tasks).filter(stop_failed);
        stuck.fold(0, |tasks, task| tasks | 1 << task)
    }

    /// Takes back what is held for these tasks. Nothing is renewed from the first line on;
    /// processes first, because killing them is one write each and deleting addresses can have to
    /// wait.
    fn release(&mut self, tasks: u64, revoked: Option<u64>) {
        self.addresses.drop_tasks(tasks);
        let refused = self.cgroups.kill(tasks);
        self.addresses.delete_dropped();
        if let Some(revoked) = revoked {
            self.store(word::REVOKED, revoked);
            let count = self.load(word::REVOCATIONS) + 1;
            self.store(word::REVOCATIONS, count);
            let line = format!("tasks={revoked:#x} the lease is over: taken back");
            self.voice.line(Level::WARN, line);
        }
        if refused != 0 && !self.overdue {
            self.voice
                .line(Level::ERROR, format!("tasks={refused:#x} cannot be killed"));
        }
    }

    fn report(&mut self, decision: &Decision) {
        if decision.overdue != self.overdue {
            self.overdue = decision.overdue;
            let tasks = decision.release.unwrap_or(0);
            if self.overdue {
                let line = format!("tasks={tasks:#x} not released in time: no more pets");
                self.voice.line(Level::ERROR, line);
            } else {
                self.voice.line(Level::WARN, "released at last");
            }
        }
        if decision.restart_core {
            self.voice.line(
                Level::ERROR,
                "the core does not move: it is killed and restarted",
            );
            self.control.kill_core();
        }
        let held = self.addresses.count() as u64;
        if self.load(word::ADDRESSES) != held {
            self.store(word::ADDRESSES, held);
        }
    }

    /// After [`Control::end`]: has everything been taken back, or is it too late? What could not be
    /// stopped, such as a volume that stays mounted, is nothing that the guard can take back: where
    /// it can, it resets the node.
    fn ended(&mut self, decision: &Decision) -> Option<bool> {
        let since = self.ending_since?;
        let stuck = self.stuck() & self.load(word::GRANTED_IN_BOOT);
        if decision.release.is_none() && (stuck == 0 || self.last_rung.is_none()) {
            return Some(true);
        }
        (clock().since(since) >= END_MAX).then_some(false)
    }

    fn dispatch(&mut self) {
        let again = std::mem::take(&mut self.again);
        let mut monitor = again;
        let mut tokens: Vec<Token> = self.events.iter().map(|event| event.token()).collect();
        if again {
            tokens.extend(Clients::tokens());
            tokens.extend(self.addresses.interfaces().tokens());
        }
        for token in tokens {
            match token {
                MONITOR => monitor = true,
                // Arming the timer anew forgets that it has fired; a bell need not be read, each
                // ringing is an event of its own.
                TIMER | WAKER | BELL => {}
                clients::LISTENER => self.clients.accept(),
                token => {
                    self.serve(token);
                    self.hear_arp(token);
                }
            }
        }
        if monitor {
            self.hear_changes();
        }
    }

    fn serve(&mut self, token: Token) {
        let (addresses, rights, voice) = (&mut self.addresses, &self.rights, &self.voice);
        let mut answer = |request: ToGuard| answer(addresses, rights, voice, request);
        self.again |= self.clients.serve(token, &mut answer);
    }

    fn hear_arp(&mut self, token: Token) {
        for _ in 0..ARPS_PER_TURN {
            let heard = match self.addresses.interfaces().readable(token) {
                Some((position, socket)) => {
                    socket.recv().map(|packet| packet.map(|p| (position, p)))
                }
                None => return,
            };
            match heard {
                Ok(Some((position, packet))) => {
                    self.addresses
                        .claimed(position, packet.sender_ip, packet.sender_mac);
                }
                // An interface that is down is told of by netlink.
                Ok(None) | Err(_) => return,
            }
        }
        self.again = true;
    }

    fn hear_changes(&mut self) {
        for _ in 0..CHANGES_PER_TURN {
            match self.monitor.next_change() {
                Ok(Some(change)) => {
                    if self.addresses.changed(change) {
                        self.look_due.get_or_insert(clock());
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    self.voice.line(Level::ERROR, with_cause(&error));
                    self.look_due.get_or_insert(clock() + LOOK_AGAIN);
                    return;
                }
            }
        }
        self.again = true;
    }

    fn look_again(&mut self) {
        if self.look_due.is_none_or(|due| due > clock()) {
            return;
        }
        self.look_due = self.addresses.look().err().map(|error| {
            self.voice.line(Level::ERROR, error);
            clock() + LOOK_AGAIN
        });
    }

    /// Passes on what the addresses have to say.
    fn tell(&mut self) {
        for Note {
            id: (task, object, _),
            useless,
            level,
            text,
        } in self.addresses.take_notes()
        {
            self.voice.line(level, text.as_str());
            self.clients.notice(&FromGuard::Notice {
                task,
                object,
                useless,
                text,
            });
        }
        for socket in self.addresses.interfaces().take_retired() {
            self.voice.close(socket);
        }
    }

    fn wait(&mut self, next: Instant) {
        let due = next
            .min(self.addresses.next_due())
            .min(self.look_due.unwrap_or(Instant::NEVER));
        let armed = self.timer.arm_at(due.0).is_ok();
        // The timer is exact; the timeout is there in case it ever is not.
        let timeout = match (self.again, armed) {
            (true, _) => Duration::ZERO,
            (false, true) => Rule::turn_max(&self.timing, true).to_std(),
            (false, false) => Duration::from_millis(1),
        };
        if self.poll.poll(&mut self.events, Some(timeout)).is_err() {
            // Interrupted: what was heard before must not be heard twice.
            self.events.clear();
        }
    }

    fn load(&self, word: usize) -> u64 {
        self.page.words()[word].load(Ordering::Acquire)
    }

    fn store(&self, word: usize, value: u64) {
        self.page.words()[word].store(value, Ordering::Release);
    }
}

impl Drop for Guard {
    /// However it ends, the supervisor notices. The permission to pet ends by itself.
    fn drop(&mut self) {
        self.control.wake_supervisor();
    }
}

fn answer(
    addresses: &mut Addresses,
    rights: &Rights,
    voice: &Voice,
    request: ToGuard,
) -> FromGuard {
    let (done, id, word) = match request {
        ToGuard::Hold {
            task,
            object,
            address,
        } => {
            let id = (task, object, address);
            (addresses.hold(id, rights), id, "held")
        }
        ToGuard::Release {
            task,
            object,
            address,
        } => {
            let id = (task, object, address);
            (addresses.release(id), id, "released")
        }
        ToGuard::Held {
            task,
            object,
            address,
        } => {
            let held = addresses.is_held((task, object, address));
            return if held { FromGuard::Yes } else { FromGuard::No };
        }
    };
    let (task, object, address) = (id.0.index(), id.1, id.2);
    let place = format!("task={task} object={object} address={address}");
    match done {
        Ok(()) => {
            voice.line(Level::INFO, format!("{place} {word}"));
            FromGuard::Yes
        }
        Err(reason) => {
            voice.line(Level::WARN, format!("{place} not {word}: {reason}"));
            FromGuard::Refused { reason }
        }
    }
}

fn listen(poll: &Poll, descriptor: RawFd, token: Token) -> Result<(), SetupError> {
    poll.registry()
        .register(&mut SourceFd(&descriptor), token, Interest::READABLE)
        .map_err(failed("make a loop"))
}

fn clock() -> Instant {
    Instant(boottime_ns())
}

fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    operation: &'static str,
) -> impl FnOnce(E) -> SetupError {
    move |error| SetupError {
        operation,
        source: error.into(),
    }
}
