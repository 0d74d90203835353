// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest memory pinned for devices that no IOMMU translates.

use std::io;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use address::{Bdf, Hpa, Iova};

use crate::device::VfioDevice;
use crate::error::{Error, GetPaError};
use crate::evidence::Quiet;
use crate::extent::{Extent, merge};
use crate::iommufd::{HwptId, IoasId, Iommufd};
use crate::operation::Operation;
use crate::pin_request::PinRequest;
use crate::ring_space::RingSpace;

/// The smallest question that `IOMMU_IOAS_NOIOMMU_GET_PA` answers in one step, and the size of
/// pages of which nothing more is known.
const SMALL_PAGE: u64 = 4096;

/// An I/O address space for devices in noiommu mode.
///
/// It is bookkeeping only: pages are pinned and it is known where they are, but no device sees
/// it. Memory stays pinned until [`unpin`](Self::unpin) or [`release`](Self::release); if the space is dropped, as long
/// as this process runs, or with `/dev/iommu` as long as a process has that open.
#[derive(Debug)]
pub struct NoiommuSpace {
    pub(crate) holder: Holder,
    /// The devices that may access the memory.
    pub(crate) attached: Vec<Bdf>,
}

/// Where the physical addresses of pinned memory come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressSource {
    /// `/dev/iommu` reports them.
    Iommufd,
    /// `/proc/self/pagemap` shows them.
    Pagemap,
}

/// What pins memory.
#[derive(Debug)]
pub(crate) enum Holder {
    /// `/dev/iommu`, which also reports where it is. It allocates its page table instead of using the one whose
    /// lifetime is a device's.
    Iommufd {
        iommufd: Arc<Iommufd>,
        ioas: IoasId,
        hwpt: Option<HwptId>,
    },
    /// io_uring, for devices that are opened through their groups. Not dropped without evidence that the devices are
    /// quiet.
    Rings(ManuallyDrop<RingSpace>),
}

impl NoiommuSpace {
    /// An empty space of `iommufd`.
    ///
    /// # Errors
    /// [`Error::Iommufd`]
    pub fn new(iommufd: Arc<Iommufd>) -> Result<Self, Error> {
        let ioas = iommufd.ioas_alloc()?;
        Ok(Self {
            holder: Holder::Iommufd {
                iommufd,
                ioas,
                hwpt: None,
            },
            attached: Vec::new(),
        })
    }

    /// Whether [`of_groups`](Self::of_groups) is possible: memory can be pinned, and its addresses are shown.
    ///
    /// # Errors
    /// As [`of_groups`](Self::of_groups).
    pub fn check_groups() -> Result<(), Error> {
        RingSpace::new().map(drop)
    }

    /// An empty space for devices that are opened through their [groups](crate::Groups), whose memory this process
    /// pins by itself, and another one has to pin, too ([`RingPins`](crate::RingPins)).
    ///
    /// # Errors
    /// [`Error::IoUring`]: there are no such pins; [`Error::AddressesHidden`], [`Error::Read`]: it is not known where
    /// pages are.
    pub fn of_groups() -> Result<Self, Error> {
        Ok(Self {
            holder: Holder::Rings(ManuallyDrop::new(RingSpace::new()?)),
            attached: Vec::new(),
        })
    }

    /// Where its addresses come from.
    #[must_use]
    pub fn addresses(&self) -> AddressSource {
        match self.holder {
            Holder::Iommufd { .. } => AddressSource::Iommufd,
            Holder::Rings(_) => AddressSource::Pagemap,
        }
    }

    /// Attaches `device`, which must be in noiommu mode, and bound to the same [`Iommufd`] or opened through its
    /// group. The first one makes pinning possible.
    ///
    /// # Errors
    /// [`Error::Iommufd`], [`Error::Device`]
    pub fn attach(&mut self, device: &VfioDevice) -> Result<(), Error> {
        match (&mut self.holder, device.iommufd_id()) {
            (
                Holder::Iommufd {
                    iommufd,
                    ioas,
                    hwpt,
                },
                Some(id),
            ) => {
                let hwpt = match *hwpt {
                    Some(hwpt) => hwpt,
                    None => *hwpt.insert(iommufd.hwpt_alloc(id, *ioas)?),
                };
                device.attach(hwpt.0)?;
            }
            (Holder::Rings(_), None) => {}
            _ => {
                let errno = io::Error::from_raw_os_error(libc::EINVAL);
                return Err(device.failed(Operation::Attach, errno));
            }
        }
        self.attached.push(device.bdf());
        Ok(())
    }

    /// Lets go of everything: unmaps what is pinned and destroys the page table. There must be
    /// evidence that each device that was attached is quiet, and it must be closed by now.
    ///
    /// # Errors
    /// [`Error::NotQuiet`] for the first device without evidence; memory stays pinned then. [`Error::Iommufd`] for the
    /// first step that failed; the later ones are tried nevertheless.
    pub fn release(self, evidence: &[Quiet]) -> Result<(), Error> {
        if let Some(bdf) = without_evidence(&self.attached, evidence) {
            return Err(Error::NotQuiet { bdf });
        }
        let result = match self.holder {
            Holder::Iommufd {
                iommufd,
                ioas,
                hwpt,
            } => {
                let unmapped = iommufd.unmap_all(ioas);
                unmapped.and(hwpt.map_or(Ok(()), |hwpt| iommufd.destroy_hwpt(hwpt)))
            }
            Holder::Rings(space) => {
                drop(ManuallyDrop::into_inner(space));
                Ok(())
            }
        };
        result.inspect(|()| log::debug!("guest memory is unpinned"))
    }

    /// Pins a range of a file and returns its extents in IOVA order, merged. The pages do not move
    /// until [`unpin`](Self::unpin). Where they are is the caller's to remember: what is pinned has
    /// no place in a guest yet.
    ///
    /// # Errors
    /// [`Error::Iommufd`], [`Error::Translate`], [`Error::Misaligned`]; of devices with groups [`Error::IoUring`],
    /// [`Error::Pin`], [`Error::Map`], [`Error::Read`], [`Error::AddressesHidden`], [`Error::PageAbsent`]. Nothing is
    /// pinned then.
    pub fn pin(&mut self, request: &PinRequest<'_>) -> Result<Vec<Extent>, Error> {
        let (iommufd, ioas) = match &mut self.holder {
            Holder::Iommufd { iommufd, ioas, .. } => (iommufd, *ioas),
            Holder::Rings(space) => return space.pin(request),
        };
        iommufd.map_file(ioas, request.iova, request.part())?;
        let result = ask(iommufd, ioas, request);
        // No device has this memory's addresses yet.
        if result.is_err()
            && let Err(error) = iommufd.unmap(ioas, request.iova, request.len)
        {
            log::error!("Memory stays pinned until the end of this run: {error}");
        }
        result
    }

    /// Ends the pins in `len` bytes from `iova` on.
    ///
    /// No device may still master the bus: its DMA would land in memory that belongs to others.
    ///
    /// # Errors
    /// [`Error::Iommufd`], [`Error::IoUring`], in particular if there is none, or the range cuts one; all stay pinned
    /// then.
    pub fn unpin(&mut self, iova: Iova, len: u64) -> Result<(), Error> {
        match &mut self.holder {
            Holder::Iommufd { iommufd, ioas, .. } => iommufd.unmap(*ioas, iova, len),
            Holder::Rings(space) => space.unpin(iova, len),
        }
    }

    /// Asks the kernel for the physical address of `iova` and how many of `length` bytes are
    /// contiguous from there.
    ///
    /// # Errors
    /// [`Error::Translate`], also for memory that `/dev/iommu` does not pin.
    pub fn ask_kernel(&self, iova: Iova, length: u64) -> Result<(Hpa, u64), Error> {
        match &self.holder {
            Holder::Iommufd { iommufd, ioas, .. } => get_pa(iommufd, *ioas, iova, length),
            Holder::Rings(_) => Err(Error::Translate {
                iova,
                source: GetPaError::NotMapped,
            }),
        }
    }
}

fn get_pa(iommufd: &Iommufd, ioas: IoasId, iova: Iova, length: u64) -> Result<(Hpa, u64), Error> {
    iommufd
        .get_pa(ioas, iova, length)
        .map_err(|source| Error::Translate { iova, source })
}

/// The extents behind a range that was mapped, merged.
fn ask(iommufd: &Iommufd, ioas: IoasId, request: &PinRequest<'_>) -> Result<Vec<Extent>, Error> {
    let mut found = Vec::new();
    let mut done = 0;
    while done < request.len {
        let iova = request.iova + done;
        // Inside a hugepage contiguity is certain: one short question each, since the cost
        // of a long one grows with its length. Otherwise ask for all the rest.
        let extent = if request.page_size > SMALL_PAGE {
            let (hpa, _) = get_pa(iommufd, ioas, iova, SMALL_PAGE)?;
            request.page(iova, hpa)?
        } else {
            let (hpa, len) = get_pa(iommufd, ioas, iova, request.len - done)?;
            Extent::new(iova, hpa, len)?
        };
        done += extent.len();
        found.push(extent);
    }
    Ok(merge(found))
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
