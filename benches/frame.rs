//! What frames and register blocks cost: a frame should stay below a microsecond, and the blocks of
//! a whole cluster below a millisecond. Run with `cargo bench --bench frame`.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use standfast::frame::tag::{Author, Purpose};
use standfast::frame::{FRAME_LEN, Frame, Keyring, relink};
use standfast::model::{ClusterId, Incarnation, NodeId};
use standfast::register::{Block, VALUE_MAX, Value};
use standfast::storage::area::{SLOT_LEN, Side, encode_block, newest_block};

const CLUSTER: ClusterId = [2; 16];

fn frame(c: &mut Criterion) {
    let keyring = Keyring::new(&[1; 32], &CLUSTER);
    let sender = NodeId::new(3).expect("within 1 to 64");
    let incarnation = Incarnation {
        boot: [4; 16],
        start: 5,
    };
    let mut frame = Frame::blank(CLUSTER, sender, incarnation);
    let mut bytes = [0; FRAME_LEN];
    frame.encode(&keyring, &mut bytes);
    let mut forged = bytes;
    forged[100] ^= 1;
    let mut stranger = bytes;
    stranger[8] ^= 1;

    let mut group = c.benchmark_group("frame");
    let author = Author::Node(sender, incarnation);
    group.bench_function("tag", |b| {
        b.iter(|| keyring.tag(Purpose::Frame, author, black_box(&bytes[..FRAME_LEN - 16])));
    });
    group.bench_function("encode", |b| {
        let mut out = [0; FRAME_LEN];
        b.iter(|| black_box(&frame).encode(&keyring, black_box(&mut out)));
    });
    group.bench_function("relink", |b| {
        let mut out = bytes;
        b.iter(|| relink(black_box(&mut out), 3, &keyring));
    });
    group.bench_function("decode", |b| {
        b.iter(|| frame.decode_into(black_box(&bytes), &keyring, &CLUSTER));
    });
    group.bench_function("refuse a forged one", |b| {
        b.iter(|| Frame::decode(black_box(&forged), &keyring, &CLUSTER).is_err());
    });
    group.bench_function("refuse a foreign one", |b| {
        b.iter(|| Frame::decode(black_box(&stranger), &keyring, &CLUSTER).is_err());
    });
    group.finish();
}

fn block(c: &mut Criterion) {
    let keyring = Keyring::new(&[1; 32], &CLUSTER);
    let area = [3; 16];
    let node = NodeId::new(3).expect("within 1 to 64");
    let writer = Incarnation {
        boot: [4; 16],
        start: 5,
    };
    let mut copies = [[0; SLOT_LEN]; 2];
    for (side, writes) in [(Side::A, 1), (Side::B, 2)] {
        let value = Value {
            epoch: writes,
            nonce: 9,
            bytes: vec![7; VALUE_MAX],
        };
        let block = Block {
            writes,
            value,
            ..Block::default()
        };
        encode_block(
            &area,
            (node, side),
            &block,
            writer,
            &keyring,
            &mut copies[side as usize],
        );
    }

    let mut group = c.benchmark_group("block");
    group.bench_function("encode", |b| {
        let value = Value {
            epoch: 1,
            nonce: 9,
            bytes: vec![7; VALUE_MAX],
        };
        let block = Block {
            writes: 1,
            value,
            ..Block::default()
        };
        let mut out = [0; SLOT_LEN];
        b.iter(|| encode_block(&area, (node, Side::A), &block, writer, &keyring, &mut out));
    });
    group.bench_function("newest of two", |b| {
        let [copy_a, copy_b] = &copies;
        b.iter(|| newest_block(&area, node, black_box(copy_a), black_box(copy_b), &keyring));
    });
    group.bench_function("never written", |b| {
        let zero = [0; SLOT_LEN];
        b.iter(|| newest_block(&area, node, black_box(&zero), black_box(&zero), &keyring));
    });
    group.finish();
}

criterion_group!(benches, frame, block);
criterion_main!(benches);
