// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Time.

pub use super::arch::clock::{count_down, now, ticks_per_ms};

/// Waits without sleep.
pub fn delay(ticks: u64) {
    let start = now();
    while now().wrapping_sub(start) < ticks {
        core::hint::spin_loop();
    }
}
