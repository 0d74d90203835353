// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A machine that needs only KVM from the host, for demos and tests.

use std::error::Error;
use std::fmt;
use std::ops::Range;

use address::Hpa;
use devices::vfio_pci::HostFunction;
use iommufd_backend::PinRequest;
use iommufd_backend::extent::Extent;

use super::address_map::AddressMap;
use super::lines::InterruptLines;
use super::worker::Worker;
use crate::passthrough::dma_path::DmaPath;

/// A machine whose physical memory is synthetic and whose only device is software, which reaches memory by the
/// addresses of its table alone.
pub trait SyntheticMachine: fmt::Debug + Send {
    /// The guest's address map outside RAM.
    fn address_map(&self) -> AddressMap;

    /// The memory BARs of the device, each with its name, and where they are.
    fn bars(&self) -> Vec<(String, Range<Hpa>)>;

    /// How the DMA of the device reaches guest memory.
    fn dma_path(&self) -> &DmaPath;

    /// Pins a range of a file in the physical memory and returns its extents in IOVA order, merged.
    ///
    /// # Errors
    /// Why it cannot be pinned: above all, that the physical memory has no room.
    fn pin(
        &mut self,
        request: &PinRequest<'_>,
    ) -> Result<Vec<Extent>, Box<dyn Error + Send + Sync>>;

    /// The device, at work, with its interrupts by `lines`.
    ///
    /// # Errors
    /// Why it does not work.
    fn start(
        &mut self,
        lines: InterruptLines,
    ) -> Result<SyntheticDevice, Box<dyn Error + Send + Sync>>;
}

/// The device of a synthetic machine.
pub struct SyntheticDevice {
    /// What the guest accesses.
    pub function: Box<dyn HostFunction>,
    /// What does its work.
    pub worker: Box<dyn Worker>,
}

impl fmt::Debug for SyntheticDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyntheticDevice")
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}
