// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The monitor's side: a keeper is started before the first device is bound.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;

use iommufd_backend::Leftover;
use rustix::io::retry_on_intr;
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::KeeperError;
use crate::channel::Channel;
use crate::message::{Answer, Kept, MAX_PARTS, Request, ask};

/// This program, which can be a keeper, whatever has become of its file.
const PROGRAM: &str = "/proc/self/exe";

/// What makes it one.
const COMMAND: &str = "keeper";

/// By what a service manager speaks with the monitor (sd_notify(3), sd_watchdog_enabled(3)). It is not the keeper's.
const OF_SERVICE_MANAGERS: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// The keeper of this process. When this process ends without a word to it, it makes the devices
/// quiet by itself, and keeps the memory if it cannot.
#[derive(Debug)]
pub struct Keeper {
    channel: Channel,
    pid: Pid,
}

impl Keeper {
    /// Starts a keeper for `devices`, none of which is bound yet, and `iommufd`, to which they will
    /// be; without one they will be opened through their groups, and the keeper pins memory
    /// [itself](Self::pin). It is a new process from the start, not a copy of this one.
    ///
    /// # Errors
    /// [`KeeperError::Start`], [`KeeperError::Silent`]
    pub fn start(
        iommufd: Option<BorrowedFd<'_>>,
        devices: &[Leftover],
    ) -> Result<Self, KeeperError> {
        Self::start_as(PROGRAM, iommufd, devices)
    }

    fn start_as(
        program: &str,
        iommufd: Option<BorrowedFd<'_>>,
        devices: &[Leftover],
    ) -> Result<Self, KeeperError> {
        let (ours, theirs) = Channel::pair().map_err(KeeperError::Start)?;
        // What it prints has no reader. Not every container has /dev/null.
        let (_, nowhere) = io::pipe().map_err(KeeperError::Start)?;
        // The command ends here: it owns the keeper's end of the channel, whose close tells that the keeper has exited.
        let child = without_service_manager(&mut Command::new(program))
            .arg(COMMAND)
            .stdin(OwnedFd::from(theirs))
            .stdout(nowhere.try_clone().map_err(KeeperError::Start)?)
            .stderr(nowhere)
            .current_dir("/")
            .spawn()
            .map_err(KeeperError::Start)?;
        let keeper = Self {
            channel: ours,
            pid: Pid::from_child(&child),
        };
        let devices = devices
            .iter()
            .map(|device| Kept::new(device, String::new()))
            .collect();
        keeper.ask(&Request::Hold { devices }, iommufd.as_slice())?;
        log::debug!("keeper: process {}", keeper.pid());
        Ok(keeper)
    }

    /// The keeper that this process has since before it executed another program: `pid` at the other end of `channel`.
    /// `None` if that is not the number of a process.
    #[must_use]
    pub fn taken_over(channel: OwnedFd, pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
        let channel = channel.into();
        Some(Self { channel, pid })
    }

    /// The connection to it.
    #[must_use]
    pub fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// Number of its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Makes it pin `parts` of `file`, which do not overlap, and waits until it has.
    ///
    /// # Errors
    /// [`KeeperError::Silent`]; [`KeeperError::Refused`]: they are not pinned.
    pub fn pin(&self, file: BorrowedFd<'_>, parts: &[Range<u64>]) -> Result<(), KeeperError> {
        for parts in parts.chunks(MAX_PARTS) {
            let parts = parts.to_vec();
            self.ask(&Request::Pin { parts }, &[file])?;
        }
        Ok(())
    }

    /// Gives it the file of `bytes` of memory, which are pinned.
    ///
    /// # Errors
    /// [`KeeperError::Silent`]
    pub fn memory(&self, file: BorrowedFd<'_>, bytes: u64) -> Result<(), KeeperError> {
        let sent = self.channel.send(&Request::Memory { bytes }, &[file]);
        sent.map_err(|source| self.silent(source))
    }

    /// Ends it, since nothing has to be kept. Waits until it has let go of everything.
    pub fn released(self) {
        if let Err(error) = self.channel.send(&Request::Released, &[]) {
            log::warn!("The process that keeps memory pinned had exited: {error}");
        }
        if let Err(error) = retry_on_intr(|| waitpid(Some(self.pid), WaitOptions::empty())) {
            log::warn!("Cannot wait for process {}: {error}", self.pid());
        }
    }

    /// Makes it keep the memory for `devices`, which are closed, and outlive this process. Returns
    /// whether others find it.
    ///
    /// # Errors
    /// [`KeeperError::Silent`], [`KeeperError::Refused`]: it does not keep anything.
    pub fn keep(&self, devices: Vec<Kept>) -> Result<bool, KeeperError> {
        self.ask(&Request::Keep { devices }, &[])
    }

    fn ask(&self, request: &Request, files: &[BorrowedFd<'_>]) -> Result<bool, KeeperError> {
        match ask(&self.channel, request, files) {
            Ok(Answer::Ready { found }) => Ok(found),
            Ok(answer) => Err(KeeperError::Refused {
                pid: self.pid(),
                why: match answer {
                    Answer::Refused { why } => why,
                    answer => format!("{answer:?}"),
                },
            }),
            Err(source) => Err(self.silent(source)),
        }
    }

    fn silent(&self, source: io::Error) -> KeeperError {
        KeeperError::Silent {
            pid: self.pid(),
            source,
        }
    }
}

fn without_service_manager(command: &mut Command) -> &mut Command {
    for variable in OF_SERVICE_MANAGERS {
        command.env_remove(variable);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_does_not_answer_is_reported() {
        let file = tempfile::tempfile().unwrap();
        let start = |program| Keeper::start_as(program, Some(file.as_fd()), &[]).unwrap_err();
        let silent = start("true");
        assert!(matches!(silent, KeeperError::Silent { .. }), "{silent:?}");
        let absent = start("/does/not/exist");
        assert!(matches!(absent, KeeperError::Start(_)), "{absent:?}");
    }
}
