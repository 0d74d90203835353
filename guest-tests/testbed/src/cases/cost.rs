// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What it costs to find out where memory is, in instructions: for the monitor, and for guests that have it
//! somewhere else.

use std::collections::BTreeMap;
use std::time::Duration;

use super::check::Findings;
use super::scattered::EDU;
use super::script::{self, PRELUDE};
use super::stress;
use crate::error::Result;
use crate::machine::Outcome;
use crate::runner::CaseResult;

const LIMIT: Duration = Duration::from_secs(400);

/// The guests that measure: what they are called, their memory, and how their device reaches it.
const GUESTS: [(&str, &str, &str); 3] = [
    ("small", "64M", "translate"),
    ("large", "64M,hugepage_size=2M", "translate"),
    ("mediate", "64M", "mediate,profile=edu64"),
];

/// Ratios that must hold: this guest's cost of something must be so many times another one's, at least.
const RATIOS: [(&str, &str, u64, &str); 4] = [
    ("small", "asking", 20, "walking for 1 "),
    ("large", "asking", 20, "walking for 1 "),
    ("small", "asking", 2, "walking for 16 "),
    ("mediate", "a start:", 1, "a start that is refused"),
];

/// What one transfer of a mediated device costs, in instructions: three stores and a start; and as many stores that are
/// passed on to the device unchecked. `None` if a cost is missing.
///
/// # Errors
/// Those of the test machine.
pub fn mediated() -> Result<Option<(u64, u64)>> {
    let outcome = run("", &GUESTS[2..])?;
    let costs = costs(&mut Findings::default(), &outcome, "mediate");
    let cost = |what| of(&costs, what);
    let transfer = cost("storing").zip(cost("a start:"));
    let transfer = transfer.map(|(store, start)| 3 * store + start);
    Ok(transfer.zip(cost("a store that is passed on").map(|store| 4 * store)))
}

/// Runs `guests` on a machine whose clock counts instructions, after `before`.
fn run(before: &str, guests: &[(&str, &str, &str)]) -> Result<Outcome> {
    let guests: String = guests
        .iter()
        .map(|(key, memory, dma)| {
            let device = format!("--noiommu --device $TESTBED_BDF_1,dma={dma}");
            let arguments = format!("{device} --memory {memory} --cmdline engines=cost");
            // What is logged costs as well.
            stress::run(key, "", &arguments).replace("pinvisor -vv", "pinvisor")
        })
        .collect();
    let bind = "testbed-bind $TESTBED_BDF_0 || exit 1\ntestbed-bind $TESTBED_BDF_1 || exit 1\n";
    stress::machine()?
        .device("e1000e")
        .device(EDU)
        .hugepages_2m(520)
        .timeout(LIMIT)
        .qemu_arg("-icount")
        .qemu_arg("shift=0,sleep=off")
        .run(&[PRELUDE, bind, before, &guests].concat())
}

/// The costs that guest `key` reports, which must have passed.
fn costs(findings: &mut Findings, outcome: &Outcome, key: &str) -> Vec<(String, u64)> {
    let report = stress::verdict(findings, outcome, key, "passed");
    let tests = report["tests"].as_array().into_iter().flatten();
    tests
        .filter_map(|test| cost(test["name"].as_str()?))
        .collect()
}

/// Instructions for finding a GiB of hugepages, for translating in a guest, and for accesses to mediated registers,
/// on a machine whose clock counts them.
pub fn translation() -> Result<CaseResult> {
    let outcome = run("kernel-check cost $TESTBED_BDF_0\nsay cost $?\n", &GUESTS)?;
    let facts = script::facts(&outcome.output);
    let mut findings = Findings::default();
    findings.expect_eq("cost", facts.get("cost").copied(), Some("0"));
    let asked = outcome
        .output
        .lines()
        .find(|line| line.starts_with("cost: "));
    println!("    {}", asked.unwrap_or_default());
    let mut all = BTreeMap::new();
    for (key, ..) in GUESTS {
        let costs = costs(&mut findings, &outcome, key);
        for (what, instructions) in &costs {
            println!("    {key}: {what} {instructions}");
        }
        let tick = of(&costs, "an instruction:");
        findings.expect_eq(&format!("{key}: a tick is an instruction"), tick, Some(1));
        all.insert(key, costs);
    }
    for (key, large, ratio, small) in RATIOS {
        let [large_cost, small_cost] = [large, small].map(|what| of(&all[key], what));
        let holds = large_cost.zip(small_cost);
        findings.expect(
            holds.is_some_and(|(large, small)| large >= ratio * small),
            format!(
                "{key}: {large} costs {large_cost:?}, not {ratio} times {small}, {small_cost:?}"
            ),
        );
    }
    Ok(findings.into_result(&outcome))
}

/// Most instructions that the filters of system calls may add to an exit.
const MOST_BY_FILTERS: u64 = 1500;

/// Instructions that the filter of a vCPU's thread adds to an exit: to a store to a mediated register that is passed on,
/// which takes two system calls of the monitor.
pub fn filters() -> Result<CaseResult> {
    let run = |mode: &str| {
        format!(
            "pinvisor run --noiommu --device $TESTBED_BDF_1,dma=mediate,profile=edu64 --memory 64M \
             --kernel /testbed/dma-stress --cmdline 'mode=mediate engines=cost' --seccomp {mode} --serial file=/tmp/{mode} < /dev/null\n\
             say {mode} $?\n\
             say {mode}_store \"$(sed -n 's/.*\\(cost of a store that is passed on.*\\)/\\1/p' /tmp/{mode})\"\n"
        )
    };
    let bind = "testbed-bind $TESTBED_BDF_0 || exit 1\ntestbed-bind $TESTBED_BDF_1 || exit 1\n";
    let outcome = stress::machine()?
        .device("e1000e")
        .device(EDU)
        .hugepages_2m(64)
        .timeout(LIMIT)
        .qemu_arg("-icount")
        .qemu_arg("shift=0,sleep=off")
        .run(&[PRELUDE, bind, &run("on"), &run("off")].concat())?;
    let facts = script::facts(&outcome.output);
    let mut findings = Findings::default();
    let store = |mode: &str| {
        let name = facts.get(format!("{mode}_store").as_str())?;
        cost(name).map(|(_, instructions)| instructions)
    };
    let (on, off) = (store("on"), store("off"));
    println!("    a store that is passed on: {on:?} instructions, without filters {off:?}");
    let added = on.zip(off).map(|(on, off)| on.saturating_sub(off));
    findings.expect(
        added.is_some_and(|added| added <= MOST_BY_FILTERS),
        format!("filters add {added:?} instructions to an exit, more than {MOST_BY_FILTERS}"),
    );
    for mode in ["on", "off"] {
        findings.expect_eq(mode, facts.get(mode).copied(), Some("0"));
    }
    Ok(findings.into_result(&outcome))
}

/// What something costs each time, of a test's name: `cost of WHAT: times=N ticks=M`.
fn cost(name: &str) -> Option<(String, u64)> {
    let (what, numbers) = name.strip_prefix("cost of ")?.split_once(" times=")?;
    let (times, ticks) = numbers.split_once(" ticks=")?;
    let ticks: u64 = ticks.parse().ok()?;
    Some((what.to_owned(), ticks.checked_div(times.parse().ok()?)?))
}

/// The cost of what begins so.
fn of(costs: &[(String, u64)], what: &str) -> Option<u64> {
    let found = costs.iter().find(|(name, _)| name.starts_with(what));
    found.map(|(_, instructions)| *instructions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_read_from_names() {
        let name = "cost of walking for 1 pages, of which 1 follow: times=64 ticks=6400";
        let (what, each) = cost(name).unwrap();
        assert_eq!(each, 100);
        let costs = [
            (what, each),
            ("a start that is refused:".into(), 7),
            ("a start:".into(), 9),
        ];
        assert_eq!(of(&costs, "walking for 1 "), Some(100));
        assert_eq!(of(&costs, "a start:"), Some(9));
        assert_eq!(of(&costs, "asking"), None);
        for other in [
            "DMA window, all memory",
            "cost of x: times=0 ticks=1",
            "cost of x: times=1",
        ] {
            assert_eq!(cost(other), None);
        }
    }
}
