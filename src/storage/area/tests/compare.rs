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

#[test]
fn a_counter_makes_room_and_still_adds_up() {
    let mut block = vec![0; SECTOR_LEN];
    for id in 1..40 {
        let mut contender = Contender::new(id, 1);
        block = contender.read(&block).unwrap();
        contender.answered(Compared::Done);
        assert!(contender.read(&block).is_some());
        assert_ne!(contender.report().verdict, Verdict::Broken);
    }
}
