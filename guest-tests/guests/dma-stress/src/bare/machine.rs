// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! From the loader's hands to a machine that is known and mapped.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use core::ptr;

use address::Gpa;
use dma_stress::boot_params::{self, BootParams};
use dma_stress::pci::{self, Function};
use dma_stress::ram::Ram;

use super::ecam::Ecam;
use super::firmware::{self, Platform};
use super::paging::{self, Kind};
use super::{apic, clock, entry, power, smp};

/// Memory that the loader has mapped, besides the image.
const LOW_END: u64 = 1 << 20;
/// Bytes of an APIC's registers.
const APIC_BYTES: u64 = 4096;

/// The machine.
#[derive(Debug)]
pub struct Machine {
    /// The command line.
    pub command_line: String,
    /// Where buffers may be.
    pub ram: Ram,
    /// Numbers of the other processors.
    pub others: Vec<u8>,
    /// Whether they have a place to start at.
    pub has_trampoline: bool,
    /// Configuration space.
    pub ecam: Ecam,
    /// What is on the PCI bus.
    pub functions: Vec<Function>,
    /// Ticks of the time-stamp counter in a millisecond.
    pub ticks_per_ms: u64,
}

impl Machine {
    /// Takes the machine over. Interrupts are off before and after.
    ///
    /// # Errors
    /// What it lacks.
    pub fn take_over(zero_page: u64) -> Result<Self, &'static str> {
        let params = boot_params(zero_page);
        let image = entry::image();
        map_memory(&params.ram, &image);
        let platform = firmware::read(params.rsdp).ok_or("no ACPI tables with processors")?;
        if let Some(port) = platform.sleep_port {
            power::set_sleep_port(port);
        }
        map_apics(&platform);
        let ticks_per_ms = clock::ticks_per_ms();
        apic::init_local();
        let ecam = platform
            .ecam
            .as_ref()
            .ok_or("no memory-mapped configuration space")?;
        paging::map(ecam, Kind::Device);
        // SAFETY: the tables list it, and it was just mapped.
        let ecam = unsafe { Ecam::new(ecam) };
        let functions = pci::scan(&ecam);
        for range in functions.iter().flat_map(Function::memory_bars) {
            paging::map(&range, Kind::Device);
        }
        let mut ram = Ram::new(&params.ram);
        ram.take(Gpa(image.start)..Gpa(image.end));
        let trampoline = smp::TRAMPOLINE;
        // The monitor reserves low memory so that no device gets any; processors may use it.
        let mut low = params.ram.iter().chain(&params.reserved);
        let has_trampoline =
            low.any(|range| range.start <= trampoline.start && trampoline.end <= range.end);
        Ok(Self {
            command_line: params.command_line,
            ram,
            others: others(&platform.processors),
            has_trampoline,
            ecam,
            functions,
            ticks_per_ms,
        })
    }
}

fn boot_params(zero_page: u64) -> BootParams {
    let image = entry::image();
    let read = |gpa: Gpa, into: &mut [u8]| {
        let end = gpa.0.checked_add(into.len() as u64);
        let low = gpa.0 > 0 && end.is_some_and(|end| end <= LOW_END);
        if low && !image.contains(&gpa.0) {
            let from = ptr::with_exposed_provenance::<u8>(gpa.0 as usize);
            // SAFETY: the loader has mapped all memory below 1 MiB, and nothing of ours is there.
            unsafe { ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
        }
        low
    };
    let mut page = [0; boot_params::SIZE];
    read(Gpa(zero_page), &mut page);
    BootParams::parse(&page, read)
}

fn map_memory(ram: &[Range<Gpa>], image: &Range<u64>) {
    paging::init();
    paging::map(&(Gpa(image.start)..Gpa(image.end)), Kind::Ram);
    paging::map(&(Gpa(0)..Gpa(LOW_END)), Kind::Ram);
    for range in ram {
        paging::map(range, Kind::Ram);
    }
    // SAFETY: image and low memory, where the boot data is, are mapped.
    unsafe { paging::load() };
}

fn map_apics(platform: &Platform) {
    let bases = [
        Some(platform.local_apic),
        platform.io_apic.map(|(base, _)| base),
    ];
    for base in bases.into_iter().flatten() {
        paging::map(&(Gpa(base)..Gpa(base + APIC_BYTES)), Kind::Device);
    }
    if platform.has_8259 {
        apic::mask_8259();
    }
    // SAFETY: the tables list them, and they were just mapped.
    unsafe { apic::init(platform.local_apic, platform.io_apic) };
}

/// All processors but this one.
fn others(all: &[u8]) -> Vec<u8> {
    let own = apic::id();
    all.iter().copied().filter(|id| *id != own).collect()
}
