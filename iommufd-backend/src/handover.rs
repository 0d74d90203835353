// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a process passes to another one with its open descriptors, so that the other one has the same devices, address
//! spaces and pinned memory.
//!
//! A pin by `/dev/iommu` belongs to the open file, so it lasts as long as a process has that. All of this is for devices
//! that are bound to an [`Iommufd`]: pins by io_uring end with the process that made them.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use address::{Bdf, Hpa};

use crate::cdev::CdevKind;
use crate::device::{Link, VfioDevice};
use crate::dma_width::DmaWidth;
use crate::error::Error;
use crate::file_range::FileRange;
use crate::iommu::IommuSpace;
use crate::iommufd::{DeviceId, HwptId, IoasId, Iommufd};
use crate::mapping::Mapping;
use crate::noiommu::{Holder, NoiommuSpace};
use crate::own_pages::{NAME, OwnPages, PAGE};
use crate::pagemap::Pagemap;

/// The numbers of an address space for devices in noiommu mode within its [`Iommufd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoiommuIds {
    /// The I/O address space.
    pub ioas: u32,
    /// The page table, without which nothing is pinned.
    pub hwpt: Option<u32>,
}

impl From<OwnedFd> for Iommufd {
    /// `/dev/iommu`, open.
    fn from(file: OwnedFd) -> Self {
        Self { file: file.into() }
    }
}

impl VfioDevice {
    /// The device's open file and its number in its [`Iommufd`]; `None` if it was opened through its group.
    #[must_use]
    pub fn to_hand_over(&self) -> Option<(BorrowedFd<'_>, u32)> {
        let DeviceId(id) = self.iommufd_id()?;
        Some((self.fd(), id))
    }

    /// The device `bdf` of which `file` is the open character device, with the number `id` in `iommufd`. Reads the
    /// device's facts again: the kernel, not the sender, reports them.
    ///
    /// # Errors
    /// [`Error::Device`], with `EINVAL` if it is not bound (drivers/vfio/vfio_main.c vfio_device_fops_unl_ioctl);
    /// [`Error::DeviceUnusable`]
    pub fn taken_over(
        bdf: Bdf,
        kind: CdevKind,
        (file, id): (OwnedFd, u32),
        iommufd: Arc<Iommufd>,
    ) -> Result<Self, Error> {
        let link = Link::Iommufd {
            id: DeviceId(id),
            _iommufd: iommufd,
        };
        Self::describe(bdf, kind, file.into(), link)
    }
}

impl NoiommuSpace {
    /// The space's numbers; `None` if io_uring pins its memory.
    #[must_use]
    pub fn to_hand_over(&self) -> Option<NoiommuIds> {
        match &self.holder {
            Holder::Iommufd { ioas, hwpt, .. } => Some(NoiommuIds {
                ioas: ioas.0,
                hwpt: hwpt.map(|hwpt| hwpt.0),
            }),
            Holder::Rings(_) => None,
        }
    }

    /// The space with these numbers in `iommufd`, to which the devices `attached` are attached.
    #[must_use]
    pub fn taken_over(iommufd: Arc<Iommufd>, ids: NoiommuIds, attached: Vec<Bdf>) -> Self {
        let holder = Holder::Iommufd {
            iommufd,
            ioas: IoasId(ids.ioas),
            hwpt: ids.hwpt.map(HwptId),
        };
        Self { holder, attached }
    }
}

impl IommuSpace {
    /// The number of the I/O address space in its [`Iommufd`].
    #[must_use]
    pub fn to_hand_over(&self) -> u32 {
        self.ioas.0
    }

    /// The space with this number in `iommufd`.
    #[must_use]
    pub fn taken_over(iommufd: Arc<Iommufd>, ioas: u32) -> Self {
        let ioas = IoasId(ioas);
        Self { iommufd, ioas }
    }
}

impl OwnPages {
    /// The pages that `file` consists of, which are pinned at `hpas`, at least one, in their order. The file must have
    /// the seals of [`OwnPages::new`]: it cannot be cut short.
    ///
    /// # Errors
    /// [`Error::Map`], with `EINVAL` if the file has another size or can be cut short.
    pub fn taken_over(file: OwnedFd, hpas: Vec<Hpa>) -> Result<Self, Error> {
        let len = hpas.len() as u64 * PAGE;
        let failed = |errno: rustix::io::Errno| Error::Map {
            len,
            what: NAME,
            source: errno.into(),
        };
        let file = File::from(file);
        let found = rustix::fs::fstat(&file).map_err(failed)?.st_size;
        let seals = rustix::fs::fcntl_get_seals(&file).map_err(failed)?;
        if hpas.is_empty() || u64::try_from(found) != Ok(len) || !seals.contains(Self::SEALS) {
            return Err(failed(rustix::io::Errno::INVAL));
        }
        let mut mapping = Mapping::reserve(len, 0)?;
        mapping.place(0, FileRange::first(&file, len), NAME)?;
        Ok(Self {
            file,
            mapping: Arc::new(mapping),
            count: hpas.len(),
            hpas,
        })
    }
}

impl DmaWidth {
    /// What another process was told by the kernel.
    #[must_use]
    pub fn taken_over(known: Option<u32>) -> Self {
        Self { known }
    }
}

impl Pagemap {
    /// Opens it for the process `pid`, whose pages it then shows, whichever process reads it: with CAP_SYS_ADMIN of this
    /// process also where they are (fs/proc/task_mmu.c pagemap_open, pagemap_read).
    ///
    /// # Errors
    /// [`Error::Read`]
    pub fn open_for(pid: u32) -> Result<Self, Error> {
        Self::open_at(format!("/proc/{pid}/pagemap").into())
    }
}

impl AsFd for Pagemap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::extent::Extent;
    use address::Iova;

    #[test]
    fn pages_are_taken_over_with_their_contents_and_addresses() {
        let mut pages = OwnPages::new(2).unwrap();
        pages
            .pin(Iova(0), |request| {
                Extent::new(request.iova, Hpa(0x7000), request.len).map(|extent| vec![extent])
            })
            .unwrap();
        pages.words()[512].store(7, std::sync::atomic::Ordering::Relaxed);
        let file = || pages.file().file.try_clone_to_owned().unwrap();
        let again = OwnPages::taken_over(file(), pages.hpas().to_vec()).unwrap();
        let word = again.words()[512].load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!((word, again.hpas()), (7, pages.hpas()));
        for hpas in [vec![], vec![Hpa(0x7000)], vec![Hpa(0); 3]] {
            assert!(OwnPages::taken_over(file(), hpas).is_err());
        }
    }

    #[test]
    fn a_file_that_can_be_cut_short_is_refused() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[0; 4096]).unwrap();
        assert!(OwnPages::taken_over(file.into(), vec![Hpa(0x7000)]).is_err());
        let flags = rustix::fs::MemfdFlags::ALLOW_SEALING;
        let unsealed = rustix::fs::memfd_create("pages", flags).unwrap();
        rustix::fs::ftruncate(&unsealed, 4096).unwrap();
        assert!(OwnPages::taken_over(unsealed, vec![Hpa(0x7000)]).is_err());
    }

    #[test]
    fn the_pagemap_of_a_process_is_opened_by_its_number() {
        let own = Pagemap::open_for(std::process::id()).unwrap();
        let file = own.as_fd().try_clone_to_owned().unwrap();
        let variable = 0_u8;
        let here = address::Hva(std::ptr::from_ref(&variable).expose_provenance() as u64);
        let shown = |pagemap: &Pagemap| pagemap.pages(here, 1, 4096).next().unwrap().unwrap();
        assert_eq!(shown(&own), shown(&Pagemap::from(File::from(file))));
        assert!(Pagemap::open_for(u32::MAX).is_err());
    }
}
