// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A file with this process's ID, for sending signals to it.
//!
//! The file is locked (flock(2)) as long as the process lives, so that one that was left behind is
//! distinguished from one in use, whatever process has its ID by now.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use vmm::{FileIdentity, FileName};

/// Bytes that hold a number and a newline (the largest is 2^22, proc_sys_kernel(5)).
const MAX_LEN: usize = 8;

/// Attempts at a file that others take away meanwhile.
const ATTEMPTS: u32 = 16;

/// The pidfile cannot be created or locked.
#[derive(Debug, thiserror::Error)]
pub enum PidfileError {
    /// Another process has it.
    #[error("The pidfile {} is in use by {owner}", path.display())]
    Taken {
        /// The file.
        path: PathBuf,
        /// Its contents.
        owner: String,
    },
    /// It is something else.
    #[error("{} is not a pidfile: it does not contain a process ID", path.display())]
    NotPidfile {
        /// The file.
        path: PathBuf,
    },
    /// The system.
    #[error("Cannot write the pidfile {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl PidfileError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Taken { .. } => Some(
                "name another file with --pidfile, or end the other run first (SIGTERM powers its \
                 guest off)"
                    .to_owned(),
            ),
            Self::NotPidfile { path } => Some(format!(
                "name another file with --pidfile, or remove this one: rm {}",
                path.display()
            )),
            Self::File { .. } => None,
        }
    }
}

/// The file, which is removed when dropped, if it still is this process's.
#[derive(Debug)]
pub struct Pidfile {
    name: FileName,
    identity: FileIdentity,
    lock: File,
}

impl Pidfile {
    /// Writes this process's ID to `path`. A stale file is replaced.
    ///
    /// # Errors
    /// [`PidfileError`]
    pub fn create(path: &Path) -> Result<Self, PidfileError> {
        let failed = |source| PidfileError::File {
            path: path.to_owned(),
            source,
        };
        let name = FileName::open(path).map_err(failed)?;
        for _ in 0..ATTEMPTS {
            let file = open(path).map_err(failed)?;
            let identity = FileIdentity::of(&file).map_err(failed)?;
            let taken = match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => false,
                Err(Errno::AGAIN) => true,
                Err(error) => return Err(failed(error.into())),
            };
            // Its owner may have removed it since it was opened.
            if name.identity() != Some(identity) {
                continue;
            }
            let mut text = String::new();
            let read = (&file).take(MAX_LEN as u64 + 1).read_to_string(&mut text);
            let number = text.strip_suffix('\n').unwrap_or(&text);
            let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
            if read.is_err() || text.len() > MAX_LEN || !is_number {
                return Err(PidfileError::NotPidfile {
                    path: path.to_owned(),
                });
            }
            if taken {
                return Err(PidfileError::Taken {
                    path: path.to_owned(),
                    owner: match number {
                        "" => "another process".to_owned(),
                        number => format!("process {number}"),
                    },
                });
            }
            let mut pidfile = Self {
                name,
                identity,
                lock: file,
            };
            return pidfile.write().map(|()| pidfile).map_err(failed);
        }
        Err(failed(io::Error::other(
            "another process keeps removing it",
        )))
    }

    /// The directory that it is in.
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.name.directory()
    }

    fn write(&mut self) -> io::Result<()> {
        self.lock.set_len(0)?;
        self.lock.rewind()?;
        writeln!(self.lock, "{}", std::process::id())
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // It may have been removed, and another process have made its own.
        self.name.remove("pidfile", Some(self.identity));
    }
}

/// Not through a symbolic link, and without waiting at a FIFO.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn own() -> String {
        format!("{}\n", std::process::id())
    }

    #[test]
    fn a_pidfile_is_there_while_it_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let held = Pidfile::create(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), own());
        let Err(PidfileError::Taken { owner, .. }) = Pidfile::create(&path) else {
            panic!("held twice");
        };
        assert_eq!(owner, format!("process {}", own().trim()));
        assert_eq!(fs::read_to_string(&path).unwrap(), own());
        drop(held);
        assert!(!path.exists());
        Pidfile::create(&path).unwrap();
    }

    #[test]
    fn the_file_of_another_process_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let first = Pidfile::create(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = Pidfile::create(&path).unwrap();
        drop(first);
        assert_eq!(fs::read_to_string(&path).unwrap(), own());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn one_that_was_left_behind_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        for left in ["1\n", "", "4194304\n"] {
            fs::write(&path, left).unwrap();
            let _held = Pidfile::create(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), own());
        }
    }

    #[test]
    fn other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious");
        for precious in [&b"root:x:0:0"[..], b"\xff", b"1\n2\n", b"123456789"] {
            fs::write(&path, precious).unwrap();
            let error = Pidfile::create(&path).unwrap_err();
            assert!(matches!(error, PidfileError::NotPidfile { .. }), "{error}");
            assert_eq!(fs::read(&path).unwrap(), precious);
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &link).unwrap();
        for wrong in [&link, folder.path(), Path::new("/dev/null")] {
            let error = Pidfile::create(wrong).unwrap_err();
            assert!(matches!(error, PidfileError::File { .. }), "{error}");
        }
        assert!(!folder.path().join("elsewhere").exists());
    }
}
