// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Rows for devices that a stock kernel cannot drive, or cannot drive in this way: the bare-metal guest does.

use super::super::check::{self, Findings};
use super::super::script::{self, PRELUDE};
use super::super::stress;
use super::WATCH;
use super::table::{Aspect, Row, Section};
use crate::error::AtPath;
use crate::image;
use crate::machine::{Machine, Outcome};
use crate::runner::CaseResult;
use crate::setup::Arch;

/// The machine's devices, in the order of their numbers.
const DEVICES: [&str; 5] = [
    "edu,dma_mask=0xffffffffffffffff",
    "pci-testdev",
    "ivshmem-plain,memdev=shared",
    "nvme,drive=disk3,serial=stress3",
    "nvme,drive=disk4,serial=stress4,cmb_size_mb=4",
];

/// Memory that nothing may write to, at least.
const MIN_CANARY_MIB: u64 = 256;

/// What a guest does with some of them.
struct Subject {
    name: &'static str,
    work: &'static str,
    interrupts: &'static str,
    devices: &'static [usize],
    words: &'static str,
    /// Parts of the names of tests that must have passed.
    tests: &'static [&'static str],
}

const SUBJECTS: [Subject; COUNT] = [
    Subject {
        name: "edu",
        work: "bare metal: DMA both ways, factorial",
        interrupts: "polling, INTx, MSI",
        devices: &[0],
        words: "engines=edu transfers=30 bytes=0",
        tests: &["factorial", "polling: every", "intx: every", "msi: every"],
    },
    Subject {
        name: "pci-testdev",
        work: "bare metal: every access width, memory and ports",
        interrupts: "–",
        devices: &[1],
        words: "engines=pci-testdev",
        tests: &["pci-testdev 00:01.0, memory", "pci-testdev 00:01.0, ports"],
    },
    Subject {
        name: "ivshmem-plain, a BAR of 2 GiB",
        work: "bare metal: samples written and hashed",
        interrupts: "–",
        devices: &[2],
        words: "engines=ivshmem",
        tests: &["ivshmem 00:01.0: 2048 MiB"],
    },
    Subject {
        name: "edu and ivshmem-plain",
        work: "bare metal: DMA from BAR to BAR",
        interrupts: "MSI",
        devices: &[0, 2],
        words: "engines=p2p transfers=60 bytes=0",
        tests: &["p2p by edu"],
    },
    Subject {
        name: "two nvme, one with a controller memory buffer",
        work: "bare metal: blocks into the other's BAR and back",
        interrupts: "MSI-X",
        devices: &[3, 4],
        words: "engines=nvme,p2p transfers=400 bytes=0 destroy=yes",
        tests: &["p2p by nvme", "msix: every"],
    },
];

/// How many rows there are.
pub const COUNT: usize = 5;

/// All rows, each with what was wrong.
pub fn rows() -> crate::Result<Vec<Row>> {
    let disk = tempfile::NamedTempFile::new().at("create", "a temporary file")?;
    image::write(disk.path(), &image::bytes(16, 3))?;
    let other = tempfile::NamedTempFile::new().at("create", "a temporary file")?;
    image::write(other.path(), &image::bytes(16, 4))?;
    let machine = DEVICES.iter().fold(
        stress::machine()?
            .hugepages_2m(450)
            .qemu_arg("-object")
            .qemu_arg("memory-backend-ram,id=shared,size=2G,share=on")
            .disk("disk3", disk.path().to_owned())
            .disk("disk4", other.path().to_owned()),
        |machine: Machine, device| machine.device(device),
    );
    let path = tempfile::NamedTempFile::new().at("create", "a temporary file")?;
    std::fs::write(path.path(), inner()).at("write", path.path())?;
    let machine = machine.file("starts", path.path().to_owned());
    let outcome = machine.run(&outer())?;
    Ok((0..COUNT).map(|number| judge(number, &outcome)).collect())
}

/// Key of a run in the script: of `number`, for the first time or `again`.
fn key(number: usize, again: bool) -> String {
    format!("row{number}{}", if again { "_again" } else { "" })
}

/// The script inside of shape and canary: every row twice.
fn inner() -> String {
    let mut text = [PRELUDE, script::HAND_BACK].concat();
    for (number, subject) in SUBJECTS.iter().enumerate() {
        let devices = subject.devices.iter();
        let devices: String = devices
            .map(|device| format!("--device $TESTBED_BDF_{device} "))
            .collect();
        let arguments = format!(
            "--noiommu {devices}--memory 128M --timeout 900 --cmdline '{}'",
            subject.words
        );
        for again in [false, true] {
            let key = key(number, again);
            text += &stress::run(&key, "", &arguments);
            let names = devices.replace("--device ", "");
            text += &format!("hand_back {key}_back {names}\n");
        }
    }
    text
}

/// The script around it.
fn outer() -> String {
    let mut text = PRELUDE.to_owned();
    for device in 0..DEVICES.len() {
        text += &format!("testbed-bind $TESTBED_BDF_{device} || exit 1\n");
    }
    text + WATCH + " sh /testbed/starts\nsay_hugepages after\nsay_processes\n"
}

fn judge(number: usize, outcome: &Outcome) -> Row {
    let subject = &SUBJECTS[number];
    let facts = script::facts(&outcome.output);
    let mut problems = Vec::new();
    let mut note = |aspect, findings: Findings| {
        if let Err(text) = findings.into_result(outcome) {
            problems.push((aspect, text));
        }
    };
    for (again, aspect) in [(false, Aspect::Work), (true, Aspect::Again)] {
        let mut findings = Findings::default();
        let key = key(number, again);
        let report = stress::verdict(&mut findings, outcome, &key, "passed");
        stress::tested(&mut findings, &report, &key, subject.tests);
        if let Err(problem) = script::handed_back(&facts, &format!("{key}_back")) {
            findings.expect(false, problem);
        }
        note(aspect, findings);
    }
    let mut clean = Findings::default();
    check::left_clean(&mut clean, outcome, &facts);
    note(Aspect::End, clean);
    let mut canary = Findings::default();
    check::canary_lives(&mut canary, outcome, MIN_CANARY_MIB);
    note(Aspect::Canary, canary);
    Row {
        name: subject.name,
        work: subject.work,
        interrupts: subject.interrupts.into(),
        without: &[],
        problems,
    }
}

/// Rows when the machine did not come to an end.
pub fn without_result(error: &str) -> Vec<Row> {
    SUBJECTS
        .iter()
        .map(|subject| Row {
            name: subject.name,
            work: subject.work,
            interrupts: "–".into(),
            without: &[],
            problems: vec![(Aspect::End, error.to_owned())],
        })
        .collect()
}

/// The case: all rows are good, and in the table.
pub fn case() -> crate::Result<CaseResult> {
    let rows = rows().unwrap_or_else(|error| without_result(&error.to_string()));
    super::publish(
        Section::Pc,
        super::subjects(Arch::X86_64, super::BATCHES.len()),
        rows,
    )
}
