// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A Unix socket of this process's by its name.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::process::umask;

use crate::run::own_file::{FileName, Identity};

/// A socket that others connect to; its file goes when it is dropped, if it still is this one's.
#[derive(Debug)]
pub struct OwnSocket<S> {
    socket: S,
    name: FileName,
    identity: Option<Identity>,
}

impl<S> OwnSocket<S> {
    /// What `bind` makes of `path`, for the user of this process only. A socket there on which no process listens any more
    /// is replaced.
    ///
    /// # Errors
    /// [`ErrorKind::AddrInUse`] if there is something else, or a process listens; those of `bind`.
    pub fn bind(path: &Path, bind: impl Fn(&Path) -> io::Result<S>) -> io::Result<Self> {
        let name = FileName::open(path)?;
        // The file's mode controls who may connect (unix(7)).
        let private = || {
            let before = umask(Mode::RWXG | Mode::RWXO);
            let bound = bind(path);
            umask(before);
            bound
        };
        let socket = match private() {
            Err(error) if error.kind() == ErrorKind::AddrInUse && is_stale(path) => {
                fs::remove_file(path)?;
                private()
            }
            result => result,
        }?;
        Ok(Self {
            socket,
            identity: name.identity(),
            name,
        })
    }

    /// The socket.
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// Its file.
    pub fn path(&self) -> &PathBuf {
        self.name.path()
    }

    /// The directory of that file.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.name.directory()
    }
}

impl<S> Drop for OwnSocket<S> {
    fn drop(&mut self) {
        // It may have been removed, and another process listens at its own.
        self.name.remove("socket", self.identity);
    }
}

fn is_stale(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).is_err_and(refused)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn bind(path: &Path) -> io::Result<OwnSocket<UnixListener>> {
        OwnSocket::bind(path, |path| UnixListener::bind(path))
    }

    #[test]
    fn a_socket_is_private_and_goes_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn the_socket_of_another_process_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let first = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = bind(&path).unwrap();
        drop(first);
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn only_a_socket_without_a_listener_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        drop(UnixListener::bind(&path).unwrap());
        let socket = bind(&path).unwrap();
        let refused = |path: &Path| bind(path).unwrap_err().kind();
        assert_eq!(refused(&path), ErrorKind::AddrInUse);
        assert!(path.exists());
        drop(socket);
        fs::write(&path, "a file").unwrap();
        assert_eq!(refused(&path), ErrorKind::AddrInUse);
        assert_eq!(fs::read(&path).unwrap(), b"a file");
    }
}
