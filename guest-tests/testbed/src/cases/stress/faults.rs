// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Does the stress notice, and name, what can go wrong?

use super::super::check::Findings;
use super::super::script::PRELUDE;
use super::{AtLeast, Share, found, machine_of, passed, run, tested};
use crate::error::Result;
use crate::runner::CaseResult;
use crate::setup::Arch;

/// Each way to break the machine in software, and what the report is to call it.
const FAULTS: [(&str, &str); 4] = [
    ("identity", "wrong-extent"),
    ("offset", "shifted"),
    ("interrupt", "lost-interrupt"),
    ("bit", "bit-flip"),
];

/// Memory anywhere, looked up by the guest or by the monitor; and 10,000 attempts of a guest that tries everything,
/// addresses that would crash QEMU's engine among them, and 20 transfers that are right. The engine refuses and
/// counts any address that it should not have been given, and a run with such a one does not pass.
pub fn scattered(arch: Arch) -> Result<CaseResult> {
    scattered_of(arch, Share::Tenth)
}

/// The same with 100,000 attempts, and 200 transfers that are right.
pub fn scattered_long(arch: Arch) -> Result<CaseResult> {
    scattered_of(arch, Share::Whole)
}

fn scattered_of(arch: Arch, share: Share) -> Result<CaseResult> {
    let accepted = share.of(200);
    let hostile = format!(
        "engines=hostile transfers={} accepted={accepted}",
        share.of(108_000)
    );
    let run = |key, dma, words: &str| {
        let arguments =
            format!("--software={dma} --memory 64M --cpus 2 --timeout 1500 --cmdline '{words}'");
        run(key, "", &arguments).replace("pinvisor -vv", "pinvisor")
    };
    let script = [
        PRELUDE,
        &run("translate", "translate", "transfers=200 bytes=0"),
        &run("mediate", "mediate", "transfers=200 bytes=0"),
        &run("hostile", "mediate", &hostile),
    ]
    .concat();
    let outcome = machine_of(arch)?.run(&script)?;
    let mut findings = Findings::default();
    for key in ["translate", "mediate"] {
        let report = passed(&mut findings, &outcome, key, AtLeast::transfers(200));
        findings.expect_eq("mode", report["start"]["mode"].as_str(), Some(key));
    }
    let report = passed(
        &mut findings,
        &outcome,
        "hostile",
        AtLeast::transfers(accepted),
    );
    let mediated = &report["outcome"]["mediated"][0];
    findings.expect(
        mediated["refused"].as_u64() >= Some(share.of(100_000)),
        format!("the monitor refused {mediated}"),
    );
    tested(
        &mut findings,
        &report,
        "hostile",
        &["races start no other transfer"],
    );
    Ok(findings.into_result(&outcome))
}

/// What `cargo demo` shows, unbroken and broken in every way. No device, no hugepage.
pub fn software(arch: Arch) -> Result<CaseResult> {
    let arguments = "--software --memory 64M --timeout 900";
    let mut script = [PRELUDE, &run("good", "", arguments)].concat();
    for (what, _) in FAULTS {
        script += &run(what, "", &format!("{arguments} --break {what}"));
    }
    let outcome = machine_of(arch)?.run(&script)?;
    let mut findings = Findings::default();
    passed(
        &mut findings,
        &outcome,
        "good",
        AtLeast::transfers(2000).and_bytes(4 << 20),
    );
    for (what, kind) in FAULTS {
        found(&mut findings, &outcome, what, kind);
    }
    Ok(findings.into_result(&outcome))
}
