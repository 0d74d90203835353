// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The PCI host bridge of a device on a machine that a device tree describes: where BARs may be, which addresses on the
//! bus BARs and memory have, and whether devices see the CPU's caches (Devicetree Specification v0.4, section 2.3; Open
//! Firmware, PCI Bus Binding 2.1, section 2.2.1; Linux, drivers/of/address.c).

mod node;
mod range;

use std::ops::Range;
use std::path::PathBuf;

use address::{Bdf, Hpa};

use self::node::{DMA_RANGES, Node};
use self::range::{AddressRange, Kind};
use crate::facts::bus_range::{BusRange, DmaMap};
use crate::sys_root::SysRoot;

/// What is known of a host bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostBridge {
    /// Where memory BARs may be.
    pub windows: Vec<BusRange>,
    /// Where memory is for devices.
    pub dma: DmaMap,
    /// Whether devices see what is in the CPU's caches.
    pub is_coherent: bool,
}

/// Why a device's host bridge does not serve it in a guest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostBridgeError {
    /// There is no device tree.
    #[error("{bdf}: this machine is described by ACPI, not by a device tree")]
    Acpi {
        /// The device.
        bdf: Bdf,
    },
    /// The device tree does not have it.
    #[error("{bdf}: no node of the device tree is its host bridge")]
    Absent {
        /// The device.
        bdf: Bdf,
    },
    /// A property cannot be read, or makes no sense.
    #[error("{bdf}: {} of its host bridge cannot be understood", path.display())]
    Malformed {
        /// The device.
        bdf: Bdf,
        /// The property.
        path: PathBuf,
    },
    /// The offset between the two kinds of addresses changes within memory, so that a buffer may be in two places.
    #[error(
        "{bdf}: the offset that its host bridge adds to addresses changes within memory, at HPA {at} ({})",
        path.display()
    )]
    Seam {
        /// The device.
        bdf: Bdf,
        /// The property that says so.
        path: PathBuf,
        /// Where it changes.
        at: Hpa,
    },
    /// The bus reaches no memory.
    #[error("{bdf}: its host bridge reaches no memory ({})", path.display())]
    Reach {
        /// The device.
        bdf: Bdf,
        /// The property that says so.
        path: PathBuf,
    },
}

impl HostBridgeError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Acpi { .. } => {
                "boot the host with its device tree: acpi=off on its kernel's command line, if its firmware \
                 has one"
                    .to_owned()
            }
            Self::Absent { bdf } => format!("readlink -f /sys/bus/pci/devices/{bdf}"),
            Self::Malformed { path, .. } => format!("hexdump -C {}", path.display()),
            Self::Seam { path, .. } | Self::Reach { path, .. } => format!(
                "hexdump -C {}  # devices behind this bridge cannot be passed through; use a slot \
                 below another one",
                path.display()
            ),
        }
    }
}

/// The host bridge of `bdf`, on a machine with memory at `ram`.
///
/// # Errors
/// [`HostBridgeError`]
pub fn host_bridge(
    root: &SysRoot,
    bdf: Bdf,
    ram: &[Range<Hpa>],
) -> Result<HostBridge, HostBridgeError> {
    let node = Node::of_host_bridge(root, bdf).ok_or_else(|| {
        match root.exists("sys/firmware/acpi/tables") {
            true => HostBridgeError::Acpi { bdf },
            false => HostBridgeError::Absent { bdf },
        }
    })?;
    let malformed = |path| HostBridgeError::Malformed { bdf, path };
    let ranges = node.ranges("ranges").map_err(malformed)?;
    let windows = ranges.iter().flatten();
    let windows = windows.filter(|range| range.kind == Kind::Memory);
    Ok(HostBridge {
        windows: windows.map(AddressRange::addresses).collect(),
        dma: dma_map(bdf, &node, ram)?,
        is_coherent: node.is_coherent(),
    })
}

/// Where memory at `ram` is for devices. The first node with `dma-ranges` that are not empty, from the bridge upwards,
/// decides; above the bridge a node without the property ends the search (`of_dma_get_range`).
fn dma_map(bdf: Bdf, bridge: &Node, ram: &[Range<Hpa>]) -> Result<DmaMap, HostBridgeError> {
    for (depth, node) in bridge.and_parents().enumerate() {
        let ranges = node
            .ranges(DMA_RANGES)
            .map_err(|path| HostBridgeError::Malformed { bdf, path })?;
        let path = node.property(DMA_RANGES);
        match ranges {
            None if depth > 0 => break,
            None => {}
            Some(ranges) if ranges.is_empty() => {}
            Some(ranges) => {
                let ranges = ranges.iter().map(AddressRange::addresses).collect();
                let map = DmaMap::new(ranges, ram);
                if let Some(at) = map.seam(ram) {
                    return Err(HostBridgeError::Seam { bdf, path, at });
                }
                return match map == DmaMap::Ranges(Vec::new()) {
                    true => Err(HostBridgeError::Reach { bdf, path }),
                    false => Ok(map),
                };
            }
        }
    }
    Ok(DmaMap::Identity)
}

#[cfg(test)]
pub(crate) mod boards;
#[cfg(test)]
mod tests;
