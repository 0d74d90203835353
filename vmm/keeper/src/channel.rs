// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Packets between processes of this program: one JSON object in each, with open files beside it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest packet in bytes: a bus of 32 devices with a reason each is far shorter.
const MAX_PACKET_LEN: usize = 64 << 10;

/// Most files in a packet (include/net/scm.h SCM_MAX_FD).
pub const MAX_FILES: usize = 253;

/// One end of a connection that keeps packets apart: a Unix socket of type SOCK_SEQPACKET.
#[derive(Debug)]
pub struct Channel(pub(crate) OwnedFd);

impl From<OwnedFd> for Channel {
    /// Such a socket, connected.
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}

impl Channel {
    /// Two ends that are connected, both closed on exec. The kernel takes this process for the peer of both (SO_PEERCRED).
    ///
    /// # Errors
    /// That of `socketpair`.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let (one, other) = socketpair(family, kind, SocketFlags::CLOEXEC, None)?;
        Ok((Self(one), Self(other)))
    }

    /// Waits for the other end only so long, to receive and to send.
    ///
    /// # Errors
    /// That of `setsockopt`.
    pub fn limit_waits(&self, limit: Duration) -> io::Result<()> {
        for way in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&self.0, way, Some(limit))?;
        }
        Ok(())
    }

    /// Sends `message` and `files`.
    ///
    /// # Errors
    /// That of `sendmsg`; [`io::ErrorKind::InvalidInput`] for more files than [`MAX_FILES`].
    pub fn send(&self, message: &impl Serialize, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = SendFlags::NOSIGNAL;
        sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut beside, flags)?;
        Ok(())
    }

    /// Waits for a packet, and returns its length; 0 once the other end is closed.
    fn next_len(&self) -> io::Result<usize> {
        let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
        let peek = || recvmsg(&self.0, &mut [], &mut RecvAncillaryBuffer::default(), flags);
        match retry_on_intr(peek) {
            Err(Errno::CONNRESET) => Ok(0),
            result => Ok(result?.bytes),
        }
    }

    /// Waits for a message and its files; `None` once the other end is closed.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for one that makes no sense; the next one may.
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        // A buffer for the longest packet would be in memory while none arrives.
        let mut bytes = match self.next_len()? {
            0 => return Ok(None),
            len => vec![0; len.min(MAX_PACKET_LEN)],
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let slices = &mut [IoSliceMut::new(&mut bytes)];
        let received = match retry_on_intr(|| recvmsg(&self.0, slices, &mut beside, flags)) {
            Err(Errno::CONNRESET) => return Ok(None),
            result => result?,
        };
        let mut files = Vec::new();
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                files.extend(rights);
            }
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        // More files than this process may open are left out, too (CTRUNC).
        if received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let message = serde_json::from_slice(&bytes[..received.bytes])
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Some((message, files)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_as_the_kernel_takes_are_passed() {
        let (one, other) = Channel::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let files = vec![file.as_fd(); MAX_FILES];
        one.send(&"files", &files).unwrap();
        let (text, received) = other.receive::<String>().unwrap().unwrap();
        assert_eq!((text.as_str(), received.len()), ("files", MAX_FILES));
        let more = vec![file.as_fd(); MAX_FILES + 1];
        let error = one.send(&"files", &more).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
