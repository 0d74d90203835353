// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Refusals of the kernel.

use address::{Hpa, Iova};
use iommufd_backend::extent::ExtentError;
use iommufd_backend::{Error as Backend, GetPaError, IommufdOperation, Operation};

use super::samples::{bdf, errno};
use crate::error::Error;

/// All of them, with each difference that matters.
pub fn all() -> Vec<Error> {
    let bdf = bdf();
    let iommufd = |number| Backend::OpenIommufd {
        path: "/dev/iommu".into(),
        source: errno(number),
    };
    let not_bound = |unsafe_mode| Backend::NotBound {
        bdf,
        driver: None,
        unsafe_mode,
    };
    let cdev = |number| Backend::OpenCdev {
        bdf,
        path: "/dev/vfio/devices/noiommu-vfio0".into(),
        source: errno(number),
    };
    let device = |operation, number| Backend::Device {
        bdf,
        operation,
        source: errno(number),
    };
    let pin = |number| Backend::Pin {
        length: 1 << 30,
        source: errno(number),
    };
    let translate = |source| Backend::Translate {
        iova: Iova(0),
        source,
    };
    let read = |path: &str, number| Backend::Read {
        path: path.into(),
        source: errno(number),
    };
    let parse = |path: &str| Backend::Parse {
        path: path.into(),
        found: String::new(),
    };
    let map = |number| Backend::Map {
        length: 4096,
        what: "hugepages",
        source: errno(number),
    };
    [
        iommufd(libc::ENOENT),
        iommufd(libc::EACCES),
        iommufd(libc::EPERM),
        Backend::NoDevice { bdf },
        not_bound(None),
        not_bound(Some(false)),
        not_bound(Some(true)),
        Backend::NoCdev {
            bdf,
            driver: "vfio-pci".to_owned(),
        },
        cdev(libc::EPERM),
        cdev(libc::ENOSYS),
        cdev(libc::EACCES),
        cdev(libc::ENOENT),
        cdev(libc::EMFILE),
        device(Operation::Bind, libc::EPERM),
        device(Operation::Bind, libc::ENOSYS),
        device(Operation::Bind, libc::EBUSY),
        device(Operation::Reset, libc::EBUSY),
        Backend::DeviceUnusable {
            bdf,
            reason: "odd".to_owned(),
        },
        Backend::NotQuiet { bdf },
        Backend::Iommufd {
            operation: IommufdOperation::Unmap,
            source: errno(libc::EINVAL),
        },
        pin(libc::ENOMEM),
        pin(libc::EPERM),
        pin(libc::ENOSYS),
        pin(libc::EINVAL),
        translate(GetPaError::NotPermitted),
        translate(GetPaError::NoSuchCommand),
        translate(GetPaError::NotNoiommu),
        translate(GetPaError::NotMapped),
        translate(GetPaError::Other(errno(libc::EPERM))),
        translate(GetPaError::Other(errno(libc::EIO))),
        Backend::Misaligned {
            iova: Iova(0),
            hpa: Hpa(4096),
            page_size: 2 << 20,
        },
        Backend::Extent(ExtentError::Empty {
            iova: Iova(0),
            hpa: Hpa(0),
        }),
        Backend::AddressesHidden {
            path: "/proc/iomem".into(),
        },
        read("/proc/iomem", libc::ENOENT),
        read("/sys/bus/pci/devices", libc::ENOENT),
        read(
            "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
            libc::ENOENT,
        ),
        read("/proc/self/pagemap", libc::EACCES),
        parse("/sys/x"),
        parse("/x"),
        map(libc::ENOMEM),
        map(libc::EPERM),
        map(libc::ENOSPC),
        map(libc::EINVAL),
        map(libc::EMFILE),
    ]
    .map(Error::from)
    .into()
}
