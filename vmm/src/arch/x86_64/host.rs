// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the host's bridges decode, by `/proc/iomem`.

use address::{Bdf, BusAddr};
use host::{BusRange, DmaMap, ResolvedDma, SysRoot};
use iommufd_backend::IoMem;

use crate::arch::host_bridges::HostBridges;
use crate::arch::x86_64::error::ArchError;

/// The root bridges of the host, whose map is `map`: those of all devices, as none of them translates addresses where
/// BARs show that none does.
///
/// # Errors
/// None.
pub fn host_bridges(
    _: &SysRoot,
    map: &IoMem,
    _: &[(Bdf, ResolvedDma)],
) -> Result<HostBridges, ArchError> {
    let window = |cpu: std::ops::Range<address::Hpa>| BusRange {
        bus: BusAddr::identity(cpu.start),
        cpu,
    };
    Ok(HostBridges {
        windows: map.bridge_windows().map(window).collect(),
        dma: DmaMap::Identity,
        is_coherent: true,
    })
}
