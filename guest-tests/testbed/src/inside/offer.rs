// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A handover to `pinvisor run` from a sender that need not mean well (docs/reference/handover.md).

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};

use crate::error::{Error, Result};

/// What stands for the number of the socket in the command.
const NUMBER: &str = "fd=N";

/// What is sent, before the command is run.
#[derive(Args, Clone, Debug)]
pub struct Offer {
    /// The packet.
    #[arg(
        long,
        default_value = r#"{"format": "pinvisor-handover", "version": 1}"#
    )]
    header: String,
    /// The state. It is the first file beside the packet.
    #[arg(long, default_value = "{}")]
    state: String,
    /// The state can still be changed.
    #[arg(long)]
    unsealed: bool,
    /// Another file beside the packet.
    #[arg(long = "file")]
    files: Vec<PathBuf>,
    /// Send nothing, and close the socket.
    #[arg(long)]
    closed: bool,
}

/// Runs the command with the socket, whose number replaces N in its word `fd=N`, and returns its status.
///
/// # Errors
/// [`Error::Usage`], [`Error::Start`]
pub fn run(offer: &Offer, command: &[String]) -> Result<i32> {
    let failed = |error| Error::Usage(format!("Cannot offer: {error}"));
    let (ours, theirs) = sockets().map_err(failed)?;
    // The command, not this process, holds the other end.
    let sender = match offer.closed {
        true => {
            drop(ours);
            None
        }
        false => {
            send(&ours, offer).map_err(failed)?;
            Some(ours)
        }
    };
    let number = format!("fd={}", theirs.as_raw_fd());
    let words: Vec<_> = command
        .iter()
        .map(|word| match word.as_str() {
            NUMBER => number.clone(),
            word => word.to_owned(),
        })
        .collect();
    let status = super::run(&words);
    drop(sender);
    status
}

/// The sender's end, and the receiver's, which programs inherit.
fn sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let (ours, theirs) = socketpair(family, kind, SocketFlags::CLOEXEC, None)?;
    fcntl_setfd(&theirs, FdFlags::empty())?;
    Ok((ours, theirs))
}

fn send(socket: &OwnedFd, offer: &Offer) -> io::Result<()> {
    let state = state(offer)?;
    let files = offer.files.iter().map(|path| open(path));
    let files = files.collect::<io::Result<Vec<_>>>()?;
    let all: Vec<BorrowedFd<'_>> = [state.as_fd()]
        .into_iter()
        .chain(files.iter().map(AsFd::as_fd))
        .collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !beside.push(SendAncillaryMessage::ScmRights(&all)) {
        return Err(io::Error::other("too many files"));
    }
    let packet = [IoSlice::new(offer.header.as_bytes())];
    sendmsg(socket, &packet, &mut beside, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn state(offer: &Offer) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("state", flags)?);
    file.write_all(offer.state.as_bytes())?;
    if !offer.unsealed {
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW;
        rustix::fs::fcntl_add_seals(&file, seals)?;
    }
    Ok(file)
}

fn open(path: &Path) -> io::Result<File> {
    let opened = File::options().read(true).write(true).open(path);
    opened.or_else(|_| File::open(path))
}
