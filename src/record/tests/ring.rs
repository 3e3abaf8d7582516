//! Records that have gone round: what they hold, and whatever may happen to them.

use std::cell::RefCell;

use super::*;
use crate::engine::Command;
use crate::record::survey::{Step, Survey};

/// Words of a record in which each segment takes an engine and some dozens of turns.
const SMALL: usize = HEAD_WORDS + SEGMENTS * 680;

/// Turns that go round such a record more than twice.
const TURNS: usize = 600;

/// Between two turns.
const PAUSE: Span = Span::from_ms(10);

/// A run in which something happens again and again.
fn long_run() -> Vec<Event> {
    let mut events = events().into_iter().cycle().take(TURNS);
    let mut beat = |at: usize| events.next().filter(|_| at % 5 < 3);
    (0..TURNS)
        .map(|at| beat(at).unwrap_or(Event::Tick))
        .collect()
}

/// Has a tape record a run. If `astray`, what it is shown as the engine at rest is one that was
/// told one thing more.
fn run<W: Words + ?Sized>(words: &W, events: &[Event], astray: bool) -> Tape {
    let mut tape = Tape::begin(words, &start()).unwrap();
    let mut engines = [0, 1].map(|_| Engine::new(setup(), start().now));
    for (at, event) in (1..).zip(events) {
        let now = start().now + PAUSE.times(at);
        tape.event(words, now, event, &engines[usize::from(astray)]);
        for engine in &mut engines {
            engine.handle(now, event.clone());
        }
        while let Some(action) = engines[0].poll_action() {
            tape.action(&action);
        }
        if at == 1 {
            let (request, node) = (7, node(2));
            let command = Command::ConfirmOff { node };
            engines[1].handle(now, Event::Command { request, command });
        }
        while engines[1].poll_action().is_some() {}
        tape.done(words, &engines[0]);
    }
    tape
}

/// A record that has gone round.
fn round() -> Vec<u8> {
    let words = words(SMALL);
    assert!(!run(&words[..], &long_run(), false).is_full());
    bytes(&words)
}

/// What came of playing a record.
#[derive(Debug, PartialEq)]
struct Played {
    first: u64,
    last: u64,
    checkpoints: u64,
    unfinished: bool,
    left_out: Vec<LeftOut>,
    end: Result<End, RecordError>,
}

/// Plays as far as that goes. No turn may differ.
fn play_all(record: &[u8]) -> Result<Played, RecordError> {
    let mut replay = Replay::open(record)?;
    let (mut first, mut last, mut unfinished) = (0, 0, false);
    let end = loop {
        match replay.turn() {
            Ok(Some(turn)) => {
                assert!(
                    !matches!(turn.verdict, Verdict::Different { .. }),
                    "{turn:?}"
                );
                assert!(first == 0 || turn.number == last + 1);
                first = if first == 0 { turn.number } else { first };
                last = turn.number;
                unfinished = turn.verdict == Verdict::Unfinished;
            }
            Ok(None) => break Ok(replay.end().unwrap()),
            Err(error) => break Err(error),
        }
    };
    Ok(Played {
        first,
        last,
        checkpoints: replay.checkpoints(),
        unfinished,
        left_out: replay.left_out().to_vec(),
        end,
    })
}

/// Where each segment begins, in bytes, from the oldest to the newest.
fn begins(record: &[u8]) -> Vec<usize> {
    let length = segment_words(record.len() / WORD) * WORD;
    let begins = (0..SEGMENTS).map(|slot| HEAD_WORDS * WORD + slot * length);
    let mut begins: Vec<usize> = begins.collect();
    begins.sort_by_key(|begin| number_at(record, *begin));
    begins
}

fn number_at(record: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(record[at..at + WORD].try_into().unwrap())
}

/// Where the entries of a segment begin, and where the last one ends.
fn entries_of(record: &[u8], begin: usize) -> Vec<usize> {
    let length = segment_words(record.len() / WORD) * WORD;
    let mut at = begin + WORD;
    let mut starts = vec![at];
    while at < begin + length && length_at(record, at) > 0 {
        at += WORD + length_at(record, at).next_multiple_of(WORD);
        starts.push(at);
    }
    starts
}

/// Makes the checksums of a segment fit what is there.
fn reseal(record: &mut [u8], begin: usize) {
    let mut crc = opened(number_at(record, begin));
    let starts = entries_of(record, begin);
    for at in &starts[..starts.len() - 1] {
        let length = length_at(record, *at);
        let payload = &record[at + WORD..at + WORD + length];
        crc = sealed(crc32c::crc32c_append(crc, payload), length as u32);
        record[at + 4..at + WORD].copy_from_slice(&crc.to_le_bytes());
    }
}

#[test]
fn a_record_holds_the_newest_turns_however_long_the_run() {
    let events = long_run();
    let mut rounds = 0;
    for turns in (10..=TURNS).step_by(10) {
        let words = words(SMALL);
        assert!(!run(&words[..], &events[..turns], false).is_full());
        let record = bytes(&words);
        let played = play_all(&record).unwrap();
        assert_eq!((played.last, &played.end), (turns as u64, &Ok(End::Open)));
        assert!(played.left_out.is_empty() && !played.unfinished);
        let newest = number_at(&record, *begins(&record).last().unwrap());
        assert_eq!(played.checkpoints, newest.min(SEGMENTS as u64) - 1);
        if newest > SEGMENTS as u64 {
            assert!(
                (60..300).contains(&(played.last - played.first)),
                "{played:?}"
            );
            rounds = newest / SEGMENTS as u64;
        }
    }
    assert!(rounds >= 2, "{rounds}");
}

#[test]
fn the_stretch_that_is_left_is_told() {
    let record = round();
    let replay = Replay::open(&record).unwrap();
    let played = play_all(&record).unwrap();
    assert_eq!(replay.started(), start().now);
    let last_before = start().now + PAUSE.times(played.first - 1);
    assert_eq!((replay.begins(), replay.program()), (last_before, "0.0.0"));
    assert_eq!(replay.setup(), &setup());
}

/// Words that remember in which order they were stored.
struct Stores {
    count: usize,
    stores: RefCell<Vec<(usize, u64)>>,
}

impl Words for Stores {
    fn count(&self) -> usize {
        self.count
    }

    fn store(&self, at: usize, word: u64) {
        assert!(at < self.count);
        self.stores.borrow_mut().push((at, word));
    }
}

/// How far each segment that would be played can be read.
fn extent(record: &[u8]) -> Option<Vec<usize>> {
    let survey = Survey::of(record).ok()?;
    let extents = survey.run.into_iter().map(|mut entries| {
        while let Step::Entry(_) = entries.step() {}
        entries.at()
    });
    Some(extents.collect())
}

#[test]
fn a_writer_that_dies_at_any_word_leaves_a_record_that_plays() {
    let words = Stores {
        count: SMALL,
        stores: RefCell::default(),
    };
    // Once round and a bit.
    let turns = 300;
    run(&words, &long_run()[..turns], false);
    let (mut record, mut known, mut last) = (vec![0; SMALL * WORD], None, 0);
    let mut readable = 0;
    for (at, word) in words.stores.into_inner() {
        record[at * WORD..(at + 1) * WORD].copy_from_slice(&word.to_le_bytes());
        let extent = extent(&record);
        if extent == known {
            continue;
        }
        known = extent;
        let played = play_all(&record).unwrap();
        assert!(
            played.last >= last && played.left_out.is_empty(),
            "{played:?}"
        );
        assert_eq!(played.end, Ok(End::Open));
        last = played.last;
        // One segment may be missing, the one that is being begun.
        let newest = number_at(&record, *begins(&record).last().unwrap());
        let least = newest.min(SEGMENTS as u64 - 1) - 1;
        assert!(played.checkpoints >= least, "{played:?}");
        readable += 1;
    }
    assert_eq!(last, turns as u64);
    // The beginning, each event and what came of it, each segment and the mark before it.
    assert!(readable > 2 * turns, "{readable}");
}

#[test]
fn a_record_cut_at_any_word_plays_what_is_there() {
    let record = round();
    let whole = play_all(&record).unwrap();
    let (mut played, mut shortest) = (0, u64::MAX);
    for cut in 0..record.len() / WORD {
        match play_all(&record[..cut * WORD]) {
            Ok(part) => {
                assert!(
                    matches!(part.end, Ok(End::Open | End::Torn)),
                    "{cut}: {part:?}"
                );
                assert!(
                    part.first >= whole.first || part.first == 0,
                    "{cut}: {part:?}"
                );
                assert!(part.last <= whole.last, "{cut}: {part:?}");
                shortest = shortest.min(part.last);
                played += 1;
            }
            Err(RecordError::NotARecord) => assert_eq!(cut, 0),
            Err(RecordError::NoBeginning) => assert!(cut < SMALL / SEGMENTS, "{cut}"),
            Err(error) => panic!("{cut}: {error}"),
        }
    }
    assert!(
        played > SMALL / 2 && shortest < whole.last,
        "{played} {shortest}"
    );
}

#[test]
fn damage_in_any_word_is_named_or_does_no_harm() {
    let record = round();
    let whole = play_all(&record).unwrap();
    let mut named = 0;
    for word in (0..record.len() / WORD).step_by(3) {
        let mut damaged = record.clone();
        damaged[word * WORD + word % WORD] ^= 1 << (word % 7);
        match play_all(&damaged) {
            Ok(played) if played == whole => {}
            Ok(played) => {
                let told = !played.left_out.is_empty() || played.end.is_err();
                // A number that became zero is that of a segment that is being begun.
                let begun = begins(&damaged).contains(&(word * WORD));
                assert!(told || begun, "word {word}: {played:?}");
                named += 1;
            }
            Err(error) => {
                assert!(word < HEAD_WORDS, "word {word}: {error}");
                named += 1;
            }
        }
    }
    assert!(named > SMALL / 6, "{named}");
}

#[test]
fn what_is_behind_a_damaged_segment_is_played() {
    let record = round();
    let whole = play_all(&record).unwrap();
    let begins = begins(&record);
    for (at, begin) in begins.iter().enumerate() {
        let starts = entries_of(&record, *begin);
        let middle = starts[starts.len() / 2];
        let mut damaged = record.clone();
        damaged[middle + WORD] ^= 1;
        let played = play_all(&damaged).unwrap();
        let mut left_out: Vec<LeftOut> = Vec::new();
        if at + 1 < SEGMENTS {
            left_out = begins[..=at]
                .iter()
                .map(|begin| LeftOut {
                    begins: *begin,
                    why: Broken::Apart,
                })
                .collect();
            left_out[at].why = Broken::Damaged { at: middle };
            assert_eq!((played.last, &played.end), (whole.last, &Ok(End::Open)));
            assert_eq!(played.checkpoints as usize, SEGMENTS - 2 - at);
        } else {
            assert_eq!(played.end, Err(RecordError::Damaged { at: middle }));
            assert!(played.unfinished || played.last < whole.last);
        }
        left_out.sort_by_key(|left_out| left_out.begins);
        assert_eq!(played.left_out, left_out);
        // The same, as if the run had ended there and yet gone on.
        let mut short = record.clone();
        short[middle..middle + WORD].fill(0);
        let found = play_all(&short).unwrap();
        let broken = found
            .left_out
            .iter()
            .any(|left_out| left_out.why == Broken::Short { at: middle });
        assert_eq!(broken, at + 1 < SEGMENTS, "{found:?}");
    }
}

#[test]
fn a_checkpoint_that_is_altered_anywhere_is_noticed() {
    let record = round();
    let second = begins(&record)[1];
    let first = second + WORD;
    let (begin, length) = (first + WORD, length_at(&record, first));
    let (mut tried, mut compared) = (0, 0);
    for at in (begin..begin + length).step_by(23) {
        tried += 1;
        let mut altered = record.clone();
        altered[at] ^= 1;
        reseal(&mut altered, second);
        match play_all(&altered).map(|played| played.end) {
            Ok(Err(RecordError::Checkpoint { at, .. })) => {
                assert_eq!(at, first);
                compared += 1;
            }
            Ok(Err(RecordError::Senseless { at })) => assert_eq!(at, first),
            other => panic!("byte {} of {length}: {other:?}", at - begin),
        }
    }
    assert!(compared > tried / 2, "{compared} of {tried}");
}

#[test]
fn a_checkpoint_of_another_engine_is_told_with_the_field_that_differs() {
    let words = words(SMALL);
    // The first segment is still there, so that the run is played from its beginning.
    run(&words[..], &long_run()[..150], true);
    let played = play_all(&bytes(&words)).unwrap();
    let Err(RecordError::Checkpoint { difference, .. }) = &played.end else {
        panic!("{played:?}");
    };
    assert!(difference.contains("confirmed_off"), "{difference}");
}

#[test]
fn what_fits_into_no_segment_ends_the_record() {
    let words = words(HEAD_WORDS + SEGMENTS * 200);
    assert!(run(&words[..], &long_run(), false).is_full());
    let played = play_all(&bytes(&words)).unwrap();
    assert_eq!((played.first, played.end), (1, Ok(End::Full)));
    assert!(played.last > 1 && !played.unfinished, "{}", played.last);
}
