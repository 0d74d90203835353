// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The PCI bus that the guest sees.

pub(crate) mod access;
mod bar;
mod bus_windows;
mod config;
mod ecam;
mod function;
mod host_bridge;
mod intx;
mod msi;
mod msix;
mod root;
#[cfg(test)]
mod tests;

pub use access::{DwordWrite, read_part};
pub use bar::{Bar, BarError, Bars};
pub use bus_windows::{BusWindow, BusWindows};
pub use config::{CapabilityError, EmulatedConfig, Identity};
pub use function::{PciFunction, Region, Space, Window, Windows};
pub use host_bridge::HostBridge;
pub use intx::Pin;
pub use msi::{Msi, MsiMessage};
pub(crate) use msix::control_write;
pub use msix::{ENTRY_SIZE, MAX_VECTORS, Msix, MsixLayout, Placement};
pub use pci_config::BarKind;
pub use root::{CONFIG_PORT, CONFIG_PORTS, ECAM_SIZE, PciRoot, RootError};
