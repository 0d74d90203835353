// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The compatibility table: device models of every kind, driven by the stock kernel's own drivers.
//!
//! A *batch* is one test machine on which guests run one after the other, each with its own devices. Around all of
//! them the pool of hugepages is shaped, so that no address is right by luck, and a canary holds the rest of memory.
//! Each row of the table is a *subject* of a batch. When all batches have run, the table is printed and, if every
//! row is well, written to `docs/reference/compatibility.md`.

mod bare;
mod iommu;
mod judge;
mod script;
mod subject;
mod table;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use self::judge::Outside;
use self::subject::{Function, Subject, Work};
use self::table::{Aspect, Row, Section};
use super::server::Server;
use super::step::Step;
use super::stress;
use super::traffic::Traffic;
use crate::error::AtPath;
use crate::machine::{Iommu, Machine};
use crate::runner::CaseResult;
use crate::setup::{self, Arch, Flavour};
use crate::{guest, image};

/// Size of a disk; SD cards require a power of two.
const DISK_MIB: usize = 8;

/// Size of what a guest fetches.
const SERVED_MIB: usize = 16;

/// After this a test machine is taken to hang.
const LIMIT: Duration = Duration::from_secs(1800);

/// Shaped hugepages, which take all of low memory, and a canary in the rest.
const WATCH: &str = "testbed inside shape -- testbed inside canary --least-percent 0 --";

/// Subjects that share a test machine.
#[derive(Debug)]
pub struct Batch {
    subjects: &'static [Subject],
    memory: &'static str,
    hugepages: u32,
    iommu: Iommu,
    flavour: Flavour,
    /// Prefix of the command that starts the guests.
    watch: &'static str,
    /// What is looked at before that, of the first device.
    steps: &'static [Step],
}

const BLOCK: Batch = Batch {
    subjects: subject::BLOCK,
    memory: "2G",
    hugepages: 450,
    iommu: Iommu::None,
    flavour: Flavour::Groups,
    watch: WATCH,
    steps: &[],
};
const NETWORK: Batch = Batch {
    subjects: subject::NETWORK,
    ..BLOCK
};
const TOGETHER: Batch = Batch {
    subjects: subject::TOGETHER,
    ..BLOCK
};
const HIGH: Batch = Batch {
    subjects: subject::HIGH,
    memory: "6G",
    watch: "testbed inside shape -- testbed inside canary --leave-mib 4500 --",
    ..BLOCK
};
const BEHIND_IOMMU: Batch = Batch {
    subjects: subject::IOMMU,
    hugepages: 0,
    iommu: Iommu::Intel,
    watch: "testbed inside canary --leave-mib 600 --",
    steps: iommu::STEPS,
    ..BLOCK
};

const BY_GROUP: Batch = Batch {
    subjects: subject::GROUP,
    flavour: Flavour::Old,
    ..BLOCK
};

/// How much of a batch a case does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// What is in every run. Not published.
    Often,
    /// All of it.
    Whole,
}

impl Batch {
    /// The subjects on machines of `arch`.
    fn subjects_on(&self, arch: Arch, part: Part) -> Vec<Subject> {
        let all = self.subjects.iter().copied();
        all.filter(|subject| arch == Arch::X86_64 || !subject.pc_only)
            .filter(|subject| part == Part::Whole || subject.often)
            .collect()
    }

    /// Whether devices are handed back after each guest. What an IOMMU keeps in its place has nothing to show.
    fn hands_back(&self) -> bool {
        self.iommu == Iommu::None
    }
}

/// In the order of the table.
const BATCHES: [&Batch; 5] = [&BLOCK, &NETWORK, &TOGETHER, &HIGH, &BEHIND_IOMMU];

/// How many of them, from the first on, run on every architecture.
const EVERYWHERE: usize = 2;

/// Controllers with a disk each.
pub fn block(arch: Arch) -> crate::Result<CaseResult> {
    often(arch, &BLOCK)
}

/// The same, all of them.
pub fn block_long(arch: Arch) -> crate::Result<CaseResult> {
    run(arch, 0)
}

/// Network interfaces.
pub fn network(arch: Arch) -> crate::Result<CaseResult> {
    often(arch, &NETWORK)
}

/// The same, all of them.
pub fn network_long(arch: Arch) -> crate::Result<CaseResult> {
    run(arch, 1)
}

/// Several functions in one guest.
pub fn together() -> crate::Result<CaseResult> {
    run(Arch::X86_64, 2)
}

/// A device of 32 bits, guest memory above 4 GiB.
pub fn high_memory() -> crate::Result<CaseResult> {
    run(Arch::X86_64, 3)
}

/// Devices behind an IOMMU.
pub fn behind_iommu() -> crate::Result<CaseResult> {
    run(Arch::X86_64, 4)
}

/// Devices of which the test machine's kernel has VFIO groups only.
pub fn by_group() -> crate::Result<CaseResult> {
    often(Arch::X86_64, &BY_GROUP)
}

/// The same, all of them.
pub fn by_group_long() -> crate::Result<CaseResult> {
    let rows = rows_or_why(Arch::X86_64, &BY_GROUP, Part::Whole);
    publish(Section::Group, 0, rows)
}

/// Devices that the stock kernel has no driver for.
pub fn bare_metal() -> crate::Result<CaseResult> {
    bare::case()
}

fn run(arch: Arch, number: usize) -> crate::Result<CaseResult> {
    let rows = rows_or_why(arch, BATCHES[number], Part::Whole);
    publish(Section::of(arch), subjects(arch, number), rows)
}

fn often(arch: Arch, batch: &Batch) -> crate::Result<CaseResult> {
    Ok(verdict(&rows_or_why(arch, batch, Part::Often)))
}

fn rows_or_why(arch: Arch, batch: &Batch, part: Part) -> Vec<Row> {
    rows(arch, batch, part)
        .unwrap_or_else(|error| without_result(&batch.subjects_on(arch, part), &error.to_string()))
}

/// Subjects of the first `batches` on machines of `arch`.
fn subjects(arch: Arch, batches: usize) -> usize {
    BATCHES[..batches]
        .iter()
        .map(|batch| batch.subjects_on(arch, Part::Whole).len())
        .sum()
}

/// What is wrong with rows.
fn verdict(rows: &[Row]) -> CaseResult {
    let mut problems = String::new();
    for row in rows {
        for (aspect, text) in &row.problems {
            // Writing to a string cannot fail.
            let _ = writeln!(problems, "{}: {aspect:?}: {text}", row.name);
        }
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(problems),
    }
}

/// Puts rows into a table, from `first` on, and reports what is wrong with them.
fn publish(section: Section, first: usize, rows: Vec<Row>) -> crate::Result<CaseResult> {
    let verdict = verdict(&rows);
    let count = match section {
        Section::Pc => subjects(Arch::X86_64, BATCHES.len()) + bare::COUNT,
        Section::Group => BY_GROUP.subjects.len(),
        Section::Aarch64 => subjects(Arch::Aarch64, EVERYWHERE),
    };
    table::add(section, (first..).zip(rows), count)?;
    Ok(verdict)
}

/// Rows of a batch whose machine did not come to an end.
fn without_result(subjects: &[Subject], error: &str) -> Vec<Row> {
    let row = |subject: &Subject| Row {
        name: subject.name,
        work: "–",
        interrupts: "–".into(),
        without: &[],
        problems: vec![(Aspect::End, error.to_string())],
    };
    subjects.iter().map(row).collect()
}

fn rows(arch: Arch, batch: &Batch, part: Part) -> crate::Result<Vec<Row>> {
    let rig = Rig::new(arch, batch, part)?;
    let served = image::bytes(SERVED_MIB, 0);
    let served_hashes = [&served[..], &served[..image::MIB]].map(image::sha256);
    let server = Server::start(served).at("listen on", "the loopback interface")?;
    let accept = match batch.iommu {
        Iommu::None => "--noiommu",
        Iommu::Intel => "",
    };
    // Other kernels have no driver for an interface of their own.
    let traffic = (batch.flavour != Flavour::Groups).then(Traffic::start);
    let traffic = traffic.transpose().at("start", "a sender")?;
    let ending = script::Ending {
        hands_back: batch.hands_back(),
        listens: traffic.is_none(),
    };
    let starts = script::inner(&rig.subjects, server.port(), accept, ending);
    let machine = rig.machine(&starts)?;
    let machine = match &traffic {
        None => with_sender(machine),
        Some(traffic) => on_wire(machine, &traffic.netdev(), "traffic"),
    };
    let steps = iommu::script(batch.steps);
    let outcome = machine.run(&script::outer(rig.functions.len(), &steps, batch.watch))?;
    let left = rig.left()?;
    let outside = Outside {
        handed_back: batch.hands_back(),
        by_group: batch.flavour == Flavour::Old,
        left,
        disks: rig.disks,
        served: served_hashes,
    };
    let mut first_function = 0;
    let mut rows = Vec::new();
    for (index, subject) in rig.subjects.iter().enumerate() {
        rows.push(judge::judge(
            &rig.subjects,
            &outside,
            &outcome,
            index,
            first_function,
        ));
        first_function += subject.functions.len();
    }
    if let (Some(row), Some(problem)) = (rows.first_mut(), iommu::problem(batch.steps, &outcome)) {
        row.problems.push((Aspect::Probe, problem));
    }
    Ok(rows)
}

/// The files of a batch.
struct Rig<'a> {
    arch: Arch,
    batch: &'a Batch,
    subjects: Vec<Subject>,
    folder: TempDir,
    functions: Vec<&'static Function>,
    /// What each disk holds at the start, after the first guest and after the second, by the function's number.
    disks: BTreeMap<usize, [String; 3]>,
}

impl<'a> Rig<'a> {
    fn new(arch: Arch, batch: &'a Batch, part: Part) -> crate::Result<Self> {
        let folder = tempfile::tempdir().at("create", "a temporary folder")?;
        let subjects = batch.subjects_on(arch, part);
        let functions: Vec<&Function> = subjects.iter().flat_map(|s| s.functions).collect();
        let mut rig = Self {
            arch,
            batch,
            subjects,
            folder,
            functions,
            disks: BTreeMap::new(),
        };
        for (number, function) in rig.functions.iter().enumerate() {
            if function.work == Work::Disk {
                let mut contents = image::bytes(DISK_MIB, number as u64 + 1);
                image::write(&rig.disk(number), &contents)?;
                let hashes = [0, 1, 2].map(|turn| {
                    if turn > 0 {
                        after_guest(&mut contents);
                    }
                    image::sha256(&contents)
                });
                rig.disks.insert(number, hashes);
            }
        }
        let kernel = setup::guest_kernel_of(arch)?;
        for (index, subject) in rig.subjects.iter().enumerate() {
            let modules: Vec<&str> = subject
                .functions
                .iter()
                .flat_map(|f| f.modules)
                .copied()
                .collect();
            let script = include_str!("../../../guest/compat");
            let path = rig.path(&format!("initramfs{index}"));
            guest::write_initramfs_of(&kernel, &path, &modules, script)?;
        }
        Ok(rig)
    }

    /// The machine, with `starts` as `/testbed/starts`.
    fn machine(&self, starts: &str) -> crate::Result<Machine> {
        let path = self.path("starts");
        std::fs::write(&path, starts).at("write", &path)?;
        let mut machine = Machine::builder()
            .arch(self.arch)
            .memory(self.batch.memory)
            .hugepages_2m(self.batch.hugepages)
            .iommu(self.batch.iommu)
            .flavour(self.batch.flavour)
            .file("kernel", setup::guest_kernel_of(self.arch)?.unpacked())
            .file("starts", path)
            .file("busybox", setup::busybox(self.arch)?)
            .trace("pci_cfg_write")
            .timeout(LIMIT)
            .patience(stress::SILENCE_TIMEOUT);
        for index in 0..self.subjects.len() {
            let name = format!("initramfs{index}");
            machine = machine.file(&name, self.path(&name));
        }
        for (number, function) in self.functions.iter().enumerate() {
            let named = |text: &str| text.replace('@', &number.to_string());
            machine = match function.work {
                Work::Disk => machine.writable_disk(&named("disk@"), self.disk(number)),
                Work::Network => machine
                    .qemu_arg("-netdev")
                    .qemu_arg(&named("hubport,id=net@,hubid=0")),
            };
            machine = machine.device(&named(function.model));
            if let Some(medium) = function.medium {
                machine = machine.qemu_arg("-device").qemu_arg(&named(medium));
            }
        }
        Ok(on_wire(machine, "user,id=server", "server"))
    }

    /// SHA-256 of every disk's current image.
    fn left(&self) -> crate::Result<BTreeMap<usize, String>> {
        let numbers = self.disks.keys();
        numbers
            .map(|number| Ok((*number, image::sha256_of_file(&self.disk(*number))?)))
            .collect()
    }

    fn disk(&self, number: usize) -> PathBuf {
        self.path(&format!("disk{number}"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Another end of the wire that all network interfaces are on.
fn on_wire(machine: Machine, netdev: &str, id: &str) -> Machine {
    let port = format!("hubport,id=to-{id},hubid=0,netdev={id}");
    [netdev, &port]
        .into_iter()
        .fold(machine, |machine, netdev| {
            machine.qemu_arg("-netdev").qemu_arg(netdev)
        })
}

/// An interface on the wire that stays with the test machine's own driver.
fn with_sender(machine: Machine) -> Machine {
    let machine = machine
        .qemu_arg("-netdev")
        .qemu_arg("hubport,id=sender,hubid=0");
    machine.device("e1000e,netdev=sender")
}

/// What `guest/compat` does to a disk.
fn after_guest(contents: &mut [u8]) {
    let half = contents.len() / 2;
    for byte in &mut contents[..half] {
        *byte = byte.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_one_slot_are_the_first_of_their_machine() {
        for batch in BATCHES.into_iter().chain([&BY_GROUP]) {
            let functions = batch.subjects.iter().flat_map(|subject| subject.functions);
            for (number, function) in functions.enumerate() {
                assert_eq!(
                    function.model.contains("bus=tb0"),
                    function.model.contains("addr=0.1")
                );
                assert!(
                    number == 1 || !function.model.contains("bus=tb0"),
                    "{function:?}"
                );
            }
        }
    }

    #[test]
    fn two_guests_raise_the_first_half_by_two() {
        let mut contents = [255, 1, 2, 3];
        after_guest(&mut contents);
        after_guest(&mut contents);
        assert_eq!(contents, [1, 3, 2, 3]);
    }
}
