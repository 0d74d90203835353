// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The layout of the first MiB of guest-physical memory.
//!
//! It cannot be identity memory, since the host's own first MiB is in use. It is ordinary memory
//! that no driver may get as a DMA buffer: it is described to the guest so that none does
//! (`builder::low_memory`), and memory is not in so many pieces that Linux would use some of it all
//! the same ([`SAFE_RAM_PIECES`](super::e820::SAFE_RAM_PIECES)). It holds what the guest needs
//! before its memory map is known.
//!
//! ```text
//! 0x00500  GDT
//! 0x07000  zero page
//! 0x08000  page tables
//! 0x20000  command line
//! 0x30000  setup_data: memory map entries beyond 128
//! 0xa0000  end of what the guest may use as memory, even where the map calls it reserved
//! 0xe0000  RSDP, ACPI tables
//! 0xffff0  reset vector
//! ```

use std::fs::File;
use std::ops::Range;

use address::Gpa;
use rustix::fs::MemfdFlags;

use super::e820::{Entry, Kind};

/// Bytes in all.
pub const SIZE: u64 = 1 << 20;
/// Address of the GDT.
pub const GDT: Gpa = Gpa(0x500);
/// Address of the zero page.
pub const ZERO_PAGE: Gpa = Gpa(0x7000);
/// Room for page tables.
pub const PAGE_TABLES: Range<Gpa> = Gpa(0x8000)..Gpa(0x2_0000);
/// Room for the command line.
pub const COMMAND_LINE: Range<Gpa> = Gpa(0x2_0000)..Gpa(0x3_0000);
/// Room for setup_data.
pub const SETUP_DATA: Range<Gpa> = Gpa(0x3_0000)..Gpa(0x4_8000);
/// End of what the memory map calls RAM.
pub const RAM_END: Gpa = Gpa(0xa_0000);
/// Room for ACPI tables, where kernels also search for the RSDP.
pub const ACPI: Range<Gpa> = Gpa(0xe_0000)..Gpa(0xf_0000);
/// Where a CPU in real mode goes to restart the machine: F000:FFF0.
pub const RESET_VECTOR: Gpa = Gpa(0xf_fff0);

/// The memory itself, cleared. `None` where an architecture has none.
///
/// # Errors
/// The errno of `memfd_create` or `ftruncate`.
pub fn allocate() -> std::io::Result<Option<File>> {
    let file = File::from(rustix::fs::memfd_create("low-memory", MemfdFlags::CLOEXEC)?);
    file.set_len(SIZE)?;
    Ok(Some(file))
}

/// How the memory map describes it, with `kind` for what may be used as memory.
#[must_use]
pub fn memory_map(kind: Kind) -> [Entry; 2] {
    [
        Entry {
            range: Gpa(0)..RAM_END,
            kind,
        },
        Entry {
            range: ACPI.start..Gpa(SIZE),
            kind: Kind::Reserved,
        },
    ]
}
