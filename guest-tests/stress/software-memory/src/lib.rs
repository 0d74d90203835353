// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Pinned memory without kernel support and without a device, in place of
//! [`NoiommuSpace`](iommufd_backend::NoiommuSpace).
//!
//! It gives memory synthetic physical addresses, deliberately scattered by a seeded allocator,
//! and plays the memory bus for emulated devices: a [`DmaPort`] reaches memory only through an
//! AMDv1 table, and refuses what is not in it. Real devices without an IOMMU would write
//! somewhere else instead; here the mistake is counted and named.
//!
//! ```
//! use address::{BusAddr, Hpa, Iova};
//! use iommufd_backend::PinRequest;
//! use software_memory::{BusAddress, PhysicalMemory, SoftwareBackend};
//!
//! // Memory from 4 GiB to 5 GiB, in runs of at most 64 KiB.
//! let physical = PhysicalMemory::new([Hpa(4 << 30)..Hpa(5 << 30)], 64 << 10, 1);
//! let mut backend = SoftwareBackend::new(physical);
//! let file = tempfile::tempfile()?;
//! file.set_len(1 << 20)?;
//! let extents = backend.pin(&PinRequest {
//!     file: &file,
//!     offset: 0,
//!     len: 1 << 20,
//!     page_size: 4096,
//!     iova: Iova(1 << 30),
//! })?;
//! assert!(extents.len() >= 16);
//!
//! // An emulated device reaches what is pinned, and nothing else.
//! let port = backend.port();
//! port.write(BusAddress::Bus(BusAddr::identity(extents[0].hpa())), b"data")?;
//! assert!(port.write(BusAddress::Bus(BusAddr(0)), b"data").is_err());
//! assert_eq!(port.fault_count(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod physical;
mod pinned;
mod port;

use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use address::{Hpa, Iova};
use vm_memory::mmap::MmapRegionError;
use vm_memory::{FileOffset, MmapRegion};

use iommufd_backend::PinRequest;
use iommufd_backend::extent::{Extent, ExtentError, merge};

pub use physical::{OutOfMemory, PhysicalMemory};
pub use pinned::{Lookup, PinnedMap, PinnedMapError, Run, TranslateError};
pub use port::{BusAddress, Direction, DmaFault, DmaPort};

/// Why the software backend refused to pin or unpin.
#[derive(Debug, thiserror::Error)]
pub enum SoftwareError {
    /// The request is not what [`PinRequest`] asks for.
    #[error(
        "Cannot pin {len:#x} bytes from offset {offset:#x} at IOVA {iova}: \
         these must be multiples of the page size, {page_size:#x} bytes, and the length not 0"
    )]
    Misaligned {
        /// Offset in the file.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Page size of the request.
        page_size: u64,
        /// Address of the range.
        iova: Iova,
    },
    /// The range passes the end of its space.
    #[error(transparent)]
    Range(#[from] ExtentError),
    /// The file cannot be mapped, for instance because it is too short.
    #[error("Cannot map {len:#x} bytes from offset {offset:#x} of the memory to pin")]
    Map {
        /// Offset in the file.
        offset: u64,
        /// Bytes.
        len: u64,
        /// The cause.
        #[source]
        source: MmapRegionError,
    },
    /// The synthetic physical memory is used up.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    /// The map of what is pinned refused, for instance because the range is pinned already.
    #[error(transparent)]
    Pinned(#[from] PinnedMapError),
    /// No pin begins there with that length.
    #[error("None of the {len:#x} bytes at IOVA {iova} are pinned")]
    NotPinned {
        /// Where it would begin.
        iova: Iova,
        /// Bytes.
        len: u64,
    },
}

/// Address space with synthetic physical addresses.
#[derive(Debug)]
pub struct SoftwareBackend {
    physical: PhysicalMemory,
    shared: Arc<port::Shared>,
}

impl SoftwareBackend {
    /// A space whose pages come from `physical`.
    #[must_use]
    pub fn new(physical: PhysicalMemory) -> Self {
        Self {
            physical,
            shared: Arc::default(),
        }
    }

    /// Access to the memory for an emulated device.
    #[must_use]
    pub fn port(&self) -> DmaPort {
        DmaPort::new(Arc::clone(&self.shared))
    }

    /// Enters everywhere what has got its physical addresses.
    fn enter(&self, extents: &[Extent], region: MmapRegion) -> Result<(), SoftwareError> {
        let on_bus = extents.iter().map(swapped).collect::<Result<Vec<_>, _>>()?;
        let mut bus = write(&self.shared.bus);
        bus.iovas.insert(extents)?;
        if let Err(error) = bus.hpas.insert(&on_bus) {
            forget(&mut bus.iovas, extents)?;
            return Err(error.into());
        }
        if let Some(first) = extents.first() {
            bus.regions.insert(first.iova(), region);
        }
        Ok(())
    }

    /// Pins a range of a file and returns its extents in IOVA order, merged.
    ///
    /// # Errors
    ///
    /// [`SoftwareError`]; nothing is pinned then.
    pub fn pin(&mut self, request: &PinRequest<'_>) -> Result<Vec<Extent>, SoftwareError> {
        let &PinRequest {
            file,
            offset,
            len,
            page_size,
            iova,
        } = request;
        let sound = page_size.is_power_of_two() && page_size >= PAGE && len != 0;
        if !sound || !(offset | len | iova.0).is_multiple_of(page_size) {
            return Err(SoftwareError::Misaligned {
                offset,
                len,
                page_size,
                iova,
            });
        }
        // The whole range as one: its ends do not wrap.
        let whole = Extent::new(iova, Hpa(0), len)?;
        let map_error = |source| SoftwareError::Map {
            offset,
            len,
            source,
        };
        let region = file
            .try_clone()
            .map_err(MmapRegionError::Mmap)
            .and_then(|file| map(FileOffset::new(file, offset), len))
            .map_err(map_error)?;
        let runs = self.physical.take(len, page_size)?;
        let result = place(whole, &runs)
            .map_err(SoftwareError::from)
            .and_then(|extents| self.enter(&extents, region).map(|()| extents));
        if result.is_err() {
            self.physical.give_back(runs);
        }
        result
    }

    /// Ends the pin that was made at `iova` with `len` bytes. Waits for transfers that are under way.
    ///
    /// # Errors
    ///
    /// [`SoftwareError::NotPinned`] if no pin covers exactly this range; the range stays pinned then.
    pub fn unpin(&mut self, iova: Iova, len: u64) -> Result<(), SoftwareError> {
        let mut bus = write(&self.shared.bus);
        let region = bus.regions.get(&iova);
        if region.is_none_or(|region| region.size() as u64 != len) {
            return Err(SoftwareError::NotPinned { iova, len });
        }
        let gone: Vec<Extent> = bus
            .iovas
            .extents()
            .iter()
            .filter(|e| iova <= e.iova() && e.iova() - iova < len)
            .copied()
            .collect();
        for extent in &gone {
            bus.hpas.remove(Iova(extent.hpa().0), extent.len())?;
        }
        bus.iovas.remove(iova, len)?;
        bus.regions.remove(&iova);
        self.physical
            .give_back(gone.iter().map(|e| e.hpa()..e.hpa_end()));
        Ok(())
    }
}

/// The smallest page.
const PAGE: u64 = 4096;

fn map(file: FileOffset, len: u64) -> Result<MmapRegion, MmapRegionError> {
    let end = file.start().checked_add(len);
    let end = end.ok_or(MmapRegionError::InvalidOffsetLength)?;
    let size = usize::try_from(len).map_err(|_| MmapRegionError::InvalidOffsetLength)?;
    let file_len = file.file().metadata().map_err(MmapRegionError::Mmap)?.len();
    if end > file_len {
        return Err(MmapRegionError::MappingPastEof);
    }
    MmapRegion::from_file(file, size)
}

/// The extents of `whole` when its bytes lie in `runs`, one after another.
fn place(whole: Extent, runs: &[std::ops::Range<Hpa>]) -> Result<Vec<Extent>, ExtentError> {
    let mut extents = Vec::with_capacity(runs.len());
    let mut iova = whole.iova();
    for run in runs {
        let len = run.end - run.start;
        extents.push(Extent::new(iova, run.start, len)?);
        iova = iova + len;
    }
    Ok(merge(extents))
}

/// The extent as the bus sees it: from physical address to IOVA.
fn swapped(extent: &Extent) -> Result<Extent, ExtentError> {
    Extent::new(Iova(extent.hpa().0), Hpa(extent.iova().0), extent.len())
}

fn forget(map: &mut PinnedMap, extents: &[Extent]) -> Result<(), PinnedMapError> {
    extents
        .iter()
        .try_for_each(|extent| map.remove(extent.iova(), extent.len()))
}

/// A device that panicked has left the tables whole: it only reads them.
fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
