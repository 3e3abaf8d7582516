//! Real files: what was confirmed is found again, and nothing else passes for it.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::register::{Ballot, VALUE_MAX, Value};
use crate::storage::area::SECTOR_LEN;

const CLUSTER: ClusterId = *b"cluster-for-test";

fn owner(id: u8) -> Owner {
    Owner {
        cluster: CLUSTER,
        node: NodeId::new(id).unwrap(),
        incarnation: Incarnation {
            boot: [4; 16],
            start: 1,
        },
        keyring: Keyring::new(&[7; 32], &CLUSTER),
    }
}

/// A record with ballots that other nodes have begun.
fn record(counter: u64) -> Block {
    Block {
        writes: 0,
        mbal: Ballot(counter << 8 | 5),
        bal: Ballot((counter - 1) << 8 | 9),
        value: Value {
            epoch: counter,
            nonce: 77,
            bytes: vec![counter as u8; VALUE_MAX],
        },
    }
}

struct Desk {
    directory: tempfile::TempDir,
}

impl Desk {
    fn new() -> Desk {
        Desk {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("below").join("register-1")
    }

    /// What node 1 finds, without the file's own count.
    fn found(&self) -> Result<Option<Block>, KeptError> {
        let (_, found) = Kept::open(&self.path(), owner(1))?;
        Ok(found.map(|found| Block { writes: 0, ..found }))
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }

    fn put(&self, bytes: &[u8]) {
        fs::write(self.path(), bytes).unwrap();
    }

    /// A file in which records 1 to `last` were kept one after the other.
    fn with_records(last: u64) -> Desk {
        let desk = Desk::new();
        let (mut kept, _) = Kept::open(&desk.path(), owner(1)).unwrap();
        for counter in 1..=last {
            kept.keep(&record(counter)).unwrap();
        }
        desk
    }
}

#[test]
fn what_was_kept_is_found_again_by_a_later_life() {
    let desk = Desk::new();
    let (mut kept, found) = Kept::open(&desk.path(), owner(1)).unwrap();
    assert_eq!(found, None);
    for counter in 1..=5 {
        kept.keep(&record(counter)).unwrap();
        assert!(kept.wants_repetition());
        if counter % 2 == 0 {
            kept.repeat().unwrap();
            assert!(!kept.wants_repetition());
        }
        drop(kept);
        let mut later = owner(1);
        later.incarnation.start += counter as u32;
        let (again, found) = Kept::open(&desk.path(), later).unwrap();
        let found = found.unwrap();
        assert_eq!(found.writes, counter + 1, "the empty record is the first");
        assert_eq!(Block { writes: 0, ..found }, record(counter));
        kept = again;
    }
    let mode = fs::metadata(desk.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_file_in_which_nothing_was_kept_says_so_again_and_again() {
    let desk = Desk::new();
    for _ in 0..3 {
        assert_eq!(desk.found().unwrap(), None);
    }
    assert_eq!(desk.bytes().len(), FILE_LEN);
    // A file that was not finished is no file.
    fs::rename(desk.path(), desk.path().with_extension("new")).unwrap();
    assert_eq!(desk.found().unwrap(), None);
}

#[test]
fn an_interrupted_write_leaves_the_record_before_or_the_new_one() {
    // The next write goes to copy B, then to copy A.
    for last in [0, 3] {
        let desk = Desk::with_records(last);
        let before = desk.bytes();
        let (mut kept, _) = Kept::open(&desk.path(), owner(1)).unwrap();
        let rested = desk.bytes();
        let side = kept.newest.other();
        kept.keep(&record(last + 1)).unwrap();
        drop(kept);
        let after = desk.bytes();
        assert_ne!(before, after);
        for written in 0..=255_u8 {
            let mut torn = rested.clone();
            for sector in (0..8).filter(|sector| written & (1 << sector) != 0) {
                let at = offset(side) as usize + sector * SECTOR_LEN;
                torn[at..at + SECTOR_LEN].copy_from_slice(&after[at..at + SECTOR_LEN]);
            }
            desk.put(&torn);
            let counter = if torn == after { last + 1 } else { last };
            let expected = (counter > 0).then(|| record(counter));
            assert_eq!(desk.found().unwrap(), expected, "{last} {written:08b}");
            assert_eq!(desk.found().unwrap(), expected, "and stays so");
        }
    }
}

#[test]
fn either_copy_can_be_lost_at_rest() {
    let desk = Desk::with_records(3);
    assert_eq!(desk.found().unwrap(), Some(record(3)), "and repeats it");
    let good = desk.bytes();
    for at in [100, 1000, SLOT_LEN + 100, SLOT_LEN + 1000] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        desk.put(&bytes);
        assert_eq!(desk.found().unwrap(), Some(record(3)), "byte {at}");
    }
}

#[test]
fn what_is_lost_is_never_taken_for_nothing() {
    let desk = Desk::with_records(3);
    let good = desk.bytes();
    let changed = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        desk.put(&bytes);
        let error = desk.found().unwrap_err();
        assert_eq!(desk.bytes(), bytes, "nothing is written over it");
        assert!(error.remedy().contains("remove"), "{}", error.remedy());
        error.to_string()
    };
    let both = changed(|bytes| {
        bytes[100] ^= 1;
        bytes[SLOT_LEN + 600] ^= 1;
    });
    assert!(
        both.contains("what this node has promised is lost"),
        "{both}"
    );
    assert!(both.contains("copy A: damaged"), "{both}");
    let zeros = changed(|bytes| bytes.fill(0));
    assert!(
        zeros.contains("something else was written over it"),
        "{zeros}"
    );
    let half = changed(|bytes| bytes[SLOT_LEN..].fill(0));
    assert!(
        half.contains("copy A: good; copy B: not a register"),
        "{half}"
    );
    let empty = changed(Vec::clear);
    assert!(empty.contains("has 0 bytes, not 8192"), "{empty}");
    let short = changed(|bytes| bytes.truncate(SLOT_LEN));
    assert!(short.contains("has 4096 bytes"), "{short}");
}

#[test]
fn a_copy_that_was_set_back_is_noticed() {
    let desk = Desk::with_records(1);
    let old = desk.bytes();
    let desk = Desk::with_records(4);
    let mut bytes = desk.bytes();
    bytes[..SLOT_LEN].copy_from_slice(&old[..SLOT_LEN]);
    desk.put(&bytes);
    let error = desk.found().unwrap_err();
    assert!(
        matches!(error, KeptError::Contradiction { a: 1, b: 4, .. }),
        "{error}"
    );
}

#[test]
fn a_record_counts_only_for_the_node_and_the_cluster_that_wrote_it() {
    let desk = Desk::with_records(2);
    let refused = |owner: Owner| Kept::open(&desk.path(), owner).unwrap_err().to_string();
    let node = refused(owner(2));
    assert!(node.contains("a block of node 1, copy 0"), "{node}");
    let cluster = refused(Owner {
        cluster: [8; 16],
        ..owner(1)
    });
    assert!(cluster.contains("of another disk"), "{cluster}");
    let secret = refused(Owner {
        keyring: Keyring::new(&[8; 32], &CLUSTER),
        ..owner(1)
    });
    assert!(secret.contains("another cluster secret"), "{secret}");
    assert_eq!(
        desk.found().unwrap(),
        Some(record(2)),
        "nothing was changed"
    );
}

#[test]
fn two_processes_cannot_have_it_open() {
    let desk = Desk::with_records(1);
    let (kept, _) = Kept::open(&desk.path(), owner(1)).unwrap();
    let error = desk.found().unwrap_err();
    assert!(matches!(error, KeptError::InUse { .. }), "{error}");
    drop(kept);
    assert_eq!(desk.found().unwrap(), Some(record(1)));
}

#[test]
fn a_place_where_nothing_can_be_written_is_named() {
    // Not even root can make a file here.
    let path = Path::new("/sys/register-1");
    let error = Kept::open(path, owner(1)).unwrap_err();
    assert_eq!(error.to_string(), "cannot create /sys/register-1");
    assert!(error.remedy().contains("writable"));
    let below_a_file = Path::new("/proc/self/status/register-1");
    let error = Kept::open(below_a_file, owner(1)).unwrap_err();
    assert!(matches!(error, KeptError::Io { .. }), "{error}");
}
