// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Errors on the kernel's side. Their hints are in `hint`.

pub(crate) mod hint;

use std::io;
use std::path::PathBuf;

use address::{Bdf, Hpa, Iova};
use strum::{EnumDiscriminants, EnumIter, IntoStaticStr};

use crate::extent::ExtentError;
use crate::operation::{IommufdOperation, Operation, RingOperation};

/// Failure of an operation on `/dev/iommu`, a VFIO device, io_uring, sysfs or a hugepage pool. The kernel's
/// errno is the source.
#[derive(Debug, thiserror::Error, EnumDiscriminants)]
#[strum_discriminants(
    name(ErrorKind),
    derive(EnumIter, IntoStaticStr),
    strum(serialize_all = "kebab-case"),
    doc = "The kinds of [`Error`]; their names stay."
)]
pub enum Error {
    /// `/dev/iommu` does not open.
    #[error("Cannot open {path}")]
    OpenIommufd {
        /// The file tried.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },

    /// No such PCI function.
    #[error("PCI device {bdf} does not exist")]
    NoDevice {
        /// The function asked for.
        bdf: Bdf,
    },

    /// Another driver, or none, holds the device.
    #[error(
        "PCI device {bdf} is not bound to vfio-pci but to {}",
        driver.as_deref().unwrap_or("no driver")
    )]
    NotBound {
        /// The device.
        bdf: Bdf,
        /// The driver that holds it.
        driver: Option<String>,
        /// Whether the kernel would give it away without an IOMMU.
        unsafe_mode: Option<bool>,
    },

    /// The device has no VFIO character device.
    #[error(
        "PCI device {bdf} is bound to {driver} but has no VFIO character device (/dev/vfio/devices/…)"
    )]
    NoCdev {
        /// The device.
        bdf: Bdf,
        /// The driver that holds it.
        driver: String,
    },

    /// The VFIO character device does not open.
    #[error("Cannot open {} of PCI device {bdf}", path.display())]
    OpenCdev {
        /// The device.
        bdf: Bdf,
        /// The file tried.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },

    /// VFIO made no group for the device by which it gives away one that no IOMMU translates.
    #[error(
        "PCI device {bdf} is bound to {driver} but has no VFIO group in noiommu mode (/dev/vfio/noiommu-…)"
    )]
    NoGroup {
        /// The device.
        bdf: Bdf,
        /// The driver that holds it.
        driver: String,
    },

    /// The VFIO group does not open.
    #[error("Cannot open {}, the group of PCI device {bdf}", path.display())]
    OpenGroup {
        /// The device.
        bdf: Bdf,
        /// The file tried.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },

    /// The node of VFIO containers does not open.
    #[error("Cannot open {}, which VFIO groups require", path.display())]
    OpenContainer {
        /// The file tried.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },

    /// A command to a device failed.
    #[error("PCI device {bdf}: cannot {operation}")]
    Device {
        /// The device.
        bdf: Bdf,
        /// What was tried.
        operation: Operation,
        /// Why not.
        source: io::Error,
    },

    /// The device answered something that cannot be worked with.
    #[error("PCI device {bdf}: {reason}")]
    DeviceUnusable {
        /// The device.
        bdf: Bdf,
        /// What is wrong with it.
        reason: String,
    },

    /// Memory was to be released although a device that may access it is not known to be quiet.
    #[error("Internal error: PCI device {bdf} may still do DMA, so guest memory stays pinned")]
    NotQuiet {
        /// The device.
        bdf: Bdf,
    },

    /// A command to `/dev/iommu` failed.
    #[error("/dev/iommu: cannot {operation}")]
    Iommufd {
        /// What was tried.
        operation: IommufdOperation,
        /// Why not.
        source: io::Error,
    },

    /// Guest memory could not be pinned.
    #[error("Cannot pin {} MiB of guest memory", len.div_ceil(1 << 20))]
    Pin {
        /// Bytes to pin.
        len: u64,
        /// Why not.
        source: io::Error,
    },

    /// io_uring, by which memory of devices with groups is pinned, refuses.
    #[error("io_uring: cannot {operation}")]
    IoUring {
        /// What was tried.
        operation: RingOperation,
        /// Why not.
        source: io::Error,
    },

    /// A page that was pinned, and is not there.
    #[error(
        "The page of guest memory at IOVA {iova} is not in the monitor's page tables although it is pinned"
    )]
    PageAbsent {
        /// Where it was pinned.
        iova: Iova,
    },

    /// The physical address behind an IOVA could not be determined.
    #[error("Cannot determine the host-physical address (HPA) of guest memory at IOVA {iova}")]
    Translate {
        /// The address asked for.
        iova: Iova,
        /// Why not.
        source: GetPaError,
    },

    /// A hugepage that is not where hugepages are: not aligned to its own size.
    #[error(
        "The host kernel reports HPA {hpa} for the hugepage at IOVA {iova}, which is not a multiple \
         of the page size, {} KiB",
        page_size / 1024
    )]
    Misaligned {
        /// Where it was mapped.
        iova: Iova,
        /// Where it is.
        hpa: Hpa,
        /// The size in bytes of the pages that were asked for.
        page_size: u64,
    },

    /// The kernel's answers make no extent.
    #[error("The host kernel returned inconsistent physical addresses for guest memory")]
    Extent(#[from] ExtentError),

    /// The kernel shows no addresses to this caller.
    #[error("{} hides addresses from this process", path.display())]
    AddressesHidden {
        /// The file.
        path: PathBuf,
    },

    /// A file of the kernel's could not be read.
    #[error("Cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },

    /// A file of the kernel cannot be parsed.
    #[error("Cannot parse {}: {found:?}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The text in question.
        found: String,
    },

    /// Address space could not be reserved or mapped.
    #[error("Cannot map {} KiB of {what} into the monitor's address space", len.div_ceil(1024))]
    Map {
        /// Bytes to map.
        len: u64,
        /// What they are.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Refusals of `IOMMU_IOAS_NOIOMMU_GET_PA`, one for each errno
/// (drivers/iommu/iommufd/ioas.c iommufd_ioas_noiommu_get_pa, io_pagetable.c iopt_get_phys).
#[derive(Debug, thiserror::Error)]
pub enum GetPaError {
    /// `EPERM`
    #[error("the caller lacks CAP_SYS_RAWIO")]
    NotPermitted,
    /// `ENOTTY`: Linux before 7.3
    #[error("the host kernel has no IOMMU_IOAS_NOIOMMU_GET_PA")]
    NoSuchCommand,
    /// `EOPNOTSUPP`: no noiommu device is attached, a real IOMMU translates, or the kernel was
    /// built without the noiommu mode
    #[error("the I/O address space has no device in noiommu mode")]
    NotNoiommu,
    /// `EINVAL`: length 0, or the area is a dma-buf that was revoked
    #[error("the length is 0 or the memory no longer exists")]
    Invalid,
    /// `E2BIG`: the structure is longer than this kernel's, and is not zero there
    #[error("the host kernel does not know all fields of the request")]
    TooNew,
    /// `EOVERFLOW`: the last byte of the address space
    #[error("the address is past the end of the address space")]
    OutOfRange,
    /// `ENOENT`: nothing is mapped there, or there is no such IOAS
    #[error("nothing is mapped there")]
    NotMapped,
    /// An errno that the kernel does not give as of Linux 7.3
    #[error(transparent)]
    Other(io::Error),
}

impl From<io::Error> for GetPaError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM) => Self::NotPermitted,
            Some(libc::ENOTTY) => Self::NoSuchCommand,
            Some(libc::EOPNOTSUPP) => Self::NotNoiommu,
            Some(libc::EINVAL) => Self::Invalid,
            Some(libc::E2BIG) => Self::TooNew,
            Some(libc::EOVERFLOW) => Self::OutOfRange,
            Some(libc::ENOENT) => Self::NotMapped,
            _ => Self::Other(error),
        }
    }
}
