// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The end of the run, with its verdict.

use core::panic::PanicInfo;

use super::arch::{interrupts, power};
use super::serial;

/// All tests passed.
pub const PASSED: u8 = 0;
/// Something is wrong.
pub const FAILED: u8 = 1;
/// The guest had nothing to test.
pub const NOTHING: u8 = 2;

/// SLP_EN, and SLP_TYP 5 (ACPI 6.5, section 4.8.4.2.1): what the monitor's register powers off by.
pub const SOFT_OFF: u8 = 1 << 5 | 5 << 2;

/// Has this processor do nothing more.
pub fn halt() -> ! {
    interrupts::disable();
    loop {
        interrupts::hlt();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let place = info.location();
    serial::last_words(format_args!(
        "Bail out! {} ({}:{})",
        info.message(),
        place.map_or("?", |place| place.file()),
        place.map_or(0, |place| place.line())
    ));
    power::off(FAILED)
}
