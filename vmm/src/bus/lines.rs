// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The interrupts of an emulated function.

use std::sync::Arc;

use devices::pci::Pin;

use super::slots::PciSlot;
use crate::arch::layout;
use crate::kvm::irq::{Interrupts, IrqError};

/// The line of INTA#, which every function shows, and messages.
#[derive(Clone, Debug)]
pub struct InterruptLines {
    interrupts: Arc<Interrupts>,
    gsi: u32,
    /// Requester id in the guest.
    device: u16,
}

impl InterruptLines {
    /// Those of the function at `place`.
    pub(crate) fn of(interrupts: &Arc<Interrupts>, place: PciSlot) -> Self {
        Self {
            interrupts: Arc::clone(interrupts),
            gsi: intx_gsi(place.slot),
            device: place.requester_id(),
        }
    }

    /// The interrupt line in config space (PCI Local Bus 3.0, section 6.2.4, Interrupt Line).
    #[must_use]
    pub fn line(&self) -> u8 {
        u8::try_from(self.gsi).unwrap_or(u8::MAX)
    }

    /// Delivers the message `data` to `address` once.
    ///
    /// # Errors
    /// [`IrqError::Message`]
    pub fn signal(&self, address: u64, data: u32) -> Result<(), IrqError> {
        self.interrupts.signal(address, data, self.device)
    }

    /// Asserts or deasserts INTA#.
    ///
    /// # Errors
    /// [`IrqError::Refused`]
    pub fn set_line(&self, asserted: bool) -> Result<(), IrqError> {
        self.interrupts.set_line(self.gsi, asserted)
    }
}

/// The GSI of INTA# of `slot`.
pub(crate) fn intx_gsi(slot: u8) -> u32 {
    layout::INTX_GSIS[usize::from(Pin::A.line(slot))]
}
