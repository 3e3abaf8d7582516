//! What another node says it knows.

use super::*;

#[test]
fn one_read_teaches_what_is_decided_where_its_epoch_was_heard_before() {
    let (low, high) = (ballot(2, 2), ballot(3, 3));
    // Epoch heard of, begin of the read after that. Learned?
    let rows = [
        (4, 0, true),
        (4, 10, true),
        (4, -1, false),
        (3, 0, false),
        (5, 0, false),
    ];
    for (epoch, later, learned) in rows {
        let mut table = Table::recovered();
        table.blocks[1] = block(2, low, low, value(4, 44));
        table.blocks[2] = block(1, high, Ballot::NONE, Value::default());
        let heard = table.step();
        let event = Event::DecidedElsewhere { epoch };
        table.register.handle(heard, event);
        // That it is heard again changes nothing.
        table.register.handle(heard + Span(20), event);
        let begun = Instant(heard.0.saturating_add_signed(later));
        table.now = heard + Span(30);
        table.read_begun(begun);
        let known = table.register.known();
        assert_eq!(*known == value(4, 44), learned, "{epoch} {later}");
        let proof = News::Proof { begun, epoch: 4 };
        assert_eq!(table.drain().contains(&proof), learned, "{epoch} {later}");
    }
}

#[test]
fn the_own_voice_is_known_before_one_read_teaches_anything() {
    let nodes = (1..=3).map(node).collect::<NodeSet>();
    let mut table = Table::new();
    table.register = Register::new(node(1), nodes, 7, BACKOFF, Memory::Pending);
    let event = Event::DecidedElsewhere { epoch: 4 };
    table.register.handle(table.now, event);
    // Outbid by all nodes, this one too, when the disk was away; nobody has brought that there yet.
    let (low, high) = (ballot(2, 2), ballot(3, 3));
    table.blocks[1] = block(2, low, low, value(4, 44));
    table.read();
    assert_eq!(table.register.known().epoch, 0);
    let kept = Memory::Kept(Block {
        writes: 1,
        mbal: high,
        bal: high,
        value: value(4, 55),
    });
    let now = table.step();
    table.register.handle(now, Event::Remembered(&kept));
    table.read();
    assert_eq!(*table.register.known(), value(4, 55));
}
