// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Judging what came out of a test machine.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};

use crate::machine::{Outcome, Status};
use crate::order::{self, Verdict};
use crate::runner::CaseResult;
use crate::shell::last_lines;
use crate::trace::{self, DmaCheck, Event};

use super::script;

/// Lines of output that a failure shows.
const SHOWN_LINES: usize = 80;

/// Collects everything that is wrong, so that one run reports all.
#[derive(Debug, Default)]
pub struct Findings(Vec<String>);

impl Findings {
    /// Notes `text` unless `holds`.
    pub fn expect(&mut self, holds: bool, text: impl Display) {
        if !holds {
            self.0.push(text.to_string());
        }
    }

    /// Notes a difference.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a call reads like an assertion"
    )]
    pub fn expect_eq<T: PartialEq + Debug>(&mut self, what: &str, found: T, wanted: T) {
        let text = format!("{what}: found {found:?}, expected {wanted:?}");
        self.expect(found == wanted, text);
    }

    /// Notes what was noted of a part of the case.
    pub fn include(&mut self, part: &str, findings: Self) {
        let named = findings.0.into_iter().map(|text| format!("{part}: {text}"));
        self.0.extend(named);
    }

    /// Ends the case; a failure shows the end of the output.
    pub fn into_result(self, outcome: &Outcome) -> CaseResult {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(format!(
            "{}\nThe script ended with {}. End of its output:\n{}",
            self.0.join("\n"),
            outcome.status,
            last_lines(&outcome.output, SHOWN_LINES)
        ))
    }
}

/// The script said each fact of `whole`, and `parts` are in what it said.
pub fn said(
    findings: &mut Findings,
    facts: &BTreeMap<&str, &str>,
    whole: &[(&str, &str)],
    parts: &[(&str, &str)],
) {
    for (key, value) in whole {
        findings.expect_eq(key, facts.get(key), Some(value));
    }
    for (key, part) in parts {
        let found = facts.get(key);
        findings.expect(
            found.is_some_and(|text| text.contains(part)),
            format!("{key}: `{part}` is not in {found:?}"),
        );
    }
}

/// What must hold after every run of `pinvisor`: the script finished, hugepages are free, no process is left.
pub fn left_clean(findings: &mut Findings, outcome: &Outcome, facts: &BTreeMap<&str, &str>) {
    findings.expect_eq("script", outcome.status, Status::Exited(0));
    findings.expect_eq(
        "free hugepages afterwards",
        facts.get("after_free"),
        facts.get("after_total"),
    );
    findings.expect(
        facts.get("after_total").is_some_and(|count| *count != "0"),
        "no hugepages",
    );
    findings.expect_eq("processes left", facts.get("processes"), Some(&"0"));
}

/// The order of every run's end, by the kernel's notes, and that the device saw its bus mastering go off.
pub fn quiet_before_release(findings: &mut Findings, outcome: &Outcome, wanted: &[Verdict]) {
    let found: Vec<Verdict> = order::notes(&outcome.output)
        .into_iter()
        .map(order::judge)
        .collect();
    findings.expect_eq("order of release", &found[..], wanted);
}

/// Every DMA between the marks lies in an extent that was printed.
pub fn dma_inside(findings: &mut Findings, outcome: &Outcome, least_bytes: u64) {
    let events = trace::parse(&outcome.trace);
    let Some(events) = trace::between(&events, script::BEGIN, script::END) else {
        findings.expect(false, "QEMU's trace lacks the marks");
        return;
    };
    let check = trace::check_dma(events, &trace::extents(&outcome.output));
    findings.expect(
        check.outside == 0,
        format!("DMA outside the guest's memory: {check:x?}"),
    );
    findings.expect(
        check.bytes >= least_bytes,
        format!("too little DMA to be true: {check:?}"),
    );
}

/// The CPUs from 0 on, `count` of them, as sysfs lists them.
pub fn cpu_list(count: u32) -> String {
    match count {
        1 => "0".to_owned(),
        _ => format!("0-{}", count - 1),
    }
}

/// The DMA of guarded controllers between the marks of `trace`, compared with the memory of the guest and of the monitor
/// that `output` lists.
pub fn guarded_dma(output: &str, trace: &str) -> DmaCheck {
    let mut memory = trace::extents(output);
    memory.extend(trace::queue_memory(output));
    let events = trace::parse(trace);
    let during = trace::between(&events, script::BEGIN, script::END).unwrap_or_default();
    trace::check_dma(during, &memory)
}

/// Requires that a guarded controller did DMA of `least_bytes` or more, and none outside the memory of guest and monitor.
pub fn guarded_dma_inside(findings: &mut Findings, output: &str, trace: &str, least_bytes: u64) {
    let dma = guarded_dma(output, trace);
    findings.expect(dma.outside == 0, format!("DMA outside: {dma:x?}"));
    findings.expect(dma.bytes >= least_bytes, format!("too little DMA: {dma:?}"));
}

/// Nothing wrote to the rest of the machine's memory, which was `least_mib` at least.
pub fn canary_lives(findings: &mut Findings, outcome: &Outcome, least_mib: u64) {
    let facts = script::facts(&outcome.output);
    findings.expect_eq(
        "words changed",
        facts.get("canary_changed").copied(),
        Some("0"),
    );
    let held = facts.get("canary_mib").and_then(|mib| mib.parse().ok());
    findings.expect(
        held >= Some(least_mib),
        format!("the canary held {held:?} MiB, less than {least_mib}"),
    );
}

/// COMMAND as QEMU's device saw it: bus mastering on while the guest ran, off by a write in the end.
pub fn device_saw_quiet(findings: &mut Findings, outcome: &Outcome, bdf: Option<&&str>) {
    let events: Vec<Event> = trace::parse(&outcome.trace);
    let during = trace::between(&events, script::BEGIN, script::END).unwrap_or_default();
    let function = bdf.and_then(|bdf| trace::function(bdf)).unwrap_or(u16::MAX);
    let writes = trace::command_writes(during, function);
    let is_on = |value: &&u32| **value & 4 != 0;
    findings.expect(
        writes.iter().any(|value| is_on(&value)),
        "the device never was bus master",
    );
    findings.expect(
        writes.last().is_some_and(|value| !is_on(&value)),
        format!("the device's last COMMAND is {:x?}", writes.last()),
    );
}
