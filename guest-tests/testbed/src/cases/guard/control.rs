// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Would the cases of guarded controllers notice a command whose addresses the monitor did not check?

use super::guarded;
use crate::cases::canary::run_control;
use crate::cases::check::{self, Findings};
use crate::cases::rig::{ARGUMENTS, Rig};
use crate::cases::script;
use crate::error::Result;
use crate::runner::CaseResult;
use crate::setup;

/// What the canary leaves is more than twice what the guest requires: on the test machine, some 100 MiB of free memory are
/// not available.
const WRAPPER: &str = "testbed inside canary --leave-mib 500 -- ";

/// A monitor that forwards one command as its guest wrote it: the canary and the trace both have to show it. A test
/// machine that dies of it, or falls silent, counts as shown by the canary.
pub fn control() -> Result<CaseResult> {
    let rig = Rig::new(
        30,
        "dd if=/dev/nvme0n1 of=/dev/null bs=1M count=32 iflag=direct\n",
    )?;
    let machine = rig.machine(setup::guest_kernel()?.vmlinux());
    let arguments = format!("{} --memory 192M", guarded(ARGUMENTS));
    let Some(outcome) = run_control(&machine, WRAPPER, &arguments)? else {
        return Ok(Ok(()));
    };
    let mut findings = Findings::default();
    let facts = script::facts(&outcome.output);
    let changed = facts.get("canary_changed");
    findings.expect(
        changed.is_some_and(|words| *words != "0"),
        format!("the canary did not notice the command: {changed:?} words changed"),
    );
    findings.expect_eq("the canary's status", facts.get("status"), Some(&"9"));
    let dma = check::guarded_dma(&outcome.output, &outcome.trace);
    findings.expect(
        dma.outside > 0 && dma.transfers > 100 * dma.outside,
        format!("the trace shows something else than one command: {dma:x?}"),
    );
    Ok(findings.into_result(&outcome))
}
