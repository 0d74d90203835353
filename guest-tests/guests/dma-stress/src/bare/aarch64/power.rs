// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The end of the machine.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use address::Gpa;
use smccc::{Hvc, psci};

use super::interrupts;
use crate::bare::mmio::Mmio;

/// The monitor's register that powers off, and what of the same word takes the guest's verdict.
const SLEEP_CONTROL: u64 = 0;
const STATUS_SHIFT: u32 = 24;
const BYTES: u64 = 4;
/// SLP_EN, and SLP_TYP 5 (ACPI 6.5, section 4.8.4.2.1).
const SOFT_OFF: u32 = 1 << 5 | 5 << 2;

static BASE: AtomicU64 = AtomicU64::new(0);

/// Notes where the registers are.
///
/// # Safety
/// They are there, mapped as a device's.
pub unsafe fn found(base: Gpa) {
    BASE.store(base.0, Relaxed);
}

/// Reports the verdict and ends. Where nothing takes it, only the lines before it tell, if there is a serial port.
pub fn off(verdict: u8) -> ! {
    interrupts::disable();
    let base = BASE.load(Relaxed);
    if base != 0 {
        // SAFETY: as `found`'s caller promised.
        let registers = unsafe { Mmio::new(Gpa(base)..Gpa(base + BYTES)) };
        registers.set32(SLEEP_CONTROL, SOFT_OFF | u32::from(verdict) << STATUS_SHIFT);
    }
    let _ = psci::system_off::<Hvc>();
    loop {
        interrupts::hlt();
    }
}
