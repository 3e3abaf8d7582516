//! The thread `watchdog`: pets the hardware as long as the guard allows it.
//!
//! A thread of its own because a pet can take seconds (watchdogs behind a management processor). It
//! decides nothing: the guard's permission carries its own expiry, so a guard that hangs, waits for
//! the kernel or was stopped takes it back by doing nothing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use standfast_sys::Failed;
use standfast_sys::clock::boottime_ns;
use standfast_sys::sharedpage::SharedPage;
use standfast_sys::watchdog::Watchdog;
use tracing::Level;

use super::control::Control;
use super::said::{Voice, with_cause};
use crate::config::WatchdogSource;
use crate::node::page::word;
use crate::time::{Instant, Span};

/// Pets in one timeout: three may fail or be late.
const PETS_PER_TIMEOUT: u64 = 4;

/// A pet that takes longer than this part of the timeout leaves too little margin.
const LATENCY_SHARE: u64 = 3;

/// How often permission is looked for while there is none.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// An open, and thereby armed, watchdog.
pub struct Petter {
    watchdog: Watchdog,
    timeout: Span,
    page: Arc<SharedPage>,
    control: Arc<Control>,
    voice: Voice,
    /// Slowest pet so far.
    slowest: Span,
    petting: bool,
}

/// How the thread is told to end.
#[derive(Default)]
pub struct Ending(AtomicU8);

const GO_ON: u8 = 0;
const DISARM: u8 = 1;
const LEAVE_ARMED: u8 = 2;

impl Ending {
    /// Ends the thread `watchdog`. Disarm only after everything is proved to be released; armed,
    /// it will reset the machine.
    pub fn end(&self, disarm: bool) {
        self.0
            .store(if disarm { DISARM } else { LEAVE_ARMED }, Ordering::Release);
    }
}

impl Petter {
    /// Opens and arms a watchdog with a timeout in whole seconds and says what is weak about it,
    /// given the cluster's `detect`. `None` if there is to be none, or it cannot be had: the node
    /// then works without this layer, loudly.
    #[must_use]
    pub fn open(
        source: &WatchdogSource,
        timeout: Span,
        detect: Span,
        page: Arc<SharedPage>,
        control: Arc<Control>,
        voice: &Voice,
    ) -> Option<Petter> {
        let (opened, path) = match source {
            WatchdogSource::None => return None,
            WatchdogSource::Device(path) => (Watchdog::open(Path::new(path)), path),
            WatchdogSource::StandIn(path) => (Watchdog::open_stand_in(Path::new(path)), path),
        };
        let set_up = opened.and_then(|watchdog| {
            let timeout = arm(&watchdog, timeout, detect, path, voice)?;
            Ok((watchdog, timeout))
        });
        match set_up {
            Ok((watchdog, timeout)) => {
                let voice = voice.clone();
                let slowest = Span::ZERO;
                Some(Petter {
                    watchdog,
                    timeout,
                    page,
                    control,
                    voice,
                    slowest,
                    petting: false,
                })
            }
            Err(error) => {
                let error = with_cause(&error);
                let line = format!("{error}; a node that hangs will not be reset");
                voice.line(Level::ERROR, line);
                None
            }
        }
    }

    /// The thread's body: runs until `ending` says so.
    pub fn run(mut self, ending: &Ending) {
        loop {
            match ending.0.load(Ordering::Acquire) {
                GO_ON => {}
                DISARM => return self.disarm(),
                _ => return,
            }
            let now = Instant(boottime_ns());
            let may_pet = self.control.may_pet(now);
            if may_pet != self.petting {
                self.petting = may_pet;
                let (level, line) = if may_pet {
                    (Level::INFO, "the watchdog is petted")
                } else {
                    (Level::ERROR, "the watchdog is not petted any more")
                };
                self.voice.line(level, line);
            }
            if may_pet {
                self.pet(now);
                std::thread::park_timeout(self.timeout.over(PETS_PER_TIMEOUT).to_std());
            } else {
                std::thread::park_timeout(LOOK_AGAIN);
            }
        }
    }

    fn pet(&mut self, now: Instant) {
        if let Err(error) = self.watchdog.pet() {
            self.voice.line(
                Level::ERROR,
                format!("the watchdog cannot be petted: {error}"),
            );
            return;
        }
        self.page.words()[word::PET_AT].store(now.0, Ordering::Release);
        let took = Instant(boottime_ns()).since(now);
        // Said again only when it gets twice as bad.
        if took > self.timeout.over(LATENCY_SHARE) && took > self.slowest.times(2) {
            let (took, timeout) = (took.as_ms(), self.timeout.as_ms());
            let line = format!("a pet of the watchdog took {took} ms of its {timeout} ms");
            self.voice.line(Level::ERROR, line);
        }
        self.slowest = self.slowest.max(took);
    }

    fn disarm(self) {
        if let Err(error) = self.watchdog.disarm() {
            self.voice.line(
                Level::ERROR,
                format!("{}: this node will be reset", with_cause(&error)),
            );
        }
    }
}

/// Sets the timeout and says what the number in force means.
fn arm(
    watchdog: &Watchdog,
    wanted: Span,
    detect: Span,
    path: &str,
    voice: &Voice,
) -> Result<Span, Failed> {
    let support = watchdog.support()?;
    let seconds = u16::try_from(wanted.as_ms() / 1_000)
        .unwrap_or(u16::MAX)
        .max(1);
    let in_force = Span::from_ms(1_000).times(u64::from(watchdog.set_timeout(seconds)?));
    let place = format!("watchdog={path} identity={:?}", support.identity);
    let ms = in_force.as_ms();
    if in_force != wanted {
        let wanted = wanted.as_ms();
        voice.line(
            Level::WARN,
            format!("{place} rounds its timeout from {wanted} to {ms} ms"),
        );
    }
    if support.stand_in {
        voice.line(
            Level::WARN,
            format!("{place} is a stand-in and resets nothing"),
        );
    } else if in_force > detect {
        // Its tasks may run elsewhere after `detect`; from then to the reset only the reservation
        // and the addresses' lifetime stand between a hanging node and its data.
        let detect = detect.as_ms();
        let line = format!("{place} resets after {ms} ms, later than detect ({detect} ms)");
        voice.line(Level::WARN, line);
    }
    if !support.can_disarm {
        voice.line(
            Level::WARN,
            format!("{place} cannot be disarmed: a stop resets the node"),
        );
    }
    if watchdog.boot_status().unwrap_or(false) {
        voice.line(Level::WARN, format!("{place} has caused the last boot"));
    }
    Ok(in_force)
}
