// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Registers in memory.

use core::ops::Range;

use address::Gpa;
use dma_stress::device::pci_testdev::Space;
use dma_stress::hostile::Stores;
use dma_stress::registers::Registers;

use super::arch::mmio;

/// A device's memory-mapped registers.
#[derive(Clone, Copy, Debug)]
pub struct Mmio {
    base: usize,
    size: u64,
}

macro_rules! access {
    ($($read:ident $write:ident $type:ty),*) => {$(
        /// Reads one register.
        pub fn $read(&self, offset: u64) -> $type {
            // SAFETY: `at` checked the range, and `new`'s caller vouches for it.
            unsafe { mmio::read(self.at(offset, size_of::<$type>())) }
        }
        /// Writes one register.
        pub fn $write(&self, offset: u64, value: $type) {
            // SAFETY: `at` checked the range, and `new`'s caller vouches for it.
            unsafe { mmio::write(self.at(offset, size_of::<$type>()), value) };
        }
    )*};
}

impl Mmio {
    /// The registers in `range`.
    ///
    /// # Safety
    /// It is mapped at its own address, uncached, and is a device's.
    pub unsafe fn new(range: Range<Gpa>) -> Self {
        Self {
            base: range.start.0 as usize,
            size: range.end - range.start,
        }
    }

    /// The address of `width` bytes at `offset`.
    fn at(&self, offset: u64, width: usize) -> usize {
        let inside = offset.is_multiple_of(width as u64)
            && offset
                .checked_add(width as u64)
                .is_some_and(|end| end <= self.size);
        assert!(inside, "a register outside of its device");
        self.base + offset as usize
    }

    access!(get8 set8 u8, get16 set16 u16, get32 set32 u32, get64 set64 u64);
}

impl Stores for Mmio {
    fn store(&self, offset: u64, width: u8, value: u64) {
        assert!(
            offset.checked_add(8).is_some_and(|end| end <= self.size),
            "a register outside of its device"
        );
        // SAFETY: the range was just checked, and `new`'s caller vouches for it.
        unsafe { mmio::store(self.base + offset as usize, width, value) };
    }

    fn load(&self, offset: u64) -> u64 {
        self.get64(offset)
    }
}

impl Registers for Mmio {
    fn read32(&self, offset: u64) -> u32 {
        self.get32(offset)
    }
    fn write32(&self, offset: u64, value: u32) {
        self.set32(offset, value);
    }
    fn read64(&self, offset: u64) -> u64 {
        self.get64(offset)
    }
    fn write64(&self, offset: u64, value: u64) {
        self.set64(offset, value);
    }
}

impl Space for Mmio {
    fn read(&self, offset: u64, width: u8) -> u32 {
        match width {
            1 => self.get8(offset).into(),
            2 => self.get16(offset).into(),
            _ => self.get32(offset),
        }
    }

    fn write(&self, offset: u64, width: u8, value: u32) {
        match width {
            1 => self.set8(offset, value as u8),
            2 => self.set16(offset, value as u16),
            _ => self.set32(offset, value),
        }
    }
}
