// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Each stage fails in turn, on the software backend: everything is released, in the one order.

use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use address::{Gpa, Hpa};
use devices::pci::MsiMessage;
use iommufd_backend::extent::Extent;
use iommufd_backend::{FileRange, Mapping, PinRequest};
use software_edu::{BAR_SIZE, BUFFER_SIZE, DmaMemory, DmaRefused, EduHost, InterruptSink, Options};
use software_memory::{PhysicalMemory, SoftwareBackend};
use tempfile::NamedTempFile;

use super::*;
use crate::bus::address_map::AddressMap;
use crate::bus::lines::InterruptLines;
use crate::bus::synthetic::SyntheticDevice;
use crate::bus::worker::Worker;
use crate::config::{BackendChoice, Config, LowMemory, SerialConfig};
use crate::memory::layout::{Identity, Swapped};
use crate::passthrough::dma_path::DmaPath;
use crate::run::event_loop::RunLimit;
use crate::run::exit::ExitReason;
use crate::run::power_button::Press;
use crate::teardown::trace;

/// What the kernel does, at its entry point: `out` to the power device's port, which switches the guest off.
const POWER_OFF: [u8; 7] = [
    0x66, 0xba, 0x00, 0x06, // mov dx, 0x600
    0xb0, 0x34, // mov al, SLP_EN and the type of S5
    0xee, // out dx, al
];
/// The same, if there is a config mechanism with a host bridge: CONFIG_ADDRESS reads as what was written, and config
/// space not as all-ones. Otherwise a triple fault.
const POWER_OFF_WITH_HOST_BRIDGE: [u8; 30] = [
    0x66, 0xba, 0xf8, 0x0c, // mov dx, 0xcf8
    0xb8, 0x00, 0x00, 0x00, 0x80, // mov eax, 0x80000000
    0xef, // out dx, eax
    0xed, // in eax, dx
    0x3d, 0x00, 0x00, 0x00, 0x80, // cmp eax, 0x80000000
    0x75, 0x0a, // jne to the last one
    0x66, 0xba, 0xfc, 0x0c, // mov dx, 0xcfc
    0xed, // in eax, dx
    0x83, 0xf8, 0xff, // cmp eax, -1
    0x75, 0x02, // jne over the last one
    0x0f, 0x0b, // ud2
];
/// Where its code is in the file.
const CODE: u64 = 0x1000;
/// Where it is linked to.
const ADDRESS: u64 = 0x100_0000;

/// An ELF kernel that switches the guest off.
fn kernel() -> NamedTempFile {
    kernel_of(&POWER_OFF)
}

/// An ELF kernel of one segment, with this code and `hlt` behind it.
fn kernel_of(code: &[u8]) -> NamedTempFile {
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    bytes.resize(16, 0);
    bytes.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [ADDRESS, 64, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    bytes.extend([1, 0, 0, 0, 7, 0, 0, 0]);
    for word in [CODE, ADDRESS, ADDRESS, 0x1000, 0x1000, 0x1000] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.resize(0x1000, 0);
    bytes.extend(code);
    bytes.resize(0x2000, 0xf4);
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    file
}

fn config(kernel: &Path, memory: &str) -> ValidConfig {
    let config = Config {
        kernel: kernel.to_owned(),
        initramfs: None,
        command_line: String::new(),
        memory: memory.parse().unwrap(),
        low_memory: LowMemory::Auto,
        cpus: "1".parse().unwrap(),
        devices: Vec::new(),
        noiommu: false,
        backend: BackendChoice::Auto,
        serial: SerialConfig::default(),
    };
    config.validate().unwrap()
}

/// Synthetic memory, and a DMA engine that does no work.
#[derive(Debug)]
struct Machine(SoftwareBackend);

/// Does no work, and notes when that ends.
#[derive(Debug)]
struct NotedWorker;

impl Worker for NotedWorker {
    fn stop(self: Box<Self>) {
        trace::note(WORKER);
    }
}

/// The step of [`NotedWorker`].
const WORKER: &str = "worker";

/// Neither memory nor interrupts.
struct Nothing;

impl DmaMemory for Nothing {
    fn read(&self, _: u64, _: &mut [u8]) -> Result<(), DmaRefused> {
        Err(DmaRefused)
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), DmaRefused> {
        Err(DmaRefused)
    }
}

impl InterruptSink for Nothing {
    fn message(&self, _: MsiMessage) {}

    fn line(&self, _: bool) {}
}

const BAR: Gpa = Gpa(0xd000_0000);

impl SyntheticMachine for Machine {
    fn address_map(&self) -> AddressMap {
        AddressMap::conventional()
    }

    fn bars(&self) -> Vec<(String, Range<Hpa>)> {
        let start = Hpa(BAR.0);
        vec![("edu BAR0".to_owned(), start..start + BAR_SIZE)]
    }

    fn dma_path(&self) -> &DmaPath {
        &DmaPath::Identity
    }

    fn pin(
        &mut self,
        request: &PinRequest<'_>,
    ) -> Result<Vec<Extent>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.0.pin(request)?)
    }

    fn start(
        &mut self,
        lines: InterruptLines,
    ) -> Result<SyntheticDevice, Box<dyn std::error::Error + Send + Sync>> {
        let options = Options {
            bar: BAR,
            interrupt_line: lines.line(),
            buffer: BUFFER_SIZE,
            memory: Box::new(Nothing),
            interrupts: Box::new(Nothing),
        };
        let (function, _) = EduHost::new("edu", options)?;
        Ok(SyntheticDevice {
            function: Box::new(function),
            worker: Box::new(NotedWorker),
        })
    }
}

/// Memory of 28 GiB in pieces of at most 16 MiB.
fn harness(layout: &dyn Layout) -> Harness<'_> {
    let physical = PhysicalMemory::new([Hpa(4 << 30)..Hpa(32 << 30)], 16 << 20, 1);
    Harness {
        handover: None,
        layout: Some(layout),
        machine: Some(Box::new(Machine(SoftwareBackend::new(physical)))),
    }
}

/// The steps that were taken since the last time, and what failed.
fn after<T>(result: Result<T, Error>) -> (Vec<&'static str>, &'static str) {
    let id = match result {
        Ok(_) => "",
        Err(error) => error.id(),
    };
    (trace::take(), id)
}

const ALL: [&str; 9] = trace::ALL;
/// A guest that does not end by itself fails the test.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn nothing_is_released_before_anything_was_taken() {
    let missing = config(Path::new("/nonexistent"), "64M");
    assert_eq!(
        after(Inspected::new(&missing, harness(&Identity))),
        (vec![], "kernel")
    );
}

#[test]
fn what_cannot_be_had_is_refused_by_looking() {
    let (kernel, initramfs) = (kernel(), NamedTempFile::new().unwrap());
    initramfs.as_file().set_len(64 << 20).unwrap();
    let inspect = |memory: &str, initramfs: Option<&Path>| {
        let config = Config {
            initramfs: initramfs.map(Path::to_owned),
            ..Config::clone(&config(kernel.path(), memory))
        };
        let config = config.validate().unwrap();
        let inspected = Inspected::new(&config, Harness::default());
        inspected.map(drop).map_err(|error| error.id())
    };
    assert_eq!(inspect("4M", None), Ok(()));
    assert_eq!(inspect("900000G", None), Err("too-little-memory"));
    assert_eq!(inspect("66M", Some(initramfs.path())), Ok(()));
    assert_eq!(inspect("64M", Some(initramfs.path())), Err("place"));
}

#[test]
fn a_guest_without_devices_needs_nothing_of_the_host_but_kvm() {
    let kernel = kernel();
    let config = config(kernel.path(), "64M");
    let mut console = Console::into_sink(Box::new(std::io::sink())).unwrap();
    let started = start(
        &config,
        Harness::default(),
        &mut console,
        &Confinement::default(),
        &mut Timings::default(),
    );
    let vmm = started.unwrap();
    let reason = vmm.wait(&mut console, RunLimit::Time(LIMIT), None).unwrap();
    assert_eq!(reason, ExitReason::PowerOff { status: 0 });
    assert_eq!(vmm.info().backend, "none");
    assert_eq!(after(vmm.end().torn_down), (ALL.to_vec(), ""));
}

#[test]
fn a_guest_starts_from_a_handover_that_fits_and_from_no_other() {
    let kernel = kernel();
    let started = |devices: &[&str]| {
        let config = Config {
            devices: devices.iter().map(|text| text.parse().unwrap()).collect(),
            ..Config::clone(&config(kernel.path(), "64M"))
        };
        let config = config.validate().unwrap();
        let (ours, theirs) = keeper::Channel::pair().unwrap();
        crate::handover::send(&theirs, &Default::default(), &[]).unwrap();
        let harness = Harness {
            handover: Some(Socket::new(ours.into(), 3).unwrap()),
            ..Harness::default()
        };
        let mut console = Console::into_sink(Box::new(std::io::sink())).unwrap();
        let vmm = start(
            &config,
            harness,
            &mut console,
            &Confinement::default(),
            &mut Timings::default(),
        )?;
        let reason = vmm.wait(&mut console, RunLimit::Time(LIMIT), None).unwrap();
        assert_eq!(reason, ExitReason::PowerOff { status: 0 });
        vmm.end().torn_down
    };
    assert_eq!(after(started(&[])), (ALL.to_vec(), ""));
    assert_eq!(after(started(&["01:00.0"])), (vec![], "handover"));
}

#[test]
fn a_guest_without_devices_has_a_host_bridge_and_no_bus() {
    let kernel = kernel_of(&[&POWER_OFF_WITH_HOST_BRIDGE[..], &POWER_OFF].concat());
    let config = config(kernel.path(), "64M");
    for (harness, has_bus) in [(Harness::default(), false), (harness(&Identity), true)] {
        let mut console = Console::into_sink(Box::new(std::io::sink())).unwrap();
        let vmm = start(
            &config,
            harness,
            &mut console,
            &Confinement::default(),
            &mut Timings::default(),
        )
        .unwrap();
        assert_eq!(vmm.resources.pci.is_some(), has_bus);
        let reason = vmm.wait(&mut console, RunLimit::Time(LIMIT), None).unwrap();
        assert_eq!(reason, ExitReason::PowerOff { status: 0 });
    }
}

#[test]
fn a_guest_is_stopped_from_another_thread() {
    let kernel = kernel_of(&[]);
    let config = config(kernel.path(), "64M");
    let mut console = Console::into_sink(Box::new(std::io::sink())).unwrap();
    let started = start(
        &config,
        Harness::default(),
        &mut console,
        &Confinement::default(),
        &mut Timings::default(),
    );
    let vmm = started.unwrap();
    let handle = vmm.handle();
    let other = handle.clone();
    let stopping = std::thread::spawn(move || {
        let pressed = other.press_power_button();
        other.stop(ExitReason::Quit);
        pressed
    });
    let reason = vmm.wait(&mut console, RunLimit::Time(LIMIT), None).unwrap();
    assert_eq!(reason, ExitReason::Quit);
    // Its kernel has no handler.
    assert_eq!(stopping.join().unwrap().unwrap(), Press::Unheard);
    assert!(vmm.end().torn_down.is_ok());
    assert_eq!(handle.press_power_button().unwrap(), Press::Unheard);
}

#[test]
fn a_guest_runs_through_all_stages_and_ends_in_order() {
    let kernel = kernel();
    let config = config(kernel.path(), "64M");
    let mut console = Console::into_sink(Box::new(std::io::sink())).unwrap();
    let vmm = start(
        &config,
        harness(&Identity),
        &mut console,
        &Confinement::default(),
        &mut Timings::default(),
    )
    .unwrap();
    let reason = vmm.wait(&mut console, RunLimit::Time(LIMIT), None).unwrap();
    assert_eq!(reason, ExitReason::PowerOff { status: 0 });
    assert_eq!(trace::take(), [""; 0]);
    let mut steps = ALL.to_vec();
    steps.insert(1, WORKER);
    assert_eq!(after(vmm.end().torn_down), (steps, ""));
}

fn plan<'a>(config: &'a ValidConfig, identity: &'a dyn Layout) -> Result<Planned<'a>, Error> {
    let (opened, vm) = Inspected::new(config, harness(identity))?.open_kvm()?;
    opened.bind()?.pin()?.plan(vm)
}

#[test]
fn memory_that_cannot_be_pinned_or_laid_out_is_released_in_order() {
    let kernel = kernel();
    // More than the synthetic memory has.
    let large = config(kernel.path(), "64G");
    assert_eq!(after(plan(&large, &Identity)), (ALL.to_vec(), "software"));
    // Too few pieces for two to be swapped.
    let small = config(kernel.path(), "4M");
    assert_eq!(after(plan(&small, &Swapped)), (ALL.to_vec(), "plan"));
}

#[test]
fn memory_that_cannot_be_mapped_or_loaded_into_is_released_in_order() {
    let kernel = kernel();
    let good = config(kernel.path(), "64M");
    // An initramfs that no piece of memory has room for.
    let initramfs = NamedTempFile::new().unwrap();
    initramfs.as_file().set_len(62 << 20).unwrap();
    let unbootable = Config {
        initramfs: Some(initramfs.path().to_owned()),
        ..Config::clone(&good)
    };
    let unbootable = unbootable.validate().unwrap();
    let planned = plan(&unbootable, &Identity).unwrap();
    assert!(planned.boot.obstacle().is_some());
    assert_eq!(after(planned.map()), (ALL.to_vec(), "place"));
    // Low memory's place is taken.
    let planned = plan(&good, &Identity).unwrap();
    let mut mapping = Mapping::reserve(4096, 0).unwrap();
    let page = tempfile::tempfile().unwrap();
    page.set_len(4096).unwrap();
    mapping
        .place(0, FileRange::first(&page, 4096), "a page")
        .unwrap();
    let memslot = planned.vm.map(Gpa(0), Arc::new(mapping)).unwrap();
    assert_eq!(after(planned.map()), (ALL.to_vec(), "vm"));
    drop(memslot);
    // The kernel's file gets shorter after it was opened.
    let mapped = plan(&good, &Identity).unwrap().map().unwrap();
    kernel.as_file().set_len(CODE).unwrap();
    assert_eq!(after(mapped.load()), (ALL.to_vec(), "kernel"));
}

#[test]
fn a_guest_that_does_not_start_gives_everything_back_in_order() {
    let kernel = kernel();
    let config = config(kernel.path(), "64M");
    let planned = plan(&config, &Identity).unwrap();
    let mut loaded = planned.map().unwrap().load().unwrap();
    // Nowhere to put config space.
    loaded.guest.bus.map.as_mut().unwrap().ecam.start = Gpa(1);
    let mut console = Console::into_sink(Box::new(std::io::sink())).unwrap();
    assert_eq!(
        after(loaded.start(&mut console, &Confinement::default())),
        (ALL.to_vec(), "root")
    );
}
