// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The processor's time stamp counter, on aarch64 the virtual count of its timer.

use std::thread;
use std::time::{Duration, Instant};

/// Ticks since the processor's reset.
#[must_use]
#[expect(unsafe_code, reason = "an instruction")]
#[cfg(target_arch = "x86_64")]
pub fn now() -> u64 {
    // SAFETY: RDTSC has no operands and touches no memory; Linux lets user space execute it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Ticks since the processor's reset.
#[must_use]
#[expect(unsafe_code, reason = "an instruction")]
#[cfg(target_arch = "aarch64")]
pub fn now() -> u64 {
    let ticks: u64;
    // SAFETY: the register has no effect when it is read and touches no memory; Linux lets user space read it.
    unsafe {
        core::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack, preserves_flags));
    }
    ticks
}

/// Ticks in a millisecond, held against the system's clock.
#[must_use]
pub fn khz() -> u64 {
    let (ticks, begin) = (now(), Instant::now());
    thread::sleep(Duration::from_millis(20));
    let (ticks, elapsed) = (now().wrapping_sub(ticks), begin.elapsed());
    let khz = u128::from(ticks) * 1_000_000 / elapsed.as_nanos().max(1);
    u64::try_from(khz).unwrap_or(0)
}
