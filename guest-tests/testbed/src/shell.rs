// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Running programs of the build machine.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::error::{Error, Result};

/// How much of a failed program's output an error shows, in lines.
const SHOWN_LINES: usize = 40;

/// Reports progress on stderr.
pub fn progress(message: &str) {
    eprintln!("testbed: {message}");
}

/// Runs a program to its end and returns its standard output.
///
/// # Errors
/// [`Error::Start`], or [`Error::Command`] with the end of its output if it fails.
pub fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start { program, source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Command {
        command: command_line(command),
        status: output.status.to_string(),
        output: shown(&output),
    })
}

/// A command with its arguments.
pub fn command<I: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Unpacks an archive into `folder`, without the one folder that all of it is in.
///
/// # Errors
/// Those of [`run`].
pub fn unpack(archive: &Path, folder: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(archive).arg("-C").arg(folder);
    run(tar.arg("--strip-components=1")).map(drop)
}

/// Whether the user may install packages.
#[must_use]
pub fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// The last `count` lines of a text.
#[must_use]
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// One word for a POSIX shell.
#[must_use]
pub fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

fn shown(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    last_lines(&text, SHOWN_LINES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_shows_command_and_output() {
        let error = run(&mut command("sh", ["-c", "echo out; echo err >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        for part in ["exit 3", "out", "err", "status: 3"] {
            assert!(text.contains(part), "{part} not in {text}");
        }
    }

    #[test]
    fn quoted_words_come_back_from_the_shell() {
        let word = "a 'b' \"$c\" \\ `d`";
        let echoed = run(&mut command(
            "sh",
            ["-c", &format!("printf %s {}", quote(word))],
        ))
        .unwrap();
        assert_eq!(echoed, word);
    }
}
