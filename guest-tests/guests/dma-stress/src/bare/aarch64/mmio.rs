// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Accesses of registers in memory, each a single instruction of the kind that KVM can emulate: one without a change of
//! the address (Arm ARM, ESR_ELx.ISV).

use core::arch::asm;

/// What a register can hold.
pub trait Word: Copy {
    /// Loads one.
    ///
    /// # Safety
    /// There is one of this width at `address`, mapped as a device's.
    unsafe fn load(address: usize) -> Self;
    /// Stores one.
    ///
    /// # Safety
    /// As [`Word::load`]'s.
    unsafe fn store(self, address: usize);
}

macro_rules! word {
    ($($type:ty, $load:literal, $store:literal, $register:literal;)*) => {$(
        impl Word for $type {
            unsafe fn load(address: usize) -> Self {
                let value: u64;
                // SAFETY: as the caller promises.
                unsafe {
                    asm!(concat!($load, " {0:", $register, "}, [{1}]"), out(reg) value, in(reg) address, options(nostack));
                }
                value as Self
            }

            unsafe fn store(self, address: usize) {
                // SAFETY: as the caller promises.
                unsafe {
                    asm!(concat!($store, " {0:", $register, "}, [{1}]"), in(reg) u64::from(self), in(reg) address, options(nostack));
                }
            }
        }
    )*};
}

word! {
    u8, "ldrb", "strb", "w";
    u16, "ldrh", "strh", "w";
    u32, "ldr", "str", "w";
    u64, "ldr", "str", "x";
}

/// Reads one. What was written to memory before the device set it is seen after it.
///
/// # Safety
/// There is one of this width at `address`, mapped as a device's.
pub unsafe fn read<T: Word>(address: usize) -> T {
    // SAFETY: as the caller promises.
    let value = unsafe { T::load(address) };
    dma_barrier();
    value
}

/// Writes one. The device sees after it what was written to memory before.
///
/// # Safety
/// As [`read`]'s.
pub unsafe fn write<T: Word>(address: usize, value: T) {
    dma_barrier();
    // SAFETY: as the caller promises.
    unsafe { value.store(address) };
}

/// Stores `width` bytes of `value` in one instruction, if `address` is a multiple of `width`: a device's memory allows no
/// other (Arm ARM, B2.13.2), so nothing else reaches the monitor.
///
/// # Safety
/// There are registers from `address` on, mapped as a device's.
pub unsafe fn store(address: usize, width: u8, value: u64) {
    if !address.is_multiple_of(usize::from(width)) {
        return;
    }
    // SAFETY: as the caller promises.
    unsafe {
        match width {
            1 => write(address, value as u8),
            2 => write(address, value as u16),
            4 => write(address, value as u32),
            _ => write(address, value),
        }
    }
}

/// Orders what this processor does with memory and registers before it before what it does after it, as devices see it.
pub fn dma_barrier() {
    // SAFETY: it changes nothing.
    unsafe { asm!("dmb osh", options(nostack, preserves_flags)) };
}
