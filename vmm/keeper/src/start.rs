// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The monitor's side: a keeper is started before the first device is bound.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use iommufd_backend::{Leftover, Quiet};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};

use crate::KeeperError;
use crate::channel::Channel;
use crate::message::{Answer, Kept, MAX_PARTS, Request, Settled, ask};
use crate::serve::wait_for;
use crate::spawn::{PROGRAM, spawn};

/// What makes this program a keeper.
const COMMAND: &str = "keeper";

/// The keeper of this process. When this process ends without a word to it, it makes the devices
/// quiet by itself, and keeps the memory if it cannot.
#[derive(Debug)]
pub struct Keeper {
    channel: Channel,
    /// A pidfd: it is no child of a process that it was handed over to.
    process: OwnedFd,
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
        let child = spawn(program, COMMAND, theirs.into()).map_err(KeeperError::Start)?;
        let pid = Pid::from_child(&child);
        let process = pidfd_open(pid, PidfdFlags::empty());
        let keeper = Self {
            channel: ours,
            process: process.map_err(|errno| KeeperError::Start(errno.into()))?,
            pid,
        };
        let devices = devices
            .iter()
            .map(|device| Kept::new(device, String::new()))
            .collect();
        keeper.ask(&Request::Hold { devices }, iommufd.as_slice())?;
        log::debug!("keeper: process {}", keeper.pid());
        Ok(keeper)
    }

    /// The keeper that another process has started, or this one before it executed another program: the process of the
    /// pidfd `process`, with the number `pid`, at the other end of `channel`. `None` if that is not the number of a process.
    #[must_use]
    pub fn taken_over(channel: OwnedFd, process: OwnedFd, pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
        let channel = channel.into();
        Some(Self {
            channel,
            process,
            pid,
        })
    }

    /// Makes it watch the process of the pidfd `monitor` in place of this one.
    ///
    /// # Errors
    /// [`KeeperError::Silent`], [`KeeperError::Refused`]
    pub fn watch(&self, monitor: BorrowedFd<'_>) -> Result<(), KeeperError> {
        self.ask(&Request::Watch, &[monitor]).map(drop)
    }

    /// The connection to it.
    #[must_use]
    pub fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// Its process, as a pidfd.
    #[must_use]
    pub fn process(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
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

    /// Makes it reset `devices` through sysfs, which are closed and could not be made quiet while they were open. Returns
    /// the evidence for those that are quiet now, and the others with the reason.
    ///
    /// # Errors
    /// [`KeeperError::Silent`], [`KeeperError::Refused`]: there is no evidence for any of them.
    pub fn settle(&self, devices: &[Leftover]) -> Result<(Vec<Quiet>, Vec<Kept>), KeeperError> {
        let asked = devices
            .iter()
            .map(|device| Kept::new(device, String::new()));
        let request = Request::Settle {
            devices: asked.collect(),
        };
        match self.exchange(&request, &[])? {
            Answer::Settled { quiet, kept } => Ok(evidence(devices, &quiet, &kept)),
            answer => Err(self.refused(answer)),
        }
    }

    /// Ends it, since nothing has to be kept. Waits until it has let go of everything.
    pub fn released(self) {
        if let Err(error) = self.channel.send(&Request::Released, &[]) {
            log::warn!("The process that keeps memory pinned had exited: {error}");
        }
        wait_for(&self.process);
        // It may be the child of another process, which waits for it.
        if let Err(error) = waitpid(Some(self.pid), WaitOptions::NOHANG) {
            log::debug!("keeper: process {}: {error}", self.pid());
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
        match self.exchange(request, files)? {
            Answer::Ready { found } => Ok(found),
            answer => Err(self.refused(answer)),
        }
    }

    fn exchange(&self, request: &Request, files: &[BorrowedFd<'_>]) -> Result<Answer, KeeperError> {
        ask(&self.channel, request, files).map_err(|source| self.silent(source))
    }

    fn refused(&self, answer: Answer) -> KeeperError {
        KeeperError::Refused {
            pid: self.pid(),
            why: match answer {
                Answer::Refused { why } => why,
                answer => format!("{answer:?}"),
            },
        }
    }

    fn silent(&self, source: io::Error) -> KeeperError {
        KeeperError::Silent {
            pid: self.pid(),
            source,
        }
    }
}

/// What the keeper's answer about `devices` is worth: a device that it also kept, or did not mention, is not quiet.
fn evidence(devices: &[Leftover], settled: &[Settled], kept: &[Kept]) -> (Vec<Quiet>, Vec<Kept>) {
    let mut quiet = Vec::new();
    let mut unquiet = Vec::new();
    for device in devices {
        let found = settled.iter().find(|settled| settled.bdf == device.bdf);
        let kept = kept.iter().find(|kept| kept.bdf == device.bdf);
        match (found, kept) {
            (Some(settled), None) => {
                quiet.push(Quiet::vouched_for(device.bdf, settled.because.clone()));
            }
            (_, Some(kept)) => unquiet.push(kept.clone()),
            (None, None) => {
                unquiet.push(Kept::new(device, "the keeper did not report it".into()));
            }
        }
    }
    (quiet, unquiet)
}

#[cfg(test)]
mod tests {
    use iommufd_backend::Because;

    use super::*;

    #[test]
    fn only_what_the_keeper_reports_quiet_and_nothing_else_is_evidence() {
        let devices = [1, 2, 3].map(|bus| Leftover {
            bdf: address::Bdf::new(0, bus, 0, 0).unwrap(),
            parent: None,
            seen_in_slot: false,
            accepted: false,
            through_group: false,
        });
        let settled = |bus: u8| Settled {
            bdf: address::Bdf::new(0, bus, 0, 0).unwrap(),
            because: Because::Gone,
        };
        let kept = Kept::new(&devices[1], "it is in use".into());
        // One that it says both of, one that it does not mention, and one that nobody asked for.
        let answer = (vec![settled(1), settled(2), settled(9)], vec![kept]);
        let (quiet, kept) = evidence(&devices, &answer.0, &answer.1);
        let quiet: Vec<_> = quiet.iter().map(Quiet::bdf).collect();
        assert_eq!(quiet, [devices[0].bdf]);
        let kept: Vec<_> = kept
            .iter()
            .map(|kept| (kept.bdf, kept.why.as_str()))
            .collect();
        let missing = "the keeper did not report it";
        assert_eq!(
            kept,
            [(devices[1].bdf, "it is in use"), (devices[2].bdf, missing)]
        );
    }

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
