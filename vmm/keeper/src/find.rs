// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Finds keepers by their sockets, in a directory that only root can write to.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use address::Bdf;
use nix::sys::socket::{getsockopt, sockopt};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, mkdirat, openat, statat, unlinkat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use rustix::process::geteuid;

use crate::KeeperError;
use crate::channel::Channel;
use crate::message::{Answer, Request, Status, ask};

/// Where keepers have their sockets.
pub const DIRECTORY: &str = "/run/pinvisor";

/// What their names begin with; the process number follows.
const NAME: &str = "keeper-";

/// A keeper responds at once, or never.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A keeper that keeps memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its process ID, from the kernel.
    pub pid: u32,
    /// What it keeps.
    pub status: Status,
    socket: PathBuf,
}

impl Found {
    /// One that cannot be asked, for tests of how it is shown.
    #[doc(hidden)]
    #[must_use]
    pub fn example(pid: u32, status: Status) -> Self {
        Self {
            pid,
            status,
            socket: PathBuf::new(),
        }
    }
}

/// The keepers that have their sockets in `directory`, normally [`DIRECTORY`]. What does not belong
/// to root or to the caller counts for nothing, and neither does what makes no sense.
#[must_use]
pub fn find(directory: &Path) -> Vec<Found> {
    if !is_trusted(directory) {
        return Vec::new();
    }
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<Found> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(NAME))
        .filter_map(|entry| match look(&entry.path()) {
            Ok(found) => Some(found),
            Err(error) => {
                log::debug!("{}: {error}", entry.path().display());
                None
            }
        })
        .collect();
    found.sort_unstable_by_key(|found| found.pid);
    found
}

/// Reports to the keeper that `bdf` is quiet, and returns what it then keeps. With no device left,
/// its memory is released.
///
/// # Errors
/// [`KeeperError::Silent`], [`KeeperError::Refused`]
pub fn release(found: &Found, bdf: Bdf) -> Result<Status, KeeperError> {
    let silent = |source| KeeperError::Silent {
        pid: found.pid,
        source,
    };
    let (channel, _) = call(&found.socket).map_err(silent)?;
    let answer = ask(&channel, &Request::Release { bdf }, &[]).map_err(silent)?;
    match answer {
        Answer::Status(status) => Ok(status.fit_to_show()),
        answer => Err(KeeperError::Refused {
            pid: found.pid,
            why: format!("{answer:?}"),
        }),
    }
}

fn look(socket: &Path) -> io::Result<Found> {
    let (channel, pid) = call(socket)?;
    match ask(&channel, &Request::Status, &[])? {
        Answer::Status(status) => Ok(Found {
            pid,
            status: status.fit_to_show(),
            socket: socket.to_owned(),
        }),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A connection to the keeper at `path`, and its process number.
fn call(path: &Path) -> io::Result<(Channel, u32)> {
    let socket = new_socket()?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let pid = trusted_peer(&socket)?;
    let channel = Channel(socket);
    channel.limit_waits(ANSWER_TIMEOUT)?;
    Ok((channel, pid))
}

fn new_socket() -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(socket_with(family, kind, SocketFlags::CLOEXEC, None)?)
}

/// The process at the other end, which must be root's or the caller's own: 0 if it is outside of this PID namespace, as
/// the host's processes are for a container's. (`rustix` has no such process ID, and reports an error.)
pub(crate) fn trusted_peer(socket: impl AsFd) -> io::Result<u32> {
    let peer = getsockopt(&socket, sockopt::PeerCredentials)?;
    if peer.uid() != 0 && peer.uid() != geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(peer.pid().unsigned_abs())
}

/// Whether only root and the caller can have put something into `directory`.
fn is_trusted(directory: &Path) -> bool {
    let Ok(found) = statat(CWD, directory, AtFlags::SYMLINK_NOFOLLOW) else {
        return false;
    };
    let is_ours = found.st_uid == 0 || found.st_uid == geteuid().as_raw();
    let others_write = found.st_mode & 0o022 != 0;
    let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
    if !is_directory || !is_ours || others_write {
        log::warn!(
            "{} is not a directory that only root can write to: it is not searched for keepers",
            directory.display()
        );
        return false;
    }
    true
}

fn make(directory: &Path) -> io::Result<()> {
    match mkdirat(CWD, directory, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Opens the directory [`DIRECTORY`], which is made if there is none.
///
/// # Errors
/// The errno of what failed.
pub fn open_directory() -> io::Result<OwnedFd> {
    let directory = Path::new(DIRECTORY);
    make(directory)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(CWD, directory, flags, Mode::empty())?)
}

/// A socket in a directory, which is removed with it.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) listener: OwnedFd,
    path: PathBuf,
}

impl Published {
    /// Makes this process found in `directory`.
    pub(crate) fn new(directory: &Path) -> io::Result<Self> {
        make(directory)?;
        if !is_trusted(directory) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let path = directory.join(format!("{NAME}{}", std::process::id()));
        match unlinkat(CWD, &path, AtFlags::empty()) {
            // Left behind by another process of the same number.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let listener = new_socket()?;
        bind(&listener, &SocketAddrUnix::new(&path)?)?;
        listen(&listener, 8)?;
        Ok(Self { listener, path })
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        if let Err(error) = unlinkat(CWD, &self.path, AtFlags::empty()) {
            log::debug!("{}: {error}", self.path.display());
        }
    }
}
