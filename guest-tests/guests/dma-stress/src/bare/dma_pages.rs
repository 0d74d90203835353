// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory for what devices read and write besides data: queues, lists.

use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;

use address::Gpa;
use dma_stress::dma_address::DmaMap;
use dma_stress::nvme::{Dma, DmaBuffer, PAGE_BYTES};

use super::arch::mmio::dma_barrier;

/// Pages of the heap, which is in RAM that devices reach, as all of the image is.
#[derive(Debug)]
pub struct DmaPages {
    base: *mut u8,
    layout: Layout,
    dma: DmaMap,
}

// SAFETY: the pages are this value's alone.
unsafe impl Send for DmaPages {}

impl DmaPages {
    fn at<T>(&self, offset: usize) -> *mut T {
        let inside = offset.is_multiple_of(size_of::<T>())
            && offset
                .checked_add(size_of::<T>())
                .is_some_and(|end| end <= self.layout.size());
        assert!(inside, "a word outside of its pages");
        self.base.wrapping_add(offset).cast()
    }
}

impl DmaBuffer for DmaPages {
    fn pages(&self) -> usize {
        self.layout.size() / PAGE_BYTES
    }

    fn dma_address(&self, page: usize) -> Option<u64> {
        let inside = page < self.pages();
        let gpa = Gpa(self.base.expose_provenance() as u64 + (page * PAGE_BYTES) as u64);
        let run = inside.then(|| self.dma.address(gpa, PAGE_BYTES as u64))?;
        Some(run.ok()?.start.0)
    }

    fn read32(&self, offset: usize) -> u32 {
        // SAFETY: `at` checked the range; the pages are allocated.
        let value = unsafe { self.at::<u32>(offset).read_volatile() };
        // What it tells may be that the words behind it are there.
        dma_barrier();
        value
    }

    fn write32(&self, offset: usize, value: u32) {
        // SAFETY: as above.
        unsafe { self.at::<u32>(offset).write_volatile(value) };
    }

    fn write64(&self, offset: usize, value: u64) {
        // SAFETY: as above.
        unsafe { self.at::<u64>(offset).write_volatile(value) };
    }
}

impl Drop for DmaPages {
    fn drop(&mut self) {
        // SAFETY: they were allocated with this layout.
        unsafe { dealloc(self.base, self.layout) };
    }
}

/// The heap as a source of such pages.
#[derive(Debug)]
pub struct HeapDma(pub DmaMap);

impl Dma for HeapDma {
    type Buffer = DmaPages;

    fn allocate(&mut self, pages: usize) -> Option<DmaPages> {
        let size = pages.checked_mul(PAGE_BYTES).filter(|size| *size > 0)?;
        let layout = Layout::from_size_align(size, PAGE_BYTES).ok()?;
        // SAFETY: the layout is not empty.
        let base = unsafe { alloc_zeroed(layout) };
        (!base.is_null()).then_some(DmaPages {
            base,
            layout,
            dma: self.0.clone(),
        })
    }
}
