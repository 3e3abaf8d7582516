//! The way from a link's thread to the engine.
//!
//! A frame that finds the queue full is dropped: the next one says the same and more. So is a
//! packet: its sender repeats what it needs an answer to. All other events must arrive: they wait
//! for room.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{SendTimeoutError, Sender, TrySendError};

use super::State;
use super::counters::{Count, Counters};
use super::handle::Inbox;
use crate::engine::Event;
use crate::frame::Frame;
use crate::mldc::Packet;
use crate::time::Instant;

/// How often a thread that waits for room looks whether it has been told to stop.
const STOP_CHECK: Duration = Duration::from_millis(50);

/// Where a link's thread puts what it has to tell.
pub(super) struct Outlet {
    link: u8,
    events: Sender<Event>,
    inbox: Arc<Inbox>,
    counters: Arc<Counters>,
    told: Option<State>,
    /// A frame was dropped since the last drain: what was heard has not all been told.
    dropped: bool,
    closed: bool,
}

impl Outlet {
    pub(super) fn new(
        link: u8,
        events: Sender<Event>,
        inbox: Arc<Inbox>,
        counters: Arc<Counters>,
    ) -> Outlet {
        Outlet {
            link,
            events,
            inbox,
            counters,
            told: None,
            dropped: false,
            closed: false,
        }
    }

    /// Nobody listens any more, or the thread was told to stop while it waited.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Hands over a frame, or drops it if there is no room.
    pub(super) fn frame(&mut self, frame: &Frame) {
        match self.events.try_send(Event::Frame {
            link: self.link,
            frame: frame.clone(),
        }) {
            Ok(()) => {
                self.counters.add(Count::Received);
                if frame.link != self.link {
                    self.counters.add(Count::Crossed);
                }
            }
            Err(TrySendError::Full(_)) => {
                self.counters.add(Count::QueueFull);
                self.dropped = true;
            }
            Err(TrySendError::Disconnected(_)) => self.closed = true,
        }
    }

    /// Hands over a packet, or drops it if there is no room.
    pub(super) fn packet(&mut self, packet: Packet) {
        let link = self.link;
        match self.events.try_send(Event::Packet { link, packet }) {
            Ok(()) => self.counters.add(Count::MailReceived),
            Err(TrySendError::Full(_)) => self.counters.add(Count::MailQueueFull),
            Err(TrySendError::Disconnected(_)) => self.closed = true,
        }
    }

    /// Says that everything heard since `begun` has been told, unless a part of it was dropped.
    /// Also dropped itself if there is no room: the next heartbeat says it again.
    pub(super) fn drained(&mut self, begun: Instant) {
        if std::mem::take(&mut self.dropped) {
            return;
        }
        match self.events.try_send(Event::LinkDrained {
            link: self.link,
            begun,
        }) {
            Ok(()) | Err(TrySendError::Full(_)) => {}
            Err(TrySendError::Disconnected(_)) => self.closed = true,
        }
    }

    /// Tells the state if it is not what was told last.
    pub(super) fn state(&mut self, state: &State) {
        if self.told.as_ref() == Some(state) {
            return;
        }
        let was_up = self.told.as_ref().is_some_and(|told| told.up);
        match (was_up, state.up) {
            (false, true) => self.counters.add(Count::Ups),
            (true, false) => self.counters.add(Count::Downs),
            (true, true) | (false, false) => {}
        }
        self.told = Some(state.clone());
        let State { up, reason } = state.clone();
        self.tell(Event::LinkState {
            link: self.link,
            up,
            reason,
        });
    }

    /// Hands over an event that must arrive, waiting for room as long as it takes.
    pub(super) fn tell(&mut self, event: Event) {
        let mut event = event;
        let mut waited = false;
        while !self.closed {
            event = match self.events.send_timeout(event, STOP_CHECK) {
                Ok(()) => return,
                Err(SendTimeoutError::Timeout(event)) => event,
                Err(SendTimeoutError::Disconnected(_)) => {
                    self.closed = true;
                    return;
                }
            };
            if !std::mem::replace(&mut waited, true) {
                self.counters.add(Count::QueueWait);
            }
            self.closed = self.inbox.is_stopped();
        }
    }
}
