//! What the guard finds and makes when it starts: the run directory, its lock, the page of this
//! boot.
//!
//! A page of an earlier boot is thrown away: everything in it is over. One of this boot is used
//! again, with the lease in it: as long as that is valid, addresses and processes of the earlier
//! daemon are kept, else the first turn takes them back.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use standfast_sys::Failed;
use standfast_sys::sharedpage::SharedPage;

use crate::model::{TASKS_MAX, TaskState};
use crate::node::page::{PAGE_MAGIC, PAGE_WORDS, word};
use crate::node::paths;

/// Why the guard cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file or directory of its own.
    #[error("cannot use {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another guard lives in the same run directory.
    #[error("another standfastd runs in {run_dir}")]
    AlreadyRuns {
        /// Where.
        run_dir: PathBuf,
    },
    /// The file does not hold a boot id.
    #[error("{path} holds no boot id")]
    BootId {
        /// Which file.
        path: PathBuf,
    },
    /// The page cannot be made.
    #[error("cannot make the shared page")]
    Page(#[from] Failed),
}

/// Makes the run directory and takes its lock, which lasts as long as the file is open.
///
/// # Errors
///
/// The directory cannot be made, or another guard has the lock.
pub fn lock(run_dir: &Path) -> Result<File, StartError> {
    let path = paths::lock(run_dir);
    let file = |source| StartError::File {
        path: path.clone(),
        source,
    };
    fs::create_dir_all(run_dir).map_err(file)?;
    let lock = File::create(&path).map_err(file)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StartError::AlreadyRuns {
            run_dir: run_dir.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(file(source)),
    }
}

/// Puts the configuration this guard has checked where its children read it. Whatever happens to
/// the administrator's file meanwhile, a core or runner that is started again goes on with the same
/// one; a change counts when the daemon is started anew.
///
/// # Errors
///
/// It cannot be written.
pub fn publish_configuration(run_dir: &Path, text: &str) -> Result<(), StartError> {
    let path = paths::configuration(run_dir);
    let fresh = path.with_extension("new");
    let write = || -> io::Result<()> {
        let _ = fs::remove_file(&fresh);
        let mut options = OpenOptions::new();
        // Passwords of fence devices may be in it.
        options.write(true).create_new(true).mode(0o600);
        options.open(&fresh)?.write_all(text.as_bytes())?;
        fs::rename(&fresh, &path)
    };
    write().map_err(|source| StartError::File { path, source })
}

/// The identity of this boot: a UUID in text.
///
/// # Errors
///
/// The file cannot be read or holds something else.
pub fn boot_id(path: &Path) -> Result<u128, StartError> {
    let text = fs::read_to_string(path).map_err(|source| StartError::File {
        path: path.to_owned(),
        source,
    })?;
    let digits = text.trim().replace('-', "");
    let parsed = u128::from_str_radix(&digits, 16);
    let number = parsed.ok().filter(|_| digits.len() == 32);
    number.ok_or_else(|| StartError::BootId {
        path: path.to_owned(),
    })
}

/// The page of this boot: the one that is there if it fits, else a new one. Counts the start.
///
/// The bytes of the boot id are kept in their order in the text: the low half is the first eight of
/// them, little-endian.
///
/// # Errors
///
/// It cannot be made.
pub fn page(run_dir: &Path, boot: u128) -> Result<SharedPage, StartError> {
    let path = paths::page(run_dir);
    let bytes = boot.to_be_bytes();
    let half = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
    let (low, high) = (half(0), half(8));
    let load = |page: &SharedPage, at: usize| page.words()[at].load(Ordering::Acquire);
    let same = |page: &SharedPage| {
        load(page, word::MAGIC) == PAGE_MAGIC
            && load(page, word::BOOT_LOW) == low
            && load(page, word::BOOT_HIGH) == high
    };
    let found = SharedPage::open(&path, PAGE_WORDS).ok().filter(same);
    let page = match found {
        Some(page) => page,
        None => SharedPage::create(&path, PAGE_WORDS)?,
    };
    let store = |at: usize, value: u64| page.words()[at].store(value, Ordering::Release);
    store(word::BOOT_LOW, low);
    store(word::BOOT_HIGH, high);
    store(word::START, load(&page, word::START) + 1);
    store(word::GUARD_PID, u64::from(std::process::id()));
    store(word::LEAVE, 0);
    // The core's word, but there is no core now, and the last one's farewell must not count again.
    store(word::LEFT, 0);
    // So are its tasks' states: nobody has looked since, and nothing may follow from them.
    for task in 0..TASKS_MAX {
        let epoch = load(&page, word::TASK_STATES + task) >> 8;
        store(
            word::TASK_STATES + task,
            epoch << 8 | TaskState::Unknown as u64,
        );
    }
    store(word::FALL, 0);
    store(word::MAGIC, PAGE_MAGIC);
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_this_boot_is_kept_and_one_of_another_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let get = |page: &SharedPage, at: usize| page.words()[at].load(Ordering::Acquire);
        let first = page(directory.path(), 7).unwrap();
        assert_eq!(
            (get(&first, word::MAGIC), get(&first, word::START)),
            (PAGE_MAGIC, 1)
        );
        first.words()[word::LEASE_DEADLINE].store(99, Ordering::Release);
        first.words()[word::LEFT].store(1, Ordering::Release);
        let failed = 3 << 8 | TaskState::StopFailed as u64;
        first.words()[word::TASK_STATES].store(failed, Ordering::Release);
        let second = page(directory.path(), 7).unwrap();
        assert_eq!(
            (
                get(&second, word::START),
                get(&second, word::LEASE_DEADLINE)
            ),
            (2, 99)
        );
        assert_eq!(get(&second, word::LEFT), 0);
        let unknown = 3 << 8 | TaskState::Unknown as u64;
        assert_eq!(get(&second, word::TASK_STATES), unknown, "the core is gone");
        let other = page(directory.path(), 8).unwrap();
        assert_eq!(
            (get(&other, word::START), get(&other, word::LEASE_DEADLINE)),
            (1, 0)
        );
    }

    #[test]
    fn a_page_of_another_version_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let old = page(directory.path(), 7).unwrap();
        old.words()[word::MAGIC].store(PAGE_MAGIC + 1, Ordering::Release);
        let new = page(directory.path(), 7).unwrap();
        assert_eq!(new.words()[word::START].load(Ordering::Acquire), 1);
    }

    #[test]
    fn the_published_configuration_is_for_root_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = paths::configuration(directory.path());
        for text in ["one", "another"] {
            publish_configuration(directory.path(), text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn there_is_one_guard_in_a_run_directory() {
        let directory = tempfile::tempdir().unwrap();
        let run_dir = directory.path().join("run");
        let held = lock(&run_dir).unwrap();
        assert!(matches!(
            lock(&run_dir),
            Err(StartError::AlreadyRuns { .. })
        ));
        drop(held);
        lock(&run_dir).unwrap();
    }

    #[test]
    fn a_boot_id_is_32_digits_and_its_halves_keep_the_order_of_the_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("boot_id");
        fs::write(&path, "01020304-0506-0708-090a-0b0c0d0e0f10\n").unwrap();
        let boot = boot_id(&path).unwrap();
        assert_eq!(boot, 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
        let page = page(directory.path(), boot).unwrap();
        let half = |at: usize| page.words()[at].load(Ordering::Acquire).to_le_bytes();
        assert_eq!(half(word::BOOT_LOW), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(half(word::BOOT_HIGH), [9, 10, 11, 12, 13, 14, 15, 16]);
        for wrong in ["", "0102", "xy020304-0506-0708-090a-0b0c0d0e0f10"] {
            fs::write(&path, wrong).unwrap();
            assert!(matches!(boot_id(&path), Err(StartError::BootId { .. })));
        }
    }
}
