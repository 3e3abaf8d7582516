//! Compare-and-write by both nodes at once: of each pair one wins.

use super::session::{Done, Session, command};
use super::{Asked, Lun, Verdict};

/// Lost comparisons in a row after which a node gives up: the other one wins each time, or the unit
/// tells a mismatch that is none.
const LOST_MAX: u32 = 100_000;

impl Session<'_> {
    fn counts(&self) -> bool {
        self.facts.compare_and_write_blocks != 0
    }

    /// Block 0 at zero, and a match and a mismatch tried while nobody interferes. By the second
    /// node.
    pub(super) fn begin_counter(&mut self) -> Done {
        if !self.counts() {
            let detail = "VPD page B0h tells none";
            self.answer(Asked::CompareAndWrite, Verdict::Absent, detail);
            return Ok(());
        }
        let zero = vec![0; self.block_bytes()];
        let mut one = zero.clone();
        one[0] = 1;
        command("write the counter", self.path().write(0, &zero))?;
        let tries = [
            (&one, &zero, false, &zero),
            (&zero, &one, true, &one),
            (&one, &zero, true, &zero),
        ];
        for (old, new, matches, after) in tries {
            let done = self.path().compare_and_write(0, old, new);
            let there = command("read the counter", self.path().read(0, old.len()))?;
            let right = matches!(done, Ok(written) if written == matches) && there == **after;
            if !right {
                let detail = match done {
                    Ok(written) => format!("written: {written}, expected {matches}"),
                    Err(fault) => fault.to_string(),
                };
                self.note(Asked::CompareAndWrite, false, detail);
                return Ok(());
            }
        }
        self.note(Asked::CompareAndWrite, true, "a match and a mismatch");
        Ok(())
    }

    /// Adds to the counter as often as the options say. A fault is a finding: nobody knows then
    /// whether it was done.
    pub(super) fn contend(&mut self) -> Done {
        if !self.counts() {
            return Ok(());
        }
        let path = self.path().clone();
        let rounds = self.options.rounds;
        match add(&*path, rounds, self.block_bytes()) {
            Ok(lost) => {
                let detail = format!("{rounds} additions, {lost} lost comparisons");
                self.note(Asked::OneWinner, true, detail);
            }
            Err(reason) => self.note(Asked::OneWinner, false, reason),
        }
        Ok(())
    }

    /// By the first node, when both have ended.
    pub(super) fn judge_counter(&mut self) {
        if !self.counts() {
            let detail = "VPD page B0h tells none";
            self.answer(Asked::OneWinner, Verdict::Absent, detail);
            return;
        }
        let wanted = 2 * u64::from(self.options.rounds);
        match self.path().read(0, self.block_bytes()) {
            Ok(block) => {
                let found = number(&block);
                let detail = format!("the counter is {found} after {wanted} additions");
                self.note(Asked::OneWinner, found == wanted, detail);
            }
            Err(fault) => self.note(Asked::OneWinner, false, fault.to_string()),
        }
    }
}

/// Adds one so many times; the number of comparisons lost to the other node.
fn add(path: &dyn Lun, rounds: u32, size: usize) -> Result<u64, String> {
    let mut lost = 0;
    let mut known = path.read(0, size).map_err(|fault| fault.to_string())?;
    for round in 0..rounds {
        let mut in_a_row = 0;
        loop {
            let mut next = known.clone();
            next[..8].copy_from_slice(&(number(&known) + 1).to_le_bytes());
            let won = path
                .compare_and_write(0, &known, &next)
                .map_err(|fault| format!("addition {round}: {fault}"))?;
            if won {
                known = next;
                break;
            }
            (lost, in_a_row) = (lost + 1, in_a_row + 1);
            if in_a_row == LOST_MAX {
                return Err(format!(
                    "addition {round}: {LOST_MAX} comparisons lost in a row"
                ));
            }
            known = path.read(0, size).map_err(|fault| fault.to_string())?;
        }
    }
    Ok(lost)
}

fn number(block: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&block[..8]);
    u64::from_le_bytes(bytes)
}
