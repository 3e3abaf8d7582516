//! What the thread makes of devices that real machines have.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use super::super::said::{Said, queue};
use super::*;

/// How a device answers.
#[derive(Clone, Default)]
struct Answers {
    software: bool,
    stand_in: bool,
    fixed: bool,
    caused_boot: bool,
    /// In force after any timeout was asked for.
    rounds_to: Option<u32>,
    /// Longest pet in milliseconds.
    slow_ms: u64,
    refuses: bool,
}

struct Fake {
    answers: Answers,
    asked: Mutex<Option<u16>>,
    disarmed: Arc<AtomicUsize>,
}

impl Device for Fake {
    fn support(&self) -> Result<Support, Failed> {
        Ok(Support {
            identity: "fake".into(),
            sets_timeout: !self.answers.fixed,
            can_disarm: true,
            stand_in: self.answers.stand_in,
            software: self.answers.software,
        })
    }

    fn set_timeout(&self, seconds: u16) -> Result<u32, Failed> {
        assert!(!self.answers.fixed, "its timeout cannot be set");
        *self.asked.lock().unwrap() = Some(seconds);
        if self.answers.refuses {
            return Err(refusal());
        }
        Ok(self.answers.rounds_to.unwrap_or(u32::from(seconds)))
    }

    fn timeout(&self) -> Result<u32, Failed> {
        self.answers.rounds_to.ok_or_else(refusal)
    }

    fn boot_status(&self) -> Result<bool, Failed> {
        Ok(self.answers.caused_boot)
    }

    fn pet(&self) -> std::io::Result<()> {
        let begun = boottime_ns();
        while boottime_ns() - begun < self.answers.slow_ms * 1_000_000 {
            std::thread::yield_now();
        }
        Ok(())
    }

    fn disarm(self: Box<Self>) -> Result<(), Failed> {
        self.disarmed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

fn refusal() -> Failed {
    Watchdog::open(Path::new("/dev/null/none")).unwrap_err()
}

/// What came of arming a device for ten seconds, all lines that were said, and how often it was
/// disarmed.
fn armed(answers: Answers) -> (Result<Option<Armed>, TooLong>, String, usize) {
    let disarmed = Arc::new(AtomicUsize::new(0));
    let device = Fake {
        answers,
        asked: Mutex::new(None),
        disarmed: disarmed.clone(),
    };
    let (voice, ear) = queue();
    let (wanted, detect) = (Span::from_ms(10_000), Span::from_ms(20_000));
    let made = set_up(Box::new(device), wanted, detect, "/dev/x", &voice);
    drop(voice);
    let mut said = String::new();
    while let Some(Said::Line(level, line)) = ear.hear() {
        said.push_str(&format!("{level} {line}\n"));
    }
    let made = made.map(|made| made.map(|(_, armed)| armed));
    (made, said, disarmed.load(Ordering::SeqCst))
}

#[test]
fn good_hardware_is_taken_in_silence() {
    let (made, said, disarmed) = armed(Answers::default());
    let made = made.unwrap().unwrap();
    assert_eq!(made.kind, WatchdogKind::Hardware);
    assert_eq!(
        (made.wanted, made.in_force),
        (Span::from_ms(10_000), Span::from_ms(10_000))
    );
    assert_eq!((said.as_str(), disarmed, made.caused_boot), ("", 0, false));
}

#[test]
fn what_the_driver_gives_counts_and_is_told() {
    let (made, said, _) = armed(Answers {
        rounds_to: Some(16),
        ..Answers::default()
    });
    assert_eq!(made.unwrap().unwrap().in_force, Span::from_ms(16_000));
    assert!(
        said.contains("rounds its timeout from 10000 to 16000 ms"),
        "{said}"
    );
}

#[test]
fn one_that_would_reset_far_too_late_is_refused_and_disarmed() {
    let (made, _, disarmed) = armed(Answers {
        rounds_to: Some(21),
        ..Answers::default()
    });
    let refused = made.unwrap_err();
    let words = refused.to_string();
    assert!(words.contains("makes 21 s of a timeout of 10 s"), "{words}");
    assert!(words.contains("`timeout = \"21s\"`"), "{words}");
    assert_eq!(disarmed, 1);
    let (made, _, disarmed) = armed(Answers {
        rounds_to: Some(20),
        ..Answers::default()
    });
    assert!(made.is_ok());
    assert_eq!(disarmed, 0);
}

#[test]
fn a_fixed_timeout_is_read_and_an_unreadable_device_is_disarmed() {
    let (made, said, _) = armed(Answers {
        fixed: true,
        rounds_to: Some(8),
        ..Answers::default()
    });
    assert_eq!(made.unwrap().unwrap().in_force, Span::from_ms(8_000));
    assert!(said.contains("from 10000 to 8000 ms"), "{said}");
    let (made, said, disarmed) = armed(Answers {
        refuses: true,
        ..Answers::default()
    });
    assert_eq!((made, disarmed), (Ok(None), 1));
    assert!(said.contains("ERROR"), "{said}");
    assert!(said.contains("will not be reset"), "{said}");
}

#[test]
fn weak_ones_are_told_apart() {
    let (made, said, _) = armed(Answers {
        software: true,
        caused_boot: true,
        ..Answers::default()
    });
    let made = made.unwrap().unwrap();
    assert_eq!(
        (made.kind, made.caused_boot),
        (WatchdogKind::Software, true)
    );
    assert!(said.contains("is a timer of the kernel"), "{said}");
    assert!(said.contains("has caused the last boot"), "{said}");
    let (made, said, _) = armed(Answers {
        stand_in: true,
        ..Answers::default()
    });
    assert_eq!(made.unwrap().unwrap().kind, WatchdogKind::StandIn);
    assert!(said.contains("resets nothing"), "{said}");
}

#[test]
fn long_pets_are_measured_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let page = Arc::new(super::super::start::page(directory.path(), 7).unwrap());
    let load = |at: usize| page.words()[at].load(Ordering::Acquire);
    let (voice, _ear) = queue();
    let mut petter = Petter {
        device: Box::new(Fake {
            answers: Answers {
                slow_ms: 3,
                ..Answers::default()
            },
            asked: Mutex::new(None),
            disarmed: Arc::default(),
        }),
        armed: Armed {
            kind: WatchdogKind::Hardware,
            wanted: Span::from_ms(16),
            in_force: Span::from_ms(16),
            caused_boot: false,
        },
        page: page.clone(),
        control: Arc::new(Control::default()),
        voice,
        slowest: Span::ZERO,
        petting: true,
    };
    petter.pet(Instant(boottime_ns()));
    petter.pet(Instant(boottime_ns()));
    assert_eq!(load(word::PETS_LATE), 2);
    assert!(load(word::PET_LONGEST) >= 3_000_000);
    petter.armed.in_force = Span::from_ms(1_000_000);
    petter.pet(Instant(boottime_ns()));
    assert_eq!(load(word::PETS_LATE), 2);
}
