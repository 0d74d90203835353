//! A stock kernel drives a disk and a network interface as hard as it can while its memory is scarce.

use linux_stress::stamp::{Stamp, Stamper};
use stress_format::{Engine, Interrupt, Line, Record};

use super::check::{self, Findings};
use super::rig::{ARGUMENTS, Rig};
use super::script::{self, PRELUDE};
use super::server::Server;
use crate::error::{AtPath, Result};
use crate::machine::{Machine, Outcome};
use crate::runner::CaseResult;
use crate::{guest, image, setup};

/// Seed of the stress.
const SEED: u64 = 5;

/// CPUs of the guest, on which 4 threads work on the disk and 3 on all else.
const CPUS: u64 = 2;

/// Size of what the guest fetches again and again.
const SERVED_MIB: usize = 4;

/// Bytes that have stamps of their own on the disk, at least: a part of what the shortest run writes.
const LEAST_STAMPED: usize = 8 << 20;

const BLOCK: usize = 512;

/// 10 seconds of it.
pub fn short() -> Result<CaseResult> {
    run(10, 64 << 20)
}

/// 60 seconds of it.
pub fn long() -> Result<CaseResult> {
    run(60, 256 << 20)
}

/// Judges a run of `seconds`, in which at least `least_bytes` are moved.
fn run(seconds: u64, least_bytes: u64) -> Result<CaseResult> {
    let modules = ["nvme", "e1000e"];
    let rig = Rig::with_initramfs(SEED, |path| guest::write_stress_initramfs(path, &modules))?;
    let served = image::bytes(SERVED_MIB, SEED);
    let server = Server::start(served).at("listen on", "the loopback interface")?;
    let machine: Machine = rig
        .machine(setup::guest_kernel()?.bzimage())
        .hugepages_2m(300)
        .qemu_arg("-netdev")
        .qemu_arg("user,id=net")
        .device("e1000e,netdev=net");
    let words = format!(
        "stress=mix seconds={seconds} threads=4 seed={SEED} destroy=yes server=10.0.2.2/{}",
        server.port()
    );
    let arguments = ARGUMENTS.replace("quiet", &format!("quiet {words}"));
    let arguments = format!("{arguments} --device $TESTBED_BDF_1 --cpus {CPUS} --memory 512M");
    let script = [
        PRELUDE,
        "say bdf $TESTBED_BDF_0\ntestbed-bind $TESTBED_BDF_0 || exit 1\n",
        "say nic $TESTBED_BDF_1\ntestbed-bind $TESTBED_BDF_1 || exit 1\n",
        &script::pinvisor("status", "", &arguments),
        "say_hugepages after\nsay_processes\n",
    ]
    .concat();
    let outcome = machine.run(&script)?;
    let mut findings = Findings::default();
    let facts = script::facts(&outcome.output);
    findings.expect_eq("pinvisor's status", facts.get("status"), Some(&"0"));
    report_is_good(&mut findings, &outcome.output, least_bytes);
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
    // The network interface's transfers are not among those that QEMU tells of.
    check::dma_inside(findings, outcome, least_bytes / 2);
}

/// All that the guest was to do, it did, and it found nothing wrong.
fn report_is_good(findings: &mut Findings, output: &str, least_bytes: u64) {
    let (mut planned, mut passed, mut engines) = (None, 0, Vec::new());
    for line in output.lines().filter_map(Line::parse) {
        match line {
            Line::Plan(count) => planned = Some(count),
            Line::Test { ok: true, .. } => passed += 1,
            Line::Test { .. } | Line::BailOut(_) | Line::Record(Record::Finding(_)) => {
                findings.expect(false, format!("the guest says {line:x?}"));
            }
            Line::Record(Record::Start(start)) => {
                findings.expect_eq("CPUs of the guest", start.cpus, CPUS);
            }
            Line::Record(Record::Engine(Engine {
                interrupt, name, ..
            })) => engines.push((name, interrupt)),
            Line::Record(Record::Totals(totals)) => {
                let wrong = totals.mismatches + totals.guard_hits + totals.lost_interrupts;
                findings.expect(
                    wrong == 0 && totals.bytes >= least_bytes,
                    format!("the guest's totals are {totals:?}"),
                );
            }
            Line::Version | Line::Record(_) => {}
        }
    }
    // The disk twice, both ways of the network, memory, the kernel's log.
    findings.expect_eq("planned tests", planned, Some(6));
    findings.expect_eq("passed tests", Some(passed), planned);
    let expected = ["nvme0n1", "eth0"].map(|name| (name, Interrupt::Msix));
    findings.expect_eq("engines", &engines[..], &expected);
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
        stamped >= LEAST_STAMPED,
        format!("only {stamped} bytes were written to the disk"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Status;

    const GOOD: &str = "TAP version 14\r\n\
        # stress version=1 seed=5 cpus=2 tsc_khz=2000000 mode=identity program=linux-stress\r\n\
        # engine id=0 interrupt=msix bdf=00:01.0 name=nvme0n1\r\n\
        # engine id=1 interrupt=msix bdf=00:02.0 name=eth0\r\n\
        1..6\r\nok 1 - a\r\nok 2 - b\r\nok 3 - c\r\nok 4 - d\r\nok 5 - e\r\nok 6 - f\r\n\
        # totals transfers=9 bytes=1000 mismatches=0 guard_hits=0 lost_interrupts=0 kb_s=1 p50=1 p99=1 max=1\r\n";

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
    fn every_fault_of_a_report_is_seen() {
        let judge = |text: &str| is_good(|findings| report_is_good(findings, text, 1000));
        assert!(judge(GOOD));
        for (what, instead) in [
            ("ok 3 - c", "not ok 3 - c"),
            ("ok 3 - c\r\n", ""),
            ("1..6", "1..7"),
            ("cpus=2", "cpus=1"),
            ("bytes=1000", "bytes=999"),
            ("mismatches=0", "mismatches=1"),
            ("name=eth0", "name=eth1"),
            ("1..6", "Bail out! no disk\r\n1..6"),
            (
                "1..6",
                "# finding kind=timeout engine=0 gpa=0x0 len=0x0 text=x\r\n1..6",
            ),
        ] {
            assert!(!judge(&GOOD.replacen(what, instead, 1)), "{what} {instead}");
        }
        assert!(!judge(""));
    }

    #[test]
    fn every_bad_block_of_a_disk_is_seen() {
        let before = vec![7; 2 * LEAST_STAMPED];
        let mut after = before.clone();
        let stamp = Stamp {
            medium: 0,
            offset: 0,
            generation: 3,
        };
        Stamper::new(SEED).fill(&mut after[..LEAST_STAMPED], stamp);
        let judge = |after: &[u8]| is_good(|findings| disk_is_good(findings, &before, after));
        assert!(judge(&after));
        assert!(!judge(&before));
        assert!(!judge(&after[BLOCK..]));
        for at in [0, 511, LEAST_STAMPED, 2 * LEAST_STAMPED - 1] {
            let mut bad = after.clone();
            bad[at] ^= 1;
            assert!(!judge(&bad), "{at}");
        }
        after.copy_within(..BLOCK, LEAST_STAMPED);
        assert!(!judge(&after));
    }
}
