//! The file with the cluster's secret: 64 hex digits and a line break, mode 0600, the same on all
//! nodes.
//!
//! Text, so that it survives whatever copies it and can be compared by eye with a checksum. Whoever
//! reads it can speak as every node, so a file that others may read is refused, not tolerated.
//! Blocking I/O on the calling thread, for the start of a process and for the command line.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroize;

/// Bytes of the secret.
pub const SECRET_BYTES: usize = 32;

/// Bytes of the file: two digits for each byte, and a line break.
const FILE_BYTES: usize = 2 * SECRET_BYTES + 1;

/// Permission bits of the group and of everybody else.
const OTHERS: u32 = 0o077;

/// Why there is no secret. Each comes with [`SecretError::remedy`].
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be opened or read.
    #[error("cannot read the cluster's secret {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be made.
    #[error("cannot write the cluster's secret {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory, a device, a pipe.
    #[error("the cluster's secret {} is not a regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Others than its owner may use it.
    #[error(
        "the cluster's secret {} can be used by others: its mode is {mode:04o}",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Too short, too long.
    #[error(
        "the cluster's secret {} has {bytes} bytes, not {} hex digits and a line break",
        path.display(),
        2 * SECRET_BYTES
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Its bytes; those beyond the expected ones are not counted.
        bytes: usize,
    },
    /// Something else than 0-9 and a-f.
    #[error("the cluster's secret {} holds something else than hex digits", path.display())]
    NotHex {
        /// The file.
        path: PathBuf,
    },
}

impl SecretError {
    /// What to do about it, in words that can be typed.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            SecretError::Read { path, source } if source.kind() == io::ErrorKind::NotFound => {
                format!(
                    "copy it from a node that has it, mode 0600: `scp -p NODE:{0} {0}`; \
                     `standfast init` makes the first one",
                    path.display()
                )
            }
            SecretError::Read { source, .. } | SecretError::Write { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                "be root: the secret belongs to nobody else".to_owned()
            }
            SecretError::Read { .. } => "check the file and the disk it is on".to_owned(),
            SecretError::Write { .. } => "check the directory and its free space".to_owned(),
            SecretError::Exposed { path, .. } => {
                format!(
                    "`chmod 0600 {}`, and ask who has read it meanwhile",
                    path.display()
                )
            }
            SecretError::NotAFile { .. }
            | SecretError::Length { .. }
            | SecretError::NotHex { .. } => {
                "copy the file once more, unchanged, from a node that works".to_owned()
            }
        }
    }
}

/// The secret in the file at `path`.
///
/// # Errors
///
/// See [`SecretError`]; above all a file that its group or everybody may read or write.
pub fn read(path: &Path) -> Result<[u8; SECRET_BYTES], SecretError> {
    let named = || path.to_owned();
    let failed = |source| SecretError::Read {
        path: named(),
        source,
    };
    // Not blocking: somebody may have put a pipe there.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path);
    let file = opened.map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(SecretError::NotAFile { path: named() });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(SecretError::Exposed {
            path: named(),
            mode,
        });
    }
    let mut text = Vec::with_capacity(FILE_BYTES + 1);
    file.take(FILE_BYTES as u64 + 1)
        .read_to_end(&mut text)
        .map_err(failed)?;
    let secret = decode(&text, path);
    text.zeroize();
    secret
}

/// Makes the file; never touches one that is there.
///
/// # Errors
///
/// [`SecretError::Write`], of kind `AlreadyExists` if there is one.
pub fn create(path: &Path, secret: &[u8; SECRET_BYTES]) -> Result<(), SecretError> {
    let failed = |source| SecretError::Write {
        path: path.to_owned(),
        source,
    };
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut file: File = made.map_err(failed)?;
    let mut text: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    text.push('\n');
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    text.zeroize();
    written.map_err(failed)
}

/// The line break may be missing: editors and clipboards lose it.
fn decode(text: &[u8], path: &Path) -> Result<[u8; SECRET_BYTES], SecretError> {
    let digits = text.strip_suffix(b"\n").unwrap_or(text);
    if digits.len() != 2 * SECRET_BYTES {
        return Err(SecretError::Length {
            path: path.to_owned(),
            bytes: text.len(),
        });
    }
    let mut secret = [0; SECRET_BYTES];
    for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| (pair[at] as char).to_digit(16);
        let Some((high, low)) = digit(0).zip(digit(1)) else {
            return Err(SecretError::NotHex {
                path: path.to_owned(),
            });
        };
        *byte = (high << 4 | low) as u8;
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const SECRET: [u8; SECRET_BYTES] = [0xa5; SECRET_BYTES];

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        create(&path, &SECRET).unwrap();
        assert_eq!(read(&path).unwrap(), SECRET);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            0o600
        );
        assert_eq!(fs::read(&path).unwrap().len(), FILE_BYTES);
        let again = create(&path, &SECRET).unwrap_err();
        assert!(matches!(again, SecretError::Write { source, .. }
            if source.kind() == io::ErrorKind::AlreadyExists));
    }

    #[test]
    fn what_others_may_use_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        create(&path, &SECRET).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o602, 0o666] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = read(&path).unwrap_err();
            assert!(matches!(error, SecretError::Exposed { mode: found, .. } if found == mode));
            assert!(error.remedy().contains("chmod 0600"));
        }
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert_eq!(read(&path).unwrap(), SECRET);
    }

    #[test]
    fn what_is_not_a_secret_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let read_text = |text: &str| {
            let _ = fs::remove_file(&path);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            read(&path)
        };
        let digits = "0f".repeat(SECRET_BYTES);
        assert_eq!(read_text(&digits).unwrap(), [0x0f; SECRET_BYTES]);
        for wrong in [
            "",
            "\n",
            &digits[1..],
            &format!("{digits}00"),
            &format!("{digits}\n\n"),
        ] {
            assert!(
                matches!(read_text(wrong), Err(SecretError::Length { .. })),
                "{wrong:?}"
            );
        }
        let wrong = digits.replacen('f', "g", 1);
        assert!(matches!(read_text(&wrong), Err(SecretError::NotHex { .. })));
        let missing = read(&directory.path().join("absent")).unwrap_err();
        assert!(missing.remedy().contains("scp -p"));
        assert!(matches!(
            read(directory.path()),
            Err(SecretError::NotAFile { .. })
        ));
    }
}
