// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Interrupts by number, each of which is counted.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::arch::controller;

/// First number of devices' messages.
pub const MESSAGES: u8 = 0x40;
/// First number of interrupt lines: that of GSI 0.
pub const LINES: u8 = 0x80;
/// Lines that are told apart.
pub const LINE_COUNT: u8 = 64;
const COUNT: usize = 256;

static COUNTS: [AtomicU64; COUNT] = [const { AtomicU64::new(0) }; COUNT];
/// Which lines [`note`] keeps away, a bit for each.
static KEPT_AWAY: AtomicU64 = AtomicU64::new(0);

/// The number of the line `gsi`, if it has one.
pub fn line(gsi: u8) -> Option<u8> {
    (gsi < LINE_COUNT).then_some(LINES + gsi)
}

/// Interrupts so far with `vector`.
pub fn count(vector: u8) -> u64 {
    COUNTS[usize::from(vector)].load(SeqCst)
}

/// Counts one. A line is kept away until its driver has quieted the device.
pub fn note(vector: u8) {
    COUNTS[usize::from(vector)].fetch_add(1, SeqCst);
    if (LINES..LINES + LINE_COUNT).contains(&vector) {
        let gsi = vector - LINES;
        KEPT_AWAY.fetch_or(1 << gsi, SeqCst);
        controller::set_masked(gsi, true);
    }
}

/// Lets a line interrupt again, which [`line`] has a number for.
pub fn rearm(gsi: u8) {
    let bit = 1 << gsi;
    if KEPT_AWAY.fetch_and(!bit, SeqCst) & bit != 0 {
        controller::set_masked(gsi, false);
    }
}
