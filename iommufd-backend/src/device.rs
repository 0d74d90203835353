// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A PCI function that VFIO gave to this process, and its registers.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use address::{Bdf, Hpa};
use vfio_bindings::bindings::vfio;

use crate::cdev::{Cdev, CdevKind};
use crate::error::Error;
use crate::file_range::FileRange;
use crate::group::{GroupNode, Groups};
use crate::iommufd::{DeviceId, Iommufd};
use crate::mapping::Mapping;
use crate::operation::Operation;
use crate::pci_sysfs::PciSysfs;
use crate::region::Region;
use crate::retry::retried;
use crate::sys;

/// Regions that a PCI function has, `VFIO_PCI_BAR0_REGION_INDEX` to `…_CONFIG_REGION_INDEX`.
const REGIONS: u32 = vfio::VFIO_PCI_CONFIG_REGION_INDEX + 1;

/// A VFIO device bound to an [`Iommufd`], or opened through its group.
///
/// Dropping it closes the device, on which the kernel turns bus mastering off, resets
/// the function and only then lets go of pinned memory (drivers/vfio/vfio_main.c
/// vfio_df_device_last_close before vfio_df_iommufd_unbind; through a group it pins none) —
/// unless a mapped BAR or a duplicate of the file keeps it open. [`quiesce`](crate::quiesce) comes first, always.
#[derive(Debug)]
pub struct VfioDevice {
    bdf: Bdf,
    kind: CdevKind,
    // Before `link`: the device is closed before its group is.
    file: File,
    link: Link,
    regions: Vec<Region>,
    resettable: bool,
}

/// By what the device belongs to this process.
#[derive(Debug)]
pub(crate) enum Link {
    /// It is bound to this, by its number there.
    Iommufd {
        id: DeviceId,
        _iommufd: Arc<Iommufd>,
    },
    /// Its group is one of these.
    Group(Arc<Groups>),
}

impl VfioDevice {
    /// Binds `cdev` to `iommufd`, upon which the kernel resets the function and turns its bus
    /// mastering off, and reads the device's facts.
    ///
    /// # Errors
    /// [`Error::Device`], [`Error::DeviceUnusable`]
    pub fn bind(cdev: Cdev, iommufd: Arc<Iommufd>) -> Result<Self, Error> {
        let Cdev { bdf, kind, file } = cdev;
        let mut argument = vfio::vfio_device_bind_iommufd {
            iommufd: iommufd.as_fd().as_raw_fd(),
            ..Default::default()
        };
        retried(|| sys::bind_iommufd(file.as_fd(), &mut argument)).map_err(|source| {
            Error::Device {
                bdf,
                operation: Operation::Bind,
                source,
            }
        })?;
        let link = Link::Iommufd {
            id: DeviceId(argument.out_devid),
            _iommufd: iommufd,
        };
        Self::describe(bdf, kind, file, link)
    }

    /// Opens `bdf`, a device in noiommu mode, through its group `node`, which becomes one of `groups`. The kernel
    /// resets the function and turns its bus mastering off. Then reads the device's facts.
    ///
    /// # Errors
    /// [`Error::OpenGroup`], [`Error::OpenContainer`], [`Error::Device`], [`Error::DeviceUnusable`]
    pub fn open(
        sysfs: &PciSysfs,
        bdf: Bdf,
        node: GroupNode,
        groups: Arc<Groups>,
    ) -> Result<Self, Error> {
        let file = groups.open_device(sysfs, bdf, node)?.into();
        Self::describe(bdf, CdevKind::Noiommu, file, Link::Group(groups))
    }

    /// The device that `file` is, with its facts.
    pub(crate) fn describe(
        bdf: Bdf,
        kind: CdevKind,
        file: File,
        link: Link,
    ) -> Result<Self, Error> {
        let mut info = vfio::vfio_device_info::default();
        sys::device_info(file.as_fd(), &mut info).map_err(|source| Error::Device {
            bdf,
            operation: Operation::Describe,
            source,
        })?;
        if info.flags & vfio::VFIO_DEVICE_FLAGS_PCI == 0 || info.num_regions < REGIONS {
            return Err(Error::DeviceUnusable {
                bdf,
                reason: "VFIO does not report it as a PCI function".into(),
            });
        }
        let regions = (0..REGIONS)
            .map(|index| region(bdf, &file, index))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            bdf,
            kind,
            file,
            link,
            regions,
            resettable: info.flags & vfio::VFIO_DEVICE_FLAGS_RESET != 0,
        })
    }

    /// Attaches the device to a page table, or to the address space for which the kernel then
    /// makes one.
    pub(crate) fn attach(&self, table: u32) -> Result<(), Error> {
        let mut argument = vfio::vfio_device_attach_iommufd_pt {
            pt_id: table,
            ..Default::default()
        };
        sys::attach_pt(self.fd(), &mut argument)
            .map(drop)
            .map_err(|source| self.failed(Operation::Attach, source))
    }

    /// The device's name on the host.
    #[must_use]
    pub fn bdf(&self) -> Bdf {
        self.bdf
    }

    /// Whether an IOMMU translates for the device.
    #[must_use]
    pub fn kind(&self) -> CdevKind {
        self.kind
    }

    /// The number that an [`Iommufd`] gave the device; `None` if it was opened through its group.
    pub(crate) fn iommufd_id(&self) -> Option<DeviceId> {
        match self.link {
            Link::Iommufd { id, .. } => Some(id),
            Link::Group(_) => None,
        }
    }

    /// The groups of which its own is one, if it was opened through that.
    pub(crate) fn groups(&self) -> Option<&Groups> {
        match &self.link {
            Link::Iommufd { .. } => None,
            Link::Group(groups) => Some(groups),
        }
    }

    /// Whether the function can be reset by itself (`VFIO_DEVICE_RESET`).
    #[must_use]
    pub fn is_resettable(&self) -> bool {
        self.resettable
    }

    /// Region `index` in VFIO's numbering: BARs 0 to 5, ROM 6, config space 7. `None` beyond.
    #[must_use]
    pub fn region(&self, index: u32) -> Option<&Region> {
        self.regions.get(index as usize)
    }

    /// Size of config space in bytes.
    #[must_use]
    pub fn config_size(&self) -> u16 {
        self.region(vfio::VFIO_PCI_CONFIG_REGION_INDEX)
            .map_or(0, |config| u16::try_from(config.size).unwrap_or(u16::MAX))
    }

    /// Reads 1, 2 or 4 bytes of config space at a naturally aligned `offset`, or any number of dwords.
    ///
    /// # Errors
    /// [`Error::Device`]
    pub fn config_read(&self, offset: u16, data: &mut [u8]) -> Result<(), Error> {
        self.region_read(vfio::VFIO_PCI_CONFIG_REGION_INDEX, u64::from(offset), data)
    }

    /// Writes 1, 2 or 4 bytes of config space at a naturally aligned `offset`.
    ///
    /// # Errors
    /// [`Error::Device`]
    pub fn config_write(&self, offset: u16, data: &[u8]) -> Result<(), Error> {
        self.region_write(vfio::VFIO_PCI_CONFIG_REGION_INDEX, u64::from(offset), data)
    }

    /// Reads `data.len()` bytes of region `index`: 1, 2, 4, 8, or a multiple of 8, of which the kernel
    /// makes the accesses that it makes of 8.
    ///
    /// # Errors
    /// [`Error::Device`], with `EINVAL` outside the region and `EIO` while memory decode is off.
    pub fn region_read(&self, index: u32, offset: u64, data: &mut [u8]) -> Result<(), Error> {
        self.file_offset(index, offset, data.len())
            .and_then(|at| self.file.read_exact_at(data, at))
            .map_err(|source| self.failed(Operation::ReadRegister, source))
    }

    /// Writes `data.len()` bytes of region `index`: 1, 2, 4, 8, or a multiple of 8, of which the kernel
    /// makes the accesses that it makes of 8.
    ///
    /// # Errors
    /// [`Error::Device`], with `EINVAL` outside the region and `EIO` while memory decode is off.
    pub fn region_write(&self, index: u32, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.file_offset(index, offset, data.len())
            .and_then(|at| self.file.write_all_at(data, at))
            .map_err(|source| self.failed(Operation::WriteRegister, source))
    }

    /// Maps `area` of region `index`, one of its mappable parts or within one, at an address
    /// congruent to where the host has it. The mapping keeps the device open.
    ///
    /// # Errors
    /// [`Error::Map`], [`Error::Device`]
    pub fn map_region(
        &self,
        index: u32,
        area: &Range<u64>,
        physical: Hpa,
    ) -> Result<Mapping, Error> {
        let len = area.end.saturating_sub(area.start);
        let offset = self
            .region(index)
            .filter(|region| area.end <= region.size)
            .map(|region| region.file_offset + area.start)
            .ok_or_else(|| {
                self.failed(
                    Operation::MapRegion,
                    io::Error::from_raw_os_error(libc::EINVAL),
                )
            })?;
        let mut mapping = Mapping::reserve(len, physical.0)?;
        let part = FileRange {
            file: self.fd(),
            offset,
            len,
        };
        mapping.place(0, part, "device registers")?;
        Ok(mapping)
    }

    fn file_offset(&self, index: u32, offset: u64, len: usize) -> io::Result<u64> {
        self.region(index)
            .filter(|region| {
                offset
                    .checked_add(len as u64)
                    .is_some_and(|end| end <= region.size)
            })
            .map(|region| region.file_offset + offset)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub(crate) fn failed(&self, operation: Operation, source: io::Error) -> Error {
        Error::Device {
            bdf: self.bdf,
            operation,
            source,
        }
    }
}

fn region(bdf: Bdf, file: &File, index: u32) -> Result<Region, Error> {
    match sys::region_info(file.as_fd(), index) {
        Ok(answer) => Region::parse(&answer).map_err(|error| Error::DeviceUnusable {
            bdf,
            reason: format!("region {index}: {error}"),
        }),
        // What the device does not have.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Region::default()),
        Err(source) => Err(Error::Device {
            bdf,
            operation: Operation::DescribeRegion,
            source,
        }),
    }
}
