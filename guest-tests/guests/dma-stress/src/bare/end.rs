// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The end of the run, with its verdict.

use core::panic::PanicInfo;

use super::arch::power;
use super::serial;

/// All tests passed.
pub const PASSED: u8 = 0;
/// Something is wrong.
pub const FAILED: u8 = 1;
/// The guest had nothing to test.
pub const NOTHING: u8 = 2;

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
