// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Who shows a monitor where its pages are. The file for that belongs to the address space of the process that it was
//! opened for, so it cannot be handed over with the rest: it is opened once the monitor has mapped guest memory, by a
//! privileged process that waits for that at the other end of the socket.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use iommufd_backend::Pagemap;
use keeper::{Channel, KeeperError, confine};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Pid, PidfdFlags, WaitOptions, getppid, pidfd_open, waitpid};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use crate::error::explain::chain;

/// How long a helper that has answered may take to exit.
const EXIT: Duration = Duration::from_secs(5);

/// What a monitor and its helper say to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
enum Message {
    /// The monitor: guest memory is mapped.
    Mapped,
    /// The helper: the file beside this shows where the monitor's pages are.
    Pagemap,
}

/// Who shows where this process's pages are.
#[derive(Debug, Default)]
pub(crate) enum PageView {
    /// The kernel, which has not been asked yet.
    #[default]
    Own,
    /// A helper, which has not been asked yet.
    Helper {
        /// The connection to it.
        channel: Channel,
        /// Its number, if it is a child of this process.
        child: Option<u32>,
    },
    /// A file that is open: for the check at the end, this process may not have the privilege any more.
    Open(Pagemap),
    /// No one, for this reason.
    Missing(String),
}

impl PageView {
    /// Opens the file, or asks the helper for it, if that was not done yet. Guest memory must be mapped.
    pub fn resolve(&mut self) {
        *self = match self {
            Self::Own => match Pagemap::open() {
                Ok(pagemap) => Self::Open(pagemap),
                Err(error) => Self::Missing(chain(&error)),
            },
            Self::Helper { channel, child } => {
                let answer = ask(channel);
                if let Some(child) = *child {
                    reap(child);
                }
                match answer {
                    Ok(pagemap) => Self::Open(pagemap),
                    Err(error) => Self::Missing(format!("no other process opened it: {error}")),
                }
            }
            Self::Open(_) | Self::Missing(_) => return,
        };
    }
}

fn ask(channel: &Channel) -> io::Result<Pagemap> {
    channel.send(&Message::Mapped, &[])?;
    let (message, files) = channel
        .receive::<Message>()?
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    match (message, <[_; 1]>::try_from(files)) {
        (Message::Pagemap, Ok([file])) => Ok(File::from(file).into()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Waits for the end of a helper that is a child of this process.
fn reap(child: u32) {
    let Some(pid) = i32::try_from(child).ok().and_then(Pid::from_raw) else {
        return;
    };
    // No child of this process, or gone.
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    let limit = Timespec::try_from(EXIT).ok();
    let mut end = [PollFd::new(&process, PollFlags::IN)];
    while let Err(rustix::io::Errno::INTR) = poll(&mut end, limit.as_ref()) {}
    if let Err(error) = waitpid(Some(pid), WaitOptions::NOHANG) {
        log::debug!("process {child}: {error}");
    }
}

/// Makes this process the helper of its parent, at the other end of standard input: it waits until the monitor, which the
/// parent is by then, has mapped guest memory, and passes it the file that shows where that is.
///
/// # Errors
/// [`KeeperError::Setup`]
pub fn help() -> Result<(), KeeperError> {
    // The monitor may belong to another user, whose file it then is (kernel/ptrace.c __ptrace_may_access).
    let needed =
        CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH;
    confine(c"pinvisor-helper", needed)?;
    let failed = |source| KeeperError::Setup {
        operation: "show the monitor where its pages are",
        source,
    };
    let input = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    show_parent(&input.into()).map_err(failed)
}

fn show_parent(channel: &Channel) -> io::Result<()> {
    let monitor = socket_peercred(channel)?.pid;
    let process = pidfd_open(monitor, PidfdFlags::empty())?;
    // Its number is not another one's by now.
    if getppid() != Some(monitor) {
        return Err(io::Error::other("the monitor ended"));
    }
    let number = monitor.as_raw_nonzero().get().unsigned_abs();
    show(channel, number, &process)
}

/// Waits until the monitor at the other end of `channel`, the process `number` and `process`, has mapped guest memory, and
/// passes it the file that shows where that is.
///
/// # Errors
/// Why it does not get that file.
pub(super) fn show(channel: &Channel, number: u32, process: &OwnedFd) -> io::Result<()> {
    match channel.receive::<Message>()? {
        Some((Message::Mapped, _)) => {}
        _ => return Ok(()),
    }
    let pagemap = Pagemap::open_for(number).map_err(io::Error::other)?;
    let mut end = [PollFd::new(process, PollFlags::IN)];
    let now = Timespec::default();
    if poll(&mut end, Some(&now))? > 0 {
        return Err(io::Error::other("the monitor ended"));
    }
    channel.send(&Message::Pagemap, &[pagemap.as_fd()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(helper: impl FnOnce(Channel) + Send) -> PageView {
        let (channel, other) = Channel::pair().unwrap();
        let mut view = PageView::Helper {
            channel,
            child: None,
        };
        std::thread::scope(|scope| {
            scope.spawn(|| helper(other));
            view.resolve();
        });
        view
    }

    #[test]
    fn a_helper_is_asked_once_and_may_be_gone() {
        let given = resolved(|other| {
            let (message, _) = other.receive::<Message>().unwrap().unwrap();
            assert_eq!(message, Message::Mapped);
            let pagemap = Pagemap::open().unwrap();
            other.send(&Message::Pagemap, &[pagemap.as_fd()]).unwrap();
        });
        assert!(matches!(given, PageView::Open(_)));
        assert!(matches!(resolved(drop), PageView::Missing(_)));
        let without_file = resolved(|other| {
            other.receive::<Message>().unwrap();
            other.send(&Message::Pagemap, &[]).unwrap();
        });
        assert!(matches!(without_file, PageView::Missing(_)));
        let mut own = PageView::Own;
        own.resolve();
        assert!(matches!(own, PageView::Open(_)));
    }
}
