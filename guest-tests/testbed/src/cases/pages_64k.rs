// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A host whose pages have 64 KiB.

use super::check::Findings;
use super::data::{self, Variant};
use super::guard;
use super::rig::{ARGUMENTS, Rig};
use super::script::{self, PRELUDE};
use crate::error::Result;
use crate::image;
use crate::machine::{Machine, Outcome};
use crate::runner::CaseResult;
use crate::setup::{self, Arch, Flavour};

const ARCH: Arch = Arch::Aarch64;

/// A stock kernel reads and rewrites a disk on hugepages of 2 MiB, which are contiguous small ones there, on one of
/// 512 MiB, and on a guarded controller in ordinary memory.
pub fn stock_kernel() -> Result<CaseResult> {
    let (_, small) = data::run(
        ARCH,
        &Variant {
            seed: 54,
            machine: |machine| with_pages(machine).hugepages_2m(300),
            ..data::PLAIN
        },
    )?;
    let (_, large) = data::run(
        ARCH,
        &Variant {
            seed: 55,
            machine: |machine| with_pages(machine).kernel_arg("hugepagesz=512M hugepages=2"),
            memory: "512M,hugepage_size=512M",
            ..data::PLAIN
        },
    )?;
    let (outcome, guarded) = guarded()?;
    let mut findings = Findings::default();
    findings.include("2 MiB", small);
    findings.include("512 MiB", large);
    findings.include("guarded", guarded);
    Ok(findings.into_result(&outcome))
}

fn with_pages(machine: Machine) -> Machine {
    machine.memory("4G").flavour(Flavour::Pages64k)
}

fn guarded() -> Result<(Outcome, Findings)> {
    let guest = [guard::FUNCTIONS, guard::GUEST].concat();
    let rig = Rig::on(ARCH, 56, &["nvme"], &guest)?;
    let machine = with_pages(rig.machine(setup::guest_kernel_of(ARCH)?.unpacked()));
    let arguments = format!("{ARGUMENTS} --memory 128M --cpus {}", guard::CPUS);
    let script = [
        PRELUDE,
        "testbed-bind $TESTBED_BDF_0 || exit 1\n",
        &script::pinvisor("status", "", &guard::guarded(&arguments)),
        "say_processes\n",
    ]
    .concat();
    let outcome = machine.run(&script)?;
    let mut findings = Findings::default();
    let facts = script::facts(&outcome.output);
    findings.expect_eq("status", facts.get("status"), Some(&"0"));
    findings.expect_eq("processes left", facts.get("processes"), Some(&"0"));
    let (before, after) = (
        image::sha256(&rig.contents),
        image::sha256(&image::after_guest_write(&rig.contents)),
    );
    guard::guest_is_right(&mut findings, &outcome.output, [&before, &after]);
    guard::dma_is_inside(&mut findings, &outcome, &outcome.output);
    Ok((outcome, findings))
}
