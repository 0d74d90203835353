// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Parses ACPI tables.

use alloc::vec::Vec;
use core::ops::Range;
use core::ptr::{self, NonNull};

use acpi::fadt::Fadt;
use acpi::madt::{Madt, MadtEntry};
use acpi::mcfg::Mcfg;
use acpi::{AcpiHandler, AcpiTables, PhysicalMapping};
use address::Gpa;
use pci_config::regs::ECAM_BUS_SIZE;

use super::paging::{self, Kind};

/// MADT: the processor can be used.
const ENABLED: u32 = 1;

/// The machine.
#[derive(Debug, Default)]
pub struct Platform {
    /// APIC numbers of the processors.
    pub processors: Vec<u8>,
    /// Where local APICs are.
    pub local_apic: u64,
    /// Where the I/O APIC is, and its first interrupt.
    pub io_apic: Option<(u64, u32)>,
    /// Configuration space of bus 0.
    pub ecam: Option<Range<Gpa>>,
    /// Whether there are interrupt controllers from before APICs.
    pub has_8259: bool,
    /// Port of SLEEP_CONTROL_REG.
    pub sleep_port: Option<u16>,
}

/// Reads the tables below the root pointer; `None` if they make no sense.
pub fn read(rsdp: Gpa) -> Option<Platform> {
    paging::map(&(rsdp..rsdp + 4096), Kind::Ram);
    // SAFETY: the loader guarantees the root pointer, and `Tables` maps what it leads to.
    let tables = unsafe { AcpiTables::from_rsdp(Tables, rsdp.0 as usize) }.ok()?;
    let mut platform = Platform::default();
    if let Ok(fadt) = tables.find_table::<Fadt>() {
        platform.sleep_port = fadt
            .sleep_control_register()
            .ok()
            .flatten()
            .and_then(|register| u16::try_from(register.address).ok())
            .filter(|port| *port != 0);
    }
    if let Ok(mcfg) = tables.find_table::<Mcfg>() {
        platform.ecam = mcfg
            .entries()
            .iter()
            .find(|entry| entry.pci_segment_group == 0 && entry.bus_number_start == 0)
            .and_then(|entry| Gpa(entry.base_address).span(ECAM_BUS_SIZE));
    }
    let madt = tables.find_table::<Madt>().ok()?;
    platform.local_apic = u64::from(madt.get().local_apic_address);
    platform.has_8259 = madt.get().supports_8259();
    for entry in madt.get().entries() {
        match entry {
            MadtEntry::LocalApic(cpu) if cpu.flags & ENABLED != 0 => {
                platform.processors.push(cpu.apic_id);
            }
            MadtEntry::IoApic(io) if platform.io_apic.is_none() => {
                let first = io.global_system_interrupt_base;
                platform.io_apic = Some((u64::from(io.io_apic_address), first));
            }
            _ => (),
        }
    }
    Some(platform)
}

/// Access for the table reader.
#[derive(Clone, Debug)]
struct Tables;

impl AcpiHandler for Tables {
    unsafe fn map_physical_region<T>(
        &self,
        physical_address: usize,
        size: usize,
    ) -> PhysicalMapping<Self, T> {
        let start = Gpa(physical_address as u64);
        paging::map(&(start..start + size as u64), Kind::Ram);
        let pointer = ptr::with_exposed_provenance_mut(physical_address);
        let pointer = NonNull::new(pointer).unwrap_or(NonNull::dangling());
        // SAFETY: the region was just mapped at its own address.
        unsafe { PhysicalMapping::new(physical_address, pointer, size, size, Self) }
    }

    fn unmap_physical_region<T>(_: &PhysicalMapping<Self, T>) {}
}
