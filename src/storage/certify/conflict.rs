//! What a node that may not write must meet: refusals, at once and for what is under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use standfast_sys::scsi::{Action, Fault};

use super::session::{Done, Session, command};
use super::{Asked, Lun, Role, Verdict};

/// Writers of a node under load: more than one command is on its way at any moment.
const WRITERS: usize = 4;

/// Where the first node's writers write, in bytes; the second's follow.
const LOAD_AT: u64 = 2 << 20;

/// Room of one node's writers, in bytes.
const LOAD_BYTES: usize = 256 << 10;

impl Session<'_> {
    /// By the second node, while it is not registered and the first holds the unit.
    pub(super) fn judge_refusals(&mut self) {
        let data = vec![0xa5; self.block_bytes()];
        let block = self.block(LOAD_AT);
        let writes = self.all(|path| path.write(block, &data));
        self.judge_refusal(Asked::RefusesWrite, &writes);
        let flushes = self.all(|path| path.flush());
        self.judge_refusal(Asked::RefusesFlush, &flushes);
        if self.facts.compare_and_write_blocks == 0 {
            let detail = "VPD page B0h tells none";
            self.answer(Asked::RefusesCompareAndWrite, Verdict::Absent, detail);
        } else {
            let swaps = self.all(|path| path.compare_and_write(block, &data, &data).map(drop));
            self.judge_refusal(Asked::RefusesCompareAndWrite, &swaps);
        }
        let bytes = self.block_bytes();
        let reads = self.all(|path| path.read(block, bytes).map(drop));
        let failed = reads.iter().find_map(|read| read.as_ref().err());
        let detail = failed.map_or_else(|| "done".to_owned(), ToString::to_string);
        self.note(Asked::AllowsRead, failed.is_none(), detail);
    }

    fn all(&self, act: impl Fn(&Arc<dyn Lun>) -> Result<(), Fault>) -> Vec<Result<(), Fault>> {
        self.paths.iter().map(act).collect()
    }

    fn judge_refusal(&mut self, asked: Asked, answers: &[Result<(), Fault>]) {
        let refused = |answer: &Result<(), Fault>| matches!(answer, Err(Fault::Conflict));
        let passed = answers.iter().all(refused);
        let words: Vec<String> = answers.iter().map(answer_words).collect();
        self.note(asked, passed, words.join(", "));
    }

    /// Has this node write without pause until it is ejected: announces `before`, then `after` once
    /// it is writing. Its findings are about what the writers were told.
    pub(super) fn write_until_ejected(&mut self, before: u32, after: u32) -> Done {
        self.announce(before)?;
        let own = self.options.role;
        let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
        let step = LOAD_BYTES / WRITERS;
        let size = self.block_bytes();
        let writers: Vec<(Arc<dyn Lun>, u64)> = (0..WRITERS)
            .map(|writer| {
                let path = self.paths[writer % self.paths.len()].clone();
                (path, self.block(load_at(own) + (writer * step) as u64))
            })
            .collect();
        let deadline = Instant::now() + self.options.patience;
        let endings = thread::scope(|scope| {
            let threads: Vec<_> = writers
                .iter()
                .map(|(path, block)| {
                    let (stop, written) = (&stop, &written);
                    scope.spawn(move || write(&**path, *block, size, stop, written, deadline))
                })
                .collect();
            while written.load(Ordering::Acquire) < WRITERS as u64 && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            let announced = if after == before {
                Ok(())
            } else {
                self.announce(after)
            };
            if announced.is_err() {
                stop.store(true, Ordering::Release);
            }
            let ended = |thread: thread::ScopedJoinHandle<'_, Option<Fault>>| {
                thread.join().expect("a writer does not panic")
            };
            let endings: Vec<Option<Fault>> = threads.into_iter().map(ended).collect();
            announced.map(|()| endings)
        })?;
        let told =
            |ending: &Option<Fault>| matches!(ending, Some(Fault::Conflict | Fault::Aborted));
        let passed = endings.iter().all(told);
        let words: Vec<String> = endings
            .iter()
            .map(|ending| ending.as_ref().map_or_else(not_ended, ToString::to_string))
            .collect();
        let count = written.load(Ordering::Acquire);
        let detail = format!("after {count} writes: {}", words.join(", "));
        self.note(Asked::EjectedIsTold, passed, detail);
        Ok(())
    }

    /// Ejects the other node in the middle of its writes; then nothing may change.
    pub(super) fn eject(&mut self) -> Done {
        thread::sleep(self.options.load);
        let Some(victim) = self.other_key()? else {
            self.note(Asked::EjectsAllPaths, false, "the key was gone before");
            return Ok(());
        };
        let own = self.own_key();
        let begun = Instant::now();
        let ejected = self
            .path()
            .reserve_out(Action::PreemptAndAbort, own, victim);
        let took = begun.elapsed();
        let first = self.load_of_other();
        let keys = command("read the keys", self.path().keys())?;
        let gone = ejected.is_ok() && !keys.contains(&victim);
        let detail = match &ejected {
            Ok(()) => format!("in {:.1} ms", took.as_secs_f64() * 1e3),
            Err(fault) => fault.to_string(),
        };
        self.note(Asked::EjectsAllPaths, gone, detail);
        thread::sleep(self.options.settle);
        let still = match (first, self.load_of_other()) {
            (Ok(first), Ok(second)) => first == second,
            (Err(fault), _) | (_, Err(fault)) => {
                return command("read what the other node has written", Err(fault));
            }
        };
        let watched = self.options.settle.as_secs_f64();
        let detail = format!("watched for {watched:.1} s");
        self.note(Asked::EjectedIsSilent, gone && still, detail);
        Ok(())
    }

    fn load_of_other(&self) -> Result<Vec<u8>, Fault> {
        let other = match self.options.role {
            Role::First => Role::Second,
            Role::Second => Role::First,
        };
        self.path().read(self.block(load_at(other)), LOAD_BYTES)
    }
}

fn load_at(role: Role) -> u64 {
    match role {
        Role::First => LOAD_AT,
        Role::Second => LOAD_AT + LOAD_BYTES as u64,
    }
}

/// Writes block after block, each with a number of its own, until one fails. None if it was not
/// ejected in time.
fn write(
    path: &dyn Lun,
    first: u64,
    size: usize,
    stop: &AtomicBool,
    written: &AtomicU64,
    deadline: Instant,
) -> Option<Fault> {
    let blocks = (LOAD_BYTES / WRITERS / size) as u64;
    let mut data = vec![0; size];
    for number in 0_u64.. {
        if stop.load(Ordering::Acquire) || Instant::now() >= deadline {
            return None;
        }
        data[..8].copy_from_slice(&number.to_le_bytes());
        if let Err(fault) = path.write(first + number % blocks, &data) {
            return Some(fault);
        }
        written.fetch_add(1, Ordering::AcqRel);
    }
    None
}

fn not_ended() -> String {
    "not ejected".to_owned()
}

fn answer_words(answer: &Result<(), Fault>) -> String {
    match answer {
        Ok(()) => "done".to_owned(),
        Err(fault) => fault.to_string(),
    }
}
