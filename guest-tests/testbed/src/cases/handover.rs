// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A stock guest whose devices and memory a privileged process hands over to a monitor without privilege.

mod refusals;
mod socket;

use std::collections::BTreeMap;

use super::check::{self, Findings};
use super::data::{self, MIN_DMA};
use super::ending;
use super::refusal;
use super::rig::{ARGUMENTS, Rig};
use super::script::{self, AWAIT, PRELUDE};
use crate::error::Result;
use crate::machine::Outcome;
use crate::order::{self, Verdict};
use crate::runner::CaseResult;
use crate::setup::{self, Arch};

pub use refusals::REFUSALS;
pub use socket::through_a_socket;

/// Script lines: a user `vm`, who may open /dev/kvm by a second group, and files of that user's. `status_of PID` reports
/// what the kernel shows of a process.
pub const USER: &str = r#"
echo 'vm:x:4242:4242::/:/bin/sh' >> /etc/passwd
echo 'vm-kvm:x:4343:vm' >> /etc/group
chgrp 4343 /dev/kvm && chmod 660 /dev/kvm
chmod 755 /tmp
mkdir /tmp/vm && cp /testbed/kernel /testbed/initramfs /tmp/vm && cp /testbed/bin/pinvisor /tmp/pinvisor
chmod 755 /tmp/pinvisor && chown -R vm:4242 /tmp/vm && chmod 400 /tmp/vm/*
status_of() {
    for field in Name Uid Gid Groups NoNewPrivs CapInh CapPrm CapEff CapBnd CapAmb; do
        say $field "$(sed -n "s/^$field:[[:space:]]*//p" /proc/$1/status | tr -s '\t ' ' ')"
    done
}
"#;

/// Functions: `start OPTIONS` launches a guest in the background and waits until that waits.
const START: &str = r#"
start() {
    rm -f /tmp/vm/serial; touch /tmp/vm/serial; chown vm /tmp/vm/serial
    ln -sf /tmp/vm/serial /tmp/serial
    eval "exec /tmp/pinvisor -vv launch --user vm $1 --serial file=/tmp/vm/serial" < /dev/null 2> /tmp/log &
    monitor=$!
    await_guest
    sleep 1
}
"#;

/// What the kernel shows of the monitor.
const SHOWN: [(&str, &str); 10] = [
    ("Name", "pinvisor"),
    ("Uid", "4242 4242 4242 4242"),
    ("Gid", "4242 4242 4242 4242"),
    ("Groups", "4242 4343 "),
    ("NoNewPrivs", "1"),
    ("CapInh", "0000000000000000"),
    ("CapPrm", "0000000000000000"),
    ("CapEff", "0000000000000000"),
    ("CapBnd", "0000000000000000"),
    ("CapAmb", "0000000000000000"),
];

/// A guest that reads and writes its disk, and hears its power button; and one whose monitor is killed.
pub fn stock_kernel(arch: Arch) -> Result<CaseResult> {
    // The guest whose monitor is killed only reads.
    let data = data::GUEST;
    let guest = format!(
        "if ! grep -q end=wait /proc/cmdline; then\n{data}\nfi\n{}",
        ending::GUEST
    );
    let rig = Rig::on(arch, 31, ending::modules(arch), &guest)?;
    let machine = rig
        .machine(setup::guest_kernel_of(arch)?.unpacked())
        .hugepages_2m(300);
    let arguments = ARGUMENTS.replace("/testbed/", "/tmp/vm/") + " --memory 512M";
    let ends = |end: &str| arguments.replace("quiet", &format!("quiet end={end}"));
    let script = [
        PRELUDE,
        AWAIT,
        USER,
        START,
        "say bdf $TESTBED_BDF_0\ntestbed-bind $TESTBED_BDF_0 || exit 1\n",
        order::START,
        &format!(
            "testbed-mark {}\nstart \"{}\"\n",
            script::BEGIN,
            ends("button")
        ),
        "status_of $monitor\n",
        "say running \"$(cat /proc/[0-9]*/comm | grep -c '^pinvisor')\"\n",
        "say helpers \"$(cat /proc/[0-9]*/comm | grep -c '^pinvisor-helper')\"\n",
        "say zombies \"$(grep -l '^State:.*Z' /proc/[0-9]*/status | wc -l)\"\n",
        "kill -TERM $monitor; wait $monitor; say asked $?\n",
        &format!("testbed-mark {}\n", script::END),
        "cat /tmp/serial /tmp/log\n",
        order::SHOW,
        "say_disk disk\ntestbed-bind $TESTBED_BDF_0 || exit 1\n",
        "say_hugepages between\n",
        &format!("start \"{}\"\n", ends("wait")),
        "kill -KILL $monitor; wait $monitor; say killed $?\nawait_exit\nawait_pool\n",
        "say_hugepages after\nsay_processes\n",
    ]
    .concat();
    let outcome = machine.run(&script)?;
    let mut findings = Findings::default();
    judge(&mut findings, &outcome, &rig)?;
    data::memory_is_right(&mut findings, arch, &outcome, 512);
    Ok(findings.into_result(&outcome))
}

fn judge(findings: &mut Findings, outcome: &Outcome, rig: &Rig) -> Result<()> {
    let facts = script::facts(&outcome.output);
    data::data_is_right(findings, outcome, rig)?;
    has_no_privilege(findings, &facts);
    // The monitor and its keeper. The helper has ended, and the monitor has noticed.
    for (what, wanted) in [("running", "2"), ("helpers", "0"), ("zombies", "0")] {
        findings.expect_eq(what, facts.get(what).copied(), Some(wanted));
    }
    for (end, status) in [("asked", "0"), ("killed", "137")] {
        findings.expect_eq(end, facts.get(end).copied(), Some(status));
    }
    findings.expect_eq(
        "hugepages between",
        facts.get("between_free"),
        facts.get("between_total"),
    );
    // At the start and at the end of the first guest.
    let compared = "256 pages of guest memory are at the addresses that devices use";
    let count = outcome.output.matches(compared).count();
    findings.expect_eq("comparisons of pages", count, 2);
    check::left_clean(findings, outcome, &facts);
    check::quiet_before_release(findings, outcome, &[Verdict::QuietFirst]);
    check::device_saw_quiet(findings, outcome, facts.get("bdf"));
    check::dma_inside(findings, outcome, MIN_DMA);
    Ok(())
}

fn has_no_privilege(findings: &mut Findings, facts: &BTreeMap<&str, &str>) {
    for (field, value) in SHOWN {
        let found = facts.get(field).map(|found| found.trim());
        findings.expect_eq(field, found, Some(value.trim()));
    }
}

/// What is refused of a handover, in one boot.
pub fn refused() -> Result<CaseResult> {
    let rig = Rig::new(32, "")?;
    refusal::run(&refusal::machine(&rig)?, &[REFUSALS])
}
