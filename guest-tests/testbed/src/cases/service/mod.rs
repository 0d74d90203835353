// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The unit `pinvisor@.service` under a real systemd: start, watchdog, stop, and a keeper that outlives the stop.

use super::check::{self, Findings};
use super::refusal;
use super::rig::Rig;
use super::script::{self, AWAIT, PRELUDE};
use crate::error::Result;
use crate::guest;
use crate::machine::Outcome;
use crate::order::{self, Verdict};
use crate::paths;
use crate::runner::CaseResult;
use crate::setup::{self, Arch};

/// In the guest: read a little, and wait for the power button.
const GUEST: &str = r#"
echo "guest: read=$(dd if=/dev/nvme0n1 bs=1M count=4 iflag=direct 2>/dev/null | wc -c)"
for input in /sys/class/input/event*; do
    grep -q 'Power Button' "$input/device/name" && button=/dev/input/${input##*/}
done
# Opened later, it would miss what was pressed before.
exec 3< "$button"
echo "guest: waits"
dd bs=24 count=1 <&3 > /dev/null 2>&1
"#;

/// The unit, in the checkout.
pub(super) const UNIT: &str = "vmm/pinvisor/systemd/pinvisor@.service";

/// What systemd and the kernel must have reported.
const FACTS: [(&str, &str); 30] = [
    ("verify", "0 "),
    ("start", "0"),
    ("ready_ActiveState", "active"),
    ("ready_StatusText", "The guest runs"),
    ("ready_processes", "1 1"),
    // Of the monitor and of the keeper.
    ("inherited", "3 0"),
    ("works_ActiveState", "active"),
    ("mem_outside", "allowed"),
    ("stop", "0"),
    ("stopped_ActiveState", "inactive"),
    ("hangs_processes", "1 1"),
    ("hung_ActiveState", "failed"),
    ("hung_Result", "watchdog"),
    ("hung_StatusText", "The guest runs"),
    ("fails", "1"),
    ("failed_ActiveState", "failed"),
    ("failed_Result", "exit-code"),
    ("failed_ExecMainStatus", "1"),
    ("keeps_processes", "1 1"),
    ("kept_ActiveState", "failed"),
    ("kept_Result", "exit-code"),
    ("kept_ExecMainStatus", "3"),
    ("kept_processes", "0 1"),
    ("listed", "1"),
    ("still_processes", "0 2"),
    ("released", "0"),
    ("lost_processes", "0 0"),
    ("processes", "0"),
    ("after_total", "150"),
    ("after_free", "150"),
];

/// Parts of what is reported.
const PARTS: [(&str, &str); 3] = [
    ("mem_inside", "Operation not permitted"),
    ("failed_StatusText", "/testbed/nowhere"),
    ("kept_StatusText", "could not be stopped from doing DMA"),
];

/// Whether all hugepages were free, by the key of `say_hugepages`.
const FREE: [(&str, bool); 5] = [
    ("stopped", true),
    ("hung", true),
    ("kept", false),
    ("released", true),
    ("lost", true),
];

/// All in one boot.
pub fn systemd() -> Result<CaseResult> {
    let rig = Rig::on(Arch::X86_64, 23, &["nvme", "button", "evdev"], GUEST)?;
    let machine = rig
        .machine(setup::guest_kernel()?.unpacked())
        .file("pinvisor@.service", paths::checkout().join(UNIT));
    let machine = refusal::with_guests(&rig, machine)?;
    let script = [
        PRELUDE,
        AWAIT,
        include_str!("systemd.sh"),
        order::START,
        &order::show_function(),
        include_str!("script.sh"),
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
    for (key, is_free) in FREE {
        let fact = |what: &str| facts.get(format!("{key}_{what}").as_str()).copied();
        let (free, total) = (fact("free"), fact("total"));
        findings.expect(
            total.is_some() && (free == total) == is_free,
            format!("hugepages, {key}: {free:?} of {total:?} are free"),
        );
    }
    findings.expect_eq(
        "bytes that the guest read",
        guest::facts(&outcome.output).get("read").copied(),
        Some("4194304"),
    );
    findings.expect(
        outcome.output.contains("The guest powered itself off"),
        "the guest did not power itself off",
    );
    check::quiet_before_release(findings, outcome, &[Verdict::QuietFirst]);
    check::device_saw_quiet(findings, outcome, facts.get("bdf"));
}
