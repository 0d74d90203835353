// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A block of memory that the kernel can take offline (Linux Documentation/admin-guide/mm/memory-hotplug.rst).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use super::super::pages::PAGE;
use crate::error::{AtPath, Error, Result};

const FOLDER: &str = "/sys/devices/system/memory";

/// The kernel tries until it is told to stop. So often it must have failed with the same page.
const FAILURES: usize = 3;

/// A block, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block(u64);

impl Block {
    /// The block that a frame is in.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Malformed`]
    pub fn of(frame: u64) -> Result<Self> {
        let path = Path::new(FOLDER).join("block_size_bytes");
        let text = fs::read_to_string(&path).at("read", &path)?;
        let size = u64::from_str_radix(text.trim(), 16).ok();
        let frames = size.map_or(0, |size| size / PAGE as u64);
        let number = frame.checked_div(frames).ok_or(Error::Malformed {
            path,
            reason: text.trim().to_owned(),
        })?;
        Ok(Self(number))
    }

    /// Takes it offline, and returns whether that worked. Gives up if the page `frame` cannot be moved.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Start`]
    pub fn offline(self, frame: u64) -> Result<bool> {
        let mut log = Log::open()?;
        let mut child = self.write("offline")?;
        let failed = format!("migrating pfn {frame:x} failed");
        let mut failures = 0;
        let ended = |child: &mut Child| child.try_wait().at("wait for", "/bin/sh");
        while ended(&mut child)?.is_none() {
            failures += log.new_lines()?.matches(&failed).count();
            if failures >= FAILURES {
                child.kill().at("end", "/bin/sh")?;
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        child.wait().at("wait for", "/bin/sh")?;
        Ok(self.state()? == "offline")
    }

    /// Makes its memory usable again, as sysfs calls it: `online`, or `online_movable`.
    ///
    /// # Errors
    /// [`Error::Usage`] if the kernel refuses, [`Error::File`], [`Error::Start`]
    pub fn online(self, how: &str) -> Result<()> {
        if self.state()? != "offline" && !self.offline(u64::MAX)? {
            return Err(Error::Usage(format!("{self:?} does not go offline")));
        }
        self.write(how)?.wait().at("wait for", "/bin/sh")?;
        match self.state()?.as_str() {
            "online" => Ok(()),
            state => Err(Error::Usage(format!("{self:?} is {state} after {how}"))),
        }
    }

    fn state(self) -> Result<String> {
        let path = self.path();
        let text = fs::read_to_string(&path).at("read", &path)?;
        Ok(text.trim().to_owned())
    }

    /// Another process, since only a signal ends an attempt.
    fn write(self, state: &str) -> Result<Child> {
        let script = format!("echo {state} > {}", self.path().display());
        Command::new("/bin/sh")
            .args(["-c", &script])
            .spawn()
            .map_err(|source| Error::Start {
                program: "/bin/sh".into(),
                source,
            })
    }

    fn path(self) -> PathBuf {
        Path::new(FOLDER).join(format!("memory{}/state", self.0))
    }
}

/// What the kernel prints from now on.
struct Log(File);

impl Log {
    fn open() -> Result<Self> {
        let path = "/dev/kmsg";
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .at("open", path)?;
        file.seek(SeekFrom::End(0)).at("seek in", path)?;
        Ok(Self(file))
    }

    /// Each read returns one message.
    fn new_lines(&mut self) -> Result<String> {
        let mut text = String::new();
        let mut message = [0; 8192];
        loop {
            match self.0.read(&mut message) {
                Ok(0) => return Ok(text),
                Ok(len) => text += &String::from_utf8_lossy(&message[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(text),
                // Messages were overwritten before they were read.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Err(source) => return Err(source).at("read", "/dev/kmsg"),
            }
        }
    }
}
