//! What the other threads of the guard leave to the log thread: lines, and sockets to be closed.
//!
//! The log is written by a thread of its own, because writing it can wait for ever (a pipe to a
//! journal that hangs) and closing a raw socket waits for the kernel's readers. Nobody waits for
//! that thread: the queue has a bound, and what does not fit is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender};
use standfast_sys::packet::ArpSocket;
use tracing::Level;

/// Entries that wait at a time; further ones are dropped and counted.
const WAITING_MAX: usize = 1_024;

/// One thing said.
#[derive(Debug)]
pub enum Said {
    /// A line for the log.
    Line(Level, String),
    /// A socket that nobody uses any more.
    Close(ArpSocket),
}

/// The speaking end.
#[derive(Clone)]
pub struct Voice {
    sender: Sender<Said>,
    dropped: Arc<AtomicU64>,
}

/// The listening end.
pub struct Ear {
    receiver: Receiver<Said>,
    dropped: Arc<AtomicU64>,
}

/// Both ends of a queue.
#[must_use]
pub fn queue() -> (Voice, Ear) {
    let (sender, receiver) = crossbeam_channel::bounded(WAITING_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    (
        Voice {
            sender,
            dropped: dropped.clone(),
        },
        Ear { receiver, dropped },
    )
}

impl Voice {
    /// A line for the log; never waits.
    pub fn line(&self, level: Level, line: impl Into<String>) {
        self.say(Said::Line(level, line.into()));
    }

    /// A socket to be closed by somebody who may wait.
    pub(super) fn close(&self, socket: ArpSocket) {
        self.say(Said::Close(socket));
    }

    fn say(&self, said: Said) {
        if self.sender.try_send(said).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Ear {
    /// Waits for the next thing; `None` when everybody who could speak is gone.
    #[must_use]
    pub fn hear(&self) -> Option<Said> {
        self.receiver.recv().ok()
    }

    /// How many were dropped since this was last asked.
    #[must_use]
    pub fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    /// Writes everything to the log until nobody is left who could say more.
    pub fn write_log(&self) {
        while let Some(said) = self.hear() {
            match said {
                Said::Line(level, line) => write(level, &line),
                Said::Close(socket) => drop(socket),
            }
            let dropped = self.take_dropped();
            if dropped > 0 {
                tracing::warn!(dropped, "lines of the guard's log were lost");
            }
        }
    }
}

fn write(level: Level, line: &str) {
    match level {
        Level::ERROR => tracing::error!("{line}"),
        Level::WARN => tracing::warn!("{line}"),
        Level::INFO => tracing::info!("{line}"),
        Level::DEBUG => tracing::debug!("{line}"),
        Level::TRACE => tracing::trace!("{line}"),
    }
}

/// An error of the system with the kernel's own words.
pub(super) fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (voice, ear) = queue();
        for number in 0..WAITING_MAX + 3 {
            voice.line(Level::INFO, number.to_string());
        }
        drop(voice);
        assert_eq!((ear.take_dropped(), ear.take_dropped()), (3, 0));
        let mut heard = 0;
        while let Some(Said::Line(_, line)) = ear.hear() {
            assert_eq!(line, heard.to_string());
            heard += 1;
        }
        assert_eq!(heard, WAITING_MAX);
    }
}
