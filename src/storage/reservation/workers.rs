//! The threads that carry out what one path is asked.
//!
//! Each question that is under way has a thread of its own, for one that hangs does not return
//! before the kernel has reset half the fabric. A thread that has answered waits for the next
//! question a while: a takeover asks in several rounds, and a keeper with every heartbeat.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::unit::{Answer, Ask, Fault};

/// Most questions to one path that have not come back.
pub(super) const UNDER_WAY_MAX: usize = 12;

/// Threads of one path that wait for long: what a keeper's whole look asks at once.
const KEPT: usize = 2;

/// How long those wait: longer than from one heartbeat to the next at any usual `detect`.
const KEPT_FOR: Duration = Duration::from_secs(5);

/// How long the others do: from one round of a takeover to the next.
const SPARE_FOR: Duration = Duration::from_millis(100);

/// Stack of such a thread.
pub(super) const STACK_BYTES: usize = 256 * 1024;

/// The answer to the question at this place of a round.
pub(super) type Letter = (usize, Result<Answer, Fault>);

/// Whatever can be asked.
pub(super) trait Answers: Send + Sync + 'static {
    /// Blocks until the answer is there, for as long as the kernel lets it.
    fn carry_out(&self, ask: &Ask) -> Result<Answer, Fault>;
}

/// A path with its threads. They end soon after it is dropped, but for those that hang.
pub(super) struct Workers<P> {
    path: Arc<P>,
    counts: Arc<Counts>,
    orders: Sender<Order>,
    waiting: Receiver<Order>,
}

#[derive(Default)]
struct Counts {
    under_way: AtomicUsize,
    /// Threads that wait and that nobody has counted on yet.
    idle: AtomicUsize,
}

impl Counts {
    /// Counts on one of the threads that wait, if there is one.
    fn claim(&self) -> bool {
        let less = |idle: usize| idle.checked_sub(1);
        let claimed = self
            .idle
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        claimed.is_ok()
    }
}

struct Order {
    ask: Ask,
    at: usize,
    /// Whoever asked may have stopped waiting.
    letters: mpsc::Sender<Letter>,
}

impl<P: Answers> Workers<P> {
    pub(super) fn new(path: P) -> Workers<P> {
        let (orders, waiting) = bounded(UNDER_WAY_MAX);
        Workers {
            path: Arc::new(path),
            counts: Arc::default(),
            orders,
            waiting,
        }
    }

    pub(super) fn path(&self) -> &P {
        &self.path
    }

    /// Has a thread carry it out and send the answer.
    ///
    /// # Errors
    ///
    /// Too many earlier ones have not come back, or there is no thread for it.
    pub(super) fn ask(
        &self,
        ask: &Ask,
        at: usize,
        letters: &mpsc::Sender<Letter>,
    ) -> Result<(), Fault> {
        if self.counts.under_way.load(Ordering::Acquire) >= UNDER_WAY_MAX {
            let why = "earlier commands have not come back".to_owned();
            return Err(Fault::Late(why));
        }
        self.counts.under_way.fetch_add(1, Ordering::AcqRel);
        let order = Order {
            ask: ask.clone(),
            at,
            letters: letters.clone(),
        };
        // There is room: no more orders are under way than the channel holds.
        let given = match self.counts.claim() {
            true => self.orders.send(order).map_err(io::Error::other),
            false => self.spawn(order),
        };
        given.map_err(|error| {
            self.counts.under_way.fetch_sub(1, Ordering::AcqRel);
            Fault::Path(format!("no thread for it: {error}"))
        })
    }

    fn spawn(&self, first: Order) -> io::Result<()> {
        let (path, counts) = (Arc::clone(&self.path), Arc::clone(&self.counts));
        let waiting = self.waiting.clone();
        thread::Builder::new()
            .name("disk path".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || work(&*path, &counts, &waiting, first))
            .map(drop)
    }
}

fn work(path: &impl Answers, counts: &Counts, waiting: &Receiver<Order>, first: Order) {
    let mut order = first;
    loop {
        let answer = path.carry_out(&order.ask);
        counts.under_way.fetch_sub(1, Ordering::AcqRel);
        // Before the answer goes: the next question may follow at once.
        let idle = counts.idle.fetch_add(1, Ordering::AcqRel);
        let _ = order.letters.send((order.at, answer));
        let patience = if idle < KEPT { KEPT_FOR } else { SPARE_FOR };
        order = match waiting.recv_timeout(patience) {
            Ok(next) => next,
            Err(RecvTimeoutError::Timeout) if counts.claim() => return,
            // Somebody has counted on this thread just now.
            Err(RecvTimeoutError::Timeout) => match waiting.recv() {
                Ok(next) => next,
                Err(_) => return,
            },
            Err(RecvTimeoutError::Disconnected) => return,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::ThreadId;
    use std::time::Instant;

    use parking_lot::Mutex;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Tells which thread was asked; a reset hangs until the gate opens.
    struct Fake {
        threads: Mutex<Vec<ThreadId>>,
        gate: Mutex<Receiver<()>>,
    }

    impl Answers for Fake {
        fn carry_out(&self, ask: &Ask) -> Result<Answer, Fault> {
            self.threads.lock().push(thread::current().id());
            if *ask == Ask::Reset {
                let _ = self.gate.lock().recv();
            }
            Ok(Answer::Done)
        }
    }

    fn fake() -> (Workers<Fake>, Sender<()>) {
        let (open, gate) = channel();
        let threads = Mutex::default();
        let gate = Mutex::new(gate);
        (Workers::new(Fake { threads, gate }), open)
    }

    /// To which question the next answer is.
    fn next(answers: &Receiver<Letter>) -> usize {
        let (at, answer) = answers.recv_timeout(PATIENCE).unwrap();
        assert_eq!(answer, Ok(Answer::Done));
        at
    }

    fn until(what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < deadline, "{what}");
            thread::yield_now();
        }
    }

    #[test]
    fn a_thread_that_has_answered_is_asked_again() {
        let (workers, _open) = fake();
        let (letters, answers) = channel();
        for at in 0..50 {
            workers.ask(&Ask::Keys, at, &letters).unwrap();
            assert_eq!(next(&answers), at);
        }
        let threads: HashSet<ThreadId> = workers.path().threads.lock().iter().copied().collect();
        assert_eq!(threads.len(), 1);
    }

    #[test]
    fn questions_that_hang_hold_up_nobody_until_there_are_too_many() {
        let (workers, open) = fake();
        let (letters, answers) = channel();
        for at in 0..UNDER_WAY_MAX - 1 {
            workers.ask(&Ask::Reset, at, &letters).unwrap();
        }
        for _ in 0..3 {
            workers.ask(&Ask::Keys, 99, &letters).unwrap();
            assert_eq!(next(&answers), 99);
        }
        workers.ask(&Ask::Reset, 0, &letters).unwrap();
        let refused = workers.ask(&Ask::Keys, 99, &letters);
        assert!(matches!(refused, Err(Fault::Late(_))), "{refused:?}");
        for _ in 0..UNDER_WAY_MAX {
            open.send(()).unwrap();
        }
        for _ in 0..UNDER_WAY_MAX {
            next(&answers);
        }
        workers.ask(&Ask::Keys, 99, &letters).unwrap();
        next(&answers);
    }

    #[test]
    fn threads_that_nobody_needs_end() {
        let (workers, open) = fake();
        let (letters, answers) = channel();
        for at in 0..UNDER_WAY_MAX {
            workers.ask(&Ask::Reset, at, &letters).unwrap();
        }
        for _ in 0..UNDER_WAY_MAX {
            open.send(()).unwrap();
            next(&answers);
        }
        let holders = |path: &Arc<Fake>| Arc::strong_count(path) - 1;
        until("spare threads end", || holders(&workers.path) <= KEPT);
        let path = Arc::clone(&workers.path);
        drop(workers);
        until("all end with the path", || holders(&path) == 0);
    }
}
