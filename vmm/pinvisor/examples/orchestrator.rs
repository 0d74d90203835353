// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A small orchestrator. It runs one guest in two processes: a launcher with its own privilege, which binds the devices and
//! pins memory, and a monitor that has none, to which the launcher hands both over through a socket
//! (docs/reference/handover.md).
//!
//! ```text
//! orchestrator UID GID SOCKET OPTIONS-OF-THE-GUEST...
//! ```
//!
//! The monitor can be started anywhere as long as it reaches the socket, `/dev/kvm` and the guest's files: in a control
//! group, a container or namespaces of its own. Only the launcher needs `/dev/vfio` and `/dev/iommu`.

use std::error::Error;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::time::Duration;
use std::{env, fs, thread};

/// Between two looks at a process or a file.
const PAUSE: Duration = Duration::from_millis(20);

const USAGE: &str = "usage: orchestrator UID GID SOCKET OPTIONS-OF-THE-GUEST...";

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("orchestrator: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<u8, Box<dyn Error>> {
    let mut words = env::args().skip(1);
    let (Some(uid), Some(gid), Some(socket)) = (words.next(), words.next(), words.next()) else {
        return Err(USAGE.into());
    };
    let options: Vec<String> = words.collect();
    // One that a launcher left which was killed does not mean that everything is ready.
    let _ = fs::remove_file(&socket);
    let mut launcher = Command::new("pinvisor")
        .args([
            "launch",
            "--serve",
            &socket,
            "--user",
            &format!("{uid}:{gid}"),
        ])
        .args(&options)
        .spawn()?;
    if !is_ready(&mut launcher, Path::new(&socket))? {
        return Err(format!("the launcher failed: {}", launcher.wait()?).into());
    }
    let mut monitor = Command::new("pinvisor")
        .uid(uid.parse()?)
        .gid(gid.parse()?)
        .args(["run", "--handover", &format!("socket={socket}")])
        .args(&options)
        .spawn()?;
    println!("monitor: process {}", monitor.id());
    // The launcher ends when it has handed over. It waits on for a monitor that failed before it asked for that; its end
    // releases everything.
    while launcher.try_wait()?.is_none() {
        if monitor.try_wait()?.is_some() {
            launcher.kill()?;
        }
        thread::sleep(PAUSE);
    }
    // No code if a signal killed it.
    let code = monitor
        .wait()?
        .code()
        .and_then(|code| u8::try_from(code).ok());
    Ok(code.unwrap_or(u8::MAX))
}

/// Waits until the socket is there, and with it devices and memory; false if the launcher ended instead.
fn is_ready(launcher: &mut Child, socket: &Path) -> Result<bool, Box<dyn Error>> {
    while !socket.exists() {
        if launcher.try_wait()?.is_some() {
            return Ok(false);
        }
        thread::sleep(PAUSE);
    }
    Ok(true)
}
