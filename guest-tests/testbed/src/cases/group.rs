// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host's kernel has VFIO groups and no character devices: devices are opened through their groups, and io_uring
//! pins guest memory.

mod held;
mod killing;
mod kills;
mod modes;
mod orders;
mod steps;

use super::canary;
use super::check::Findings;
use super::data::{self, PLAIN, Variant};
use super::rig::Rig;
use super::{ending, refusal, taken};
use crate::error::Result;
use crate::machine::{Machine, Outcome};
use crate::order;
use crate::runner::CaseResult;
use crate::setup::{self, Arch, Flavour};

pub use held::{pins, pins_on_new};
pub use kills::{long as many_kills, short as kills};
pub use modes::modes;
pub use orders::orders;
pub use steps::GROUP;

/// What the kernel must have noted at the end of a run of this path, and what only the other has. Where iommufd serves
/// the container, its close is noted as that of `/dev/iommu`.
const OWN_NOTES: [&str; 3] = ["unpin", "close_device", "close_group"];
const OTHER_NOTES: [&str; 2] = ["unmap", "close_iommufd"];
const OTHER_NOTES_WITH_IOMMUFD: [&str; 1] = ["unmap"];

/// A machine with the kernel, and what must not be noted there.
type Kernel = (fn(Machine) -> Machine, &'static [&'static str]);

/// A whole disk read and rewritten by a stock kernel, with a canary in the rest of the machine's memory.
pub fn stock_kernel(arch: Arch) -> Result<CaseResult> {
    let variant = Variant {
        seed: 31,
        machine: |machine| canary::machine(machine).flavour(Flavour::Old),
        wrapper: canary::WRAPPER,
        ..PLAIN
    };
    let (outcome, mut findings) = data::run(arch, &variant)?;
    findings.expect_eq("words changed", canary::changed(&outcome.output), Some(0));
    took_group(&mut findings, &outcome, &OTHER_NOTES);
    Ok(findings.into_result(&outcome))
}

/// The same path where the kernel offers both, if it is asked for; else the other.
pub fn choice() -> Result<CaseResult> {
    let forced = Variant {
        seed: 32,
        options: "--backend group",
        ..PLAIN
    };
    let (outcome, mut findings) = data::run(Arch::X86_64, &forced)?;
    took_group(&mut findings, &outcome, &OTHER_NOTES);
    let (auto, others) = data::run(Arch::X86_64, &Variant { seed: 33, ..PLAIN })?;
    findings.include("auto", others);
    let notes = order::notes(&auto.output).concat();
    findings.expect(
        order::has_all(&notes, &OTHER_NOTES) && !order::has_all(&notes, &["close_group"]),
        "auto did not choose the character device",
    );
    findings.expect(
        order::notes(&auto.output).len() == 1,
        "the notes of the run are missing",
    );
    Ok(findings.into_result(&outcome))
}

/// Kernels that few cases use: groups on iommufd's container, and the newest kernel without iommufd.
pub fn other_kernels() -> Result<CaseResult> {
    let kernels: [Kernel; 2] = [
        (
            |machine| (PLAIN.machine)(machine).flavour(Flavour::OldIommufd),
            &OTHER_NOTES_WITH_IOMMUFD,
        ),
        (
            |machine| (PLAIN.machine)(machine).flavour(Flavour::NoIommufd),
            &OTHER_NOTES,
        ),
    ];
    let mut all = Findings::default();
    let mut last = None;
    for (seed, (machine, others)) in (34..).zip(kernels) {
        let variant = Variant {
            seed,
            machine,
            ..PLAIN
        };
        let (outcome, mut findings) = data::run(Arch::X86_64, &variant)?;
        took_group(&mut findings, &outcome, others);
        all.include(&format!("kernel {}", seed - 33), findings);
        last = Some(outcome);
    }
    Ok(last.map_or(Ok(()), |outcome| all.into_result(&outcome)))
}

/// Every end of a guest, as in `nvme-ending`.
pub fn every_end() -> Result<CaseResult> {
    ending::every_end_on(Arch::X86_64, Flavour::Old, "256M")
}

/// The device taken away from a running guest and the monitor killed, as in `taken`. Guest memory stays where it is
/// while the guest runs, whatever the host tries.
pub fn taken() -> Result<CaseResult> {
    const CASES: [(taken::Taken, taken::Way); 4] = [
        (taken::NVME, taken::UNBIND),
        (taken::NVME, taken::REMOVE),
        (taken::NVME, taken::KILL),
        (taken::NVME, held::END),
    ];
    let rig = Rig::new(36, taken::GUEST)?;
    let machine = rig
        .machine(setup::guest_kernel()?.unpacked())
        .flavour(Flavour::Old)
        .hugepages_2m(80)
        .file("busybox", setup::busybox(Arch::X86_64)?);
    let outcome = machine.run(&taken::script(held::FUNCTION, &CASES))?;
    let mut findings = Findings::default();
    taken::judge(&mut findings, &outcome, &CASES);
    held::judge(&mut findings, &outcome);
    Ok(findings.into_result(&outcome))
}

/// What is reported, and refused.
pub fn refusals() -> Result<CaseResult> {
    let rig = Rig::new(37, "")?;
    refusal::run(&refusal::machine(&rig)?.flavour(Flavour::Old), &[GROUP])
}

/// The run's end was by the group and by io_uring, and none of `others` was noted.
fn took_group(findings: &mut Findings, outcome: &Outcome, others: &[&str]) {
    let notes = order::notes(&outcome.output).concat();
    findings.expect(
        order::has_all(&notes, &OWN_NOTES),
        format!("the kernel did not note all of {OWN_NOTES:?}: {notes}"),
    );
    let noted = |name: &&str| order::has_all(&notes, &[*name]);
    findings.expect(!others.iter().any(noted), "the other path was used, too");
}
