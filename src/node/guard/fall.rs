//! The last rung: a node that cannot let go resets itself.
//!
//! ```text
//! release begun     overdue            fall begins          words kept, or time is up
//!      |--- G ---------|---- patience -----|--- at most WORDS_MAX ---|
//!                       no pets             reason to another thread  reset: 'b', without a sync
//! ```
//! From the moment the fall begins the watchdog is not petted any more, whatever happens: should
//! the order to the kernel be lost, the hardware carries it out. What is written before is written
//! by threads that may wait for a disk ([`farewell`](super::farewell)); the guard never does.
//!
//! A task that was never granted in this boot and cannot be stopped is no reason: a service that
//! the machine starts by itself, or a probe that is not installed, would be there again after the
//! reset, and after the next.
//!
//! Should neither the kernel nor the watchdog reset the node, it has fallen in vain: its last words
//! are not true and are taken back, its frames go to the disks again, and a person has to act.
//!
//! A node without an armed watchdog has no such rung: there `standfastd` may be a guest of
//! somebody else's machine, as in a container.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};

use super::farewell::Farewell;
use crate::config::Timing;
use crate::storage::last_words::{LastWords, Reason};
use crate::time::{Instant, Span};

/// After the release bound a kill that is only slow, of a process with much memory, gets this long
/// at least: meanwhile the lifetime of addresses and the reservation stand between this node and
/// its data.
const PATIENCE_MIN: Span = Span::from_ms(250);

/// So much later than the watchdog would have fired after one timeout, and after a second one for
/// drivers that count to it twice, no reset is to be expected any more.
const RESET_SLACK: Span = Span::from_ms(2_000);

/// How long the reset waits for the last words.
const WORDS_MAX: Span = Span::from_ms(200);

/// Where the kernel takes orders (Documentation/admin-guide/sysrq.rst). What root writes there is
/// done whatever the mask of the keyboard's requests says.
const SYSRQ: &str = "/proc/sysrq-trigger";

/// "Will immediately reboot the system without syncing or unmounting your disks."
const REBOOT: &[u8] = b"b";

/// Resets this machine.
pub trait Reset: Send {
    /// Does it, at once; whoever comes back from it is still alive.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    fn reset(&self) -> io::Result<()>;
}

/// The kernel's own reset, opened before it is needed.
pub struct SysRq(File);

impl SysRq {
    /// Opens it; nothing is ordered yet.
    ///
    /// # Errors
    ///
    /// The kernel has none, or this user may not.
    pub fn open() -> io::Result<SysRq> {
        OpenOptions::new().write(true).open(SYSRQ).map(SysRq)
    }
}

impl Reset for SysRq {
    fn reset(&self) -> io::Result<()> {
        (&self.0).write_all(REBOOT)
    }
}

/// How a node without a lease stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sight {
    /// Tasks whose release is overdue, bit by task index; zero if it is not.
    pub(super) overdue: u64,
    /// Tasks that could not be stopped, of those that were granted in this boot.
    pub(super) stuck: u64,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Stand,
    /// Have the last words kept: why, and of which tasks.
    Say(Reason, u64),
    /// Nothing yet: they are being kept.
    Wait,
    /// Reset the node.
    Reset,
    /// Take the words back: the node lives.
    InVain,
}

/// How far a fall has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The words are being kept.
    Saying,
    /// The kernel was told to reset the node.
    Ordered,
    /// It did not, nor did the watchdog.
    InVain,
}

/// When a node falls. Pure: time is an argument.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fall {
    patience: Span,
    overdue: Option<Instant>,
    stuck: Option<Instant>,
    begun: Option<(Instant, Stage)>,
    reset_max: Span,
}

impl Fall {
    pub(super) fn new(timing: &Timing) -> Fall {
        Fall {
            patience: timing.release.max(PATIENCE_MIN),
            overdue: None,
            stuck: None,
            begun: None,
            reset_max: RESET_SLACK,
        }
    }

    /// There is a watchdog with this timeout in force.
    pub(super) fn count_on(&mut self, watchdog: Span) {
        self.reset_max = watchdog.times(2) + RESET_SLACK;
    }

    /// From here on nothing can call it off.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// One look. `kept`: the last words are.
    pub(super) fn step(&mut self, now: Instant, sight: Sight, kept: bool) -> Step {
        if let Some((begun, stage)) = &mut self.begun {
            let since = now.since(*begun);
            let (next, step) = match *stage {
                Stage::Saying if kept || since >= WORDS_MAX => (Stage::Ordered, Step::Reset),
                Stage::Ordered if since >= self.reset_max => (Stage::InVain, Step::InVain),
                same @ (Stage::Saying | Stage::Ordered | Stage::InVain) => (same, Step::Wait),
            };
            *stage = next;
            return step;
        }
        let patience = self.patience;
        let long = |since: &mut Option<Instant>, tasks: u64| {
            if tasks == 0 {
                *since = None;
                return false;
            }
            now.since(*since.get_or_insert(now)) >= patience
        };
        let overdue = long(&mut self.overdue, sight.overdue);
        let stuck = long(&mut self.stuck, sight.stuck);
        let (reason, tasks) = match (overdue, stuck) {
            (true, _) => (Reason::NotReleased, sight.overdue),
            (false, true) => (Reason::NotStopped, sight.stuck),
            (false, false) => return Step::Stand,
        };
        self.begun = Some((now, Stage::Saying));
        Step::Say(reason, tasks)
    }
}

/// The means of the last rung, where there is one.
pub struct LastRung {
    /// Resets the machine; without it only the pets end.
    pub reset: Option<Box<dyn Reset>>,
    /// Keeps the reason; without it nobody will know.
    pub farewell: Option<Farewell>,
    /// The boot that would end.
    pub boot: [u8; 16],
}

impl LastRung {
    pub(super) fn say(&self, reason: Reason, tasks: u64, epoch: u64, at: Instant) {
        if let Some(farewell) = &self.farewell {
            farewell.say(LastWords {
                reason,
                boot: self.boot,
                epoch,
                tasks,
                at,
            });
        }
    }

    pub(super) fn take_back(&self) {
        if let Some(farewell) = &self.farewell {
            farewell.take_back();
        }
    }

    pub(super) fn is_said(&self) -> bool {
        self.farewell.as_ref().is_none_or(Farewell::is_kept)
    }

    pub(super) fn reset(&self) -> io::Result<()> {
        match &self.reset {
            Some(reset) => reset.reset(),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Sight = Sight {
        overdue: 0,
        stuck: 0,
    };
    const OVERDUE: Sight = Sight {
        overdue: 0b10,
        stuck: 0,
    };
    const STUCK: Sight = Sight {
        overdue: 0,
        stuck: 0b1,
    };

    fn at(ms: u64) -> Instant {
        Instant(9_000_000_000) + Span::from_ms(ms)
    }

    /// D = 500 ms: the release bound is 50 ms, so patience is the smallest one.
    fn fall() -> Fall {
        Fall::new(&Timing::from_detect(Span::from_ms(500)))
    }

    #[test]
    fn what_is_released_in_time_costs_nothing() {
        let mut fall = fall();
        for round in 0..10 {
            let now = round * 1_000;
            assert_eq!(fall.step(at(now), OVERDUE, false), Step::Stand);
            assert_eq!(fall.step(at(now + 249), STUCK, false), Step::Stand);
            assert_eq!(fall.step(at(now + 498), NOTHING, false), Step::Stand);
        }
        assert!(!fall.has_begun());
    }

    #[test]
    fn words_first_then_one_reset() {
        let mut fall = fall();
        assert_eq!(fall.step(at(0), OVERDUE, false), Step::Stand);
        let said = Step::Say(Reason::NotReleased, 0b10);
        assert_eq!(fall.step(at(250), OVERDUE, false), said);
        assert!(fall.has_begun());
        assert_eq!(fall.step(at(260), NOTHING, false), Step::Wait);
        assert_eq!(fall.step(at(270), NOTHING, true), Step::Reset);
        assert_eq!(fall.step(at(280), NOTHING, true), Step::Wait);
    }

    #[test]
    fn a_disk_that_hangs_does_not_hold_up_the_reset() {
        let mut fall = fall();
        assert_eq!(fall.step(at(0), STUCK, false), Step::Stand);
        let said = Step::Say(Reason::NotStopped, 0b1);
        assert_eq!(fall.step(at(400), STUCK, false), said);
        assert_eq!(fall.step(at(599), STUCK, false), Step::Wait);
        assert_eq!(fall.step(at(600), STUCK, false), Step::Reset);
    }

    #[test]
    fn a_node_that_nothing_resets_has_fallen_in_vain() {
        let mut fall = fall();
        fall.count_on(Span::from_ms(4_000));
        assert_eq!(fall.step(at(0), STUCK, false), Step::Stand);
        let said = Step::Say(Reason::NotStopped, 0b1);
        assert_eq!(fall.step(at(250), STUCK, false), said);
        assert_eq!(fall.step(at(300), STUCK, true), Step::Reset);
        assert_eq!(fall.step(at(10_249), STUCK, true), Step::Wait);
        assert_eq!(fall.step(at(10_250), STUCK, true), Step::InVain);
        // Once is enough, and nothing is petted again.
        assert_eq!(fall.step(at(90_000), STUCK, true), Step::Wait);
        assert!(fall.has_begun());
    }

    #[test]
    fn without_an_order_to_give_only_the_pets_end() {
        let rung = LastRung {
            reset: None,
            farewell: None,
            boot: [7; 16],
        };
        assert!(rung.is_said() && rung.reset().is_err());
    }

    #[test]
    fn a_long_release_bound_is_waited_for() {
        let mut fall = Fall::new(&Timing::from_detect(Span::from_ms(10_000)));
        assert_eq!(fall.step(at(0), OVERDUE, false), Step::Stand);
        assert_eq!(fall.step(at(999), OVERDUE, false), Step::Stand);
        assert!(matches!(
            fall.step(at(1_000), OVERDUE, false),
            Step::Say(..)
        ));
    }
}
