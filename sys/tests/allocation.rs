//! What real-time threads call in their loops must not allocate: malloc can take a lock that a
//! normal thread holds, or ask the kernel for memory that is not there.
//!
//! One test in a process of its own, because the allocator that counts belongs to the process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;

use nix::sched::{CloneFlags, unshare};
use standfast_sys::cgroup::Cgroup;
use standfast_sys::clock::{Timer, boottime_ns};
use standfast_sys::disk::{DirectDisk, Sectors};
use standfast_sys::packet::{FrameFilter, PacketSocket, RecvBatch};
use standfast_sys::sharedpage::SharedPage;
use standfast_sys::watchdog::Watchdog;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of alloc.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of dealloc.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `work` many times and fails if any run allocated on this thread.
fn must_not_allocate(what: &str, mut work: impl FnMut()) {
    let before = ALLOCATIONS.with(Cell::get);
    for _ in 0..100 {
        work();
    }
    assert_eq!(ALLOCATIONS.with(Cell::get), before, "{what} allocates");
}

#[test]
fn loops_of_realtime_threads_do_not_allocate() {
    unshare(CloneFlags::CLONE_NEWNET).expect("unshare, as root");
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    assert!(up.is_ok_and(|status| status.success()));
    let directory = tempfile::tempdir().unwrap();
    the_clock_and_the_page(directory.path());
    a_link();
    a_disk(directory.path());
    the_guard(directory.path());
}

fn the_clock_and_the_page(directory: &Path) {
    let timer = Timer::new().unwrap();
    let page = SharedPage::create(&directory.join("page"), 64).unwrap();
    must_not_allocate("the clock, the timer or the page", || {
        timer.arm_at(boottime_ns() + 1_000_000_000).unwrap();
        assert_eq!(timer.read().unwrap(), 0);
        timer.disarm().unwrap();
        page.words()[0].fetch_add(1, Ordering::Relaxed);
        page.write_record(8, &[1, 2, 3]);
        assert_eq!(page.read_record(8), Some([1, 2, 3]));
    });
}

fn a_link() {
    let cluster = (0, *b"cluster1");
    let filter = FrameFilter {
        ethertype: 0x88B5,
        min_len: 64,
        magic: None,
        cluster,
        not_sender: None,
    };
    let loopback = 1;
    let socket = PacketSocket::open(loopback, [3, 0, 0, 0, 0, 1], &filter).unwrap();
    let mut payload = [7; 512];
    payload[..8].copy_from_slice(b"cluster1");
    let mut batch = RecvBatch::new();
    let mut received = 0;
    must_not_allocate("sending or receiving", || {
        socket.send([0; 6], [0; 6], &payload).unwrap();
        while socket.recv(&mut batch).unwrap() > 0 {
            received += batch
                .frames()
                .filter(|frame| frame.payload == payload)
                .count();
        }
    });
    assert!(received > 0);
}

fn a_disk(directory: &Path) {
    let path = directory.join("disk");
    std::fs::write(&path, [0; 65_536]).unwrap();
    let disk = DirectDisk::open(&path, true).unwrap();
    let mut sectors = Sectors::new(8192);
    must_not_allocate("reading or writing sectors", || {
        disk.write_at(4096, &sectors[..4096]).unwrap();
        disk.read_at(0, &mut sectors).unwrap();
    });
}

fn the_guard(directory: &Path) {
    let watchdog = Watchdog::open_stand_in(&directory.join("watchdog")).unwrap();
    let name = format!("standfast-test-allocation-{}", std::process::id());
    let group = Cgroup::create(name.as_ref()).unwrap();
    let switch = group.kill_switch().unwrap();
    must_not_allocate("petting or killing", || {
        watchdog.pet().unwrap();
        assert!(switch.kill().unwrap());
    });
    group.remove().unwrap();
}
