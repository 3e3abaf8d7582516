//! A worker without its thread: budget, mailbox, and what an eviction does.

use super::*;
use crate::config::Config;
use crate::object::{Object, ObjectError, Probe};
use crate::time::Span;

#[test]
fn a_budget_is_used_up_and_comes_back_with_time() {
    let config = RestartConfig {
        attempts: 2,
        window: Span::from_ms(1_000),
    };
    let mut budget = Budget {
        config,
        used: VecDeque::new(),
    };
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    assert_eq!(budget.take(at(0)), Some(1));
    assert_eq!(budget.take(at(400)), Some(2));
    assert_eq!(budget.take(at(999)), None);
    assert_eq!(budget.take(at(1_000)), Some(2));
    assert_eq!(budget.take(at(1_399)), None);
    assert_eq!(budget.take(at(2_000)), Some(1));
}

#[test]
fn a_stop_cancels_what_waits_before_it() {
    let mailbox = Mailbox::new().unwrap();
    assert!(mailbox.push(Job::Start {
        op: 1,
        connection: 1,
        epoch: 1
    }));
    assert!(mailbox.push(Job::Stop {
        op: 2,
        connection: 1,
        forced: false
    }));
    let (job, cancel) = mailbox.take().unwrap();
    assert_eq!(
        job,
        Job::Start {
            op: 1,
            connection: 1,
            epoch: 1
        }
    );
    assert!(cancel.is_raised(Urgency::Stop) && !cancel.is_raised(Urgency::Forced));
    assert!(mailbox.push(Job::Stop {
        op: 3,
        connection: 1,
        forced: true
    }));
    assert!(cancel.is_raised(Urgency::Forced));
}

/// Another node has taken it over.
#[derive(Default)]
struct Deeds {
    starts: usize,
    stops: Vec<bool>,
}

struct Taken(Arc<Mutex<Deeds>>);

impl Taken {
    fn told() -> Watched {
        let reason = "fenced".to_owned();
        Watched::Evicted { reason }
    }
}

impl Object for Taken {
    fn probe(&mut self, _context: &Context<'_>) -> Probe {
        Probe::Running
    }

    fn start(&mut self, _context: &Context<'_>, _by: Instant) -> Result<(), ObjectError> {
        self.0.lock().starts += 1;
        Ok(())
    }

    fn stop(
        &mut self,
        context: &Context<'_>,
        _by: Instant,
        forced: bool,
    ) -> Result<(), ObjectError> {
        assert!(!context.cancel.is_raised(Urgency::Stop));
        self.0.lock().stops.push(forced);
        Ok(())
    }

    fn look(&mut self, _context: &Context<'_>) -> Watched {
        Taken::told()
    }

    fn footing(&mut self, _context: &Context<'_>, _by: Instant) -> Watched {
        Taken::told()
    }
}

struct Always;

impl Permit for Always {
    fn may_run(&self, _task: TaskIndex) -> bool {
        true
    }
}

const TASK: TaskIndex = match TaskIndex::new(0) {
    Some(task) => task,
    None => panic!(),
};

/// A worker that watches a task of two steps, and what it says.
fn watching(deeds: &Arc<Mutex<Deeds>>) -> (Worker, crossbeam_channel::Receiver<Said>) {
    let text = "[cluster]\nname = 't'\nid = '0123456789abcdef0123456789abcdef'\n\
                secret = '/s'\ndetect = '500ms'\n[watchdog]\nstand-in = '/w'\n\
                [[node]]\nname = 'a'\nid = 1\n[[task]]\nname = 'files'\n\
                [[task.object]]\nname = 'data'\nkind = 'process'\ncommand = ['/bin/a']\n\
                step = 1\n[[task.object]]\nname = 'more'\nkind = 'process'\n\
                command = ['/bin/b']\nstep = 2\n";
    let config = Config::parse(text, &crate::object::kind_rows()).unwrap();
    let tree = Tree::new(&config.tasks()[0], |_, _| {
        Box::new(Taken(Arc::clone(deeds)))
    });
    let (queue, said) = crossbeam_channel::unbounded();
    let worker = Worker {
        task: TASK,
        tree,
        mailbox: Arc::new(Mailbox::new().unwrap()),
        mouth: Mouth {
            queue,
            bell: Arc::new(EventFd::new().unwrap()),
        },
        permit: Arc::new(Always),
        budget: Budget {
            config: config.tasks()[0].restart,
            used: VecDeque::new(),
        },
        watching: true,
        epoch: 7,
    };
    (worker, said)
}

/// The task was ended by force, nothing of it was started again, and the last word names the
/// object that was taken.
fn assert_ended(worker: &Worker, deeds: &Deeds, said: &crossbeam_channel::Receiver<Said>) {
    assert_eq!((deeds.starts, &deeds.stops[..]), (0, &[true, true][..]));
    assert!(!worker.watching);
    let failure = Failure {
        object: "data".to_owned(),
        reason: "fenced".to_owned(),
        stopped: true,
    };
    let last = said.try_iter().last().unwrap();
    assert_eq!(
        last,
        Said::Lost {
            task: TASK,
            failure
        }
    );
}

#[test]
fn an_eviction_ends_everything_at_once_and_by_force() {
    let deeds = Arc::default();
    let (mut worker, said) = watching(&deeds);
    worker.look(0);
    assert_ended(&worker, &deeds.lock(), &said);
}

#[test]
fn nothing_is_started_again_upon_what_another_owns() {
    let deeds = Arc::default();
    let (mut worker, said) = watching(&deeds);
    worker.mend(1, "more", "it ended".to_owned());
    assert_ended(&worker, &deeds.lock(), &said);
}

#[test]
fn a_flood_of_orders_is_refused() {
    let mailbox = Mailbox::new().unwrap();
    let job = Job::Probe {
        connection: 1,
        epoch: 0,
    };
    assert_eq!(
        (0..JOBS_MAX + 3).filter(|_| mailbox.push(job)).count(),
        JOBS_MAX
    );
}
