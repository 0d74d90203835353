// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The monitor's serial port, a 16550 in memory.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use address::Gpa;

use crate::bare::mmio::Mmio;

const DATA: u64 = 0;
const LINE_STATUS: u64 = 5;
const CAN_SEND: u8 = 1 << 5;
const BYTES: u64 = 8;

/// Where it is, once the device tree is read and it is mapped.
static BASE: AtomicU64 = AtomicU64::new(0);

/// The port. What is sent before it is known where it is, is lost.
#[derive(Debug)]
pub struct Port(());

/// Notes where the port is.
///
/// # Safety
/// It is there, mapped as a device's.
pub unsafe fn found(base: Gpa) {
    BASE.store(base.0, Relaxed);
}

impl Port {
    /// The port.
    pub fn open() -> Option<Self> {
        Some(Self(()))
    }

    /// Sends all of `bytes`.
    pub fn send(&mut self, bytes: &[u8]) {
        let base = BASE.load(Relaxed);
        if base == 0 {
            return;
        }
        // SAFETY: as `found`'s caller promised.
        let registers = unsafe { Mmio::new(Gpa(base)..Gpa(base + BYTES)) };
        for byte in bytes {
            while registers.get8(LINE_STATUS) & CAN_SEND == 0 {
                core::hint::spin_loop();
            }
            registers.set8(DATA, *byte);
        }
    }
}
