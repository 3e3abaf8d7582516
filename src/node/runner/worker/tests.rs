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
struct Taken(Arc<Mutex<Vec<bool>>>);

impl Object for Taken {
    fn probe(&mut self, _context: &Context<'_>) -> Probe {
        Probe::Running
    }

    fn start(&mut self, _context: &Context<'_>, _by: Instant) -> Result<(), ObjectError> {
        Ok(())
    }

    fn stop(
        &mut self,
        context: &Context<'_>,
        _by: Instant,
        forced: bool,
    ) -> Result<(), ObjectError> {
        assert!(!context.cancel.is_raised(Urgency::Stop));
        self.0.lock().push(forced);
        Ok(())
    }

    fn look(&mut self, _context: &Context<'_>) -> Watched {
        let reason = "fenced".to_owned();
        Watched::Evicted { reason }
    }
}

struct Always;

impl Permit for Always {
    fn may_run(&self, _task: TaskIndex) -> bool {
        true
    }
}

#[test]
fn an_eviction_ends_everything_at_once_and_by_force() {
    let text = "[cluster]\nname = 't'\nid = '0123456789abcdef0123456789abcdef'\n\
                secret = '/s'\ndetect = '500ms'\n[watchdog]\nstand-in = '/w'\n\
                [[node]]\nname = 'a'\nid = 1\n[[task]]\nname = 'files'\n\
                [[task.object]]\nname = 'data'\nkind = 'process'\ncommand = ['/bin/a']\n\
                [[task.object]]\nname = 'more'\nkind = 'process'\ncommand = ['/bin/b']\n";
    let config = Config::parse(text, &crate::object::kind_rows()).unwrap();
    let stops = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&stops);
    let tree = Tree::new(&config.tasks()[0], |_, _| {
        Box::new(Taken(Arc::clone(&shared)))
    });
    let (queue, said) = crossbeam_channel::unbounded();
    let task = TaskIndex::new(0).unwrap();
    let mut worker = Worker {
        task,
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
    worker.look(0);
    assert_eq!(*stops.lock(), [true, true]);
    assert!(!worker.watching);
    let last = said.try_iter().last().unwrap();
    let failure = Failure {
        object: "data".to_owned(),
        reason: "fenced".to_owned(),
        stopped: true,
    };
    assert_eq!(last, Said::Lost { task, failure });
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
