// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Page tables that map everything at its own address: RAM and all that a device decodes.

use alloc::alloc::alloc_zeroed;
use core::alloc::Layout;
use core::arch::x86_64::__cpuid;
use core::ops::Range;
use core::ptr;

use address::Gpa;
use spin::Mutex;
use x86_64::structures::paging::mapper::MapToError;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, PageTable, PageTableFlags, PhysFrame, Size1GiB,
    Size2MiB, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

const LARGE: u64 = 2 << 20;
const GIANT: u64 = 1 << 30;

/// What is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RAM, cached.
    Ram,
    /// Registers, not cached.
    Device,
}

static TABLES: Mutex<Option<OffsetPageTable<'static>>> = Mutex::new(None);

/// Pages for tables, from the heap: it is mapped from the start.
struct Pages;

// SAFETY: each page is allocated for this, and never freed.
unsafe impl FrameAllocator<Size4KiB> for Pages {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let page = Layout::from_size_align(4096, 4096).ok()?;
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc_zeroed(page) };
        let address = PhysAddr::new(memory.expose_provenance() as u64);
        (!memory.is_null()).then(|| PhysFrame::containing_address(address))
    }
}

/// Begins tables of our own, in which nothing is mapped.
pub fn init() {
    let root = Pages
        .allocate_frame()
        .map_or(0, |frame| frame.start_address().as_u64());
    assert!(root != 0, "no memory for page tables");
    let root = ptr::with_exposed_provenance_mut::<PageTable>(root as usize);
    // SAFETY: the page is zeroed, which is an empty table, and used by nothing else; all tables are
    // pages of the heap, where virtual is physical.
    let tables = unsafe { OffsetPageTable::new(&mut *root, VirtAddr::zero()) };
    *TABLES.lock() = Some(tables);
}

/// The root, for CR3.
pub fn root() -> u64 {
    let mut tables = TABLES.lock();
    tables.as_mut().map_or(0, |tables| {
        ptr::from_mut(tables.level_4_table_mut()).addr() as u64
    })
}

/// Lets this processor use the tables.
///
/// # Safety
/// They map all that is in use: the image, the boot data.
pub unsafe fn load() {
    use x86_64::registers::control::{Cr3, Cr3Flags};
    let frame = PhysFrame::containing_address(PhysAddr::new(root()));
    // SAFETY: as the caller promises.
    unsafe { Cr3::write(frame, Cr3Flags::empty()) };
}

/// CPUID 0x80000001, EDX bit 26.
fn has_giant_pages() -> bool {
    __cpuid(0x8000_0000).eax >= 0x8000_0001 && __cpuid(0x8000_0001).edx >> 26 & 1 != 0
}

/// Maps `range` at its own address, in the largest possible pages; existing mappings are not
/// changed. To be called by the first processor only while no other runs.
pub fn map(range: &Range<Gpa>, kind: Kind) {
    let mut flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE;
    if kind == Kind::Device {
        flags |= PageTableFlags::NO_CACHE | PageTableFlags::WRITE_THROUGH;
    }
    let giant = has_giant_pages();
    let mut tables = TABLES.lock();
    let Some(tables) = tables.as_mut() else {
        return;
    };
    let mut at = range.start.align_down(LARGE).0;
    while at < range.end.0 {
        if giant && at.is_multiple_of(GIANT) && range.end.0 - at >= GIANT {
            let frame = PhysFrame::<Size1GiB>::containing_address(PhysAddr::new(at));
            // SAFETY: memory at its own address is what every pointer here expects.
            let mapped = unsafe { tables.identity_map(frame, flags, &mut Pages) };
            if let Ok(flush) = mapped {
                flush.ignore();
                at += GIANT;
                continue;
            }
        }
        let frame = PhysFrame::<Size2MiB>::containing_address(PhysAddr::new(at));
        // SAFETY: as above.
        match unsafe { tables.identity_map(frame, flags, &mut Pages) } {
            Ok(flush) => flush.ignore(),
            Err(error) => assert!(
                !matches!(error, MapToError::FrameAllocationFailed),
                "no memory for page tables"
            ),
        }
        at += LARGE;
    }
}
