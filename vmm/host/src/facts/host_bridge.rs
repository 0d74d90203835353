// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The PCI host bridge of a device on a machine that a device tree describes: where BARs may be, whether addresses on
//! the bus are the CPU's, and whether devices see the CPU's caches (Devicetree Specification v0.4, section 2.3; Open
//! Firmware, PCI Bus Binding 2.1, section 2.2.1; Linux, drivers/of/address.c).

mod node;
mod range;

use std::ops::Range;
use std::path::PathBuf;

use address::{Bdf, BusAddr, Hpa};

use self::node::Node;
use self::range::{AddressRange, Kind};
use crate::sys_root::SysRoot;

/// What is known of a host bridge that leaves addresses as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostBridge {
    /// Where memory BARs may be.
    pub windows: Vec<Range<Hpa>>,
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
    /// Addresses on the bus are others than the CPU's.
    #[error(
        "{bdf}: its host bridge adds an offset to addresses: {bus} on the bus is {cpu} for the CPU ({})",
        path.display()
    )]
    Offset {
        /// The device.
        bdf: Bdf,
        /// The property that says so.
        path: PathBuf,
        /// An address on the bus.
        bus: BusAddr,
        /// The CPU's for the same.
        cpu: Hpa,
    },
    /// The bus does not reach all memory.
    #[error(
        "{bdf}: its host bridge does not reach memory at {:#x}-{:#x} ({})",
        ram.start, ram.end, path.display()
    )]
    Reach {
        /// The device.
        bdf: Bdf,
        /// The property that says so.
        path: PathBuf,
        /// Memory that it does not reach in whole.
        ram: Range<Hpa>,
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
            Self::Offset { path, .. } => format!(
                "hexdump -C {}  # devices behind this bridge cannot be passed through; use a slot \
                 below another one",
                path.display()
            ),
            Self::Reach { .. } => {
                "boot the host with mem=SIZE on its kernel's command line, so that the bridge reaches all of it"
                    .to_owned()
            }
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
    let mut windows = Vec::new();
    for range in node
        .ranges("ranges")
        .map_err(malformed)?
        .unwrap_or_default()
    {
        if range.kind == Kind::Memory {
            no_offset(bdf, &node, "ranges", &range)?;
            windows.push(range.cpu());
        }
    }
    check_dma(bdf, &node, ram)?;
    Ok(HostBridge {
        windows,
        is_coherent: node.is_coherent(),
    })
}

/// Refuses a bridge whose devices do not have the CPU's addresses for memory. The first node with `dma-ranges` that are
/// not empty, from the bridge upwards, decides (`of_dma_get_range`).
fn check_dma(bdf: Bdf, bridge: &Node, ram: &[Range<Hpa>]) -> Result<(), HostBridgeError> {
    const PROPERTY: &str = "dma-ranges";
    for node in bridge.and_parents() {
        let ranges = node
            .ranges(PROPERTY)
            .map_err(|path| HostBridgeError::Malformed { bdf, path })?;
        let Some(ranges) = ranges.filter(|ranges| !ranges.is_empty()) else {
            continue;
        };
        for range in &ranges {
            no_offset(bdf, &node, PROPERTY, range)?;
        }
        let reached: Vec<_> = ranges.iter().map(AddressRange::cpu).collect();
        return match ram.iter().find(|ram| !covers(&reached, ram)) {
            None => Ok(()),
            Some(ram) => Err(HostBridgeError::Reach {
                bdf,
                path: node.property(PROPERTY),
                ram: ram.clone(),
            }),
        };
    }
    Ok(())
}

fn no_offset(
    bdf: Bdf,
    node: &Node,
    property: &str,
    range: &AddressRange,
) -> Result<(), HostBridgeError> {
    if range.bus == range.cpu {
        return Ok(());
    }
    Err(HostBridgeError::Offset {
        bdf,
        path: node.property(property),
        bus: BusAddr(range.bus),
        cpu: Hpa(range.cpu),
    })
}

/// Whether `ranges` together have all of `wanted`.
fn covers(ranges: &[Range<Hpa>], wanted: &Range<Hpa>) -> bool {
    let mut at = wanted.start;
    while at < wanted.end {
        match ranges.iter().find(|range| range.contains(&at)) {
            Some(range) => at = range.end,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests;
