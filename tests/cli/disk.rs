//! `disk format` and `disk show`, on images and on a loop device.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use standfast::frame::Keyring;
use standfast::storage::area::{Geometry, SECTOR_LEN, StoredWords, encode_words};
use standfast::storage::last_words::{LastWords, Reason};
use standfast::time;

use crate::rig::{Place, node, overwrite};

/// Enough for an area of 64 nodes.
const ENOUGH: u64 = 4 << 20;

/// A loop device over an image; gone with the value.
struct LoopDevice(PathBuf);

impl LoopDevice {
    fn new(image: &Path) -> LoopDevice {
        let output = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(image)
            .output();
        let output = output.unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        LoopDevice(String::from_utf8(output.stdout).unwrap().trim().into())
    }

    fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .arg("--detach")
            .arg(&self.0)
            .status();
    }
}

fn format(place: &Place, device: &str, more: &[&str]) -> crate::rig::Ran {
    place.run(&[["disk", "format", device].as_slice(), more].concat())
}

#[test]
fn a_blank_disk_is_formatted_and_shown() {
    let place = Place::with_cluster();
    let image = place.image(ENOUGH);
    let device = LoopDevice::new(&image);
    format(&place, device.name(), &["--yes"])
        .exits(0)
        .says("empty")
        .says("cluster pair");
    let ran = place.run(&["disk", "show", device.name()]).exits(0);
    ran.says("area of cluster pair").says("No node has written");
    let report = place
        .run(&["disk", "show", device.name(), "--json"])
        .exits(0)
        .json();
    assert_eq!(report["header"]["nodes_max"], 64);
    assert_eq!(report["header"]["block_size"], 512);
    assert_eq!(
        (&report["problems"], &report["view"]),
        (&serde_json::json!([]), &().into())
    );
}

#[test]
fn a_script_needs_no_yes_for_what_is_empty() {
    let place = Place::with_cluster();
    let image = place.image(ENOUGH);
    let device = image.to_str().unwrap();
    format(&place, device, &[]).exits(0).says("empty");
    format(&place, device, &[]).exits(4).warns("--force");
}

#[test]
fn a_person_is_asked_on_a_terminal() {
    let place = Place::with_cluster();
    let image = place.image(ENOUGH);
    let device = image.to_str().unwrap();
    let line = ["disk", "format", device];
    let ran = place.run_on_terminal(&line, "y\n").exits(4);
    ran.says("will be overwritten. Type yes to go on")
        .says("not confirmed");
    assert!(fs::read(&image).unwrap().iter().all(|byte| *byte == 0));
    place
        .run_on_terminal(&line, "yes\n")
        .exits(0)
        .says("formatted for cluster pair");
}

#[test]
fn what_holds_a_file_system_is_refused_unless_forced() {
    let place = Place::with_cluster();
    let image = place.image(8 << 20);
    let made = Command::new("mkfs.ext4")
        .arg("-q")
        .arg(&image)
        .status()
        .unwrap();
    assert!(made.success());
    let before = fs::read(&image).unwrap();
    let device = image.to_str().unwrap();
    format(&place, device, &["--yes"])
        .exits(4)
        .warns("ext2/3/4 file system")
        .warns("--force");
    assert!(fs::read(&image).unwrap() == before, "nothing was written");
    place
        .run(&["disk", "show", device])
        .exits(1)
        .says("not a disk area of Standfast")
        .says("an ext2, ext3 or ext4 file system");
    format(&place, device, &["--yes", "--force"])
        .exits(0)
        .says("ext2/3/4");
    place.run(&["disk", "show", device]).exits(0);
}

#[test]
fn what_is_claimed_is_refused_even_if_forced() {
    let place = Place::with_cluster();
    let image = place.image(8 << 20);
    assert!(
        Command::new("mkfs.ext4")
            .arg("-q")
            .arg(&image)
            .status()
            .unwrap()
            .success()
    );
    let device = LoopDevice::new(&image);
    // An exclusive opener stands for a mount, a volume manager, swap.
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    options.read(true).custom_flags(nix::libc::O_EXCL);
    // Whoever looks for file systems on a new device has it for a moment.
    let deadline = Instant::now() + Duration::from_secs(10);
    let claim = loop {
        match options.open(&device.0) {
            Ok(claim) => break claim,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        thread::yield_now();
    };
    let ran = format(&place, device.name(), &["--yes", "--force"]).exits(4);
    ran.warns("in use on this machine").warns("does not help");
    drop(claim);
    format(&place, device.name(), &["--yes", "--force"]).exits(0);
}

#[test]
fn an_area_is_not_formatted_twice_by_accident() {
    let place = Place::with_cluster();
    let image = place.image(ENOUGH);
    let device = image.to_str().unwrap();
    format(&place, device, &["--yes"]).exits(0);
    let again = format(&place, device, &["--yes"]).exits(4);
    again
        .warns("the disk area of this cluster")
        .warns("formatted already");
    format(&place, device, &["--yes", "--force"]).exits(0);
}

#[test]
fn the_disk_of_a_running_cluster_is_refused_even_if_forced() {
    let place = Place::with_cluster();
    let image = place.image(ENOUGH);
    let device = image.to_str().unwrap();
    format(&place, device, &["--yes"]).exits(0);
    let ended = Arc::new(AtomicBool::new(false));
    let writer = {
        let (image, ended) = (image.clone(), Arc::clone(&ended));
        thread::spawn(move || {
            let mut beat = 0_u8;
            while !ended.load(Ordering::Relaxed) {
                beat = beat.wrapping_add(1);
                overwrite(&image, 8192, &[beat; 512]);
            }
        })
    };
    let ran = format(&place, device, &["--yes", "--force"]).exits(4);
    ran.warns("running cluster").warns("does not help");
    ended.store(true, Ordering::Relaxed);
    writer.join().unwrap();
}

#[test]
fn a_disk_that_is_too_small_is_refused_with_the_size_it_needs() {
    let place = Place::with_cluster();
    let image = place.image(1 << 20);
    let device = image.to_str().unwrap();
    let ran = format(&place, device, &["--yes"]).exits(4);
    ran.warns("too small: it has 1048576 bytes")
        .warns("takes 1855488")
        .warns("2 MiB");
    format(&place, device, &["--yes", "--nodes-max", "8"])
        .exits(0)
        .says("node ids 1 to 8");
    format(&place, device, &["--yes", "--nodes-max", "1"])
        .exits(2)
        .warns("id 2");
    place
        .run(&["disk", "show", "/dev/no-such-disk"])
        .exits(6)
        .warns("lsblk");
}

#[test]
fn the_disk_of_another_cluster_is_named() {
    let (ours, theirs) = (Place::with_cluster(), Place::with_cluster());
    let image = ours.image(ENOUGH);
    let device = image.to_str().unwrap();
    format(&theirs, device, &["--yes"]).exits(0);
    let ran = ours.run(&["disk", "show", device]).exits(1);
    ran.says("belongs to another cluster").says("LUN masking");
    format(&ours, device, &["--yes"])
        .exits(4)
        .warns("disk area of another cluster");
    // The same id with another secret: a node that was given the wrong file.
    let secret = theirs.path("etc/secret");
    fs::write(&secret, format!("{}\n", "0f".repeat(32))).unwrap();
    theirs
        .run(&["disk", "show", device])
        .exits(1)
        .says("sealed with another cluster secret");
}

#[test]
fn a_torn_header_is_told_from_a_damaged_copy() {
    let place = Place::with_cluster();
    let image = place.image(ENOUGH);
    let device = image.to_str().unwrap();
    format(&place, device, &["--yes"]).exits(0);
    overwrite(&image, 100, &[0xff; 8]);
    place
        .run(&["disk", "show", device])
        .exits(1)
        .says("header copy A")
        .says("other copy is good");
    overwrite(&image, 4096 + 100, &[0xff; 8]);
    let ran = place.run(&["disk", "show", device]).exits(1);
    ran.says("both copies of the disk area's header are damaged")
        .says("Stop Standfast on all");
    format(&place, device, &["--yes"])
        .exits(4)
        .warns("damaged header");
    let report = place
        .run(&["disk", "show", device, "--json"])
        .exits(1)
        .json();
    assert!(report["header"].is_null() && report["problems"][0].is_string());
}

#[test]
fn what_speaks_no_scsi_or_holds_data_is_not_certified() {
    let place = Place::with_cluster();
    let image = place.image(8 << 20);
    let device = LoopDevice::new(&image);
    let test = ["disk", "certify", device.name(), "--yes"];
    let ran = place.run(&test).exits(4);
    ran.warns("does not answer as a disk").warns("/dev/sdb");
    overwrite(&image, 0, b"somebody's data");
    let ran = place.run(&test).exits(4);
    ran.warns("is not empty").warns("--force");
}

#[test]
fn a_disk_without_reservations_is_named_as_such() {
    let place = Place::with_cluster();
    let image = place.image(ENOUGH);
    let device = LoopDevice::new(&image);
    let name = device.name();
    place
        .run(&["disk", "reservations", name])
        .exits(6)
        .warns("is neither a SCSI nor an NVMe disk");
    place
        .run(&["disk", "release", name, "--yes"])
        .exits(6)
        .warns("is neither a SCSI nor an NVMe disk");
    place
        .run(&["disk", "reservations", "/dev/no-such-device"])
        .exits(6)
        .warns("lsblk");
}

/// The bytes that these hexadecimal digits say.
fn bytes<const N: usize>(digits: &str) -> [u8; N] {
    let digits = digits.trim();
    assert_eq!(digits.len(), 2 * N);
    std::array::from_fn(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
}

#[test]
fn why_a_node_reset_itself_is_shown_to_the_others() {
    let place = Place::with_cluster();
    place.configure(
        "\n[[task]]\nname = \"db\"\n\n[[task.object]]\nname = \"db\"\nkind = \"process\"\n\
         command = [\"/bin/sleep\", \"9\"]\n",
    );
    let image = place.image(ENOUGH);
    let show = ["disk", "show", image.to_str().unwrap()];
    let json = || place.run(&[&show[..], &["--json"]].concat()).json();
    format(&place, show[2], &["--yes"]).exits(0);
    let header = &json()["header"];
    let (cluster, nonce) = (&header["cluster"], &header["nonce"]);
    let secret = fs::read_to_string(place.path("etc/secret")).unwrap();
    let cluster = bytes(cluster.as_str().unwrap());
    let keyring = Keyring::new(&bytes(&secret), &cluster);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now_ms = since.unwrap().as_millis() as u64;
    let words = LastWords {
        reason: Reason::NotStopped,
        boot: [7; 16],
        epoch: 17,
        tasks: 1,
        at: time::Instant(9_000_000_000),
    };
    let offset = Geometry::new(64).unwrap().last_words(node(2)).unwrap();
    let say = |wall_ms: u64| {
        let (start, mut sector) = (3, [0; SECTOR_LEN]);
        let stored = StoredWords {
            words,
            start,
            wall_ms,
        };
        let nonce = bytes(nonce.as_str().unwrap());
        encode_words(&nonce, node(2), &stored, &keyring, &mut sector);
        overwrite(&image, offset, &sector);
    };
    let why = "at epoch 17: what it ran could not be stopped, and its lease was over; tasks db";
    say(now_ms - 3_600_000);
    let ran = place.run(&show).exits(0);
    ran.says("b reset itself 1h").says(&format!(" ago {why}"));
    let report = json();
    let told = &report["nodes"][0];
    assert_eq!(
        (&told["name"], &told["heartbeat"]),
        (&"b".into(), &().into())
    );
    let told = &told["last_words"];
    assert_eq!(told["reason"], words.reason.words());
    assert_eq!(told["tasks"], serde_json::json!(["db"]));
    assert_eq!(told["wall_ms"], now_ms - 3_600_000);
    for unclear in [0, now_ms + 3_600_000, u64::MAX] {
        say(unclear);
        let ran = place.run(&show).exits(0);
        ran.says(&format!("b reset itself {why}"));
    }
    overwrite(&image, offset + 40, &[0xff; 8]);
    let ran = place.run(&show).exits(1);
    let ran = ran.says("last words of node 2: damaged");
    assert!(!ran.out.contains("reset itself"));
}
