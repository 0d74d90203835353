// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Drivers of other releases of Linux on a guarded controller.

use super::{CPUS, FUNCTIONS, GUEST, guarded, guest_is_right};
use crate::cases::check::{self, Findings};
use crate::cases::rig::{ARGUMENTS, Rig};
use crate::cases::scattered::{MIN_CANARY_MIB, SCATTERED_EACH, is_scattered};
use crate::cases::script::{self, PRELUDE};
use crate::error::Result;
use crate::machine::Outcome;
use crate::runner::CaseResult;
use crate::setup::{Arch, Flavour};
use crate::{guest, image, setup};

/// The runs, by name: Debian 11's kernel, Debian 13's, and the test machine's own, whose driver is built in.
const RUNS: [&str; 3] = ["debian-11", "debian-13", "own"];

/// Linux 5.10, with the oldest driver.
pub fn old_kernel() -> Result<CaseResult> {
    with_kernels(&RUNS[..1])
}

/// Linux 5.10, 6.12 and the newest, one after the other on one disk.
pub fn other_kernels() -> Result<CaseResult> {
    with_kernels(&RUNS)
}

fn with_kernels(runs: &[&str]) -> Result<CaseResult> {
    let (old, new) = (setup::old_guest_kernel()?, setup::new_guest_kernel()?);
    let script = [FUNCTIONS, GUEST].concat();
    let rig = Rig::with_initramfs(22, |path| {
        guest::write_initramfs_of(&old, path, &["nvme"], &script)
    })?;
    let file = |name: &str| rig.disk().with_file_name(name);
    guest::write_initramfs_of(&new, &file("debian-13"), &["nvme"], &script)?;
    guest::write_initramfs_of(&new, &file("own"), &[], &script)?;
    let machine = rig
        .machine(old.vmlinux())
        .file("kernel-debian-11", old.vmlinux())
        .file("initramfs-debian-11", file("initramfs"))
        .file("kernel-debian-13", new.vmlinux())
        .file("initramfs-debian-13", file("debian-13"))
        .file("kernel-own", setup::kernel(Arch::X86_64, Flavour::Groups)?)
        .file("initramfs-own", file("own"));
    let outcome = machine.run(&all_runs(runs))?;
    let mut findings = Findings::default();
    let facts = script::facts(&outcome.output);
    findings.expect_eq("the canary's status", facts.get("watched"), Some(&"0"));
    findings.expect_eq("processes left", facts.get("processes"), Some(&"0"));
    let (before, after) = (
        image::sha256(&rig.contents),
        image::sha256(&image::after_guest_write(&rig.contents)),
    );
    let mut found = &before;
    for (run, output) in outputs(runs, &outcome) {
        let mut of_run = Findings::default();
        of_run.expect_eq("status", facts.get(run), Some(&"0"));
        guest_is_right(&mut of_run, output, [found, &after]);
        findings.include(run, of_run);
        found = &after;
    }
    findings.expect_eq(
        "disk afterwards",
        image::sha256_of_file(&rig.disk())?,
        after.clone(),
    );
    check::canary_lives(&mut findings, &outcome, MIN_CANARY_MIB);
    is_scattered(&mut findings, &outcome);
    Ok(findings.into_result(&outcome))
}

/// Script: all runs under one canary.
fn all_runs(runs: &[&str]) -> String {
    let arguments = format!("{} --memory 192M --cpus {CPUS}", guarded(ARGUMENTS));
    let [scatter, watch] = SCATTERED_EACH;
    let run = |name: &&str| {
        let arguments = arguments
            .replace("/testbed/kernel", &format!("/testbed/kernel-{name}"))
            .replace("/testbed/initramfs", &format!("/testbed/initramfs-{name}"));
        script::pinvisor(name, scatter, &arguments)
    };
    let runs: String = runs.iter().map(run).collect();
    [
        PRELUDE,
        "testbed-bind $TESTBED_BDF_0 || exit 1\ncat > /tmp/runs << 'END'\n",
        PRELUDE,
        &runs,
        "END\n",
        watch,
        "/tmp/runs\nsay watched $?\nsay_processes\n",
    ]
    .concat()
}

/// Each run, and what it printed.
fn outputs<'a>(runs: &[&'a str], outcome: &'a Outcome) -> Vec<(&'a str, &'a str)> {
    let mut rest = outcome.output.as_str();
    runs.iter()
        .map(|run| {
            let end = format!("testbed: {run}=");
            let (output, next) = rest.split_once(&end).unwrap_or((rest, ""));
            rest = next;
            (*run, output)
        })
        .collect()
}
