//! The register's disks as the engine sees them: which have answered, and when.

use serde::{Deserialize, Serialize};

use super::snapshot::trouble_words;
use super::{Action, Class, Engine};
use crate::register::{self, Seen};
use crate::time::Instant;

/// One disk.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Disk {
    last_read: Option<Instant>,
    read_ok: bool,
    /// It does not answer, and that was told.
    silent: bool,
    /// It does not count any more, and that was told.
    left_out: bool,
    /// The blocks as last reported; a read in which nothing has changed does not repeat them.
    seen: Seen,
}

/// All of them, one or three.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Disks {
    all: Vec<Disk>,
    /// Since when a majority has been read without a failure between.
    pub(super) read_since: Option<Instant>,
}

impl Disks {
    pub(super) fn new(count: u8) -> Disks {
        let disk = |_| Disk {
            last_read: None,
            read_ok: false,
            silent: false,
            left_out: false,
            seen: Seen::Blocks(Vec::new()),
        };
        Disks {
            all: (0..count).map(disk).collect(),
            read_since: None,
        }
    }

    fn most(&self, is_so: impl Fn(&Disk) -> bool) -> bool {
        let count = self.all.iter().filter(|disk| is_so(disk)).count();
        count > self.all.len() / 2
    }

    /// Beginning of the latest read, of a majority of the disks.
    pub(super) fn last_read(&self) -> Option<Instant> {
        let mut reads = self.all.iter().filter_map(|disk| disk.last_read);
        let is_of_most = |at: &Instant| self.most(|disk| disk.last_read >= Some(*at));
        match self.all.len() {
            1 => reads.next(),
            _ => reads.filter(is_of_most).max(),
        }
    }

    /// Did the last read of a majority succeed?
    pub(super) fn are_read(&self) -> bool {
        self.most(|disk| disk.read_ok)
    }
}

impl Engine {
    /// Have enough disks shown the register's blocks lately?
    pub(super) fn disk_answers(&self) -> bool {
        self.disks.most(|disk| self.answers(disk))
    }

    fn answers(&self, disk: &Disk) -> bool {
        let fresh = |at| self.now.since(at) <= self.timing().suspect;
        disk.read_ok && disk.last_read.is_some_and(fresh)
    }

    /// Does this link lead to one of several disks that does not answer? The others do without it.
    pub(super) fn is_silent_disk(&self, link: usize) -> bool {
        let disk = self.disk_of(link).filter(|_| self.setup.disks > 1);
        let disk = disk.and_then(|disk| self.disks.all.get(disk));
        disk.is_some_and(|disk| !self.answers(disk))
    }

    /// Which of the disks this link leads to.
    pub(super) fn disk_of(&self, link: usize) -> Option<usize> {
        let is_network = |link: usize| self.setup.networks >> link & 1 == 1;
        let before = (0..link).filter(|link| !is_network(*link)).count();
        (!is_network(link) && before < self.disks.all.len()).then_some(before)
    }

    /// Tells when one of three disks ceases to count or to answer, and when it answers again. A
    /// link that is down tells of itself.
    pub(super) fn tell_silent_disks(&mut self) {
        for link in 0..self.links.len() {
            let Some(disk) = self.disk_of(link).filter(|_| self.setup.disks > 1) else {
                continue;
            };
            let up = self.links[link].up;
            // One that has just come back has not been read yet.
            let silent = up && self.disks.all[disk].read_ok && self.is_silent_disk(link);
            let was = std::mem::replace(&mut self.disks.all[disk].silent, silent);
            let (class, what) = match (was, silent) {
                (false, true) => (Class::Warning, "does not answer"),
                (true, false) if up => (Class::Info, "answers again"),
                _ => continue,
            };
            self.note(class, None, format!("the disk of link {link} {what}"));
        }
        self.tell_disks_left_out();
    }

    fn tell_disks_left_out(&mut self) {
        for link in 0..self.links.len() {
            let Some(disk) = self.disk_of(link) else {
                continue;
            };
            let Some(why) = self.register.left_out(disk) else {
                continue;
            };
            if !std::mem::replace(&mut self.disks.all[disk].left_out, true) {
                let why = trouble_words(why);
                let text = format!("the disk of link {link} does not count any more: {why}");
                self.note(Class::Major, None, text);
            }
        }
    }

    /// Has the register read anew, on every disk.
    pub(super) fn read_all(&mut self) {
        for disk in 0..self.setup.disks {
            let order = register::Order::Read;
            self.act(Action::Disk { disk, order });
        }
    }

    pub(super) fn on_disk_read(
        &mut self,
        disk: u8,
        (begun, ended): (Instant, Instant),
        seen: Option<Seen>,
    ) {
        let answered = self.disk_answers();
        let Some(known) = self.disks.all.get_mut(usize::from(disk)) else {
            return;
        };
        if let Some(seen) = seen {
            known.seen = seen;
        }
        known.last_read = known.last_read.max(Some(begun));
        known.read_ok = true;
        if !answered {
            // It hung, or failed: what happened on the disk meanwhile was not seen.
            self.disks.read_since = None;
        }
        if self.disks.are_read() {
            self.disks.read_since.get_or_insert(begun);
        }
        let disk = usize::from(disk);
        let seen = &self.disks.all[disk].seen;
        let event = register::Event::ReadDone { begun, ended, seen };
        self.register.handle_on(disk, self.now, event);
    }

    pub(super) fn on_disk_read_failed(&mut self, disk: u8, begun: Instant) {
        let disk = usize::from(disk);
        let Some(known) = self.disks.all.get_mut(disk) else {
            return;
        };
        known.read_ok = false;
        if !self.disks.are_read() {
            self.disks.read_since = None;
        }
        let event = register::Event::ReadFailed { begun };
        self.register.handle_on(disk, self.now, event);
    }
}
