// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Serialises processes that allocate hugepages.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, retry_on_intr};

/// The turn of this process, which ends when it is dropped.
#[derive(Debug)]
pub struct Turn {
    _lock: Option<File>,
}

impl Turn {
    /// Waits until no other process has a turn at `directory`, which is locked (flock(2)), as a
    /// mount that is read-only allows, too. Otherwise, this process continues without the lock.
    ///
    /// `what` others are doing meanwhile is logged: it follows "another process ".
    pub fn at(directory: &Path, what: &str) -> Self {
        let lock = lock(directory, what)
            .inspect_err(|error| log::debug!("{} cannot be locked: {error}", directory.display()));
        Self { _lock: lock.ok() }
    }
}

fn lock(directory: &Path, what: &str) -> io::Result<File> {
    let file = File::open(directory)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::AGAIN) => {
            log::info!("Another process {what}; waiting");
            retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))?;
        }
        result => result?,
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_waits_for_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let first = Turn::at(&path, "is first");
        let (tells, told) = mpsc::channel();
        let second = thread::spawn(move || {
            let turn = Turn::at(&path, "is first");
            tells.send(()).unwrap();
            turn
        });
        assert!(told.recv_timeout(Duration::from_millis(100)).is_err());
        drop(first);
        told.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(second.join().unwrap()._lock.is_some());
    }

    #[test]
    fn nothing_waits_if_nothing_can_be_locked() {
        let folder = tempfile::tempdir().unwrap();
        let turn = Turn::at(&folder.path().join("none"), "is there");
        assert!(turn._lock.is_none());
    }
}
