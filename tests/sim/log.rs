//! The log: the last lines for a failure, and all that a person would read for a story.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};

use standfast::engine::{Record, Refusal};

use crate::checks::Violation;
use crate::strike::Names;
use crate::world::World;

/// Lines kept for a failure.
const RECENT_MAX: usize = 400;

/// Lines that a failure prints of the nodes concerned, and of the world.
const PRINTED_MAX: usize = 40;

/// What has happened, in words.
#[derive(Default)]
pub(crate) struct Log {
    /// The last lines, with the node each is about.
    recent: VecDeque<(Option<usize>, String)>,
    /// Everything told, if somebody wants to read it.
    pub(crate) story: Option<Vec<String>>,
    /// Of everything told so far, whether or not it is kept.
    digest: Option<DefaultHasher>,
}

impl Log {
    pub(crate) fn digest(&self) -> u64 {
        self.digest.as_ref().map_or(0, Hasher::finish)
    }
}

impl World {
    /// From here on everything told counts into [`Log::digest`].
    pub(crate) fn digests(&mut self) {
        self.log.digest = Some(DefaultHasher::new());
    }

    /// Something a person would read: a strike, a record, an answer.
    pub(crate) fn tell(&mut self, i: Option<usize>, what: impl FnOnce(&Names) -> String) {
        if !self.logging && self.log.story.is_none() && self.log.digest.is_none() {
            return;
        }
        let who = i.map_or(String::new(), |i| self.named(i));
        let line = format!(
            "{:>10.3} {who:<4} {}",
            self.now as f64 / 1e6,
            what(&self.plan.names)
        );
        if let Some(digest) = &mut self.log.digest {
            digest.write(line.as_bytes());
        }
        if let Some(story) = &mut self.log.story {
            story.push(line.clone());
        }
        self.keep(i, line);
    }

    /// Something only a search for a fault needs.
    pub(crate) fn say(&mut self, i: usize, what: impl FnOnce() -> String) {
        if self.logging {
            let who = self.named(i);
            let line = format!("{:>10.3} {who:<4} {}", self.now as f64 / 1e6, what());
            self.keep(Some(i), line);
        }
    }

    fn keep(&mut self, i: Option<usize>, line: String) {
        if !self.logging {
            return;
        }
        if std::env::var_os("SIM_TRACE").is_some() {
            println!("{line}");
        }
        if self.log.recent.len() == RECENT_MAX {
            self.log.recent.pop_front();
        }
        self.log.recent.push_back((i, line));
    }

    /// The node's name; a twin has its double's name and a mark.
    fn named(&self, i: usize) -> String {
        let twin = if i < self.plan.nodes { "" } else { "'" };
        format!("{}{twin}", self.plan.names.nodes[self.nodes[i].slot])
    }

    /// The last lines about these nodes and about the world; of all nodes if none is given.
    fn recent(&self, nodes: &[usize]) -> Vec<&str> {
        let about = |i: &Option<usize>| i.is_none_or(|i| nodes.is_empty() || nodes.contains(&i));
        let lines = self.log.recent.iter().rev().filter(|(i, _)| about(i));
        let mut lines: Vec<&str> = lines
            .take(PRINTED_MAX)
            .map(|(_, line)| line.as_str())
            .collect();
        lines.reverse();
        lines
    }

    /// A checker has found something: the end of the run.
    pub(crate) fn violated(&self, violation: Violation) -> ! {
        if self.logging {
            for line in self.recent(&violation.nodes) {
                println!("{line}");
            }
            let about = |i: &usize| violation.nodes.is_empty() || violation.nodes.contains(i);
            for (i, node) in self.nodes.iter().enumerate().filter(|(i, _)| about(i)) {
                let Some(engine) = &node.engine else { continue };
                let seen = engine.snapshot(node.clock.at(self.now));
                println!("{} {} {:?}", self.named(i), seen.standing, seen.waiting_for);
                for task in seen.tasks {
                    println!("  {:?} {:?} {:?}", task.task, task.blocked, task.states);
                }
            }
        }
        let ms = self.now as f64 / 1e6;
        panic!("{}: {} (at {ms:.3} ms)", violation.rule, violation.what);
    }

    /// A directed test waits in vain.
    pub(crate) fn fail(&self, what: &str) -> ! {
        self.violated(Violation::new("run", what.to_owned(), Vec::new()))
    }
}

/// A record in one line.
pub(crate) fn record_words(record: &Record) -> String {
    let class = format!("{:?}", record.class).to_lowercase();
    let mut line = format!("{class}: {}", record.outcome);
    if !record.trigger.is_empty() {
        line += &format!(" [{}]", record.trigger);
    }
    if !record.evidence.is_empty() {
        line += &format!(" ({})", record.evidence.join("; "));
    }
    line
}

/// An answer to a command.
pub(crate) fn reply_words(outcome: &Result<String, Refusal>) -> String {
    match outcome {
        Ok(text) => format!("answers: {text}"),
        Err(refusal) => format!("refuses: {}; {}", refusal.reason, refusal.remedy),
    }
}
