// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The real path: every class of transfer, and many.

use super::super::check::{self, Findings};
use super::super::script::{self, PRELUDE};
use super::{AtLeast, Share, found, machine_of, passed, run, tested};
use crate::error::{AtPath, Result};
use crate::image;
use crate::machine::Outcome;
use crate::runner::CaseResult;
use crate::setup::Arch;
use crate::trace::{self, NVME_EVENTS};

/// QEMU's `edu`, addressing all of memory.
const EDU: &str = "edu,dma_mask=0xffffffffffffffff";
const DEVICE: &str = "--noiommu --device $TESTBED_BDF_0";
const BIND: &str = "say bdf $TESTBED_BDF_0\ntestbed-bind $TESTBED_BDF_0 || exit 1\n";
const AFTER: &str = "say_hugepages after\nsay_processes\n";
/// A few single pages and a block for the guest's image, none where a guest without identity would have it, and a
/// canary in all the rest.
const WATCH: &str =
    "testbed inside shape --singles 12 --block 40 -- testbed inside canary --least-percent 0 -- ";
const MIN_CANARY_MIB: u64 = 256;
const HUGEPAGES: u32 = 450;
/// So few pieces that two of them are met for sure.
const SHAPE: &str = "testbed inside shape --singles 6 --block 32 -- ";

/// `edu` takes 100 ms for a transfer: 200 of them, by polling, INTx and MSI, and the canary alive.
pub fn edu(arch: Arch) -> Result<CaseResult> {
    let machine = machine_of(arch)?.hugepages_2m(HUGEPAGES).device(EDU);
    let arguments = format!("{DEVICE} --memory 104M --cmdline 'transfers=200 bytes=0'");
    let script = [PRELUDE, BIND, &run("edu", WATCH, &arguments), AFTER].concat();
    let outcome = machine.run(&script)?;
    let mut findings = Findings::default();
    let report = passed(&mut findings, &outcome, "edu", AtLeast::transfers(200));
    tested(
        &mut findings,
        &report,
        "edu",
        &[
            "polling: every length",
            "intx: every length",
            "msi: every length",
        ],
    );
    clean_end(&mut findings, &outcome);
    Ok(findings.into_result(&outcome))
}

/// Two CPUs and a disk: 2000 transfers and 25 MiB, with PRP lists of every shape, and the canary alive.
pub fn nvme(arch: Arch) -> Result<CaseResult> {
    nvme_of(arch, Share::Tenth)
}

/// 20,000 transfers and 256 MiB.
pub fn nvme_long(arch: Arch) -> Result<CaseResult> {
    nvme_of(arch, Share::Whole)
}

fn nvme_of(arch: Arch, share: Share) -> Result<CaseResult> {
    let (transfers, bytes) = (share.of(20_000), share.of(256 << 20));
    let disk = tempfile::NamedTempFile::new().at("create", "a temporary file")?;
    image::write(disk.path(), &image::bytes(64, 9))?;
    let machine = NVME_EVENTS
        .iter()
        .fold(
            machine_of(arch)?.hugepages_2m(HUGEPAGES),
            |machine, event| machine.trace(event),
        )
        .writable_disk("disk", disk.path().to_owned())
        .device("nvme,drive=disk,serial=stress");
    let words = format!("transfers={transfers} bytes={bytes} destroy=yes");
    let arguments = format!("{DEVICE} --memory 104M --cpus 2 --cmdline '{words}'");
    let script = [PRELUDE, BIND, &run("nvme", WATCH, &arguments), AFTER].concat();
    let outcome = machine.run(&script)?;
    let mut findings = Findings::default();
    let report = passed(
        &mut findings,
        &outcome,
        "nvme",
        AtLeast::transfers(transfers).and_bytes(bytes),
    );
    tested(
        &mut findings,
        &report,
        "nvme",
        &[
            "polling: every length",
            "intx: every length",
            "msix: every length",
        ],
    );
    clean_end(&mut findings, &outcome);
    check::dma_inside(&mut findings, &outcome, bytes);
    Ok(findings.into_result(&outcome))
}

/// Nothing is left, and no memory but the guest's was written.
fn clean_end(findings: &mut Findings, outcome: &Outcome) {
    let facts = script::facts(&outcome.output);
    check::left_clean(findings, outcome, &facts);
    check::device_saw_quiet(findings, outcome, facts.get("bdf"));
    check::canary_lives(findings, outcome, MIN_CANARY_MIB);
}

/// Memory in many pieces: correct unmodified, and detected as wrong with two of them swapped.
pub fn wrong_extent(arch: Arch) -> Result<CaseResult> {
    let machine = machine_of(arch)?.hugepages_2m(200).device(EDU);
    let arguments = format!("{DEVICE} --memory 76M --cmdline 'transfers=30 bytes=0'");
    let broken = format!("{arguments} --break identity");
    let script = [
        PRELUDE,
        BIND,
        &run("right", SHAPE, &arguments),
        &run("wrong", SHAPE, &broken),
        AFTER,
    ]
    .concat();
    let outcome = machine.run(&script)?;
    let mut findings = Findings::default();
    passed(&mut findings, &outcome, "right", AtLeast::transfers(30));
    found(&mut findings, &outcome, "wrong", "wrong-extent");
    let extents = trace::extents(&outcome.output).len();
    findings.expect(extents >= 2 * 7, format!("only {extents} extents"));
    Ok(findings.into_result(&outcome))
}
