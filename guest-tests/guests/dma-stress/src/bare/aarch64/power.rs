// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The end of the machine.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use address::Gpa;
use smccc::{Hvc, psci};

use super::interrupts;
use crate::bare::end::{SOFT_OFF, halt};
use crate::bare::mmio::Mmio;

/// The monitor's register that powers off, and what of the same word takes the guest's verdict.
const SLEEP_CONTROL: u64 = 0;
const STATUS_SHIFT: u32 = 24;
const BYTES: u64 = 4;

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
        let word = u32::from(SOFT_OFF) | u32::from(verdict) << STATUS_SHIFT;
        registers.set32(SLEEP_CONTROL, word);
    }
    let _ = psci::system_off::<Hvc>();
    halt()
}
