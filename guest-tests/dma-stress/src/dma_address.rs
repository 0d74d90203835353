//! Which address a device must be given to reach a piece of the guest's memory.
//!
//! A driver that wants `len` bytes at `gpa` moved asks [`DmaMap::address`], gives the device the
//! answer for as many bytes as it covers, and asks again for the rest. That is all there is to
//! DMA without an IOMMU from the guest's side; how the answer is found depends on how the monitor
//! laid the guest out.

use address::{Gpa, Iova};
use stress_format::Mode;

/// Bytes that a device finds one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The address for the device.
    pub start: Iova,
    /// How many of the bytes asked for follow from there; at least 1.
    pub len: u64,
}

/// The way from guest-physical addresses to those of devices.
#[derive(Clone, Copy, Debug, Default)]
pub struct DmaMap;

impl DmaMap {
    /// What the way is called.
    #[must_use]
    pub fn mode(self) -> Mode {
        Mode::Identity
    }

    /// The address under which a device finds the `len` bytes at `gpa`, of which it may find only
    /// the first ones there.
    ///
    /// *Identity*: RAM above 1 MiB stands at guest-physical addresses that are the host-physical
    /// ones, and so do BARs. A device needs nothing else, and contiguous is contiguous.
    #[must_use]
    pub fn address(self, gpa: Gpa, len: u64) -> Run {
        Run {
            start: Iova(gpa.0),
            len,
        }
    }
}
