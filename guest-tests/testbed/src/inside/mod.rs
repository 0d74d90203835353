// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What runs on the test machine itself, as `testbed inside …`: it brings memory into a state, runs a command,
//! and looks at memory again.

pub mod between;
pub mod boot;
pub mod broadcast;
pub mod canary;
pub mod deny;
pub mod many;
pub mod nvme_manage;
pub mod offer;
mod pages;
pub mod pin_proof;
pub mod scatter;
pub mod shape;
mod tracing;
pub mod without_files;

use std::fs;
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::error::{AtPath, Error, Result};

/// Runs a command with this program's input and output and returns its exit status, 128 + N for signal N.
fn run(words: &[String]) -> Result<i32> {
    start(words)?.wait().map(code).at("wait for", "the command")
}

/// Starts a command with this program's input and output.
fn start(words: &[String]) -> Result<Child> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Error::Usage("No command to run".into()));
    };
    let started = Command::new(program).args(arguments).spawn();
    started.map_err(|source| Error::Start {
        program: program.clone(),
        source,
    })
}

/// Starts a command without input, whose output is read.
fn start_piped(program: &str, arguments: &[String]) -> Result<Child> {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|source| Error::Start {
            program: program.to_owned(),
            source,
        })
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1)
}

/// Milliseconds in which this machine had nothing to run, in steps of 10 (proc_stat(5), `idle`).
fn idle_ms() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let cpu = text.lines().next().unwrap_or_default();
    let ticks = cpu
        .split_whitespace()
        .nth(4)
        .and_then(|ticks| ticks.parse::<u64>().ok());
    ticks.unwrap_or(0) * 10
}
