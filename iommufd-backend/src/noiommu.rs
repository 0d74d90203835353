// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest memory pinned through the kernel for devices that no IOMMU translates.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

use address::{Bdf, Hpa, Iova};

use crate::device::VfioDevice;
use crate::error::Error;
use crate::evidence::Quiet;
use crate::extent::{Extent, merge};
use crate::file_range::FileRange;
use crate::iommufd::{HwptId, IoasId, Iommufd};

/// The smallest question that `IOMMU_IOAS_NOIOMMU_GET_PA` answers in one step, and the size of
/// pages of which nothing more is known.
const SMALL_PAGE: u64 = 4096;

/// Memory to pin, and where.
#[derive(Clone, Copy, Debug)]
pub struct PinRequest<'a> {
    /// The memory: a memfd or another file of shared memory.
    pub file: &'a File,
    /// First byte of it in `file`, a multiple of `page_size`.
    pub offset: u64,
    /// Bytes, a multiple of `page_size`, not 0.
    pub len: u64,
    /// Bytes that the backing guarantees to be contiguous and aligned in physical memory: the
    /// size of its hugepages, or 4096 where nothing is guaranteed (4 KiB pages, transparent
    /// hugepages).
    pub page_size: u64,
    /// The cookie: the address of the range in the I/O address space. A multiple of
    /// `page_size`, so that the table can use entries of that size.
    pub iova: Iova,
}

/// An I/O address space for devices in noiommu mode.
///
/// It is bookkeeping only: the kernel pins pages and remembers where they are, but no device sees
/// it. It allocates its page table instead of using the one whose lifetime is a device's, so that
/// memory stays pinned until [`unpin`](Self::unpin) or until the space and all its devices
/// are gone.
#[derive(Debug)]
pub struct NoiommuSpace {
    iommufd: Arc<Iommufd>,
    ioas: IoasId,
    hwpt: Option<HwptId>,
    /// The devices that may access the memory.
    attached: Vec<Bdf>,
}

impl NoiommuSpace {
    /// An empty space of `iommufd`.
    ///
    /// # Errors
    /// [`Error::Iommufd`]
    pub fn new(iommufd: Arc<Iommufd>) -> Result<Self, Error> {
        let ioas = iommufd.ioas_alloc()?;
        Ok(Self {
            iommufd,
            ioas,
            hwpt: None,
            attached: Vec::new(),
        })
    }

    /// Attaches `device`, which must be in noiommu mode and bound to the same [`Iommufd`]. The
    /// first one makes pinning possible.
    ///
    /// # Errors
    /// [`Error::Iommufd`], [`Error::Device`]
    pub fn attach(&mut self, device: &VfioDevice) -> Result<(), Error> {
        let hwpt = match self.hwpt {
            Some(hwpt) => hwpt,
            None => *self
                .hwpt
                .insert(self.iommufd.hwpt_alloc(device.id(), self.ioas)?),
        };
        device.attach(hwpt.0)?;
        self.attached.push(device.bdf());
        Ok(())
    }

    /// Lets go of everything: unmaps what is pinned and destroys the page table. There must be
    /// evidence that each device that was attached is quiet, and it must be closed by now.
    ///
    /// # Errors
    /// [`Error::NotQuiet`] for the first device without evidence; memory stays pinned then as long
    /// as a process has the [`Iommufd`] open. [`Error::Iommufd`] for the first step that failed;
    /// the later ones are tried nevertheless.
    pub fn release(mut self, evidence: &[Quiet]) -> Result<(), Error> {
        if let Some(bdf) = without_evidence(&self.attached, evidence) {
            return Err(Error::NotQuiet { bdf });
        }
        let unmapped = self
            .iommufd
            .unmap_all(self.ioas)
            .inspect(|()| log::debug!("guest memory is unpinned"));
        let destroyed = self
            .hwpt
            .take()
            .map_or(Ok(()), |hwpt| self.iommufd.destroy_hwpt(hwpt));
        unmapped.and(destroyed)
    }

    /// Pins a range of a file and returns its extents in IOVA order, merged. The pages do not move
    /// until [`unpin`](Self::unpin). Where they are is the caller's to remember: what is pinned has
    /// no place in a guest yet.
    ///
    /// # Errors
    /// [`Error::Iommufd`], [`Error::Translate`], [`Error::Misaligned`]; nothing is pinned then.
    pub fn pin(&mut self, request: &PinRequest<'_>) -> Result<Vec<Extent>, Error> {
        let part = FileRange {
            file: request.file.as_fd(),
            offset: request.offset,
            len: request.len,
        };
        self.iommufd.map_file(self.ioas, request.iova, part)?;
        let result = self.ask(request);
        if result.is_err() {
            // No device has this memory's addresses yet.
            let undone = self.iommufd.unmap(self.ioas, request.iova, request.len);
            if let Err(error) = undone {
                log::error!("{error}");
            }
        }
        result
    }

    /// Ends the pin that was made at `iova` with `len` bytes.
    ///
    /// No device may still master the bus: its DMA would land in memory that belongs to others.
    ///
    /// # Errors
    /// [`Error::Iommufd`], in particular if no pin covers exactly this range; the range stays pinned
    /// then.
    pub fn unpin(&mut self, iova: Iova, len: u64) -> Result<(), Error> {
        self.iommufd.unmap(self.ioas, iova, len)
    }

    /// Asks the kernel for the physical address of `iova` and how many of `length` bytes are
    /// contiguous from there.
    ///
    /// # Errors
    /// [`Error::Translate`]
    pub fn ask_kernel(&self, iova: Iova, length: u64) -> Result<(Hpa, u64), Error> {
        self.iommufd
            .get_pa(self.ioas, iova, length)
            .map_err(|source| Error::Translate { iova, source })
    }

    /// The extents behind a range that was mapped, merged.
    fn ask(&self, request: &PinRequest<'_>) -> Result<Vec<Extent>, Error> {
        let mut found = Vec::new();
        let mut done = 0;
        while done < request.len {
            let iova = request.iova + done;
            // Inside a hugepage contiguity is certain: one short question each, since the cost
            // of a long one grows with its length. Otherwise ask for all the rest.
            let (hpa, len) = if request.page_size > SMALL_PAGE {
                let (hpa, _) = self.ask_kernel(iova, SMALL_PAGE)?;
                if !hpa.is_aligned(request.page_size) {
                    return Err(Error::Misaligned {
                        iova,
                        hpa,
                        page_size: request.page_size,
                    });
                }
                (hpa, request.page_size)
            } else {
                self.ask_kernel(iova, request.len - done)?
            };
            found.push(Extent::new(iova, hpa, len)?);
            done += len;
        }
        Ok(merge(found))
    }
}

/// The first of `attached` that `evidence` does not speak of.
fn without_evidence(attached: &[Bdf], evidence: &[Quiet]) -> Option<Bdf> {
    let is_quiet = |bdf: &&Bdf| evidence.iter().any(|quiet| quiet.bdf() == **bdf);
    attached.iter().find(|bdf| !is_quiet(bdf)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Because;

    #[test]
    fn every_attached_device_needs_evidence_of_its_own() {
        let [disk, nic] = [1, 2].map(|bus| Bdf::new(0, bus, 0, 0).unwrap());
        let quiet = |bdf| Quiet::new(bdf, Because::Reset("flr".into()));
        assert_eq!(without_evidence(&[], &[]), None);
        assert_eq!(without_evidence(&[disk, nic], &[quiet(nic)]), Some(disk));
        let twice = [quiet(disk), quiet(disk)];
        assert_eq!(without_evidence(&[disk, nic], &twice), Some(nic));
        let all = [quiet(nic), quiet(disk)];
        assert_eq!(without_evidence(&[disk, nic], &all), None);
    }
}
