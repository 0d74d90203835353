// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest that tries to reach what is not its own through a guarded NVMe controller.
//!
//! Three look on, each for itself: the guest, which knows every word of its memory; a canary in all other memory; and
//! QEMU, which notes each address that the device is given or maps.

use std::collections::BTreeMap;

use super::check::{self, Findings};
use super::hostile::numbers_behind;
use super::scattered::{MIN_CANARY_MIB, SCATTERED, is_scattered};
use super::script::{self, PRELUDE};
use super::stress::{self, AtLeast};
use crate::error::{AtPath, Result};
use crate::image;
use crate::machine::Outcome;
use crate::runner::CaseResult;
use crate::setup::Arch;
use crate::trace::NVME_EVENTS;

/// QEMU's event for data that is described by SGLs, which no command of the monitor's has.
const SGLS: &str = "pci_nvme_map_sgl";
/// Sequences from one proof that the controller works to the next, at most.
const PROVED: u64 = 256;
/// What a proof moves.
const PROOF_BYTES: u64 = 8 * 4096;
const TESTS: [&str; 2] = [
    "what is right works in the end",
    "all other memory is as it was",
];
/// How many there have to be of what the guest counts, for 100 sequences.
const LEAST: [(&str, u64); 11] = [
    ("io", 300),
    ("admin", 50),
    ("succeeded", 50),
    ("refused", 100),
    ("rings", 15),
    ("stores", 15),
    ("forged", 50),
    ("scribbled", 200),
    ("meddled", 1000),
    ("disabled", 1),
    ("masters", 1),
];

/// 2000 sequences.
pub fn short(arch: Arch) -> Result<CaseResult> {
    run(arch, 2000, 31)
}

/// 100 000 sequences.
pub fn long() -> Result<CaseResult> {
    run(Arch::X86_64, 100_000, 32)
}

fn run(arch: Arch, sequences: u64, seed: u64) -> Result<CaseResult> {
    let disk = tempfile::NamedTempFile::new().at("create", "a temporary file")?;
    image::write(disk.path(), &image::bytes(64, seed))?;
    let machine = NVME_EVENTS
        .iter()
        .chain([&SGLS])
        .fold(stress::machine_of(arch)?, |machine, event| {
            machine.trace(event)
        })
        .writable_disk("disk", disk.path().to_owned())
        .device("nvme,drive=disk,serial=hostile");
    let arguments = format!(
        "--noiommu --memory 128M --device $TESTBED_BDF_0,dma=mediate --cpus 2 --seed {seed} --timeout 3600 \
         --cmdline 'engines=hostile-nvme mode=mediate transfers={sequences} destroy=yes'"
    );
    let script = [
        PRELUDE,
        "say bdf $TESTBED_BDF_0\ntestbed-bind $TESTBED_BDF_0 || exit 1\n",
        &stress::run("hostile", SCATTERED, &arguments),
        "grep '^# hostile-nvme ' /tmp/hostile.tap\n",
    ]
    .concat();
    let outcome = machine.run(&script)?;
    let mut findings = Findings::default();
    let proofs = sequences / PROVED;
    let least = AtLeast::transfers(proofs).and_bytes(proofs * PROOF_BYTES);
    let report = stress::passed(&mut findings, &outcome, "hostile", least);
    stress::tested(&mut findings, &report, "hostile", &TESTS);
    let guest = numbers_behind(&outcome.output, "# hostile-nvme ");
    did_enough(&mut findings, &guest, sequences);
    is_scattered(&mut findings, &outcome);
    dma_is_inside(&mut findings, &outcome, sequences);
    check::canary_lives(&mut findings, &outcome, MIN_CANARY_MIB);
    let facts = script::facts(&outcome.output);
    check::device_saw_quiet(&mut findings, &outcome, facts.get("bdf"));
    Ok(findings.into_result(&outcome))
}

/// The guest did of everything what is likely.
fn did_enough(findings: &mut Findings, guest: &BTreeMap<&str, u64>, sequences: u64) {
    let found = |name| guest.get(name).copied().unwrap_or(0);
    findings.expect_eq("sequences", found("sequences"), sequences);
    for (name, least) in LEAST {
        let least = least * sequences / 100;
        findings.expect(
            found(name) >= least,
            format!("{name}: {} are less than {least}", found(name)),
        );
    }
}

/// Every address that the device was given or mapped is of the guest's pages or the monitor's, and in no other way.
fn dma_is_inside(findings: &mut Findings, outcome: &Outcome, sequences: u64) {
    let check = check::guarded_dma(&outcome.output, &outcome.trace);
    findings.expect(check.outside == 0, format!("DMA outside: {check:x?}"));
    findings.expect(
        check.transfers as u64 > sequences / 10,
        format!("too little DMA to be true: {check:?}"),
    );
    findings.expect(
        !outcome.trace.contains(&format!("{SGLS} ")),
        format!("the trace has {SGLS}"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_did_nothing_is_noticed() {
        let line = |factor: u64| {
            let counts = LEAST.map(|(name, least)| format!(" {name}={}", least * factor));
            format!("# hostile-nvme sequences=1000{}\n", counts.concat())
        };
        let judged = |output: &str| {
            let mut findings = Findings::default();
            let guest = numbers_behind(output, "# hostile-nvme ");
            did_enough(&mut findings, &guest, 1000);
            format!("{findings:?}")
        };
        let well = format!("{:?}", Findings::default());
        assert_eq!(judged(&line(10)), well);
        let few = judged(&line(9));
        assert!(LEAST.iter().all(|(name, _)| few.contains(name)), "{few}");
        assert_ne!(judged(""), well);
    }
}
