// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Writing to a reader that may not be reading, without waiting for it.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Writes as much as there is room for now, or within `patience`; else fails with
/// [`io::ErrorKind::WouldBlock`]. The descriptor may be shared with others and is not changed.
#[derive(Debug)]
pub struct Unblocked<T> {
    target: T,
    patience: Duration,
}

impl<T: AsFd> Unblocked<T> {
    /// Writes to `target`, for which it waits at most `patience`.
    pub fn new(target: T, patience: Duration) -> Self {
        Self { target, patience }
    }

    fn has_room(&self) -> io::Result<bool> {
        let timeout = Timespec::try_from(self.patience).map_err(io::Error::other)?;
        let mut wanted = [PollFd::new(&self.target, PollFlags::OUT)];
        match poll(&mut wanted, Some(&timeout)) {
            // An error counts as room: writing reports which.
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Unblocked<OwnedFd> {
    /// Another descriptor for the same.
    ///
    /// # Errors
    /// The errno of `fcntl`.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::new(self.target.try_clone()?, self.patience))
    }
}

impl<T: AsFd> Write for Unblocked<T> {
    /// A pipe with room has it for `PIPE_BUF` bytes (pipe(7)), so no more are written at once.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.has_room()? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = bytes.len().min(rustix::pipe::PIPE_BUF);
        Ok(rustix::io::write(&self.target, &bytes[..count])?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_pipe_and_a_closed_one_are_distinguished_without_waiting() {
        let (reader, writer) = io::pipe().unwrap();
        let mut writer = Unblocked::new(writer, Duration::ZERO);
        writer.write_all(b"x").unwrap();
        let full = loop {
            if let Err(error) = writer.write_all(&[0; 1000]) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        drop(reader);
        let closed = writer.write_all(b"x").unwrap_err();
        assert_eq!(closed.kind(), io::ErrorKind::BrokenPipe);
    }
}
