//! Two nodes' areas on one file, whose record is changed by a target that does it in one step.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use standfast_sys::disk::DirectDisk;

use super::super::area::Seen;
use super::*;
use crate::frame::Keyring;
use crate::link::disk::AreaDisk;
use crate::link::{Companions, Counters, Medium as LinkMedium, Parameters, Scope};
use crate::model::Incarnation;
use crate::register::{Ballot, Block, Record, Seen as Shown};
use crate::storage::area::{Blocks, FormatOptions, Medium, area_bytes, format, read_header};

const CLUSTER: [u8; 16] = [7; 16];

fn node(id: u8) -> NodeId {
    NodeId::new(id).unwrap()
}

fn keyring() -> Keyring {
    Keyring::new(&[1; 32], &CLUSTER)
}

fn open(path: &Path) -> AreaDisk {
    AreaDisk::new(DirectDisk::open(path, true).unwrap())
}

/// Compares and writes; nobody else runs meanwhile. Its answer may be lost.
struct Target {
    disk: AreaDisk,
    length: usize,
    sent: Rc<Cell<u32>>,
    loses_answers: Rc<Cell<bool>>,
}

impl CompareAndWrite for Target {
    fn block_bytes(&self) -> usize {
        self.length
    }

    fn compare_and_write(
        &mut self,
        offset: u64,
        expected: &[u8],
        new: &[u8],
    ) -> io::Result<Compared> {
        self.sent.set(self.sent.get() + 1);
        let mut found = vec![0; self.length];
        self.disk.read_at(offset, &mut found)?;
        if found != expected {
            return Ok(Compared::Miscompare);
        }
        self.disk.write_at(offset, new)?;
        if self.loses_answers.get() {
            return Err(io::Error::other("no answer in time"));
        }
        Ok(Compared::Done)
    }
}

struct Rig {
    path: PathBuf,
    _directory: tempfile::TempDir,
    sent: Rc<Cell<u32>>,
    loses_answers: Rc<Cell<bool>>,
}

impl Rig {
    fn new() -> Rig {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(area_bytes(3).unwrap()).unwrap();
        let disk = open(&path);
        let options = FormatOptions {
            cluster: CLUSTER,
            nonce: [5; 16],
            block_size: disk.disk().block_bytes(),
            nodes_max: 3,
            medium: Medium::CompareAndWrite,
            roster: None,
        };
        format(&disk, &options, &keyring()).unwrap();
        Rig {
            path,
            _directory: directory,
            sent: Rc::default(),
            loses_answers: Rc::default(),
        }
    }

    fn area(&self, id: u8) -> Area {
        let disk = open(&self.path);
        let (header, _) = read_header(&disk, &keyring(), &CLUSTER).unwrap();
        let incarnation = Incarnation {
            boot: [id; 16],
            start: 1,
        };
        let parameters = Parameters {
            index: 0,
            medium: LinkMedium::Disk {
                device: self.path.clone(),
                highest: node(2),
                disk: 0,
                companions: Companions::new(1),
            },
            cluster: CLUSTER,
            node: node(id),
            incarnation,
            keyring: keyring(),
        };
        let target = Target {
            disk: open(&self.path),
            length: header.block_size as usize,
            sent: self.sent.clone(),
            loses_answers: self.loses_answers.clone(),
        };
        let target: Box<dyn CompareAndWrite> = Box::new(target);
        let counters = Arc::new(Counters::default());
        Area::new(disk, header, node(2), &parameters, counters, Some(target))
    }
}

fn shown(area: &mut Area, scope: Scope) -> Option<RecordSeen> {
    let Seen { shown, .. } = area.read(scope).unwrap();
    shown.map(|shown| match shown {
        Shown::Record(seen) => seen,
        Shown::Blocks(_) => panic!("this area has a record"),
    })
}

fn value(nonce: u64) -> Value {
    Value {
        epoch: nonce,
        nonce,
        bytes: vec![nonce as u8; 900],
    }
}

/// Stores a value for the record to name, and says what image would name it.
fn store(area: &mut Area, id: u8, before: &Record, writes: u64) -> Record {
    let value = value(before.count + 1);
    let ballot = Ballot((before.count + 1) << 8 | u64::from(id));
    let block = Block {
        writes,
        mbal: ballot,
        bal: ballot,
        value: value.clone(),
    };
    area.write_block(&block).unwrap();
    Record {
        count: before.count + 1,
        bal: ballot,
        place: Some(Place {
            node: node(id),
            writes,
        }),
        epoch: value.epoch,
        nonce: value.nonce,
        hash: value.hash(),
    }
}

#[test]
fn what_one_node_has_changed_another_reads() {
    let rig = Rig::new();
    let (mut one, mut two) = (rig.area(1), rig.area(2));
    for area in [&mut one, &mut two] {
        assert_eq!(shown(area, Scope::All), Some(RecordSeen::Blank));
        assert_eq!(shown(area, Scope::Used), None, "nothing has changed");
    }
    let mut expected = Record::default();
    for writes in 2..6 {
        let new = store(&mut one, 1, &expected, writes);
        assert_eq!(one.change(&Change { expected, new }), Compared::Done);
        let seen = Some(RecordSeen::Good(new, value(new.epoch)));
        assert_eq!(shown(&mut two, Scope::Used), seen);
        assert_eq!(shown(&mut one, Scope::Used), seen);
        expected = new;
    }
    assert_eq!(rig.sent.get(), 4);
}

#[test]
fn the_slower_node_is_refused_with_one_command_or_none() {
    let rig = Rig::new();
    let (mut one, mut two) = (rig.area(1), rig.area(2));
    shown(&mut one, Scope::All);
    shown(&mut two, Scope::All);
    let expected = Record::default();
    let faster = store(&mut one, 1, &expected, 2);
    let slower = store(&mut two, 2, &expected, 2);
    let new = faster;
    assert_eq!(one.change(&Change { expected, new }), Compared::Done);
    let change = Change {
        expected,
        new: slower,
    };
    assert_eq!(two.change(&change), Compared::Miscompare);
    assert!(!two.knows_record(), "it must look before the next one");
    shown(&mut two, Scope::All);
    assert_eq!(two.change(&change), Compared::Miscompare);
    assert_eq!(rig.sent.get(), 2, "what is known to be gone is not sent");
}

#[test]
fn a_lost_answer_is_unclear_and_a_read_tells() {
    let rig = Rig::new();
    let mut one = rig.area(1);
    shown(&mut one, Scope::All);
    let expected = Record::default();
    let new = store(&mut one, 1, &expected, 3);
    rig.loses_answers.set(true);
    assert_eq!(one.change(&Change { expected, new }), Compared::Unclear);
    assert_eq!(rig.sent.get(), 1, "never sent again by itself");
    let seen = Some(RecordSeen::Good(new, value(1)));
    assert_eq!(shown(&mut one, Scope::Used), seen);
}

#[test]
fn on_a_disk_that_lets_two_win_nothing_is_changed_and_all_is_read() {
    let rig = Rig::new();
    let (mut one, mut two) = (rig.area(1), rig.area(2));
    shown(&mut one, Scope::All);
    shown(&mut two, Scope::All);
    let expected = Record::default();
    let new = store(&mut one, 1, &expected, 2);
    two.counters.register_lost.set("found".to_owned()).unwrap();
    assert_eq!(two.change(&Change { expected, new }), Compared::Unclear);
    assert_eq!(rig.sent.get(), 0, "it is not sent");
    assert_eq!(one.change(&Change { expected, new }), Compared::Done);
    let seen = Some(RecordSeen::Good(new, value(1)));
    assert_eq!(shown(&mut two, Scope::Used), seen);
}

#[test]
fn a_value_that_is_written_over_is_missed_and_a_broken_record_is_damaged() {
    let rig = Rig::new();
    let (mut one, mut two) = (rig.area(1), rig.area(2));
    shown(&mut one, Scope::All);
    let expected = Record::default();
    let new = store(&mut one, 1, &expected, 2);
    one.change(&Change { expected, new });
    shown(&mut two, Scope::All);
    // A late write of an earlier life lands in the copy that the record names.
    store(&mut one, 1, &expected, 4);
    assert_eq!(
        shown(&mut two, Scope::Used),
        Some(RecordSeen::ValueLost(new))
    );
    let offset = one.header.geometry.record();
    let disk = open(&rig.path);
    let mut slot = [0; SLOT_LEN];
    disk.read_at(offset, &mut slot).unwrap();
    slot[60] ^= 1;
    disk.write_at(offset, &slot).unwrap();
    assert_eq!(shown(&mut two, Scope::Used), Some(RecordSeen::Damaged));
    assert_eq!(
        two.change(&Change { expected: new, new }),
        Compared::Unclear
    );
}
