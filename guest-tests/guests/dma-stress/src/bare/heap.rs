// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The heap: a part of the image, so that it needs no memory map.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::{self, NonNull};

use linked_list_allocator::Heap;
use spin::Mutex;

/// Enough for tables that map 256 GiB of RAM in 2 MiB pages, and small enough for the image to
/// fit a single large page.
const SIZE: usize = 1536 << 10;

#[repr(align(4096))]
struct Memory(UnsafeCell<[u8; SIZE]>);

// SAFETY: only the allocator refers to it.
unsafe impl Sync for Memory {}

static MEMORY: Memory = Memory(UnsafeCell::new([0; SIZE]));

struct Allocator(Mutex<Heap>);

#[global_allocator]
static ALLOCATOR: Allocator = Allocator(Mutex::new(Heap::empty()));

/// Sets the heap up. To be called once, before anything is allocated.
pub fn init() {
    // SAFETY: the memory is static and used by nothing else, and this runs once.
    unsafe { ALLOCATOR.0.lock().init(MEMORY.0.get().cast(), SIZE) };
}

// SAFETY: `Heap` is an allocator; interrupt handlers do not allocate, so the lock does not deadlock.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let found = self.0.lock().allocate_first_fit(layout);
        found.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if let Some(memory) = NonNull::new(memory) {
            // SAFETY: the caller promises that it came from `alloc` with this layout.
            unsafe { self.0.lock().deallocate(memory, layout) };
        }
    }
}
