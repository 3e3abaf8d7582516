//! The test as one node runs it, and how it tells the other how far it is.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use standfast_sys::scsi::{Action, Fault, ReservationType};

use super::{Asked, BYTES_MIN, CertifyError, Facts, Finding, Lun, Options, Report, Role, Verdict};

/// Upper half of every key of the test: "STCF".
const MAGIC: u64 = 0x5354_4346 << 32;

/// Between two looks at the other node's key.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Where the second node leaves its findings, in bytes.
const FINDINGS_AT: u64 = 1 << 20;

/// Room for them: a length and text.
const FINDINGS_BYTES: usize = 64 << 10;

pub(super) type Done = Result<(), CertifyError>;

/// Runs the test by all paths of this node, until it ends or something that must work does not.
/// Whatever happens, this node's registrations are taken back if that can be done.
///
/// # Errors
///
/// The test could not be run to its end. What the array does wrong is no error but a finding.
///
/// # Panics
///
/// There is no path.
pub fn certify(paths: &[Arc<dyn Lun>], options: &Options) -> Result<Report, CertifyError> {
    assert!(!paths.is_empty(), "at least one path");
    let facts = command("ask the unit who it is", paths[0].facts())?;
    let mut session = Session {
        paths,
        options,
        facts,
        findings: Vec::new(),
        step: 0,
    };
    let done = match options.role {
        Role::First => session.first(),
        Role::Second => session.second(),
    };
    if done.is_err() {
        session.leave();
    }
    done?;
    let (facts, mut findings) = (session.facts, session.findings);
    findings.sort_by_key(|finding| (finding.asked, finding.node));
    Ok(Report { facts, findings })
}

/// Gives the fault of a command that must work its place in the sentence.
pub(super) fn command<T>(what: &'static str, done: Result<T, Fault>) -> Result<T, CertifyError> {
    done.map_err(|fault| CertifyError::Command { what, fault })
}

/// One node's part.
pub(super) struct Session<'a> {
    pub(super) paths: &'a [Arc<dyn Lun>],
    pub(super) options: &'a Options,
    pub(super) facts: Facts,
    findings: Vec<Finding>,
    step: u32,
}

impl Session<'_> {
    fn first(&mut self) -> Done {
        self.look()?;
        self.announce(1)?;
        self.await_other(1)?;
        self.judge_registrations();
        self.reserve()?;
        self.judge_owner();
        self.await_absence()?;
        self.await_other(2)?;
        self.announce(2)?;
        self.await_other(3)?;
        self.eject()?;
        self.await_other(4)?;
        self.write_until_ejected(3, 4)?;
        self.announce(5)?;
        self.await_other(5)?;
        self.judge_reset();
        self.announce(6)?;
        self.await_other(6)?;
        self.announce(7)?;
        self.contend()?;
        self.await_other(7)?;
        self.judge_counter();
        self.take_findings()?;
        self.judge_clear()
    }

    fn second(&mut self) -> Done {
        self.look()?;
        self.await_other(1)?;
        self.announce(1)?;
        self.await_holder()?;
        self.withdraw()?;
        self.judge_refusals();
        self.announce(2)?;
        self.await_other(2)?;
        self.write_until_ejected(3, 3)?;
        // Never again with the key that was ejected: the other node looks whether it is gone.
        self.announce(4)?;
        self.await_other(4)?;
        self.eject()?;
        self.judge_holder();
        self.announce(5)?;
        self.await_other(6)?;
        self.begin_counter()?;
        self.announce(6)?;
        self.await_other(7)?;
        self.contend()?;
        self.leave_findings()?;
        self.announce(7)?;
        self.await_absence_of_own()
    }

    pub(super) fn note(&mut self, asked: Asked, passed: bool, detail: impl Into<String>) {
        let verdict = if passed {
            Verdict::Passed
        } else {
            Verdict::Failed
        };
        self.answer(asked, verdict, detail);
    }

    pub(super) fn answer(&mut self, asked: Asked, verdict: Verdict, detail: impl Into<String>) {
        self.findings.push(Finding {
            asked,
            verdict,
            detail: detail.into(),
            node: self.number(),
        });
    }

    fn number(&self) -> u8 {
        match self.options.role {
            Role::First => 1,
            Role::Second => 2,
        }
    }

    pub(super) fn path(&self) -> &Arc<dyn Lun> {
        &self.paths[0]
    }

    pub(super) fn block_bytes(&self) -> usize {
        self.facts.block_bytes as usize
    }

    /// Number of the block at this byte.
    pub(super) fn block(&self, offset: u64) -> u64 {
        offset / u64::from(self.facts.block_bytes)
    }

    pub(super) fn own_key(&self) -> u64 {
        key(self.number(), self.step)
    }

    /// The other node's key of this moment.
    pub(super) fn other_key(&self) -> Result<Option<u64>, CertifyError> {
        let keys = command("read the keys", self.path().keys())?;
        let other = 3 - self.number();
        Ok(keys.into_iter().filter(|key| is_of(*key, other)).max())
    }

    /// Size and strangers.
    fn look(&mut self) -> Done {
        let bytes = self.facts.blocks * u64::from(self.facts.block_bytes);
        if bytes < BYTES_MIN {
            return Err(CertifyError::Small { bytes });
        }
        let keys = command("read the keys", self.path().keys())?;
        let foreign: Vec<u64> = keys.iter().copied().filter(|key| !is_test(*key)).collect();
        if !foreign.is_empty() {
            let words: Vec<String> = foreign.iter().map(|key| format!("{key:#018x}")).collect();
            let keys = words.join(", ");
            return Err(CertifyError::Foreign { keys });
        }
        // An earlier test that was cut off; the second node has not begun, it waits for the first.
        if self.options.role == Role::First && !keys.is_empty() {
            self.step = 0;
            self.register(key(1, 0))?;
            let cleared = self.path().reserve_out(Action::Clear, key(1, 0), 0);
            command("clear what an earlier test has left", cleared)?;
        }
        Ok(())
    }

    fn register(&self, new: u64) -> Done {
        for path in self.paths {
            let done = path.reserve_out(Action::RegisterAndIgnore, 0, new);
            command("register", done)?;
        }
        Ok(())
    }

    /// Tells the other node that this one has come so far.
    pub(super) fn announce(&mut self, step: u32) -> Done {
        self.step = step;
        self.register(self.own_key())
    }

    fn withdraw(&self) -> Done {
        self.register(0)
    }

    /// What can still be done when the test has failed.
    fn leave(&self) {
        for path in self.paths {
            let _ = path.reserve_out(Action::RegisterAndIgnore, 0, 0);
        }
    }

    pub(super) fn await_other(&self, step: u32) -> Done {
        let wanted = key(3 - self.number(), step);
        self.wait(step, || {
            Ok(self.other_key()?.is_some_and(|key| key >= wanted))
        })
    }

    fn await_absence(&self) -> Done {
        // It may be back already, with its next step.
        let next = key(3 - self.number(), 2);
        self.wait(2, || Ok(self.other_key()?.is_none_or(|key| key >= next)))
    }

    fn await_absence_of_own(&self) -> Done {
        let own = self.own_key();
        self.wait(7, || {
            let keys = command("read the keys", self.path().keys())?;
            Ok(!keys.contains(&own))
        })
    }

    fn await_holder(&self) -> Done {
        self.wait(1, || {
            let holder = command("read the reservation", self.path().holder())?;
            Ok(holder.is_some_and(|(key, _)| is_of(key, 1)))
        })
    }

    fn wait(&self, step: u32, mut come: impl FnMut() -> Result<bool, CertifyError>) -> Done {
        let deadline = Instant::now() + self.options.patience;
        while !come()? {
            if Instant::now() >= deadline {
                return Err(CertifyError::Alone { step });
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    fn judge_registrations(&mut self) {
        let own = self.own_key();
        let count = |keys: &[u64]| keys.iter().filter(|key| **key == own).count();
        let wanted = self.paths.len();
        match self.path().keys() {
            Ok(keys) => {
                let found = count(&keys);
                let detail = format!("{found} of {wanted} paths registered");
                self.note(Asked::Register, found == wanted, detail);
            }
            Err(fault) => self.note(Asked::Register, false, fault.to_string()),
        }
        match self.path().full_status() {
            Ok(keys) => {
                let found = count(&keys);
                let detail = format!("{found} of {wanted} paths told");
                self.note(Asked::FullStatus, found == wanted, detail);
            }
            Err(fault) => self.answer(Asked::FullStatus, Verdict::Absent, fault.to_string()),
        }
        match self.path().capabilities() {
            Ok(can) => {
                let detail = format!(
                    "PTPL_C {}, PTPL_A {}",
                    can.can_outlive_power, can.outlives_power
                );
                let passed = can.can_outlive_power && can.outlives_power;
                self.note(Asked::OutlivesPower, passed, detail);
            }
            Err(fault) => self.note(Asked::OutlivesPower, false, fault.to_string()),
        }
    }

    fn reserve(&mut self) -> Done {
        let own = self.own_key();
        let done = self.path().reserve_out(Action::Reserve, own, 0);
        let holder = self.path().holder();
        let wanted = Some((own, ReservationType::WriteExclusiveRegistrantsOnly));
        let passed = done.is_ok() && matches!(&holder, Ok(holder) if *holder == wanted);
        self.note(Asked::Reserve, passed, holder_words(&holder));
        command("reserve the unit", done)
    }

    fn judge_owner(&mut self) {
        let data = vec![0x5a; self.block_bytes()];
        let block = self.block(0) + 1;
        let failed = self
            .paths
            .iter()
            .find_map(|path| path.write(block, &data).err());
        let detail = match &failed {
            None => format!("{} paths", self.paths.len()),
            Some(fault) => fault.to_string(),
        };
        self.note(Asked::OwnerWrites, failed.is_none(), detail);
    }

    /// After the second node has ejected the holder.
    fn judge_holder(&mut self) {
        let own = self.own_key();
        let holder = self.path().holder();
        let passed = matches!(&holder, Ok(Some((key, _))) if *key == own);
        self.note(Asked::EjectorHolds, passed, holder_words(&holder));
    }

    fn judge_reset(&mut self) {
        let before = self.path().keys().ok();
        let done = self.path().reset();
        let (after, holder) = (self.path().keys().ok(), self.path().holder());
        let sorted = |keys: Option<Vec<u64>>| {
            keys.map(|mut keys| {
                keys.sort_unstable();
                keys
            })
        };
        let kept = before.is_some() && sorted(before) == sorted(after);
        let held = matches!(&holder, Ok(Some((key, _))) if is_of(*key, 2));
        let detail = match &done {
            Ok(()) => holder_words(&holder),
            Err(fault) => format!("the reset itself failed: {fault}"),
        };
        self.note(Asked::OutlivesReset, done.is_ok() && kept && held, detail);
    }

    /// The second node's findings, on the disk for the first.
    fn leave_findings(&self) -> Done {
        let text = serde_json::to_vec(&self.findings).map_err(CertifyError::Findings)?;
        let mut data = vec![0; FINDINGS_BYTES];
        data[..8].copy_from_slice(&(text.len() as u64).to_le_bytes());
        data[8..8 + text.len()].copy_from_slice(&text);
        let written = self.path().write(self.block(FINDINGS_AT), &data);
        command("write the findings", written)
    }

    fn take_findings(&mut self) -> Done {
        let read = self.path().read(self.block(FINDINGS_AT), FINDINGS_BYTES);
        let data = command("read the other node's findings", read)?;
        let mut length = [0; 8];
        length.copy_from_slice(&data[..8]);
        let end = 8 + (u64::from_le_bytes(length) as usize).min(FINDINGS_BYTES - 8);
        let others: Vec<Finding> =
            serde_json::from_slice(&data[8..end]).map_err(CertifyError::Findings)?;
        self.findings.extend(others);
        Ok(())
    }

    fn judge_clear(&mut self) -> Done {
        let done = self.path().reserve_out(Action::Clear, self.own_key(), 0);
        let (keys, holder) = (self.path().keys(), self.path().holder());
        let empty = matches!(&keys, Ok(keys) if keys.is_empty());
        let passed = done.is_ok() && empty && matches!(holder, Ok(None));
        self.note(Asked::Clears, passed, holder_words(&holder));
        command("clear the registrations", done)
    }
}

fn key(node: u8, step: u32) -> u64 {
    MAGIC | u64::from(node) << 24 | u64::from(step)
}

fn is_test(key: u64) -> bool {
    key >> 32 == MAGIC >> 32
}

fn is_of(key: u64, node: u8) -> bool {
    is_test(key) && (key >> 24) as u8 == node
}

fn holder_words(holder: &Result<Option<(u64, ReservationType)>, Fault>) -> String {
    match holder {
        Ok(Some((key, kind))) => format!("held by {key:#018x}, {}", kind.name()),
        Ok(None) => "held by nobody".to_owned(),
        Err(fault) => fault.to_string(),
    }
}
