// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Warnings about a guest's devices because of the location of its memory.

use address::units::Memory;
use address::{Bdf, BusAddr};
use host::DmaMap;
use iommufd_backend::DmaWidth;

use crate::boot::command_line::NoBounceBuffers;
use crate::memory::layout::Addressing;
use crate::memory::plan::MemoryPlan;
use crate::memory::table::Summary;
use crate::passthrough::assigned::AssignedDevice;
use crate::passthrough::dma_path::DmaPath;

/// How wide the addresses of each device are that uses physical ones.
pub(super) fn physical(devices: &[AssignedDevice]) -> Vec<(Bdf, DmaWidth)> {
    let physical = devices
        .iter()
        .filter(|device| !matches!(device.dma, DmaPath::Iommu));
    physical
        .map(|device| (device.bdf(), device.dma_width))
        .collect()
}

/// Devices of `physical` that may not reach all memory up to `end`: each with the address bits that its last driver on
/// the host asked for.
fn narrow_devices(physical: &[(Bdf, DmaWidth)], end: BusAddr) -> impl Iterator<Item = (Bdf, u32)> {
    let narrow = physical
        .iter()
        .filter(move |(_, width)| !width.reaches(end));
    narrow.map(|(bdf, width)| (*bdf, width.bits()))
}

/// Where devices of few address bits would find memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LowAddresses {
    /// Below 4 GiB, where their drivers look for it.
    Low,
    /// Nowhere: the bus has other addresses for it.
    Moved,
    /// Where their drivers do not look for it: packed memory is not in the order of addresses on the bus.
    Packed,
}

impl LowAddresses {
    /// That of memory in this plan, on a bus that has it at `dma`.
    pub fn of(memory: &MemoryPlan, dma: &DmaMap) -> Self {
        match memory.addressing() {
            Addressing::Packed => Self::Packed,
            Addressing::Identity | Addressing::Conventional if dma.is_moved() => Self::Moved,
            Addressing::Identity | Addressing::Conventional => Self::Low,
        }
    }

    fn is_there(self, summary: Summary) -> bool {
        match self {
            Self::Low | Self::Moved => summary.below_4g > 0,
            Self::Packed => false,
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Low => {
                "no guest memory is below 4 GiB: its driver may fail. Reserve hugepages early in boot to get some below \
                 4 GiB"
            }
            Self::Moved => {
                "the PCI host bridge has guest memory at higher addresses on the bus: its driver may fail, and no \
                 choice of memory helps. Use a device with more address bits"
            }
            Self::Packed => {
                "guest memory is at higher addresses on the bus: its driver may fail, because Linux does not look for \
                 low addresses on the bus. Use layout=identity"
            }
        }
    }
}

/// What a device of `physical` misses that may not address all 64 bits, where no memory is `low`.
pub(super) fn narrow(
    summary: Summary,
    physical: &[(Bdf, DmaWidth)],
    low: LowAddresses,
) -> Vec<String> {
    if summary.pieces == 0 || low.is_there(summary) {
        return Vec::new();
    }
    if low != LowAddresses::Packed {
        log::info!("no guest memory is below 4 GiB");
    }
    let warning = |(bdf, bits)| {
        let advice = low.advice();
        format!(
            "{bdf}: may have only {bits} address bits, as its host driver reported, and {advice}"
        )
    };
    narrow_devices(physical, summary.end).map(warning).collect()
}

/// What such a device misses where memory below 4 GiB has no room for what Linux needs in one piece
/// for its bounce buffers.
pub(super) fn bounce(
    missed: Option<NoBounceBuffers>,
    summary: Summary,
    physical: &[(Bdf, DmaWidth)],
) -> Vec<String> {
    // Without any memory there, that is reported.
    let Some(NoBounceBuffers { need, largest }) = missed.filter(|_| summary.below_4g > 0) else {
        return Vec::new();
    };
    let warning = |(bdf, bits)| {
        format!(
            "{bdf}: may have only {bits} address bits, as its host driver reported: Linux needs {} \
             in one piece below 4 GiB for its bounce buffers, and the largest free piece there has \
             {}: its driver may fail. swiotlb=N on the kernel's command line makes them smaller (N \
             times 2 KiB)",
            Memory(need),
            Memory(largest)
        )
    };
    narrow_devices(physical, summary.end).map(warning).collect()
}

#[cfg(test)]
mod tests {
    use iommufd_backend::PciSysfs;

    use super::*;

    /// Devices of which the kernel reports these address bits, or none.
    fn devices(bits: &[Option<u32>]) -> Vec<(Bdf, DmaWidth)> {
        let root = tempfile::tempdir().unwrap();
        let sysfs = PciSysfs::at(root.path());
        let device = |(number, bits): (u8, &Option<u32>)| {
            let bdf = Bdf::new(0, number, 0, 0).unwrap();
            let folder = root.path().join(format!("bus/pci/devices/{bdf}"));
            std::fs::create_dir_all(&folder).unwrap();
            if let Some(bits) = bits {
                std::fs::write(folder.join("dma_mask_bits"), format!("{bits}\n")).unwrap();
            }
            (bdf, sysfs.dma_width(bdf))
        };
        (1..).zip(bits).map(device).collect()
    }

    fn memory(below_4g: u64) -> Summary {
        Summary {
            pieces: 2,
            below_4g,
            end: BusAddr(6 << 30),
        }
    }

    /// The devices that `warnings` are about.
    fn named(warnings: &[String]) -> Vec<&str> {
        let name = |warning: &String| warning.find(": may have only");
        warnings
            .iter()
            .map(|warning| &warning[..name(warning).unwrap()])
            .collect()
    }

    #[test]
    fn devices_of_few_or_unknown_bits_miss_memory_below_4g() {
        let devices = devices(&[Some(64), Some(32), Some(40), None]);
        let narrow = |summary, low| narrow(summary, &devices, low);
        let warnings = narrow(memory(0), LowAddresses::Low);
        assert_eq!(named(&warnings), ["0000:02:00.0", "0000:04:00.0"]);
        assert!(warnings[0].contains("only 32 address bits"), "{warnings:?}");
        assert_eq!(narrow(memory(2 << 20), LowAddresses::Low), [""; 0]);
        // An IOMMU translates for all, so nothing has a physical address.
        for low in [LowAddresses::Low, LowAddresses::Moved, LowAddresses::Packed] {
            assert_eq!(narrow(Summary::default(), low), [""; 0]);
        }
        // Low memory is no help where drivers do not find it, nor hugepages where none can be low.
        let packed = narrow(memory(2 << 20), LowAddresses::Packed);
        assert_eq!(named(&packed), named(&warnings));
        let moved = narrow(memory(0), LowAddresses::Moved);
        assert!(
            moved[0].contains("more address bits") && !moved[0].contains("Reserve"),
            "{moved:?}"
        );
    }

    #[test]
    fn such_devices_miss_bounce_buffers_that_do_not_fit_below_4g() {
        let devices = devices(&[Some(32), Some(64)]);
        let missed = NoBounceBuffers {
            need: 64 << 20,
            largest: 48 << 20,
        };
        let warnings = bounce(Some(missed), memory(96 << 20), &devices);
        assert_eq!(named(&warnings), ["0000:01:00.0"]);
        for word in ["needs 64 MiB", "has 48 MiB", "swiotlb=N"] {
            assert!(warnings[0].contains(word), "{warnings:?}");
        }
        assert_eq!(bounce(None, memory(96 << 20), &devices), [""; 0]);
        assert_eq!(bounce(Some(missed), memory(0), &devices), [""; 0]);
    }
}
