// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The monitor is killed while a device works in guest memory that io_uring pins. No file of the kernel's holds both: the
//! memory must stay pinned until the device is closed, nothing else may be written to, and a next run must work.

use super::super::check::{self, Findings};
use super::super::data;
use super::super::rig::{ARGUMENTS, Rig};
use super::super::script::{self, AWAIT, KILL_AT_WORK, PRELUDE};
use crate::error::Result;
use crate::machine::Outcome;
use crate::runner::CaseResult;
use crate::setup::{self, Flavour};
use crate::{guest, image, order};

/// In the guest: do as guests of other cases, or write and read without an end. What is written is the same each time.
const LOAD: &str = r#"
write() {
    dd if=/dev/nvme0n1 bs=1M skip=32 count=32 iflag=direct 2>/dev/null |
        tr '\000-\376\377' '\001-\377\000' |
        dd of=/dev/nvme0n1 bs=1M count=32 iflag=fullblock oflag=direct conv=notrunc 2>/dev/null
}
if grep -q end=load /proc/cmdline; then
    write
    for reader in 1 2; do
        while :; do dd if=/dev/nvme0n1 of=/dev/null bs=1M iflag=direct 2>/dev/null; done &
    done
    echo "guest: waits"
    while :; do write; done
fi
"#;

/// Functions of the script: `again KEY BDF`: bus mastering is on without a driver, with a pattern in all hugepages.
/// `load NUMBER`: a guest that works until the monitor is killed, and that.
const FUNCTIONS: &str = r#"
again() {
    testbed inside pool --key "$1" -- sh -c '
        command() { printf "\\$(printf %o "$2")" | dd of="/sys/bus/pci/devices/$1/config" bs=1 seek=4 conv=notrunc status=none; }
        echo none > "/sys/bus/pci/devices/$1/driver_override"
        [ -e "/sys/bus/pci/devices/$1/driver" ] && echo "$1" > "/sys/bus/pci/devices/$1/driver/unbind"
        command "$1" 6
        sleep 1
        command "$1" 0' again "$2"
    testbed-bind "$2"
    echo > /sys/kernel/tracing/trace
}
load() {
    kill_at_work $1
    await_pool
    grep extent /tmp/log
    show
    again kill$1 $TESTBED_BDF_0
}
"#;

/// 30 kills.
pub fn short() -> Result<CaseResult> {
    run(30)
}

/// 300 kills.
pub fn long() -> Result<CaseResult> {
    run(300)
}

/// Hugepages of the machine, in which the guest with 128 MiB and spare ones have room.
const HUGEPAGES: u32 = 80;

fn run(kills: usize) -> Result<CaseResult> {
    let rig = Rig::new(38, &[LOAD, data::GUEST].concat())?;
    let machine = rig
        .machine(setup::guest_kernel()?.vmlinux())
        .flavour(Flavour::Old)
        .hugepages_2m(HUGEPAGES);
    let outcome = machine.run(&script(kills))?;
    let mut findings = Findings::default();
    judge(&mut findings, &outcome, kills);
    let after = image::sha256(&image::after_guest_write(&rig.contents));
    let read = guest::facts(&outcome.output)
        .get("disk")
        .copied()
        .map(str::to_owned);
    findings.expect_eq("disk as the last guest read it", read, Some(after.clone()));
    findings.expect_eq(
        "disk afterwards",
        image::sha256_of_file(&rig.disk())?,
        after,
    );
    let least = kills as u64 * rig.contents.len() as u64;
    check::dma_inside(&mut findings, &outcome, least);
    Ok(findings.into_result(&outcome))
}

fn judge(findings: &mut Findings, outcome: &Outcome, kills: usize) {
    let facts = script::facts(&outcome.output);
    check::left_clean(findings, outcome, &facts);
    findings.expect_eq("the canary's status", facts.get("watched"), Some(&"0"));
    check::canary_lives(findings, outcome, 1000);
    findings.expect_eq("the last run's status", facts.get("last"), Some(&"0"));
    // SIGKILL's.
    let killed = outcome.output.lines().filter(|line| *line == "killed: 137");
    findings.expect_eq("guests that were killed", killed.count(), kills);
    let notes = order::notes(&outcome.output);
    findings.expect_eq("ends that were noted", notes.len(), kills);
    let early = notes.iter().filter(|notes| !order::unpinned_last(notes));
    findings.expect_eq(
        "kills after which memory was not pinned to the end",
        early.count(),
        0,
    );
    for number in 1..=kills {
        let key = format!("kill{number}");
        if let Err(why) = script::handed_back(&facts, &key) {
            findings.expect(false, format!("{key}: {why}"));
        }
        let held = facts.get(format!("{key}_held").as_str()).copied();
        let all = HUGEPAGES.to_string();
        findings.expect_eq(&format!("{key}: hugepages"), held, Some(all.as_str()));
    }
}

/// Script: guests whose monitors are killed, and a last one whose monitor is not, under one canary.
fn script(kills: usize) -> String {
    let arguments = format!("{ARGUMENTS} --memory 128M");
    let load = arguments.replace("quiet", "quiet end=load");
    [
        PRELUDE,
        "testbed-bind $TESTBED_BDF_0 || exit 1\n",
        order::START,
        "cat > /tmp/runs << 'END'\n",
        PRELUDE,
        AWAIT,
        KILL_AT_WORK,
        FUNCTIONS,
        "show() {\n",
        order::SHOW,
        "}\n",
        &format!("load=\"{load}\"\n"),
        &format!("testbed-mark {}\n", script::BEGIN),
        &format!("for kill in $(seq {kills}); do load $kill; done\n"),
        &format!("pinvisor -vv run {arguments} < /dev/null\nsay last $?\n"),
        &format!("testbed-mark {}\n", script::END),
        "END\ntestbed inside canary -- sh /tmp/runs\n",
        "say watched $?\nsay_hugepages after\nsay_processes\n",
    ]
    .concat()
}
