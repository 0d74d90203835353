// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Refusals of the kernel.

use address::{Hpa, Iova};
use iommufd_backend::extent::ExtentError;
use iommufd_backend::{Error as Backend, GetPaError, IommufdOperation, Operation, RingOperation};

use super::samples::{bdf, errno};
use crate::error::Error;

/// All of them, with each difference that matters.
pub fn all() -> Vec<Error> {
    let all = [opened(), groups(), commands(), memory(), places(), files()];
    all.into_iter().flatten().map(Error::from).collect()
}

/// `/dev/iommu` and devices that do not open.
fn opened() -> Vec<Backend> {
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
    vec![
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
    ]
}

/// Groups, containers and io_uring.
fn groups() -> Vec<Backend> {
    let bdf = bdf();
    let group = |number| Backend::OpenGroup {
        bdf,
        path: "/dev/vfio/noiommu-0".into(),
        source: errno(number),
    };
    let container = |number| Backend::OpenContainer {
        path: "/dev/vfio/vfio".into(),
        source: errno(number),
    };
    let ring = |number| Backend::IoUring {
        operation: RingOperation::MakeRing,
        source: errno(number),
    };
    vec![
        Backend::NoGroup {
            bdf,
            driver: "vfio-pci".to_owned(),
        },
        group(libc::EPERM),
        group(libc::EBUSY),
        group(libc::ENOENT),
        container(libc::ENOENT),
        container(libc::EACCES),
        ring(libc::EPERM),
        ring(libc::ENOSYS),
        ring(libc::ENOMEM),
    ]
}

/// Commands that are refused.
fn commands() -> Vec<Backend> {
    let bdf = bdf();
    let device = |operation, number| Backend::Device {
        bdf,
        operation,
        source: errno(number),
    };
    vec![
        device(Operation::Bind, libc::EPERM),
        device(Operation::Bind, libc::ENOSYS),
        device(Operation::Bind, libc::EBUSY),
        device(Operation::SetNoiommu, libc::ENODEV),
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
    ]
}

/// Memory that is not pinned or mapped.
fn memory() -> Vec<Backend> {
    let pin = |number| Backend::Pin {
        len: 1 << 30,
        source: errno(number),
    };
    let map = |number| Backend::Map {
        len: 4096,
        what: "hugepages",
        source: errno(number),
    };
    vec![
        pin(libc::ENOMEM),
        pin(libc::EPERM),
        pin(libc::ENOSYS),
        pin(libc::EINVAL),
        map(libc::ENOMEM),
        map(libc::EPERM),
        map(libc::ENOSPC),
        map(libc::EINVAL),
        map(libc::EMFILE),
    ]
}

/// Answers about where memory is.
fn places() -> Vec<Backend> {
    let translate = |source| Backend::Translate {
        iova: Iova(0),
        source,
    };
    vec![
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
        Backend::PageAbsent { iova: Iova(0) },
        Backend::Extent(ExtentError::Empty {
            iova: Iova(0),
            hpa: Hpa(0),
        }),
    ]
}

/// Files of the kernel's.
fn files() -> Vec<Backend> {
    let read = |path: &str, number| Backend::Read {
        path: path.into(),
        source: errno(number),
    };
    let parse = |path: &str| Backend::Parse {
        path: path.into(),
        found: String::new(),
    };
    let pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    vec![
        Backend::AddressesHidden {
            path: "/proc/iomem".into(),
        },
        Backend::AddressesHidden {
            path: "/proc/self/pagemap".into(),
        },
        read("/proc/iomem", libc::ENOENT),
        read("/sys/bus/pci/devices", libc::ENOENT),
        read(pool, libc::ENOENT),
        read("/proc/self/pagemap", libc::EACCES),
        parse("/sys/x"),
        parse("/x"),
    ]
}
