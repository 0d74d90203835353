// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory and time of a machine that exists in these tests only.

use core::cell::{Cell, RefCell};
use std::boxed::Box;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;

use crate::nvme::{Clock, Dma, DmaBuffer, PAGE_BYTES};

const PAGE: u64 = PAGE_BYTES as u64;

/// What unused memory holds: never 0, so that reading too far shows.
pub(super) const POISON: u8 = 0xa5;

/// Pages by the address that a device uses.
#[derive(Debug, Default)]
struct Pages {
    pages: BTreeMap<u64, Box<[u8; PAGE_BYTES]>>,
    /// Grows with each page; scattered into an address.
    next: u64,
    given_back: usize,
}

/// The machine's memory, shared by driver and device.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory(Rc<RefCell<Pages>>);

impl Memory {
    /// `count` pages full of `fill`, in no order, with holes around each.
    pub(super) fn pages(&self, count: usize, fill: u8) -> Buffer {
        let mut memory = self.0.borrow_mut();
        let pages = (0..count)
            .map(|_| {
                memory.next += 1;
                // An odd factor permutes the 30-bit page numbers; every second one is free.
                let number = memory.next.wrapping_mul(0x2545_f491) & 0x3fff_ffff;
                let address = (0x1_0000_0000 + 2 * number) * PAGE;
                assert!(
                    memory
                        .pages
                        .insert(address, Box::new([fill; PAGE_BYTES]))
                        .is_none()
                );
                address
            })
            .collect();
        Buffer {
            memory: self.clone(),
            pages,
        }
    }

    /// Reads for the device. A range that is not in allocated pages is the driver's error.
    pub(super) fn read(&self, address: u64, mut into: &mut [u8]) {
        let memory = self.0.borrow();
        let mut at = address;
        while !into.is_empty() {
            let start = (at % PAGE) as usize;
            let (here, rest) = into.split_at_mut(into.len().min(PAGE_BYTES - start));
            let page = memory.pages.get(&(at - at % PAGE));
            let page = page.unwrap_or_else(|| panic!("the device was sent to read {at:#x}"));
            here.copy_from_slice(&page[start..start + here.len()]);
            (at, into) = (at + here.len() as u64, rest);
        }
    }

    /// Writes for the device, as [`read`](Self::read).
    pub(super) fn write(&self, address: u64, mut from: &[u8]) {
        let mut memory = self.0.borrow_mut();
        let mut at = address;
        while !from.is_empty() {
            let start = (at % PAGE) as usize;
            let (here, rest) = from.split_at(from.len().min(PAGE_BYTES - start));
            let page = memory.pages.get_mut(&(at - at % PAGE));
            let page = page.unwrap_or_else(|| panic!("the device was sent to write {at:#x}"));
            page[start..start + here.len()].copy_from_slice(here);
            (at, from) = (at + here.len() as u64, rest);
        }
    }

    /// How many pages there are.
    pub(super) fn in_use(&self) -> usize {
        self.0.borrow().pages.len()
    }

    /// Number of pages that were freed.
    pub(super) fn given_back(&self) -> usize {
        self.0.borrow().given_back
    }
}

/// Some pages; dropping it gives them back.
#[derive(Debug)]
pub(super) struct Buffer {
    memory: Memory,
    pub(super) pages: Vec<u64>,
}

impl Buffer {
    fn address(&self, offset: usize) -> u64 {
        self.pages[offset / PAGE_BYTES] + (offset % PAGE_BYTES) as u64
    }

    /// All bytes, page after page.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = std::vec![0; self.pages.len() * PAGE_BYTES];
        for (chunk, page) in bytes.chunks_mut(PAGE_BYTES).zip(&self.pages) {
            self.memory.read(*page, chunk);
        }
        bytes
    }

    /// Sets the bytes from `offset` on, which may go over pages.
    pub(super) fn set(&self, mut offset: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = PAGE_BYTES - offset % PAGE_BYTES;
            let (here, rest) = bytes.split_at(bytes.len().min(room));
            self.memory.write(self.address(offset), here);
            (offset, bytes) = (offset + here.len(), rest);
        }
    }
}

impl DmaBuffer for Buffer {
    fn pages(&self) -> usize {
        self.pages.len()
    }
    fn dma_address(&self, page: usize) -> Option<u64> {
        self.pages.get(page).copied()
    }
    fn read32(&self, offset: usize) -> u32 {
        assert!(offset.is_multiple_of(4));
        let mut bytes = [0; 4];
        self.memory.read(self.address(offset), &mut bytes);
        u32::from_le_bytes(bytes)
    }
    fn write32(&self, offset: usize, value: u32) {
        assert!(offset.is_multiple_of(4));
        self.memory
            .write(self.address(offset), &value.to_le_bytes());
    }
    fn write64(&self, offset: usize, value: u64) {
        assert!(offset.is_multiple_of(8));
        self.memory
            .write(self.address(offset), &value.to_le_bytes());
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut memory = self.memory.0.borrow_mut();
        for page in &self.pages {
            memory.pages.remove(page);
            memory.given_back += 1;
        }
    }
}

/// Hands out pages of zeros until `left` is used up.
#[derive(Debug)]
pub(super) struct Allocator {
    pub(super) memory: Memory,
    pub(super) left: usize,
}

impl Dma for Allocator {
    type Buffer = Buffer;

    fn allocate(&mut self, pages: usize) -> Option<Buffer> {
        self.left = self.left.checked_sub(pages)?;
        Some(self.memory.pages(pages, 0))
    }
}

/// A millisecond passes with every look at it.
#[derive(Debug, Default)]
pub(super) struct Ticking(Cell<u64>);

impl Clock for Ticking {
    fn ticks(&self) -> u64 {
        self.0.set(self.0.get() + 1);
        assert!(self.0.get() < 10_000_000, "the driver waits for ever");
        self.0.get()
    }
    fn ticks_per_ms(&self) -> u64 {
        1
    }
}
