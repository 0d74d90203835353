// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Registers in memory.

use core::arch::asm;
use core::ops::Range;
use core::ptr;

use address::Gpa;
use dma_stress::hostile::Stores;
use dma_stress::registers::Registers;

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
            let at = ptr::with_exposed_provenance::<$type>(self.at(offset, size_of::<$type>()));
            // SAFETY: `at` checked the range, and `new`'s caller vouches for it.
            unsafe { at.read_volatile() }
        }
        /// Writes one register.
        pub fn $write(&self, offset: u64, value: $type) {
            let at = ptr::with_exposed_provenance_mut::<$type>(self.at(offset, size_of::<$type>()));
            // SAFETY: `at` checked the range, and `new`'s caller vouches for it.
            unsafe { at.write_volatile(value) };
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
        let at = self.base + offset as usize;
        // SAFETY: the range was just checked, and `new`'s caller vouches for it. These are single
        // instructions for which no alignment is needed.
        unsafe {
            match width {
                1 => asm!("mov [{}], {:l}", in(reg) at, in(reg_abcd) value, options(nostack)),
                2 => asm!("mov [{}], {:x}", in(reg) at, in(reg) value, options(nostack)),
                4 => asm!("mov [{}], {:e}", in(reg) at, in(reg) value, options(nostack)),
                _ => asm!("mov [{}], {:r}", in(reg) at, in(reg) value, options(nostack)),
            }
        }
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
