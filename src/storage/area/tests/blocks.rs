//! Register blocks: what tears, strays or is forged never passes for a block.

use proptest::prelude::*;

use super::*;

#[test]
fn a_torn_write_leaves_the_old_block_or_the_new_one() {
    for (old_len, new_len) in [
        (0, 0),
        (0, VALUE_MAX),
        (VALUE_MAX, 0),
        (VALUE_MAX, VALUE_MAX),
    ] {
        let before = block_slot(Side::A, &block(6, old_len));
        let kept = block_slot(Side::B, &block(7, old_len));
        let after = block_slot(Side::A, &block(8, new_len));
        for written in 0..=255_u8 {
            let mut slot = before;
            for sector in (0..8).filter(|sector| written & (1 << sector) != 0) {
                let at = sector * SECTOR_LEN..(sector + 1) * SECTOR_LEN;
                slot[at.clone()].copy_from_slice(&after[at]);
            }
            let found = newest(&slot, &kept).unwrap();
            let writes = found.stored.block.writes;
            if slot == after {
                assert_eq!((writes, found.next, found.damaged), (8, Side::B, None));
            } else {
                assert_eq!((writes, found.next), (7, Side::A), "sectors {written:08b}");
                assert_eq!(found.stored.block, block(7, old_len));
                let expected = (slot != before).then_some(SlotError::Torn);
                assert_eq!(found.damaged, expected, "sectors {written:08b}");
            }
        }
    }
}

#[test]
fn the_first_write_of_a_block_may_be_torn_too() {
    let zero = [0; SLOT_LEN];
    let after = block_slot(Side::A, &block(1, VALUE_MAX));
    let blank = newest(&zero, &zero).unwrap();
    assert_eq!(blank.stored, StoredBlock::default());
    assert_eq!((blank.next, blank.damaged), (Side::A, None));
    for written in 1..=254_u8 {
        let mut slot = zero;
        for sector in (0..8).filter(|sector| written & (1 << sector) != 0) {
            let at = sector * SECTOR_LEN..(sector + 1) * SECTOR_LEN;
            slot[at.clone()].copy_from_slice(&after[at]);
        }
        let found = newest(&slot, &zero).unwrap();
        assert_eq!(found.stored, StoredBlock::default());
        assert_eq!(
            (found.next, found.damaged),
            (Side::A, Some(SlotError::Torn))
        );
    }
}

#[test]
fn a_block_counts_only_where_and_for_whom_it_was_written() {
    let good = block_slot(Side::A, &block(4, 50));
    assert_eq!(decoded(Side::A, &good).unwrap().writer, Some(LIFE));
    let misplaced = SlotError::Misplaced { node: 3, copy: 0 };
    assert_eq!(decoded(Side::B, &good), Err(misplaced));
    assert_eq!(
        decode_block(&AREA, (node(4), Side::A), &good, &ring()),
        Err(misplaced)
    );
    assert_eq!(
        decode_block(&[1; 16], (node(3), Side::A), &good, &ring()),
        Err(SlotError::Stale)
    );
    let stranger = Keyring::new(&[8; 32], &CLUSTER);
    let found = decode_block(&AREA, (node(3), Side::A), &good, &stranger);
    assert_eq!(found, Err(SlotError::WrongKey));
    assert_eq!(
        decoded(Side::A, &good[..4095]),
        Err(SlotError::TooShort { len: 4095 })
    );
    assert_eq!(
        decoded(Side::A, &[b'x'; SLOT_LEN]),
        Err(SlotError::NotABlock)
    );
}

#[test]
fn two_bad_copies_are_never_a_blank_block() {
    let a = block_slot(Side::A, &block(4, 50));
    let mut torn = a;
    torn[600] ^= 1;
    let lost = newest(&torn, &[b'x'; SLOT_LEN]).unwrap_err();
    assert_eq!(
        lost,
        BlockLost {
            node: node(3),
            a: SlotError::Torn,
            b: SlotError::NotABlock
        }
    );
    let b = block_slot(Side::B, &block(4, 51));
    assert_eq!(
        newest(&a, &b).unwrap_err().a,
        SlotError::Contradiction { writes: 4 }
    );
    let b = block_slot(Side::B, &block(4, 50));
    assert_eq!(
        newest(&a, &b).unwrap().stored.block,
        block(4, 50),
        "one block in both copies"
    );
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded(
        (writes, mbal, bal) in (1..u64::MAX, any::<u64>(), any::<u64>()),
        (epoch, nonce) in any::<(u64, u64)>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..=VALUE_MAX),
    ) {
        let value = Value { epoch, nonce, bytes };
        let block = Block { writes, mbal: Ballot(mbal), bal: Ballot(bal), value };
        let slot = block_slot(Side::A, &block);
        prop_assert_eq!(decoded(Side::A, &slot).unwrap().block, block);
    }
}
