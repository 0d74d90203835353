// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line of the monitor, made from that of its launcher.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

/// Of `words`, behind the program's name: `run` in place of `launch`, `--handover fd=SOCKET` behind that, and no `--user`.
/// The words were parsed, so that one that begins with a hyphen is an option.
pub fn of_monitor(words: impl Iterator<Item = OsString>, socket: i32) -> Vec<OsString> {
    let mut monitor = Vec::new();
    let mut words = words.peekable();
    // Options of all commands have no values.
    while let Some(word) = words.next_if(|word| word != "launch") {
        monitor.push(word);
    }
    words.next();
    monitor.extend(["run", "--handover", &format!("fd={socket}")].map(OsString::from));
    while let Some(word) = words.next() {
        if word == "--user" {
            words.next();
        } else if !word.as_bytes().starts_with(b"--user=") {
            monitor.push(word);
        }
    }
    monitor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_another_and_the_options_are_the_same() {
        for (launcher, monitor) in [
            ("launch", "run --handover fd=7"),
            (
                "-v launch --user vm --memory 1G -v",
                "-v run --handover fd=7 --memory 1G -v",
            ),
            (
                "launch --memory 1G --user=1000:1000 --kernel launch",
                "run --handover fd=7 --memory 1G --kernel launch",
            ),
            ("launch --user launch", "run --handover fd=7"),
        ] {
            let words = launcher.split(' ').map(OsString::from);
            let expected: Vec<_> = monitor.split(' ').map(OsString::from).collect();
            assert_eq!(of_monitor(words, 7), expected);
        }
    }
}
