// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The monitor's serial port, a 16550 in memory.

use core::ops::Range;

use address::Gpa;

use crate::bare::mmio::Mmio;

const DATA: u64 = 0;
const LINE_STATUS: u64 = 5;
const CAN_SEND: u8 = 1 << 5;

/// The port.
#[derive(Debug)]
pub struct Port(Mmio);

impl Port {
    /// None yet: only the device tree tells where it is.
    pub fn open() -> Option<Self> {
        None
    }

    /// The port at `range`.
    ///
    /// # Safety
    /// It is there, mapped as a device's, and used by nothing else.
    pub unsafe fn new(range: Range<Gpa>) -> Self {
        // SAFETY: as the caller promises.
        Self(unsafe { Mmio::new(range) })
    }

    /// Sends all of `bytes`.
    pub fn send(&mut self, bytes: &[u8]) {
        for byte in bytes {
            while self.0.get8(LINE_STATUS) & CAN_SEND == 0 {
                core::hint::spin_loop();
            }
            self.0.set8(DATA, *byte);
        }
    }
}
