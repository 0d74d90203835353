// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Warnings about a guest's devices because of the location of its memory.

use address::units::Memory;
use address::{Bdf, Hpa};

use crate::boot::command_line::NoBounceBuffers;
use crate::memory::table::Summary;
use crate::passthrough::assigned::AssignedDevice;
use crate::passthrough::dma_path::DmaPath;

/// Devices that may not address all 64 bits, of those that use physical addresses, where the guest has memory up to
/// `end`: each with the bits that its last driver on the host asked for.
fn narrow_devices(devices: &[AssignedDevice], end: Hpa) -> impl Iterator<Item = (Bdf, u32)> {
    let physical = devices
        .iter()
        .filter(|device| !matches!(device.dma, DmaPath::Iommu));
    physical.filter_map(move |device| {
        let width = device.dma_width;
        (!width.reaches(end)).then(|| (device.bdf(), width.bits()))
    })
}

/// What a device misses that may not address all 64 bits.
pub(super) fn narrow(summary: Summary, devices: &[AssignedDevice]) -> Vec<String> {
    if summary.pieces == 0 || summary.below_4g > 0 {
        return Vec::new();
    }
    log::info!("no guest memory is below 4 GiB");
    let warning = |(bdf, bits)| {
        format!(
            "{bdf}: may have only {bits} address bits, as its host driver reported, and no guest \
             memory is below 4 GiB: its driver may fail. Reserve hugepages early in boot to get \
             some below 4 GiB"
        )
    };
    narrow_devices(devices, summary.end).map(warning).collect()
}

/// What such a device misses where memory below 4 GiB has no room for what Linux needs in one piece
/// for its bounce buffers.
pub(super) fn bounce(
    missed: Option<NoBounceBuffers>,
    summary: Summary,
    devices: &[AssignedDevice],
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
    narrow_devices(devices, summary.end).map(warning).collect()
}
