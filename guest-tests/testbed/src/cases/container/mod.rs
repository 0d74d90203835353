// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Runs in a container of runc's, by the documented example.

use super::check::{self, Findings};
use super::data::{self, PLAIN, Variant};
use super::refusal;
use super::rig::Rig;
use super::script::{self, AWAIT, HAND_BACK, PRELUDE};
use crate::error::Result;
use crate::machine::Outcome;
use crate::order;
use crate::paths;
use crate::runner::CaseResult;
use crate::setup::{self, Arch};

/// The example, in the checkout.
const EXAMPLE: &str = "vmm/pinvisor/container/config.json";

/// Functions that run programs in containers of the example.
const RUNC: &str = include_str!("runc.sh");

/// A stock guest with all that the example gives, which is less than what a page check needs.
pub fn stock_kernel() -> Result<CaseResult> {
    let variant = Variant {
        seed: 24,
        machine: |machine| {
            let machine = machine.hugepages_2m(300);
            machine.file("config.json", paths::checkout().join(EXAMPLE))
        },
        wrapper: "in_container ",
        before: RUNC,
        ..PLAIN
    };
    let (outcome, mut findings) = data::run(Arch::X86_64, &variant)?;
    findings.expect(
        outcome
            .output
            .contains("Cannot verify that guest memory stays at the addresses that devices use"),
        "the missing page check is not logged",
    );
    Ok(findings.into_result(&outcome))
}

/// In the guest: use the disk.
const GUEST: &str = r#"
echo "guest: read=$(dd if=/dev/nvme0n1 bs=1M count=4 iflag=direct 2>/dev/null | wc -c)"
echo "guest: waits"
while :; do dd if=/dev/nvme0n1 of=/dev/null bs=1M iflag=direct 2>/dev/null; done
"#;

/// What must have been reported.
const FACTS: [(&str, &str); 18] = [
    ("check", "0"),
    // CAP_IPC_LOCK and CAP_SYS_RAWIO.
    ("capabilities", "0000000000024000"),
    ("mem_outside", "allowed"),
    ("terminated", "0"),
    ("admin", "0"),
    (
        "pages",
        "pages of guest memory are at the addresses that devices use",
    ),
    ("namespace_handover", "0 2"),
    ("namespace_launcher", "0"),
    ("namespace_free", "150"),
    ("kept_state", "running"),
    ("listed", "1"),
    ("released", "0"),
    ("kept_status", "3"),
    ("killed", "137"),
    ("processes", "0"),
    ("after_total", "150"),
    ("killed_free", "150"),
    ("released_free", "150"),
];

/// Parts of what must have been reported.
const PARTS: [(&str, &str); 5] = [
    ("mem_inside", "Operation not permitted"),
    (
        "namespace_1",
        "FAIL capability-rawio: The caller is not in the initial user namespace",
    ),
    (
        "namespace_4294967295",
        "FAIL capability-rawio: The caller is not in the initial user namespace",
    ),
    ("namespace_4294967295", "EPERM"),
    ("namespace_run", "error[open-cdev]"),
];

/// What a container may do, and what its end means.
pub fn limits() -> Result<CaseResult> {
    let rig = Rig::new(25, GUEST)?;
    let machine = rig
        .machine(setup::guest_kernel()?.unpacked())
        .file("config.json", paths::checkout().join(EXAMPLE));
    let machine = refusal::with_guests(&rig, machine)?;
    let script = [
        PRELUDE,
        AWAIT,
        HAND_BACK,
        "say bdf $TESTBED_BDF_0\ntestbed-bind $TESTBED_BDF_0 || exit 1\n",
        RUNC,
        order::START,
        &order::show_function(),
        include_str!("limits.sh"),
    ]
    .concat();
    let outcome = machine.run(&script)?;
    let mut findings = Findings::default();
    judge(&mut findings, &outcome);
    Ok(findings.into_result(&outcome))
}

fn judge(findings: &mut Findings, outcome: &Outcome) {
    let facts = script::facts(&outcome.output);
    check::left_clean(findings, outcome, &facts);
    check::said(findings, &facts, &FACTS, &PARTS);
    findings.expect(
        facts.get("kept_free").is_some_and(|free| *free != "150"),
        "no memory was kept",
    );
    let notes = order::notes(&outcome.output);
    findings.expect(
        notes.len() == 1 && notes.into_iter().all(order::closed_before_iommufd),
        "/dev/iommu was closed before the device",
    );
    check::device_saw_quiet(findings, outcome, facts.get("bdf"));
    if let Err(text) = script::handed_back(&facts, "back") {
        findings.expect(false, text);
    }
}
