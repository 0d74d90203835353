// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Errors on the kernel's side, with hints.

use std::io;
use std::path::{Path, PathBuf};

use address::{Bdf, Hpa, Iova};
use strum::{EnumDiscriminants, EnumIter, IntoStaticStr};

use crate::extent::ExtentError;
use crate::operation::{IommufdOperation, Operation};

/// Failure of an operation on `/dev/iommu`, a VFIO device, sysfs or a hugepage pool. The kernel's
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

impl Error {
    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::OpenIommufd { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => Some(
                    "load the host's module: modprobe iommufd; if that fails, boot a host kernel \
                     with CONFIG_IOMMUFD"
                        .into(),
                ),
                io::ErrorKind::PermissionDenied => Some("run as root".into()),
                _ => None,
            },
            Self::NoDevice { .. } => Some("pinvisor list shows the PCI devices".into()),
            Self::NotBound {
                bdf, unsafe_mode, ..
            } => Some(how_to_bind(*bdf, *unsafe_mode)),
            Self::NoCdev { bdf, .. } => Some(format!(
                "boot Linux 7.3 or later with CONFIG_VFIO_DEVICE_CDEV on the host; if it runs \
                 already, bind the device again: pinvisor unbind {bdf}, then pinvisor bind {bdf}"
            )),
            Self::OpenCdev { source, .. } => cdev_hint(source).map(Into::into),
            Self::Device {
                bdf,
                operation,
                source,
            } => device_hint(*bdf, *operation, source),
            Self::DeviceUnusable { bdf, .. } => Some(format!(
                "lspci -vvs {bdf} shows its state; if it does not respond, power the host off and \
                 on (a reboot may not be enough)"
            )),
            Self::Iommufd { source, .. } if is_unsupported(source) => {
                Some("the host kernel may be too old, or lack an option: pinvisor check".into())
            }
            Self::Pin { len, source } if source.raw_os_error() == Some(libc::ENOMEM) => {
                Some(locked_memory_hint(*len))
            }
            Self::Map { source, .. } if source.raw_os_error() == Some(libc::ENOMEM) => Some(
                "raise the host's limit on mappings: sysctl vm.max_map_count=1048576 (each piece \
                 of scattered guest memory needs one)"
                    .into(),
            ),
            Self::Translate { source, .. } => source.hint().map(Into::into),
            Self::AddressesHidden { .. } | Self::Parse { .. } | Self::Read { .. } => {
                self.file_hint()
            }
            Self::Misaligned { .. } | Self::Extent(_) | Self::NotQuiet { .. } => Some(
                "this is a bug in Pinvisor or in the host kernel: please report it, with the \
                 output of pinvisor check and of uname -r"
                    .into(),
            ),
            _ => None,
        }
    }
}

impl Error {
    /// [`hint`](Self::hint), of files of the kernel.
    fn file_hint(&self) -> Option<String> {
        match self {
            Self::AddressesHidden { .. } => Some(
                "run as root outside a container: the kernel requires CAP_SYS_ADMIN in the initial \
                 user namespace"
                    .into(),
            ),
            Self::Parse { path, .. } => Some(format!(
                "check that the file is the host kernel's own (ls -l {}); if it is, please report \
                 a bug, with uname -r",
                path.display()
            )),
            Self::Read { path, source } if source.kind() == io::ErrorKind::NotFound => {
                missing_mount(path)
            }
            _ => None,
        }
    }
}

/// How a process comes to pin `bytes` of guest memory.
#[must_use]
pub fn locked_memory_hint(bytes: u64) -> String {
    format!(
        "raise the limit on locked memory to the size of guest memory (ulimit -l {} or more, in \
         KiB), or run as root or with CAP_IPC_LOCK",
        bytes.div_ceil(1024)
    )
}

/// What to do about a device's node that does not open.
fn cdev_hint(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error() {
        Some(libc::EPERM) => Some(
            "run as root outside a container: opening a device in noiommu mode requires \
                 CAP_SYS_RAWIO in the initial user namespace",
        ),
        Some(libc::EACCES) => Some("run as root"),
        Some(libc::ENOENT) => Some(
            "mount devtmpfs on /dev: mount -t devtmpfs devtmpfs /dev; a container needs the host's \
             /dev/vfio/devices",
        ),
        _ => None,
    }
}

/// Whether a kernel gives this errno for a command that it does not know or support.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOTTY | libc::EOPNOTSUPP | libc::EINVAL)
    )
}

/// What to do where the kernel refuses `operation` on a device.
fn device_hint(bdf: Bdf, operation: Operation, error: &io::Error) -> Option<String> {
    match (operation, error.raw_os_error()) {
        (Operation::Bind, Some(libc::EINVAL | libc::EBUSY)) => Some(format!(
            "the host's log has the reason, for example a BAR without an address: dmesg | grep -e \
             {bdf} -e vfio"
        )),
        // Behind an IOMMU only: a device without one is refused when it is opened.
        (Operation::Bind, Some(libc::EPERM)) => Some(format!(
            "a function in its IOMMU group has another driver, or the IOMMU does not remap \
             interrupts: pinvisor check {bdf}"
        )),
        (_, Some(libc::EIO | libc::ENODEV | libc::ETIMEDOUT)) => Some(format!(
            "the host's log may have the reason: dmesg | grep -e {bdf} -e vfio; if the device \
             hangs, power the host off and on (a reboot may not be enough)"
        )),
        _ => None,
    }
}

/// What to do where a file of the kernel's is not there.
fn missing_mount(path: &Path) -> Option<String> {
    let mut roots = [("/sys", "sysfs"), ("/proc", "proc")].into_iter();
    let (root, kind) = roots.find(|(root, _)| path.starts_with(root))?;
    Some(format!(
        "if {root} is not mounted: mount -t {kind} {kind} {root} (a container needs the host's); \
         otherwise the host kernel does not provide this file: pinvisor check"
    ))
}

/// The commands that bind a device to vfio-pci.
fn how_to_bind(bdf: Bdf, unsafe_mode: Option<bool>) -> String {
    let bind = format!("pinvisor bind {bdf}");
    match unsafe_mode {
        Some(true) => bind,
        Some(false) => format!(
            "{bind}; without an IOMMU, first turn the kernel's unsafe mode on: echo 1 > \
             /sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
        ),
        None => format!(
            "{bind}; without an IOMMU, the host kernel must be Linux 7.3 or later with \
             CONFIG_VFIO_NOIOMMU, which is missing or not loaded: pinvisor check"
        ),
    }
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

impl GetPaError {
    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotPermitted => Some("run as root outside a container"),
            Self::NoSuchCommand => Some("boot Linux 7.3 or later on the host"),
            Self::NotNoiommu => {
                Some("boot a host kernel with CONFIG_VFIO_NOIOMMU and CONFIG_VFIO_DEVICE_CDEV")
            }
            _ => None,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refused_bind_has_the_hints_of_one() {
        let refused = |operation, number| Error::Device {
            bdf: "01:00.0".parse().unwrap(),
            operation,
            source: io::Error::from_raw_os_error(number),
        };
        let bind = refused(Operation::Bind, libc::EBUSY);
        assert_eq!(
            bind.to_string(),
            "PCI device 0000:01:00.0: cannot bind it to /dev/iommu"
        );
        assert!(bind.hint().unwrap().contains("dmesg"));
        let denied = refused(Operation::Bind, libc::EPERM).hint().unwrap();
        assert!(denied.contains("remap interrupts"), "{denied}");
        for operation in [Operation::Attach, Operation::Reset, Operation::ReadRegister] {
            for number in [libc::EBUSY, libc::EINVAL, libc::EPERM] {
                assert_eq!(refused(operation, number).hint(), None, "{operation}");
            }
        }
        let unmap = Error::Iommufd {
            operation: IommufdOperation::Unmap,
            source: io::Error::from_raw_os_error(libc::ENOENT),
        };
        assert_eq!(unmap.to_string(), "/dev/iommu: cannot unmap guest memory");
    }
}
