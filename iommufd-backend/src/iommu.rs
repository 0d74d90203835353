// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest memory mapped for devices that an IOMMU translates.

use std::sync::Arc;

use address::Iova;

use crate::device::VfioDevice;
use crate::error::Error;
use crate::file_range::FileRange;
use crate::iommufd::{IoasId, Iommufd};

/// An I/O address space for devices behind an IOMMU, which may address what is mapped in it and
/// nothing else. A device in noiommu mode must never be attached here: nothing would keep it
/// inside.
#[derive(Debug)]
pub struct IommuSpace {
    pub(crate) iommufd: Arc<Iommufd>,
    pub(crate) ioas: IoasId,
}

impl IommuSpace {
    /// An empty space of `iommufd`.
    ///
    /// # Errors
    /// [`Error::Iommufd`]
    pub fn new(iommufd: Arc<Iommufd>) -> Result<Self, Error> {
        let ioas = iommufd.ioas_alloc()?;
        Ok(Self { iommufd, ioas })
    }

    /// Attaches `device`, which must be behind an IOMMU and bound to the same [`Iommufd`]. The
    /// kernel makes as many page tables as the IOMMUs of all devices need.
    ///
    /// # Errors
    /// [`Error::Device`]
    pub fn attach(&self, device: &VfioDevice) -> Result<(), Error> {
        device.attach(self.ioas.0)
    }

    /// Maps and pins `part` of a file at `iova`.
    ///
    /// # Errors
    /// [`Error::Pin`]
    pub fn map(&self, iova: Iova, part: FileRange<'_>) -> Result<(), Error> {
        self.iommufd.map_file(self.ioas, iova, part)
    }

    /// Unmaps and unpins everything. Whatever a device still sends is refused by the IOMMU.
    ///
    /// # Errors
    /// [`Error::Iommufd`]
    pub fn release(self) -> Result<(), Error> {
        self.iommufd.unmap_all(self.ioas)
    }
}
