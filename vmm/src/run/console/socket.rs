// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A Unix stream socket that is the guest's serial line, for one client at a time.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::process::umask;

use crate::run::own_file::{FileName, Identity};

/// Sent to a client while another one is connected.
const BUSY: &[u8] = b"pinvisor: another client is using the serial port\r\n";

/// The socket that clients connect to; its file goes when it is dropped, if it still is this one's.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    name: FileName,
    identity: Option<Identity>,
}

impl Listener {
    /// Listens at `path`, for the user of this process only. A socket there on which no process
    /// listens any more is replaced.
    ///
    /// # Errors
    /// [`ErrorKind::AddrInUse`] if there is something else, or a process listens.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let name = FileName::open(path)?;
        let listener = match bind_private(path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && is_stale(path) => {
                fs::remove_file(path)?;
                bind_private(path)
            }
            result => result,
        }?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            identity: name.identity(),
            name,
        })
    }

    /// Readable when a client connects.
    #[must_use]
    pub fn socket(&self) -> &UnixListener {
        &self.listener
    }

    /// The file that clients connect to.
    #[must_use]
    pub fn path(&self) -> &PathBuf {
        self.name.path()
    }

    /// The directory of that file.
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.name.directory()
    }

    /// The next client, if there still is one.
    ///
    /// # Errors
    /// The errno of `accept`.
    pub fn accept(&self) -> io::Result<Option<UnixStream>> {
        loop {
            match self.listener.accept() {
                Ok((client, _)) => return Ok(Some(client)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It may have been removed, and another process listens at its own.
        self.name.remove("socket", self.identity);
    }
}

/// Sends a client away. It has just connected, so there is room for the words.
pub fn send_away(mut client: UnixStream) {
    let _ = client.write_all(BUSY);
}

/// The file's mode controls who may connect (unix(7)).
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let before = umask(Mode::RWXG | Mode::RWXO);
    let listener = UnixListener::bind(path);
    umask(before);
    listener
}

fn is_stale(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).is_err_and(refused)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_socket_is_private_and_goes_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serial");
        let listener = Listener::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
        assert!(listener.accept().unwrap().is_none());
        let mut client = UnixStream::connect(&path).unwrap();
        send_away(listener.accept().unwrap().unwrap());
        let mut words = Vec::new();
        client.read_to_end(&mut words).unwrap();
        assert_eq!(words, BUSY);
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn the_socket_of_another_process_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serial");
        let first = Listener::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = Listener::bind(&path).unwrap();
        drop(first);
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn only_a_socket_without_a_listener_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serial");
        drop(UnixListener::bind(&path).unwrap());
        let listener = Listener::bind(&path).unwrap();
        let refused = |path: &Path| Listener::bind(path).unwrap_err().kind();
        assert_eq!(refused(&path), ErrorKind::AddrInUse);
        assert!(path.exists());
        drop(listener);
        fs::write(&path, "a file").unwrap();
        assert_eq!(refused(&path), ErrorKind::AddrInUse);
        assert_eq!(fs::read(&path).unwrap(), b"a file");
    }
}
