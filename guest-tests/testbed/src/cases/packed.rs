// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest memory at addresses of its own, which the guest's device tree translates for devices (`layout=packed`).

mod cost;

use super::canary;
use super::check::{self, Findings};
use super::data::{self, GUEST, Variant};
use super::ending;
use super::rig::{ARGUMENTS, Rig};
use super::script::{self, AWAIT, KILL_AT_WORK, PRELUDE};
use crate::error::Result;
use crate::machine::Machine;
use crate::runner::CaseResult;
use crate::setup::{self, Arch, Flavour};
use crate::trace::Extent;

pub use cost::cost;

const ARCH: Arch = Arch::Aarch64;

/// The pool: 210 singles, and a block in which the kernel has room.
macro_rules! shaped {
    () => {
        "testbed inside shape --singles 210 --block 64 -- "
    };
}
/// All of it.
const MEMORY: &str = "548M,spare=0,layout=packed";
const MIB: u64 = 548;
/// Its hugepages.
const PAGES: &str = "274";
const LEAST_EXTENTS: usize = 200;

fn machine(machine: Machine) -> Machine {
    machine.memory("6G").hugepages_2m(620)
}

/// A stock kernel reads and rewrites a disk on memory in more than 200 pieces. A device that is not used by physical
/// addresses is refused there.
pub fn many_pieces() -> Result<CaseResult> {
    let variant = Variant {
        seed: 51,
        machine,
        wrapper: concat!("testbed inside canary -- ", shaped!()),
        memory: MEMORY,
        mib: MIB,
        before: "pinvisor run --noiommu --device $TESTBED_BDF_0,dma=mediate --kernel /testbed/kernel --memory \
                 128M,layout=packed; say mixed $?\n",
        addresses: are_packed,
        ..data::PLAIN
    };
    let (outcome, mut findings) = data::run(ARCH, &variant)?;
    let changed = canary::changed(&outcome.output);
    findings.expect_eq("words changed", changed, Some(0));
    let mixed = script::facts(&outcome.output).get("mixed").copied();
    findings.expect_eq("a guarded device in packed memory", mixed, Some("1"));
    findings.expect(
        outcome.output.contains("error[not-packed]"),
        "a guarded device in packed memory is refused for another reason",
    );
    Ok(findings.into_result(&outcome))
}

/// No extent is at its own address, and none touches another.
fn are_packed(findings: &mut Findings, extents: &[Extent]) {
    findings.expect(
        extents.len() >= LEAST_EXTENTS,
        format!("only {} extents", extents.len()),
    );
    findings.expect(
        extents.iter().all(|extent| extent.gpa != extent.hpa),
        "an extent is at its own address",
    );
    let mut ranges: Vec<_> = extents.iter().map(|extent| &extent.gpa).collect();
    ranges.sort_by_key(|range| range.start);
    findings.expect(
        ranges.windows(2).all(|pair| pair[0].end < pair[1].start),
        "two extents touch",
    );
}

/// However a guest ends.
pub fn every_end() -> Result<CaseResult> {
    ending::every_end_on(ARCH, Flavour::Groups, "256M,layout=packed")
}

/// A device tree with a wrong offset.
pub fn control() -> Result<CaseResult> {
    canary::control_with(ARCH, "512M,layout=packed")
}

const KILLS: usize = 5;

/// In the guest: do as the last guest, or read without an end.
const LOAD: &str = r#"
if grep -q end=load /proc/cmdline; then
    for reader in 1 2; do
        while :; do dd if=/dev/nvme0n1 of=/dev/null bs=1M iflag=direct 2>/dev/null; done &
    done
    echo "guest: waits"
    wait
fi
"#;

/// A function of the script: `load NUMBER`: a guest that works until it is killed, with a pattern in all hugepages that
/// come back.
const FUNCTION: &str = r#"
load() {
    start_work $1
    testbed inside pool --key kill$1 -- sh /tmp/killer $monitor
    wait $monitor
    echo "killed: $?"
    grep extent /tmp/log
}
"#;

/// The monitor is killed while a device reads a disk into memory in more than 200 pieces: nothing else may be written, and a
/// next run must work.
pub fn kills() -> Result<CaseResult> {
    let rig = Rig::on(ARCH, 52, &["nvme"], &[LOAD, GUEST].concat())?;
    let kernel = setup::guest_kernel_of(ARCH)?.unpacked();
    let machine = machine(rig.machine(kernel));
    let outcome = machine.run(&script())?;
    let mut findings = Findings::default();
    let facts = script::facts(&outcome.output);
    check::left_clean(&mut findings, &outcome, &facts);
    findings.expect_eq("the canary's status", facts.get("watched"), Some(&"0"));
    findings.expect_eq("the last run's status", facts.get("last"), Some(&"0"));
    // SIGKILL's.
    let killed = outcome.output.matches("killed: 137").count();
    findings.expect_eq("guests that were killed", killed, KILLS);
    for number in 1..=KILLS {
        let fact = |what: &str| facts.get(format!("kill{number}_{what}").as_str()).copied();
        findings.expect_eq("pages that came back", fact("held"), Some(PAGES));
        findings.expect_eq("words changed in them", fact("changed"), Some("0"));
    }
    data::data_is_right(&mut findings, &outcome, &rig)?;
    check::dma_inside(&mut findings, &outcome, data::MIN_DMA);
    Ok(findings.into_result(&outcome))
}

/// Script: guests that are killed, and a last one that is not, under one canary.
fn script() -> String {
    let arguments = format!("{ARGUMENTS} --memory {MEMORY}");
    let load = arguments.replace("quiet", "quiet end=load");
    [
        PRELUDE,
        "testbed-bind $TESTBED_BDF_0 || exit 1\ncat > /tmp/killer << 'END'\n",
        AWAIT,
        "kill -KILL $1\nawait_exit\nsleep 1\nEND\ncat > /tmp/runs << 'END'\n",
        PRELUDE,
        AWAIT,
        KILL_AT_WORK,
        FUNCTION,
        &format!("load=\"{load}\"\n"),
        &format!("testbed-mark {}\n", script::BEGIN),
        &format!("for kill in $(seq {KILLS}); do load $kill; done\n"),
        &format!("pinvisor -vv run {arguments} < /dev/null\nsay last $?\n"),
        &format!("testbed-mark {}\n", script::END),
        "END\ntestbed inside canary -- ",
        shaped!(),
        "sh /tmp/runs\n",
        "say watched $?\nsay_hugepages after\nsay_processes\nsay_disk disk\n",
    ]
    .concat()
}
