//! What a link has done and refused: written by its thread, read by anybody at any time.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::latency::Latency;
use crate::frame::FrameError;
use crate::mldc::PacketError;

/// One row of [`Counters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Count {
    /// Frames sent, or heartbeat slots written.
    Sent,
    /// Frames that a newer one replaced before they could be sent: the link is slow or hung.
    Superseded,
    /// Frames and packets that could not be sent because the path was down.
    Unsent,
    /// Frames and packets that the kernel refused because a queue was full (`ENOBUFS`, `EAGAIN`).
    SendFull,
    /// Sends and writes that failed in any other way.
    SendFailed,
    /// Frames of other nodes handed to the engine.
    Received,
    /// Of these, frames that were sent on another link: cables are swapped or share a switch.
    Crossed,
    /// Own frames and packets that came back: a loop in the network, or two own links on one
    /// segment.
    Echoed,
    /// Frames and packets with this node's id but of another life: a second node uses it, or an old
    /// frame of
    /// this node was sent again.
    Impostor,
    /// Frames in the disk slot of another node than their sender: two nodes use one slot.
    Misplaced,
    /// Good frames dropped because the engine's queue was full.
    QueueFull,
    /// Times any other event had to wait for room in that queue.
    QueueWait,
    /// Frames and packets the kernel dropped because this thread was late.
    SocketFull,
    /// Frames longer than any of ours.
    Oversized,
    /// Receives and reads that failed.
    RecvFailed,
    /// Register blocks of which a copy was found damaged, or under way, and read once more.
    Reread,
    /// Packets of messages sent.
    MailSent,
    /// Packets that newer ones pushed out of the full queue before they could be sent.
    MailFull,
    /// Packets for this node handed to the engine.
    MailReceived,
    /// Good packets for this node dropped because the engine's queue was full.
    MailQueueFull,
    /// Packets for other nodes: every node on a wire hears them.
    MailElsewhere,
    /// Times the link came up.
    Ups,
    /// Times it went down.
    Downs,
}

impl Count {
    /// All rows with their names, in order.
    pub const ALL: [(Count, &str); 23] = [
        (Count::Sent, "sent"),
        (Count::Superseded, "superseded"),
        (Count::Unsent, "unsent"),
        (Count::SendFull, "send-full"),
        (Count::SendFailed, "send-failed"),
        (Count::Received, "received"),
        (Count::Crossed, "crossed"),
        (Count::Echoed, "echoed"),
        (Count::Impostor, "impostor"),
        (Count::Misplaced, "misplaced"),
        (Count::QueueFull, "queue-full"),
        (Count::QueueWait, "queue-wait"),
        (Count::SocketFull, "socket-full"),
        (Count::Oversized, "oversized"),
        (Count::RecvFailed, "recv-failed"),
        (Count::Reread, "reread"),
        (Count::MailSent, "mail-sent"),
        (Count::MailFull, "mail-full"),
        (Count::MailReceived, "mail-received"),
        (Count::MailQueueFull, "mail-queue-full"),
        (Count::MailElsewhere, "mail-elsewhere"),
        (Count::Ups, "ups"),
        (Count::Downs, "downs"),
    ];
}

/// The counters of one link, all from 0 at its start.
#[derive(Debug, Default)]
pub struct Counters {
    rows: [AtomicU64; Count::ALL.len()],
    refused: [AtomicU64; FrameError::KINDS.len()],
    refused_packets: [AtomicU64; PacketError::KINDS.len()],
    /// How long reads of the slots took; empty on a network.
    pub reads: Latency,
    /// How long writes took; empty on a network.
    pub writes: Latency,
    /// Why this node changes the register on this disk no more, in words; empty while it may.
    pub register_lost: OnceLock<String>,
}

impl Counters {
    /// One row.
    #[must_use]
    pub fn get(&self, count: Count) -> u64 {
        self.rows[count as usize].load(Ordering::Relaxed)
    }

    /// Frames refused for this reason, by [`FrameError::kind`].
    #[must_use]
    pub fn refused(&self, kind: usize) -> u64 {
        self.refused
            .get(kind)
            .map_or(0, |row| row.load(Ordering::Relaxed))
    }

    /// Packets refused for this reason, by [`PacketError::kind`].
    #[must_use]
    pub fn refused_packets(&self, kind: usize) -> u64 {
        self.refused_packets
            .get(kind)
            .map_or(0, |row| row.load(Ordering::Relaxed))
    }

    /// Everything that is not 0, by name: what was refused under the names of
    /// [`FrameError::KINDS`] and [`PacketError::KINDS`].
    pub fn told(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let rows = Count::ALL
            .iter()
            .map(|(count, name)| (*name, self.get(*count)));
        let refused = FrameError::KINDS.iter().enumerate();
        let refused = refused.map(|(kind, name)| (*name, self.refused(kind)));
        let packets = PacketError::KINDS.iter().enumerate();
        let packets = packets.map(|(kind, name)| (*name, self.refused_packets(kind)));
        rows.chain(refused)
            .chain(packets)
            .filter(|(_, count)| *count > 0)
    }

    pub(super) fn add(&self, count: Count) {
        self.rows[count as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Brings a row up to what the kernel has counted.
    pub(super) fn set(&self, count: Count, total: u64) {
        self.rows[count as usize].store(total, Ordering::Relaxed);
    }

    pub(super) fn refuse(&self, error: FrameError) {
        self.refused[error.kind()].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refuse_packet(&self, error: PacketError) {
        self.refused_packets[error.kind()].fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::HeadError;

    #[test]
    fn every_row_has_its_place_and_its_own_name() {
        let counters = Counters::default();
        for (at, (count, name)) in Count::ALL.iter().enumerate() {
            assert_eq!(*count as usize, at, "{name}");
            counters.set(*count, at as u64 + 1);
        }
        counters.refuse(HeadError::BadTag.into());
        counters.refuse_packet(HeadError::BadTag.into());
        let told: Vec<_> = counters.told().collect();
        assert_eq!(told.len(), Count::ALL.len() + 2);
        assert_eq!(
            told[Count::ALL.len()..],
            [("bad-tag", 1), ("packet-bad-tag", 1)]
        );
        let mut names: Vec<_> = Count::ALL.iter().map(|(_, name)| *name).collect();
        names.extend(FrameError::KINDS);
        names.extend(PacketError::KINDS);
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
