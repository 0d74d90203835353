// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Process 1 of the guest: readies the machine, lets a child do the work, and powers off whatever becomes of it.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};
use rustix::termios::tcdrain;

use crate::options::{Options, module_parameters};
use crate::report::{Report, Status};
use crate::status;

/// The argument before the command line by which this program is started to do the work.
pub const WORK_ARGUMENT: &str = "run";

/// What the work may take beside three times the time that it was given; slow machines verify for long.
const EXTRA_TIMEOUT: Duration = Duration::from_secs(300);

const TICK: Duration = Duration::from_millis(50);

/// File systems: type and place.
const FILE_SYSTEMS: &[(&str, &str)] = &[("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")];

/// Does everything and powers the machine off.
pub fn init(report: &Report) -> ! {
    let status = std::panic::catch_unwind(|| ready_and_work(report)).unwrap_or_else(|_| {
        report.bail_out("init panicked");
        Status::Failed
    });
    power_off(status, report)
}

fn ready_and_work(report: &Report) -> Status {
    for (kind, place) in FILE_SYSTEMS {
        if let Err(error) = mount_at(kind, place) {
            report.comment(format_args!("{place} is not mounted: {error}"));
        }
    }
    // Emergencies only (Linux Documentation/admin-guide/sysctl/kernel.rst).
    let _ = fs::write("/proc/sys/kernel/printk", "1 4 1 7");
    let cmdline = match fs::read_to_string("/proc/cmdline") {
        Ok(cmdline) => cmdline,
        Err(error) => {
            report.bail_out(format_args!("no command line: {error}"));
            return Status::NotRun;
        }
    };
    load_modules(Path::new("/modules"), &cmdline, report);
    let child = Command::new("/proc/self/exe")
        .args([WORK_ARGUMENT, cmdline.trim()])
        .spawn();
    let time = Options::parse(&cmdline).map_or(Duration::ZERO, |options| options.time);
    match child {
        Ok(child) => wait_for(child, time * 3 + EXTRA_TIMEOUT, report),
        Err(error) => {
            report.bail_out(format_args!("cannot start the work: {error}"));
            Status::NotRun
        }
    }
}

fn mount_at(kind: &str, place: &str) -> io::Result<()> {
    fs::create_dir_all(place)?;
    match mount(kind, place, kind, MountFlags::empty(), None) {
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Loads `NNN-NAME.ko` in the order of the names, with the parameters that the command line has for them.
fn load_modules(folder: &Path, cmdline: &str, report: &Report) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let name = stem.split_once('-').map_or(&*stem, |(_, name)| name);
        let parameters = module_parameters(cmdline, name);
        if let Err(error) = load_module(&path, parameters) {
            report.comment(format_args!("cannot load {}: {error}", path.display()));
        }
    }
}

fn load_module(path: &Path, parameters: String) -> io::Result<()> {
    let file = File::open(path)?;
    let parameters = std::ffi::CString::new(parameters)?;
    match finit_module(&file, &parameters, 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits for the child's end, or for the end of patience: it may hang in the kernel, where nothing ends it.
fn wait_for(mut child: Child, limit: Duration, report: &Report) -> Status {
    let begin = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return verdict(status, report),
            Ok(None) if begin.elapsed() < limit => thread::sleep(TICK),
            Ok(None) => {
                report.bail_out(format_args!("no end after {} s", limit.as_secs()));
                return Status::Failed;
            }
            Err(error) => {
                report.bail_out(format_args!("the work's end is unknown: {error}"));
                return Status::Failed;
            }
        }
    }
}

fn verdict(status: ExitStatus, report: &Report) -> Status {
    match status.code() {
        Some(0) => Status::Passed,
        Some(1) => Status::Failed,
        Some(2) => Status::NotRun,
        Some(code) => {
            report.bail_out(format_args!("the work exited with {code}"));
            Status::Failed
        }
        None => {
            let signal = status.signal().unwrap_or_default();
            report.bail_out(format_args!("the work was killed by signal {signal}"));
            Status::Failed
        }
    }
}

/// Reports the status to the monitor and powers off. Nothing of this run is in any file system, so
/// nothing is synced that could hang on a device that does not answer.
///
/// The console is drained first: what was written to it may still be in the kernel's buffer, and would be lost.
fn power_off(status: Status, report: &Report) -> ! {
    // What is no terminal has nothing to drain.
    let _ = tcdrain(io::stdout());
    if let Err(error) = status::write(status as u8) {
        report.comment(format_args!(
            "cannot report status {}: {error}",
            status as u8
        ));
    }
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        report.comment(format_args!("no power-off: {error}"));
    }
    // The end of process 1 would be a kernel panic.
    loop {
        thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::Lines;

    #[test]
    fn every_end_of_the_work_has_a_status() {
        let lines = Lines::default();
        let report = lines.report();
        let of = |raw| verdict(ExitStatus::from_raw(raw), &report);
        assert_eq!(of(0), Status::Passed);
        assert_eq!(of(1 << 8), Status::Failed);
        assert_eq!(of(2 << 8), Status::NotRun);
        assert_eq!(lines.text(), "");
        // A panic, and the OOM killer.
        assert_eq!(of(101 << 8), Status::Failed);
        assert_eq!(of(9), Status::Failed);
        let text = lines.text();
        assert!(
            text.contains("Bail out! the work exited with 101"),
            "{text}"
        );
        assert!(text.contains("killed by signal 9"), "{text}");
    }

    #[test]
    fn a_child_that_does_not_end_is_given_up() {
        let lines = Lines::default();
        let start = |program, argument| Command::new(program).arg(argument).spawn().unwrap();
        let long = Duration::from_secs(1000);
        let status = wait_for(start("true", ""), long, &lines.report());
        assert_eq!(status, Status::Passed);
        let mut killed = start("sleep", "1000");
        killed.kill().unwrap();
        assert_eq!(wait_for(killed, long, &lines.report()), Status::Failed);
        let status = wait_for(start("sleep", "5"), Duration::ZERO, &lines.report());
        assert_eq!(status, Status::Failed);
        let text = lines.text();
        assert!(
            text.contains("signal 9") && text.contains("no end after 0 s"),
            "{text}"
        );
    }

    #[test]
    fn modules_that_cannot_be_loaded_are_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("000-nvme.ko"), "no module").unwrap();
        let lines = Lines::default();
        load_modules(folder.path(), "", &lines.report());
        assert!(lines.text().contains("000-nvme.ko: "));
        load_modules(&folder.path().join("none"), "", &lines.report());
        assert_eq!(lines.text().lines().count(), 1);
    }
}
