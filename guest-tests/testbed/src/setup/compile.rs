// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The long part of a build, with reports of its progress.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{AtPath, Error, Result};
use crate::shell::{self, progress};

/// Interval of progress reports.
const REPORT_EVERY: Duration = Duration::from_secs(20);

/// How much to compile at once.
pub fn jobs() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Runs a command that prints a line for each file that it builds; the log has these lines and its errors.
///
/// # Errors
/// [`Error::Start`], [`Error::File`]; [`Error::Command`] with the end of the log.
pub fn run(command: &mut Command, log_path: &Path) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut log = File::create(log_path).at("create", log_path)?;
    let errors = log.try_clone().at("open", log_path)?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors);
    let mut child = command.spawn().map_err(|source| Error::Start {
        program: program.clone(),
        source,
    })?;
    let (begin, mut reported, mut files) = (Instant::now(), Instant::now(), 0);
    let output = child.stdout.take().map(BufReader::new);
    for line in output
        .into_iter()
        .flat_map(BufRead::lines)
        .map_while(std::result::Result::ok)
    {
        files += 1;
        writeln!(log, "{line}").at("write", log_path)?;
        if reported.elapsed() >= REPORT_EVERY {
            reported = Instant::now();
            progress(&format!(
                "{files} files built in {} s",
                begin.elapsed().as_secs()
            ));
        }
    }
    let status = child.wait().at("wait for the build of", log_path)?;
    if status.success() {
        return Ok(());
    }
    let output = fs::read_to_string(log_path).at("read", log_path)?;
    Err(Error::Command {
        command: program,
        status: status.to_string(),
        output: shell::last_lines(&output, 40),
    })
}
