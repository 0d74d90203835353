// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What may go wrong in a guest because of where its memory is.

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
    log::info!("no guest memory lies below 4 GiB");
    let warning = |(bdf, bits)| {
        format!(
            "{bdf}: may address {bits} bits only, as far as the host's drivers have told, and no guest memory lies \
             below 4 GiB: its driver may fail. Hugepages below 4 GiB, reserved early, would help"
        )
    };
    narrow_devices(devices, summary.end).map(warning).collect()
}

/// What such a device misses where memory below 4 GiB has no room for what Linux wants in one piece for
/// its bounce buffers.
pub(super) fn bounce(
    missed: Option<NoBounceBuffers>,
    summary: Summary,
    devices: &[AssignedDevice],
) -> Vec<String> {
    // Without any memory there, that is what is told.
    let Some(NoBounceBuffers { need, largest }) = missed.filter(|_| summary.below_4g > 0) else {
        return Vec::new();
    };
    let warning = |(bdf, bits)| {
        format!(
            "{bdf}: may address {bits} bits only, as far as the host's drivers have told: Linux wants {} in one piece \
             below 4 GiB for its bounce buffers, and the largest that is free there has {}: its driver may fail. \
             swiotlb=N on the kernel's command line makes them smaller (N times 2 KiB)",
            Memory(need),
            Memory(largest)
        )
    };
    narrow_devices(devices, summary.end).map(warning).collect()
}
