// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory-mapped configuration space.

use core::ops::Range;

use address::Gpa;
use pci_config::regs::CONFIG_SIZE;
use pci_types::{ConfigRegionAccess, PciAddress};

use super::arch::mmio;

/// The configuration space of bus 0.
#[derive(Clone, Copy, Debug)]
pub struct Ecam(u64);

impl Ecam {
    /// Configuration space at `range`.
    ///
    /// # Safety
    /// It is there, [`ECAM_BUS_SIZE`](pci_config::regs::ECAM_BUS_SIZE) of it, and mapped uncached.
    pub unsafe fn new(range: &Range<Gpa>) -> Self {
        Self(range.start.0)
    }

    fn register(self, address: PciAddress, offset: u16) -> usize {
        assert!(
            address.bus() == 0 && offset < CONFIG_SIZE,
            "a register outside of bus 0"
        );
        let function = u64::from(address.device()) << 15 | u64::from(address.function()) << 12;
        (self.0 + function + u64::from(offset & !3)) as usize
    }
}

impl ConfigRegionAccess for Ecam {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        // SAFETY: `register` checks the range, and `new`'s caller vouches for it.
        unsafe { mmio::read(self.register(address, offset)) }
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        // SAFETY: as above.
        unsafe { mmio::write(self.register(address, offset), value) };
    }
}
