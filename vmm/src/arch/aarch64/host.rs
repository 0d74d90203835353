// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the host's bridges decode, by its device tree.

use address::Bdf;
use host::SysRoot;
use iommufd_backend::IoMem;

use super::error::ArchError;
use crate::arch::host_bridges::HostBridges;

/// The bridges of `devices` on the host at `root`, whose map is `map`.
///
/// # Errors
/// [`ArchError::HostBridge`] where one of them does not leave addresses as they are, or there is no device tree.
pub fn host_bridges(
    root: &SysRoot,
    map: &IoMem,
    devices: &[Bdf],
) -> Result<HostBridges, ArchError> {
    let ram: Vec<_> = map.system_ram().collect();
    let mut all = HostBridges {
        windows: Vec::new(),
        is_coherent: true,
    };
    for bdf in devices {
        let bridge = host::host_bridge(root, *bdf, &ram)?;
        all.is_coherent &= bridge.is_coherent;
        // Devices behind one bridge have the same windows.
        for window in bridge.windows {
            if !all.windows.contains(&window) {
                all.windows.push(window);
            }
        }
    }
    Ok(all)
}
