// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Address width of a device's DMA.

use address::{Bdf, BusAddr};

use crate::pci_sysfs::PciSysfs;

/// Address bits of a function that no driver asked more for (drivers/pci/probe.c pci_device_add).
const UNASKED: u32 = 32;

/// The address bits of a device's DMA, as far as the kernel reports them.
///
/// They are not those of its bus: PCI Express functions may address 32 bits only, too (AHCI without
/// S64A, xHCI without AC64, ath9k).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaWidth {
    pub(crate) known: Option<u32>,
}

impl DmaWidth {
    /// What the kernel reports; `None` if it reports nothing.
    #[must_use]
    pub fn known(self) -> Option<u32> {
        self.known
    }

    /// The bits to count on: 32 if none are known.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.known.unwrap_or(UNASKED)
    }

    /// Whether addresses of this width reach all memory up to `end`.
    #[must_use]
    pub fn reaches(self, end: BusAddr) -> bool {
        1_u64
            .checked_shl(self.bits())
            .is_none_or(|reach| reach >= end.0)
    }
}

impl PciSysfs {
    /// The address bits that the last driver of `bdf` on the host asked for, 32 if none did: the
    /// kernel keeps them when a driver ends.
    #[must_use]
    pub fn dma_width(&self, bdf: Bdf) -> DmaWidth {
        let text = self.word(bdf, "dma_mask_bits").ok();
        DmaWidth {
            known: text.and_then(|text| text.parse().ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_reach_as_far_as_their_bits() {
        let reaches = |bits, end| DmaWidth { known: Some(bits) }.reaches(BusAddr(end));
        assert!(!reaches(32, 5 << 30));
        assert!(reaches(32, 1 << 32));
        assert!(!reaches(40, (1 << 40) + 1));
        assert!(reaches(40, 1 << 40));
        assert!(reaches(64, u64::MAX));
        assert!(reaches(u32::MAX, u64::MAX));
        assert!(!reaches(0, 2));
    }

    #[test]
    fn unknown_bits_count_as_32() {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("bus/pci/devices/0000:01:00.0");
        std::fs::create_dir_all(&device).unwrap();
        let width = || PciSysfs::at(root.path()).dma_width("01:00.0".parse().unwrap());
        assert_eq!((width().known(), width().bits()), (None, 32));
        for (text, known) in [
            ("64\n", Some(64)),
            ("32\n", Some(32)),
            ("many\n", None),
            ("-1", None),
        ] {
            std::fs::write(device.join("dma_mask_bits"), text).unwrap();
            assert_eq!(width().known(), known, "{text}");
        }
    }
}
