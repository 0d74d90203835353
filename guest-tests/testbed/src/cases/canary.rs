// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Does DMA touch anything but the guest's memory? And would the tests notice?

use super::check::{self, Findings};
use super::data::{self, Variant};
use super::rig::{ARGUMENTS, Rig};
use super::script::{self, PRELUDE};
use crate::error::{Error, Result};
use crate::machine::{Machine, Outcome, Status};
use crate::runner::CaseResult;
use crate::setup::{self, Arch};
use crate::trace;

/// What runs `pinvisor` in both cases.
pub const WRAPPER: &str = "testbed inside canary -- ";

/// The shape of both cases: hugepages above 4 GiB, on aarch64 below 2 GiB, a canary nearly everywhere else.
pub fn machine(machine: Machine) -> Machine {
    machine.memory("6G").hugepages_2m(300)
}

/// Words that changed, as `testbed inside canary` reports them.
pub fn changed(output: &str) -> Option<u64> {
    script::facts(output).get("canary_changed")?.parse().ok()
}

/// Runs the monitor that gives devices wrong addresses, with a canary around it; `None` if the test machine died of it
/// or fell silent.
pub fn run_control(machine: &Machine, wrapper: &str, arguments: &str) -> Result<Option<Outcome>> {
    let run = script::pinvisor("status", wrapper, arguments);
    let run = run.replace("pinvisor -vv", "timeout 900 pinvisor-control -vv");
    let script = [PRELUDE, "testbed-bind $TESTBED_BDF_0 || exit 1\n", &run].concat();
    match machine.run(&script) {
        Err(Error::MachineDied { .. }) => Ok(None),
        Ok(outcome) if outcome.status == Status::TimedOut => Ok(None),
        outcome => outcome.map(Some),
    }
}

/// The data checks, with a canary around them.
pub fn untouched(arch: Arch) -> Result<CaseResult> {
    let variant = Variant {
        seed: 5,
        machine,
        wrapper: WRAPPER,
        ..data::PLAIN
    };
    let (outcome, mut findings) = data::run(arch, &variant)?;
    findings.expect_eq("words changed", changed(&outcome.output), Some(0));
    Ok(findings.into_result(&outcome))
}

/// A guest at conventional addresses: both the canary and the trace check must report it.
pub fn control(arch: Arch) -> Result<CaseResult> {
    control_with(arch, "512M")
}

/// A guest with this memory, which has wrong addresses for devices. A test machine that dies of it, or falls silent,
/// counts as reported by the canary.
pub fn control_with(arch: Arch, memory: &str) -> Result<CaseResult> {
    let rig = Rig::on(
        arch,
        6,
        &["nvme"],
        "dd if=/dev/nvme0n1 of=/dev/null bs=1M count=4 iflag=direct\n",
    )?;
    let machine = machine(rig.machine(setup::guest_kernel_of(arch)?.unpacked()));
    let arguments = ARGUMENTS.replace("quiet", "quiet nvme_core.admin_timeout=3");
    let arguments = format!("{arguments} --memory {memory}");
    let Some(outcome) = run_control(&machine, WRAPPER, &arguments)? else {
        return Ok(Ok(()));
    };
    let mut findings = Findings::default();
    findings.expect(
        changed(&outcome.output).is_some_and(|words| words > 0),
        "the canary did not notice DMA at wrong addresses",
    );
    let status = script::facts(&outcome.output).get("status").copied();
    findings.expect_eq("the canary's status", status, Some("9"));
    let events = trace::parse(&outcome.trace);
    let events = trace::between(&events, script::BEGIN, script::END).unwrap_or_default();
    let dma = trace::check_dma(events, &trace::extents(&outcome.output));
    findings.expect(
        dma.outside > 0,
        format!("the trace check did not notice: {dma:?}"),
    );
    let mut judged = Findings::default();
    check::dma_inside(&mut judged, &outcome, 1);
    findings.expect(
        judged.into_result(&outcome).is_err(),
        "the check of the other cases passes it",
    );
    Ok(findings.into_result(&outcome))
}
