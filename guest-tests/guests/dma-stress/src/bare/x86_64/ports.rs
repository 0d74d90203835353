// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Registers in I/O ports.

use dma_stress::device::pci_testdev::Space;
use x86_64::instructions::port::Port;

/// Ports of a device.
#[derive(Clone, Copy, Debug)]
pub struct Ports(u16);

/// The ports from `first` on.
///
/// # Safety
/// They are a device's that may be read and written at will.
pub unsafe fn space(first: u16) -> Ports {
    Ports(first)
}

impl Ports {
    fn at(self, offset: u64) -> u16 {
        self.0.wrapping_add(offset as u16)
    }
}

impl Space for Ports {
    fn read(&self, offset: u64, width: u8) -> u32 {
        let port = self.at(offset);
        // SAFETY: `space`'s caller vouches for the ports.
        unsafe {
            match width {
                1 => u32::from(Port::<u8>::new(port).read()),
                2 => u32::from(Port::<u16>::new(port).read()),
                _ => Port::<u32>::new(port).read(),
            }
        }
    }

    fn write(&self, offset: u64, width: u8, value: u32) {
        let port = self.at(offset);
        // SAFETY: as above.
        unsafe {
            match width {
                1 => Port::new(port).write(value as u8),
                2 => Port::new(port).write(value as u16),
                _ => Port::new(port).write(value),
            }
        }
    }
}
