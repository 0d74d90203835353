// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The end of the machine.

use core::sync::atomic::{AtomicU16, Ordering::Relaxed};

use x86_64::instructions::port::Port;

use crate::bare::end::{SOFT_OFF, halt};

/// The monitor's port that takes the guest's verdict.
const STATUS_PORT: u16 = 0x603;
/// SLEEP_CONTROL_REG where the monitor has it, until the FADT is read.
static SLEEP_PORT: AtomicU16 = AtomicU16::new(0x600);

/// Notes where the FADT has SLEEP_CONTROL_REG.
pub fn set_sleep_port(port: u16) {
    SLEEP_PORT.store(port, Relaxed);
}

/// Reports the verdict and ends.
pub fn off(verdict: u8) -> ! {
    x86_64::instructions::interrupts::disable();
    // SAFETY: these ports do nothing but end the machine.
    unsafe {
        Port::new(STATUS_PORT).write(verdict);
        Port::new(SLEEP_PORT.load(Relaxed)).write(SOFT_OFF);
    }
    halt()
}
