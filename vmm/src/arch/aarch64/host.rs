// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the host's bridges decode, by its device tree.

use address::Bdf;
use host::{ResolvedDma, SysRoot};
use iommufd_backend::{IoMem, host_page_size};

use super::bridges::{Behind, join};
use super::error::ArchError;
use super::host_pages;
use crate::arch::host_bridges::HostBridges;

/// The bridges of `devices`, each with the way of its DMA, on the host at `root`, whose map is `map`.
///
/// # Errors
/// [`ArchError::HostBridge`] where one of them cannot be understood, or there is no device tree; [`ArchError::Bridges`]
/// where the guest cannot have them, or a device's mode does not work behind its own; [`ArchError::HostPages`] where that
/// does not work with the pages of the host.
pub fn host_bridges(
    root: &SysRoot,
    map: &IoMem,
    devices: &[(Bdf, ResolvedDma)],
) -> Result<HostBridges, ArchError> {
    host_pages::check(devices, host_page_size())?;
    let ram: Vec<_> = map.system_ram().collect();
    let mut all = Vec::new();
    for (bdf, mode) in devices {
        all.push(Behind {
            bdf: *bdf,
            mode: *mode,
            bridge: host::host_bridge(root, *bdf, &ram)?,
        });
    }
    Ok(join(all)?)
}
