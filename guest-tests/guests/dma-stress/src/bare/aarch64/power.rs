// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The end of the machine.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use address::Gpa;
use smccc::{Hvc, psci};

use super::interrupts;
use crate::bare::mmio::Mmio;

/// Registers of the monitor's: what powers off, and what takes the guest's verdict.
const SLEEP_CONTROL: u64 = 0;
const STATUS: u64 = 3;
const BYTES: u64 = 4;
/// SLP_EN, and SLP_TYP 5 (ACPI 6.5, section 4.8.4.2.1).
const SOFT_OFF: u8 = 1 << 5 | 5 << 2;

static BASE: AtomicU64 = AtomicU64::new(0);

/// Notes where the registers are.
///
/// # Safety
/// They are there, mapped as a device's.
pub unsafe fn found(base: Gpa) {
    BASE.store(base.0, Relaxed);
}

/// Reports the verdict and ends. Where nothing takes it, only the lines before it tell.
pub fn off(verdict: u8) -> ! {
    interrupts::disable();
    let base = BASE.load(Relaxed);
    if base != 0 {
        // SAFETY: as `found`'s caller promised.
        let registers = unsafe { Mmio::new(Gpa(base)..Gpa(base + BYTES)) };
        registers.set8(STATUS, verdict);
        registers.set8(SLEEP_CONTROL, SOFT_OFF);
    }
    let _ = psci::system_off::<Hvc>();
    loop {
        interrupts::hlt();
    }
}
