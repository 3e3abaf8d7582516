//! Reads that overlap a write, or each other.

use super::*;

/// A read of this table begins and ends that long after `base`, and is reported now.
fn read_at(table: &mut Table, base: Instant, (begun, ended): (u64, u64)) {
    table.now = base + Span(100);
    let [begun, ended] = [begun, ended].map(|tick| base + Span(tick));
    let seen = &Seen::Blocks(table.blocks.clone());
    let event = Event::ReadDone { begun, ended, seen };
    table.register.handle(table.now, event);
}

#[test]
fn until_a_write_has_ended_a_read_may_show_it_or_what_was_there_before() {
    let mut table = Table::recovered();
    table.propose(&Value::default(), &value(1, 11));
    let new = table.ordered_write().expect("a write is due");
    table.read();
    table.blocks[0] = BlockSeen::Good(new.clone());
    table.read();
    assert_eq!(table.register.halted(), None);
    let at = table.step();
    table.register.handle(at, Event::Written { at });
    table.read();
    let second = table.ordered_write().expect("the ballot goes on");
    let third = Block {
        writes: second.writes + 1,
        ..new
    };
    table.blocks[0] = BlockSeen::Good(third);
    table.read();
    assert_eq!(table.register.halted(), Some(Trouble::Foreign), "neither");
}

#[test]
fn what_a_late_read_shows_takes_nothing_back() {
    let mut table = Table::recovered();
    let base = table.now;
    let [old, new] = [2, 3].map(|count| {
        let ballot = ballot(count, 2);
        block(count, ballot, ballot, value(4, count))
    });
    table.blocks[1] = new.clone();
    read_at(&mut table, base, (20, 30));
    table.blocks[1] = old;
    read_at(&mut table, base, (10, 15));
    assert_eq!(table.register.known().epoch, 0);
    table.blocks[1] = new;
    read_at(&mut table, base, (30, 40));
    assert_eq!(*table.register.known(), value(4, 3));
}

#[test]
fn a_late_read_may_have_seen_a_value_first() {
    let mut table = Table::recovered();
    let base = table.now;
    table.blocks[1] = block(2, ballot(2, 2), ballot(2, 2), value(4, 44));
    for at in [(20, 50), (10, 30)] {
        read_at(&mut table, base, at);
        assert_eq!(table.register.known().epoch, 0, "{at:?}");
    }
    read_at(&mut table, base, (30, 60));
    assert_eq!(*table.register.known(), value(4, 44));
}

#[test]
fn a_ballot_that_ends_after_its_value_was_told_must_not_contradict_that() {
    for (told, halted) in [
        (value(1, 11), None),
        (value(2, 5), None),
        (value(1, 5), Some(Trouble::WentBack)),
    ] {
        let mut table = Table::recovered();
        table.propose(&Value::default(), &value(1, 11));
        table.write();
        table.read();
        table.write();
        let begun = table.step();
        let (from, now) = (node(2), table.step());
        let value = told.clone();
        let message = &Message::Decided { value };
        table.register.handle(now, Event::Heard { from, message });
        table.read_begun(begun);
        assert_eq!(table.register.halted(), halted, "{told:?}");
        assert_eq!(*table.register.known(), told);
    }
}
