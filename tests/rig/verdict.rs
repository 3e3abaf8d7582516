//! What the client's log says: who answered when, how long nobody did, and whether ever two did.
//!
//! Pure. Each millisecond the client asks twice under one number: a datagram to the address, which
//! reaches whoever the client's neighbour table names, and an ARP question, which every holder of
//! the address answers. Numbers are milliseconds; the resolution of every statement here is one of
//! them.

use std::collections::BTreeMap;

/// How a holder of the address made itself known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    /// Its program answered the datagram.
    Program,
    /// Its kernel answered the ARP question.
    Kernel,
}

/// Somebody answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Number of the question.
    pub(crate) number: u64,
    /// Position of the node.
    pub(crate) node: usize,
    /// When it came in, ns of boot time.
    pub(crate) at: u64,
    /// What answered.
    pub(crate) voice: Voice,
}

/// A question went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// Its number.
    pub(crate) number: u64,
    /// When, ns of boot time.
    pub(crate) at: u64,
    /// How much later than it should have, in ns: the client's own fault.
    pub(crate) late: u64,
}

/// Everything the client noted, in the order it happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    /// Questions, by rising number.
    pub(crate) questions: Vec<Question>,
    /// Answers, as they came in.
    pub(crate) answers: Vec<Answer>,
}

/// What happened within a stretch of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    /// Whose program answered last before it.
    pub(crate) owner_before: Option<usize>,
    /// Whose program answered last within it.
    pub(crate) owner_after: Option<usize>,
    /// How often the answering node changed.
    pub(crate) moves: u32,
    /// From the last answer of one owner to the first of the next at the first move; without a move
    /// the longest time between two answers.
    pub(crate) gap_ms: f64,
    /// The longest time without an answer.
    pub(crate) silent_ms_max: f64,
    /// From the beginning to the first answer of the new owner; none without a move.
    pub(crate) takeover_ms: Option<f64>,
    /// Milliseconds whose questions two nodes answered.
    pub(crate) two_owner_ms: u32,
    /// Worst lateness of the client itself.
    pub(crate) late_ms_max: f64,
}

impl Log {
    /// Judges the stretch from `from` to `to`, ns of boot time.
    pub(crate) fn judge(&self, from: u64, to: u64) -> Verdict {
        let programs = || {
            self.answers
                .iter()
                .filter(|answer| answer.voice == Voice::Program)
        };
        let last_before = programs().rfind(|answer| answer.at < from);
        let mut verdict = Verdict {
            owner_before: last_before.map(|answer| answer.node),
            two_owner_ms: self.two_owner_ms(from, to),
            ..Verdict::default()
        };
        let mut previous = last_before.copied();
        for answer in programs().filter(|answer| (from..=to).contains(&answer.at)) {
            verdict.owner_after = Some(answer.node);
            let Some(earlier) = previous.replace(*answer) else {
                continue;
            };
            let silent = ms(answer.at - earlier.at);
            verdict.silent_ms_max = verdict.silent_ms_max.max(silent);
            if earlier.node != answer.node {
                verdict.moves += 1;
                if verdict.moves == 1 {
                    verdict.gap_ms = silent;
                    verdict.takeover_ms = Some(ms(answer.at - from));
                }
            }
        }
        if let Some(last) = previous {
            verdict.silent_ms_max = verdict.silent_ms_max.max(ms(to.saturating_sub(last.at)));
        }
        if verdict.moves == 0 {
            verdict.gap_ms = verdict.silent_ms_max;
        }
        let questions = self
            .questions
            .iter()
            .filter(|asked| (from..=to).contains(&asked.at));
        verdict.late_ms_max = ms(questions.map(|asked| asked.late).max().unwrap_or(0));
        verdict
    }

    /// The node whose program gave the last `count` answers, and the times of the oldest and
    /// newest.
    pub(crate) fn settled(&self, count: usize) -> Option<(usize, u64, u64)> {
        let mut newest = self
            .answers
            .iter()
            .rev()
            .filter(|answer| answer.voice == Voice::Program);
        let last = newest.next()?;
        let others: Vec<_> = newest.take(count - 1).collect();
        let same = others.len() + 1 == count && others.iter().all(|one| one.node == last.node);
        let oldest = others.last().map_or(last.at, |answer| answer.at);
        same.then_some((last.node, oldest, last.at))
    }

    /// Counts the questions that two nodes answered. A hand-over within one millisecond is told
    /// from two owners by its order: the old one's answers came first, and before and after it each
    /// stood alone.
    fn two_owner_ms(&self, from: u64, to: u64) -> u32 {
        let mut by_number: BTreeMap<u64, Vec<&Answer>> = BTreeMap::new();
        for answer in self
            .answers
            .iter()
            .filter(|answer| (from..=to).contains(&answer.at))
        {
            by_number.entry(answer.number).or_default().push(answer);
        }
        let only = |answers: &[&Answer]| {
            let first = answers.first()?.node;
            answers
                .iter()
                .all(|answer| answer.node == first)
                .then_some(first)
        };
        let mut count = 0;
        for (number, answers) in &by_number {
            if only(answers).is_some() {
                continue;
            }
            let before = by_number
                .range(..number)
                .next_back()
                .and_then(|(_, set)| only(set));
            let after = by_number
                .range(number + 1..)
                .next()
                .and_then(|(_, set)| only(set));
            let in_order = answers.is_sorted_by_key(|answer| Some(answer.node) == after);
            let handed_over = before.is_some() && after.is_some() && before != after && in_order;
            let both = answers
                .iter()
                .all(|one| Some(one.node) == before || Some(one.node) == after);
            if !(handed_over && both) {
                count += 1;
            }
        }
        count
    }
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A log in which each `(number, node, delay in µs)` is an answer by program and kernel.
    fn log(answers: &[(u64, usize, u64)]) -> Log {
        let last = answers
            .iter()
            .map(|(number, ..)| *number)
            .max()
            .unwrap_or(0);
        let question = |number| Question {
            number,
            at: number * MS,
            late: 0,
        };
        let answer = |voice| {
            move |&(number, node, delay): &(u64, usize, u64)| {
                let at = number * MS + delay * 1000;
                Answer {
                    number,
                    node,
                    at,
                    voice,
                }
            }
        };
        let programs = answers.iter().map(answer(Voice::Program));
        let mut all: Vec<_> = programs
            .chain(answers.iter().map(answer(Voice::Kernel)))
            .collect();
        all.sort_by_key(|answer| answer.at);
        Log {
            questions: (0..=last).map(question).collect(),
            answers: all,
        }
    }

    fn run(node: usize, numbers: std::ops::Range<u64>) -> Vec<(u64, usize, u64)> {
        numbers.map(|number| (number, node, 50)).collect()
    }

    #[test]
    fn a_move_is_seen_with_the_silence_it_cost() {
        let verdict = log(&[run(0, 0..10), run(1, 40..60)].concat()).judge(5 * MS, 60 * MS);
        assert_eq!(
            (verdict.owner_before, verdict.owner_after),
            (Some(0), Some(1))
        );
        assert_eq!((verdict.moves, verdict.two_owner_ms), (1, 0));
        assert!((verdict.gap_ms - 31.0).abs() < 0.1);
        assert!(verdict.takeover_ms.is_some_and(|takeover| takeover > 35.0));
    }

    #[test]
    fn without_a_fault_nothing_moves() {
        let verdict = log(&run(0, 0..60)).judge(5 * MS, 60 * MS);
        assert_eq!((verdict.moves, verdict.two_owner_ms), (0, 0));
        assert!(verdict.gap_ms < 1.1);
    }

    #[test]
    fn every_millisecond_with_two_owners_counts() {
        let verdict = log(&[run(0, 0..20), run(1, 15..40)].concat()).judge(0, 60 * MS);
        assert_eq!(verdict.two_owner_ms, 5);
    }

    #[test]
    fn an_address_that_only_the_kernel_still_answers_counts() {
        let mut seen = log(&[run(0, 0..20), run(1, 15..40)].concat());
        seen.answers.retain(|answer| {
            answer.number < 15 || answer.node == 1 || answer.voice == Voice::Kernel
        });
        assert_eq!(seen.judge(0, 60 * MS).two_owner_ms, 5);
    }

    #[test]
    fn a_return_is_two_moves() {
        let verdict = log(&[run(0, 0..10), run(1, 12..20), run(0, 22..30)].concat());
        let verdict = verdict.judge(5 * MS, 40 * MS);
        assert_eq!((verdict.moves, verdict.two_owner_ms), (2, 0));
    }

    #[test]
    fn a_hand_over_within_a_millisecond_counts_only_if_the_old_owner_speaks_last() {
        let mut answers = [run(0, 0..10), run(1, 10..20)].concat();
        answers.push((10, 0, 20));
        assert_eq!(log(&answers).judge(0, 30 * MS).two_owner_ms, 0);
        answers.push((10, 0, 70));
        assert_eq!(log(&answers).judge(0, 30 * MS).two_owner_ms, 1);
    }
}
