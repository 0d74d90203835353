// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The registers of MSI and MSI-X with the number of vectors and their location.

use crate::regs::{MSI_64_BIT, MSI_MASKABLE};

/// Vectors that the table of MSI-X has, less one.
const MSIX_TABLE_SIZE: u16 = 0x7ff;
/// Which BAR a structure of MSI-X is in.
const MSIX_BAR: u32 = 0b111;

/// Message Control of MSI (PCI Local Bus Specification 3.0, section 6.8.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiControl(pub u16);

impl MsiControl {
    /// Multiple Message Capable: the power of two of the vectors that the function asks for. 6 and 7 are reserved.
    #[must_use]
    pub const fn capable(self) -> u16 {
        self.0 >> 1 & 0b111
    }

    /// Multiple Message Enable: the power of two of the vectors that the function may use.
    #[must_use]
    pub const fn granted(self) -> u16 {
        self.0 >> 4 & 0b111
    }

    /// The bits of these powers of two.
    #[must_use]
    pub const fn with_vectors(capable: u16, granted: u16) -> Self {
        Self((capable & 0b111) << 1 | (granted & 0b111) << 4)
    }

    /// Whether the capability holds 64-bit addresses.
    #[must_use]
    pub const fn is_64_bit(self) -> bool {
        self.0 & MSI_64_BIT != 0
    }

    /// Whether vectors can be masked one by one.
    #[must_use]
    pub const fn is_maskable(self) -> bool {
        self.0 & MSI_MASKABLE != 0
    }

    /// Bytes of the capability (PCI Local Bus Specification 3.0, section 6.8.1).
    #[must_use]
    pub const fn length(self) -> u16 {
        match (self.is_64_bit(), self.is_maskable()) {
            (false, false) => 0x0a,
            (true, false) => 0x0e,
            (false, true) => 0x14,
            (true, true) => 0x18,
        }
    }
}

/// Message Control of MSI-X (PCI Local Bus Specification 3.0, section 6.8.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixControl(pub u16);

impl MsixControl {
    /// Entries in the table, 1 to 2048.
    #[must_use]
    pub const fn vectors(self) -> u16 {
        (self.0 & MSIX_TABLE_SIZE) + 1
    }
}

/// Where a structure of MSI-X is: the table or the pending bits (PCI Local Bus Specification 3.0, sections 6.8.2.4 and
/// 6.8.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixLocation(pub u32);

impl MsixLocation {
    /// The BAR; 6 and 7 are reserved.
    #[must_use]
    pub const fn bar(self) -> u8 {
        (self.0 & MSIX_BAR).to_le_bytes()[0]
    }

    /// Where it begins in the BAR.
    #[must_use]
    pub const fn offset(self) -> u32 {
        self.0 & !MSIX_BAR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msi_control_is_decoded() {
        let control = MsiControl(0x018a);
        assert_eq!((control.capable(), control.granted()), (5, 0));
        assert!(control.is_64_bit() && control.is_maskable());
        assert_eq!(MsiControl(0x0071).granted(), 7);
        assert_eq!(MsiControl::with_vectors(5, 2), MsiControl(0x2a));
        for (control, length) in [(0, 0x0a), (0x80, 0x0e), (0x100, 0x14), (0x180, 0x18)] {
            assert_eq!(MsiControl(control | 0x7f).length(), length, "{control:#x}");
        }
    }

    #[test]
    fn msix_control_and_table_are_decoded() {
        assert_eq!(MsixControl(0x8000).vectors(), 1);
        assert_eq!(MsixControl(u16::MAX).vectors(), 2048);
        let table = MsixLocation(0x2003);
        assert_eq!((table.bar(), table.offset()), (3, 0x2000));
    }
}
