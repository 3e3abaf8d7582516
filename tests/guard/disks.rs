//! Last words on shared disks: a disk of blocks of 512 bytes (a loop device), one of 4096 (an image
//! in its place), and one that hangs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use standfast::frame::{FRAME_LEN, Frame, Keyring};
use standfast::link::AreaDisk;
use standfast::model::{ClusterId, Incarnation, NodeId, TaskState};
use standfast::node::guard::{Farewell, LastRung, Speaker};
use standfast::node::page::word;
use standfast::storage::area::{
    self, Blocks, FormatOptions, Medium, SECTOR_LEN, SLOT_LEN, StoredWords, decode_words,
    read_header,
};
use standfast::storage::last_words::{LastWords, Reason};
use standfast_sys::disk::DirectDisk;
use standfast_sys::loop_device::LoopDevice;

use crate::falls::Counted;
use crate::rig::{Rig, eventually, in_network};
use crate::{end, stuck};

const CLUSTER: ClusterId = *b"cluster-for-test";
const BOOT: [u8; 16] = [7; 16];
const START: u32 = 3;

fn node() -> NodeId {
    NodeId::new(2).unwrap()
}

fn ring() -> Keyring {
    Keyring::new(&[5; 32], &CLUSTER)
}

fn open(device: &Path) -> AreaDisk {
    AreaDisk::new(DirectDisk::open(device, true).unwrap())
}

/// An area with a heartbeat of the node in it, in a new file.
fn area_in(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    let file = File::create(&path).unwrap();
    file.set_len(area::area_bytes(2).unwrap()).unwrap();
    let disk = open(&path);
    let options = FormatOptions {
        cluster: CLUSTER,
        nonce: [9; 16],
        block_size: 512,
        nodes_max: 2,
        medium: Medium::Paxos,
        roster: None,
    };
    let header = area::format(&disk, &options, &ring()).unwrap();
    let mut slot = [0; SLOT_LEN];
    let frame = slot.first_chunk_mut().unwrap();
    heartbeat().encode(&ring(), frame);
    let offset = header.geometry.heartbeat(node()).unwrap();
    disk.write_at(offset, &slot).unwrap();
    path
}

fn heartbeat() -> Frame {
    let life = Incarnation {
        boot: BOOT,
        start: START,
    };
    let mut frame = Frame::blank(CLUSTER, node(), life);
    frame.sequence = 42;
    frame
}

/// What stands behind the frame, which is as it was written.
fn words_on(device: &Path) -> Option<StoredWords> {
    let disk = open(device);
    let (header, _) = read_header(&disk, &ring(), &CLUSTER).unwrap();
    let mut slot = [0; SLOT_LEN];
    let offset = header.geometry.heartbeat(node()).unwrap();
    disk.read_at(offset, &mut slot).unwrap();
    let frame = Frame::decode(&slot[..FRAME_LEN], &ring(), &CLUSTER).unwrap();
    assert_eq!(frame.sequence, 42);
    assert_eq!(slot[2 * SECTOR_LEN..], [0; SLOT_LEN - 2 * SECTOR_LEN]);
    decode_words(&header.nonce, node(), &slot[SECTOR_LEN..], &ring()).unwrap()
}

fn farewell_on<'d>(devices: impl IntoIterator<Item = &'d Path>) -> Farewell {
    let mut farewell = Farewell::default();
    for device in devices {
        let speaker = Speaker {
            cluster: CLUSTER,
            node: node(),
            start: START,
            keyring: ring(),
        };
        farewell.keep_on(device.into(), speaker).unwrap();
    }
    farewell
}

/// Has a node fall that cannot stop its second task, looks at it when it has reset itself, and ends
/// it after that.
fn fall(farewell: Farewell, look: impl FnOnce()) {
    let mut rig = Rig::new();
    let resets = Arc::new(AtomicU32::new(0));
    let guard = rig.guard_that_falls(LastRung {
        reset: Some(Box::new(Counted(resets.clone()))),
        farewell: Some(farewell),
        boot: BOOT,
    });
    rig.store(word::EPOCH, 17);
    rig.grant(0b10);
    rig.seen_granted(0b10);
    rig.store(word::TASK_STATES + 1, TaskState::StopFailed as u64 | 3 << 8);
    assert_eq!(resets.load(Ordering::SeqCst), 0);
    rig.lease(false);
    eventually("a reset", || {
        (resets.load(Ordering::SeqCst) == 1).then_some(())
    });
    look();
    rig.store(word::TASK_STATES + 1, TaskState::Stopped as u64 | 3 << 8);
    end(guard);
}

fn check(found: StoredWords) {
    let LastWords {
        reason,
        boot,
        epoch,
        tasks,
        at,
    } = found.words;
    assert_eq!((reason, boot), (Reason::NotStopped, BOOT));
    assert_eq!((epoch, tasks, found.start), (17, 0b10, START));
    assert!(at.0 > 0 && found.wall_ms > 0);
}

#[test]
fn why_a_node_falls_is_on_every_disk_that_is_there() {
    in_network(|| {
        let directory = tempfile::tempdir().unwrap();
        let image = area_in(directory.path(), "blocks-of-4096");
        let behind = area_in(directory.path(), "blocks-of-512");
        let device = LoopDevice::attach(&behind).unwrap();
        let none = directory.path().join("no-such-disk");
        let farewell = farewell_on([none.as_path(), &image, device.path()]);
        fall(farewell, || {
            for device in [image.as_path(), device.path()] {
                check(eventually("words", || words_on(device)));
            }
        });
    });
}

#[test]
fn a_disk_that_hangs_keeps_no_node_from_its_reset() {
    in_network(|| {
        let hung = stuck::Disk::frozen_after(|mount| {
            area_in(mount, "area");
        });
        let area = hung.mount().join("area");
        let directory = tempfile::tempdir().unwrap();
        let well = area_in(directory.path(), "area");
        fall(farewell_on([area.as_path(), &well]), || {
            assert_eq!(words_on(&area), None, "it cannot be written yet");
            check(eventually("words on the other disk", || words_on(&well)));
            hung.thaw();
            check(eventually("words", || words_on(&area)));
        });
    });
}
