// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Limits of a process, as the program reports them.

use std::fs::File;
use std::process::Command;

/// More is written than the limit lets a file have.
#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_no_signal() {
    let directory = tempfile::tempdir().unwrap();
    let file = File::create(directory.path().join("check")).unwrap();
    let program = env!("CARGO_BIN_EXE_pinvisor");
    let output = Command::new("sh")
        .args(["-c", "ulimit -f 1; exec \"$0\" check --json", program])
        .stdout(file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{} {text}", output.status);
    assert!(text.contains("ulimit -f"), "{text}");
}
