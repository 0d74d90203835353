// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Starts small processes of this program.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};

/// This program, whatever has become of its file.
pub const PROGRAM: &str = "/proc/self/exe";

/// By what a service manager speaks with the monitor (sd_notify(3), sd_watchdog_enabled(3)). It is for no other process.
const OF_SERVICE_MANAGERS: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Starts `program`, normally [`PROGRAM`], with the argument `word`, and `input` as its standard input. It is a new
/// process from the start, not a copy of this one.
///
/// # Errors
/// What `pipe` or the start returns.
pub fn spawn(program: &str, word: &str, input: OwnedFd) -> io::Result<Child> {
    // What it prints has no reader. Not every container has /dev/null.
    let (_, nowhere) = io::pipe()?;
    // The command ends here: it owns `input`, whose close shows that the process has exited.
    let mut command = Command::new(program);
    for variable in OF_SERVICE_MANAGERS {
        command.env_remove(variable);
    }
    command
        .arg(word)
        .stdin(input)
        .stdout(nowhere.try_clone()?)
        .stderr(nowhere)
        .current_dir("/")
        .spawn()
}
