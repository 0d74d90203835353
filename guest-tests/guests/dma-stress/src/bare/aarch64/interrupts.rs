// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether this processor takes interrupts.

use core::arch::asm;

/// It does.
pub fn enable() {
    // SAFETY: everything that they need is set up before this is called, as on every architecture.
    unsafe { asm!("msr daifclr, #2", options(nostack)) };
}

/// It does not.
pub fn disable() {
    // SAFETY: this only keeps them away.
    unsafe { asm!("msr daifset, #2", options(nostack)) };
}

/// Waits for an interrupt, which ends the wait even while this processor takes none.
pub fn hlt() {
    // SAFETY: it changes nothing.
    unsafe { asm!("wfi", options(nostack)) };
}

/// Waits for an interrupt and takes it: none is lost between the two.
pub fn enable_and_hlt() {
    disable();
    hlt();
    enable();
}
