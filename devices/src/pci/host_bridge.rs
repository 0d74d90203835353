// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host bridge: the function that represents the root complex on bus 0.

use super::config::{EmulatedConfig, Identity};
use super::function::{PciFunction, Region, Windows};

/// Red Hat's generic PCIe host bridge: an identity for which guests have no chipset quirks, as
/// the IDs of real bridges would bring.
const IDENTITY: Identity = Identity {
    vendor: 0x1b36,
    device: 0x0008,
    revision: 0,
    class: 0x06_00_00,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
    pin: None,
};

/// A host bridge without registers.
#[derive(Debug)]
pub struct HostBridge(EmulatedConfig);

impl HostBridge {
    /// The bridge at power-on.
    #[must_use]
    pub fn new() -> Self {
        Self(EmulatedConfig::new(&IDENTITY))
    }
}

impl Default for HostBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl PciFunction for HostBridge {
    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        self.0.read(offset, data);
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) {
        self.0.write(offset, data);
    }

    fn windows(&self) -> Windows {
        Windows::default()
    }

    fn bar_read(&mut self, _: Region, _: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn bar_write(&mut self, _: Region, _: u64, _: &[u8]) {}

    fn reset(&mut self) {
        self.0.reset();
    }
}
