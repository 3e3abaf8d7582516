//! Two engines that were brought into one view by hand, with an instant disk and no network but
//! this file: the first runs all tasks, and its turns are what is measured.

use std::sync::atomic::{AtomicU64, Ordering};

use standfast::config::Timing;
use standfast::engine::{Action, Engine, Event, Found, Order, Report, Setup, TaskSetup};
use standfast::frame::Frame;
use standfast::model::{Incarnation, NodeId, NodeSet, TASKS_MAX};
use standfast::record::{Start, Tape};
use standfast::register::{BlockSeen, Order as DiskOrder, Seen};
use standfast::time::{Instant, Span};

/// A record of a run, in memory of this process.
struct Record {
    words: Vec<AtomicU64>,
    tape: Tape,
}

impl Record {
    fn begin(id: u8, now: Instant, words: usize) -> Record {
        let words: Vec<AtomicU64> = (0..words).map(|_| AtomicU64::new(0)).collect();
        let (program, setup) = ("test".into(), setup(id));
        let start = Start {
            program,
            setup,
            now,
        };
        let tape = Tape::begin(&words[..], &start).expect("room for the beginning");
        Record { words, tape }
    }
}

/// Both engines, the disk, and the one clock.
pub(crate) struct Pair {
    engines: [Engine; 2],
    records: Option<[Record; 2]>,
    blocks: Vec<BlockSeen>,
    frames: [Option<Frame>; 2],
    now: Instant,
}

fn node(id: u8) -> NodeId {
    NodeId::new(id).expect("1 or 2")
}

/// What the engine of node 1 or 2 is made from.
pub(crate) fn setup(id: u8) -> Setup {
    let task = |index| TaskSetup {
        name: format!("task{index}"),
        nodes: vec![node(1), node(2)],
        enabled: true,
        fence_required: false,
    };
    Setup {
        me: node(id),
        incarnation: Incarnation {
            boot: [id; 16],
            start: 1,
        },
        cluster: [7; 16],
        nodes: vec![(node(1), "a".into()), (node(2), "b".into())],
        tasks: (0..TASKS_MAX).map(task).collect(),
        timing: Timing::from_detect(Span::from_ms(500)),
        config_hash: [1; 8],
        config_revision: 1,
        links: 1,
        seed: u64::from(id),
        first_sequence: 0,
        resumed: None,
        watchdog: false,
        memory: standfast::register::Memory::Nothing,
        networks: 1,
        fences: NodeSet::EMPTY,
        disks: 1,
    }
}

impl Pair {
    /// A pair in which the first node runs every task and nothing is left to be done.
    pub(crate) fn settled() -> Pair {
        Pair::settle(None)
    }

    /// The same, and what both were told is recorded, in so many words each.
    pub(crate) fn recorded(words: usize) -> Pair {
        Pair::settle(Some(words))
    }

    fn settle(record_words: Option<usize>) -> Pair {
        let now = Instant(1_000_000_000);
        let mut pair = Pair {
            engines: [Engine::new(setup(1), now), Engine::new(setup(2), now)],
            records: record_words.map(|words| [1, 2].map(|id| Record::begin(id, now, words))),
            blocks: vec![BlockSeen::Blank; 2],
            frames: [None, None],
            now,
        };
        let found = vec![Found::Stopped; TASKS_MAX];
        for i in 0..2 {
            let (link, up, reason) = (0, true, String::new());
            pair.tell(i, Event::LinkState { link, up, reason });
            let found = found.clone();
            pair.tell(i, Event::Report(Report::Hello { found }));
        }
        for _ in 0..6_000 {
            pair.round(0);
            pair.round(1);
        }
        let whole = (1 << (TASKS_MAX - 1)) - 1 + (1 << (TASKS_MAX - 1));
        let granted = pair.engines[0].granted() | pair.engines[1].granted();
        assert_eq!(granted, whole, "every task runs");
        pair
    }

    /// Five milliseconds of one node's life.
    fn round(&mut self, i: usize) {
        self.now += Span::from_us(2_500);
        let now = self.now;
        if let Some(frame) = self.frames[1 - i].take() {
            self.tell(i, Event::Frame { link: 0, frame });
        }
        let (link, begun) = (0, now);
        self.tell(i, Event::LinkDrained { link, begun });
        self.read(i);
    }

    fn read(&mut self, i: usize) {
        let (begun, ended) = (self.now, self.now);
        let seen = Some(Seen::Blocks(self.blocks.clone()));
        let disk = 0;
        self.tell(
            i,
            Event::DiskRead {
                disk,
                begun,
                ended,
                seen,
            },
        );
    }

    fn tell(&mut self, i: usize, event: Event) {
        let mut actions = Vec::new();
        self.turn(i, event, |action| actions.push(action));
        for action in actions {
            self.perform(i, action);
        }
    }

    /// One turn, recorded as the core does it.
    fn turn(&mut self, i: usize, event: Event, mut act: impl FnMut(Action)) {
        let mut record = self.records.as_mut().map(|records| &mut records[i]);
        if let Some(Record { words, tape }) = &mut record {
            tape.event(&words[..], self.now, &event, &self.engines[i]);
        }
        self.engines[i].handle(self.now, event);
        while let Some(action) = self.engines[i].poll_action() {
            if let Some(Record { tape, .. }) = &mut record {
                tape.action(&action);
            }
            act(action);
        }
        if let Some(Record { words, tape }) = &mut record {
            tape.done(&words[..], &self.engines[i]);
        }
    }

    /// What was recorded of a node; none of it may have been left out.
    pub(crate) fn record(&self, i: usize) -> Vec<u8> {
        let records = self.records.as_ref().expect("a recorded pair");
        let Record { words, tape } = &records[i];
        assert!(!tape.is_full(), "more words are needed");
        let words = words.iter().map(|word| word.load(Ordering::Relaxed));
        words.flat_map(u64::to_le_bytes).collect()
    }

    fn disk(&mut self, i: usize, disk: u8, order: DiskOrder) {
        match order {
            DiskOrder::Read => self.read(i),
            DiskOrder::Write(block) => {
                self.blocks[i] = BlockSeen::Good(block);
                let at = self.now;
                self.tell(i, Event::DiskWritten { disk, at });
            }
            DiskOrder::CompareAndWrite(_) => panic!("this disk has no record"),
        }
    }

    fn perform(&mut self, i: usize, action: Action) {
        match action {
            Action::Send(frame) => self.frames[i] = Some(frame),
            Action::Disk { disk, order } => self.disk(i, disk, order),
            Action::Order(Order::Start { op, task, .. } | Order::Stop { op, task, .. }) => {
                let failure = None;
                self.tell(i, Event::Report(Report::Done { op, task, failure }));
            }
            Action::Mail(_)
            | Action::PowerFence { .. }
            | Action::Keep(_)
            | Action::Record(_)
            | Action::Reply { .. }
            | Action::Left => {}
        }
    }

    /// The engine that runs all tasks.
    pub(crate) fn first(&self) -> &Engine {
        &self.engines[0]
    }

    /// The next frame that the second node sends, some time later; the first has had its own.
    pub(crate) fn next_frame(&mut self) -> Frame {
        loop {
            self.round(1);
            if let Some(frame) = self.frames[1].take() {
                self.read(0);
                return frame;
            }
            self.tell(0, Event::Tick);
        }
    }

    /// One turn of the first node on that frame, with all that it wants done fetched.
    pub(crate) fn take(&mut self, frame: Frame) {
        let mut sent = None;
        self.turn(0, Event::Frame { link: 0, frame }, |action| {
            if let Action::Send(frame) = action {
                sent = Some(frame);
            }
        });
        self.frames[0] = sent.or(self.frames[0].take());
    }
}
