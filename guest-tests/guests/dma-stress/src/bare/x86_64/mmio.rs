// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Accesses of registers in memory, each a single instruction.

use core::arch::asm;
use core::ptr;
use core::sync::atomic::{Ordering::SeqCst, compiler_fence};

/// Reads one.
///
/// # Safety
/// There is one of this width at `address`, mapped uncached.
pub unsafe fn read<T>(address: usize) -> T {
    // SAFETY: as the caller promises.
    unsafe { ptr::with_exposed_provenance::<T>(address).read_volatile() }
}

/// Writes one.
///
/// # Safety
/// As [`read`]'s.
pub unsafe fn write<T>(address: usize, value: T) {
    // SAFETY: as the caller promises.
    unsafe { ptr::with_exposed_provenance_mut::<T>(address).write_volatile(value) };
}

/// Stores `width` bytes of `value` in one instruction, at any address.
///
/// # Safety
/// There are registers from `address` on, mapped uncached.
pub unsafe fn store(address: usize, width: u8, value: u64) {
    // SAFETY: as the caller promises. No alignment is needed.
    unsafe {
        match width {
            1 => asm!("mov [{}], {:l}", in(reg) address, in(reg_abcd) value, options(nostack)),
            2 => asm!("mov [{}], {:x}", in(reg) address, in(reg) value, options(nostack)),
            4 => asm!("mov [{}], {:e}", in(reg) address, in(reg) value, options(nostack)),
            _ => asm!("mov [{}], {:r}", in(reg) address, in(reg) value, options(nostack)),
        }
    }
}

/// Orders what this processor does with memory before it before what it does after it, as devices see it. The processor
/// keeps the order of loads and of stores itself (Intel SDM volume 3, section 10.2).
pub fn dma_barrier() {
    compiler_fence(SeqCst);
}
