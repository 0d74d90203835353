// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A file of this process's by its name, which goes when the run ends, by way of the directory that was opened when the
//! file was made: in the end this process may open nothing, and its root directory may be another one.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat, fstat, openat, statat, unlinkat};
use rustix::io::Errno;

/// Device and inode of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity(u64, u64);

impl Identity {
    /// That of an open file.
    ///
    /// # Errors
    /// The errno of `fstat`.
    pub fn of(file: impl AsFd) -> io::Result<Self> {
        Ok(Self::from(fstat(file)?))
    }
}

impl From<Stat> for Identity {
    fn from(stat: Stat) -> Self {
        Self(stat.st_dev, stat.st_ino)
    }
}

/// A name in a directory that is open.
#[derive(Debug)]
pub struct FileName {
    directory: OwnedFd,
    name: OsString,
    path: PathBuf,
}

impl FileName {
    /// The name `path`, whether there is a file or not.
    ///
    /// # Errors
    /// The errno of opening its directory; [`io::ErrorKind::InvalidInput`] for a path that does not end in a name.
    pub fn open(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            directory: openat(CWD, parent, flags, Mode::empty())?,
            name: name.to_owned(),
            path: path.to_owned(),
        })
    }

    /// The path as it was given.
    #[must_use]
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The file that has the name now.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        let found = statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        found.ok().map(Identity::from)
    }

    /// Removes the file, unless the name belongs to another one than `own` by now. What fails is logged: `what` is the
    /// kind of file.
    pub fn remove(&self, what: &str, own: Option<Identity>) {
        let path = self.path.display();
        if own.is_none() || self.identity() != own {
            log::debug!("The {what} {path} now belongs to another process");
            return;
        }
        match unlinkat(&self.directory, &self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => log::warn!("Cannot remove the {what} {path}: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn a_file_goes_only_while_it_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("name");
        let name = FileName::open(&path).unwrap();
        assert_eq!(name.identity(), None);
        let first = File::create(&path).unwrap();
        let own = Identity::of(&first).unwrap();
        assert_eq!(name.identity(), Some(own));
        fs::rename(&path, folder.path().join("other")).unwrap();
        File::create(&path).unwrap();
        name.remove("file", Some(own));
        assert!(path.exists());
        fs::rename(folder.path().join("other"), &path).unwrap();
        name.remove("file", None);
        assert!(path.exists());
        name.remove("file", Some(own));
        assert!(!path.exists());
        for wrong in ["/", "..", "no/such/directory"] {
            assert!(FileName::open(Path::new(wrong)).is_err(), "{wrong}");
        }
        assert!(FileName::open(Path::new("name")).is_ok());
    }
}
