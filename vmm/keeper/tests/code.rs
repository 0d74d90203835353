// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What of a program's code is mapped, in a program of its own: other tests would use theirs meanwhile.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{env, fs};

use keeper::release_code;

/// KiB of this program's code that are mapped (proc_pid_smaps(5)).
fn mapped_code() -> u64 {
    let program = env::current_exe().unwrap();
    let program = program.to_str().unwrap();
    let text = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = text.lines();
    let is_code = |line: &&str| line.contains(" r-xp ") && line.ends_with(program);
    lines.find(is_code).unwrap();
    let size = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
    size.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn code_that_is_not_used_again_is_unmapped() {
    // What is counted with is mapped in both.
    mapped_code();
    let before = mapped_code();
    release_code();
    let after = mapped_code();
    assert!(after < before, "{before} KiB, then {after} KiB");
}
