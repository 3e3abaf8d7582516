//! Three disks of one register, and a new one in the place of a dead one: what counted is never
//! lost, wherever power fails.

use super::*;

const NONCES: [AreaNonce; 3] = [[1; 16], [2; 16], [3; 16]];
const NEW: AreaNonce = [4; 16];

fn three() -> ([Memory; 3], [Header; 3]) {
    let roster = Roster::new(NONCES);
    let disks = NONCES.map(|nonce| {
        let disk = Memory::new(area_bytes(3).unwrap());
        let options = FormatOptions {
            nonce,
            roster,
            ..options(3)
        };
        let header = format(&disk, &options, &ring()).unwrap();
        (disk, header)
    });
    let headers = disks.each_ref().map(|(_, header)| *header);
    (disks.map(|(disk, _)| disk), headers)
}

/// A block with so many writes, this begun and that accepted.
fn ballots(writes: u64, mbal: u64, bal: u64) -> Block {
    Block {
        mbal: Ballot(mbal),
        bal: Ballot(bal),
        ..block(writes, bal as usize)
    }
}

fn put(disk: &Memory, header: &Header, id: u8, block: &Block) {
    let place = (node(id), Side::of_writes(block.writes));
    let mut slot = [0; SLOT_LEN];
    encode_block(&header.nonce, place, block, LIFE, &ring(), &mut slot);
    disk.put(header.geometry.block(place.0, place.1).unwrap(), &slot);
}

fn found(disk: &Memory, id: u8) -> StoredBlock {
    let (header, _) = read_header(disk, &ring(), &CLUSTER).unwrap();
    let mut region = vec![0; REGION_LEN];
    let at = header.geometry.region(node(id)).unwrap();
    disk.read_at(at, &mut region).unwrap();
    let (_, a, b) = split_region(&region).unwrap();
    newest_block(&header.nonce, node(id), a, b, &ring())
        .unwrap()
        .stored
}

/// Puts a new disk in the third place, with what the daemon would read of the other two.
fn put_in(disk: &Memory, living: [&Memory; 2]) -> Result<Header, AreaError> {
    let [one, two] = living.map(|disk| read_header(disk, &ring(), &CLUSTER));
    let (one, two) = (one?.0, two?.0);
    let living = [(living[0], &one), (living[1], &two)];
    replace(disk, (NEW, 512), living, &ring())
}

#[test]
fn a_header_names_the_three_disks_and_its_own_place() {
    let (disks, headers) = three();
    for (at, (disk, header)) in disks.iter().zip(headers).enumerate() {
        assert_eq!((header.position(), header.disks()), (at, 3));
        assert_eq!(header_slot(&header)[8], 3, "older programs refuse it");
        let read = read_header(disk, &ring(), &CLUSTER).unwrap();
        assert_eq!(read, (header, Repair::None));
    }
    assert_eq!(&header_slot(&headers[0])[116..164], NONCES.as_flattened());
    let alone = formatted(3).1;
    assert_eq!((alone.position(), alone.disks()), (0, 1));
    let slot = header_slot(&headers[0]);
    for (at, value) in [(32, 9), (116, 2), (132, 3)] {
        let stranger = resealed(slot, |slot| slot[at..at + 16].fill(value));
        assert_eq!(read(&stranger, &stranger), Err(HeaderError::Roster), "{at}");
    }
    let compared = resealed(slot, |slot| slot[112] = 1);
    assert_eq!(read(&compared, &compared), Err(HeaderError::Medium));
}

#[test]
fn every_single_bit_of_a_roster_counts() {
    let slot = header_slot(&three().1[1]);
    for bit in 116 * 8..164 * 8 {
        let mut slot = slot;
        slot[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(read(&slot, &slot), Err(HeaderError::Torn), "bit {bit}");
    }
}

#[test]
fn a_new_disk_holds_the_highest_that_either_living_one_does() {
    let (disks, headers) = three();
    let [one, two, _] = &disks;
    put(one, &headers[0], 1, &ballots(6, 40, 10));
    put(two, &headers[1], 1, &ballots(9, 30, 30));
    put(two, &headers[1], 3, &ballots(2, 5, 5));
    let new = Memory::new(area_bytes(3).unwrap());
    new.put(9000, b"of another life");
    let header = put_in(&new, [one, two]).unwrap();
    assert_eq!((header.nonce, header.position()), (NEW, 2));
    let stored = found(&new, 1);
    let block = ballots(9, 30, 30);
    assert_eq!(
        stored.block,
        Block {
            mbal: Ballot(40),
            ..block
        }
    );
    assert_eq!(stored.writer, Some(LIFE));
    assert_eq!(found(&new, 2), StoredBlock::default());
    assert_eq!(found(&new, 3).block, ballots(2, 5, 5));
    for disk in [one, two, &new] {
        let (found, repair) = read_header(disk, &ring(), &CLUSTER).unwrap();
        assert_eq!((found.roster, repair), (header.roster, Repair::None));
    }
    assert_eq!(found(one, 1).block, ballots(6, 40, 10), "as it was");
    let report = show(&new, &ring(), &CLUSTER).unwrap();
    assert!(report.problems.is_empty(), "{report:?}");
}

#[test]
fn disks_that_are_not_of_one_register_make_no_third() {
    let (disks, _) = three();
    let new = Memory::new(area_bytes(3).unwrap());
    let (others, _) = three();
    let refused = |living: [&Memory; 2]| {
        let error = put_in(&new, living).unwrap_err();
        assert!(matches!(error, AreaError::Strangers), "{error}");
    };
    refused([&disks[0], &disks[0]]);
    refused([&disks[0], &formatted(3).0]);
    put_in(&new, [&disks[0], &disks[1]]).unwrap();
    // The dead one comes back and another one dies.
    refused([&disks[0], &disks[2]]);
    refused([&disks[2], &disks[1]]);
    refused([&others[2], &new]);
    assert!(put_in(&Memory::new(1 << 20), [&disks[0], &disks[1]]).is_ok());
}

#[test]
fn a_block_that_cannot_be_read_is_not_left_out() {
    let (disks, headers) = three();
    for side in Side::BOTH {
        let at = headers[1].geometry.block(node(2), side).unwrap();
        disks[1].put(at, &[0x55; 512]);
    }
    let new = Memory::new(area_bytes(3).unwrap());
    let error = put_in(&new, [&disks[0], &disks[1]]).unwrap_err();
    assert!(matches!(error, AreaError::Lost(_)), "{error}");
    assert!(new.bytes.borrow().iter().all(|byte| *byte == 0));
    let (header, _) = read_header(&disks[0], &ring(), &CLUSTER).unwrap();
    assert_eq!(header, headers[0]);
}

/// Rosters that two of the disks have.
fn majorities(disks: &[&Memory]) -> Vec<Roster> {
    let headers = disks
        .iter()
        .map(|disk| read_header(*disk, &ring(), &CLUSTER));
    let rosters: Vec<Roster> = headers.filter_map(|read| read.ok()?.0.roster).collect();
    let on_two = |roster: &&Roster| rosters.iter().filter(|other| other == roster).count() > 1;
    let mut found: Vec<Roster> = rosters.iter().filter(on_two).copied().collect();
    found.dedup();
    found
}

/// Power fails after each sector that the replacement writes, on each of its disks, in either
/// order: at no time do two rosters have two disks each, whoever of the disks counts with another
/// has what was accepted, and doing it again ends well.
#[test]
fn an_interrupted_replacement_is_no_second_register_and_is_done_again() {
    let (mut interrupted, mut torn) = (0, 0);
    for (breaks, backwards) in [
        (0, false),
        (1, false),
        (2, false),
        (0, true),
        (1, true),
        (2, true),
    ] {
        for power in 0.. {
            let (mut disks, headers) = three();
            put(&disks[0], &headers[0], 1, &ballots(4, 8, 8));
            put(&disks[2], &headers[2], 1, &ballots(4, 8, 8));
            let mut new = Memory::new(area_bytes(3).unwrap());
            let [one, two, dead] = &mut disks;
            let victim = [&mut *one, &mut *two, &mut new]
                .into_iter()
                .nth(breaks)
                .unwrap();
            victim.backwards = backwards;
            victim.power.set(power);
            let done = put_in(&new, [one, two]).is_ok();
            let counting = majorities(&[one, two, dead, &new]);
            assert!(counting.len() < 2, "{breaks} {power}: {counting:?}");
            let (new_header, old_header) = (read_header(&new, &ring(), &CLUSTER), headers[2]);
            if let Ok((header, _)) = new_header {
                assert_ne!(header.roster, old_header.roster);
                assert_eq!(found(&new, 1).block, ballots(4, 8, 8));
            }
            for disk in [&*one, two, &new] {
                disk.power.set(usize::MAX);
                torn += u32::from(!matches!(
                    read_header(disk, &ring(), &CLUSTER),
                    Ok((_, Repair::None))
                ));
            }
            interrupted += u32::from(!done);
            let header = put_in(&new, [one, two]).unwrap();
            assert_eq!(
                majorities(&[one, two, dead, &new]),
                [header.roster.unwrap()]
            );
            assert_eq!(found(&new, 1).block, ballots(4, 8, 8));
            if done {
                break;
            }
        }
    }
    assert!(interrupted > 50 && torn > 50, "{interrupted} {torn}");
}
