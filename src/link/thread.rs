//! The loop of a link's thread.
//!
//! ```text
//! ready ---> wait for work, traffic, a change ---> write block, read blocks ---> send, recv ---.
//!   ^                                                                                        |
//!   '---------------------------------------------------------------------------- mail ------'
//! ```

use std::io;
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::Sender;
use mio::{Events, Poll, Waker};

use super::counters::Counters;
use super::disk::DiskLink;
use super::ethernet::EthernetLink;
use super::handle::{Inbox, LinkHandle, Work};
use super::outlet::Outlet;
use super::{
    CHANGES, Link, Load, Medium, Parameters, Readiness, Received, Scope, TRAFFIC, WAKE, now,
};
use crate::engine::Event;
use crate::time::{Instant, Span};

/// Stack of a link's thread: locked memory in the daemon, so not the usual 8 MiB.
const STACK_BYTES: usize = 256 * 1024;

/// Longest wait without looking at the path again.
const WAIT_MAX: Span = Span::from_ms(60_000);

/// Starts a link's thread.
///
/// `setup` runs first in the thread: real-time scheduling, a network namespace. The thread goes on
/// until [`LinkHandle::stop`], or until nobody receives `events` any more.
///
/// # Errors
///
/// Out of threads, file descriptors or memory. What is wrong with the path itself is told by
/// [`Event::LinkState`].
pub fn spawn(
    parameters: Parameters,
    events: Sender<Event>,
    setup: impl FnOnce() + Send + 'static,
) -> io::Result<LinkHandle> {
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), WAKE)?;
    let inbox = Arc::new(Inbox::new(waker, parameters.medium.carries_mail()));
    let counters = Arc::new(Counters::default());
    let (alive, ended) = crossbeam_channel::bounded(0);
    let thread_events = events.clone();
    let out = Outlet::new(parameters.index, events, inbox.clone(), counters.clone());
    let name = format!("link-{}", parameters.index);
    let (thread_inbox, thread_counters) = (inbox.clone(), counters.clone());
    let thread = Builder::new()
        .name(name)
        .stack_size(STACK_BYTES)
        .spawn(move || {
            // Dropped when the thread ends, in whatever way.
            let _alive: Sender<()> = alive;
            setup();
            let link = build(parameters, thread_counters, thread_events);
            run(link, poll, &thread_inbox, out);
        })?;
    Ok(LinkHandle {
        inbox,
        counters,
        thread: Some(thread),
        ended,
    })
}

/// The link for the medium. Opens nothing yet.
fn build(parameters: Parameters, counters: Arc<Counters>, events: Sender<Event>) -> Box<dyn Link> {
    match parameters.medium.clone() {
        Medium::Ethernet {
            interface,
            ethertype,
        } => Box::new(EthernetLink::new(
            parameters, interface, ethertype, counters,
        )),
        Medium::Disk {
            device,
            highest,
            disk,
            companions,
        } => Box::new(DiskLink::new(
            parameters,
            device,
            highest,
            (disk, companions),
            counters,
            events,
        )),
    }
}

fn run(mut link: Box<dyn Link>, mut poll: Poll, inbox: &Inbox, mut out: Outlet) {
    let mut events = Events::with_capacity(8);
    let mut more = false;
    let mut changed = true;
    while !inbox.is_stopped() && !out.is_closed() {
        let Readiness { again, answers } = link.ready(now(), poll.registry(), changed);
        out.state(link.state());
        // Orders that have waited for this answer ring no bell again.
        let mut work = if answers {
            inbox.take(true)
        } else {
            Work::default()
        };
        if work.is_empty() {
            let timeout = if more { Duration::ZERO } else { until(again) };
            // Nothing but a signal interrupts it; then the turn is an empty one.
            let _ = poll.poll(&mut events, Some(timeout));
            work = inbox.take(answers);
        } else {
            events.clear();
        }
        changed = events.iter().any(|event| event.token() == CHANGES);
        let traffic = more || events.iter().any(|event| event.token() == TRAFFIC);
        more = turn(&mut *link, &work, traffic, &mut out);
    }
}

/// Does what there is to do. Says whether more is waiting to be received.
fn turn(link: &mut dyn Link, work: &Work, traffic: bool, out: &mut Outlet) -> bool {
    let mut received = Received::All;
    if let Some(block) = &work.write {
        link.send(Load::Block(block), out);
    }
    if let Some(change) = &work.change {
        link.send(Load::Change(change), out);
    }
    if work.read || work.write.is_some() && link.reads_after_write() {
        received = link.recv(Scope::All, out);
    } else if traffic || !work.mail.is_empty() {
        // A stream of mail leaves no time to wait for traffic.
        received = link.recv(Scope::Used, out);
    }
    if let Some(frame) = &work.frame {
        link.send(Load::Frame(frame), out);
        let begun = now();
        received = link.recv(Scope::Used, out);
        if received == Received::All && work.tell_drained {
            out.drained(begun);
        }
    }
    // Behind the heartbeat, which keeps nodes alive; a message only changes what they do.
    for packet in &work.mail {
        link.send(Load::Packet(packet), out);
    }
    received == Received::More
}

/// How long to wait for `again`, rounded up: poll counts milliseconds.
fn until(again: Instant) -> Duration {
    (again.since(now()).min(WAIT_MAX) + Span::from_us(999)).to_std()
}
