// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A handover through a socket, as the example for orchestrators does it: the monitor is no child of the launcher's.

use std::collections::BTreeMap;

use super::{SHOWN, USER};
use crate::cases::check::{self, Findings};
use crate::cases::data::{self, MIN_DMA};
use crate::cases::ending;
use crate::cases::rig::{ARGUMENTS, Rig};
use crate::cases::script::{self, AWAIT, PRELUDE};
use crate::error::Result;
use crate::machine::Outcome;
use crate::order::{self, Verdict};
use crate::runner::CaseResult;
use crate::setup::{self, Arch};

/// What an unprivileged process cannot give up without privilege, or has from its orchestrator.
const FROM_ELSEWHERE: [&str; 2] = ["Groups", "CapBnd"];

/// What a guest without a device leaves out.
const DEVICE: &str = "--noiommu --device $TESTBED_BDF_0 ";

/// Functions: `start OPTIONS` has the orchestrator run a guest in the background, and waits until that waits;
/// `serve OPTIONS` starts a launcher alone, and waits until its socket is there.
const START: &str = r#"
export PATH=/tmp:$PATH
socket=/tmp/vm/handover
start() {
    rm -f /tmp/vm/serial; touch /tmp/vm/serial; chown vm /tmp/vm/serial
    ln -sf /tmp/vm/serial /tmp/serial
    eval "exec orchestrator 4242 4343 $socket -vv $1 --serial file=/tmp/vm/serial" < /dev/null > /tmp/said 2> /tmp/log &
    monitor=$!
    await_guest
    orchestrator=$monitor
    monitor=$(sed -n 's/^monitor: process //p' /tmp/said)
    sleep 1
}
serve() {
    eval "exec pinvisor -v launch --user 4242:4343 --serve $socket $1" < /dev/null 2>> /tmp/launched &
    launcher=$!
    for tenth in $(seq 300); do
        [ -e $socket ] && break
        kill -0 $launcher || break
        sleep 0.1
    done
}
"#;

/// A guest that reads and writes its disk and hears its power button, one whose monitor is killed, one without a device, and
/// launchers that end before there is a monitor.
pub fn through_a_socket(arch: Arch) -> Result<CaseResult> {
    let data = data::GUEST;
    let guest = format!(
        "if ! grep -q end=wait /proc/cmdline; then\n{data}\nfi\n{}",
        ending::GUEST
    );
    let rig = Rig::on(arch, 33, ending::modules(arch), &guest)?;
    let machine = rig
        .machine(setup::guest_kernel_of(arch)?.unpacked())
        .hugepages_2m(300);
    let outcome = machine.run(&script(arch))?;
    let mut findings = Findings::default();
    judge(&mut findings, &outcome, &rig)?;
    data::memory_is_right(&mut findings, arch, &outcome, 512);
    Ok(findings.into_result(&outcome))
}

/// The options of the second guest: on a PC, its controller is guarded.
fn second(arch: Arch, options: &str) -> String {
    match arch {
        Arch::X86_64 => options.replace("$TESTBED_BDF_0", "$TESTBED_BDF_0,dma=mediate"),
        Arch::Aarch64 => options.to_owned(),
    }
}

fn script(arch: Arch) -> String {
    let arguments = ARGUMENTS.replace("/testbed/", "/tmp/vm/") + " --memory 512M";
    let ends = |end: &str| arguments.replace("quiet", &format!("quiet end={end}"));
    let bind = "testbed-bind $TESTBED_BDF_0 || exit 1\n";
    [
        PRELUDE,
        AWAIT,
        USER,
        START,
        "say bdf $TESTBED_BDF_0\n",
        bind,
        order::START,
        &format!(
            "testbed-mark {}\nstart \"{}\"\n",
            script::BEGIN,
            ends("button")
        ),
        "status_of $monitor\n",
        "say running \"$(cat /proc/[0-9]*/comm | grep -c '^pinvisor')\"\n",
        "[ -e $socket ]; say socket $?\n",
        "kill -TERM $monitor; wait $orchestrator; say asked $?\n",
        &format!("testbed-mark {}\n", script::END),
        "cat /tmp/serial /tmp/log\n",
        order::SHOW,
        "say_disk disk\n",
        bind,
        "say_hugepages between\n",
        &format!("start \"{}\"\n", second(arch, &ends("wait"))),
        "kill -KILL $monitor; wait $orchestrator; say killed $?\nawait_exit\nawait_pool\n",
        // Where its memory was is for the first guest.
        "cat /tmp/serial; grep -v ' extent gpa=' /tmp/log\n",
        // Without a device: its launcher must end as well.
        &format!("start \"{}\"\n", ends("wait").replace(DEVICE, "")),
        "say plain \"$(cat /proc/[0-9]*/comm | grep -c '^pinvisor')\"\n",
        "kill -KILL $monitor; wait $orchestrator; say plain_killed $?\ncat /tmp/serial\n",
        bind,
        &format!("serve \"{arguments}\"\n"),
        // Another user than that of --user is sent away, even root; then a signal ends the launcher.
        "pinvisor run --handover socket=$socket --kernel /tmp/vm/kernel --memory 64M > /tmp/refused 2>&1; say other $?\n\
         cat /tmp/refused\n",
        "kill -TERM $launcher; wait $launcher; say stopped $?\n[ -e $socket ]; say left $?\n",
        bind,
        &format!("serve \"{arguments}\"\n"),
        "kill -KILL $launcher; wait $launcher; say launcher_killed $?\nawait_exit\nawait_pool\n",
        "pinvisor run --handover socket=$socket --kernel /tmp/vm/kernel --memory 64M > /tmp/refused 2>&1; say stale $?\n",
        "cat /tmp/refused /tmp/launched\nsay_hugepages after\nsay_processes\n",
    ]
    .concat()
}

fn judge(findings: &mut Findings, outcome: &Outcome, rig: &Rig) -> Result<()> {
    let facts = script::facts(&outcome.output);
    data::data_is_right(findings, outcome, rig)?;
    has_no_privilege(findings, &facts);
    // The monitor and its keeper; the launcher has ended, and its socket is gone.
    for (what, wanted) in [
        ("running", "2"),
        ("socket", "1"),
        ("asked", "0"),
        ("killed", "255"),
        // The monitor: its launcher has ended.
        ("plain", "1"),
        ("plain_killed", "255"),
        ("other", "1"),
        ("stopped", "0"),
        ("left", "1"),
        ("launcher_killed", "137"),
        ("stale", "1"),
    ] {
        findings.expect_eq(what, facts.get(what).copied(), Some(wanted));
    }
    findings.expect_eq(
        "hugepages between",
        facts.get("between_free"),
        facts.get("between_total"),
    );
    let read = outcome.output.matches("guest: read=4194304").count();
    findings.expect_eq("guests that read their disk", read, 2);
    for text in [
        "256 pages of guest memory are at the addresses that devices use",
        "Handed over to process ",
        "the sender closed the socket without sending it",
        "of user 0 asks for the handover, which is for user 4242: refused",
        "Cannot connect to the socket /tmp/vm/handover: Connection refused",
        "A signal ends the launcher; everything is released",
    ] {
        findings.expect(outcome.output.contains(text), format!("missing: {text}"));
    }
    check::left_clean(findings, outcome, &facts);
    check::quiet_before_release(findings, outcome, &[Verdict::QuietFirst]);
    check::device_saw_quiet(findings, outcome, facts.get("bdf"));
    check::dma_inside(findings, outcome, MIN_DMA);
    Ok(())
}

fn has_no_privilege(findings: &mut Findings, facts: &BTreeMap<&str, &str>) {
    for (field, value) in SHOWN {
        if FROM_ELSEWHERE.contains(&field) {
            continue;
        }
        let found = facts.get(field).map(|found| found.trim());
        let value = match field {
            "Gid" => "4343 4343 4343 4343",
            _ => value.trim(),
        };
        findings.expect_eq(field, found, Some(value));
    }
}
