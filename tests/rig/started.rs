//! What a node says about its last start: how much of a gap was the work of starting the objects.

use serde_json::Value;

use super::node::Node;
use super::trouble::{Doing, Trouble};
use super::wait::{PATIENCE, eventually};

/// How the sentence begins: "started in 12.3 ms: data 10.1, address 0.4".
const SENTENCE: &str = "started in ";

/// How many entries of the history are looked through; a start writes a handful.
const ENTRIES: &str = "50";

/// How long the objects of a task took to start.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Started {
    objects: Vec<(String, f64)>,
}

impl Started {
    /// Milliseconds from the call of this object's start to its return; none if it has no such.
    pub(crate) fn ms(&self, object: &str) -> Option<f64> {
        let found = self.objects.iter().find(|(name, _)| name == object);
        found.map(|(_, ms)| *ms)
    }

    fn parse(sentence: &str) -> Option<Started> {
        let (_, parts) = sentence.strip_prefix(SENTENCE)?.split_once(" ms: ")?;
        let part = |part: &str| {
            let (name, ms) = part.rsplit_once(' ')?;
            Some((name.to_owned(), ms.parse().ok()?))
        };
        let objects = parts.split(", ").map(part).collect::<Option<_>>()?;
        Some(Started { objects })
    }
}

impl Node {
    /// The newest start that its history tells of and that ended after `from`, ns of boot time.
    pub(crate) fn started_since(&self, from: u64) -> Result<Started, Trouble> {
        let what = format!("node {} to note its start", self.name);
        // The entry is written beside the work it speaks of.
        eventually(&what, PATIENCE, || self.newest_start(from).transpose())?
    }

    fn newest_start(&self, from: u64) -> Result<Option<Started>, Trouble> {
        let text = self.cli(&["history", "--limit", ENTRIES, "--json"])?;
        let report: Value = serde_json::from_str(&text).doing("read the history")?;
        let entries = report["entries"].as_array().into_iter().flatten();
        let late = entries.filter(|entry| {
            let uptime_ms = entry["uptime_ms"].as_f64().unwrap_or(0.0);
            uptime_ms * 1e6 >= from as f64
        });
        let sentences = late.filter_map(|entry| entry["outcome"].as_str());
        Ok(sentences.filter_map(Started::parse).next_back())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_object_of_the_sentence_has_its_time() {
        let started = super::Started::parse("started in 12.3 ms: data 10.1, address 0.4, echo 1.8");
        let started = started.expect("the sentence is well formed");
        assert_eq!(started.ms("data"), Some(10.1));
        assert_eq!(started.ms("echo"), Some(1.8));
        assert_eq!(started.ms("server"), None);
    }

    #[test]
    fn other_sentences_say_nothing_about_a_start() {
        for sentence in [
            "stopped in 3.0 ms: data 2.9",
            "started",
            "started in 3.0 ms: data",
        ] {
            assert_eq!(super::Started::parse(sentence), None, "{sentence}");
        }
    }
}
