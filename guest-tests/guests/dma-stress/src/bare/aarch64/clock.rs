// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The virtual counter of the architected timer, and the timer that ends sleeps.

use core::arch::asm;

/// How often the timer ends a sleep.
const TICK_MS: u64 = 10;

/// The counter.
pub fn now() -> u64 {
    let ticks: u64;
    // SAFETY: reading the register has no effect.
    unsafe { asm!("isb", "mrs {}, cntvct_el0", out(reg) ticks, options(nostack)) };
    ticks
}

/// Its ticks in a millisecond.
pub fn ticks_per_ms() -> u64 {
    let frequency: u64;
    // SAFETY: reading the register has no effect.
    unsafe { asm!("mrs {}, cntfrq_el0", out(reg) frequency, options(nomem, nostack)) };
    (frequency / 1000).max(1)
}

/// Executes `2 * turns` instructions in a loop; `turns` is not 0.
pub fn count_down(turns: u64) {
    // SAFETY: a register is counted down; nothing else changes but flags.
    unsafe {
        asm!("2: subs {0}, {0}, #1", "b.ne 2b", inout(reg) turns => _, options(nomem, nostack));
    }
}

/// Lets this processor's timer interrupt once, in a while.
pub fn set_timer() {
    let ticks = ticks_per_ms() * TICK_MS;
    // SAFETY: the timer does nothing but interrupt.
    unsafe {
        asm!("msr cntv_tval_el0, {}", "msr cntv_ctl_el0, {}", in(reg) ticks, in(reg) 1_u64, options(nomem, nostack));
    }
}
