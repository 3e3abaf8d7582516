//! Both nodes against an array in memory, right or with one flaw.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use standfast_sys::scsi::{Action, Capabilities, Fault, ReservationType};

use super::*;

const BLOCK: usize = 512;
const PATHS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(8);

/// What an array can do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    ForgetsWithoutPower,
    LetsFlush,
    LetsFlushAsLio,
    LetsWrite,
    EjectsOnePath,
    WritesLate,
    ForgetsAtReset,
    ComparesThenWrites,
    NoCompareAndWrite,
    NoFullStatus,
    LosesTheReservation,
}

#[derive(Default)]
struct State {
    keys: BTreeMap<(u8, usize), u64>,
    holder: Option<(u8, usize)>,
    blocks: BTreeMap<u64, Vec<u8>>,
    last: BTreeMap<u8, (u64, Vec<u8>)>,
    late: Option<(u64, Vec<u8>)>,
}

struct Array {
    flaw: Flaw,
    state: Mutex<State>,
}

struct Path {
    array: Arc<Array>,
    nexus: (u8, usize),
}

impl Path {
    fn may_write(&self, state: &State) -> bool {
        state.holder.is_none() || state.keys.contains_key(&self.nexus)
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.array.flaw == flaw
    }
}

impl Lun for Path {
    fn facts(&self) -> Result<Facts, Fault> {
        Ok(Facts {
            blocks: BYTES_MIN / BLOCK as u64,
            block_bytes: BLOCK as u32,
            compare_and_write_blocks: u8::from(!self.has(Flaw::NoCompareAndWrite)),
            vendor: match self.array.flaw {
                Flaw::LetsFlushAsLio => "LIO-ORG".to_owned(),
                _ => "ACME".to_owned(),
            },
            ..Facts::default()
        })
    }

    fn keys(&self) -> Result<Vec<u64>, Fault> {
        Ok(self.array.state.lock().keys.values().copied().collect())
    }

    fn holder(&self) -> Result<Option<(u64, ReservationType)>, Fault> {
        let state = self.array.state.lock();
        let kind = ReservationType::WriteExclusiveRegistrantsOnly;
        Ok(state.holder.map(|holder| (state.keys[&holder], kind)))
    }

    fn capabilities(&self) -> Result<Capabilities, Fault> {
        Ok(Capabilities {
            can_outlive_power: true,
            outlives_power: !self.has(Flaw::ForgetsWithoutPower),
            ..Capabilities::default()
        })
    }

    fn full_status(&self) -> Result<Vec<u64>, Fault> {
        if self.has(Flaw::NoFullStatus) {
            return Err(Fault::Status(0x02));
        }
        self.keys()
    }

    fn reserve_out(&self, action: Action, own: u64, other: u64) -> Result<(), Fault> {
        let state = &mut *self.array.state.lock();
        if action == Action::RegisterAndIgnore {
            if other == 0 {
                state.keys.remove(&self.nexus);
                state.holder = state.holder.filter(|holder| *holder != self.nexus);
            } else {
                state.keys.insert(self.nexus, other);
            }
            return Ok(());
        }
        if state.keys.get(&self.nexus) != Some(&own) {
            return Err(Fault::Conflict);
        }
        match action {
            Action::Reserve => {
                if state.holder.is_some_and(|holder| holder != self.nexus) {
                    return Err(Fault::Conflict);
                }
                state.holder = Some(self.nexus);
            }
            Action::PreemptAndAbort => {
                let mut victims: Vec<(u8, usize)> = state.keys.keys().copied().collect();
                victims.retain(|nexus| state.keys[nexus] == other);
                if self.has(Flaw::EjectsOnePath) {
                    victims.truncate(1);
                }
                if victims.is_empty() {
                    return Err(Fault::Conflict);
                }
                for victim in &victims {
                    state.keys.remove(victim);
                }
                if state.holder.is_some_and(|holder| victims.contains(&holder)) {
                    state.holder =
                        Some(self.nexus).filter(|_| !self.has(Flaw::LosesTheReservation));
                }
                if self.has(Flaw::WritesLate) {
                    state.late = state.last.get(&victims[0].0).cloned();
                }
            }
            Action::Clear => {
                state.keys.clear();
                state.holder = None;
            }
            other => panic!("{other:?} is not part of the test"),
        }
        Ok(())
    }

    fn read(&self, block: u64, bytes: usize) -> Result<Vec<u8>, Fault> {
        let state = &mut *self.array.state.lock();
        let count = bytes / BLOCK;
        let zero = vec![0; BLOCK];
        let blocks = (block..block + count as u64)
            .flat_map(|number| state.blocks.get(&number).unwrap_or(&zero).clone());
        let data: Vec<u8> = blocks.collect();
        if count > 1
            && let Some((number, mut late)) = state.late.take()
        {
            late[8] ^= 0xff;
            state.blocks.insert(number, late);
        }
        Ok(data)
    }

    fn write(&self, block: u64, data: &[u8]) -> Result<(), Fault> {
        let state = &mut *self.array.state.lock();
        if !self.may_write(state) && !self.has(Flaw::LetsWrite) {
            return Err(Fault::Conflict);
        }
        for (number, chunk) in (block..).zip(data.chunks(BLOCK)) {
            state.blocks.insert(number, chunk.to_vec());
            state.last.insert(self.nexus.0, (number, chunk.to_vec()));
        }
        Ok(())
    }

    fn compare_and_write(&self, block: u64, old: &[u8], new: &[u8]) -> Result<bool, Fault> {
        let there = {
            let mut state = self.array.state.lock();
            if !self.may_write(&state) {
                return Err(Fault::Conflict);
            }
            let there = state.blocks.get(&block).is_some_and(|there| there == old);
            if there && !self.has(Flaw::ComparesThenWrites) {
                state.blocks.insert(block, new.to_vec());
            }
            there
        };
        if there && self.has(Flaw::ComparesThenWrites) {
            // The moment in which the other node's comparison goes wrong.
            thread::sleep(Duration::from_micros(50));
            self.array.state.lock().blocks.insert(block, new.to_vec());
        }
        Ok(there)
    }

    fn flush(&self) -> Result<(), Fault> {
        let flaw = self.has(Flaw::LetsFlush) || self.has(Flaw::LetsFlushAsLio);
        if flaw || self.may_write(&self.array.state.lock()) {
            Ok(())
        } else {
            Err(Fault::Conflict)
        }
    }

    fn reset(&self) -> Result<(), Fault> {
        if self.has(Flaw::ForgetsAtReset) {
            let mut state = self.array.state.lock();
            state.keys.clear();
            state.holder = None;
        }
        Ok(())
    }
}

fn paths(array: &Arc<Array>, node: u8) -> Vec<Arc<dyn Lun>> {
    (0..PATHS)
        .map(|path| {
            Arc::new(Path {
                array: array.clone(),
                nexus: (node, path),
            }) as Arc<dyn Lun>
        })
        .collect()
}

fn options(role: Role) -> Options {
    Options {
        role,
        rounds: 2_000,
        load: Duration::from_millis(20),
        settle: Duration::from_millis(20),
        patience: PATIENCE,
    }
}

fn run(flaw: Flaw, patience: Duration) -> (Arc<Array>, Result<Report, CertifyError>) {
    let array = Arc::new(Array {
        flaw,
        state: Mutex::default(),
    });
    let (first, second) = (paths(&array, 1), paths(&array, 2));
    let options = move |role| Options {
        patience,
        ..options(role)
    };
    let other = thread::spawn(move || certify(&second, &options(Role::Second)));
    let report = certify(&first, &options(Role::First));
    let _ = other.join().unwrap();
    (array, report)
}

fn bad(report: &Report) -> Vec<Asked> {
    let passed = |finding: &&Finding| finding.verdict == Verdict::Passed;
    let mut asked: Vec<Asked> = report
        .findings
        .iter()
        .filter(|finding| !passed(finding))
        .map(|finding| finding.asked)
        .collect();
    asked.dedup();
    asked
}

#[test]
fn a_right_array_passes_every_question_and_is_left_clean() {
    let (array, report) = run(Flaw::None, PATIENCE);
    let report = report.unwrap();
    assert!(report.is_fit(), "{:#?}", report.findings);
    assert_eq!(bad(&report), []);
    let mut asked: Vec<Asked> = report
        .findings
        .iter()
        .map(|finding| finding.asked)
        .collect();
    asked.dedup();
    assert_eq!(
        asked.len(),
        Asked::Clears as usize + 1,
        "each question has an answer"
    );
    let state = array.state.lock();
    assert!(state.keys.is_empty() && state.holder.is_none());
}

#[test]
fn each_flaw_is_found_and_named() {
    for (flaw, asked, fit) in [
        (Flaw::ForgetsWithoutPower, Asked::OutlivesPower, false),
        (Flaw::LetsFlush, Asked::RefusesFlush, false),
        (Flaw::LetsFlushAsLio, Asked::RefusesFlush, true),
        (Flaw::WritesLate, Asked::EjectedIsSilent, false),
        (Flaw::NoFullStatus, Asked::FullStatus, true),
        (Flaw::ComparesThenWrites, Asked::OneWinner, false),
        (Flaw::LosesTheReservation, Asked::EjectorHolds, false),
    ] {
        let (_, report) = run(flaw, PATIENCE);
        let report = report.unwrap();
        assert!(
            bad(&report).contains(&asked),
            "{flaw:?}: {:?}",
            bad(&report)
        );
        assert_eq!(report.is_fit(), fit, "{flaw:?}");
    }
}

#[test]
fn an_array_without_compare_and_write_is_fit() {
    let (_, report) = run(Flaw::NoCompareAndWrite, PATIENCE);
    let report = report.unwrap();
    assert!(bad(&report).contains(&Asked::OneWinner));
}

#[test]
fn a_unit_that_ejects_one_path_only_or_lets_strangers_write_is_found_before_the_test_ends() {
    for flaw in [Flaw::EjectsOnePath, Flaw::LetsWrite, Flaw::ForgetsAtReset] {
        // Some of these end only when a node waits in vain.
        let (_, report) = run(flaw, Duration::from_secs(1));
        assert!(report.map_or(true, |report| !report.is_fit()), "{flaw:?}");
    }
}

#[test]
fn strangers_are_left_alone_and_a_lonely_node_says_so() {
    let array = Arc::new(Array {
        flaw: Flaw::None,
        state: Mutex::default(),
    });
    let lonely = Options {
        patience: Duration::from_millis(50),
        ..options(Role::First)
    };
    let error = certify(&paths(&array, 1), &lonely).unwrap_err();
    assert!(matches!(error, CertifyError::Alone { step: 1 }), "{error}");
    assert!(array.state.lock().keys.is_empty(), "taken back");
    array
        .state
        .lock()
        .keys
        .insert((9, 0), 0x4843_0001_0200_0001);
    let error = certify(&paths(&array, 1), &lonely).unwrap_err();
    assert!(matches!(error, CertifyError::Foreign { .. }), "{error}");
    assert_eq!(array.state.lock().keys.len(), 1);
}
