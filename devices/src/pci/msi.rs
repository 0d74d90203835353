// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! MSI: the capability's registers (PCI 3.0, section 6.8.1).

use pci_config::MsiControl;
use pci_config::regs::{MSI_64_BIT, MSI_ENABLE, MSI_MASKABLE};

use super::access::DwordWrite;

/// Power of two of the most vectors.
const MAX_CAPABLE: u16 = 5;

/// An interrupt message as the guest programmed it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsiMessage {
    /// Address the device would write to.
    pub address: u64,
    /// Value the device would write.
    pub data: u32,
}

/// The state that a guest programs to get MSI interrupts.
#[derive(Clone, Debug)]
pub struct Msi {
    /// 64-bit addresses.
    wide: bool,
    /// Vectors can be masked one by one.
    maskable: bool,
    /// Power of two of the vectors on offer, 0 to 5.
    capable: u16,
    /// Power of two of the vectors in use.
    granted: u16,
    enabled: bool,
    address: u64,
    data: u16,
    mask: u32,
}

impl Msi {
    /// A capability as `control`, a device's Message Control register, describes it, but with at
    /// most `vectors` vectors (rounded down to a power of two).
    #[must_use]
    pub fn new(control: u16, vectors: u16) -> Self {
        let control = MsiControl(control);
        let granted = u16::try_from(vectors.max(1).ilog2()).unwrap_or(0);
        Self {
            wide: control.is_64_bit(),
            maskable: control.is_maskable(),
            capable: control.capable().min(granted).min(MAX_CAPABLE),
            granted: 0,
            enabled: false,
            address: 0,
            data: 0,
            mask: 0,
        }
    }

    /// Bytes of the capability.
    #[must_use]
    pub fn length(&self) -> u16 {
        MsiControl(self.control()).length()
    }

    /// The Message Control register.
    #[must_use]
    pub fn control(&self) -> u16 {
        let bit = |set, bit| if set { bit } else { 0 };
        MsiControl::with_vectors(self.capable, self.granted).0
            | bit(self.enabled, MSI_ENABLE)
            | bit(self.wide, MSI_64_BIT)
            | bit(self.maskable, MSI_MASKABLE)
    }

    /// Whether the guest has turned MSI on.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Vectors that the guest has granted the function: 1, 2, 4, … 32.
    #[must_use]
    pub fn vectors(&self) -> u16 {
        1 << self.granted
    }

    /// What `vector` sends when it is raised now; `None` while it is masked, not granted, or MSI
    /// is off. The vector's number replaces the low bits of the data.
    #[must_use]
    pub fn message(&self, vector: u16) -> Option<MsiMessage> {
        let masked = self.mask >> vector.min(31) & 1 != 0;
        (self.enabled && vector < self.vectors() && !masked).then(|| MsiMessage {
            address: self.address,
            data: u32::from(self.data & !(self.vectors() - 1) | vector),
        })
    }

    /// The dword at byte `offset` (a multiple of 4) of the capability; the header's ID and next
    /// pointer read as 0. `pending` returns whether a vector is pending.
    #[must_use]
    pub fn read(&self, offset: u16, pending: impl FnOnce() -> u32) -> u32 {
        let [low, high] = [self.address, self.address >> 32].map(|part| part & 0xffff_ffff);
        match self.register(offset) {
            Register::Control => u32::from(self.control()) << 16,
            Register::AddressLow => u32::try_from(low).unwrap_or(0),
            Register::AddressHigh => u32::try_from(high).unwrap_or(0),
            Register::Data => u32::from(self.data),
            Register::Mask => self.mask,
            Register::Pending => pending() & self.capable_mask(),
            Register::None => 0,
        }
    }

    /// Writes the dword of the capability that `write`, whose offset counts from the capability's
    /// start, lies in.
    pub fn write(&mut self, write: DwordWrite) {
        let value = write.merge(self.read(write.offset, || 0));
        match self.register(write.offset) {
            Register::Control => {
                let [_, _, low, high] = value.to_le_bytes();
                let control = u16::from_le_bytes([low, high]);
                self.enabled = control & MSI_ENABLE != 0;
                self.granted = MsiControl(control).granted().min(self.capable);
            }
            Register::AddressLow => {
                self.address = self.address >> 32 << 32 | u64::from(value & !3);
            }
            Register::AddressHigh => {
                self.address = self.address & 0xffff_ffff | u64::from(value) << 32;
            }
            Register::Data => {
                let [low, high, ..] = value.to_le_bytes();
                self.data = u16::from_le_bytes([low, high]);
            }
            Register::Mask => self.mask = value & self.capable_mask(),
            Register::Pending | Register::None => {}
        }
    }

    /// Back to power-on.
    pub fn reset(&mut self) {
        (
            self.granted,
            self.enabled,
            self.address,
            self.data,
            self.mask,
        ) = (0, false, 0, 0, 0);
    }

    /// One bit for each vector on offer.
    fn capable_mask(&self) -> u32 {
        u32::try_from((1_u64 << (1_u32 << self.capable)) - 1).unwrap_or(u32::MAX)
    }

    fn register(&self, offset: u16) -> Register {
        // Without the high half of the address everything behind it moves up.
        let offset = if self.wide || offset < 8 {
            offset
        } else {
            offset + 4
        };
        match offset {
            0x00 => Register::Control,
            0x04 => Register::AddressLow,
            0x08 => Register::AddressHigh,
            0x0c => Register::Data,
            0x10 if self.maskable => Register::Mask,
            0x14 if self.maskable => Register::Pending,
            _ => Register::None,
        }
    }
}

enum Register {
    Control,
    AddressLow,
    AddressHigh,
    Data,
    Mask,
    Pending,
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(msi: &mut Msi, offset: u16, data: &[u8]) {
        msi.write(DwordWrite::new(offset, data).unwrap());
    }

    #[test]
    fn every_layout_has_its_registers_in_place() {
        for (control, length, data_at, mask_at) in [
            (0x0000, 0x0a, 0x08, None),
            (0x0080, 0x0e, 0x0c, None),
            (0x0100, 0x14, 0x08, Some(0x0c)),
            (0x0180, 0x18, 0x0c, Some(0x10)),
        ] {
            let mut msi = Msi::new(control, 1);
            assert_eq!(msi.length(), length);
            assert_eq!(msi.control(), control);
            for at in (0..0x18).step_by(4) {
                write(&mut msi, at, &[0xff; 4]);
            }
            assert_eq!(msi.read(data_at, || 0), 0xffff);
            assert_eq!(msi.read(4, || 0), 0xffff_fffc);
            if let Some(at) = mask_at {
                assert_eq!(msi.read(at, || 0), 1, "one vector, one bit");
                assert_eq!(msi.read(at + 4, || 0xff), 1);
                assert_eq!(msi.message(0), None, "masked");
                write(&mut msi, at, &[0]);
            }
            let high = if control & MSI_64_BIT != 0 {
                u64::from(u32::MAX) << 32
            } else {
                0
            };
            let message = MsiMessage {
                address: high | 0xffff_fffc,
                data: 0xffff,
            };
            assert_eq!(msi.message(0), Some(message));
        }
    }

    #[test]
    fn the_host_limits_the_vectors() {
        for (device, host, capable) in [
            (5, 1, 0),
            (5, 32, 5),
            (2, 32, 2),
            (5, 5, 2),
            (7, 64, 5),
            (3, 0, 0),
        ] {
            let mut msi = Msi::new(device << 1, host);
            assert_eq!(msi.control() >> 1 & 7, capable);
            write(&mut msi, 2, &[0x71]);
            assert_eq!(msi.vectors(), 1 << capable, "a guest cannot grant more");
        }
    }

    #[test]
    fn vectors_replace_the_low_bits_of_the_data() {
        let mut msi = Msi::new(0x8a, 32);
        write(&mut msi, 4, &0xfee0_0000_u32.to_le_bytes());
        write(&mut msi, 12, &0x4027_u16.to_le_bytes());
        assert_eq!(msi.message(0), None);
        write(&mut msi, 2, &[0x21]);
        assert_eq!(msi.vectors(), 4);
        assert_eq!(msi.message(3).unwrap().data, 0x4027);
        assert_eq!(msi.message(0).unwrap().data, 0x4024);
        assert_eq!(msi.message(4), None);
        msi.reset();
        assert_eq!(msi.control(), 0x8a);
        assert_eq!(msi.message(0), None);
    }
}
