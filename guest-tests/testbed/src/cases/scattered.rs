// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest memory that is not at its physical addresses: the guest translates, or the monitor does.
//! No hugepages; the memory is what the test machine has.

use super::check::{self, Findings};
use super::rig::{ARGUMENTS, Rig};
use super::script::{self, PRELUDE};
use super::stress::{self, AtLeast, Share};
use crate::error::AtPath;
use crate::image;
use crate::machine::{Machine, Outcome};
use crate::runner::CaseResult;
use crate::setup::Arch;
use crate::trace::{self, NVME_EVENTS};
use crate::{Result, guest, setup};

/// QEMU's `edu`, addressing all of memory.
pub const EDU: &str = "edu,dma_mask=0xffffffffffffffff";
/// What a canary has to hold at least.
pub const MIN_CANARY_MIB: u64 = 256;
/// Pieces that a guest's 128 MiB are in at least, so that no address is right by luck.
pub const MIN_PIECES: usize = 4096;

/// A wrapper of a command's: leaves half of the free memory as single pages, and 60 MiB more.
const SCATTER: &str = "testbed inside scatter -- ";
/// A canary in what the guest and [`SCATTER`] leave. Half of what it leaves is single pages: more than a guest of
/// 256 MiB has, so that none of its memory comes from the part that is in large pieces.
pub const SCATTERED: &str = "testbed inside canary --leave-mib 900 -- testbed inside scatter -- ";
/// The same for several guests, which are started by a file.
pub const SCATTERED_EACH: [&str; 2] = [SCATTER, "testbed inside canary --leave-mib 900 -- sh "];

/// What the example moves in each direction: 8 times the device's buffer.
const EXAMPLE_BYTES: u64 = 8 * 4096;
/// What the Linux guest runs: the example for users.
const EXAMPLE: &str = "\
echo 60 > /proc/sys/vm/nr_hugepages
window-example
echo guest: status=$?
";

/// A stock driver that does not use the window programs guest-physical addresses: its device must
/// never become bus master.
pub fn stock_driver() -> Result<CaseResult> {
    let rig = Rig::new(
        12,
        "if [ -b /dev/nvme0n1 ]; then echo guest: disk=there; else echo guest: disk=none; fi\n",
    )?;
    let machine = rig.machine(setup::guest_kernel()?.vmlinux());
    let arguments = ARGUMENTS
        .replace("$TESTBED_BDF_0", "$TESTBED_BDF_0,dma=translate")
        .replace("quiet", "quiet nvme_core.admin_timeout=3");
    let run = script::pinvisor("status", SCATTERED, &format!("{arguments} --memory 256M"));
    let script = [
        PRELUDE,
        "say bdf $TESTBED_BDF_0\ntestbed-bind $TESTBED_BDF_0 || exit 1\n",
        &run,
    ]
    .concat();
    let outcome = machine.run(&script)?;
    let mut findings = Findings::default();
    let facts = script::facts(&outcome.output);
    findings.expect_eq("status", facts.get("status").copied(), Some("0"));
    let disk = guest::facts(&outcome.output).get("disk").copied();
    findings.expect_eq("the guest's disk", disk, Some("none"));
    check::canary_lives(&mut findings, &outcome, MIN_CANARY_MIB);
    let events = trace::parse(&outcome.trace);
    let during = trace::between(&events, script::BEGIN, script::END).unwrap_or_default();
    let function = facts.get("bdf").and_then(|bdf| trace::function(bdf));
    let writes = trace::command_writes(during, function.unwrap_or(u16::MAX));
    findings.expect(!writes.is_empty(), "COMMAND was never written");
    findings.expect(
        writes.iter().all(|value| value & 4 == 0),
        format!("the device became bus master: {writes:x?}"),
    );
    Ok(findings.into_result(&outcome))
}

/// The bare-metal guest translates for NVMe, 2000 transfers and 25 MiB, and for edu.
pub fn translate(arch: Arch) -> Result<CaseResult> {
    translate_of(arch, Share::Tenth)
}

/// The same with 20,000 transfers and 256 MiB.
pub fn translate_long() -> Result<CaseResult> {
    translate_of(Arch::X86_64, Share::Whole)
}

fn translate_of(arch: Arch, share: Share) -> Result<CaseResult> {
    let (transfers, bytes) = (share.of(20_000), share.of(256 << 20));
    let disk = tempfile::NamedTempFile::new().at("create", "a temporary file")?;
    image::write(disk.path(), &image::bytes(64, 13))?;
    let machine = NVME_EVENTS
        .iter()
        .fold(stress::machine_of(arch)?, |machine, event| {
            machine.trace(event)
        })
        .writable_disk("disk", disk.path().to_owned())
        .device("nvme,drive=disk,serial=translate")
        .device(EDU);
    let nvme = format!(
        "--noiommu --memory 128M --device $TESTBED_BDF_0,dma=translate --cpus 2 \
         --cmdline 'transfers={} bytes={bytes} destroy=yes'",
        share.of(22_000)
    );
    let edu = "--noiommu --memory 128M --device $TESTBED_BDF_1,dma=translate \
               --cmdline 'transfers=240 bytes=0'";
    let [scatter, watch] = SCATTERED_EACH;
    let script = [
        PRELUDE,
        "say bdf $TESTBED_BDF_0\ntestbed-bind $TESTBED_BDF_0 || exit 1\n",
        "testbed-bind $TESTBED_BDF_1 || exit 1\ncat > /tmp/runs << 'END'\n",
        PRELUDE,
        &stress::run("nvme", scatter, &nvme),
        &stress::run("edu", scatter, edu),
        "END\n",
        watch,
        "/tmp/runs\nsay watched $?\n",
    ]
    .concat();
    let outcome = machine.run(&script)?;
    let mut findings = Findings::default();
    stress::passed(
        &mut findings,
        &outcome,
        "nvme",
        AtLeast::transfers(transfers).and_bytes(bytes),
    );
    stress::passed(&mut findings, &outcome, "edu", AtLeast::transfers(200));
    let facts = script::facts(&outcome.output);
    findings.expect_eq(
        "the canary's status",
        facts.get("watched").copied(),
        Some("0"),
    );
    for key in ["nvme", "edu"] {
        let report = stress::report(&mut findings, &outcome, key);
        findings.expect_eq("mode", report["start"]["mode"].as_str(), Some("translate"));
    }
    check::canary_lives(&mut findings, &outcome, MIN_CANARY_MIB);
    is_scattered(&mut findings, &outcome);
    // The marks are those of the first run.
    check::device_saw_quiet(&mut findings, &outcome, facts.get("bdf"));
    Ok(findings.into_result(&outcome))
}

/// A user-space driver in a stock Linux guest translates for edu.
pub fn translate_linux() -> Result<CaseResult> {
    let initramfs = tempfile::NamedTempFile::new().at("create", "a temporary file")?;
    guest::write_program_initramfs(initramfs.path(), &[], "window-example", EXAMPLE)?;
    let machine = Machine::builder()
        .patience(stress::SILENCE_TIMEOUT)
        .device(EDU)
        .file("kernel", setup::guest_kernel()?.vmlinux())
        .file("initramfs", initramfs.path().to_owned());
    let arguments = ARGUMENTS.replace("$TESTBED_BDF_0", "$TESTBED_BDF_0,dma=translate");
    let run = script::pinvisor("status", SCATTERED, &format!("{arguments} --memory 256M"));
    let script = [PRELUDE, "testbed-bind $TESTBED_BDF_0 || exit 1\n", &run].concat();
    let outcome = machine.run(&script)?;
    let mut findings = Findings::default();
    let status = script::facts(&outcome.output).get("status").copied();
    findings.expect_eq("status", status, Some("0"));
    let status = guest::facts(&outcome.output).get("status").copied();
    findings.expect_eq("the example's status", status, Some("0"));
    moved_elsewhere(&mut findings, &outcome.output);
    check::canary_lives(&mut findings, &outcome, MIN_CANARY_MIB);
    is_scattered(&mut findings, &outcome);
    Ok(findings.into_result(&outcome))
}

/// The example moved all its data in both directions, and gave the device addresses that are not the guest's.
/// The buffer was in several runs.
fn moved_elsewhere(findings: &mut Findings, output: &str) {
    let runs = output
        .lines()
        .filter_map(|line| line.strip_prefix("buffer: ")?.rsplit_once(" in "))
        .find_map(|(_, runs)| runs.split(' ').next()?.parse::<u64>().ok());
    findings.expect(runs > Some(1), format!("the buffer was in {runs:?} runs"));
    for direction in ["ToDevice: ", "ToMemory: "] {
        let moved: Vec<Moved> = output
            .lines()
            .filter_map(|line| moved(line.strip_prefix(direction)?.trim_end()))
            .collect();
        let bytes: u64 = moved.iter().map(|one| one.bytes).sum();
        findings.expect_eq(direction, bytes, EXAMPLE_BYTES);
        let is_elsewhere = |one: &Moved| one.host_physical != one.guest_physical;
        findings.expect(
            moved.iter().all(is_elsewhere),
            format!("{direction}host-physical is guest-physical in {moved:x?}"),
        );
    }
}

/// One transfer, as the example reports it.
#[derive(Debug, PartialEq, Eq)]
struct Moved {
    bytes: u64,
    guest_physical: u64,
    host_physical: u64,
}

fn moved(line: &str) -> Option<Moved> {
    let fields: Vec<&str> = line.split(", ").collect();
    let [bytes, _, guest, host] = fields[..] else {
        return None;
    };
    let hex = |field: &str, name| u64::from_str_radix(field.strip_prefix(name)?, 16).ok();
    Some(Moved {
        bytes: bytes.strip_suffix(" bytes")?.parse().ok()?,
        guest_physical: hex(guest, "guest-physical 0x")?,
        host_physical: hex(host, "host-physical 0x")?,
    })
}

/// The monitor translates for edu, whose driver is unmodified.
pub fn mediate(arch: Arch) -> Result<CaseResult> {
    let machine = stress::machine_of(arch)?.device(EDU);
    let arguments = "--noiommu --memory 128M --device $TESTBED_BDF_0,dma=mediate,profile=edu64 \
                     --cmdline 'mode=mediate transfers=240 bytes=0'";
    let script = [
        PRELUDE,
        "say bdf $TESTBED_BDF_0\ntestbed-bind $TESTBED_BDF_0 || exit 1\n",
        &stress::run("edu", SCATTERED, arguments),
    ]
    .concat();
    let outcome = machine.run(&script)?;
    let mut findings = Findings::default();
    let report = stress::passed(&mut findings, &outcome, "edu", AtLeast::transfers(200));
    findings.expect_eq("mode", report["start"]["mode"].as_str(), Some("mediate"));
    nothing_was_refused(&mut findings, &outcome);
    check::canary_lives(&mut findings, &outcome, MIN_CANARY_MIB);
    is_scattered(&mut findings, &outcome);
    check::device_saw_quiet(
        &mut findings,
        &outcome,
        script::facts(&outcome.output).get("bdf"),
    );
    Ok(findings.into_result(&outcome))
}

/// The monitor started what the guest did, and had nothing to refuse.
fn nothing_was_refused(findings: &mut Findings, outcome: &Outcome) {
    let told = outcome
        .output
        .lines()
        .find_map(|line| line.split_once("mediated transfers: "))
        .map(|(_, rest)| rest);
    let started = told.and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    findings.expect(
        started >= Some(200)
            && told.is_some_and(|rest| rest.contains(" 0 refused, 0 while busy, 0 failed")),
        format!("the monitor reports {told:?}"),
    );
}

/// Guest memory was in many pieces.
pub fn is_scattered(findings: &mut Findings, outcome: &Outcome) {
    let counts: Vec<usize> = outcome
        .output
        .lines()
        .filter_map(|line| line.split_once("physical memory: "))
        .filter_map(|(_, rest)| rest.split(' ').next()?.parse().ok())
        .collect();
    findings.expect(
        !counts.is_empty() && counts.iter().all(|count| *count >= MIN_PIECES),
        format!("guest memory was in {counts:?} pieces"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str =
        "2048 bytes, virtual 0x7f00, guest-physical 0x1800, host-physical 0x12345800";

    #[test]
    fn the_examples_lines_are_understood() {
        let expected = Moved {
            bytes: 2048,
            guest_physical: 0x1800,
            host_physical: 0x1234_5800,
        };
        assert_eq!(moved(LINE), Some(expected));
        assert_eq!(moved("2048 bytes, virtual 0x7f00"), None);
    }

    #[test]
    fn data_that_stays_or_is_missing_is_found() {
        let found = |host: &str| {
            let one = LINE.replace("0x12345800", host);
            let moves = format!("ToDevice: {one}\r\nToMemory: {one}\r\n").repeat(16);
            let output =
                format!("buffer: virtual 0x7f00, guest-physical 0x1000, in 65 runs\n{moves}");
            let mut findings = Findings::default();
            moved_elsewhere(&mut findings, &output);
            format!("{findings:?}")
        };
        assert_eq!(found("0x12345800"), format!("{:?}", Findings::default()));
        assert!(found("0x1800").contains("host-physical is"));
        let mut findings = Findings::default();
        moved_elsewhere(
            &mut findings,
            "buffer: virtual 0x7f00, guest-physical 0x1000, in 1 runs",
        );
        assert!(format!("{findings:?}").contains("the buffer was in Some(1) runs"));
        assert!(found("none").contains("expected 32768"));
    }
}
