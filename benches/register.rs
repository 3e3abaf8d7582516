//! What the register costs: each heartbeat's read, and one whole undisturbed change.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use standfast::model::{NodeId, NodeSet};
use standfast::register::{
    Ballot, Block, BlockSeen, Event, Memory, News, Order, Register, Seen, VALUE_MAX, Value,
};
use standfast::time::{Instant, Span};

/// A disk of 64 nodes that have all written the same full-size value once.
fn disk(epoch: u64) -> Seen {
    let block = |node: NodeId| {
        let ballot = Ballot(u64::from(node.number())).next_for(node);
        let value = Value {
            epoch,
            nonce: 1,
            bytes: vec![7; VALUE_MAX],
        };
        BlockSeen::Good(Block {
            writes: 2,
            mbal: ballot,
            bal: ballot,
            value,
        })
    };
    Seen::Blocks(NodeId::all().map(block).collect())
}

fn read(register: &mut Register, at: &mut u64, seen: &Seen) {
    *at += 2;
    let (begun, ended) = (Instant(*at - 1), Instant(*at));
    register.handle(ended, Event::ReadDone { begun, ended, seen });
}

/// Node 1 of 64, which knows the disk's value.
fn settled(blocks: &Seen) -> (Register, u64) {
    let me = NodeId::new(1).expect("1 is a node");
    let mut register = Register::new(
        me,
        NodeId::all().collect::<NodeSet>(),
        1,
        Span::from_ms(5),
        Memory::Nothing,
    );
    let mut at = 0;
    while register.known().epoch == 0 {
        read(&mut register, &mut at, blocks);
    }
    while register.poll_news().is_some() || register.poll_order().is_some() {}
    (register, at)
}

fn change(register: &mut Register, mut at: u64, seen: &mut Seen) -> bool {
    let expected = register.known().id();
    let new = Value {
        epoch: expected.0 + 1,
        nonce: 2,
        bytes: vec![8; VALUE_MAX],
    };
    register
        .propose(Instant(at), expected, new, Instant::NEVER)
        .expect("nothing is under way");
    while let Some(order) = register.poll_order() {
        match order {
            Order::Read => read(register, &mut at, seen),
            Order::Write(block) => {
                if let Seen::Blocks(blocks) = seen {
                    blocks[0] = BlockSeen::Good(block);
                }
                at += 1;
                register.handle(Instant(at), Event::Written { at: Instant(at) });
            }
            Order::CompareAndWrite(_) => unreachable!("this disk has no record"),
        }
    }
    std::iter::from_fn(|| register.poll_news()).any(|news| matches!(news, News::Won { .. }))
}

fn register(criterion: &mut Criterion) {
    let blocks = disk(4);
    let (mut register, mut at) = settled(&blocks);
    criterion.bench_function("register/read of 64 unchanged blocks", |bencher| {
        bencher.iter(|| {
            read(&mut register, &mut at, &blocks);
            register.poll_news()
        });
    });
    let mut changed = blocks.clone();
    let (mut fresh, at) = settled(&blocks);
    assert!(
        change(&mut fresh, at, &mut changed),
        "an undisturbed change wins"
    );
    criterion.bench_function("register/one change, 64 nodes", |bencher| {
        bencher.iter_batched(
            || (settled(&blocks), blocks.clone()),
            |((mut register, at), mut blocks)| change(&mut register, at, &mut blocks),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, register);
criterion_main!(benches);
