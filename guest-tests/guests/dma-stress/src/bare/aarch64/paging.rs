// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Page tables that map everything at its own address: RAM and all that a device decodes.

use core::arch::asm;
use core::ops::Range;

use aarch64_paging::descriptor::El1Attributes;
use aarch64_paging::idmap::IdMap;
use aarch64_paging::paging::{El1And0, MemoryRegion};
use address::Gpa;
use spin::Mutex;

/// Tables begin at this level for addresses of 48 bits.
const ROOT_LEVEL: usize = 0;

/// What is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RAM, cached.
    Ram,
    /// Registers, not cached.
    Device,
}

static TABLES: Mutex<Option<IdMap<El1And0>>> = Mutex::new(None);

/// Begins tables of our own, in which nothing is mapped.
pub fn init() {
    *TABLES.lock() = Some(IdMap::with_asid(0, ROOT_LEVEL, El1And0));
}

/// Lets this processor use the tables.
///
/// # Safety
/// They map all that is in use: the image.
pub unsafe fn load() {
    if let Some(tables) = TABLES.lock().as_mut() {
        // SAFETY: as the caller promises.
        unsafe { tables.activate() };
        // SAFETY: this only forgets what the first tables had.
        unsafe { asm!("tlbi vmalle1", "dsb nsh", "isb", options(nostack)) };
    }
}

/// Maps `range` at its own address, in the largest possible pages. What is mapped can be mapped again, as the same kind.
/// To be called by the first processor only while no other runs.
pub fn map(range: &Range<Gpa>, kind: Kind) {
    // What `entry` gave the two indices.
    let mut flags = El1Attributes::VALID | El1Attributes::ACCESSED | El1Attributes::INNER_SHAREABLE;
    flags |= match kind {
        Kind::Ram => El1Attributes::ATTRIBUTE_INDEX_1,
        Kind::Device => El1Attributes::ATTRIBUTE_INDEX_0 | El1Attributes::PXN | El1Attributes::UXN,
    };
    let region = MemoryRegion::new(range.start.0 as usize, range.end.0 as usize);
    if let Some(tables) = TABLES.lock().as_mut() {
        let mapped = tables.map_range(&region, flags);
        assert!(mapped.is_ok(), "cannot map {range:x?}: {mapped:?}");
    }
}
