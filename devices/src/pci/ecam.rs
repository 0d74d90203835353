// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's accesses to the root: ECAM, the two config ports, and the windows that hold BARs.

use std::sync::atomic::Ordering;

use vm_device::bus::{MmioAddress, MmioAddressOffset, PioAddress, PioAddressOffset};
use vm_device::{DeviceMmio, DevicePio};

use super::function::Space;
use super::root::{CONFIG_PORT, CONFIG_PORTS, PciRoot};

/// CONFIG_ADDRESS: enable bit.
const ENABLE: u32 = 1 << 31;
/// CONFIG_ADDRESS: enable, bus, device, function and register (PCI 3.0, section 3.2.2.3.2).
const ADDRESS_BITS: u32 = 0x80ff_fffc;
const DATA_OFFSET: u16 = 4;

/// Place on bus 0 and config offset that an ECAM offset names (PCIe, section 7.2.2).
fn ecam_target(offset: u64) -> Option<(usize, u16)> {
    let place = usize::try_from(offset >> 12).ok()?;
    Some((place, u16::try_from(offset & 0xfff).ok()?))
}

/// What an access of `len` bytes to `port` of the config mechanism means.
enum PortTarget {
    Address,
    Data { place: usize, offset: u16 },
    Nothing,
}

fn port_target(address: u32, port: u16, len: usize) -> PortTarget {
    let data = port.checked_sub(CONFIG_PORT + DATA_OFFSET);
    match data {
        // CONFIG_ADDRESS is only there as a dword; the bytes in it belong to other devices.
        None if port == CONFIG_PORT && len == 4 => PortTarget::Address,
        Some(byte) if address & ENABLE != 0 && address >> 16 & 0xff == 0 => {
            let [register, place, ..] = address.to_le_bytes();
            PortTarget::Data {
                place: usize::from(place),
                offset: u16::from(register & 0xfc) + byte,
            }
        }
        _ => PortTarget::Nothing,
    }
}

fn is_config_port(port: u16) -> bool {
    (CONFIG_PORT..CONFIG_PORT + CONFIG_PORTS).contains(&port)
}

/// Ports 0xcf8 to 0xcff, and BARs at any other port that the root is registered for.
impl DevicePio for PciRoot {
    fn pio_read(&self, base: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        let port = base.0.wrapping_add(offset);
        if !is_config_port(port) {
            return self.bar_read(Space::Io, u64::from(port), data);
        }
        let address = self.config_address().load(Ordering::SeqCst);
        match port_target(address, port, data.len()) {
            PortTarget::Address => data.copy_from_slice(&address.to_le_bytes()),
            PortTarget::Data { place, offset } => self.config_read(place, offset, data),
            PortTarget::Nothing => data.fill(0xff),
        }
    }

    fn pio_write(&self, base: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        let port = base.0.wrapping_add(offset);
        if !is_config_port(port) {
            return self.bar_write(Space::Io, u64::from(port), data);
        }
        let address = self.config_address().load(Ordering::SeqCst);
        match (port_target(address, port, data.len()), data) {
            (PortTarget::Address, &[a, b, c, d]) => {
                let value = u32::from_le_bytes([a, b, c, d]) & ADDRESS_BITS;
                self.config_address().store(value, Ordering::SeqCst);
            }
            (PortTarget::Data { place, offset }, _) => {
                self.config_write(place, offset, data);
            }
            _ => {}
        }
    }
}

/// ECAM, and BARs at any other address that the root is registered for.
impl DeviceMmio for PciRoot {
    fn mmio_read(&self, base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        let address = base.0.wrapping_add(offset);
        if !self.ecam_contains(address) {
            return match self.on_bus(address) {
                Some(address) => self.bar_read(Space::Memory, address, data),
                None => data.fill(0xff),
            };
        }
        match ecam_target(address - self.ecam().start.0) {
            Some((place, offset)) => self.config_read(place, offset, data),
            None => data.fill(0xff),
        }
    }

    fn mmio_write(&self, base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        let address = base.0.wrapping_add(offset);
        if !self.ecam_contains(address) {
            if let Some(address) = self.on_bus(address) {
                self.bar_write(Space::Memory, address, data);
            }
            return;
        }
        if let Some((place, offset)) = ecam_target(address - self.ecam().start.0) {
            self.config_write(place, offset, data);
        }
    }
}
