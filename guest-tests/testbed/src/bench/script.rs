// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Scripts that measure on a test machine, and the facts that they print.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::machine::{Machine, Status};
use crate::shell;

/// The facts about what was measured, by its name and in order.
pub type Facts = BTreeMap<String, Vec<Value>>;

/// Where kernel, initramfs and monitors are on the test machine, in memory.
pub const FOLDER: &str = "/tmp/bench";

/// What precedes the name of what is measured next.
pub const NAME: &str = "bench: ";

/// A machine that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(600);

/// A machine with an NVMe controller whose blocks are QEMU's `null-co`, so that no disk and none of its delays count.
pub fn machine_without_disk() -> Machine {
    Machine::builder()
        .qemu_arg("-blockdev")
        .qemu_arg("driver=null-co,node-name=disk,size=1073741824,read-zeroes=on")
        .device("nvme,drive=disk,serial=testbed")
}

/// Script lines that require `pages` free hugepages and copy `files` of `/testbed` to [`FOLDER`].
pub fn prepare(files: &[&str], pages: u32) -> String {
    let files: Vec<_> = files
        .iter()
        .map(|name| format!("/testbed/{name}"))
        .collect();
    format!(
        "free=$(cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages)\n\
         [ $free -ge {pages} ] || {{ echo \"testbed: The test machine has $free free hugepages of {pages}\"; exit 1; }}\n\
         mkdir -p {FOLDER}\ncp {} {FOLDER}\nchmod -R +x {FOLDER}\n",
        files.join(" ")
    )
}

/// Whether this machine has memory for a test machine of `gib` GiB.
///
/// # Errors
/// [`Error::Usage`] if it has less.
pub fn require_memory(gib: u64) -> Result<()> {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    match available_gib(&text) {
        Some(available) if available < gib => Err(Error::Usage(format!(
            "The test machine takes {gib} GiB of memory, and {available} GiB are available"
        ))),
        _ => Ok(()),
    }
}

/// `MemAvailable` of proc_meminfo(5).
fn available_gib(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib >> 20)
}

/// Runs `script`, which prints a line [`NAME`] before whatever it measures, and returns the facts that follow it, each
/// behind `prefix`.
///
/// # Errors
/// Those of the test machine; [`Error::Usage`] with the name of what failed, and why.
pub fn run(machine: &Machine, script: &str, prefix: &str) -> Result<Facts> {
    let machine = machine.clone().patience(PATIENCE);
    let outcome = machine.run_streaming(script, &mut |_| ())?;
    if outcome.status != Status::Exited(0) {
        return Err(Error::Usage(failure(&outcome.output, outcome.status)));
    }
    let mut facts = Facts::new();
    let mut name = None;
    for line in outcome.output.lines() {
        if let Some(next) = line.strip_prefix(NAME) {
            name = Some(next);
        } else if let (Some(text), Some(name)) = (line.strip_prefix(prefix), name)
            && let Ok(fact) = serde_json::from_str(text)
        {
            facts.entry(name.to_owned()).or_default().push(fact);
        }
    }
    Ok(facts)
}

/// What failed, and its own reason if it gave one.
fn failure(output: &str, status: Status) -> String {
    let last = |prefix| {
        output
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix(prefix))
    };
    match (last(NAME), last("testbed: ")) {
        (Some(name), Some(reason)) => format!("Cannot measure {name}: {reason}"),
        (None, Some(reason)) => reason.to_owned(),
        (name, None) => format!(
            "Cannot measure {} ({status}):\n{}",
            name.unwrap_or("anything"),
            shell::last_lines(output, 20)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_one_line() {
        let output = "bench: a\nboot: {}\nbench: b\ntestbed: b: no init ran (exit status: 2)\n";
        let text = failure(output, Status::Exited(1));
        assert_eq!(text, "Cannot measure b: b: no init ran (exit status: 2)");
        let early = failure(
            "testbed: The test machine has 3 free hugepages of 150\n",
            Status::Exited(1),
        );
        assert_eq!(early, "The test machine has 3 free hugepages of 150");
        assert!(
            failure("bench: a\nnoise\n", Status::TimedOut)
                .starts_with("Cannot measure a (timed out):\n")
        );
    }

    #[test]
    fn memory_is_in_whole_gib() {
        let text = "MemTotal: 9 kB\nMemAvailable:    3145727 kB\n";
        assert_eq!(available_gib(text), Some(2));
        assert_eq!(available_gib(""), None);
    }
}
