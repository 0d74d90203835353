// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sends and receives a handover.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use keeper::{Channel, MAX_FILES};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::error::{HandoverError, Refusal};
use super::files::Files;
use super::state::{FORMAT, Header, MOST_BYTES, State, VERSION};

/// A sender has everything ready before it names the socket to a receiver.
const LIMIT: Duration = Duration::from_secs(10);

/// The file of the state cannot be changed any more.
const SEALS: SealFlags = SealFlags::WRITE
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW);

/// The receiver's end of a socket with a handover in it.
#[derive(Debug)]
pub struct Socket(Channel);

/// What was received, of which nothing is checked but that it is a state.
#[derive(Debug)]
pub(crate) struct Packet {
    /// The end of the socket.
    pub channel: Channel,
    pub state: State,
    pub files: Files,
}

impl Socket {
    /// `socket`, which the user named by `number`.
    ///
    /// # Errors
    /// [`HandoverError::Handover`] if it is not a Unix socket that keeps packets apart.
    pub fn new(socket: OwnedFd, number: u32) -> Result<Self, HandoverError> {
        let is_right = socket_domain(&socket) == Ok(AddressFamily::UNIX)
            && socket_type(&socket) == Ok(SocketType::SEQPACKET);
        if !is_right {
            let reason = "is not a Unix socket of type SOCK_SEQPACKET";
            return Err(Refusal::Descriptor { number, reason }.into());
        }
        let channel = Channel::from(socket);
        channel.limit_waits(LIMIT).map_err(Refusal::Receive)?;
        Ok(Self(channel))
    }

    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// [`HandoverError::HandoverSocket`]
    pub fn connect(path: &Path) -> Result<Self, HandoverError> {
        let connected = || -> io::Result<Channel> {
            let kind = (AddressFamily::UNIX, SocketType::SEQPACKET);
            let socket = socket_with(kind.0, kind.1, SocketFlags::CLOEXEC, None)?;
            connect(&socket, &SocketAddrUnix::new(path)?)?;
            let channel = Channel::from(socket);
            channel.limit_waits(LIMIT)?;
            Ok(channel)
        };
        connected()
            .map(Self)
            .map_err(|source| HandoverError::HandoverSocket {
                operation: "connect to",
                path: path.to_owned(),
                source,
            })
    }

    /// Waits for the handover.
    ///
    /// # Errors
    /// [`HandoverError::Handover`]
    pub(crate) fn receive(self) -> Result<Packet, HandoverError> {
        let Self(channel) = self;
        let (header, files) = match channel.receive::<Header>() {
            Ok(Some(received)) => received,
            Ok(None) => return Err(Refusal::Closed.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let text = format!("nothing arrived within {} s", LIMIT.as_secs());
                return Err(HandoverError::wrong(text));
            }
            Err(error) => return Err(Refusal::Receive(error).into()),
        };
        let Header { format, version } = header;
        if format != FORMAT || version != VERSION {
            return Err(Refusal::Version { format, version }.into());
        }
        let mut files = Files::new(files);
        let state = read(files.take(0, "the state")?)?;
        Ok(Packet {
            channel,
            state,
            files,
        })
    }
}

/// Reads the state in `file`.
fn read(file: OwnedFd) -> Result<State, HandoverError> {
    let examine = |source: io::Error| Refusal::Examine {
        what: "the file of the state".to_owned(),
        source,
    };
    let seals = rustix::fs::fcntl_get_seals(&file).map_err(|error| examine(error.into()))?;
    if !seals.contains(SEALS) {
        let text = "the file of its state is not sealed against changes (F_SEAL_WRITE, F_SEAL_SHRINK, F_SEAL_GROW)";
        return Err(HandoverError::wrong(text));
    }
    let file = File::from(file);
    let len = file.metadata().map_err(examine)?.len();
    let bytes = usize::try_from(len).ok().filter(|_| len <= MOST_BYTES);
    let Some(bytes) = bytes else {
        let text = format!("its state has {len} bytes, more than {MOST_BYTES}");
        return Err(HandoverError::wrong(text));
    };
    let mut text = vec![0; bytes];
    file.read_exact_at(&mut text, 0).map_err(examine)?;
    Ok(serde_json::from_slice(&text).map_err(Refusal::Parse)?)
}

/// Sends `state`, and `files` in the order of their numbers from 1 on.
///
/// # Errors
/// [`io::Error`], with the reason as text if it is too large.
pub(crate) fn send(channel: &Channel, state: &State, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let text = serde_json::to_vec(state)?;
    if text.len() as u64 > MOST_BYTES {
        let text = format!(
            "guest memory is in so many pieces that a handover of it has {} bytes, more than {MOST_BYTES}",
            text.len()
        );
        return Err(io::Error::other(text));
    }
    if files.len() >= MAX_FILES {
        let text = format!(
            "the guest has {} devices and files, more than the {} that can be passed through a socket",
            files.len(),
            MAX_FILES - 1
        );
        return Err(io::Error::other(text));
    }
    let sealed = sealed(&text)?;
    let all = [sealed.as_fd()].into_iter().chain(files.iter().copied());
    let all: Vec<_> = all.collect();
    channel.send(&Header::default(), &all)
}

/// A file of `text` that cannot be changed any more.
fn sealed(text: &[u8]) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("handover", flags)?);
    file.write_all(text)?;
    rustix::fs::fcntl_add_seals(&file, SEALS | SealFlags::SEAL)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(header: &Header, files: &[BorrowedFd<'_>]) -> String {
        let (ours, theirs) = Channel::pair().unwrap();
        theirs.send(header, files).unwrap();
        let socket = Socket::new(ours.into(), 3).unwrap();
        socket.receive().unwrap_err().to_string()
    }

    #[test]
    fn a_state_arrives_with_its_files() {
        let (ours, theirs) = Channel::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let state = State {
            helper: Some(7),
            ..State::default()
        };
        send(&theirs, &state, &[file.as_fd()]).unwrap();
        let mut packet = Socket::new(ours.into(), 3).unwrap().receive().unwrap();
        assert_eq!(packet.state, state);
        packet.files.take(1, "a file").unwrap();
        packet.files.finish().unwrap();
    }

    #[test]
    fn other_formats_and_versions_are_refused() {
        let file = sealed(b"{}").unwrap();
        for (format, version) in [("other", VERSION), (FORMAT, 0), (FORMAT, VERSION + 1)] {
            let header = Header {
                format: format.to_owned(),
                version,
            };
            let text = refused(&header, &[file.as_fd()]);
            assert!(text.contains(&format!("version {version}")), "{text}");
        }
    }

    #[test]
    fn a_state_that_can_change_or_is_none_is_refused() {
        let header = Header::default();
        assert!(refused(&header, &[]).contains("no file number 0"));
        let plain = tempfile::tempfile().unwrap();
        assert!(refused(&header, &[plain.as_fd()]).contains("cannot examine"));
        let flags = MemfdFlags::ALLOW_SEALING;
        let unsealed = rustix::fs::memfd_create("state", flags).unwrap();
        assert!(refused(&header, &[unsealed.as_fd()]).contains("not sealed"));
        for text in ["", "[]", "{}", r#"{"devices": 1}"#] {
            let text = refused(&header, &[sealed(text.as_bytes()).unwrap().as_fd()]);
            assert!(text.contains("cannot be read"), "{text}");
        }
        let large = rustix::fs::memfd_create("state", flags).unwrap();
        rustix::fs::ftruncate(&large, MOST_BYTES + 1).unwrap();
        rustix::fs::fcntl_add_seals(&large, SEALS).unwrap();
        assert!(refused(&header, &[large.as_fd()]).contains("more than"));
    }

    #[test]
    fn what_is_no_such_socket_or_has_no_sender_is_refused() {
        let file = tempfile::tempfile().unwrap();
        let error = Socket::new(file.into(), 7).unwrap_err().to_string();
        assert!(
            error.contains("descriptor 7 is not a Unix socket"),
            "{error}"
        );
        let (ours, theirs) = Channel::pair().unwrap();
        drop(theirs);
        let error = Socket::new(ours.into(), 3).unwrap().receive().unwrap_err();
        assert!(error.to_string().contains("closed the socket"), "{error}");
    }

    #[test]
    fn more_files_than_a_packet_takes_are_an_error() {
        let (_ours, theirs) = Channel::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let files = vec![file.as_fd(); MAX_FILES];
        let error = send(&theirs, &State::default(), &files).unwrap_err();
        assert!(
            error.to_string().contains("253 devices and files"),
            "{error}"
        );
        send(&theirs, &State::default(), &files[1..]).unwrap();
    }
}
