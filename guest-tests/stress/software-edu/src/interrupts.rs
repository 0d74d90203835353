// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! From interrupt status to messages and the level of INTA#.

use pci_config::regs::{COMMAND_BUS_MASTER, COMMAND_INTX_DISABLE, MSI_64_BIT, MSI_MASKABLE};

use devices::pci::{Msi, MsiMessage};

use crate::outside::InterruptSink;

/// Message Control of one vector with 64-bit address and mask bit (PCI 3.0, section 6.8.1.3).
const MSI_CONTROL: u16 = MSI_64_BIT | MSI_MASKABLE;

/// The state of delivery.
pub(crate) struct Interrupts {
    pub msi: Msi,
    sink: Box<dyn InterruptSink>,
    /// The vector has something to send and is masked.
    pending: bool,
    /// Level of INTA#.
    line: bool,
}

impl Interrupts {
    pub fn new(sink: Box<dyn InterruptSink>) -> Self {
        Self {
            msi: Msi::new(MSI_CONTROL, 1),
            sink,
            pending: false,
            line: false,
        }
    }

    /// Pending bits of the MSI capability.
    pub fn pending(&self) -> u32 {
        self.pending.into()
    }

    /// Whether the function has an interrupt for INTA#, asserted or not: what STATUS shows
    /// (PCI 3.0, section 6.2.3).
    pub fn is_intx_waiting(&self, status: u32) -> bool {
        status != 0 && !self.msi.is_enabled()
    }

    /// Something was raised, with `status` as the result.
    pub fn raise(&mut self, status: u32, command: u16) {
        self.pending = true;
        self.settle(status, command);
    }

    /// Follows a change of the interrupt status, COMMAND or the MSI capability.
    pub fn settle(&mut self, status: u32, command: u16) {
        // Nothing to send, or satisfied while masked (PCI 3.0, section 6.8.3.4).
        self.pending &= status != 0 && self.msi.is_enabled();
        if let Some(message) = self.msi.message(0).filter(|_| self.pending) {
            self.pending = false;
            self.send(message, command);
        }
        let line = self.is_intx_waiting(status) && command & COMMAND_INTX_DISABLE == 0;
        if line != self.line {
            self.line = line;
            self.sink.line(line);
        }
    }

    /// Back to power-on.
    pub fn reset(&mut self) {
        self.msi.reset();
        self.settle(0, 0);
    }

    /// A message is a write on the bus, which only a bus master can make.
    fn send(&self, message: MsiMessage, command: u16) {
        if command & COMMAND_BUS_MASTER != 0 {
            self.sink.message(message);
        }
    }
}
