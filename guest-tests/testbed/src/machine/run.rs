// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One run of a test machine, from its folder to its end. Nothing of it stays behind.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::place::{Placed, place};
use super::qemu::{self, Files, Terminal};
use super::{Machine, Outcome, Status, autopsy, share};
use crate::error::{AtPath, Error, Result};
use crate::initramfs::Initramfs;
use crate::{setup, shell};

/// How often a waiting run looks for time-out and Ctrl-C.
const TICK: Duration = Duration::from_millis(100);

/// How many lines of console and QEMU's words an error shows.
const SHOWN_LINES: usize = 60;

/// Name of the file of the script's output, in the run's folder.
pub const OUTPUT: &str = "output";

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Lets Ctrl-C, SIGTERM and SIGHUP end the running machines in order.
///
/// # Errors
/// [`Error::Usage`] if the handler cannot be installed.
pub fn handle_interrupts() -> Result<()> {
    let handler = || INTERRUPTED.store(true, Ordering::Relaxed);
    ctrlc::set_handler(handler).map_err(|error| Error::Usage(error.to_string()))
}

/// Whether Ctrl-C, SIGTERM or SIGHUP came.
#[must_use]
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// See [`Machine::run_streaming`].
pub fn run(machine: &Machine, script: &str, sink: &mut dyn FnMut(&[u8])) -> Result<Outcome> {
    let folder = Folder::create(machine, script)?;
    let mut command = folder.command(machine, Terminal::Output)?;
    let printed = folder.folder.path().join(OUTPUT);
    let mut printed = File::create_new(&printed)
        .and_then(|_| File::open(&printed))
        .at("create", &printed)?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0);
    let mut qemu = Qemu::start(command)?;
    let mut clock = Clock::start(machine);
    let mut output = Vec::new();
    loop {
        // Asked first: what an ended QEMU has printed is complete.
        let ended = qemu.0.try_wait().at("wait for", machine.arch.qemu())?;
        let known = output.len();
        printed
            .read_to_end(&mut output)
            .at("read", folder.folder.path())?;
        sink(&output[known..]);
        if let Some(ended) = ended {
            return folder.outcome(None, &output, &ended.to_string());
        }
        if interrupted() {
            return Err(Error::Interrupted);
        }
        if clock.is_over(output.len() + folder.growth()) {
            let registers = autopsy::perform(folder.folder.path());
            qemu.kill();
            let outcome = folder.outcome(Some(Status::TimedOut), &output, "killed")?;
            autopsy::keep(&outcome, &registers)?;
            return Ok(outcome);
        }
        thread::sleep(TICK);
    }
}

/// When to give a machine up.
#[derive(Debug)]
struct Clock {
    begin: Instant,
    timeout: Option<Duration>,
    patience: Option<Duration>,
    progress: (usize, Instant),
}

impl Clock {
    fn start(machine: &Machine) -> Self {
        let begin = Instant::now();
        Self {
            begin,
            timeout: machine.timeout,
            patience: machine.patience,
            progress: (0, begin),
        }
    }

    /// Whether the time is over, or nothing more was printed for too long. `said` only grows.
    fn is_over(&mut self, said: usize) -> bool {
        if said != self.progress.0 {
            self.progress = (said, Instant::now());
        }
        let is_past = |since: Instant, limit: Option<Duration>| {
            limit.is_some_and(|limit| since.elapsed() > limit)
        };
        is_past(self.begin, self.timeout) || is_past(self.progress.1, self.patience)
    }
}

/// See [`Machine::shell`].
pub fn shell(machine: &Machine) -> Result<Outcome> {
    let folder = Folder::create(machine, "exec /bin/bash -i || exec /bin/sh -i")?;
    let mut qemu = Qemu::start(folder.command(machine, Terminal::Interactive)?)?;
    loop {
        if let Some(ended) = qemu.0.try_wait().at("wait for", machine.arch.qemu())? {
            return folder.outcome(None, &[], &ended.to_string());
        }
        if interrupted() {
            return Err(Error::Interrupted);
        }
        thread::sleep(TICK);
    }
}

/// A running QEMU; it ends with this value, and with this process.
#[derive(Debug)]
struct Qemu(Child);

impl Qemu {
    fn start(mut command: Command) -> Result<Self> {
        // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and takes no pointer.
        unsafe {
            command.pre_exec(
                || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                },
            );
        }
        let program = command.get_program().to_string_lossy().into_owned();
        command
            .spawn()
            .map(Self)
            .map_err(|source| Error::Start { program, source })
    }

    fn kill(&mut self) {
        // Both fail only if QEMU has ended and was waited for, which is what they are for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The run's private folder, removed when dropped.
#[derive(Debug)]
struct Folder {
    folder: tempfile::TempDir,
    placed: Vec<Placed>,
}

impl Folder {
    fn create(machine: &Machine, script: &str) -> Result<Self> {
        setup::require_qemu(machine.arch)?;
        let folder = tempfile::Builder::new().prefix("testbed-").tempdir();
        let folder = folder.at("create a folder in", std::env::temp_dir())?;
        let placed = place(machine.arch, machine.board, &machine.devices)?;
        share::fill(&folder.path().join("share"), machine, &placed, script)?;
        let init = include_str!("../../machine/init");
        Initramfs::with_busybox(&setup::busybox(machine.arch)?, init)?
            .write(&folder.path().join("initramfs"))?;
        Ok(Self { folder, placed })
    }

    fn command(&self, machine: &Machine, terminal: Terminal) -> Result<Command> {
        let folder = self.folder.path();
        let kernel = setup::kernel(machine.arch, machine.flavour)?;
        let files = Files {
            folder,
            kernel: &kernel,
            initramfs: &folder.join("initramfs"),
        };
        let mut command = qemu::command(machine, &files, &self.placed, terminal)?;
        let errors = folder.join("qemu");
        command.stderr(File::create(&errors).at("create", &errors)?);
        Ok(command)
    }

    /// What the run left in the folder. Without a status from the script the machine died.
    fn outcome(&self, status: Option<Status>, output: &[u8], ended: &str) -> Result<Outcome> {
        let exited = || Some(Status::Exited(self.text("status").trim().parse().ok()?));
        let Some(status) = status.or_else(exited) else {
            return Err(Error::MachineDied {
                status: ended.into(),
                console: shell::last_lines(&self.text("console"), SHOWN_LINES),
                qemu: shell::last_lines(&own_words(&self.text("qemu")), SHOWN_LINES),
                trace: shell::last_lines(&self.text("trace"), SHOWN_LINES),
            });
        };
        Ok(Outcome {
            status,
            output: String::from_utf8_lossy(output).into_owned(),
            console: self.text("console"),
            trace: self.text("trace"),
        })
    }

    /// Bytes that the kernel and the trace have printed so far.
    fn growth(&self) -> usize {
        let size = |name| fs::metadata(self.folder.path().join(name)).map_or(0, |file| file.len());
        usize::try_from(size("console") + size("trace")).unwrap_or(usize::MAX)
    }

    /// A file of the folder, empty if it is not there.
    fn text(&self, name: &str) -> String {
        let path: &Path = &self.folder.path().join(name);
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }
}

/// QEMU's messages without its notes on which features of the CPU model it does not emulate.
fn own_words(text: &str) -> String {
    let is_word = |line: &&str| !line.contains("TCG doesn't support requested feature");
    text.lines().filter(is_word).collect::<Vec<_>>().join("\n")
}
