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
use standfast_sys::watchdog::{Support, Watchdog};
use tracing::Level;

use super::control::Control;
use super::said::{Voice, with_cause};
use crate::config::WatchdogSource;
use crate::node::page::{CAUSED_BOOT, WatchdogKind, word};
use crate::time::{Instant, Span};

/// Pets in one timeout: three may fail or be late.
const PETS_PER_TIMEOUT: u64 = 4;

/// A pet that takes longer than this part of the timeout leaves too little margin.
const LATENCY_SHARE: u64 = 3;

/// A pet that takes longer than this part of the timeout, half of the time between two, is counted.
const LATE_SHARE: u64 = 2 * PETS_PER_TIMEOUT;

/// A driver may round a timeout up, to the steps its hardware has, but to no more than so many
/// times what was asked for: whoever wrote the number counts on it.
const ROUNDING_MAX: u64 = 2;

/// How often permission is looked for while there is none.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A watchdog as this thread uses it.
pub trait Device: Send {
    /// What it is and can.
    ///
    /// # Errors
    ///
    /// It is no watchdog.
    fn support(&self) -> Result<Support, Failed>;

    /// Asks for a timeout in seconds and returns the one in force.
    ///
    /// # Errors
    ///
    /// The driver refuses it.
    fn set_timeout(&self, seconds: u16) -> Result<u32, Failed>;

    /// The timeout in force, in seconds.
    ///
    /// # Errors
    ///
    /// The driver cannot tell.
    fn timeout(&self) -> Result<u32, Failed>;

    /// Has it caused the last boot?
    ///
    /// # Errors
    ///
    /// The driver cannot tell.
    fn boot_status(&self) -> Result<bool, Failed>;

    /// Starts the timeout anew; may take long.
    ///
    /// # Errors
    ///
    /// What the driver says.
    fn pet(&self) -> std::io::Result<()>;

    /// Ends it cleanly.
    ///
    /// # Errors
    ///
    /// It goes on.
    fn disarm(self: Box<Self>) -> Result<(), Failed>;
}

impl Device for Watchdog {
    fn support(&self) -> Result<Support, Failed> {
        self.support()
    }

    fn set_timeout(&self, seconds: u16) -> Result<u32, Failed> {
        self.set_timeout(seconds)
    }

    fn timeout(&self) -> Result<u32, Failed> {
        self.timeout()
    }

    fn boot_status(&self) -> Result<bool, Failed> {
        self.boot_status()
    }

    fn pet(&self) -> std::io::Result<()> {
        self.pet()
    }

    fn disarm(self: Box<Self>) -> Result<(), Failed> {
        (*self).disarm()
    }
}

/// A watchdog that would reset a node later than its configuration says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the watchdog {path} ({identity}) makes {} s of a timeout of {} s: a node that hangs would \
     keep what it has for longer than was agreed; write `timeout = \"{}s\"` in [watchdog], or use \
     another device",
    .in_force.as_ms() / 1_000, .wanted.as_ms() / 1_000, .in_force.as_ms() / 1_000
)]
pub struct TooLong {
    /// The device.
    pub path: String,
    /// What its driver calls it.
    pub identity: String,
    /// As configured.
    pub wanted: Span,
    /// In force.
    pub in_force: Span,
}

/// What an armed watchdog is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Armed {
    /// What sort.
    pub kind: WatchdogKind,
    /// As configured.
    pub wanted: Span,
    /// In force.
    pub in_force: Span,
    /// It has caused the last boot.
    pub caused_boot: bool,
}

/// An open, and thereby armed, watchdog.
pub struct Petter {
    device: Box<dyn Device>,
    armed: Armed,
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
    ///
    /// # Errors
    ///
    /// Its timeout in force is so long that this layer would not be what the configuration says it
    /// is. It was disarmed, if it can be.
    pub fn open(
        source: &WatchdogSource,
        timeout: Span,
        detect: Span,
        page: Arc<SharedPage>,
        control: Arc<Control>,
        voice: &Voice,
    ) -> Result<Option<Petter>, TooLong> {
        let (opened, path) = match source {
            WatchdogSource::None => {
                publish(&page, WatchdogKind::None, None);
                return Ok(None);
            }
            WatchdogSource::Device(path) => (Watchdog::open(Path::new(path)), path),
            WatchdogSource::StandIn(path) => (Watchdog::open_stand_in(Path::new(path)), path),
        };
        let set_up = match opened {
            Ok(watchdog) => set_up(Box::new(watchdog), timeout, detect, path, voice)?,
            Err(error) => {
                say_missing(&error, voice);
                None
            }
        };
        let Some((device, armed)) = set_up else {
            publish(&page, WatchdogKind::Missing, None);
            return Ok(None);
        };
        publish(&page, armed.kind, Some(&armed));
        Ok(Some(Petter {
            device,
            armed,
            page,
            control,
            voice: voice.clone(),
            slowest: Span::ZERO,
            petting: false,
        }))
    }

    /// What is petted.
    #[must_use]
    pub fn armed(&self) -> Armed {
        self.armed
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
                std::thread::park_timeout(self.armed.in_force.over(PETS_PER_TIMEOUT).to_std());
            } else {
                std::thread::park_timeout(LOOK_AGAIN);
            }
        }
    }

    fn pet(&mut self, now: Instant) {
        if let Err(error) = self.device.pet() {
            self.voice.line(
                Level::ERROR,
                format!("the watchdog cannot be petted: {error}"),
            );
            return;
        }
        let words = self.page.words();
        words[word::PET_AT].store(now.0, Ordering::Release);
        let took = Instant(boottime_ns()).since(now);
        let timeout = self.armed.in_force;
        if took > timeout.over(LATE_SHARE) {
            words[word::PETS_LATE].fetch_add(1, Ordering::AcqRel);
        }
        // Said again only when it gets twice as bad.
        if took > timeout.over(LATENCY_SHARE) && took > self.slowest.times(2) {
            let (took, timeout) = (took.as_ms(), timeout.as_ms());
            let line = format!("a pet of the watchdog took {took} ms of its {timeout} ms");
            self.voice.line(Level::ERROR, line);
        }
        if took > self.slowest {
            self.slowest = took;
            words[word::PET_LONGEST].store(took.0, Ordering::Release);
        }
    }

    fn disarm(self) {
        if let Err(error) = self.device.disarm() {
            self.voice.line(
                Level::ERROR,
                format!("{}: this node will be reset", with_cause(&error)),
            );
        }
    }
}

/// What `status` reads.
fn publish(page: &SharedPage, kind: WatchdogKind, armed: Option<&Armed>) {
    let words = page.words();
    let store = |word: usize, value: u64| words[word].store(value, Ordering::Release);
    let caused = armed.is_some_and(|armed| armed.caused_boot);
    store(
        word::WATCHDOG_ASKED,
        armed.map_or(0, |armed| armed.wanted.0),
    );
    store(
        word::WATCHDOG_IN_FORCE,
        armed.map_or(0, |armed| armed.in_force.0),
    );
    store(word::PET_LONGEST, 0);
    store(word::PETS_LATE, 0);
    store(
        word::WATCHDOG,
        kind as u64 | if caused { CAUSED_BOOT } else { 0 },
    );
}

fn say_missing(error: &Failed, voice: &Voice) {
    let error = with_cause(error);
    voice.line(
        Level::ERROR,
        format!("{error}; a node that hangs will not be reset"),
    );
}

type SetUp = (Box<dyn Device>, Armed);

/// Sets the timeout of an open device and judges the one in force. A device that cannot be used is
/// disarmed: nobody would pet it.
fn set_up(
    device: Box<dyn Device>,
    wanted: Span,
    detect: Span,
    path: &str,
    voice: &Voice,
) -> Result<Option<SetUp>, TooLong> {
    let give_up = |device: Box<dyn Device>| {
        if let Err(error) = device.disarm() {
            let line = format!("{}: this node will be reset", with_cause(&error));
            voice.line(Level::ERROR, line);
        }
    };
    let (support, in_force) = match arm(device.as_ref(), wanted) {
        Ok(known) => known,
        Err(error) => {
            say_missing(&error, voice);
            give_up(device);
            return Ok(None);
        }
    };
    let kind = match (support.stand_in, support.software) {
        (true, _) => WatchdogKind::StandIn,
        (false, true) => WatchdogKind::Software,
        (false, false) => WatchdogKind::Hardware,
    };
    if in_force > wanted.times(ROUNDING_MAX) {
        give_up(device);
        return Err(TooLong {
            path: path.to_owned(),
            identity: support.identity,
            wanted,
            in_force,
        });
    }
    let armed = Armed {
        kind,
        wanted,
        in_force,
        caused_boot: device.boot_status().unwrap_or(false),
    };
    say_weaknesses(&armed, &support, detect, path, voice);
    Ok(Some((device, armed)))
}

/// Sets the timeout, where that can be done, and reads back the one in force.
fn arm(device: &dyn Device, wanted: Span) -> Result<(Support, Span), Failed> {
    let support = device.support()?;
    let seconds = u16::try_from(wanted.as_ms() / 1_000)
        .unwrap_or(u16::MAX)
        .max(1);
    let in_force = if support.sets_timeout {
        device.set_timeout(seconds)?
    } else {
        device.timeout()?
    };
    let in_force = Span::from_ms(1_000).times(u64::from(in_force));
    Ok((support, in_force))
}

fn say_weaknesses(armed: &Armed, support: &Support, detect: Span, path: &str, voice: &Voice) {
    let place = format!("watchdog={path} identity={:?}", support.identity);
    let warn = |line: String| voice.line(Level::WARN, format!("{place} {line}"));
    let ms = armed.in_force.as_ms();
    if armed.in_force != armed.wanted {
        let wanted = armed.wanted.as_ms();
        warn(format!("rounds its timeout from {wanted} to {ms} ms"));
    }
    match armed.kind {
        WatchdogKind::StandIn => warn("is a stand-in and resets nothing".to_owned()),
        WatchdogKind::Software => {
            warn("is a timer of the kernel: one that hangs is not reset".to_owned());
        }
        WatchdogKind::None | WatchdogKind::Missing | WatchdogKind::Hardware => {}
    }
    if armed.kind != WatchdogKind::StandIn && armed.in_force > detect {
        // Its tasks may run elsewhere after `detect`; from then to the reset only the reservation
        // and the addresses' lifetime stand between a hanging node and its data.
        let detect = detect.as_ms();
        warn(format!(
            "resets after {ms} ms, later than detect ({detect} ms)"
        ));
    }
    if !support.can_disarm {
        warn("cannot be disarmed: a stop resets the node".to_owned());
    }
    if armed.caused_boot {
        warn("has caused the last boot".to_owned());
    }
}

#[cfg(test)]
mod tests;
