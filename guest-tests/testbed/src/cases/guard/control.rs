// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Would the cases of guarded controllers notice a command whose addresses the monitor did not check?

use super::guarded;
use crate::cases::check::Findings;
use crate::cases::rig::{ARGUMENTS, Rig};
use crate::cases::script::{self, PRELUDE};
use crate::error::{Error, Result};
use crate::machine::Status;
use crate::runner::CaseResult;
use crate::{setup, trace};

/// A monitor that forwards one command as its guest wrote it: the canary and the trace both have to show it. A test
/// machine that dies of it, or falls silent, counts as shown by the canary.
pub fn control() -> Result<CaseResult> {
    let rig = Rig::new(
        30,
        "dd if=/dev/nvme0n1 of=/dev/null bs=1M count=32 iflag=direct\n",
    )?;
    let machine = rig.machine(setup::guest_kernel()?.vmlinux());
    let arguments = format!("{} --memory 192M", guarded(ARGUMENTS));
    let run = script::pinvisor("status", "testbed inside canary -- ", &arguments);
    let run = run.replace("pinvisor -vv", "timeout 900 pinvisor-control -vv");
    let script = [PRELUDE, "testbed-bind $TESTBED_BDF_0 || exit 1\n", &run].concat();
    let outcome = match machine.run(&script) {
        Err(Error::MachineDied { .. }) => return Ok(Ok(())),
        outcome => outcome?,
    };
    if outcome.status == Status::TimedOut {
        return Ok(Ok(()));
    }
    let mut findings = Findings::default();
    let facts = script::facts(&outcome.output);
    let changed = facts.get("canary_changed");
    findings.expect(
        changed.is_some_and(|words| *words != "0"),
        format!("the canary did not notice the command: {changed:?} words changed"),
    );
    findings.expect_eq("the canary's status", facts.get("status"), Some(&"9"));
    let mut memory = trace::extents(&outcome.output);
    memory.extend(trace::queue_memory(&outcome.output));
    let events = trace::parse(&outcome.trace);
    let during = trace::between(&events, script::BEGIN, script::END).unwrap_or_default();
    let dma = trace::check_dma(during, &memory);
    findings.expect(
        dma.outside > 0 && dma.transfers > 100 * dma.outside,
        format!("the trace shows something else than one command: {dma:x?}"),
    );
    Ok(findings.into_result(&outcome))
}
