// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Stock guests on guarded NVMe controllers: memory of any kind at conventional addresses, no hugepages, and no access
//! of the device's outside the guest's pages and the monitor's.

mod control;
mod kernels;
mod kills;
mod programs;
mod shapes;

use super::check::{self, Findings};
use super::data::MIN_DMA;
use super::rig::{ARGUMENTS, Rig};
use super::scattered::{MIN_CANARY_MIB, SCATTERED_EACH, is_scattered};
use super::script::{self, PRELUDE};
use crate::error::Result;
use crate::machine::{Machine, Outcome};
use crate::order::{self, Verdict};
use crate::runner::CaseResult;
use crate::setup::Arch;
use crate::trace;
use crate::{guest, image, setup};

pub use control::control;
pub use kernels::{old_kernel, other_kernels};
pub use kills::{long as many_kills, short as kills};
pub use programs::programs;
pub use shapes::shapes;

/// Functions of the guest's: hash a disk; write its second half, with every byte one higher, over the first and flush
/// it; count what the driver complains of.
pub(super) const FUNCTIONS: &str = r#"
say() { echo "guest: $1=$2"; }
hash() { dd if="$1" bs=1M iflag=direct 2>/dev/null | sha256sum | cut -d' ' -f1; }
add() {
    half=$(($(cat "/sys/block/${1#/dev/}/size") / 4096))
    dd if="$1" bs=1M skip=$half count=$half iflag=direct 2>/dev/null |
        tr '\000-\376\377' '\001-\377\000' |
        dd of="$1" bs=1M count=$half iflag=fullblock oflag=direct conv=notrunc,fsync 2>/dev/null
}
complaints() { dmesg | grep -c "nvme.*\(polled\|timeout\|I/O error\|fail\|invalid$1\)"; }
"#;

/// In the guest: hash the whole disk, write to it and flush it, discard some of it, which QEMU leaves as it is, and tell
/// what the driver thinks of its controller.
pub(super) const GUEST: &str = r#"
say disk "$(hash /dev/nvme0n1)"
add /dev/nvme0n1
say written $?
blkdiscard -o 50331648 -l 8388608 /dev/nvme0n1
say discarded $?
say after "$(hash /dev/nvme0n1)"
say queues "$(ls /sys/block/nvme0n1/mq | wc -l)"
say interrupts "$(grep -c nvme0q /proc/interrupts)"
say largest "$(cat /sys/block/nvme0n1/queue/max_hw_sectors_kb)"
say model "$(cat /sys/class/nvme/nvme0/model)"
say complaints "$(complaints '\|reset')"
dmesg | grep -i nvme
"#;

/// CPUs of the guest, and so its queues.
pub(super) const CPUS: &str = "2";

/// The whole disk read and written by a guest in single pages, twice.
pub fn stock_kernel(arch: Arch) -> Result<CaseResult> {
    let rig = Rig::on(arch, 21, &["nvme"], &[FUNCTIONS, GUEST].concat())?;
    let machine = rig
        .machine(setup::guest_kernel_of(arch)?.unpacked())
        .trace("pci_nvme_map_sgl");
    let outcome = run(&machine)?;
    let mut findings = Findings::default();
    let facts = script::facts(&outcome.output);
    for key in ["first", "second"] {
        findings.expect_eq(key, facts.get(key), Some(&"0"));
    }
    findings.expect_eq("the canary's status", facts.get("watched"), Some(&"0"));
    findings.expect_eq("processes left", facts.get("processes"), Some(&"0"));
    findings.expect(
        outcome.output.contains("dma=auto selects mediate"),
        "the second run did not log why it guards the controller",
    );
    let (first, second) = runs(&outcome.output);
    let (before, after) = (
        image::sha256(&rig.contents),
        image::sha256(&image::after_guest_write(&rig.contents)),
    );
    guest_is_right(&mut findings, first, [&before, &after]);
    guest_is_right(&mut findings, second, [&after, &after]);
    findings.expect_eq(
        "disk afterwards, by the machine's own driver",
        facts.get("disk").copied(),
        Some(after.as_str()),
    );
    let on_disk = image::sha256_of_file(&rig.disk())?;
    findings.expect_eq("disk afterwards, the image", on_disk, after);
    check::canary_lives(&mut findings, &outcome, MIN_CANARY_MIB);
    is_scattered(&mut findings, &outcome);
    dma_is_inside(&mut findings, &outcome, first);
    check::quiet_before_release(&mut findings, &outcome, &[Verdict::QuietFirst; 2]);
    check::device_saw_quiet(&mut findings, &outcome, facts.get("bdf"));
    Ok(findings.into_result(&outcome))
}

/// Two runs under one canary. There are no hugepages, so that `dma=auto`, the second run's, guards the controller, too.
fn run(machine: &Machine) -> Result<Outcome> {
    let automatic = format!("{ARGUMENTS} --memory 128M --cpus {CPUS}");
    let arguments = guarded(&automatic);
    let [scatter, watch] = SCATTERED_EACH;
    let script = [
        PRELUDE,
        "say bdf $TESTBED_BDF_0\ntestbed-bind $TESTBED_BDF_0 || exit 1\n",
        order::START,
        "cat > /tmp/runs << 'END'\n",
        PRELUDE,
        &script::pinvisor("first", scatter, &arguments),
        order::SHOW,
        &script::pinvisor("second", scatter, &automatic),
        order::SHOW,
        "END\n",
        watch,
        "/tmp/runs\nsay watched $?\nsay_processes\nsay_disk disk\n",
    ]
    .concat();
    machine.run(&script)
}

/// `arguments` with the first device guarded.
pub(super) fn guarded(arguments: &str) -> String {
    arguments.replace("$TESTBED_BDF_0", "$TESTBED_BDF_0,dma=mediate")
}

/// What the first run printed, and the second.
fn runs(output: &str) -> (&str, &str) {
    output.split_once("testbed: first=").unwrap_or((output, ""))
}

/// The guest read what was on the disk and what it wrote, and its driver had nothing to complain of.
pub(super) fn guest_is_right(findings: &mut Findings, output: &str, [before, after]: [&str; 2]) {
    let guest = guest::facts(output);
    for (what, wanted) in [
        ("disk", before),
        ("written", "0"),
        ("discarded", "0"),
        ("after", after),
        ("queues", CPUS),
        // The admin queue's, and one for each queue.
        ("interrupts", "3"),
        ("complaints", "0"),
    ] {
        findings.expect_eq(what, guest.get(what).copied(), Some(wanted));
    }
}

/// All that the device was told of and accessed in the first run is the guest's or the monitor's.
pub(super) fn dma_is_inside(findings: &mut Findings, outcome: &Outcome, output: &str) {
    findings.expect(
        trace::extents(output)
            .iter()
            .any(|extent| extent.gpa != extent.hpa),
        "all of guest memory is at its physical address",
    );
    findings.expect(
        !trace::queue_memory(output).is_empty(),
        "no memory of the monitor's is told",
    );
    check::guarded_dma_inside(findings, output, &outcome.trace, MIN_DMA);
    findings.expect(
        !outcome.trace.contains("pci_nvme_map_sgl "),
        "the device was given SGLs",
    );
}
