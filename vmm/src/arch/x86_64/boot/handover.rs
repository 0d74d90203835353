// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a kernel is given at its entry, besides its own image: command line, memory map, tables.

use std::ops::Range;

use address::Gpa;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::kernel_file::Protocol;
use super::low_memory::LowMemoryUse;
use super::memory_map::memory_map;
use super::params::BootInfo;
use super::start_info;
use crate::arch::ArchError;
use crate::arch::x86_64::acpi::Platform;
use crate::arch::x86_64::page_tables::IdentityTables;
use crate::arch::x86_64::{entry, low, reset_vector};
use crate::boot::LoadError;
use crate::boot::place::Placement;
use crate::memory::LayoutError;
use crate::memory::plan::MemoryPlan;

/// A guest whose kernel is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Handover<'a> {
    /// Its memory.
    pub memory: &'a GuestMemoryMmap,
    /// Where RAM is in it.
    pub plan: &'a MemoryPlan,
    /// What the first MiB is called.
    pub low: LowMemoryUse,
    /// Its CPUs and buses.
    pub platform: &'a Platform,
    /// The kernel's command line.
    pub command_line: &'a str,
}

/// State of a CPU that starts the kernel.
#[derive(Clone, Debug)]
pub struct Start {
    /// How it enters the kernel.
    pub entry: entry::Entry,
    /// The kernel's own memory.
    pub image: Range<Gpa>,
}

impl Handover<'_> {
    /// Writes what the kernel at `placement` is given, which is entered at `at` by `protocol`.
    ///
    /// # Errors
    /// [`ArchError`]
    pub fn write(
        self,
        placement: Placement,
        at: Gpa,
        protocol: Protocol<'_>,
    ) -> Result<Start, ArchError> {
        let Self { memory, low, .. } = self;
        let start = placement.kernel.start;
        let memory_map = memory_map(self.plan, self.platform.bus.as_ref(), start, low);
        let memory_map = memory_map.map_err(LayoutError::from)?;
        let info = BootInfo {
            memory_map: &memory_map,
            initramfs: placement.initramfs,
            command_line: &low.command_line(self.command_line),
            rsdp: self.platform.write(memory)?,
        };
        entry::write_gdt(memory)?;
        reset_vector::write(memory, self.platform.power).map_err(|source| LoadError {
            what: "the reset vector",
            source: source.into(),
        })?;
        let entry = match protocol {
            Protocol::Linux64(header) => {
                info.write(header, memory)?;
                let page_tables = write_page_tables(memory, &placement.kernel)?;
                entry::Entry::Linux64 { at, page_tables }
            }
            Protocol::Pvh => {
                start_info::write(&info, memory)?;
                entry::Entry::Pvh { at }
            }
        };
        Ok(Start {
            entry,
            image: placement.kernel,
        })
    }
}

/// Page tables that map low memory and the kernel, as the boot protocol requires.
fn write_page_tables(memory: &GuestMemoryMmap, kernel: &Range<Gpa>) -> Result<Gpa, ArchError> {
    let mut tables = IdentityTables::new(low::PAGE_TABLES);
    tables.map(&(Gpa(0)..Gpa(low::SIZE)))?;
    tables.map(kernel)?;
    memory
        .write_slice(&tables.bytes(), GuestAddress(tables.root().0))
        .map_err(|source| LoadError {
            what: "page tables",
            source: source.into(),
        })?;
    Ok(tables.root())
}
