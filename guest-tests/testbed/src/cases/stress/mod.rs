// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The bare-metal guest that stresses DMA: on the real path, and in software with faults that it must find.

mod faults;
mod volume;

use std::time::Duration;

use serde_json::Value;

use super::check::Findings;
use super::script;
use crate::error::Result;
use crate::machine::{Machine, Outcome};
use crate::paths::{self, GuestTarget};
use crate::setup::Arch;

pub use faults::{scattered, scattered_long, software};
pub use volume::{edu, nvme, nvme_long, wrong_extent};

/// A machine that is silent for so long is taken to hang. While a guest is listened to nothing is printed.
pub const SILENCE_TIMEOUT: Duration = Duration::from_secs(300);

/// How much of a campaign a case does.
#[derive(Debug, Clone, Copy)]
pub enum Share {
    /// A tenth, in every run.
    Tenth,
    /// All of it.
    Whole,
}

impl Share {
    /// That much of `number`.
    pub fn of(self, number: u64) -> u64 {
        match self {
            Self::Tenth => number / 10,
            Self::Whole => number,
        }
    }
}

/// A PC with the guest as `/testbed/dma-stress`.
pub fn machine() -> Result<Machine> {
    machine_of(Arch::X86_64)
}

/// The same of another architecture.
pub fn machine_of(arch: Arch) -> Result<Machine> {
    let guest = paths::guest_program("dma-stress", GuestTarget::BareMetal(arch))?;
    Ok(Machine::builder()
        .arch(arch)
        .file("dma-stress", guest)
        .patience(SILENCE_TIMEOUT)
        .trace("pci_cfg_write"))
}

/// Script: runs the bare-metal guest as [`run_with`] does.
pub fn run(key: &str, wrapper: &str, arguments: &str) -> String {
    let arguments = format!("--kernel /testbed/dma-stress {arguments}");
    run_with(key, wrapper, &arguments)
}

/// Script: runs `pinvisor stress` between the marks, behind a wrapper command, reports its status
/// as `KEY` and its report, as JSON in one line, as `KEY_report`.
pub fn run_with(key: &str, wrapper: &str, arguments: &str) -> String {
    let (begin, end) = (script::BEGIN, script::END);
    format!(
        "testbed-mark {begin}\n\
         {wrapper}pinvisor -vv stress {arguments} \
         --json /tmp/{key}.json --log /tmp/{key}.tap < /dev/null\n\
         say {key} $?\n\
         testbed-mark {end}\n\
         grep -v '^# sample' /tmp/{key}.tap | tail -n 100\n\
         say {key}_report \"$(tr -d '\\n' < /tmp/{key}.json)\"\n"
    )
}

/// The report that [`run`] printed.
pub fn report(findings: &mut Findings, outcome: &Outcome, key: &str) -> Value {
    let facts = script::facts(&outcome.output);
    let text = facts.get(format!("{key}_report").as_str());
    let report = text.and_then(|text| serde_json::from_str(text).ok());
    findings.expect(report.is_some(), format!("{key}: there is no report"));
    report.unwrap_or_default()
}

/// The run ended as `wanted`. Returns its report.
pub fn verdict(findings: &mut Findings, outcome: &Outcome, key: &str, wanted: &str) -> Value {
    let report = report(findings, outcome, key);
    let status = script::facts(&outcome.output).get(key).copied();
    let expected = if wanted == "passed" { "0" } else { "6" };
    findings.expect_eq(&format!("{key}: status"), status, Some(expected));
    let verdict = report["verdict"].as_str();
    findings.expect(
        verdict == Some(wanted),
        format!(
            "{key}: verdict: found {verdict:?}, expected {wanted:?}; reasons: {}",
            reasons(&report)
        ),
    );
    report
}

/// Why a run did not pass, as its report says.
fn reasons(report: &Value) -> String {
    let reasons = report["reasons"].as_array().into_iter().flatten();
    let texts = reasons.filter_map(|reason| reason["text"].as_str());
    texts.collect::<Vec<_>>().join("; ")
}

/// What a run has to move at least.
#[derive(Clone, Copy, Debug)]
pub struct AtLeast {
    transfers: u64,
    bytes: u64,
}

impl AtLeast {
    /// So many transfers, of any length.
    pub const fn transfers(transfers: u64) -> Self {
        Self {
            transfers,
            bytes: 1,
        }
    }

    /// The same, with at least so many bytes in all.
    pub const fn and_bytes(self, bytes: u64) -> Self {
        Self { bytes, ..self }
    }
}

/// All passed, with at least so many transfers and bytes.
pub fn passed(findings: &mut Findings, outcome: &Outcome, key: &str, least: AtLeast) -> Value {
    let report = verdict(findings, outcome, key, "passed");
    let total = |name: &str| report["totals"][name].as_u64();
    for name in ["mismatches", "guard_hits", "lost_interrupts"] {
        findings.expect_eq(&format!("{key}: {name}"), total(name), Some(0));
    }
    for (name, least) in [("transfers", least.transfers), ("bytes", least.bytes)] {
        findings.expect(
            total(name) >= Some(least),
            format!("{key}: {name} are {:?}, less than {least}", total(name)),
        );
    }
    report
}

/// A test with each of these in its name passed and was not left out.
pub fn tested(findings: &mut Findings, report: &Value, key: &str, names: &[&str]) {
    let tests = report["tests"].as_array();
    let tests: Vec<_> = tests.into_iter().flatten().collect();
    for name in names {
        let is_good = |test: &&Value| {
            let found = test["name"].as_str().unwrap_or_default();
            found.contains(name) && test["ok"] == true && test["skipped"].is_null()
        };
        findings.expect(
            tests.iter().any(is_good),
            format!("{key}: no test {name:?} that passed"),
        );
    }
}

/// Something went wrong, and the report names it.
fn found(findings: &mut Findings, outcome: &Outcome, key: &str, kind: &str) {
    let report = verdict(findings, outcome, key, "failed");
    let kinds: Vec<_> = report["finding_counts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry["kind"].as_str())
        .collect();
    findings.expect(
        kinds.contains(&kind),
        format!("{key}: found {kinds:?}, not {kind}"),
    );
}
