//! An engine of the largest cluster, 64 nodes and 64 tasks, that has heard as much as it can keep:
//! full blocks of every node, an unfinished message of each, commands that wait.

use standfast::config::{NAME_MAX, Timing};
use standfast::engine::{
    Action, After, Command, Engine, Event, EvictReason, Found, Member, Report, Setup, Standing,
    TaskRecord, TaskSetup, View,
};
use standfast::frame::{Frame, TaskReport};
use standfast::mldc::{MESSAGE_MAX, Origin, split};
use standfast::model::{Incarnation, LINKS_MAX, NodeId, NodeSet, TASKS_MAX, TaskIndex, TaskState};
use standfast::register::{Ballot, Block, BlockSeen, DISKS_MAX, Memory, Seen, Value};
use standfast::time::{Instant, Span};

const CLUSTER: [u8; 16] = [7; 16];

/// Weeks after the boot, so that no number is a short one.
const START: Instant = Instant(3_000_000_000_000_000);

/// Number of the view that everybody knows.
const EPOCH: u64 = 1 << 40;

fn me() -> NodeId {
    NodeId::new(1).expect("a node")
}

fn life(node: NodeId) -> Incarnation {
    Incarnation {
        boot: [0xf0 | node.number() & 0xf; 16],
        start: u32::MAX,
    }
}

fn others() -> impl Iterator<Item = NodeId> {
    NodeId::all().filter(|node| *node != me())
}

fn name(kind: char, number: usize) -> String {
    format!("{kind}{number:0>width$}", width = NAME_MAX - 1)
}

/// The largest view: everybody is in it, was once put out, and has to do with every task.
fn view() -> View {
    let mut view = View {
        epoch: EPOCH,
        config_hash: [1; 8],
        config_revision: u32::MAX,
        ..View::default()
    };
    for node in NodeId::all() {
        view.evict(node, me(), EvictReason::Silent);
        let (incarnation, standing) = (life(node), Standing::Member);
        view.admit(Member {
            node,
            incarnation,
            standing,
        });
    }
    let task = TaskRecord {
        owner: NodeId::new(2),
        epoch: u32::MAX - 1,
        after: After::Anybody,
        failed_on: NodeSet(u64::MAX << 32),
        by: NodeId::new(64),
        ..TaskRecord::default()
    };
    view.tasks = vec![task; TASKS_MAX];
    view
}

fn block(node: NodeId) -> Block {
    let ballot = Ballot(1 << 50).next_for(node);
    Block {
        writes: u64::MAX / 2,
        mbal: ballot,
        bal: ballot,
        value: Value {
            epoch: EPOCH,
            nonce: u64::MAX,
            bytes: view().encode(),
        },
    }
}

fn setup() -> Setup {
    let task = |index| TaskSetup {
        name: name('t', index),
        nodes: NodeId::all().collect(),
        enabled: true,
        fence_required: true,
    };
    Setup {
        me: me(),
        incarnation: life(me()),
        cluster: CLUSTER,
        nodes: NodeId::all()
            .map(|node| (node, name('n', node.index())))
            .collect(),
        tasks: (0..TASKS_MAX).map(task).collect(),
        timing: Timing::from_detect(Span::from_ms(500)),
        config_hash: [1; 8],
        config_revision: u32::MAX,
        links: LINKS_MAX as u8,
        seed: u64::MAX,
        first_sequence: 1 << 60,
        resumed: None,
        watchdog: true,
        memory: Memory::Kept(block(me())),
        networks: 0x1f,
        fences: NodeSet(u64::MAX - 1),
        disks: DISKS_MAX as u8,
    }
}

/// An engine that is told one thing after the other, a millisecond apart.
struct Told {
    engine: Engine,
    now: Instant,
    /// Number of the last frame that it has sent.
    sent: u64,
}

impl Told {
    fn tell(&mut self, event: Event) {
        self.now += Span::from_ms(1);
        self.engine.handle(self.now, event);
        while let Some(action) = self.engine.poll_action() {
            if let Action::Send(frame) = action {
                self.sent = frame.sequence;
            }
        }
    }

    fn read(&mut self) {
        for disk in 0..DISKS_MAX as u8 {
            let blocks = NodeId::all().map(|node| BlockSeen::Good(block(node)));
            let seen = Some(Seen::Blocks(blocks.collect()));
            let (begun, ended) = (self.now, self.now + Span::from_us(500));
            self.tell(Event::DiskRead {
                disk,
                begun,
                ended,
                seen,
            });
        }
    }

    /// A fresh frame of each other node on each link.
    fn hear_all(&mut self) {
        for node in others() {
            let mut frame = Frame::blank(CLUSTER, node, life(node));
            frame.sequence = u64::MAX / 2 + self.now.0;
            frame.epoch = EPOCH;
            frame.config_hash = [1; 8];
            frame.heard[me().index()] = self.sent as u32;
            frame.tasks = [TaskReport::new(TaskState::Started, 0xfff); TASKS_MAX];
            for link in 0..LINKS_MAX as u8 {
                let frame = frame.clone();
                self.now = Instant(self.now.0 - 900_000);
                self.tell(Event::Frame { link, frame });
            }
        }
    }

    /// All of a message of each other node but its end.
    fn begin_messages(&mut self) {
        for node in others() {
            let origin = Origin {
                cluster: CLUSTER,
                sender: node,
                incarnation: life(node),
            };
            let packets: Vec<_> =
                split(origin, NodeSet::only(me()), u64::MAX / 2, &[7; MESSAGE_MAX]).collect();
            for packet in packets.split_last().expect("a packet").1 {
                self.now = Instant(self.now.0 - 990_000);
                let (link, packet) = (0, packet.clone());
                self.tell(Event::Packet { link, packet });
            }
        }
    }
}

/// Such an engine, between two turns.
pub(crate) fn crowd() -> Engine {
    let engine = Engine::new(setup(), START);
    let mut told = Told {
        engine,
        now: START,
        sent: 0,
    };
    for link in 0..LINKS_MAX as u8 {
        let (up, reason) = (true, "r".repeat(1_000));
        told.tell(Event::LinkState { link, up, reason });
    }
    told.read();
    told.read();
    let found = vec![Found::Stopped; TASKS_MAX];
    told.tell(Event::Report(Report::Hello { found }));
    told.hear_all();
    told.begin_messages();
    for request in 0..40 {
        let task = TaskIndex::new(request as usize).expect("a task");
        let command = Command::Stop { task };
        told.tell(Event::Command { request, command });
    }
    assert_eq!(told.engine.view().epoch, EPOCH, "the view is known");
    told.engine
}
