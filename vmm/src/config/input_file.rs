// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Files named by users.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::retry_on_intr;

/// Longest file of text in bytes.
const LONGEST: u64 = 1 << 20;

/// Opens a file to be loaded, whose length must be known before: returns it with its length in bytes. Does not wait at a
/// FIFO.
///
/// # Errors
/// The errno; that it is not a regular file.
pub fn open(path: &Path) -> io::Result<(File, u64)> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = retry_on_intr(|| openat(CWD, path, flags, Mode::empty()))?;
    let file = File::from(file);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok((file, metadata.len()))
}

/// Reads a file of text, of any kind, which must not be longer than 1 MiB.
///
/// # Errors
/// The errno; that it is too long or no UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut file = File::open(path)?.take(LONGEST + 1);
    file.read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(io::Error::other("it is longer than 1 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::mkfifoat;

    use super::*;

    #[test]
    fn only_regular_files_are_loaded_without_waiting_for_others() {
        let folder = tempfile::tempdir().unwrap();
        let (file, fifo) = (folder.path().join("file"), folder.path().join("fifo"));
        fs::write(&file, "text").unwrap();
        mkfifoat(CWD, &fifo, Mode::RUSR).unwrap();
        assert_eq!(open(&file).unwrap().1, 4);
        for other in [&fifo, folder.path(), Path::new("/dev/null")] {
            assert!(open(other).is_err(), "{}", other.display());
        }
    }

    #[test]
    fn text_without_end_is_refused() {
        assert!(read_text(Path::new("/dev/zero")).is_err());
        assert_eq!(read_text(Path::new("/dev/null")).unwrap(), "");
    }
}
