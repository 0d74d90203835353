// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A pseudoterminal that is the guest's serial line.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::terminal;

/// Both ends of a pseudoterminal. The terminal end is kept open, so that readers may come and go:
/// without any, what the guest prints waits as far as there is room.
#[derive(Debug)]
pub struct Pty {
    controller: OwnedFd,
    #[cfg_attr(
        not(any(test, feature = "testing")),
        expect(dead_code, reason = "kept open")
    )]
    terminal: OwnedFd,
    path: PathBuf,
}

impl Pty {
    /// Makes one that neither echoes nor changes anything.
    ///
    /// # Errors
    /// The errno of what failed.
    pub fn open() -> io::Result<Self> {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&controller)?;
        unlockpt(&controller)?;
        let path = ptsname(&controller, Vec::new())?
            .into_string()
            .map_err(io::Error::other)?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = rustix::fs::open(&path, flags, Mode::empty())?;
        terminal::make_plain(&terminal)?;
        Ok(Self {
            controller,
            terminal,
            path: path.into(),
        })
    }

    /// This process's end.
    #[must_use]
    pub fn controller(&self) -> &OwnedFd {
        &self.controller
    }

    /// The other end.
    #[cfg(any(test, feature = "testing"))]
    pub fn terminal(&self) -> &OwnedFd {
        &self.terminal
    }

    /// Where others open the other end: `/dev/pts/N`.
    #[must_use]
    pub fn path(&self) -> &PathBuf {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn readers_come_and_go_and_bytes_stay_as_they_are() {
        let pty = Pty::open().unwrap();
        let mut controller = File::from(pty.controller().try_clone().unwrap());
        for round in [b"a\n\x03\x04", b"b\r\x11\x13"] {
            let open = || File::options().read(true).write(true).open(pty.path());
            let mut user = open().unwrap();
            let mut got = [0; 4];
            controller.write_all(round).unwrap();
            user.read_exact(&mut got).unwrap();
            assert_eq!(&got, round);
            user.write_all(round).unwrap();
            controller.read_exact(&mut got).unwrap();
            assert_eq!(&got, round);
        }
    }
}
