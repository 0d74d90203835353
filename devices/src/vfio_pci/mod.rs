//! A host PCI function shown to the guest.

mod host;

pub use host::{HostError, HostFunction, HostInfo, InterruptKind, MsiMessage, Region, RegionInfo};
