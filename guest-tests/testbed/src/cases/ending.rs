// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! However a guest ends: the device is quiet first, everything is released, and a next run works.

use super::check::{self, Findings};
use super::rig::{ARGUMENTS, Rig};
use super::script::{self, PRELUDE};
use crate::error::Result;
use crate::guest;
use crate::machine::Outcome;
use crate::order::{self, Verdict};
use crate::runner::CaseResult;
use crate::setup::{self, Arch, Flavour};

/// In the guest: read a little, then end as the command line specifies.
pub(super) const GUEST: &str = r#"
echo "guest: read=$(dd if=/dev/nvme0n1 bs=1M count=4 iflag=direct 2>/dev/null | wc -c)"
work() { while :; do dd if=/dev/nvme0n1 of=/dev/null bs=1M iflag=direct 2>/dev/null; done; }
for word in $(cat /proc/cmdline); do
    case $word in
        end=wait) echo "guest: waits"; work ;;
        end=button)
            for input in /sys/class/input/event*; do
                grep -q -e 'Power Button' -e gpio-keys "$input/device/name" && button=/dev/input/${input##*/}
            done
            # Opened later, it would miss what was pressed before.
            exec 3< "$button"
            work &
            echo "guest: waits"
            # struct input_event: type, code and value behind 16 bytes of time.
            echo "guest: event=$(dd bs=24 count=1 <&3 2>/dev/null | od -An -tx2 -j16 -N6)" ;;
        end=reset) echo "guest: resets"; reboot -f ;;
        end=again) echo "guest: waits"; sleep 3; reboot -f ;;
        end=crash) echo "guest: crashes"; echo c > /proc/sysrq-trigger ;;
    esac
done
"#;

/// The modules without which a guest does not hear its power button.
pub(super) fn modules(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::X86_64 => &["nvme", "button", "evdev"],
        Arch::Aarch64 => &["nvme", "gpio_keys", "evdev"],
    }
}

/// Functions of the script: a guest that runs in the background, until it waits.
const BACKGROUND: &str = "\
start() {
    rm -f /tmp/serial; touch /tmp/serial
    eval \"exec pinvisor -vv run $1 --serial file=/tmp/serial\" < /dev/null 2> /tmp/log &
    for tenth in $(seq 1200); do grep -q 'guest: waits' /tmp/serial && break; sleep 0.1; done
    sleep 0.5
}
";

/// Script lines that wait until a guest that is to be restarted was, and stop it then.
const AGAIN: &str = "\
for tenth in $(seq 1200); do
    [ \"$(grep -c 'guest: waits' /tmp/serial)\" -ge 2 ] && break
    sleep 0.1
done
[ \"$(cat /tmp/pid)\" = $! ]; say pidfile $?
kill -HUP $!; wait $!; say again $?
";

/// SIGTERM while the device works, to a guest that listens to its power button and, twice, to one
/// that does not; restart of the guest, which ends or restarts it, its crash, an error before it
/// starts, and power-off with the unsafe mode switched off after binding.
pub fn every_end(arch: Arch) -> Result<CaseResult> {
    every_end_on(arch, Flavour::Groups, "256M")
}

/// The same on a machine with this kernel, for a guest with this memory.
pub fn every_end_on(arch: Arch, flavour: Flavour, memory: &str) -> Result<CaseResult> {
    let rig = Rig::on(arch, 7, modules(arch), GUEST)?;
    let machine = rig
        .machine(setup::guest_kernel_of(arch)?.unpacked())
        .flavour(flavour)
        .hugepages_2m(150);
    let outcome = machine.run(&every_way(flavour, memory))?;
    let mut findings = Findings::default();
    judge(&mut findings, arch, &outcome, &rig);
    Ok(findings.into_result(&outcome))
}

/// The unsafe mode off: what is bound stays usable, unless it is opened through its group.
const UNSAFE_OFF: &str = "echo 0 > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode\n";

/// Script: a guest that ends in each way, one after the other.
fn every_way(flavour: Flavour, memory: &str) -> String {
    let arguments = |end: &str| {
        format!(
            "{} --memory {memory}",
            ARGUMENTS.replace("quiet", &format!("quiet {end}"))
        )
    };
    let start = |end: &str| format!("start \"{}\"\n", arguments(end));
    let end_show = ["cat /tmp/serial /tmp/log\n", order::SHOW].concat();
    let run = |key: &str, end: &str| {
        let arguments = arguments(end);
        format!("pinvisor -vv run {arguments} < /dev/null; say {key} $?\n")
    };
    [
        PRELUDE,
        BACKGROUND,
        "say bdf $TESTBED_BDF_0\ntestbed-bind $TESTBED_BDF_0 || exit 1\n",
        order::START,
        // An error after memory was pinned: a file of sysfs is shorter than stat(2) has it.
        "pinvisor run --noiommu --device $TESTBED_BDF_0 --kernel /testbed/kernel --memory 256M \
         --initramfs /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages; say error $?\n",
        order::SHOW,
        &start("end=button"),
        "kill -TERM $!; wait $!; say asked $?\n",
        &end_show,
        &start("end=wait"),
        "kill -TERM $!; sleep 3; kill -0 $!; say goes_on $?\n",
        "kill -TERM $!; wait $!; say terminated $?\n",
        &end_show,
        "say_hugepages between\n",
        &run("reset", "end=reset"),
        order::SHOW,
        &format!(
            "start \"{} --on-reset restart --pidfile /tmp/pid\"\n",
            arguments("end=again")
        ),
        AGAIN,
        &end_show,
        &run("crashed", "end=crash panic=-1 reboot=t"),
        order::SHOW,
        if flavour == Flavour::Old {
            ""
        } else {
            UNSAFE_OFF
        },
        &script::pinvisor("status", "", &arguments("end=off")),
        order::SHOW,
        "say_hugepages after\nsay_processes\nsay_disk disk\n",
    ]
    .concat()
}

/// How each guest ends, and pinvisor's status then.
const STATUSES: [(&str, &str); 8] = [
    ("error", "1"),
    ("asked", "0"),
    ("goes_on", "0"),
    ("terminated", "0"),
    ("reset", "7"),
    ("pidfile", "0"),
    ("again", "0"),
    ("status", "0"),
];

/// What is logged, and how often.
const TOLD: [(&str, usize); 4] = [
    ("Pressed the guest's power button", 2),
    ("The guest powered itself off", 2),
    ("Signal 15 ends the guest", 1),
    ("and is booted again", 1),
];

fn judge(findings: &mut Findings, arch: Arch, outcome: &Outcome, rig: &Rig) {
    // A PC's kernel can restart by a triple fault, which is no request.
    let (crashed, restarts) = match arch {
        Arch::X86_64 => ("5", 2),
        Arch::Aarch64 => ("7", 3),
    };
    let facts = script::facts(&outcome.output);
    check::left_clean(findings, outcome, &facts);
    findings.expect_eq(
        "hugepages between",
        facts.get("between_free"),
        facts.get("between_total"),
    );
    for (end, status) in STATUSES.into_iter().chain([("crashed", crashed)]) {
        findings.expect_eq(end, facts.get(end).copied(), Some(status));
    }
    let reads = outcome.output.matches("guest: read=4194304").count();
    findings.expect_eq("guests that read the disk", reads, 7);
    // A key (type 1), the power button (code 116), pressed.
    findings.expect_eq(
        "what the guest heard",
        guest::facts(&outcome.output)
            .get("event")
            .map(|event| event.trim()),
        Some("0001 0074 0001"),
    );
    let restarted = ("The guest requested a restart", restarts);
    for (text, count) in TOLD.into_iter().chain([restarted]) {
        findings.expect_eq(text, outcome.output.matches(text).count(), count);
    }
    let quiet = Verdict::QuietFirst;
    check::quiet_before_release(
        findings,
        outcome,
        &[
            Verdict::NeverMaster,
            quiet,
            quiet,
            quiet,
            quiet,
            quiet,
            quiet,
        ],
    );
    check::device_saw_quiet(findings, outcome, facts.get("bdf"));
    findings.expect_eq(
        "disk afterwards",
        facts.get("disk").copied(),
        Some(crate::image::sha256(&rig.contents).as_str()),
    );
}
