// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `/dev/iommu`: address spaces, their page tables, and what is pinned in them.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use address::{Hpa, Iova};
use iommufd_bindings as iommufd;

use crate::error::{Error, GetPaError};
use crate::file_range::FileRange;
use crate::operation::IommufdOperation;
use crate::sys;
use crate::uapi::iommu_ioas_noiommu_get_pa;

/// Where the kernel offers iommufd.
pub const DEV_IOMMU: &str = "/dev/iommu";

/// An open `/dev/iommu`. Devices bound to it keep it alive in the kernel after it is dropped.
#[derive(Debug)]
pub struct Iommufd {
    pub(crate) file: File,
}

/// Number of an I/O address space within an [`Iommufd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoasId(pub(crate) u32);

/// Number of a page table within an [`Iommufd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HwptId(pub(crate) u32);

/// Number that an [`Iommufd`] gave to a device bound to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceId(pub(crate) u32);

impl Iommufd {
    /// Opens [`DEV_IOMMU`].
    ///
    /// # Errors
    /// [`Error::OpenIommufd`]: the kernel lacks iommufd, or the caller permission.
    pub fn open() -> Result<Self, Error> {
        let path = Path::new(DEV_IOMMU);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|source| Error::OpenIommufd {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self { file })
    }

    /// Makes an empty address space (`IOMMU_IOAS_ALLOC`).
    ///
    /// # Errors
    /// [`Error::Iommufd`]
    pub fn ioas_alloc(&self) -> Result<IoasId, Error> {
        let mut argument = iommufd::iommu_ioas_alloc::default();
        sys::ioas_alloc(self.as_fd(), &mut argument).map_err(|source| Error::Iommufd {
            operation: IommufdOperation::MakeAddressSpace,
            source,
        })?;
        Ok(IoasId(argument.out_ioas_id))
    }

    /// Makes a page table of `ioas` for `device` (`IOMMU_HWPT_ALLOC`) and pins what is mapped
    /// there. Unlike the table that attaching a device to the IOAS makes by itself, this one
    /// lives until [`destroy_hwpt`](Self::destroy_hwpt): a detach or a close unpins nothing.
    ///
    /// # Errors
    /// [`Error::Iommufd`]
    pub fn hwpt_alloc(&self, device: DeviceId, ioas: IoasId) -> Result<HwptId, Error> {
        let mut argument = iommufd::iommu_hwpt_alloc {
            dev_id: device.0,
            pt_id: ioas.0,
            ..Default::default()
        };
        sys::hwpt_alloc(self.as_fd(), &mut argument).map_err(|source| Error::Iommufd {
            operation: IommufdOperation::MakePageTable,
            source,
        })?;
        Ok(HwptId(argument.out_hwpt_id))
    }

    /// Destroys a page table that nothing is attached to, which unpins what only it pinned.
    ///
    /// # Errors
    /// [`Error::Iommufd`]
    pub fn destroy_hwpt(&self, hwpt: HwptId) -> Result<(), Error> {
        let mut argument = iommufd::iommu_destroy {
            id: hwpt.0,
            ..Default::default()
        };
        sys::destroy(self.as_fd(), &mut argument)
            .map(drop)
            .map_err(|source| Error::Iommufd {
                operation: IommufdOperation::DestroyPageTable,
                source,
            })
    }

    /// Maps `part` of a file at `iova` (`IOMMU_IOAS_MAP_FILE`, Linux 6.13)
    /// for reading and writing, and pins them if `ioas` has a page table. Holes are filled.
    /// A hugetlb memfd takes whole hugepages only.
    ///
    /// # Errors
    /// [`Error::Pin`], with `ENOMEM` where the limit on locked memory or the hugepage pool is
    /// exceeded or a page could not be moved to a place where it can stay.
    pub fn map_file(&self, ioas: IoasId, iova: Iova, part: FileRange<'_>) -> Result<(), Error> {
        let mut argument = iommufd::iommu_ioas_map_file {
            flags: iommufd::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA
                | iommufd::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE
                | iommufd::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE,
            ioas_id: ioas.0,
            fd: part.file.as_raw_fd(),
            start: part.offset,
            length: part.len,
            iova: iova.0,
            ..Default::default()
        };
        sys::ioas_map_file(self.as_fd(), &mut argument)
            .map(drop)
            .map_err(|source| Error::Pin {
                len: part.len,
                source,
            })
    }

    /// Removes the areas that [`map_file`](Self::map_file) made in the range, and unpins them at
    /// once. **No device that was given the memory's addresses may be a bus master any more.**
    ///
    /// # Errors
    /// [`Error::Iommufd`], with `ENOENT` where the range is empty or cuts an area.
    pub fn unmap(&self, ioas: IoasId, iova: Iova, len: u64) -> Result<(), Error> {
        let mut argument = iommufd::iommu_ioas_unmap {
            ioas_id: ioas.0,
            iova: iova.0,
            length: len,
            ..Default::default()
        };
        sys::ioas_unmap(self.as_fd(), &mut argument)
            .map(drop)
            .map_err(|source| Error::Iommufd {
                operation: IommufdOperation::Unmap,
                source,
            })
    }

    /// Removes all areas of `ioas`, of which there may be none, as [`unmap`](Self::unmap) does.
    ///
    /// # Errors
    /// [`Error::Iommufd`]
    pub fn unmap_all(&self, ioas: IoasId) -> Result<(), Error> {
        self.unmap(ioas, Iova(0), u64::MAX)
    }

    /// Asks for the physical address of the byte at `iova` and for how many bytes, at most `len`
    /// and at most to the end of the area, memory is contiguous from there
    /// (`IOMMU_IOAS_NOIOMMU_GET_PA`, Linux 7.3). The kernel walks its table once for every 4 KiB
    /// asked for.
    ///
    /// # Errors
    /// A [`GetPaError`] for each errno.
    pub fn get_pa(&self, ioas: IoasId, iova: Iova, len: u64) -> Result<(Hpa, u64), GetPaError> {
        let mut argument = iommu_ioas_noiommu_get_pa {
            ioas_id: ioas.0,
            iova: iova.0,
            length: len,
            ..Default::default()
        };
        sys::get_pa(self.as_fd(), &mut argument)?;
        Ok((Hpa(argument.out_phys), argument.length))
    }
}

impl AsFd for Iommufd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
