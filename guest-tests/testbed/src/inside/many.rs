// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Many monitors at once: what they take together, and what they leave behind.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::boot::INIT;
use super::idle_ms;
use crate::error::{AtPath, Error, Result};

/// What precedes the facts, which are JSON.
pub const FACTS: &str = "many: ";

/// The variable with each command's number, from 0 on.
const NUMBER: &str = "NUMBER";

/// When the kernel has finished with processes that have ended.
const SETTLED: Duration = Duration::from_millis(500);

/// How many.
#[derive(Clone, Copy, Debug, Args)]
pub struct Many {
    /// How many times to start the command, each with its number, from 0 on, in the variable NUMBER.
    #[arg(long, default_value_t = 1)]
    count: u32,
}

/// Runs the command of `words` many times at once and prints what that took as one line of JSON.
///
/// # Errors
/// [`Error::Start`]; [`Error::Usage`] for the first one that failed or whose guest's init never ran.
pub fn run(many: Many, words: &[String]) -> Result<i32> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Error::Usage("No command to run".into()));
    };
    let before = state();
    let (idle_before, began) = (idle_ms(), Instant::now());
    let start = |number: u32| {
        let child = Command::new(program)
            .args(arguments)
            .env(NUMBER, number.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        child.map_err(|source| Error::Start {
            program: program.clone(),
            source,
        })
    };
    let children: Vec<Child> = (0..many.count).map(start).collect::<Result<_>>()?;
    // Each pipe has a reader, so that none of them waits for another's.
    let threads: Vec<_> = children
        .into_iter()
        .map(|child| thread::spawn(|| child.wait_with_output()))
        .collect();
    let mut outputs = Vec::new();
    for thread in threads {
        let output = thread
            .join()
            .map_err(|_| Error::Usage("A thread panicked".into()))?;
        outputs.push(output.at("wait for", program)?);
    }
    let (took, idle) = (began.elapsed(), idle_ms() - idle_before);
    for (number, output) in outputs.iter().enumerate() {
        check(number, output)?;
    }
    thread::sleep(SETTLED);
    let facts = json!({
        "count": many.count, "ns": u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), "idle_ms": idle,
        "before": before, "after": state(),
    });
    println!("{FACTS}{facts}");
    Ok(0)
}

/// Whether a guest came up and its monitor ended well.
fn check(number: usize, output: &Output) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && text.contains(INIT) {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let reason = errors.lines().last().unwrap_or("no init ran");
    Err(Error::Usage(format!(
        "number {number} failed ({}): {reason}",
        output.status
    )))
}

/// What must be as it was: free hugepages, processes, open files.
fn state() -> BTreeMap<&'static str, u64> {
    let number = |text: String| text.split_whitespace().next()?.parse().ok();
    let read = |path: &str| {
        fs::read_to_string(path)
            .ok()
            .and_then(number)
            .unwrap_or_default()
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let named = |entry: &fs::DirEntry| {
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        name.starts_with("pinvisor")
    };
    let pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    BTreeMap::from([
        ("hugepages", read(pool)),
        ("files", read("/proc/sys/fs/file-nr")),
        ("monitors", processes.filter(named).count() as u64),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_its_number_and_reason() {
        let output = |script: &str| {
            Command::new("/bin/sh")
                .args(["-c", script])
                .output()
                .unwrap()
        };
        assert!(check(0, &output("echo 'guest: init'")).is_ok());
        let error = |script| check(7, &output(script)).unwrap_err().to_string();
        let failed = error("echo 'guest: init'; echo a >&2; echo 'too few' >&2; exit 4");
        assert_eq!(failed, "number 7 failed (exit status: 4): too few");
        assert_eq!(
            error("true"),
            "number 7 failed (exit status: 0): no init ran"
        );
    }
}
