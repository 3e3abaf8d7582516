//! What one turn of the engine costs: on a frame of another node, and on its own heartbeat; and
//! what it costs to write an engine down, which happens when a part of its record is full.

use std::sync::atomic::AtomicU64;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use standfast::engine::{Class, Engine, Event, Report};
use standfast::record::{Replay, SEGMENTS, Start, Tape};
use standfast::time::Instant;

#[allow(dead_code, reason = "the crowd serves several programs")]
#[path = "../tests/engine_crowd/mod.rs"]
mod engine_crowd;
#[allow(dead_code, reason = "the pair serves several programs")]
#[path = "../tests/engine_pair/mod.rs"]
mod engine_pair;

use engine_pair::Pair;

fn turns(c: &mut Criterion) {
    let mut pair = Pair::settled();
    let cell = std::cell::RefCell::new(&mut pair);
    c.bench_function("engine: a turn on a fresh frame", |b| {
        b.iter_batched(
            || cell.borrow_mut().next_frame(),
            |frame| cell.borrow_mut().take(frame),
            BatchSize::PerIteration,
        );
    });
    let mut pair = Pair::settled();
    let frame = pair.next_frame();
    c.bench_function("engine: a turn on a frame seen before", |b| {
        b.iter(|| pair.take(frame.clone()));
    });
}

/// A record of which each segment holds an engine and one turn: every turn writes one down.
fn checkpoint(c: &mut Criterion, name: &str, engine: &Engine) {
    let length = postcard::to_allocvec(engine).expect("an engine").len();
    let text = "x".repeat(200);
    let (task, class) = (None, Class::Info);
    let event = Event::Report(Report::Note { task, class, text });
    // Its number, the engine with what stands before it, one such event and what came of it.
    let segment = 1 + 1 + (length + 64).div_ceil(8) + 40;
    let words: Vec<AtomicU64> = (0..4 + SEGMENTS * segment)
        .map(|_| AtomicU64::new(0))
        .collect();
    let (program, setup, now) = ("bench".into(), engine.setup().clone(), Instant(1));
    let start = Start {
        program,
        setup,
        now,
    };
    let mut tape = Tape::begin(&words[..], &start).expect("room for an engine");
    let mut turns = 0_u64;
    c.bench_function(&format!("{name}, {length} bytes"), |b| {
        b.iter(|| {
            turns += 1;
            tape.event(&words[..], Instant(turns), &event, engine);
            tape.done(&words[..], engine);
        });
    });
    let words = words.into_iter().map(AtomicU64::into_inner);
    let record: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    let replay = Replay::open(&record).expect("a record");
    let newest = Instant(turns - SEGMENTS as u64);
    assert_eq!(replay.begins(), newest, "each turn wrote an engine down");
}

fn checkpoints(c: &mut Criterion) {
    let pair = Pair::settled();
    checkpoint(c, "record: an engine of 2 nodes", pair.first());
    checkpoint(c, "record: an engine of 64 nodes", &engine_crowd::crowd());
}

criterion_group!(benches, turns, checkpoints);
criterion_main!(benches);
