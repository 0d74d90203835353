// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the host's PCI bridges have to do with a guest's devices.

use std::ops::Range;

use address::Hpa;

/// The host bridges of the devices to pass through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostBridges {
    /// Where memory BARs may be; the guest's bus gets the same.
    pub windows: Vec<Range<Hpa>>,
    /// Whether devices see what is in the CPU's caches.
    pub is_coherent: bool,
}
