// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the host's PCI bridges have to do with a guest's devices.

use host::{BusRange, DmaMap};

/// The host bridges of the devices to pass through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostBridges {
    /// Where memory BARs may be; the guest's bus gets the same.
    pub windows: Vec<BusRange>,
    /// Where memory is for devices; the guest's bus gets the same.
    pub dma: DmaMap,
    /// Whether devices see what is in the CPU's caches.
    pub is_coherent: bool,
}
