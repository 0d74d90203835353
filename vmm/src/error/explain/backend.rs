// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Explains refusals of the kernel: `/dev/iommu`, VFIO devices, sysfs, memory to pin.

use std::io;
use std::path::Path;

use host::Id;
use iommufd_backend::{Error as Backend, ErrorKind as BackendKind, GetPaError, Operation};
use strum::IntoEnumIterator;

use super::Explain;
use super::exit_code::ExitCode;
use super::limits::{Limits, errno};

impl Explain for Backend {
    fn ids() -> Vec<&'static str> {
        BackendKind::iter().map(Into::into).collect()
    }

    fn id(&self) -> &'static str {
        BackendKind::from(self).into()
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::OpenCdev { source, .. }
            | Self::OpenGroup { source, .. }
            | Self::Pin { source, .. }
            | Self::Map { source, .. }
            | Self::Translate {
                source: GetPaError::Other(source),
                ..
            } if is_denied(source) => ExitCode::Host,
            // If an IOMMU cannot distinguish devices, binding is refused with EPERM, too.
            Self::Device { source, .. } if source.raw_os_error() == Some(libc::ENOSYS) => {
                ExitCode::Host
            }
            Self::Device {
                operation: Operation::SetContainer | Operation::SetNoiommu,
                ..
            }
            | Self::OpenContainer { .. }
            | Self::IoUring { .. }
            | Self::OpenIommufd { .. }
            | Self::Iommufd { .. }
            | Self::NoCdev { .. }
            | Self::NoGroup { .. }
            | Self::NotBound {
                unsafe_mode: None, ..
            }
            | Self::Read { .. }
            | Self::Parse { .. }
            | Self::AddressesHidden { .. }
            | Self::Translate {
                source:
                    GetPaError::NoSuchCommand | GetPaError::NotNoiommu | GetPaError::NotPermitted,
                ..
            } => ExitCode::Host,
            Self::NoDevice { .. }
            | Self::NotBound { .. }
            | Self::OpenCdev { .. }
            | Self::OpenGroup { .. }
            | Self::Device { .. }
            | Self::DeviceUnusable { .. }
            | Self::NotQuiet { .. } => ExitCode::Device,
            Self::Pin { .. }
            | Self::Translate { .. }
            | Self::Misaligned { .. }
            | Self::PageAbsent { .. }
            | Self::Map { .. }
            | Self::Extent(_) => ExitCode::Memory,
        }
    }

    fn hint(&self, limits: Limits) -> Option<String> {
        match self {
            // What else makes it fail is looked at only where no limit does.
            Self::Map { .. } => errno(self)
                .and_then(|errno| limits.explain(errno))
                .or_else(|| self.hint()),
            Self::Pin { source, .. }
                if source.raw_os_error() == Some(libc::ENOMEM) && !limits.limit_locked_memory() =>
            {
                Some(
                    "the host, or the control group of this process, is out of memory: use a \
                     smaller --memory, or reserve more hugepages"
                        .to_owned(),
                )
            }
            _ => self.hint(),
        }
    }

    fn check(&self, limits: Limits) -> Option<Id> {
        Some(match self {
            Self::OpenIommufd { .. } => Id::Iommufd,
            Self::NoDevice { .. } => Id::DeviceExists,
            Self::NotBound { .. } => Id::DeviceDriver,
            Self::NoCdev { .. } | Self::NoGroup { .. } => Id::DeviceCdev,
            Self::OpenContainer { .. } => Id::Backend,
            Self::IoUring { .. } => Id::IoUring,
            Self::Device {
                operation: Operation::SetNoiommu,
                source,
                ..
            } => match source.raw_os_error() {
                Some(libc::ENODEV) => Id::UnsafeMode,
                _ => return None,
            },
            Self::OpenGroup { source, .. } if source.raw_os_error() == Some(libc::EBUSY) => {
                Id::DeviceInUse
            }
            Self::OpenCdev { source, .. } | Self::OpenGroup { source, .. } => {
                match source.raw_os_error() {
                    Some(libc::EPERM) => Id::CapabilityRawio,
                    _ => Id::DeviceCdev,
                }
            }
            Self::Pin { source, .. } if source.raw_os_error() == Some(libc::ENOMEM) => {
                match limits.limit_locked_memory() {
                    true => Id::Memlock,
                    false => return None,
                }
            }
            Self::Translate { source, .. } => match source {
                GetPaError::NotPermitted => Id::CapabilityRawio,
                GetPaError::NoSuchCommand => Id::KernelVersion,
                GetPaError::NotNoiommu => Id::KernelConfig,
                _ => return None,
            },
            Self::AddressesHidden { path } | Self::Read { path, .. } | Self::Parse { path, .. } => {
                return of_file(path);
            }
            _ => return None,
        })
    }
}

/// Whether this machine, or the container that it is, denies the call.
fn is_denied(source: &io::Error) -> bool {
    matches!(source.raw_os_error(), Some(libc::EPERM | libc::ENOSYS))
}

fn of_file(path: &Path) -> Option<Id> {
    let ids = [
        ("/proc/iomem", Id::AddressMap),
        ("/run/pinvisor/iomem", Id::AddressMap),
        ("/proc/self/pagemap", Id::PageAddresses),
        ("/sys/kernel/mm/hugepages", Id::Hugepages),
        ("/sys", Id::Sysfs),
    ];
    let found = ids.into_iter().find(|(start, _)| path.starts_with(start));
    found.map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errno(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    fn opened(number: i32) -> Backend {
        Backend::OpenCdev {
            bdf: "01:00.0".parse().unwrap(),
            path: "/dev/vfio/devices/noiommu-vfio0".into(),
            source: errno(number),
        }
    }

    #[test]
    fn what_is_missing_has_the_name_of_its_check() {
        let id = |error: Backend| error.check(Limits::NONE).map(Id::name);
        assert_eq!(id(opened(libc::EPERM)), Some("capability-rawio"));
        assert_eq!(id(opened(libc::ENOENT)), Some("device-cdev"));
        let read = |path: &str| {
            id(Backend::Read {
                path: path.into(),
                source: errno(libc::ENOENT),
            })
        };
        assert_eq!(read("/sys/bus/pci/devices"), Some("sysfs"));
        assert_eq!(
            read("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"),
            Some("hugepages")
        );
        assert_eq!(read("/proc/iomem"), Some("address-map"));
        assert_eq!(read("/run/pinvisor/iomem"), Some("address-map"));
        assert_eq!(read("/proc/self/pagemap"), Some("page-addresses"));
    }

    #[test]
    fn what_this_machine_denies_is_not_the_device_or_its_memory() {
        let denied = |number| {
            let pin = Backend::Pin {
                len: 4096,
                source: errno(number),
            };
            let map = Backend::Map {
                len: 4096,
                what: "hugepages",
                source: errno(number),
            };
            [opened(number), pin, map].map(|error| error.exit_code())
        };
        assert_eq!(denied(libc::EPERM), [ExitCode::Host; 3]);
        assert_eq!(denied(libc::ENOSYS), [ExitCode::Host; 3]);
        let refused = [ExitCode::Device, ExitCode::Memory, ExitCode::Memory];
        assert_eq!(denied(libc::EINVAL), refused);
    }
}
