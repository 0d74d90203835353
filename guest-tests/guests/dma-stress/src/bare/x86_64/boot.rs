// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a PC is, as the loader and ACPI tell.

use alloc::vec::Vec;
use core::ops::Range;
use core::ptr;

use address::Gpa;
use dma_stress::boot_params::{self, BootParams};
use dma_stress::pci::Function;

use super::firmware::{self, Platform};
use super::paging::{self, Kind};
use super::smp::{self, Starter};
use super::{apic, entry, power};
use crate::bare::machine::Booted;

/// Memory that the loader has mapped, besides the image.
const LOW_END: u64 = 1 << 20;
/// Bytes of an APIC's registers.
const APIC_BYTES: u64 = 4096;
/// An interrupt line that is connected to nothing.
const NO_LINE: u8 = 0xff;

/// Which interrupts functions raise: config space has it.
#[derive(Debug)]
pub struct Lines;

impl Lines {
    /// The interrupt that the function's pin raises.
    pub fn of(&self, function: &Function) -> Option<u8> {
        let line = function.line;
        (function.pin != 0 && line != NO_LINE).then_some(line)
    }
}

/// Maps the machine, whose zero page is given.
///
/// # Errors
/// What it lacks.
pub fn take_over(zero_page: u64) -> Result<Booted, &'static str> {
    let params = boot_params(zero_page);
    let image = entry::image();
    map_memory(&params.ram, &image);
    let platform = firmware::read(params.rsdp).ok_or("no ACPI tables with processors")?;
    if let Some(port) = platform.sleep_port {
        power::set_sleep_port(port);
    }
    map_apics(&platform);
    let trampoline = smp::TRAMPOLINE;
    // The monitor reserves low memory so that no device gets any; processors may use it.
    let mut low = params.ram.iter().chain(&params.reserved);
    let has_trampoline =
        low.any(|range| range.start <= trampoline.start && trampoline.end <= range.end);
    let others = match has_trampoline {
        // SAFETY: the memory map has the trampoline's pages, below 1 MiB, where no buffer is; the
        // boot data was read.
        true => Ok((unsafe { Starter::new() }, others(&platform.processors))),
        false => Err("no memory to start other processors in"),
    };
    Ok(Booted {
        command_line: params.command_line,
        memory: params.ram,
        others,
        ecam: platform
            .ecam
            .ok_or("no memory-mapped configuration space")?,
        lines: Lines,
    })
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
