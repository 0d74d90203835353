// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The keeper's main loop.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use address::Bdf;
use iommufd_backend::{Error as Backend, FileRange, PciSysfs, RingPins, settle};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SocketFlags, accept_with};
use rustix::process::{PidfdFlags, getppid, pidfd_open};

use crate::channel::Channel;
use crate::code::release_code;
use crate::confine::{Duty, confine_keeper, restrict_to};
use crate::find::{ANSWER_TIMEOUT, DIRECTORY, Published, trusted_peer};
use crate::message::{Answer, Kept, Request, Settled, Status};
use crate::{KeeperError, setup};

/// [`Place::settle`]
const SETTLE: Duration = Duration::from_secs(10);

/// Everything that a keeper has.
#[derive(Debug, Default)]
struct Held {
    status: Status,
    /// `/dev/iommu`, if devices are bound to that, and the memory's files. Closing them releases the memory.
    files: Vec<OwnedFd>,
    /// What this process itself has pinned, for devices with groups.
    pins: Option<RingPins>,
}

impl Held {
    /// Holds `files` for `devices`. Without any, memory will have to be pinned.
    fn begin(&mut self, devices: Vec<Kept>, files: Vec<OwnedFd>) -> Result<(), KeeperError> {
        self.status.devices = devices;
        self.files.extend(files);
        restrict_to(match self.files.is_empty() {
            true => Duty::Pin,
            false => Duty::Hold,
        })
    }

    /// Holds all memory, of `bytes`: `files`, or what is pinned.
    fn complete(&mut self, bytes: u64, files: Vec<OwnedFd>) -> Result<(), KeeperError> {
        self.status.bytes = bytes;
        self.files.extend(files);
        match self.pins {
            Some(_) => restrict_to(Duty::Keep),
            None => Ok(()),
        }
    }

    /// Lets go of the memory.
    fn release(&mut self) {
        self.pins = None;
        self.files.clear();
    }

    /// Pins `parts` of `file`.
    fn pin(&mut self, file: &OwnedFd, parts: &[Range<u64>]) -> Result<(), Backend> {
        let pins = match &mut self.pins {
            Some(pins) => pins,
            none => none.insert(RingPins::new()?),
        };
        parts
            .iter()
            .try_for_each(|part| pins.keep(FileRange::new(file, part)))
    }
}

/// Where a keeper looks for devices and is found by others.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) sysfs: PciSysfs,
    pub(crate) directory: PathBuf,
    /// How long the kernel may take to take a device apart that its user has closed.
    pub(crate) settle: Duration,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            sysfs: PciSysfs::default(),
            directory: DIRECTORY.into(),
            settle: SETTLE,
        }
    }
}

/// Makes this process the keeper of its parent, at the other end of standard input, and returns
/// when nothing is kept any more.
///
/// # Errors
/// [`KeeperError::Setup`]
pub fn run() -> Result<(), KeeperError> {
    confine_keeper()?;
    let input = io::stdin().as_fd().try_clone_to_owned();
    let channel = Channel(input.map_err(setup("use standard input"))?);
    let parent =
        getppid().ok_or_else(|| setup("find the monitor")(io::Error::other("it ended")))?;
    let monitor = pidfd_open(parent, PidfdFlags::empty()).map_err(setup("watch the monitor"))?;
    serve(channel, monitor, &Place::default())
}

/// Keeps memory in this process, whose keeper is gone, until others release it: for ever if they do
/// not find it.
pub fn keep_here(status: Status) {
    let held = Held {
        status,
        ..Held::default()
    };
    keep(held, publish(Path::new(DIRECTORY)).as_ref());
}

/// Serves the monitor, and finishes its work after it has exited.
pub(crate) fn serve(
    channel: Channel,
    mut monitor: OwnedFd,
    place: &Place,
) -> Result<(), KeeperError> {
    let mut held = Held::default();
    loop {
        // It waits for as long as the guest runs.
        release_code();
        let (request, files) = match channel.receive() {
            Ok(Some(received)) => received,
            Ok(None) => break,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => continue,
            Err(source) => return Err(setup("receive from the monitor")(source)),
        };
        match request {
            Request::Hold { devices } => {
                held.begin(devices, files)?;
                answer(&channel, &Answer::of(Ok(())));
            }
            Request::Pin { parts } => {
                let reply = match files.as_slice() {
                    [file] => held.pin(file, &parts).map_err(|error| chain(&error)),
                    _ => Err("one file is required".to_owned()),
                };
                answer(&channel, &Answer::of(reply));
            }
            Request::Memory { bytes } => held.complete(bytes, files)?,
            Request::Watch => {
                let reply = match <[_; 1]>::try_from(files) {
                    Ok([process]) => {
                        monitor = process;
                        Ok(())
                    }
                    Err(_) => Err("one process is required".to_owned()),
                };
                answer(&channel, &Answer::of(reply));
            }
            Request::Settle { devices } => {
                let (quiet, kept) = settle_each(devices, &held.status, place);
                answer(&channel, &Answer::Settled { quiet, kept });
            }
            Request::Released => return Ok(()),
            Request::Keep { devices } => {
                held.status.devices = devices;
                let published = publish(&place.directory);
                let found = published.is_some();
                answer(&channel, &Answer::Ready { found });
                drop(channel);
                keep(held, published.as_ref());
                return Ok(());
            }
            Request::Status | Request::Release { .. } => {
                let why = "the monitor is still running".into();
                answer(&channel, &Answer::Refused { why });
            }
        }
    }
    // Its files are closed, and so its devices, once it has exited (kernel/exit.c do_exit:
    // exit_files and exit_task_work before exit_notify).
    wait_for(&monitor);
    // Devices that never got the memory's addresses cannot write to it.
    if held.status.bytes == 0 {
        return Ok(());
    }
    let devices = held.status.devices.clone();
    (_, held.status.devices) = settle_each(devices, &held.status, place);
    if !held.status.devices.is_empty() {
        keep(held, publish(&place.directory).as_ref());
    }
    Ok(())
}

/// Makes `devices` quiet, which are closed, and returns those that are and those for which there is no evidence. All
/// devices of the monitor's may be reset together.
fn settle_each(devices: Vec<Kept>, status: &Status, place: &Place) -> (Vec<Settled>, Vec<Kept>) {
    let ours: Vec<Bdf> = status.devices.iter().map(|device| device.bdf).collect();
    let (mut quiet, mut kept) = (Vec::new(), Vec::new());
    for mut device in devices {
        match settle(&place.sysfs, &device.leftover(), &ours, place.settle) {
            Ok(evidence) => quiet.push(Settled {
                bdf: evidence.bdf(),
                because: evidence.because().clone(),
            }),
            Err(error) => {
                device.why = chain(&error);
                kept.push(device);
            }
        }
    }
    (quiet, kept)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

fn publish(directory: &Path) -> Option<Published> {
    Published::new(directory)
        .inspect_err(|error| log::error!("{}: {error}", directory.display()))
        .ok()
}

/// Keeps what is held until every device is reported quiet. If that cannot be determined, it is
/// kept for ever: only killing this process gives the memory back.
fn keep(mut held: Held, published: Option<&Published>) {
    while !held.status.devices.is_empty() {
        let Some(published) = published else {
            std::thread::park();
            continue;
        };
        match accept_with(&published.listener, SocketFlags::CLOEXEC) {
            Ok(caller) => {
                if let Err(error) = serve_caller(&Channel(caller), &mut held) {
                    log::debug!("a client disconnected: {error}");
                }
            }
            Err(error) => {
                log::debug!("cannot receive from a client: {error}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Answers one question.
fn serve_caller(channel: &Channel, held: &mut Held) -> io::Result<()> {
    trusted_peer(channel)?;
    channel.limit_waits(ANSWER_TIMEOUT)?;
    let Some((request, _)) = channel.receive()? else {
        return Ok(());
    };
    let answer = match request {
        Request::Status => Answer::Status(held.status.clone()),
        Request::Release { bdf } => {
            held.status.devices.retain(|device| device.bdf != bdf);
            if held.status.devices.is_empty() {
                // By the time that the caller hears of it, the memory is the host's again.
                held.release();
            }
            Answer::Status(held.status.clone())
        }
        _ => Answer::Refused {
            why: "only the monitor may request that".into(),
        },
    };
    channel.send(&answer, &[])
}

/// A monitor that is gone misses nothing.
fn answer(channel: &Channel, answer: &Answer) {
    if let Err(error) = channel.send(answer, &[]) {
        log::debug!("the monitor does not receive: {error}");
    }
}

/// Waits for the end of the process of a pidfd.
pub(crate) fn wait_for(process: &OwnedFd) {
    let mut end = [PollFd::new(process, PollFlags::IN)];
    while let Err(rustix::io::Errno::INTR) = poll(&mut end, None) {}
}

#[cfg(test)]
mod tests;
