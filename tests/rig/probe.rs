//! The client: asks for the service each millisecond and notes who answers.
//!
//! One thread, real-time if the machine allows it, with two sockets of the client's network. It
//! only sends, receives and passes on what it saw; judging is done elsewhere and later.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use standfast_sys::clock::{Timer, boottime_ns};
use standfast_sys::packet::{ArpOperation, ArpSocket};

use super::machine::Machine;
use super::trouble::{Doing, Trouble};
use super::verdict::{Answer, Log, Question, Verdict, Voice};
use super::wait::{PATIENCE, eventually};

/// Between two questions.
const PERIOD_NS: u64 = 1_000_000;

/// ARP questions are told apart by their sender; so many in a row are.
const ASKERS: u64 = 8;

/// Real-time priority of the client: above everything it measures.
const PRIORITY: &str = "60";

/// So many answers in a row make an owner.
const SETTLED: usize = 20;

/// How long ago the newest of them may be.
const FRESH_NS: u64 = 50_000_000;

/// What the client asks, and how it knows who answers.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The floating address.
    pub(crate) address: Ipv4Addr,
    /// The echo servers' port.
    pub(crate) port: u16,
    /// The first of the addresses it asks in the name of; nobody may have them.
    pub(crate) askers: Ipv4Addr,
    /// Host name and hardware address of each node.
    pub(crate) nodes: Vec<(String, [u8; 6])>,
}

enum Note {
    Question(Question),
    Answer(Answer),
}

/// A running client.
#[derive(Debug)]
pub(crate) struct Probe {
    notes: Receiver<Note>,
    log: Log,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    names: Vec<String>,
}

struct Client {
    target: Target,
    datagrams: UdpSocket,
    arp: ArpSocket,
    timer: Timer,
    notes: Sender<Note>,
    number: u64,
}

impl Probe {
    /// Starts asking from this machine, whose interface has this name and hardware address.
    pub(crate) fn start(
        from: &Machine,
        interface: &str,
        mac: [u8; 6],
        target: Target,
    ) -> Result<Probe, Trouble> {
        let (sender, notes) = crossbeam_channel::unbounded();
        let names = target.nodes.iter().map(|(name, _)| name.clone()).collect();
        let client = from.in_network(|| {
            let index = nix::net::if_::if_nametoindex(interface).doing(interface)?;
            let datagrams = UdpSocket::bind("0.0.0.0:0").doing("open the client's socket")?;
            datagrams
                .set_nonblocking(true)
                .doing("open the client's socket")?;
            let arp = ArpSocket::open(index, mac).doing("open the client's ARP socket")?;
            let timer = Timer::new().doing("make the client's timer")?;
            Ok(Client {
                target,
                datagrams,
                arp,
                timer,
                notes: sender,
                number: 0,
            })
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || client.run(&stopped));
        Ok(Probe {
            notes,
            log: Log::default(),
            stop,
            thread: Some(thread),
            names,
        })
    }

    /// Now, on the clock of all its times.
    pub(crate) fn now(&self) -> u64 {
        boottime_ns()
    }

    /// Judges from `from` until now.
    pub(crate) fn since(&mut self, from: u64) -> Verdict {
        self.catch_up();
        self.log.judge(from, boottime_ns())
    }

    /// Judges a stretch that is over.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> Verdict {
        self.catch_up();
        self.log.judge(from, to)
    }

    /// The node that answers now, and gave all of the last answers, none of them before `since`.
    pub(crate) fn owner(&mut self, since: u64) -> Option<usize> {
        self.catch_up();
        let (node, oldest, newest) = self.log.settled(SETTLED)?;
        (oldest >= since && boottime_ns() - newest < FRESH_NS).then_some(node)
    }

    /// Waits until one of the nodes that `wanted` accepts answers, and did so for a while since
    /// `since`.
    pub(crate) fn wait_for_owner(
        &mut self,
        what: &str,
        since: u64,
        wanted: impl Fn(usize) -> bool,
    ) -> Result<usize, Trouble> {
        eventually(what, PATIENCE, || {
            self.owner(since).filter(|node| wanted(*node))
        })
    }

    /// Waits until nobody has answered for a while.
    pub(crate) fn wait_for_silence(&mut self) -> Result<(), Trouble> {
        eventually("the service to fall silent", PATIENCE, || {
            self.catch_up();
            let last = self.log.answers.last().map_or(0, |answer| answer.at);
            (boottime_ns() - last > FRESH_NS).then_some(())
        })
    }

    /// Forgets everything before `before`, so that hours of asking fit into memory.
    pub(crate) fn forget(&mut self, before: u64) {
        self.catch_up();
        self.log.questions.retain(|asked| asked.at >= before);
        self.log.answers.retain(|answer| answer.at >= before);
    }

    /// Name of a node, for people.
    pub(crate) fn name(&self, node: Option<usize>) -> &str {
        node.and_then(|node| self.names.get(node))
            .map_or("nobody", String::as_str)
    }

    fn catch_up(&mut self) {
        for note in self.notes.try_iter() {
            match note {
                Note::Question(question) => self.log.questions.push(question),
                Note::Answer(answer) => self.log.answers.push(answer),
            }
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Client {
    fn run(mut self, stop: &AtomicBool) {
        hurry();
        let start = boottime_ns();
        while !stop.load(Ordering::Relaxed) {
            let due = start + self.number * PERIOD_NS;
            let now = boottime_ns();
            if now >= due {
                self.ask(now, now - due);
                // What was missed stays missed: numbers are milliseconds.
                self.number = (boottime_ns() - start) / PERIOD_NS + 1;
                continue;
            }
            if self.timer.arm_at(due).is_err() || self.wait().is_err() {
                return;
            }
            self.hear();
        }
    }

    fn ask(&mut self, at: u64, late: u64) {
        let number = self.number;
        let target = &self.target;
        let asker = u32::from(target.askers) + (number % ASKERS) as u32;
        // A question that cannot leave is one that nobody answers.
        drop(self.arp.ask(Ipv4Addr::from(asker), target.address));
        let to = (target.address, target.port);
        drop(self.datagrams.send_to(&number.to_le_bytes(), to));
        drop(
            self.notes
                .send(Note::Question(Question { number, at, late })),
        );
    }

    fn wait(&self) -> nix::Result<()> {
        let wanted = |descriptor| PollFd::new(descriptor, PollFlags::POLLIN);
        let mut descriptors = [
            wanted(self.timer.as_fd()),
            wanted(self.datagrams.as_fd()),
            wanted(self.arp.as_fd()),
        ];
        match poll(&mut descriptors, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => Ok(()),
            other => other.map(drop),
        }
    }

    fn hear(&self) {
        drop(self.timer.read());
        let mut buffer = [0; 64];
        while let Ok((length, _)) = self.datagrams.recv_from(&mut buffer) {
            let Some((number, name)) = buffer[..length].split_first_chunk() else {
                continue;
            };
            let known = |(_, (known, _)): &(usize, &(String, _))| known.as_bytes() == name;
            let node = self.target.nodes.iter().enumerate().find(known);
            self.note(
                u64::from_le_bytes(*number),
                node.map(|(node, _)| node),
                Voice::Program,
            );
        }
        while let Ok(Some(packet)) = self.arp.recv() {
            if packet.operation != ArpOperation::Reply || packet.sender_ip != self.target.address {
                continue;
            }
            let asker = u32::from(packet.target_ip).wrapping_sub(u32::from(self.target.askers));
            if u64::from(asker) >= ASKERS || self.number == 0 {
                continue;
            }
            let newest = self.number - 1;
            let back = (newest + ASKERS - u64::from(asker)) % ASKERS;
            let known = |(_, mac): &(String, _)| *mac == packet.sender_mac;
            let node = self.target.nodes.iter().position(known);
            self.note(newest.saturating_sub(back), node, Voice::Kernel);
        }
    }

    fn note(&self, number: u64, node: Option<usize>, voice: Voice) {
        let Some(node) = node else { return };
        let at = boottime_ns();
        drop(self.notes.send(Note::Answer(Answer {
            number,
            node,
            at,
            voice,
        })));
    }
}

/// Makes this thread real-time where that is allowed; the log shows its lateness either way.
fn hurry() {
    let thread = nix::unistd::gettid().to_string();
    let mut command = Command::new("chrt");
    drop(
        command
            .args(["--fifo", "--pid", PRIORITY, &thread])
            .output(),
    );
}
