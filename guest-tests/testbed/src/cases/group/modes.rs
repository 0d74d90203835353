// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Ordinary memory in single pages, which io_uring pins: a guarded controller, and a guest that translates.

use super::super::check::{self, Findings};
use super::super::scattered::{MIN_CANARY_MIB, SCATTERED_EACH, is_scattered};
use super::super::script::{self, PRELUDE};
use super::super::stress::{self, AtLeast};
use super::{OTHER_NOTES, took_group};
use crate::error::{AtPath, Result};
use crate::image;
use crate::machine::Machine;
use crate::order::{self, Verdict};
use crate::runner::CaseResult;
use crate::setup::Flavour;
use crate::trace::NVME_EVENTS;

/// Each mode, in the order of the runs.
const MODES: [&str; 2] = ["mediate", "translate"];
/// What each run does at least.
const TRANSFERS: u64 = 1200;
const BYTES: u64 = 16 << 20;

/// A disk written and read back in both modes.
pub fn modes() -> Result<CaseResult> {
    let disk = tempfile::NamedTempFile::new().at("create", "a temporary file")?;
    image::write(disk.path(), &image::bytes(64, 39))?;
    let machine = stress::machine()?
        .flavour(Flavour::Old)
        .writable_disk("disk", disk.path().to_owned())
        .device("nvme,drive=disk,serial=modes");
    let machine = NVME_EVENTS
        .iter()
        .fold(machine, |machine: Machine, event| machine.trace(event));
    let outcome = machine.run(&script())?;
    let mut findings = Findings::default();
    let facts = script::facts(&outcome.output);
    findings.expect_eq("the canary's status", facts.get("watched"), Some(&"0"));
    findings.expect_eq("processes left", facts.get("processes"), Some(&"0"));
    for mode in MODES {
        let least = AtLeast::transfers(TRANSFERS).and_bytes(BYTES);
        let report = stress::passed(&mut findings, &outcome, mode, least);
        findings.expect_eq("mode", report["start"]["mode"].as_str(), Some(mode));
    }
    check::canary_lives(&mut findings, &outcome, MIN_CANARY_MIB);
    is_scattered(&mut findings, &outcome);
    took_group(&mut findings, &outcome, &OTHER_NOTES);
    check::quiet_before_release(&mut findings, &outcome, &[Verdict::QuietFirst; MODES.len()]);
    // The marks are those of the first run.
    check::guarded_dma_inside(&mut findings, &outcome.output, &outcome.trace, BYTES);
    check::device_saw_quiet(&mut findings, &outcome, facts.get("bdf"));
    Ok(findings.into_result(&outcome))
}

fn script() -> String {
    let [scatter, watch] = SCATTERED_EACH;
    let run = |mode| {
        let arguments = format!(
            "--noiommu --memory 128M --device $TESTBED_BDF_0,dma={mode} \
             --cmdline 'transfers={TRANSFERS} bytes={BYTES} engines=nvme destroy=yes'"
        );
        stress::run(mode, scatter, &arguments) + order::SHOW
    };
    let runs: String = MODES.into_iter().map(run).collect();
    [
        PRELUDE,
        "say bdf $TESTBED_BDF_0\ntestbed-bind $TESTBED_BDF_0 || exit 1\n",
        order::START,
        "cat > /tmp/runs << 'END'\n",
        PRELUDE,
        &runs,
        "END\n",
        watch,
        "/tmp/runs\nsay watched $?\nsay_processes\n",
    ]
    .concat()
}
