// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Error reporting of the device, which the host controls: an error report may reset devices above
//! and beside it, or stop the host. The guest reads what it wrote.

use pci_config::regs::{COMMAND, COMMAND_SERR, EXP_DEVICE_CONTROL_REPORTING};

/// The bits in the low byte of Device Control.
const REPORTING: u8 = EXP_DEVICE_CONTROL_REPORTING.to_le_bytes()[0];

/// The enable bits in a Device Control register.
#[derive(Clone, Copy, Debug)]
struct Enables {
    /// The register's place.
    at: u16,
    host: u8,
    guest: u8,
}

/// The enable bits of a function.
#[derive(Clone, Debug, Default)]
pub(super) struct ErrorReporting {
    enables: Vec<Enables>,
}

impl ErrorReporting {
    /// Keeps the bits of the Device Control register at `at`, whose low byte is `control`.
    pub(super) fn keep(&mut self, at: u16, control: u8) {
        let host = control & REPORTING;
        let guest = host;
        self.enables.push(Enables { at, host, guest });
    }

    /// Puts what the guest wrote into `data`, which was read at `offset`.
    pub(super) fn show(&self, offset: u16, data: &mut [u8]) {
        for Enables { at, guest, .. } in &self.enables {
            if let Some(byte) = byte_at(*at, offset, data) {
                *byte = *byte & !REPORTING | guest;
            }
        }
    }

    /// Takes out of `data`, which is to be written at `offset`, what is not the guest's.
    pub(super) fn take_out(&mut self, offset: u16, data: &mut [u8]) {
        let [_, serr] = COMMAND_SERR.to_le_bytes();
        if let Some(byte) = byte_at(COMMAND + 1, offset, data) {
            *byte &= !serr;
        }
        for Enables { at, host, guest } in &mut self.enables {
            if let Some(byte) = byte_at(*at, offset, data) {
                *guest = *byte & REPORTING;
                *byte = *byte & !REPORTING | *host;
            }
        }
    }

    /// Forgets what the guest wrote.
    pub(super) fn reset(&mut self) {
        for Enables { host, guest, .. } in &mut self.enables {
            *guest = *host;
        }
    }
}

/// The byte at `at` of `data`, which begins at `offset`.
fn byte_at(at: u16, offset: u16, data: &mut [u8]) -> Option<&mut u8> {
    data.get_mut(usize::from(at.checked_sub(offset)?))
}
