// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A stock kernel drives a disk and a network interface as hard as it can while its memory is scarce.

use linux_stress::stamp::{Stamp, Stamper};
use serde_json::Value;

use super::check::{self, Findings};
use super::rig::{ARGUMENTS, Rig};
use super::script::{self, PRELUDE};
use super::server::Server;
use super::stress::{self, AtLeast};
use crate::error::{AtPath, Result};
use crate::machine::{Machine, Outcome};
use crate::runner::CaseResult;
use crate::setup::Arch;
use crate::{guest, image, setup};

/// Seed of the stress.
const SEED: u64 = 5;

/// CPUs of the guest, on which 4 threads work on the disk and 3 on all else.
const CPUS: u64 = 2;

/// Size of what the guest fetches again and again.
const SERVED_MIB: usize = 4;

/// Bytes that have stamps of their own on the disk, at least: a small part of what a run writes on a slow machine.
const MIN_STAMPED: usize = 1 << 20;

const BLOCK: usize = 512;

/// Status of a guest that had nothing to do.
const NOTHING: u64 = 2;

/// 10 seconds of it.
pub fn short(arch: Arch) -> Result<CaseResult> {
    run(arch, 10, 16 << 20)
}

/// 60 seconds of it, and a guest that finds nothing to do.
pub fn long(arch: Arch) -> Result<CaseResult> {
    let worked = run(arch, 60, 96 << 20)?;
    let idle = without_driver(arch)?;
    Ok(worked.and(idle))
}

/// A guest without a driver for its disk ends with the status for that, on its architecture's own way.
fn without_driver(arch: Arch) -> Result<CaseResult> {
    let kernel = setup::guest_kernel_of(arch)?;
    let rig = Rig::of_arch(arch, SEED, |path| {
        guest::write_stress_initramfs(&kernel, path, &[])
    })?;
    let arguments = ARGUMENTS.replace("quiet", "quiet stress=disk seconds=1");
    let script = [
        PRELUDE,
        "testbed-bind $TESTBED_BDF_0 || exit 1\n",
        &stress::run_with("idle", "", &format!("{arguments} --memory 256M")),
    ]
    .concat();
    let machine = rig.machine(kernel.unpacked()).hugepages_2m(150);
    let outcome = machine.run(&script)?;
    let mut findings = Findings::default();
    let report = stress::verdict(&mut findings, &outcome, "idle", "incomplete");
    let status = report["outcome"]["status"].as_u64();
    findings.expect_eq("the guest's status", status, Some(NOTHING));
    Ok(findings.into_result(&outcome))
}

/// Judges a run of `seconds`, in which at least `least_bytes` are moved: a small part of what a slow machine moves.
fn run(arch: Arch, seconds: u64, least_bytes: u64) -> Result<CaseResult> {
    let modules = ["nvme", "e1000e"];
    let kernel = setup::guest_kernel_of(arch)?;
    let rig = Rig::of_arch(arch, SEED, |path| {
        guest::write_stress_initramfs(&kernel, path, &modules)
    })?;
    let served = image::bytes(SERVED_MIB, SEED);
    let server = Server::start(served).at("listen on", "the loopback interface")?;
    let machine: Machine = rig
        .machine(kernel.unpacked())
        .hugepages_2m(300)
        .qemu_arg("-netdev")
        .qemu_arg("user,id=net")
        .device("e1000e,netdev=net");
    let words = format!(
        "stress=mix seconds={seconds} threads=4 destroy=yes server=10.0.2.2/{}",
        server.port()
    );
    let arguments = ARGUMENTS.replace("quiet", &format!("quiet {words}"));
    let arguments =
        format!("{arguments} --seed {SEED} --device $TESTBED_BDF_1 --cpus {CPUS} --memory 512M");
    let script = [
        PRELUDE,
        "say bdf $TESTBED_BDF_0\ntestbed-bind $TESTBED_BDF_0 || exit 1\n",
        "say nic $TESTBED_BDF_1\ntestbed-bind $TESTBED_BDF_1 || exit 1\n",
        &stress::run_with("linux", "", &arguments),
        "say_hugepages after\nsay_processes\n",
    ]
    .concat();
    let outcome = machine.run(&script)?;
    let mut findings = Findings::default();
    let report = stress::passed(
        &mut findings,
        &outcome,
        "linux",
        AtLeast::transfers(1).and_bytes(least_bytes),
    );
    all_was_done(&mut findings, &report);
    let after = std::fs::read(rig.disk()).at("read", rig.disk())?;
    disk_is_good(&mut findings, &rig.contents, &after);
    end_is_good(&mut findings, &outcome, least_bytes);
    Ok(findings.into_result(&outcome))
}

fn end_is_good(findings: &mut Findings, outcome: &Outcome, least_bytes: u64) {
    let facts = script::facts(&outcome.output);
    check::left_clean(findings, outcome, &facts);
    for function in ["bdf", "nic"] {
        check::device_saw_quiet(findings, outcome, facts.get(function));
    }
    // The network interface's transfers are not among those that QEMU traces.
    check::dma_inside(findings, outcome, least_bytes / 2);
}

/// All that the guest was to do, it did, with all that it has.
fn all_was_done(findings: &mut Findings, report: &Value) {
    findings.expect_eq(
        "CPUs of the guest",
        report["start"]["cpus"].as_u64(),
        Some(CPUS),
    );
    // The disk twice, both ways of the network, memory, the kernel's log.
    findings.expect_eq("planned tests", report["planned"].as_u64(), Some(6));
    let engines = report["engines"].as_array().into_iter().flatten();
    let engines: Vec<_> = engines
        .map(|engine| (engine["name"].as_str(), engine["interrupt"].as_str()))
        .collect();
    let expected = ["nvme0n1", "eth0"].map(|name| (Some(name), Some("msix")));
    findings.expect_eq("engines", &engines[..], &expected[..]);
}

/// On the disk, too, every block is whole and where it belongs, or was never written.
fn disk_is_good(findings: &mut Findings, before: &[u8], after: &[u8]) {
    let stamper = Stamper::new(SEED);
    let (mut stamped, mut first_bad) = (0, None);
    let blocks = before.chunks(BLOCK).zip(after.chunks(BLOCK)).zip(0_u64..);
    for ((before, after), number) in blocks {
        let place = |generation| Stamp {
            medium: 0,
            offset: number * BLOCK as u64,
            generation,
        };
        let found = stamper.decode(after);
        if found.is_some_and(|found| stamper.is_filled(after, place(found.generation))) {
            stamped += BLOCK;
        } else if before != after {
            first_bad.get_or_insert((number, found));
        }
    }
    findings.expect_eq("first bad block on the disk", first_bad, None);
    findings.expect_eq("length of the disk", after.len(), before.len());
    findings.expect(
        stamped >= MIN_STAMPED,
        format!("only {stamped} bytes were written to the disk"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Status;

    fn is_good(judge: impl Fn(&mut Findings)) -> bool {
        let outcome = Outcome {
            status: Status::Exited(0),
            output: String::new(),
            console: String::new(),
            trace: String::new(),
        };
        let mut findings = Findings::default();
        judge(&mut findings);
        findings.into_result(&outcome).is_ok()
    }

    #[test]
    fn every_bad_block_of_a_disk_is_seen() {
        let before = vec![7; 2 * MIN_STAMPED];
        let mut after = before.clone();
        let stamp = Stamp {
            medium: 0,
            offset: 0,
            generation: 3,
        };
        Stamper::new(SEED).fill(&mut after[..MIN_STAMPED], stamp);
        let judge = |after: &[u8]| is_good(|findings| disk_is_good(findings, &before, after));
        assert!(judge(&after));
        assert!(!judge(&before));
        assert!(!judge(&after[BLOCK..]));
        for at in [0, 511, MIN_STAMPED, 2 * MIN_STAMPED - 1] {
            let mut bad = after.clone();
            bad[at] ^= 1;
            assert!(!judge(&bad), "{at}");
        }
        after.copy_within(..BLOCK, MIN_STAMPED);
        assert!(!judge(&after));
    }
}
