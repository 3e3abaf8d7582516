//! Disks that keep what COMPARE AND WRITE promises, and some that do not.

use super::*;
use crate::register::Compared;

/// How a target fails to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    NeverCompares,
    ComparesTheFirstHalf,
    RefusesEverything,
    SaysDoneAndDoesNothing,
    WritesWhatItRefuses,
}

struct Target<'a>(&'a Memory, Fault);

impl CompareAndWrite for Target<'_> {
    fn block_bytes(&self) -> usize {
        SLOT_LEN
    }

    fn compare_and_write(
        &mut self,
        offset: u64,
        expected: &[u8],
        new: &[u8],
    ) -> io::Result<Compared> {
        let Target(disk, fault) = self;
        let mut found = vec![0; SLOT_LEN];
        disk.read_at(offset, &mut found)?;
        let end = if *fault == Fault::ComparesTheFirstHalf {
            SLOT_LEN / 2
        } else {
            SLOT_LEN
        };
        let same = found[..end] == expected[..end] && *fault != Fault::RefusesEverything;
        let answer = if same || *fault == Fault::NeverCompares {
            Compared::Done
        } else {
            Compared::Miscompare
        };
        let writes = match fault {
            Fault::SaysDoneAndDoesNothing => false,
            Fault::WritesWhatItRefuses => true,
            _ => answer == Compared::Done,
        };
        if writes {
            disk.write_at(offset, new)?;
        }
        Ok(answer)
    }
}

#[test]
fn only_a_disk_that_compares_and_writes_passes_the_self_test() {
    let (disk, header) = formatted(2);
    let offset = header.geometry.record();
    for (fault, passes) in [
        (Fault::None, true),
        (Fault::NeverCompares, false),
        (Fault::ComparesTheFirstHalf, false),
        (Fault::RefusesEverything, false),
        (Fault::SaysDoneAndDoesNothing, false),
        (Fault::WritesWhatItRefuses, false),
    ] {
        let result = self_test(&disk, &mut Target(&disk, fault), offset);
        assert_eq!(result.is_ok(), passes, "{fault:?} {result:?}");
        let mut found = [1; SLOT_LEN];
        disk.read_at(offset, &mut found).unwrap();
        assert!(!passes || found == [0; SLOT_LEN], "the block is as before");
        disk.put(offset, &[0; SLOT_LEN]);
    }
}

/// Two contenders, one step each in turn: both read, then both change.
fn contest(broken_at: Option<u64>, together: bool) -> [ContestReport; 2] {
    let mut block = vec![0; SECTOR_LEN];
    let mut contenders = [Contender::new(7, 50), Contender::new(8, 50)];
    let mut round = 0;
    loop {
        round += 1;
        let seen = block.clone();
        let mut moves = Vec::new();
        for (at, contender) in contenders.iter_mut().enumerate() {
            if let Some(new) = contender.read(&seen)
                && (together || at == 0)
            {
                moves.push((at, new));
            }
        }
        if moves.is_empty() || round > 400 {
            return contenders.map(|contender| contender.report());
        }
        // Who comes first changes; a broken disk lets the second win as well, once.
        if round % 3 == 0 {
            moves.reverse();
        }
        for (at, new) in moves {
            let both_win = broken_at == Some(round);
            let outcome = if block == seen || both_win {
                block = new;
                Compared::Done
            } else {
                Compared::Miscompare
            };
            let unclear = round.is_multiple_of(7);
            contenders[at].answered(if unclear { Compared::Unclear } else { outcome });
        }
    }
}

#[test]
fn each_change_of_a_contest_has_one_winner() {
    let [one, two] = contest(None, true);
    assert_eq!(
        (one.verdict, two.verdict),
        (Verdict::Proved, Verdict::Proved)
    );
    assert!(one.refused > 0 && one.unclear > 0 && one.won > 0 && two.won > 0);
    assert_eq!(one.won + two.won, one.total);
}

#[test]
fn one_lost_change_is_found_by_whom_it_belongs_to() {
    for round in [3, 20, 40] {
        let reports = contest(Some(round), true);
        let found = |report: &ContestReport| report.verdict == Verdict::Broken;
        assert!(reports.iter().any(found), "round {round}: {reports:?}");
    }
}

/// Who sends a command again because its answer was lost hears the refusal of the second one.
#[test]
fn a_change_that_is_sent_twice_is_won_once_and_named() {
    let mut block = vec![0; SECTOR_LEN];
    let mut contenders = [Contender::new(7, 20), Contender::new(8, 20)];
    for round in 0..100 {
        let seen = block.clone();
        for contender in &mut contenders {
            let Some(new) = contender.read(&seen) else {
                continue;
            };
            let won = block == seen;
            if won {
                block = new;
            }
            let told = won && round % 5 != 0;
            contender.answered(if told {
                Compared::Done
            } else {
                Compared::Miscompare
            });
        }
        contenders.reverse();
    }
    let reports = contenders.map(|contender| contender.report());
    for report in reports {
        assert_eq!(report.verdict, Verdict::Proved, "{report:?}");
        assert!(report.repeated > 0 && report.won > report.repeated);
    }
    assert_eq!(reports[0].won + reports[1].won, reports[0].total);
}

#[test]
fn alone_nothing_is_proved() {
    let [one, _] = contest(None, false);
    assert_eq!((one.verdict, one.rounds), (Verdict::NotContended, 0));
}

/// Contenders one after the other, each with so many changes.
fn in_a_row(block: &mut Vec<u8>, ids: impl Iterator<Item = u64>, changes: u64) {
    for id in ids {
        let mut contender = Contender::new(id, 1);
        for _ in 0..changes {
            *block = contender.read(block).unwrap();
            contender.answered(Compared::Done);
        }
        assert!(contender.read(block).is_some(), "contender {id}");
        assert_eq!(contender.report().verdict, Verdict::NotContended);
    }
}

#[test]
fn a_counter_makes_room_and_still_adds_up() {
    let mut block = vec![0; SECTOR_LEN];
    in_a_row(&mut block, 1..40, 5);
    let mut last = Contender::new(50, 1);
    last.read(&block);
    assert_eq!(
        last.report().total,
        39 * 5,
        "nobody's changes are forgotten"
    );
}

#[test]
fn who_has_made_room_for_sixteen_others_has_lost_nothing() {
    for before in [0, 5, 16] {
        let mut block = vec![0; SECTOR_LEN];
        in_a_row(&mut block, 1..=before, 3);
        let mut gone = Contender::new(100, 9);
        block = gone.read(&block).unwrap();
        gone.answered(Compared::Done);
        in_a_row(&mut block, 201..=216, 3);
        assert_eq!(gone.read(&block), None, "it takes no further part");
        assert_eq!(gone.report().verdict, Verdict::NotContended);
    }
}

#[test]
fn a_first_change_that_is_written_over_is_found_missing_in_a_full_block() {
    for before in [0, 5, 15, 16] {
        let mut block = vec![0; SECTOR_LEN];
        in_a_row(&mut block, 1..=before, 3);
        let mut loser = Contender::new(100, 9);
        loser.read(&block).unwrap();
        loser.answered(Compared::Done);
        // Both were told that they have won on this block.
        in_a_row(&mut block, 201..=206, 3);
        assert_eq!(loser.read(&block), None);
        assert_eq!(loser.report().verdict, Verdict::Broken, "after {before}");
    }
}

#[test]
fn a_block_that_is_wiped_has_lost_what_was_won() {
    let mut contender = Contender::new(7, 9);
    contender.read(&[0; SECTOR_LEN]).unwrap();
    contender.answered(Compared::Done);
    assert_eq!(contender.read(&[0; SECTOR_LEN]), None);
    assert_eq!(contender.report().verdict, Verdict::Broken);
}

#[test]
fn company_is_who_has_won_meanwhile() {
    let mut block = vec![0; SECTOR_LEN];
    in_a_row(&mut block, 1..=3, 2);
    let mut contender = Contender::new(7, 9);
    block = contender.read(&block).unwrap();
    contender.answered(Compared::Done);
    contender.read(&block).unwrap();
    assert_eq!((contender.company(), contender.has_company()), (0, false));
    in_a_row(&mut block, 8..=9, 2);
    contender.read(&block).unwrap();
    assert_eq!((contender.company(), contender.has_company()), (2, true));
}

#[test]
fn only_a_new_challenger_calls_the_others() {
    let mut block = vec![0; SECTOR_LEN];
    let mut watch = Watch::default();
    let mut look = |block: &[u8]| (watch.look(block), watch.look(block));
    assert_eq!(look(&block), (false, false));
    let challenger = |random| Part::Challenger.id(node(3), random);
    in_a_row(&mut block, [challenger(1)].into_iter(), 2);
    assert_eq!(look(&block), (true, false));
    let second = Part::Second.id(node(4), 5);
    in_a_row(&mut block, [second, 1, u64::MAX].into_iter(), 2);
    assert_eq!(look(&block), (false, false), "a second, and people");
    in_a_row(&mut block, [challenger(2)].into_iter(), 2);
    assert_eq!(
        look(&block),
        (true, false),
        "the same node has started again"
    );
    block[20] ^= 1;
    assert_eq!(look(&block), (false, false), "damaged");
}

#[test]
fn a_broken_disk_is_named_until_it_is_formatted() {
    let (disk, _) = formatted(2);
    let options = FormatOptions {
        medium: Medium::CompareAndWrite,
        ..options(2)
    };
    let problems = |disk: &Memory| show(disk, &ring(), &CLUSTER).unwrap().problems;
    let header = format(&disk, &options, &ring()).unwrap();
    assert_eq!(problems(&disk), [""; 0]);
    let broken = Broken {
        node: node(2),
        life: LIFE,
        won: 3,
        wall_ms: 0,
    };
    write_broken(&disk, &header, &broken, &ring()).unwrap();
    let found = read_broken(&disk, &header, &ring()).unwrap();
    assert_eq!(found, Some(broken));
    assert_eq!(problems(&disk), [broken.words()]);
    format(&disk, &options, &ring()).unwrap();
    assert_eq!(problems(&disk), [""; 0]);
}

#[test]
fn a_block_that_was_torn_by_the_read_is_read_once_more() {
    /// Gives other bytes at the first read.
    struct Torn<'a>(&'a Memory, Cell<u32>);

    impl Blocks for Torn<'_> {
        fn size(&self) -> u64 {
            self.0.size()
        }

        fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.read_at(offset, out)?;
            self.1.set(self.1.get() + 1);
            if self.1.get() == 1 {
                out[100] ^= 1;
            }
            Ok(())
        }

        fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            self.0.write_at(offset, bytes)
        }
    }

    let (disk, header) = formatted(2);
    let geometry = header.geometry;
    let mut block = vec![0; SLOT_LEN];
    in_a_row(&mut block, 1..3, 2);
    disk.put(geometry.contest(), &block);
    let torn = Torn(&disk, Cell::new(0));
    assert_eq!(
        read_contest(&torn, geometry, SECTOR_LEN).unwrap(),
        block[..SECTOR_LEN]
    );
    assert_eq!(torn.1.get(), 2);
}
