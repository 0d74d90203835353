// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A Unix stream socket that is the guest's serial line, for one client at a time.

use std::io::{self, ErrorKind, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::run::own_socket::OwnSocket;

/// Sent to a client while another one is connected.
const BUSY: &[u8] = b"pinvisor: another client is using the serial port\r\n";

/// The socket that clients connect to.
#[derive(Debug)]
pub struct Listener(OwnSocket<UnixListener>);

impl Listener {
    /// Listens at `path`, for the user of this process only.
    ///
    /// # Errors
    /// Those of [`OwnSocket::bind`].
    pub fn bind(path: &Path) -> io::Result<Self> {
        let bound = OwnSocket::bind(path, |path| UnixListener::bind(path))?;
        bound.socket().set_nonblocking(true)?;
        Ok(Self(bound))
    }

    /// Readable when a client connects.
    #[must_use]
    pub fn socket(&self) -> &UnixListener {
        self.0.socket()
    }

    /// The file that clients connect to.
    #[must_use]
    pub fn path(&self) -> &PathBuf {
        self.0.path()
    }

    /// The directory of that file.
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.0.directory()
    }

    /// The next client, if there still is one.
    ///
    /// # Errors
    /// The errno of `accept`.
    pub fn accept(&self) -> io::Result<Option<UnixStream>> {
        loop {
            match self.socket().accept() {
                Ok((client, _)) => return Ok(Some(client)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Sends a client away. It has just connected, so there is room for the words.
pub fn send_away(mut client: UnixStream) {
    let _ = client.write_all(BUSY);
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn one_client_is_served_and_another_sent_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serial");
        let listener = Listener::bind(&path).unwrap();
        assert!(listener.accept().unwrap().is_none());
        let mut client = UnixStream::connect(&path).unwrap();
        send_away(listener.accept().unwrap().unwrap());
        let mut words = Vec::new();
        client.read_to_end(&mut words).unwrap();
        assert_eq!(words, BUSY);
    }
}
