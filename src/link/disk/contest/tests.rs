//! Several nodes' threads on one array in memory, which does in one step what it should, or not.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::*;
use crate::storage::area::{FormatOptions, Medium, area_bytes, format};

const CLUSTER: ClusterId = [7; 16];

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a command waits for one of another node.
const COMPANY: Duration = Duration::from_millis(50);

fn keyring() -> Keyring {
    Keyring::new(&[1; 32], &CLUSTER)
}

/// What the array does, in one step or in two.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Compares and writes.
    Sound,
    /// Compares for two nodes before it writes for them.
    LetsTwoWin,
    /// Is sound, and loses every third answer to what was done.
    LosesAnswers,
}

struct Array {
    bytes: Mutex<Vec<u8>>,
    kind: Kind,
    /// Commands that have come for a meeting.
    met: Mutex<u64>,
    meeting: Condvar,
    done: AtomicU32,
    sent: AtomicU32,
    /// Formatted anew by the command of this number.
    formatted_at: Option<u32>,
    away: AtomicBool,
}

impl Array {
    fn new(kind: Kind) -> Array {
        let array = Array {
            bytes: Mutex::new(vec![0; area_bytes(64).unwrap() as usize]),
            kind,
            met: Mutex::new(0),
            meeting: Condvar::new(),
            done: AtomicU32::new(0),
            sent: AtomicU32::new(0),
            formatted_at: None,
            away: AtomicBool::new(false),
        };
        array.format(5);
        array
    }

    fn format(&self, nonce: u8) {
        let options = FormatOptions {
            cluster: CLUSTER,
            nonce: [nonce; 16],
            block_size: 512,
            nodes_max: 64,
            medium: Medium::CompareAndWrite,
            roster: None,
        };
        format(&self, &options, &keyring()).unwrap();
    }

    fn header(&self) -> Header {
        read_header(&self, &keyring(), &CLUSTER).unwrap().0
    }

    /// Waits for a command of another node, if one comes.
    fn meet(&self) {
        let mut met = self.met.lock();
        *met += 1;
        let own = *met;
        if own.is_multiple_of(2) {
            self.meeting.notify_all();
        } else {
            self.meeting
                .wait_while_for(&mut met, |met| *met == own, COMPANY);
        }
    }

    fn compare_and_write(&self, at: usize, expected: &[u8], new: &[u8]) -> io::Result<Compared> {
        let sent = self.sent.fetch_add(1, Ordering::Relaxed) + 1;
        if Some(sent) == self.formatted_at {
            self.format(6);
        }
        self.meet();
        let place = at..at + new.len();
        let mut bytes = self.bytes.lock();
        if bytes[place.clone()] != *expected {
            return Ok(Compared::Miscompare);
        }
        if self.kind == Kind::LetsTwoWin {
            drop(bytes);
            self.meet();
            bytes = self.bytes.lock();
        }
        bytes[place].copy_from_slice(new);
        let done = self.done.fetch_add(1, Ordering::Relaxed);
        if self.kind == Kind::LosesAnswers && done.is_multiple_of(3) {
            return Err(io::Error::other("no answer in time"));
        }
        Ok(Compared::Done)
    }
}

impl Blocks for &Array {
    fn size(&self) -> u64 {
        self.bytes.lock().len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.away.load(Ordering::Relaxed) {
            return Err(io::Error::other("no such disk"));
        }
        let at = offset as usize;
        out.copy_from_slice(&self.bytes.lock()[at..at + out.len()]);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let at = offset as usize;
        self.bytes.lock()[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

/// A node's own open of the array.
struct Path(Arc<Array>);

impl Blocks for Path {
    fn size(&self) -> u64 {
        (&*self.0).size()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        (&*self.0).read_at(offset, out)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        (&*self.0).write_at(offset, bytes)
    }
}

impl CompareAndWrite for Path {
    fn block_bytes(&self) -> usize {
        512
    }

    fn compare_and_write(
        &mut self,
        offset: u64,
        expected: &[u8],
        new: &[u8],
    ) -> io::Result<Compared> {
        self.0.compare_and_write(offset as usize, expected, new)
    }
}

/// A node whose thread runs.
struct Node {
    counters: Arc<Counters>,
    told: Receiver<Event>,
    running: Option<Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    /// One that has just started.
    fn start(id: u8, array: &Arc<Array>, alone: Span) -> Node {
        Node::join(id, array, Some(Part::Challenger), alone)
    }

    fn join(id: u8, array: &Arc<Array>, part: Option<Part>, alone: Span) -> Node {
        let (running, stop) = bounded(0);
        let (events, told) = bounded(64);
        let counters = Arc::new(Counters::default());
        let path = array.clone();
        let open = move || {
            let disk = Path(path.clone());
            let header = read_header(&disk, &keyring(), &CLUSTER);
            let (header, _) = header.map_err(|error| sentence(&error))?;
            let target: Box<dyn CompareAndWrite> = Box::new(Path(path.clone()));
            Ok(Seat {
                disk,
                target,
                header,
            })
        };
        let boot = [id; 16];
        let judge = Judge {
            link: 2,
            cluster: CLUSTER,
            node: NodeId::new(id).unwrap(),
            life: Incarnation { boot, start: 1 },
            keyring: keyring(),
            nonce: [5; 16],
            counters: counters.clone(),
            events,
            stop,
            pace: Pace {
                look: Span::from_ms(1),
                call: Span::from_ms(1),
                alone,
                together: Span::from_ms(60_000),
            },
            open,
            watch: Watch::default(),
            part,
            found: None,
        };
        Node {
            counters,
            told,
            running: Some(running),
            thread: Some(thread::spawn(move || judge.run())),
        }
    }

    /// The next note.
    fn note(&self) -> (Class, String) {
        match self.told.recv_timeout(PATIENCE) {
            Ok(Event::Report(Report::Note { class, text, .. })) => (class, text),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the thread ends by itself.
    fn ended(&mut self) {
        self.thread.take().unwrap().join().unwrap();
    }

    fn lost(&self) -> Option<&String> {
        self.counters.register_lost.get()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running = None;
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking());
        }
    }
}

fn long() -> Span {
    Span::from_ms(60_000)
}

fn proves(node: &Node) {
    let (class, text) = node.note();
    assert_eq!(class, Class::Info, "{text}");
    assert!(text.starts_with("link 2: compare-and-write is sound"));
    assert_eq!(node.lost(), None);
}

#[test]
fn two_nodes_prove_a_sound_disk() {
    for kind in [Kind::Sound, Kind::LosesAnswers] {
        let array = Arc::new(Array::new(kind));
        let nodes = [1, 2].map(|id| Node::start(id, &array, long()));
        nodes.iter().for_each(proves);
    }
}

#[test]
fn who_runs_is_called_by_who_starts_and_calls_nobody() {
    let array = Arc::new(Array::new(Kind::Sound));
    let first = Node::join(1, &array, None, long());
    let second = Node::start(2, &array, long());
    proves(&first);
    proves(&second);
    let third = Node::start(3, &array, long());
    let all = [&first, &second, &third];
    all.into_iter().for_each(proves);
    // Had a second called anybody, the others would come together again, and again.
    let look = || read_contest(&&*array, array.header().geometry, 512).unwrap();
    let mut watch = Watch::default();
    assert!(watch.look(&look()));
    let fourth = Node::start(4, &array, long());
    all.into_iter().for_each(proves);
    proves(&fourth);
    assert!(watch.look(&look()) && !watch.look(&look()));
    for node in [&first, &second, &third, &fourth] {
        assert!(node.told.is_empty() && node.lost().is_none());
    }
}

#[test]
fn a_disk_that_lets_two_win_is_found_told_and_known_to_who_comes_later() {
    let array = Arc::new(Array::new(Kind::LetsTwoWin));
    let mut nodes = [1, 2].map(|id| Node::start(id, &array, long()));
    for node in &mut nodes {
        let (class, text) = node.note();
        assert_eq!(class, Class::Critical);
        assert!(text.contains("disk format --register paxos"), "{text}");
        assert_eq!(node.lost(), Some(&text));
        node.ended();
        assert!(node.told.is_empty(), "it is told once");
    }
    let broken = read_broken(&&*array, &array.header(), &keyring()).unwrap();
    assert!([1, 2].contains(&broken.unwrap().node.number()));
    let sent = array.sent.load(Ordering::Relaxed);
    let mut later = Node::start(3, &array, long());
    assert_eq!(later.note().1, alarm(2, &broken.unwrap()));
    later.ended();
    assert_eq!(
        array.sent.load(Ordering::Relaxed),
        sent,
        "it changes nothing"
    );
    array.format(5);
    let header = array.header();
    assert_eq!(read_broken(&&*array, &header, &keyring()).unwrap(), None);
}

#[test]
fn a_format_in_the_middle_is_no_lost_change() {
    let array = Arc::new(Array {
        formatted_at: Some(20),
        ..Array::new(Kind::Sound)
    });
    let nodes = [1, 2].map(|id| Node::start(id, &array, long()));
    let deadline = Instant::now() + PATIENCE;
    let formatted = || array.sent.load(Ordering::Relaxed) >= 20;
    while !formatted() || Arc::strong_count(&array) > 3 {
        assert!(Instant::now() < deadline, "they leave it alone");
        thread::yield_now();
    }
    for node in &nodes {
        assert_eq!(node.lost(), None);
        assert!(node.told.is_empty());
    }
    drop(nodes);
    assert_eq!(array.header().nonce, [6; 16]);
    let block = read_broken(&&*array, &array.header(), &keyring());
    assert_eq!(block.unwrap(), None);
}

#[test]
fn a_disk_that_goes_away_is_looked_at_again() {
    let array = Arc::new(Array::new(Kind::Sound));
    let first = Node::start(1, &array, long());
    let deadline = Instant::now() + PATIENCE;
    while array.sent.load(Ordering::Relaxed) < 3 {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
    array.away.store(true, Ordering::Relaxed);
    let second = Node::start(2, &array, long());
    // It has lost its part in that contest; it comes back as a second.
    while Arc::strong_count(&array) > 3 {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
    array.away.store(false, Ordering::Relaxed);
    proves(&first);
    proves(&second);
}

#[test]
fn more_nodes_than_the_block_has_room_for_see_no_lost_change() {
    let array = Arc::new(Array::new(Kind::Sound));
    let mut nodes: Vec<Node> = (1..=24)
        .map(|id| Node::start(id, &array, Span::from_ms(200)))
        .collect();
    let deadline = Instant::now() + PATIENCE;
    while array.sent.load(Ordering::Relaxed) < 2_000 {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
    for node in &mut nodes {
        node.running = None;
        node.ended();
        assert_eq!(node.lost(), None);
        let critical = |event: Event| match event {
            Event::Report(Report::Note { class, .. }) => class > Class::Info,
            _ => true,
        };
        assert!(!node.told.try_iter().any(critical));
    }
}

#[test]
fn a_pause_is_as_long_as_a_round_of_each_other_one_on_average() {
    let (mut draw, round) = (1, Span::from_us(500));
    for others in [1, 5, 16] {
        let pauses: Vec<Span> = (0..10_000)
            .map(|_| pause(round, others, &mut draw))
            .collect();
        let sum: u64 = pauses.iter().map(|pause| pause.0).sum();
        let rounds = sum as f64 / pauses.len() as f64 / round.0 as f64;
        assert!((rounds / others as f64 - 1.0).abs() < 0.05, "{rounds}");
        let longest = pauses.iter().max().unwrap();
        assert_eq!(*longest, round.times(2 * others as u64));
        assert!(pauses.contains(&Span(0)));
    }
}
