// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guests whose processes are killed while a device writes to memory that io_uring pins: what runs, and what is looked at.
//!
//! The disk is so slow that commands are always under way, and QEMU's controller moves their data later, whether it may
//! still master the bus or not: only a reset ends that. Free hugepages are filled with a pattern as soon as they are free.

use super::super::check::{self, Findings};
use super::super::script::{self, AWAIT, KILL_AT_WORK, PRELUDE};
use super::super::stress;
use crate::error::{AtPath, Result};
use crate::machine::{Machine, Outcome};
use crate::setup::Flavour;
use crate::trace::NVME_EVENTS;
use crate::{image, order};

/// Hugepages of the machine, in which the guest and spare ones have room.
const HUGEPAGES: u32 = 44;
/// Options of all guests: [`stress::machine`]'s.
const ARGUMENTS: &str =
    "--noiommu --device $TESTBED_BDF_0 --kernel /testbed/dma-stress --memory 64M";
/// More transfers than any guest gets to.
const ENDLESS: &str = "transfers=1000000000";
/// What the last guest does, which must pass: it reads back what it writes.
const LAST: &str = "transfers=64 bytes=0 irq=msix destroy=yes";
/// Requests of the disk in a second. A guest has 16 at a time.
const REQUESTS: u32 = 200;
const DISK_MIB: usize = 16;
/// Bytes that the device moves for each guest, at least.
const LEAST_EACH: u64 = 32 << 10;
/// MiB in which nothing may be written, besides the hugepages.
const LEAST_CANARY: u64 = 1000;

/// Shell: what kills, and waits for what comes of it. `caught`: the process that started this shell has all hugepages.
const KILLER: &str = r#"
await_end() {
    for time in $(seq 500); do
        [ -e "/proc/$1/status" ] || break
        grep -q '^State:.Z' "/proc/$1/status" && [ "$(ls "/proc/$1/task" | wc -l)" = 1 ] && break
        sleep 0.02
    done
}
await_caught() {
    all=$(($(cat /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages) * 2048))
    for tenth in $(seq 100); do
        [ "$(sed -n 's/^HugetlbPages:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$PPID/status")" = $all ] && break
        sleep 0.1
    done
}
command() { printf "\\$(printf %o "$1")" | dd of="$device/config" bs=1 seek=4 conv=notrunc status=none; }
eval "$1"
await_exit
await_caught
device=/sys/bus/pci/devices/$TESTBED_BDF_0
echo none > "$device/driver_override"
[ -e "$device/driver" ] && echo "$TESTBED_BDF_0" > "$device/driver/unbind"
command 6
sleep 0.3
command 0
"#;

/// Script: `load KEY NUMBER KILL`: a guest at work and the command that kills it, with a pattern in all hugepages that are
/// free then or come back, until bus mastering was on once more, without a driver.
const LOAD: &str = r#"
load() {
    start_work "$2"
    keeper=$(sed -n 's/.*keeper: process \([0-9]*\).*/\1/p' /tmp/log)
    export monitor keeper
    testbed inside pool --key "$1" -- sh /tmp/killer "$3"
    wait "$monitor"
    say "$1_status" $?
    grep extent /tmp/log
    show
    testbed-bind "$TESTBED_BDF_0"
    echo > /sys/kernel/tracing/trace
}
"#;

/// A kill: its key in the script, and the command, with the numbers of the processes in `$monitor` and `$keeper`.
#[derive(Debug)]
pub struct Kill {
    /// Its key.
    pub key: String,
    /// Shell command.
    pub command: &'static str,
}

/// Guests of these kills, and one that ends by itself, under one canary.
pub fn run(kills: &[Kill]) -> Result<Outcome> {
    let disk = tempfile::NamedTempFile::new().at("create", "a temporary file")?;
    image::write(disk.path(), &image::bytes(DISK_MIB, 38))?;
    let machine = stress::machine()?
        .flavour(Flavour::Old)
        .hugepages_2m(HUGEPAGES)
        .writable_disk("disk", disk.path().to_owned())
        .requests_per_second(REQUESTS)
        .device("nvme,drive=disk,serial=kills");
    let machine = NVME_EVENTS
        .iter()
        .fold(machine, |machine: Machine, event| machine.trace(event));
    machine.run(&script(kills))
}

fn script(kills: &[Kill]) -> String {
    let loads = (1..)
        .zip(kills)
        .map(|(number, Kill { key, command })| format!("load {key} {number} '{command}'\n"));
    let loads: String = loads.collect();
    [
        PRELUDE,
        "testbed-bind $TESTBED_BDF_0 || exit 1\n",
        order::START,
        "cat > /tmp/killer << 'END'\n",
        AWAIT,
        KILLER,
        "END\ncat > /tmp/runs << 'END'\n",
        PRELUDE,
        AWAIT,
        KILL_AT_WORK,
        LOAD,
        "show() {\n",
        order::SHOW,
        "}\nworks='^# sample.* transfers=[1-9]'\n",
        &format!("load=\"{ARGUMENTS} --cmdline '{ENDLESS}'\"\n"),
        &format!("testbed-mark {}\n{loads}", script::BEGIN),
        &format!("pinvisor -vv run {ARGUMENTS} --cmdline '{LAST}' < /dev/null\nsay last $?\n"),
        &format!("testbed-mark {}\n", script::END),
        "END\ntestbed inside canary -- sh /tmp/runs\n",
        "say watched $?\nsay_hugepages after\nsay_processes\n",
    ]
    .concat()
}

/// What must hold whatever is killed, if anything holds: nothing is left, and a next guest works.
pub fn left_usable(findings: &mut Findings, outcome: &Outcome, kills: &[Kill]) {
    let facts = script::facts(&outcome.output);
    check::left_clean(findings, outcome, &facts);
    findings.expect_eq("the last run's status", facts.get("last"), Some(&"0"));
    let notes = order::notes(&outcome.output).len();
    findings.expect_eq("ends that were noted", notes, kills.len());
    for Kill { key, .. } in kills {
        let held = facts.get(format!("{key}_held").as_str()).copied();
        let all = HUGEPAGES.to_string();
        findings.expect_eq(&format!("{key}: hugepages"), held, Some(all.as_str()));
    }
    let least = kills.len() as u64 * LEAST_EACH;
    check::dma_inside(findings, outcome, least);
}

/// No memory outside the hugepages was written.
pub fn rest_untouched(findings: &mut Findings, outcome: &Outcome) {
    let facts = script::facts(&outcome.output);
    findings.expect_eq("the canary's status", facts.get("watched"), Some(&"0"));
    check::canary_lives(findings, outcome, LEAST_CANARY);
}

/// What is to be found after a kill.
#[derive(Debug, Clone, Copy)]
pub struct After<'a> {
    /// The monitor's status.
    pub status: &'a str,
    /// Words that changed in hugepages that came back.
    pub changed: Option<u64>,
    /// What the kernel did.
    pub notes: &'a str,
}

/// What was found after each of the kills that were noted, in order.
pub fn found<'a>(
    outcome: &'a Outcome,
    kills: &'a [Kill],
) -> impl Iterator<Item = (&'a str, After<'a>)> {
    let facts = script::facts(&outcome.output);
    let notes = order::notes(&outcome.output);
    kills
        .iter()
        .zip(notes)
        .map(move |(Kill { key, .. }, notes)| {
            let fact = |what: &str| facts.get(format!("{key}_{what}").as_str()).copied();
            let after = After {
                status: fact("status").unwrap_or("none"),
                changed: fact("changed").and_then(|count| count.parse().ok()),
                notes,
            };
            (key.as_str(), after)
        })
}

/// A monitor's status after SIGKILL.
pub const SIGKILL: &str = "137";

/// The monitor ended with `status`, its memory was pinned until the device was closed, and nothing was written to it after
/// that.
pub fn ended_in_order(findings: &mut Findings, key: &str, after: After<'_>, status: &str) {
    findings.expect_eq(&format!("{key}: status"), after.status, status);
    findings.expect_eq(&format!("{key}: words changed"), after.changed, Some(0));
    findings.expect(
        order::unpinned_last(after.notes),
        format!("{key}: memory was not pinned to the end"),
    );
}
