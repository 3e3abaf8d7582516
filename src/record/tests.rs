//! Records that are whole, cut, torn, damaged or foreign.

mod ring;

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::config::Timing;
use crate::engine::{Action, Event, Found, PowerOutcome, Report, TaskSetup};
use crate::frame::Frame;
use crate::mldc::{Origin, split};
use crate::model::{Incarnation, NodeId, NodeSet};
use crate::register::{Block, BlockSeen, Memory, Seen};
use crate::time::Span;

/// So large that a short run fits into the first segment.
const WORDS: usize = 8 * 1024;

/// Where the first entry begins, in bytes.
const FIRST: usize = (HEAD_WORDS + 1) * WORD;

fn node(id: u8) -> NodeId {
    NodeId::new(id).unwrap()
}

fn life(id: u8) -> Incarnation {
    Incarnation {
        boot: [id; 16],
        start: 3,
    }
}

fn setup() -> Setup {
    let task = TaskSetup {
        name: "web".into(),
        nodes: vec![node(1), node(2)],
        enabled: true,
        fence_required: false,
    };
    Setup {
        me: node(1),
        incarnation: life(1),
        cluster: [7; 16],
        nodes: vec![(node(1), "a".into()), (node(2), "b".into())],
        tasks: vec![task],
        timing: Timing::from_detect(Span::from_ms(500)),
        config_hash: [1; 8],
        config_revision: 1,
        links: 2,
        seed: 9,
        first_sequence: 0,
        resumed: None,
        watchdog: false,
        memory: Memory::Nothing,
        networks: 1,
        fences: NodeSet::EMPTY,
        disks: 1,
    }
}

fn start() -> Start {
    Start {
        program: "0.0.0".into(),
        setup: setup(),
        now: Instant(1_000_000_000),
    }
}

/// One of each kind that a short life sees, then time.
fn events() -> Vec<Event> {
    let origin = Origin {
        cluster: [7; 16],
        sender: node(2),
        incarnation: life(2),
    };
    let packet = split(origin, NodeSet::only(node(1)), 5, &[3; 600]).nth(1);
    let block = Block {
        writes: 4,
        ..Block::default()
    };
    let (link, up, reason) = (0, true, "carrier".to_owned());
    let found = vec![Found::Stopped];
    let mut events = vec![
        Event::LinkState { link, up, reason },
        Event::Report(Report::Hello { found }),
        Event::DiskRead {
            disk: 0,
            begun: Instant(1_000_000_000),
            ended: Instant(1_000_100_000),
            seen: Some(Seen::Blocks(vec![BlockSeen::Good(block), BlockSeen::Blank])),
        },
        Event::Frame {
            link: 1,
            frame: Frame::blank([7; 16], node(2), life(2)),
        },
        Event::Packet {
            link: 0,
            packet: packet.unwrap(),
        },
        Event::Revoked { tasks: 1 },
        Event::PowerFenced {
            node: node(2),
            epoch: 4,
            outcome: PowerOutcome::Off { by: "bmc".into() },
        },
    ];
    events.extend((0..30).map(|_| Event::Tick));
    events
}

fn words(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

fn bytes(words: &[AtomicU64]) -> Vec<u8> {
    let words = words.iter().map(|word| word.load(Ordering::Relaxed));
    words.flat_map(u64::to_le_bytes).collect()
}

/// Runs an engine on these events, 40 ms apart, and records it; also how many turns have fitted.
fn recorded(count: usize, events: &[Event]) -> (Vec<u8>, u64) {
    let words = words(count);
    let mut tape = Tape::begin(&words[..], &start()).unwrap();
    let mut engine = Engine::new(setup(), start().now);
    let mut whole = 0;
    for (at, event) in (1..).zip(events) {
        let now = start().now + Span::from_ms(40).times(at);
        tape.event(&words[..], now, event, &engine);
        engine.handle(now, event.clone());
        while let Some(action) = engine.poll_action() {
            tape.action(&action);
        }
        tape.done(&words[..], &engine);
        whole += u64::from(!tape.is_full());
    }
    (bytes(&words), whole)
}

/// Plays a record to its end: turns, those that are the same, and the end.
fn play(record: &[u8]) -> Result<(u64, u64, End), RecordError> {
    let mut replay = Replay::open(record)?;
    let (mut turns, mut same) = (0, 0);
    while let Some(turn) = replay.turn()? {
        turns += 1;
        assert_eq!(turn.number, turns);
        same += u64::from(turn.verdict == Verdict::Same);
    }
    Ok((turns, same, replay.end().unwrap()))
}

fn length_at(record: &[u8], at: usize) -> usize {
    u32::from_le_bytes(record[at..at + 4].try_into().unwrap()) as usize
}

/// Where each entry begins, and where the last one ends, in bytes.
fn entries(record: &[u8]) -> Vec<usize> {
    let mut at = FIRST;
    let mut starts = vec![at];
    loop {
        let length = length_at(record, at);
        if length == 0 {
            return starts;
        }
        at += WORD + length.next_multiple_of(WORD);
        starts.push(at);
    }
}

#[test]
fn a_run_is_repeated_event_by_event() {
    let events = events();
    let (record, _) = recorded(WORDS, &events);
    let mut replay = Replay::open(&record).unwrap();
    assert_eq!((replay.program(), replay.setup()), ("0.0.0", &setup()));
    assert_eq!(
        (replay.started(), replay.begins()),
        (start().now, start().now)
    );
    let mut actions = 0;
    for event in &events {
        let turn = replay.turn().unwrap().unwrap();
        assert_eq!(format!("{:?}", turn.event), format!("{event:?}"));
        assert_eq!(turn.verdict, Verdict::Same);
        actions += turn.actions.len();
    }
    assert!(replay.turn().unwrap().is_none());
    assert_eq!(replay.end(), Some(End::Open));
    assert!(actions > 10, "the run was to decide something: {actions}");
}

#[test]
fn another_event_or_another_engine_is_noticed_in_its_turn() {
    let mut events = events();
    let (record, _) = recorded(WORDS, &events);
    // Up to the second event alike in length, and then what came of that event in another run.
    let Event::Report(Report::Hello { found }) = &mut events[1] else {
        panic!("the runner's greeting is the second event");
    };
    found[0] = Found::Running;
    let (other, _) = recorded(WORDS, &events);
    let [record_at, other_at] = [entries(&record), entries(&other)];
    assert_eq!(record_at[..5], other_at[..5]);
    let mut mixed = record[..record_at[4]].to_vec();
    mixed.extend(&other[record_at[4]..]);
    // The chain of checksums shows that the parts are of two records.
    assert_eq!(play(&mixed), Err(RecordError::Damaged { at: record_at[4] }));
    // With a chain that fits it is the comparison that shows it.
    let words = words(WORDS);
    let mut tape = Tape::begin(&words[..], &start()).unwrap();
    let mut engine = Engine::new(setup(), start().now);
    let now = start().now + Span::from_ms(40);
    tape.event(&words[..], now, &events[0], &engine);
    engine.handle(now, events[2].clone());
    tape.done(&words[..], &engine);
    let record = bytes(&words);
    let turn = Replay::open(&record).unwrap().turn().unwrap().unwrap();
    assert!(
        matches!(turn.verdict, Verdict::Different { recorded, found } if recorded != found),
        "{:?}",
        turn.verdict
    );
}

#[test]
fn too_little_memory_is_refused() {
    for count in [0, 1, HEAD_WORDS, HEAD_WORDS + 2, 20, 100] {
        assert!(Tape::begin(&words(count)[..], &start()).is_err(), "{count}");
    }
}

#[test]
fn a_record_that_was_cut_plays_up_to_the_cut() {
    let (record, whole) = recorded(WORDS, &events());
    let starts = entries(&record);
    let used = *starts.last().unwrap();
    let ends: Vec<usize> = starts[..starts.len() - 1]
        .iter()
        .map(|start| start + WORD + length_at(&record, *start))
        .collect();
    for cut in 0..used {
        match play(&record[..cut]) {
            Ok((turns, same, end)) => {
                assert_eq!(end, End::Torn, "cut at {cut}");
                let entries = ends.iter().filter(|end| **end <= cut).count() as u64;
                assert_eq!(
                    (turns, same),
                    (entries / 2, (entries - 1) / 2),
                    "cut at {cut}"
                );
            }
            Err(RecordError::NotARecord) => assert!(cut < WORD),
            Err(RecordError::NoBeginning) => assert!((WORD..ends[0]).contains(&cut)),
            Err(error) => panic!("cut at {cut}: {error}"),
        }
    }
    assert_eq!(ends.len() as u64, 1 + 2 * whole);
}

#[test]
fn a_writer_that_died_within_an_entry_loses_that_entry_only() {
    let (record, whole) = recorded(WORDS, &events());
    let starts = entries(&record);
    let (last, used) = (starts[starts.len() - 2], starts[starts.len() - 1]);
    // As the tape writes: what it has stored of the payload is there, the head is not.
    let mut torn = record.clone();
    torn[last..last + WORD].fill(0);
    let expected = Ok((whole, whole - 1, End::Open));
    assert_eq!(play(&torn), expected);
    // With the head there and the payload not whole it is damage: no writer leaves that.
    let mut torn = record;
    torn[used - WORD..used].fill(0);
    assert_eq!(play(&torn), Err(RecordError::Damaged { at: last }));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (record, whole) = recorded(WORDS, &events()[..8]);
    let starts = entries(&record);
    let last = starts[starts.len() - 2];
    for at in 0..last {
        for bit in 0..8 {
            let mut flipped = record.clone();
            flipped[at] ^= 1 << bit;
            match play(&flipped) {
                Err(_) => {}
                Ok(outcome) => {
                    // Zeros that fill up an entry mean nothing.
                    let next = starts.iter().position(|start| *start > at).unwrap();
                    assert!(next > 0, "byte {at} bit {bit} of the head");
                    let begin = starts[next - 1];
                    let end = begin + WORD + length_at(&record, begin);
                    assert!(at >= end, "byte {at} bit {bit}");
                    assert_eq!(outcome, (whole, whole, End::Open));
                }
            }
        }
    }
}

#[test]
fn what_is_no_record_of_ours_is_told_apart() {
    let (record, _) = recorded(WORDS, &events());
    assert_eq!(play(b"").unwrap_err(), RecordError::NotARecord);
    assert_eq!(play(&[0; 4096]).unwrap_err(), RecordError::NotARecord);
    let mut newer = record.clone();
    newer[8..16].copy_from_slice(&(VERSION + 1).to_le_bytes());
    assert_eq!(play(&newer).unwrap_err(), RecordError::Version(VERSION + 1));
    let mut older = record.clone();
    older[8..16].copy_from_slice(&(VERSION - 1).to_le_bytes());
    let refused = play(&older).unwrap_err();
    assert_eq!(refused, RecordError::Version(VERSION - 1));
    let sentence = "this record has version 5; this program reads version 6";
    assert_eq!(refused.to_string(), sentence);
    let mut empty = record;
    empty[HEAD_WORDS * WORD..].fill(0);
    assert_eq!(play(&empty).unwrap_err(), RecordError::NoBeginning);
}

#[test]
fn what_no_engine_can_be_told_is_refused() {
    let words = words(WORDS);
    let mut large = start();
    large.setup.links = 200;
    Tape::begin(&words[..], &large).unwrap();
    let refused = play(&bytes(&words)).unwrap_err();
    assert_eq!(refused, RecordError::Senseless { at: FIRST });
}

#[test]
fn the_layout_is_that_of_its_version() {
    let words = words(WORDS);
    let mut tape = Tape::begin(&words[..], &start()).unwrap();
    let engine = Engine::new(setup(), start().now);
    for event in &events()[..7] {
        tape.event(&words[..], Instant(5), event, &engine);
    }
    let record = bytes(&words);
    let used = *entries(&record).last().unwrap();
    let actions = [
        Action::Left,
        Action::Send(Frame::blank([7; 16], node(2), life(2))),
        Action::Keep(Block::default()),
        Action::PowerFence {
            node: node(2),
            epoch: Some(4),
        },
    ];
    let done = actions.iter().fold(tape::BLANK, tape::after);
    let written = postcard::to_allocvec(&engine).unwrap();
    let engine = (written.len(), crc32c::crc32c(&written));
    let found = (
        VERSION,
        used,
        crc32c::crc32c(&record[..used]),
        done.digest,
        engine,
    );
    // Raise VERSION with these: a program that reads a record otherwise must refuse it.
    assert_eq!(
        found,
        (6, 616, 4_074_691_864, 1_545_366_146, (2862, 340_135_318))
    );
}
