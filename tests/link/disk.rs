//! Two nodes and a disk: loop devices over one file.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use standfast::engine::Event;
use standfast::frame::Keyring;
use standfast::link::{AreaDisk, Companions, Count, Medium, OrderRefused, probe_disk};
use standfast::register::{Ballot, Block, BlockSeen, Order, Seen, Value};
use standfast::storage::area::{
    FormatOptions, Geometry, SLOT_LEN, Side, area_bytes, format, newest_block, read_header,
};
use standfast::time::Instant;
use standfast_sys::disk::DirectDisk;

use super::bench::{CLUSTER, Station, keyring, node, passes, run};

const PLACES: u8 = 8;
const SECTORS: [u32; 2] = [512, 4096];

/// One file that several nodes see as a disk of their own. Taken apart when dropped.
struct SharedDisk {
    directory: tempfile::TempDir,
    devices: Vec<PathBuf>,
}

impl SharedDisk {
    /// A disk of zeros with a device for each of `nodes`.
    fn blank(nodes: usize, sector: u32) -> SharedDisk {
        SharedDisk::blank_in(tempfile::tempdir().expect("a directory"), nodes, sector)
    }

    fn blank_in(directory: tempfile::TempDir, nodes: usize, sector: u32) -> SharedDisk {
        let mut disk = SharedDisk {
            directory,
            devices: Vec::new(),
        };
        let bytes = area_bytes(PLACES).expect("places");
        File::create(disk.image())
            .and_then(|file| file.set_len(bytes))
            .expect("an image");
        for _ in 0..nodes {
            let image = disk.image();
            let device = run(&format!(
                "losetup --find --show --direct-io=on --sector-size {sector} {}",
                image.display()
            ));
            disk.devices.push(device.into());
        }
        disk
    }

    fn formatted(nodes: usize, sector: u32) -> SharedDisk {
        let disk = SharedDisk::blank(nodes, sector);
        disk.format(&keyring(), CLUSTER);
        disk
    }

    fn format(&self, keyring: &Keyring, cluster: [u8; 16]) {
        let disk = self.area_disk();
        let block_size = disk.disk().block_bytes();
        let options = FormatOptions {
            cluster,
            nonce: [5; 16],
            block_size,
            nodes_max: PLACES,
            medium: standfast::storage::area::Medium::Paxos,
            roster: None,
        };
        format(&disk, &options, keyring).expect("formatted");
    }

    fn area_disk(&self) -> AreaDisk {
        AreaDisk::new(DirectDisk::open(&self.devices[0], true).expect("the device"))
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    fn medium(&self, device: usize) -> Medium {
        Medium::Disk {
            device: self.devices[device].clone(),
            highest: node(2),
            disk: 0,
            companions: Companions::new(1),
        }
    }

    fn station(&self, id: u8) -> Station {
        Station::start((id, 3), self.medium(usize::from(id) - 1), || ())
    }

    /// Gives the file another size and has the devices notice.
    fn resize(&self, bytes: u64) {
        let file = OpenOptions::new()
            .write(true)
            .open(self.image())
            .expect("the image");
        file.set_len(bytes).expect("resized");
        self.notice();
    }

    /// Puts content back into the file and has the devices notice.
    fn restore(&self, content: &[u8]) {
        let file = OpenOptions::new()
            .write(true)
            .open(self.image())
            .expect("the image");
        file.write_all_at(content, 0)
            .and_then(|()| file.sync_all())
            .expect("restored");
        self.notice();
    }

    fn notice(&self) {
        for device in &self.devices {
            run(&format!("losetup --set-capacity {}", device.display()));
        }
    }

    /// Damages what is at `offset`, past all caches of the devices.
    fn put(&self, offset: u64, bytes: &[u8]) {
        use standfast::storage::area::Blocks;
        let disk = self.area_disk();
        let slot = offset / SLOT_LEN as u64 * SLOT_LEN as u64;
        let mut content = vec![0; SLOT_LEN];
        disk.read_at(slot, &mut content).expect("read");
        let at = (offset - slot) as usize;
        content[at..at + bytes.len()].copy_from_slice(bytes);
        disk.write_at(slot, &content).expect("written");
    }
}

impl Drop for SharedDisk {
    fn drop(&mut self) {
        for device in &self.devices {
            let detached = Command::new("losetup").arg("--detach").arg(device).status();
            if !thread::panicking() {
                assert!(
                    detached.is_ok_and(|status| status.success()),
                    "losetup --detach"
                );
            }
        }
    }
}

/// Both links up: each has written and read.
fn up(stations: &mut [&mut Station]) {
    for station in stations {
        station.beat();
        station.wait_state(true);
    }
}

fn block(id: u8, writes: u64) -> Block {
    let ballot = Ballot(writes << 8 | u64::from(id));
    let value = Value {
        epoch: writes,
        nonce: 99,
        bytes: vec![id; 1000],
    };
    Block {
        writes,
        mbal: ballot,
        bal: ballot,
        value,
    }
}

fn read(station: &Station) -> (Instant, Option<Vec<BlockSeen>>) {
    station.wait("a read", |event| match event {
        Event::DiskRead {
            begun, ended, seen, ..
        } => {
            assert!(begun <= ended);
            Some((begun, seen.map(blocks)))
        }
        _ => None,
    })
}

fn blocks(seen: Seen) -> Vec<BlockSeen> {
    match seen {
        Seen::Blocks(blocks) => blocks,
        Seen::Record(_) => panic!("this area has no record"),
    }
}

/// The next read that shows other blocks than the one before.
fn news(station: &Station) -> Vec<BlockSeen> {
    station.wait("changed blocks", |event| match event {
        Event::DiskRead { seen, .. } => seen.map(blocks),
        _ => None,
    })
}

/// Writes a block and waits until it is on the disk.
fn write(station: &Station, block: &Block) -> Instant {
    station
        .handle
        .order(Order::Write(block.clone()))
        .expect("no write waits");
    station.wait("written", |event| match event {
        Event::DiskWritten { at, .. } => Some(at),
        Event::DiskWriteFailed { .. } => panic!("the write failed"),
        _ => None,
    })
}

#[test]
fn frames_pass_through_the_slots_on_disks_of_both_sector_sizes() {
    for sector in SECTORS {
        let disk = SharedDisk::formatted(2, sector);
        let (mut one, mut two) = (disk.station(1), disk.station(2));
        up(&mut [&mut one, &mut two]);
        for _ in 0..5 {
            let sent = one.beat();
            one.wait("a drain", |event| match event {
                Event::LinkDrained { link: 3, .. } => Some(()),
                _ => None,
            });
            two.beat();
            two.wait("the frame", |event| match event {
                Event::Frame { link: 3, frame } if frame.sender == node(1) => {
                    assert_eq!(frame.link, 3);
                    (frame.sequence == sent).then_some(())
                }
                _ => None,
            });
        }
        let counters = two.handle.counters();
        for count in [
            Count::Impostor,
            Count::Misplaced,
            Count::Reread,
            Count::Downs,
        ] {
            assert_eq!(counters.get(count), 0, "{count:?}");
        }
        assert!(counters.reads.seen().samples >= 6 && counters.writes.seen().samples >= 6);
        assert!(counters.reads.seen().p99 <= counters.reads.seen().worst);
        one.stop();
        two.stop();
    }
}

#[test]
fn a_block_written_by_one_is_read_by_the_other() {
    for sector in SECTORS {
        let disk = SharedDisk::formatted(2, sector);
        let (mut one, mut two) = (disk.station(1), disk.station(2));
        up(&mut [&mut one, &mut two]);
        let blank = vec![BlockSeen::Blank; usize::from(PLACES)];
        two.handle.order(Order::Read).unwrap();
        assert_eq!(
            read(&two).1,
            None,
            "nothing has changed since the first read"
        );
        for writes in 1..=5 {
            let at = write(&one, &block(1, writes));
            let mut expected = blank.clone();
            expected[0] = BlockSeen::Good(block(1, writes));
            let (begun, blocks) = read(&one);
            assert!(begun >= at, "the read after a write is begun after it");
            assert_eq!(blocks.as_ref(), Some(&expected));
            two.handle.order(Order::Read).unwrap();
            assert_eq!(news(&two), expected);
        }
        two.handle.order(Order::Read).unwrap();
        assert_eq!(read(&two).1, None);
        one.stop();
        two.stop();
        // Both copies are in use: the newest one was never written over.
        let (header, _) = read_header(&disk.area_disk(), &keyring(), &CLUSTER).unwrap();
        let image = fs::read(disk.image()).unwrap();
        let slot = |side| header.geometry.block(node(1), side).unwrap() as usize;
        let (a, b) = (&image[slot(Side::A)..], &image[slot(Side::B)..]);
        let newest = newest_block(&header.nonce, node(1), a, b, &keyring()).unwrap();
        assert_eq!((newest.stored.block, newest.next), (block(1, 5), Side::B));
    }
}

#[test]
fn a_restarted_node_goes_on_where_its_block_was() {
    let disk = SharedDisk::formatted(1, 512);
    let one = disk.station(1);
    write(&one, &block(1, 1));
    write(&one, &block(1, 2));
    one.stop();
    let one = disk.station(1);
    // The first thing that it hears of is a write: it reads before.
    write(&one, &block(1, 3));
    assert_eq!(read(&one).1.unwrap()[0], BlockSeen::Good(block(1, 3)));
    // What would not be the newest is not written.
    one.handle.order(Order::Write(block(1, 3))).unwrap();
    one.wait("refused", |event| match event {
        Event::DiskWriteFailed { .. } => Some(()),
        Event::DiskWritten { .. } => panic!("written"),
        _ => None,
    });
    assert_eq!(read(&one).1, None);
    one.stop();
}

#[test]
fn a_torn_copy_leaves_the_other_one_and_two_torn_ones_are_damage() {
    let disk = SharedDisk::formatted(2, 512);
    let one = disk.station(1);
    write(&one, &block(1, 1));
    write(&one, &block(1, 2));
    one.stop();
    let geometry = Geometry::new(PLACES).unwrap();
    let torn = |side| disk.put(geometry.block(node(1), side).unwrap() + 600, b"torn");
    torn(Side::B);
    let two = disk.station(2);
    two.handle.order(Order::Read).unwrap();
    assert_eq!(news(&two)[0], BlockSeen::Good(block(1, 1)));
    assert_eq!(two.handle.counters().get(Count::Reread), 1);
    two.handle.order(Order::Read).unwrap();
    assert_eq!(
        read(&two).1,
        None,
        "known damage is not read again and again"
    );
    torn(Side::A);
    two.handle.order(Order::Read).unwrap();
    assert_eq!(news(&two)[0], BlockSeen::Damaged);
    two.stop();
    // Its owner does not write over what may have counted.
    let one = disk.station(1);
    one.handle.order(Order::Write(block(1, 3))).unwrap();
    one.wait("refused", |event| match event {
        Event::DiskWriteFailed { .. } => Some(()),
        _ => None,
    });
    one.stop();
}

#[test]
fn slots_of_strangers_are_counted_and_nothing_more() {
    let disk = SharedDisk::formatted(2, 512);
    let (mut one, mut two) = (disk.station(1), disk.station(2));
    up(&mut [&mut one, &mut two]);
    let geometry = Geometry::new(PLACES).unwrap();
    let slot = |id| geometry.heartbeat(node(id)).unwrap();
    let mut bytes = [0; 512];
    super::bench::frame(2, 77).encode(&keyring(), &mut bytes);
    // A true frame in the wrong slot, a forged one in the slot of a node that is not configured,
    // and something in the own slot.
    disk.put(slot(1), &bytes);
    disk.put(slot(7), b"forged");
    disk.put(slot(2), b"not mine");
    two.handle.order(Order::Read).unwrap();
    read(&two);
    let counters = two.handle.counters();
    assert_eq!(counters.get(Count::Misplaced), 1);
    assert_eq!(counters.refused(1), 1, "not-ours");
    assert_eq!(counters.get(Count::Impostor), 1);
    passes(&mut one, &{
        two.beat();
        two
    });
    one.stop();
}

#[test]
fn a_disk_without_a_good_header_is_told_and_taken_when_it_has_one() {
    let disk = SharedDisk::blank(1, 4096);
    let mut one = disk.station(1);
    let reason = one.wait_state(false);
    assert!(reason.contains("never formatted") && reason.contains("standfast disk format"));
    disk.format(
        &Keyring::new(&[7; 32], b"another-cluster!"),
        *b"another-cluster!",
    );
    one.wait_reason("belongs to another cluster");
    disk.format(&Keyring::new(&[8; 32], &CLUSTER), CLUSTER);
    one.wait_reason("sealed with another cluster secret");
    disk.put(0, b"garbage!");
    disk.put(4096, b"garbage!");
    one.wait_reason("other data is where its header should be");
    one.handle.order(Order::Read).unwrap();
    one.wait("the read fails", |event| match event {
        Event::DiskReadFailed { .. } => Some(()),
        _ => None,
    });
    disk.format(&keyring(), CLUSTER);
    disk.put(0, b"one copy is enough");
    one.wait_reason("has a good area");
    one.beat();
    one.wait_state(true);
    one.stop();
}

#[test]
fn a_device_that_appears_later_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let device = directory.path().join("later");
    let medium = Medium::Disk {
        device: device.clone(),
        highest: node(2),
        disk: 0,
        companions: Companions::new(1),
    };
    let mut one = Station::start((1, 3), medium, || ());
    let reason = one.wait_state(false);
    assert!(
        reason.contains("cannot open disk") && reason.contains("No such file"),
        "{reason}"
    );
    one.handle.order(Order::Write(block(1, 1))).unwrap();
    one.wait("the write fails", |event| match event {
        Event::DiskWriteFailed { .. } => Some(()),
        _ => None,
    });
    let disk = SharedDisk::formatted(1, 512);
    std::os::unix::fs::symlink(&disk.devices[0], &device).unwrap();
    one.wait_reason("has a good area");
    one.beat();
    one.wait_state(true);
    one.stop();
}

#[test]
fn a_failing_disk_is_down_with_a_reason_and_comes_back() {
    for sector in SECTORS {
        let disk = SharedDisk::formatted(2, sector);
        let (mut one, mut two) = (disk.station(1), disk.station(2));
        up(&mut [&mut one, &mut two]);
        write(&one, &block(1, 1));
        let content = fs::read(disk.image()).unwrap();
        disk.resize(SLOT_LEN as u64);
        one.handle.order(Order::Read).unwrap();
        one.wait("the read fails", |event| match event {
            Event::DiskReadFailed { .. } => Some(()),
            _ => None,
        });
        let reason = one.wait_state(false);
        assert!(reason.contains("byte"), "{reason}");
        one.handle.order(Order::Write(block(1, 2))).unwrap();
        one.wait("the write fails", |event| match event {
            Event::DiskWriteFailed { .. } => Some(()),
            _ => None,
        });
        disk.restore(&content);
        one.wait_reason("has a good area");
        one.beat();
        let seen = news(&one);
        assert_eq!(seen[0], BlockSeen::Good(block(1, 1)));
        one.wait_state(true);
        write(&one, &block(1, 2));
        two.handle.order(Order::Read).unwrap();
        assert_eq!(one.handle.counters().get(Count::Downs), 1);
        one.stop();
        two.stop();
    }
}

#[test]
fn a_second_write_is_refused_while_one_waits() {
    // No device: orders wait for the next try.
    let medium = Medium::Disk {
        device: "/dev/standfast-absent".into(),
        highest: node(2),
        disk: 0,
        companions: Companions::new(1),
    };
    let one = Station::start_with_room(0, (1, 3), medium, || ());
    one.handle.order(Order::Write(block(1, 1))).unwrap();
    assert_eq!(
        one.handle.order(Order::Write(block(1, 2))),
        Err(OrderRefused)
    );
    one.handle.order(Order::Read).unwrap();
    one.handle.order(Order::Read).unwrap();
    one.stop();
}

#[test]
fn a_probe_measures_and_leaves_everything_as_it_was() {
    let measure = |path: &Path| probe_disk(path, &CLUSTER, &keyring(), node(1), node(2), 10);
    let disk = SharedDisk::blank(1, 512);
    let blank = measure(&disk.devices[0]).unwrap();
    assert_eq!(
        (blank.bytes, blank.block_bytes),
        (area_bytes(PLACES).unwrap(), 512)
    );
    assert!(blank.area.unwrap_err().contains("never formatted") && blank.writes.is_none());
    assert_eq!(blank.reads.samples, 10);
    disk.format(&keyring(), CLUSTER);
    let mut one = disk.station(1);
    up(&mut [&mut one]);
    one.stop();
    let before = fs::read(disk.image()).unwrap();
    let probe = measure(&disk.devices[0]).unwrap();
    assert_eq!(probe.area, Ok(PLACES));
    let writes = probe.writes.unwrap();
    assert!(writes.samples == 10 && writes.median <= writes.p99 && writes.p99 <= writes.worst);
    assert!(fs::read(disk.image()).unwrap() == before);
    disk.resize(SLOT_LEN as u64);
    assert!(measure(&disk.devices[0]).is_err());
    assert!(measure(Path::new("/dev/standfast-absent")).is_err());
}

/// A file system of its own in which a write can be made to hang. Taken apart when dropped.
struct Freezer {
    directory: tempfile::TempDir,
}

impl Freezer {
    fn new() -> Freezer {
        let freezer = Freezer {
            directory: tempfile::tempdir().expect("a directory"),
        };
        let image = freezer.directory.path().join("file-system");
        File::create(&image)
            .and_then(|file| file.set_len(32 << 20))
            .expect("an image");
        fs::create_dir(freezer.path()).expect("a directory");
        run(&format!("mkfs.ext4 -q -F {}", image.display()));
        run(&format!(
            "mount -o loop {} {}",
            image.display(),
            freezer.path().display()
        ));
        freezer
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    fn control(&self, option: &str) {
        run(&format!("fsfreeze {option} {}", self.path().display()));
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        // A frozen file system cannot be unmounted, and a failed test leaves it frozen.
        let _ = Command::new("fsfreeze").arg("-u").arg(self.path()).output();
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

#[test]
fn a_hung_disk_keeps_the_newest_frame_and_goes_on_when_it_is_released() {
    let freezer = Freezer::new();
    let disk = SharedDisk::blank_in(tempfile::tempdir_in(freezer.path()).unwrap(), 2, 512);
    disk.format(&keyring(), CLUSTER);
    let (mut one, mut two) = (disk.station(1), disk.station(2));
    up(&mut [&mut one, &mut two]);
    freezer.control("-f");
    // The first of these is under way and hangs, or has been replaced before it could.
    let counters = one.handle.counters().clone();
    while counters.get(Count::Superseded) < 3 {
        one.beat();
    }
    assert_eq!(counters.get(Count::Sent), 1);
    let newest = one.beat();
    one.handle.order(Order::Write(block(1, 1))).unwrap();
    freezer.control("-u");
    one.wait("written", |event| match event {
        Event::DiskWritten { .. } => Some(()),
        _ => None,
    });
    two.handle.order(Order::Read).unwrap();
    two.wait("the newest frame", |event| match event {
        Event::Frame { frame, .. } => (frame.sequence == newest).then_some(()),
        // It may have gone out before the block, or goes out after it.
        Event::DiskRead { .. } => {
            two.handle.order(Order::Read).unwrap();
            None
        }
        _ => None,
    });
    assert_eq!(counters.get(Count::Downs), 0, "late is not broken");
    one.stop();
    two.stop();
}
