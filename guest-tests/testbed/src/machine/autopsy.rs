// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a machine that fell silent is doing, asked before it is killed.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use super::Outcome;
use crate::error::{AtPath, Result};
use crate::{paths, shell};

/// Name of the socket of QEMU's monitor, in the run's folder.
pub const MONITOR: &str = "monitor";
/// Name of the socket of the machine's serial port, in the run's folder.
pub const SERIAL: &str = "serial";

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// The kernel's magic keys (Linux Documentation/admin-guide/sysrq.rst): print everything; what all processors do,
/// which timers are due, which tasks are blocked, and all tasks.
const KEYS: &[u8] = b"9lqwt";

/// Lines of QEMU's trace that are kept.
const TRACE_LINES: usize = 200;

/// Writes the state of a silent machine to a file under `target`, and prints its path.
pub fn keep(outcome: &Outcome, registers: &str) -> Result<()> {
    let folder = paths::checkout().join("target/silent");
    paths::create_folder(&folder)?;
    let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let path = folder.join(format!("{}.txt", since_epoch.as_millis()));
    let Outcome {
        output,
        console,
        trace,
        ..
    } = outcome;
    let trace = shell::last_lines(trace, TRACE_LINES);
    let text = format!(
        "{output}\n---- trace\n{trace}\n---- console\n{console}\n---- processors\n{registers}\n"
    );
    fs::write(&path, text).at("write", &path)?;
    shell::progress(&format!("what the silent machine did: {}", path.display()));
    Ok(())
}

/// Lets the kernel print to its console what all processors and all tasks do, and returns the
/// processors' registers as QEMU has them. Otherwise returns why it cannot.
pub fn perform(folder: &Path) -> String {
    match ask(folder) {
        Ok(registers) => registers,
        Err(error) => format!("QEMU's monitor does not respond: {error}"),
    }
}

fn ask(folder: &Path) -> std::io::Result<String> {
    let mut monitor = UnixStream::connect(folder.join(MONITOR))?;
    let mut serial = UnixStream::connect(folder.join(SERIAL))?;
    monitor.write_all(b"info registers -a\n")?;
    for key in KEYS {
        monitor.write_all(b"chardev-send-break console\n")?;
        thread::sleep(Duration::from_secs(1));
        serial.write_all(&[*key])?;
        // The kernel takes the key on its own console's interrupt, and prints on.
        drain(&mut serial)?;
    }
    let mut words = Vec::new();
    monitor.set_read_timeout(Some(Duration::from_secs(1)))?;
    read_on(&mut monitor, &mut words);
    Ok(String::from_utf8_lossy(&words).into_owned())
}

/// Waits for the end of the machine's output.
fn drain(serial: &mut UnixStream) -> std::io::Result<()> {
    serial.set_read_timeout(Some(ANSWER))?;
    read_on(serial, &mut Vec::new());
    Ok(())
}

/// Reads until nothing comes any more.
fn read_on(source: &mut UnixStream, into: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = source.read(&mut buffer) {
        into.extend_from_slice(&buffer[..length]);
    }
}
