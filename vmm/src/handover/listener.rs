// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A socket at which one process asks for a handover.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use keeper::Channel;
use nix::sys::socket::{getsockopt, sockopt::PeerPidfd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{AtFlags, CWD, RenameFlags, chownat, renameat_with, unlink};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};
use rustix::process::{Gid, Pid, Uid, geteuid};

use super::page_view;
use crate::confine::User;
use crate::run::event_loop::Signals;
use crate::run::own_socket::OwnSocket;

/// The socket. Its file goes when it is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnSocket<OwnedFd>,
    user: Uid,
}

impl Listener {
    /// Listens at `path`, for processes of `user`, or of this process's.
    ///
    /// # Errors
    /// Those of [`OwnSocket::bind`] and of `chown`.
    pub fn bind(path: &Path, user: Option<&User>) -> io::Result<Self> {
        Ok(Self {
            socket: OwnSocket::bind(path, |path| listen_at(path, user))?,
            user: user.map_or_else(geteuid, |user| Uid::from_raw(user.uid)),
        })
    }

    /// Waits for a process of the user; `None` if a signal comes first. Others are sent away.
    ///
    /// # Errors
    /// The errno of `poll`, `accept` or `getsockopt`.
    pub fn wait(&self, signals: &Signals) -> io::Result<Option<Receiver>> {
        loop {
            let listener = PollFd::new(self.socket.socket(), PollFlags::IN);
            let mut events = [
                listener,
                PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
            ];
            match poll(&mut events, None) {
                Err(Errno::INTR) => continue,
                result => result?,
            };
            if !events[1].revents().is_empty() {
                return Ok(None);
            }
            let client = match accept_with(self.socket.socket(), SocketFlags::CLOEXEC) {
                Err(Errno::INTR | Errno::CONNABORTED | Errno::AGAIN) => continue,
                result => result?,
            };
            let peer = socket_peercred(&client)?;
            if peer.uid == self.user {
                return Receiver::new(client, peer.pid).map(Some);
            }
            log::warn!(
                "Process {} of user {} asks for the handover, which is for user {}: refused",
                peer.pid,
                peer.uid,
                self.user
            );
        }
    }
}

/// Listens at `path`, which is there once the socket can be connected to.
fn listen_at(path: &Path, user: Option<&User>) -> io::Result<OwnedFd> {
    let mut hidden = path.as_os_str().to_owned();
    hidden.push(format!(".{}", std::process::id()));
    let hidden = Path::new(&hidden);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(hidden)?)?;
    let shown = || {
        if let Some(User { uid, gid, .. }) = user {
            let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            chownat(CWD, hidden, Some(uid), Some(gid), flags)?;
        }
        listen(&socket, 1)?;
        renameat_with(CWD, hidden, CWD, path, RenameFlags::NOREPLACE)
    };
    match shown() {
        Ok(()) => Ok(socket),
        Err(errno) => {
            // It is of no use, and its name may be gone.
            let _ = unlink(hidden);
            Err(match errno {
                Errno::EXIST => Errno::ADDRINUSE,
                other => other,
            }
            .into())
        }
    }
}

/// A process that asks for a handover.
#[derive(Debug)]
pub(crate) struct Receiver {
    channel: Channel,
    process: OwnedFd,
    pid: Pid,
}

impl Receiver {
    /// The process that connected `socket`, and has this number here.
    fn new(socket: OwnedFd, pid: Pid) -> io::Result<Self> {
        Ok(Self {
            process: getsockopt(&socket, PeerPidfd)?,
            channel: socket.into(),
            pid,
        })
    }

    /// The connection to it.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Its process, as a pidfd.
    pub fn process(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits until it has mapped guest memory, and shows it where that is.
    ///
    /// # Errors
    /// Why it does not see that.
    pub fn show_pages(&self) -> io::Result<()> {
        page_view::show(&self.channel, self.pid(), &self.process)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::super::packet::{Socket, send};
    use super::super::state::State;
    use super::*;

    #[test]
    fn a_process_of_the_user_receives_and_one_of_another_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover");
        let signals = Signals::take().unwrap();
        let listener = Listener::bind(&path, None).unwrap();
        let file = std::fs::metadata(&path).unwrap();
        assert_eq!(
            (file.permissions().mode() & 0o777, file.uid()),
            (0o700, geteuid().as_raw())
        );
        let socket = Socket::connect(&path).unwrap();
        let receiver = listener.wait(&signals).unwrap().unwrap();
        assert_eq!(receiver.pid(), std::process::id());
        let state = State {
            helper: Some(7),
            ..State::default()
        };
        send(receiver.channel(), &state, &[]).unwrap();
        assert_eq!(socket.receive().unwrap().state, state);
        let others = Listener {
            user: Uid::from_raw(geteuid().as_raw() + 1),
            ..listener
        };
        let refused = Socket::connect(&path).unwrap();
        // The signal ends the wait for another one.
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGUSR1).unwrap();
        while others.wait(&signals).unwrap().is_some() {}
        let other = Listener::bind(&path, None).unwrap_err();
        assert_eq!(other.kind(), io::ErrorKind::AddrInUse);
        drop(others);
        assert!(
            refused
                .receive()
                .unwrap_err()
                .to_string()
                .contains("closed the socket")
        );
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_connected_to_is_reported_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none");
        let error = Socket::connect(&path).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}
