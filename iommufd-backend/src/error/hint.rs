// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the user can do about an error on the kernel's side.

use std::io;
use std::path::Path;

use address::Bdf;

use super::{Error, GetPaError};
use crate::iomem::COPY_IOMEM;
use crate::operation::{Operation, RingOperation};

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
                "omit --backend cdev, or boot Linux 7.3 or later with CONFIG_VFIO_DEVICE_CDEV on the host; if it runs \
                 already, bind the device again: pinvisor unbind {bdf}, then pinvisor bind {bdf}"
            )),
            Self::OpenCdev { source, .. } => node_hint(source, "/dev/vfio/devices"),
            Self::NoGroup { .. } | Self::OpenGroup { .. } | Self::OpenContainer { .. } => {
                self.group_hint()
            }
            Self::Device {
                bdf,
                operation,
                source,
            } => device_hint(*bdf, *operation, source),
            Self::DeviceUnusable { bdf, .. } => Some(format!(
                "lspci -vvs {bdf} shows its state; if it does not respond, power the host off and \
                 on (a reboot may not be enough)"
            )),
            Self::IoUring { operation, source } => ring_hint(*operation, source).map(Into::into),
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
            Self::Misaligned { .. }
            | Self::PageAbsent { .. }
            | Self::Extent(_)
            | Self::NotQuiet { .. } => Some(
                "this is a bug in Pinvisor or in the host kernel: please report it, with the \
                 output of pinvisor check and of uname -r"
                    .into(),
            ),
            _ => None,
        }
    }
}

impl Error {
    /// [`hint`](Self::hint), of groups and containers.
    fn group_hint(&self) -> Option<String> {
        match self {
            Self::NoGroup { bdf, .. } => Some(format!(
                "boot a host kernel with CONFIG_VFIO_GROUP and CONFIG_VFIO_NOIOMMU; if it runs already, bind the device \
                 again with the unsafe mode on: pinvisor unbind {bdf}, then pinvisor bind {bdf}"
            )),
            Self::OpenGroup { bdf, source, .. } => match source.raw_os_error() {
                Some(libc::EBUSY) => Some(format!(
                    "another process has the device: pinvisor check {bdf} shows which"
                )),
                _ => node_hint(source, "/dev/vfio"),
            },
            Self::OpenContainer { source, .. } => match source.raw_os_error() {
                Some(libc::ENOENT | libc::ENODEV) => Some(
                    "load the host's module: modprobe vfio; if that does not help, boot a host kernel with \
                     CONFIG_VFIO_CONTAINER (or CONFIG_IOMMUFD_VFIO_CONTAINER); a container needs the host's \
                     /dev/vfio/vfio"
                        .into(),
                ),
                _ => node_hint(source, "/dev/vfio"),
            },
            _ => None,
        }
    }

    /// [`hint`](Self::hint), of files of the kernel.
    fn file_hint(&self) -> Option<String> {
        match self {
            Self::AddressesHidden { path } => {
                let copy = match path.ends_with("iomem") {
                    true => format!("; or, as root outside: {COPY_IOMEM}"),
                    false => String::new(),
                };
                Some(format!(
                    "run as root outside a container: the kernel requires CAP_SYS_ADMIN in the initial user \
                     namespace{copy}"
                ))
            }
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

/// What to do about a device's node, in the directory `place`, that does not open.
fn node_hint(error: &io::Error, place: &str) -> Option<String> {
    match error.raw_os_error() {
        Some(libc::EPERM) => Some(
            "run as root outside a container: opening a device in noiommu mode requires \
                 CAP_SYS_RAWIO in the initial user namespace"
                .into(),
        ),
        Some(libc::EACCES) => Some("run as root".into()),
        Some(libc::ENOENT) => Some(format!(
            "mount devtmpfs on /dev: mount -t devtmpfs devtmpfs /dev; a container needs the host's \
             {place}"
        )),
        _ => None,
    }
}

/// What to do where io_uring refuses `operation`.
fn ring_hint(operation: RingOperation, error: &io::Error) -> Option<&'static str> {
    match (operation, error.raw_os_error()) {
        (RingOperation::MakeRing, Some(libc::EPERM | libc::EACCES)) => Some(
            "sysctl kernel.io_uring_disabled=0 (2 forbids io_uring to all, 1 to callers without CAP_SYS_ADMIN); in a \
             container, allow io_uring_setup and io_uring_register in its seccomp filter",
        ),
        (RingOperation::MakeRing, Some(libc::ENOSYS | libc::EINVAL)) => Some(
            "boot Linux 5.15 or later with CONFIG_IO_URING on the host; in a container, allow io_uring_setup and \
             io_uring_register in its seccomp filter",
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
        (Operation::SetNoiommu, Some(libc::ENODEV)) => Some(
            "turn the kernel's unsafe mode on, which devices with groups require for each run: echo 1 > \
             /sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
                .into(),
        ),
        (Operation::SetNoiommu | Operation::OpenThroughGroup, Some(libc::EPERM)) => {
            Some("run as root outside a container".into())
        }
        (Operation::OpenThroughGroup, Some(libc::EINVAL | libc::EBUSY)) => Some(format!(
            "the host's log has the reason, for example a BAR without an address: dmesg | grep -e \
             {bdf} -e vfio"
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
            "{bind}; without an IOMMU, the host kernel must have CONFIG_VFIO_NOIOMMU, which is missing or not \
             loaded: pinvisor check"
        ),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::IommufdOperation;

    #[test]
    fn what_a_group_needs_is_named() {
        let errno = io::Error::from_raw_os_error;
        let bdf: Bdf = "01:00.0".parse().unwrap();
        let group = |number| Error::OpenGroup {
            bdf,
            path: "/dev/vfio/noiommu-0".into(),
            source: errno(number),
        };
        let container = Error::OpenContainer {
            path: "/dev/vfio/vfio".into(),
            source: errno(libc::ENOENT),
        };
        let mode = Error::Device {
            bdf,
            operation: Operation::SetNoiommu,
            source: errno(libc::ENODEV),
        };
        let ring = |number| Error::IoUring {
            operation: RingOperation::MakeRing,
            source: errno(number),
        };
        for (error, words) in [
            (group(libc::EBUSY), "another process has the device"),
            (group(libc::EPERM), "CAP_SYS_RAWIO"),
            (group(libc::ENOENT), "/dev/vfio"),
            (container, "CONFIG_VFIO_CONTAINER"),
            (mode, "enable_unsafe_noiommu_mode"),
            (ring(libc::EPERM), "kernel.io_uring_disabled=0"),
            (ring(libc::ENOSYS), "CONFIG_IO_URING"),
        ] {
            let hint = error.hint().unwrap();
            assert!(hint.contains(words), "{error}: {hint}");
        }
    }

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
