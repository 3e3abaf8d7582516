//! What one turn of the engine costs: on a frame of another node, and on its own heartbeat.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

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

criterion_group!(benches, turns);
criterion_main!(benches);
